//! The gate: a switch in the kernel that lets WireGuard's packets and the floating IPs' ARP and
//! neighbour advertisements pass only while the protocol's loop keeps renewing it. A daemon that is
//! stopped, starved or dead leaves no acting master behind, whoever did it.
//!
//! ```text
//! protocol thread             gate thread                      kernel
//! node.permitted_until()  ->  Permit (an absolute instant) ->  set element with a timeout
//!                             keeper -> kernel -> nft      <-  NFNLGRP_NFTABLES: somebody changed it
//! reconciler              ->  Gate::opened, Gate::closed
//! ```
//!
//! `permit` is the number that all share, `keeper` the thread, `kernel` what it does, `ruleset` what the
//! tables are, [`nft`](super::nft) how that is said, `snapshot` how it is compared.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tracing::{info, warn};
use wgha_proto::Time;

use super::nft::{Connection, Family};
use crate::{clock, priority, realtime};

mod keeper;
mod kernel;
mod permit;
mod ruleset;
mod snapshot;

use keeper::{Command, Keeper};
use kernel::Job;
pub use permit::Permit;
pub use ruleset::{Guarded, Plan};
use snapshot::Snapshot;

/// How long the start waits for the first look at the kernel, which may have to load a module.
const START: Duration = Duration::from_secs(2);
/// How long a takeover waits for the gate to open. Going on is then better than not to serve.
const OPEN: Duration = Duration::from_millis(500);
/// How long leaving waits for the gate to shut before it takes WireGuard down, which shuts as well.
const SHUT: Duration = Duration::from_millis(100);
/// How long taking the tables off may wait for others' transactions.
const REMOVE: Duration = Duration::from_secs(5);

/// How the gate was turned, for status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// Until when it is open; [`Time::ZERO`]: shut.
    pub open_until: Time,
    /// Times that it was opened, renewed or shut.
    pub renewed: u64,
    /// Times that it had shut by itself before it was renewed.
    pub lapsed: u64,
    /// The slowest of them.
    pub slowest: Duration,
}

/// Whether there is a gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Why there is none; `None`: there is.
    pub process_only: Option<String>,
    /// Times that it was put back after others had removed or changed it.
    pub restored: u64,
}

/// What others may see of the gate. Clones see the same.
#[derive(Clone, Debug)]
pub struct Monitor {
    turns: watch::Receiver<Turns>,
    health: watch::Receiver<Health>,
}

impl Monitor {
    /// The counters now.
    #[must_use]
    pub fn turns(&self) -> Turns {
        *self.turns.borrow()
    }

    /// Whether there is a gate now.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Logs what becomes of the gate, until it is gone. Apart from its own thread, which must not wait for
    /// the log.
    pub async fn log(mut self) {
        let mut before: Option<Health> = None;
        loop {
            let now = self.health.borrow_and_update().clone();
            let old = before.take();
            let why = now.process_only.as_ref();
            if old.as_ref().is_none_or(|old| old.process_only.as_ref() != why) {
                match why {
                    None => info!("fencing: gate"),
                    Some(why) => warn!("fencing: process only: {why}"),
                }
            }
            if old.is_some_and(|old| old.restored < now.restored) {
                warn!("put back: the gate's nftables rules");
            }
            before = Some(now);
            if self.health.changed().await.is_err() {
                return;
            }
        }
    }
}

/// The gate of a gateway, and its thread. Dropped, it stays in the kernel and shuts by itself.
#[derive(Debug)]
pub struct Gate {
    commands: Option<mpsc::Sender<Command>>,
    permit: Permit,
    monitor: Monitor,
}

