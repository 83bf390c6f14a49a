//! The nodes of the cluster and the paths to them.

use serde::{Deserialize, Serialize};
use wgha_proto::{PathSnapshot, PeerSnapshot};

use crate::alarm;
use crate::clock;

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
            Path::from_peer(address.clone(), known)
        };
        Node {
            name: peer.name.clone(),
            witness: peer.witness,
            role: peer.role.map(|role| role.word().to_owned()),
            term: peer.term,
            priority: peer.priority,
            alive: peer.alive,
            last_heard_ms: peer.last_heard.map(clock::millis),
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
    /// Extension: it leads over a floating IP, to whoever is master.
    #[serde(default)]
    pub floating: bool,
}

impl Path {
    /// A path to a peer as the protocol sees it.
    #[must_use]
    pub fn from_peer(address: String, known: PathSnapshot) -> Path {
        Path {
            address,
            alive: known.alive,
            receives: Some(known.receives),
            sends: known.sends,
            broken: known.broken.map(|broken| broken.word().to_owned()),
            floating: false,
        }
    }
}
