//! A picture of a node and of what it knows of the others.

use std::time::Duration;

use super::{NodeName, Role, RoleLevel, Term, WireguardKind};
use crate::time::Time;

/// A picture of the node for `wgha status`.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Role, term, reason, master.
    pub level: RoleLevel,
    /// When the role last changed.
    pub since: Time,
    /// The outcome of the checks.
    pub healthy: bool,
    /// Maintenance is on.
    pub maintenance: bool,
    /// Staged and able to take over (or serving).
    pub ready: bool,
    /// What keeps the node from taking over, if anything: `isolated`, `listening`, …
    pub held_back: Option<&'static str>,
    /// The lease and the votes; `None` if leases are not in force.
    pub lease: Option<LeaseSnapshot>,
    /// One entry for each peer, in configured order.
    pub peers: Vec<PeerSnapshot>,
    /// How often each refusal happened: (word, count). See [`Refusal`](crate::Refusal).
    pub refusals: Vec<(&'static str, u64)>,
}

/// A picture of leases at one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSnapshot {
    /// This node holds the lease.
    pub held: bool,
    /// For how long it may act.
    pub permitted: Option<Duration>,
    /// The voters whose vote is its now.
    pub votes: Vec<NodeName>,
    /// How many it needs.
    pub majority: usize,
    /// The voters in force.
    pub voters: Vec<NodeName>,
    /// The config has other voters, which wait for every member.
    pub pending: bool,
    /// It does not vote for so long: it may have granted a lease before it restarted.
    pub abstains: Option<Duration>,
}

/// A picture of one peer.
#[derive(Clone, Debug)]
pub struct PeerSnapshot {
    /// Its name.
    pub name: NodeName,
    /// It only votes.
    pub witness: bool,
    /// Its role as it last said.
    pub role: Option<Role>,
    /// Its term as it last said.
    pub term: Term,
    /// Its priority as it last said.
    pub priority: Option<u8>,
    /// Timely within the detection time.
    pub alive: bool,
    /// Time since its last authentic heartbeat.
    pub last_heard: Option<Duration>,
    /// Smoothed round trip.
    pub rtt: Option<Duration>,
    /// Lost heartbeats of the last 64, 0.0..=1.0, on the best path.
    pub loss: f64,
    /// Its wall clock minus mine, in nanoseconds.
    pub clock_offset_ns: Option<i64>,
    /// Its checks pass.
    pub healthy: bool,
    /// Maintenance.
    pub maintenance: bool,
    /// Ready to take over.
    pub ready: bool,
    /// Its config fingerprint equals mine.
    pub config_match: Option<bool>,
    /// Its WireGuard implementation.
    pub wireguard: WireguardKind,
    /// For each path to it: it says that it heard me on it within its detection time.
    pub paths_alive: Vec<bool>,
}
