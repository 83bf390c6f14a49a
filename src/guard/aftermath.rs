//! What the guard does when the worker is dead: takes off what acts, looks, and only then says so.

use std::convert::Infallible;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::SigSet;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use tracing::{error, info, warn};

use super::orphans;
use super::will::{Letter, Will};
use crate::gateway::ledger::Ledger;
use crate::link;
use crate::log;
use crate::net::Netlink;
use crate::release;
use crate::state::{Applied, StateDir, StateError};

/// How long what cannot be taken off is tried again, and how often.
const TRIES_FOR: Duration = Duration::from_secs(10);
const TRY_EVERY: Duration = Duration::from_millis(50);
const LOCK_EVERY: Duration = Duration::from_millis(1);

/// An obituary is sent at once and again after these: it may be lost as any datagram.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(50)];

/// Buries the worker. `status`: how it ended, `None` if that is not known yet. `mask`: the signals that were blocked
/// before there was a guard.
pub(super) fn settle(worker: Pid, status: Option<WaitStatus>, will: Option<Will>, mask: &SigSet) {
    // Without a will it never was part of the cluster and put nothing up. One that ended well has taken
    // everything off and said goodbye.
    let Some(will) = will else { return };
    if matches!(status, Some(WaitStatus::Exited(_, 0))) {
        return;
    }
    log::start();
    let how = status.map_or_else(String::new, |status| format!(" ({})", text(status)));
    error!("the worker is dead{how}: taking off what it put up");
    if let Err(e) = bury(worker, &will, mask) {
        error!(
            "not verified that nothing acts, so nobody is told; `wgha release` tries again: {e:#}"
        );
    }
}

fn bury(worker: Pid, will: &Will, mask: &SigSet) -> anyhow::Result<()> {
    let started = Instant::now();
    let state = Arc::new(take_over(&will.state_dir, started)?);
    let by_config = || Ok::<_, Infallible>(will.by_config.clone());
    let Ok(ledger) = Ledger::open(state, by_config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The record should name all that; if somebody removed it, it does not.
    let all = ledger.applied().and(will.by_config.clone());
    let off = runtime.block_on(take_off(&all, started));
    // Whatever else went wrong: a hook of a master that is none any more must not run on.
    let groups = orphans::kill_groups(worker);
    off?;
    let sent = show(&will.letters, &[]);
    info!(
        "nothing acts after {} us; {groups} hooks killed; {sent} obituaries sent",
        started.elapsed().as_micros()
    );
    show(&will.letters, &AGAIN_AFTER);
    // The successor serves: whoever wants to end this process now may.
    mask.thread_set_mask().context("cannot unblock signals")?;
    let left = runtime.block_on(release::tidy(&ledger, Vec::new()));
    for what in left {
        warn!("still there: {what}");
    }
    Ok(())
}

/// The state directory, which the kernel may still be taking from the worker.
fn take_over(state_dir: &Path, started: Instant) -> Result<StateDir, StateError> {
    loop {
        match StateDir::open(state_dir) {
            Err(StateError::InUse { .. }) if started.elapsed() < TRIES_FOR => sleep(LOCK_EVERY),
            result => return result,
        }
    }
}

/// Takes off what acts, again and again until a look finds nothing of it.
async fn take_off(all: &Applied, started: Instant) -> anyhow::Result<()> {
    let netlink = Netlink::open()?;
    loop {
        let left = release::silence(&netlink, all).await;
        if left.is_empty() {
            return Ok(());
        }
        anyhow::ensure!(started.elapsed() < TRIES_FOR, "still there: {}", left.join("; "));
        tokio::time::sleep(TRY_EVERY).await;
    }
}

/// Sends every letter once after each pause; without one, at once. Returns how many went out.
fn show(letters: &[Letter], pauses: &[Duration]) -> usize {
    let mut sockets: Vec<(SocketAddr, Option<UdpSocket>)> = Vec::new();
    let mut sent = 0;
    let rounds = if pauses.is_empty() { &[Duration::ZERO] } else { pauses };
    for pause in rounds {
        sleep(*pause);
        // The worker's own port may have become free meanwhile.
        sockets.clear();
        for letter in letters {
            if !sockets.iter().any(|(from, _)| *from == letter.from) {
                sockets.push((letter.from, socket(letter.from)));
            }
            let known = sockets.iter().find(|(from, _)| *from == letter.from);
            let socket = known.and_then(|(_, socket)| socket.as_ref());
            sent +=
                usize::from(socket.is_some_and(|s| s.send_to(&letter.bytes, letter.to).is_ok()));
        }
    }
    sent
}

/// From the worker's own address and port, which firewalls and NATs know; else from another port.
fn socket(from: SocketAddr) -> Option<UdpSocket> {
    let other = SocketAddr::new(from.ip(), 0);
    let bound = link::bind(from, None).or_else(|_| link::bind(other, None));
    bound.map_err(|e| warn!("no obituary from {from}: {e}")).ok()
}

/// A worker's end, in words.
pub(super) fn text(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exit code {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("killed by {signal}"),
        other => format!("{other:?}"),
    }
}
