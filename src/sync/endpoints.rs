//! Where WireGuard's peers are and when they were last heard from: the table that the master fills
//! and its backups follow.
//!
//! Levels, not edges: whoever sends or applies compares with what it sent or applied last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use wgha_proto::{Term, Time};

use super::flush::Flushes;
use super::message::Update;
use crate::clock;
use crate::wireguard::PeerState;
use crate::wireguard::key::PublicKey;

mod table;

pub use table::{Known, MAX_PEERS, Origin, PERIOD_GROWTH, PERIOD_MAX, PERIOD_MIN, Peers, Table};
use table::{Polled, take, wall_ns};

/// Interfaces that are kept: more than a config has.
const MAX_INTERFACES: usize = 64;

/// A table that was not confirmed for so long may be replaced by one of an older term: the master
/// of the newer one is gone.
const STALE: Duration = Duration::from_secs(20);

/// The tables of all interfaces. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    tables: Arc<Mutex<BTreeMap<String, Table>>>,
    changed: watch::Sender<()>,
    received: watch::Sender<Option<Time>>,
    /// Whether others have what they were sent.
    pub flushes: Flushes,
}

impl Endpoints {
    /// The table of an interface; empty if nothing is known.
    #[must_use]
    pub fn look(&self, interface: &str) -> Table {
        self.lock().get(interface).cloned().unwrap_or_default()
    }

    /// All tables.
    #[must_use]
    pub fn look_all(&self) -> BTreeMap<String, Table> {
        self.lock().clone()
    }

    /// [`Table::moves`] of an interface's table, to see cheaply whether endpoints changed.
    #[must_use]
    pub fn moves(&self, interface: &str) -> u64 {
        self.lock().get(interface).map_or(0, |t| t.moves)
    }

    /// When an interface's table last was all that the master knew; `None`: never in this run.
    #[must_use]
    pub fn complete_at(&self, interface: &str) -> Option<Time> {
        self.lock().get(interface).and_then(|table| table.complete)
    }

    /// The term in which this node is master, if it is.
    #[must_use]
    pub fn acting(&self, interface: &str) -> Option<Term> {
        self.lock().get(interface).filter(|t| t.acting).map(|t| t.term)
    }

    /// Since when an authenticated packet surely came through a tunnel of this node; `None` while it
    /// is not master.
    #[must_use]
    pub fn received(&self) -> watch::Receiver<Option<Time>> {
        self.received.subscribe()
    }

    /// Time since a client last shook hands with this node as master; `None` while it is not, or before the first of the term.
    #[must_use]
    pub fn since_handshake(&self, interface: &str) -> Option<Duration> {
        let tables = self.lock();
        let shaken = tables.get(interface).filter(|table| table.acting)?.shaken?;
        Some(clock::now().since(shaken))
    }

    /// Marked as changed with every change of any table.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What an earlier run kept. Loses against everything newer.
    pub fn restore(&self, interface: &str, peers: Peers) {
        self.change(interface, |table| {
            let fresh = table.version == 0;
            if fresh {
                table.replace(peers);
            }
            fresh
        });
    }

    /// This node becomes master: from here on nobody else knows better.
    pub fn begin(&self, interface: &str, term: Term) {
        self.change(interface, |table| {
            (table.acting, table.term, table.origin) = (true, term, Origin::Own);
            (table.pending, table.polled, table.shaken) = (None, None, None);
            true
        });
    }

    /// This node is master no more.
    pub fn end(&self, interface: &str) {
        self.change(interface, |table| std::mem::take(&mut table.acting));
        self.received.send_if_modified(|at| at.take().is_some());
    }

    /// What the master's own device says: its endpoints are the truth; a handshake that it does not
    /// know was with the master before.
    pub fn publish(&self, interface: &str, term: Term, states: &[PeerState]) {
        let mut since = None;
        self.change(interface, |table| {
            if !table.acting || table.term != term {
                return false;
            }
            let known = |state: &PeerState| {
                let key = PublicKey(state.public_key);
                let before = table.peers.get(&key).copied().unwrap_or_default();
                let handshake = state.last_handshake.map_or(0, wall_ns);
                let known = Known {
                    endpoint: state.endpoint.or(before.endpoint),
                    handshake_ns: handshake.max(before.handshake_ns),
                };
                (key, known)
            };
            let peers = states.iter().take(MAX_PEERS).map(known).collect();
            table.replace(peers);
            table.completed();
            let now = Polled::new(states);
            let before = table.polled.replace(now);
            // They came at some time after the last poll: what came earlier was counted then.
            since = before.filter(|before| now.bytes > before.bytes).map(|before| before.at);
            if before.is_some_and(|before| now.handshakes != before.handshakes) {
                table.shaken = Some(now.at);
            }
            true
        });
        if since.is_some() {
            self.received.send_replace(since);
        }
    }

    /// Takes what a master sent. False if this node knows better.
    pub fn accept(&self, update: Update) -> bool {
        let mut taken = false;
        self.change(&update.interface, |table| {
            let fresh = table.age().is_some_and(|age| age < STALE);
            if table.acting || (fresh && update.term < table.term) {
                return false;
            }
            taken = true;
            table.term = update.term;
            take(table, update.part, update.peers, &update.gone)
        });
        taken
    }

    /// This node takes what the master says, and does not have the whole of it, nor a part of the whole.
    #[must_use]
    pub fn lacks(&self, interface: &str) -> bool {
        let tables = self.lock();
        tables
            .get(interface)
            .is_some_and(|t| !t.acting && t.origin != Origin::Master && t.pending.is_none())
    }

    fn change(&self, interface: &str, change: impl FnOnce(&mut Table) -> bool) {
        let mut tables = self.lock();
        if !tables.contains_key(interface) {
            if tables.len() >= MAX_INTERFACES {
                return;
            }
            tables.insert(interface.to_owned(), Table::default());
        }
        let Some(table) = tables.get_mut(interface) else { return };
        if change(table) {
            table.version += 1;
            drop(tables);
            self.changed.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Table>> {
        // Every change is whole before the lock is given back, or one the next snapshot repairs.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
