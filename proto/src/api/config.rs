//! The cluster, as a node is told of it.

use std::time::Duration;

use super::{NodeName, PathIndex, WireguardKind};

/// The cluster as one node is configured to see it.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Bound into every key: nodes of other clusters are strangers.
    pub cluster: String,
    /// My name.
    pub name: NodeName,
    /// A witness only votes: it has no floating IP and is never a candidate.
    pub witness: bool,
    /// 1..=255; a higher one is preferred when there is no master.
    pub priority: u8,
    /// Time between two heartbeats to the same peer, 10 ms ..= 10 s.
    pub interval: Duration,
    /// Heartbeats missed until a master counts as silent, 2..=255.
    pub misses: u8,
    /// Hand over to a node of higher priority.
    pub preempt: Option<Preempt>,
    /// How long the preparation of a handover may take before it is called off.
    pub handover_timeout: Duration,
    /// How long the machine may take to ask again for a neighbour that did not answer (RFC 4861 §10, RETRANS_TIMER: 1 s): so much later than
    /// a source of evidence a master may be heard again.
    pub neighbour_retry: Duration,
    /// What must agree between nodes, hashed; a difference is shown, never a reason to drop. The
    /// second half is of what gateways alone know; zero agrees with all.
    pub fingerprint: [u8; 16],
    /// Which WireGuard I run.
    pub wireguard: WireguardKind,
    /// What mastership needs.
    pub quorum: Quorum,
    /// Every other node of the cluster.
    pub peers: Vec<PeerConfig>,
}

impl NodeConfig {
    /// The detection time: `misses` × `interval`.
    #[must_use]
    pub fn detection(&self) -> Duration {
        self.interval * u32::from(self.misses)
    }
}

/// What mastership needs besides the rules of election.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quorum {
    /// Nothing: a partition may give two masters. The only choice that makes sense for two nodes.
    #[default]
    None,
    /// A lease from a majority of all nodes, witnesses among them: at most one acts, whatever the network does. The
    /// detection time, which is the length of a lease, must not exceed [`LONGEST_LEASE`](crate::LONGEST_LEASE).
    Majority {
        /// How long effects may take to go off once the permission is over, at least
        /// [`LEAST_REACTION`](crate::LEAST_REACTION).
        reaction: Duration,
        /// An etcd votes as well ([`Agent`](crate::Agent)).
        arbiter: bool,
    },
}

/// `preempt = true` and its delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preempt {
    /// How long the better node must have been ready before the role goes to it.
    pub delay: Duration,
}

/// Another node, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its name.
    pub name: NodeName,
    /// Whether it only votes.
    pub witness: bool,
    /// How many paths lead to it, 1..=8. The caller knows their addresses.
    pub paths: PathIndex,
}
