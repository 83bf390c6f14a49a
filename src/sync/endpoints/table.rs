//! What is known of the peers of one interface, and how a message of the master changes it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use wgha_proto::{Term, Time};

use crate::clock;
use crate::sync::message::Part;
use crate::wireguard::PeerState;
use crate::wireguard::key::PublicKey;

/// Peers of one interface that are kept.
pub const MAX_PEERS: usize = 65_536;

/// The shortest time between two looks of the master.
pub const PERIOD_MIN: Duration = Duration::from_millis(500);

/// The longest one.
pub const PERIOD_MAX: Duration = Duration::from_secs(10);

/// One is at most so many times the one before.
pub const PERIOD_GROWTH: u32 = 2;

/// A look comes so much later at most.
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
    pub(super) complete: Option<Time>,
    /// The time between the last two such moments.
    period: Duration,
    /// This node is master, and alone knows.
    pub(super) acting: bool,
    /// A snapshot that is not complete yet.
    pub(super) pending: Option<Peers>,
    /// The last poll of its device in this term.
    pub(super) polled: Option<Polled>,
    /// When a poll of this term last found a handshake that the one before had not.
    pub(super) shaken: Option<Time>,
}

/// What a poll of the device counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Polled {
    pub(super) at: Time,
    /// Received bytes of all peers.
    pub(super) bytes: u64,
    /// The sum of all peers' times of handshake: another one means that somebody shook hands, whatever the wall clock does.
    pub(super) handshakes: i64,
}

impl Polled {
    pub(super) fn new(states: &[PeerState]) -> Polled {
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
        let bound = (self.period * PERIOD_GROWTH).clamp(PERIOD_MIN, PERIOD_MAX) + PERIOD_SLACK;
        self.origin == Origin::Master && self.age().is_some_and(|age| age <= bound)
    }

    pub(super) fn completed(&mut self) {
        let now = clock::now();
        self.period = self.complete.map_or(Duration::ZERO, |before| now.since(before));
        self.complete = Some(now);
    }

    pub(super) fn replace(&mut self, peers: Peers) {
        let endpoint = |of: &Peers, key| of.get(key).and_then(|known| known.endpoint);
        if peers.iter().any(|(key, new)| new.endpoint != endpoint(&self.peers, key)) {
            self.moves += 1;
        }
        self.peers = peers;
    }
}

/// Applies one message to a table. True if the table is another one now, or confirmed.
pub(super) fn take(table: &mut Table, part: Part, peers: Peers, gone: &[PublicKey]) -> bool {
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

pub(super) fn extend(into: &mut Peers, from: Peers) {
    for (key, known) in from {
        if into.len() < MAX_PEERS || into.contains_key(&key) {
            into.insert(key, known);
        }
    }
}

pub(super) fn wall_ns(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}
