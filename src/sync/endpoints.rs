//! Where WireGuard's peers are and when they were last heard from: the table that the master fills
//! and its backups follow.
//!
//! Levels, not edges: whoever sends or applies compares with what it sent or applied last.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use wgha_proto::{Term, Time};

use super::flush::Flushes;
use super::message::{Part, Update};
use crate::clock;
use crate::wireguard::PeerState;
use crate::wireguard::key::PublicKey;

/// Peers of one interface that are kept.
pub const MAX_PEERS: usize = 65_536;

/// Interfaces that are kept: more than a config has.
const MAX_INTERFACES: usize = 64;

/// A table that was not confirmed for so long may be replaced by one of an older term: the master
/// of the newer one is gone.
const STALE: Duration = Duration::from_secs(20);

/// The master looks this often, and one look comes so much later than the one before at most.
const PERIOD_MIN: Duration = Duration::from_millis(500);
const PERIOD_MAX: Duration = Duration::from_secs(10);
const PERIOD_SLACK: Duration = Duration::from_millis(500);

/// What is known of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// When its last handshake ended, in wall-clock nanoseconds since 1970; 0: never.
    pub handshake_ns: i64,
}

impl Known {
    /// When its last handshake ended.
    #[must_use]
    pub fn last_handshake(&self) -> Option<SystemTime> {
        let ns = u64::try_from(self.handshake_ns).ok().filter(|ns| *ns != 0)?;
        UNIX_EPOCH.checked_add(Duration::from_nanos(ns))
    }
}

/// The peers of an interface by public key.
pub type Peers = BTreeMap<PublicKey, Known>;

/// Where a table comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// The state directory, or nowhere: older than what a device knows.
    #[default]
    Kept,
    /// This node, as master.
    Own,
    /// The master.
    Master,
}

/// What is known of one interface.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Where it comes from.
    pub origin: Origin,
    /// The term of the master that it comes from.
    pub term: Term,
    /// Grows with every change, and with every confirmation.
    pub version: u64,
    /// Grows when a peer is new or elsewhere.
    pub moves: u64,
    /// The peers.
    pub peers: Peers,
    /// When it last was all that the master knew.
    complete: Option<Time>,
    /// The time between the last two such moments.
    period: Duration,
    /// This node is master, and alone knows.
    acting: bool,
    /// A snapshot that is not complete yet.
    pending: Option<Peers>,
    /// The last poll of its device in this term.
    polled: Option<Polled>,
    /// When a poll of this term last found a handshake that the one before had not.
    shaken: Option<Time>,
}

/// What a poll of the device counted.
#[derive(Clone, Copy, Debug)]
struct Polled {
    at: Time,
    /// Received bytes of all peers.
    bytes: u64,
    /// The sum of all peers' times of handshake: another one means that somebody shook hands, whatever the wall clock does.
    handshakes: i64,
}

impl Polled {
    fn new(states: &[PeerState]) -> Polled {
        let handshake = |state: &PeerState| state.last_handshake.map_or(0, wall_ns);
        Polled {
            at: clock::now(),
            bytes: states.iter().fold(0, |sum, state| sum.wrapping_add(state.received)),
            handshakes: states.iter().fold(0, |sum, state| sum.wrapping_add(handshake(state))),
        }
    }
}

impl Table {
    /// Time since it was all that the master knew; `None`: never in this run.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.complete.map(|at| clock::now().since(at))
    }

    /// Whether it comes from the master and is no older than one of its looks.
    #[must_use]
    pub fn is_current(&self) -> bool {
        let bound = self.period.clamp(PERIOD_MIN, PERIOD_MAX) + PERIOD_SLACK;
        self.origin == Origin::Master && self.age().is_some_and(|age| age <= bound)
    }

    fn completed(&mut self) {
        let now = clock::now();
        self.period = self.complete.map_or(Duration::ZERO, |before| now.since(before));
        self.complete = Some(now);
    }

    fn replace(&mut self, peers: Peers) {
        let endpoint = |of: &Peers, key| of.get(key).and_then(|known| known.endpoint);
        if peers.iter().any(|(key, new)| new.endpoint != endpoint(&self.peers, key)) {
            self.moves += 1;
        }
        self.peers = peers;
    }
}

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

/// Applies one message to a table. True if the table is another one now, or confirmed.
fn take(table: &mut Table, part: Part, peers: Peers, gone: &[PublicKey]) -> bool {
    match part {
        Part::Difference => {
            // Without the whole a difference is only better than nothing.
            let whole = table.origin == Origin::Master && table.pending.is_none();
            let mut now = table.peers.clone();
            extend(&mut now, peers);
            gone.iter().for_each(|key| _ = now.remove(key));
            table.replace(now);
            if whole {
                table.completed();
            }
            true
        }
        Part::Snapshot { first, last } => {
            let mut pending = table.pending.take().filter(|_| !first).unwrap_or_default();
            extend(&mut pending, peers);
            if last {
                table.replace(pending);
                table.origin = Origin::Master;
                table.completed();
            } else {
                table.pending = Some(pending);
            }
            last
        }
    }
}

fn extend(into: &mut Peers, from: Peers) {
    for (key, known) in from {
        if into.len() < MAX_PEERS || into.contains_key(&key) {
            into.insert(key, known);
        }
    }
}

fn wall_ns(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
