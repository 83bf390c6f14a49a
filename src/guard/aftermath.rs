//! What the guard does when the worker is dead: takes off what acts, looks, and only then says so.

use std::convert::Infallible;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use tokio::runtime::Runtime;
use tracing::{error, info, warn};

use super::orphans::Orphans;
use super::will::{Letter, Will};
use crate::gateway::ledger::Ledger;
use crate::link;
use crate::log;
use crate::net::{Netlink, gate};
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
    let started = Instant::now();
    let mut orphans = Orphans::of(worker);
    match bury(&will, &mut orphans, started) {
        Ok(runtime) => {
            let sent = show(&will.letters, &[]);
            let (took, killed) = (started.elapsed().as_micros(), orphans.killed());
            info!("nothing acts after {took} us; {killed} hooks killed; {sent} obituaries sent");
            show(&will.letters, &AGAIN_AFTER);
            // The successor serves: whoever wants to end this process now may.
            if let Err(e) = mask.thread_set_mask() {
                warn!("cannot unblock signals: {e}");
            }
            if let Err(e) = tidy(&will, &runtime, started) {
                error!("`wgha release` is to take off the rest, which hurts nobody: {e}");
            }
        }
        Err(e) => error!(
            "not verified that nothing acts, so nobody is told; `wgha release` tries again: {e:#}"
        ),
    }
}

/// Ends what runs and takes off what acts. Returns once a look found nothing of either.
fn bury(will: &Will, orphans: &mut Orphans, started: Instant) -> anyhow::Result<Runtime> {
    let quiet = orphans.none();
    // Before anything that may wait for a disk, or fail with it.
    let (means, left) = begin(&will.by_config);
    // Whatever else goes wrong: a hook of a master that is none any more must not run on.
    let still_quiet = orphans.kill().is_empty() && quiet && orphans.killed() == 0;
    let (runtime, netlink) = means?;
    let record = StateDir::applied_of(&will.state_dir)?.unwrap_or_default();
    // One look at all of it is enough if nothing ran that could put something back. It waits for the kernel, which takes
    // the worker's devices apart at the same time: a second one doubles the time until a successor serves.
    let verified = still_quiet && left.is_empty() && record.acts_within(&will.by_config);
    if !verified {
        let all = record.and(will.by_config.clone());
        runtime.block_on(take_off(&netlink, &all, orphans, started))?;
    }
    Ok(runtime)
}

/// PostDown, the gate, the barriers and the record.
fn tidy(will: &Will, runtime: &Runtime, started: Instant) -> Result<(), StateError> {
    let state = Arc::new(take_over(&will.state_dir, started)?);
    let Ok(ledger) = Ledger::open(state, || Ok::<_, Infallible>(will.by_config.clone()));
    // The record should name all that; if somebody removed it, it does not. A disk that takes no more is no reason to leave it.
    let all = |record: &mut Applied| *record = std::mem::take(record).and(will.by_config.clone());
    if let Err(e) = ledger.update(all) {
        warn!("the record is not replaced: {e}");
    }
    for what in runtime.block_on(release::tidy(&ledger, Vec::new())) {
        warn!("still there: {what}");
    }
    Ok(())
}

/// Takes off what the config names, and returns what a look still finds of that. Without the means for it at least the gates are shut.
fn begin(by_config: &Applied) -> (anyhow::Result<(Runtime, Netlink)>, Vec<String>) {
    let means = means();
    let left = match &means {
        Ok((runtime, netlink)) => runtime.block_on(release::silence(netlink, by_config)),
        Err(_) => {
            by_config.gates.iter().for_each(|name| _ = gate::shut(name));
            Vec::new()
        }
    };
    (means, left)
}

fn means() -> anyhow::Result<(Runtime, Netlink)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let netlink = runtime.block_on(async { Netlink::open() })?;
    Ok((runtime, netlink))
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

/// Ends what runs and takes off what acts, again and again until a look finds nothing of either. In this order: until it is dead a
/// script may put back what was taken off.
async fn take_off(
    netlink: &Netlink,
    all: &Applied,
    orphans: &mut Orphans,
    started: Instant,
) -> anyhow::Result<()> {
    loop {
        let mut left = orphans.kill();
        left.extend(release::silence(netlink, all).await);
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
