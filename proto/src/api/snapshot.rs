//! A picture of a node and of what it knows of the others.

use std::time::Duration;

use super::{Alarm, NodeName, Role, RoleLevel, Term, WireguardKind};
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
    /// How long before the end of a lease its holder stops to act.
    pub margin: Duration,
    /// The voters whose vote is its now.
    pub votes: Vec<NodeName>,
    /// How many it needs.
    pub majority: usize,
    /// The voters in force.
    pub voters: Vec<NodeName>,
    /// The config has other voters, which wait for every member.
    pub pending: bool,
    /// They wait in vain: too many change at once.
    pub blocked: bool,
    /// It does not vote for so long: it may have granted a lease before it restarted.
    pub abstains: Option<Duration>,
    /// What became of asks and leases.
    pub counts: LeaseCounts,
    /// The arbiter, if it is one of the voters in force.
    pub arbiter: Option<ArbiterSnapshot>,
}

/// What became of asks and leases since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// Asks of other nodes that this one granted, renewals among them.
    pub granted: u64,
    /// Asks of other nodes that it refused.
    pub refused: u64,
    /// Leases that it got: by votes, or handed on.
    pub won: u64,
    /// Leases of its own that ran out while it was master.
    pub lost: u64,
}

/// A picture of the arbiter's vote at one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArbiterSnapshot {
    /// Its name among the voters.
    pub name: NodeName,
    /// It answers this node.
    pub present: bool,
    /// Its vote is needed: asked for, and kept.
    pub wanted: bool,
    /// Its vote is this node's.
    pub held: bool,
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
    /// What makes clients refuse handshakes after a change of role between us.
    pub alarms: Vec<Alarm>,
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
    /// For each path to it, in order.
    pub paths: Vec<PathSnapshot>,
}

/// A picture of one path to a peer, by the last detection time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathSnapshot {
    /// Both directions work.
    pub alive: bool,
    /// Authentic datagrams of the peer come on it.
    pub receives: bool,
    /// What I send on it arrives, as the peer says; `None`: it says nothing.
    pub sends: Option<bool>,
    /// The direction that does not work, if one is known.
    pub broken: Option<Broken>,
}

/// A direction of a path, seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// What the peer sends on it does not come.
    Receive,
    /// What I send on it does not arrive.
    Send,
    /// Neither works, though the peer is heard on another path, or was heard.
    Both,
}

impl Broken {
    /// The direction in one word, as in status.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Broken::Receive => "receive",
            Broken::Send => "send",
            Broken::Both => "both",
        }
    }
}
