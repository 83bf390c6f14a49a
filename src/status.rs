//! What `wgha status` shows: the structure behind `--json`, and the table for people.

mod table;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wgha_proto::PeerSnapshot;

use crate::alarm;
use crate::events::Event;
use crate::realtime::Realtime;

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
}

/// One node. The local one has no figures of a path to itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// It only votes.
    pub witness: bool,
    /// Its role as it last said, in a word.
    pub role: Option<String>,
    /// Its term as it last said.
    pub term: u64,
    /// Its priority as it last said.
    pub priority: Option<u8>,
    /// Heard within the detection time, and hears this node.
    pub alive: bool,
    /// Milliseconds since its last authentic heartbeat.
    pub last_heard_ms: Option<u64>,
    /// Smoothed round trip in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Lost heartbeats, 0.0 to 1.0, on the best path.
    pub loss: Option<f64>,
    /// Its wall clock minus the local one, in milliseconds.
    pub clock_offset_ms: Option<f64>,
    /// Its checks pass.
    pub healthy: bool,
    /// Maintenance is on there.
    pub maintenance: bool,
    /// Able to take over, or serving.
    pub ready: bool,
    /// Its config agrees with the local one where it must; `None`: not heard yet.
    pub config_match: Option<bool>,
    /// Extension: the sync channel to it stands; `None` for the local node and witnesses.
    #[serde(default)]
    pub sync: Option<bool>,
    /// Extension: what makes clients wait after a change of role between it and this node: `clock`,
    /// `wireguard`. [`Status::warnings`] has them in sentences.
    #[serde(default)]
    pub alarms: Vec<String>,
    /// Its paths.
    pub paths: Vec<Path>,
}

impl Node {
    /// A peer as the protocol sees it; `addresses` are those of its paths, in order.
    #[must_use]
    pub fn from_peer(peer: &PeerSnapshot, addresses: &[String]) -> Node {
        let path = |(index, address): (usize, &String)| {
            let known = peer.paths.get(index).copied().unwrap_or_default();
            Path {
                address: address.clone(),
                alive: known.alive,
                receives: Some(known.receives),
                sends: known.sends,
                broken: known.broken.map(|broken| broken.word().to_owned()),
            }
        };
        let age = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Node {
            name: peer.name.clone(),
            witness: peer.witness,
            role: peer.role.map(|role| role.word().to_owned()),
            term: peer.term,
            priority: peer.priority,
            alive: peer.alive,
            last_heard_ms: peer.last_heard.map(age),
            rtt_ms: peer.rtt.map(|rtt| thousandths(rtt.as_secs_f64() * 1e3)),
            loss: peer.last_heard.map(|_| thousandths(peer.loss)),
            clock_offset_ms: peer.clock_offset_ns.map(|ns| thousandths(ns as f64 / 1e6)),
            healthy: peer.healthy,
            maintenance: peer.maintenance,
            ready: peer.ready,
            config_match: peer.config_match,
            sync: None,
            alarms: peer.alarms.iter().map(|alarm| alarm::word(*alarm).to_owned()).collect(),
            paths: addresses.iter().enumerate().map(path).collect(),
        }
    }
}

/// Three decimals are more than any of these figures is worth.
fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// One path to a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Address and port.
    pub address: String,
    /// Both directions worked within the detection time.
    pub alive: bool,
    /// Extension: what the node sends on it comes here; `None` of the local node.
    #[serde(default)]
    pub receives: Option<bool>,
    /// Extension: what is sent to it on it arrives, as it says; `None`: not known.
    #[serde(default)]
    pub sends: Option<bool>,
    /// Extension: the direction that does not work, if one is known: `receive`, `send` or `both`.
    #[serde(default)]
    pub broken: Option<String>,
}

/// One floating IP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIp {
    /// The address with its prefix length.
    pub address: String,
    /// The interface that carries it.
    pub interface: String,
    /// This machine has it now.
    pub held: bool,
}

/// One WireGuard interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wireguard {
    /// Its name.
    pub interface: String,
    /// `kernel` or `embedded`.
    pub backend: String,
    /// Serving.
    pub up: bool,
    /// Configured, ready to be brought up.
    pub staged: bool,
    /// Its peers.
    pub peers: u64,
    /// Peers with a handshake in the last 180 s.
    pub recent_handshakes: u64,
    /// Peers whose endpoint is known.
    pub endpoints_known: u64,
    /// Extension: milliseconds since this node last knew all that the master knows of where peers
    /// are; on the master: since it last looked. `None`: never since the start.
    #[serde(default)]
    pub endpoints_age_ms: Option<u64>,
    /// The floating IPs that its packets leave from.
    pub source: Vec<String>,
}

/// One health check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// It passes.
    pub ok: bool,
    /// Its last result, for people.
    pub detail: String,
}

/// The last run of one hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Program and arguments.
    pub run: Vec<String>,
    /// The state it ran for.
    pub on: String,
    /// Its exit code; `None` if it did not end by itself.
    pub exit: Option<i32>,
    /// How long it ran.
    pub duration_ms: u64,
    /// When it started: RFC 3339, UTC.
    pub at: String,
    /// Extension: how it ended, for people: `exit 0`, `timed out`, `running`, ...
    #[serde(default)]
    pub outcome: String,
}

/// One claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Program and arguments.
    pub run: Vec<String>,
    /// This node has it.
    pub held: bool,
    /// When an answer last said yes or no: RFC 3339, UTC.
    pub checked_at: Option<String>,
    /// Extension: `held`, `not held` or `unknown`.
    #[serde(default)]
    pub state: String,
    /// Extension: the last line that the program said.
    #[serde(default)]
    pub detail: String,
    /// Extension: how long the last run took.
    #[serde(default)]
    pub duration_ms: u64,
    /// Extension: runs that failed since the last that did not.
    #[serde(default)]
    pub failures: u32,
    /// Extension: the program said that trying again is useless.
    #[serde(default)]
    pub given_up: bool,
}

/// One synchronised file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// Its path.
    pub file: String,
    /// Its version.
    pub version: u64,
    /// All gateways are connected and have the same.
    pub in_sync: bool,
    /// Extension: what is wrong with it, for people: why it does not travel, or an edit that lost.
    #[serde(default)]
    pub problem: Option<String>,
}
