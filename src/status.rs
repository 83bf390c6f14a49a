//! What `wgha status` shows: the structure behind `--json`, and the table for people.

mod node;
mod parts;
mod table;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::events::Event;
use crate::realtime::Realtime;

pub use node::{Node, Path};
pub use parts::{Check, Claim, FloatingIp, Hook, Sync, Wireguard};
pub use table::table;

/// The answer to `wgha status --json`. docs/operations.md says what each field means.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's name.
    pub cluster: String,
    /// The local node's name.
    pub node: String,
    /// Its role in a word: `init`, `backup`, `master` or `fault`.
    pub role: String,
    /// Its term if master, else the highest known.
    pub term: u64,
    /// When the role last changed: RFC 3339, UTC.
    pub since: String,
    /// Why it changed.
    pub reason: String,
    /// Who is master, as far as known.
    pub master: Option<String>,
    /// Every check passes.
    pub healthy: bool,
    /// Maintenance is on.
    pub maintenance: bool,
    /// Able to take over, or serving.
    pub ready: bool,
    /// Whether at most one master is guaranteed: `yes (...)` or `no (...)`.
    pub exclusive: String,
    /// What stops a daemon that hangs from serving on: `process only`, or the gate.
    pub fencing: String,
    /// How long the process runs, in seconds.
    pub uptime_seconds: u64,
    /// The permission of a majority.
    pub lease: Lease,
    /// Every node of the cluster, in the order of the config.
    pub nodes: Vec<Node>,
    /// The floating IPs.
    pub floating_ips: Vec<FloatingIp>,
    /// The WireGuard interfaces.
    pub wireguard: Vec<Wireguard>,
    /// The health checks.
    pub checks: Vec<Check>,
    /// The last run of each hook.
    pub hooks: Vec<Hook>,
    /// The claims on cloud resources.
    pub claims: Vec<Claim>,
    /// The files kept identical on all gateways.
    pub sync: Vec<Sync>,
    /// Extension: the program's version.
    #[serde(default)]
    pub version: String,
    /// Extension: what keeps this node from taking over, if anything.
    #[serde(default)]
    pub held_back: Option<String>,
    /// Extension: what makes clients wait after a change of role, a line each.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Extension: refused datagrams by the word of the refusal, since the start.
    #[serde(default)]
    pub refusals: BTreeMap<String, u64>,
    /// Extension: counters of the link (datagrams sent, received, failed), since the start.
    #[serde(default)]
    pub link: BTreeMap<String, u64>,
    /// Extension: the gate, if there is one.
    #[serde(default)]
    pub gate: Option<Gate>,
    /// Extension: why there is no gate, on a gateway.
    #[serde(default)]
    pub no_gate: Option<String>,
    /// Extension: whether something outside the cluster answers this node.
    #[serde(default)]
    pub evidence: Evidence,
    /// Extension: the etcd that votes, if there is one.
    #[serde(default)]
    pub arbiter: Option<Arbiter>,
    /// Extension: what there is of `realtime`; `None`: the config does not want it.
    #[serde(default)]
    pub realtime: Option<Realtime>,
    /// Extension: what became of the role.
    #[serde(default)]
    pub changes: Changes,
}

/// Counters of role changes since the start of the process, and the last takeover.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// Changes of role, by the word of the new one.
    pub roles: BTreeMap<String, u64>,
    /// How often this node became master by itself.
    pub takeovers: u64,
    /// How often it became master because the master handed over.
    pub handovers_taken: u64,
    /// How often it handed over.
    pub handovers_given: u64,
    /// How often a handover that was begun here did not come about.
    pub handovers_failed: u64,
    /// The last time that this node became master, maybe before the process started.
    pub last_takeover: Option<Event>,
}

/// The switch in the kernel that a master keeps open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Lets packets pass now.
    pub open: bool,
    /// Milliseconds until it shuts by itself; `None`: it is shut.
    pub shuts_ms: Option<u64>,
    /// Times that it was opened, renewed or shut, since the start.
    pub renewed: u64,
    /// Times that it had shut by itself before it was renewed.
    pub lapsed: u64,
    /// Times that it was put back after others had removed or changed it.
    pub restored: u64,
    /// The slowest renewal, in microseconds.
    pub slowest_us: u64,
}

/// An etcd that votes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Arbiter {
    /// `etcd`.
    pub kind: String,
    /// The endpoint that is asked; empty on a witness, which asks none.
    pub endpoint: String,
    /// It answered last time; `None`: not asked yet.
    pub reachable: Option<bool>,
    /// Its vote is needed by this node, and asked for.
    pub wanted: bool,
    /// Its vote is this node's now.
    pub held: bool,
    /// What went wrong last, until it answers again.
    pub last_error: Option<String>,
    /// Requests since the start.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
}

/// Outside evidence: what tells an isolated gateway that it is one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// `answered`, `silent`, `no-source` or `off`; empty on a witness.
    pub state: String,
    /// The node misses another one, so that evidence is asked for all the time.
    pub wanted: bool,
    /// On the master: milliseconds since an authenticated packet of a client surely came later than
    /// that through a tunnel.
    pub tunnel_ms: Option<u64>,
    /// Whom it asks.
    pub sources: Vec<EvidenceSource>,
    /// What keeps it from asking.
    pub trouble: Option<String>,
}

/// A neighbour that is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvidenceSource {
    /// Its address.
    pub address: String,
    /// The interface that it is asked on.
    pub interface: String,
    /// It usually answers, so that its silence means something.
    pub usual: bool,
    /// It can be asked now.
    pub present: bool,
    /// Milliseconds since it was last asked.
    pub asked_ms: Option<u64>,
    /// Milliseconds since the newest question that it answered.
    pub answered_ms: Option<u64>,
}

/// The permission of a majority to be master.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Held now.
    pub held: bool,
    /// Milliseconds until this node must stop to act, margin taken off; 0 if it is not held. `None` without leases.
    pub expires_ms: Option<u64>,
    /// Extension: milliseconds before the end of its lease at which a holder stops to act. `None` without leases.
    #[serde(default)]
    pub margin_ms: Option<u64>,
    /// Extension: the voters whose vote this node has now.
    #[serde(default)]
    pub votes: Vec<String>,
    /// Extension: the voters in force.
    #[serde(default)]
    pub voters: Vec<String>,
    /// Extension: the config has other voters, which wait for every member.
    #[serde(default)]
    pub pending: bool,
    /// Extension: for how long this node does not vote, because it may have granted a lease before it restarted.
    #[serde(default)]
    pub abstains_ms: Option<u64>,
    /// Extension: what became of asks and leases since the start; empty without leases. `granted` and `refused`: asks of other nodes
    /// that this one granted (renewals among them) or refused. `won` and `lost`: leases of its own.
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
}