impl Gate {
    /// Builds the gate in the network namespace of this thread, shut, and keeps it as `permit` says. Where
    /// that cannot be done, [`Monitor::health`] says why, and it is tried again each second. `realtime`: its thread is, where allowed.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(name: &str, plan: Plan, permit: Permit, realtime: bool) -> io::Result<Gate> {
        let (turns_tx, turns) = watch::channel(Turns::default());
        let (health_tx, health) = watch::channel(Health::default());
        let (commands, inbox) = mpsc::channel();
        let (ready_tx, ready) = mpsc::sync_channel(1);
        let job = Job {
            name: name.to_owned(),
            plan,
            permit: permit.clone(),
            turns: Turns::default(),
            restored: 0,
        };
        let keeper = Keeper::new(job, inbox, turns_tx, health_tx);
        thread::Builder::new().name("gate".to_owned()).spawn(move || {
            // Without it renewals come late on a busy machine; the protocol's thread says so.
            let _ = priority::raise_this_thread();
            if realtime {
                // It is a heartbeat of the kernel's: late, it shuts the gate of a healthy master. While it waits for others'
                // transactions it is asleep and takes nobody's time.
                let _ = realtime::round_robin();
            }
            // Nobody waiting is no reason not to begin.
            keeper.run(|| _ = ready_tx.send(()));
        })?;
        // One that waits longer, for others' transactions, is as good as none until then.
        let _ = ready.recv_timeout(START);
        Ok(Gate { commands: Some(commands), permit, monitor: Monitor { turns, health } })
    }

    /// No gate, by the operator's wish.
    #[must_use]
    pub fn off(permit: Permit) -> Gate {
        let health = Health { process_only: Some("off in the config".to_owned()), restored: 0 };
        let (turns, health) = (watch::channel(Turns::default()).1, watch::channel(health).1);
        Gate { commands: None, permit, monitor: Monitor { turns, health } }
    }

    /// What others may see of it.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        self.monitor.clone()
    }

    /// The permission to act. `None`: nothing depends on it, as the gate is off.
    #[must_use]
    pub fn permit(&self) -> Option<&Permit> {
        self.commands.is_some().then_some(&self.permit)
    }

    /// Whether the machine may act now: the same deadline, for what the kernel's gate does not see.
    #[must_use]
    pub fn allows(&self) -> bool {
        self.permit().is_none_or(|permit| permit.allows(clock::now()))
    }

    /// Waits until the gate is open, or there is none; not longer than the permission lasts, nor than half
    /// a second. False if it is shut.
    pub async fn opened(&self) -> bool {
        let open = |turns: &Turns| {
            let now = clock::now();
            turns.open_until > now || !self.permit.allows(now) || !self.exists()
        };
        self.until(OPEN, open).await && self.allows()
    }

    /// Waits until the gate is shut, or there is none; not longer than 100 ms. False if it is open.
    pub async fn closed(&self) -> bool {
        self.until(SHUT, |turns| turns.open_until <= clock::now() || !self.exists()).await
    }

    /// Guards something else from now on.
    pub fn reconfigure(&self, plan: Plan) {
        self.command(Command::Plan(plan));
    }

    /// Takes the gate off the machine and ends its thread. For when nothing acts any more.
    ///
    /// # Errors
    /// It is still there.
    pub async fn remove(&mut self) -> io::Result<()> {
        let (done, removed) = oneshot::channel();
        if !self.command(Command::Remove(done)) {
            return Ok(());
        }
        self.commands = None;
        match timeout(REMOVE, removed).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Ok(()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn exists(&self) -> bool {
        self.monitor.health.borrow().process_only.is_none()
    }

    fn command(&self, command: Command) -> bool {
        let sent = self.commands.as_ref().is_some_and(|c| c.send(command).is_ok());
        self.permit.wake();
        sent
    }

    async fn until(&self, bound: Duration, done: impl FnMut(&Turns) -> bool) -> bool {
        let mut turns = self.monitor.turns.clone();
        // An error: its thread is gone, and the gate shuts by itself.
        timeout(bound, turns.wait_for(done)).await.is_ok()
    }
}

/// The name of a cluster's tables: `wgha_` and the cluster's name, as nft(8) can read it.
#[must_use]
pub fn table_name(cluster: &str) -> String {
    let plain: String =
        cluster.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    // A number alone is the name of a port's barrier.
    let number = plain.bytes().all(|b| b.is_ascii_digit());
    if plain == cluster && !number {
        return format!("wgha_{plain}");
    }
    // Names that differ in the other characters alone must differ here, too (FNV-1a).
    let hash =
        cluster.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    format!("wgha_{plain}_{hash:08x}")
}

/// Shuts the gate of a process that is dead, at once instead of when its time is over, and looks.
///
/// # Errors
/// The kernel refused, or does not say: it may be open.
pub fn shut(name: &str) -> io::Result<()> {
    let Some((mut connection, families)) = find(name)? else { return Ok(()) };
    for family in families {
        // A look waits for nobody's transaction, and a change does.
        if connection.elements(family, name, ruleset::SET)? == 0 {
            continue;
        }
        match connection.commit(&ruleset::shut(name, family)) {
            // Somebody took it off meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        if connection.elements(family, name, ruleset::SET)? > 0 {
            return Err(io::Error::other("somebody opened it again"));
        }
    }
    Ok(())
}

/// Takes tables of this name off, for `wgha release`. True if there were any.
///
/// # Errors
/// The kernel refused.
pub fn remove(name: &str) -> io::Result<bool> {
    let Some((mut connection, _)) = find(name)? else { return Ok(false) };
    connection.commit(&ruleset::remove(name)).map(|()| true)
}

/// The families that have a table of this name; `None`: none has.
fn find(name: &str) -> io::Result<Option<(Connection, Vec<Family>)>> {
    // No nf_tables, no table. Any other error: nothing is known.
    let Some(mut connection) = Connection::open_where_supported()? else { return Ok(None) };
    let mut families = Vec::new();
    for family in [Family::Inet, Family::Arp] {
        if !Snapshot::take(&mut connection, name, &[family])?.is_empty() {
            families.push(family);
        }
    }
    Ok((!families.is_empty()).then_some((connection, families)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::barrier;

    #[test]
    fn tables_of_different_clusters_have_different_names_that_nft_reads() {
        assert_eq!(table_name("edge"), "wgha_edge");
        let names = ["a-b", "a.b", "a_b", "ab", "51820"].map(table_name);
        for (i, name) in names.iter().enumerate() {
            assert_ne!(*name, barrier::table_of(51820));
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{name}");
            assert!(!names[..i].contains(name), "{name}");
        }
    }

    #[test]
    fn a_permit_is_an_instant() {
        let permit = Permit::new().unwrap();
        let at = Time::from_nanos;
        assert!(!permit.allows(at(0)), "none yet");
        permit.set(Some(at(100)));
        assert_eq!(permit.until(), at(100));
        assert!(permit.allows(at(99)) && !permit.allows(at(100)));
        permit.clone().set(None);
        assert!(!permit.allows(at(0)));
    }
}
