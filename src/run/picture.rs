//! Puts `wgha status` together from what the node, the reconciler and the hooks know.

use std::time::Duration;

use wgha_proto::{PeerSnapshot, Role, WireguardKind};

use crate::clock;
use crate::config::Config;
use crate::daemon::Picture;
use crate::events::rfc3339;
use crate::gateway::view::View;
use crate::hooks::{HookResult, state_word};
use crate::link;
use crate::status::{FloatingIp, Hook, Lease, Node, Path, Status, Wireguard};

/// The status now.
pub(super) fn status(
    config: &Config,
    kind: WireguardKind,
    picture: &Picture,
    view: &View,
    hooks: &[HookResult],
    uptime: Duration,
) -> Status {
    let node = &picture.node;
    let level = &node.level;
    let since = picture.now.since(node.since);
    Status {
        cluster: config.cluster.name.clone(),
        node: config.node().name.clone(),
        role: level.role.word().to_owned(),
        term: level.term,
        since: rfc3339(clock::wall().saturating_sub(nanos(since))),
        reason: level.reason.to_string(),
        master: level.master.clone(),
        healthy: node.healthy,
        maintenance: node.maintenance,
        ready: node.ready,
        exclusive: exclusive(config),
        fencing: "process only".to_owned(),
        uptime_seconds: uptime.as_secs(),
        lease: Lease { held: false, expires_ms: None },
        nodes: nodes(config, picture),
        floating_ips: floating_ips(config, view),
        wireguard: wireguard(config, kind, view),
        checks: Vec::new(),
        hooks: hooks.iter().map(hook).collect(),
        claims: Vec::new(),
        sync: Vec::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        held_back: node.held_back.map(str::to_owned),
        refusals: node.refusals.iter().map(|(word, n)| ((*word).to_owned(), *n)).collect(),
        link: counters(picture, view),
    }
}

/// Leases, which would make the master the only one, need three voters, and are not in this version.
fn exclusive(config: &Config) -> String {
    match config.nodes.len() {
        0..=2 => "no (two voters)".to_owned(),
        _ => "no (this version has no leases)".to_owned(),
    }
}

fn nodes(config: &Config, picture: &Picture) -> Vec<Node> {
    let me = config.node();
    let mut peers = picture.node.peers.iter();
    let mut all = Vec::with_capacity(config.nodes.len());
    for node in &config.nodes {
        if node.name == me.name {
            all.push(myself(node, picture));
        } else if let Some(peer) = peers.next() {
            all.push(other(me, node, peer));
        }
    }
    all
}

fn myself(node: &crate::config::Node, picture: &Picture) -> Node {
    let bound = |a: &crate::config::NodeAddress| picture.unbound.iter().all(|(b, _)| *b != a.bind);
    Node {
        name: node.name.clone(),
        witness: node.witness,
        role: Some(picture.node.level.role.word().to_owned()),
        term: picture.node.level.term,
        priority: Some(node.priority),
        alive: true,
        last_heard_ms: None,
        rtt_ms: None,
        loss: None,
        clock_offset_ms: None,
        healthy: picture.node.healthy,
        maintenance: picture.node.maintenance,
        ready: picture.node.ready,
        config_match: Some(true),
        paths: node
            .addresses
            .iter()
            .map(|a| Path { address: a.send.to_string(), alive: bound(a) })
            .collect(),
    }
}

fn other(me: &crate::config::Node, node: &crate::config::Node, peer: &PeerSnapshot) -> Node {
    let count = link::path_count(me.addresses.len(), node.addresses.len());
    let address = |k: usize| node.addresses.get(k).or(node.addresses.last());
    let paths = (0..count).filter_map(|k| {
        Some(Path {
            address: address(k)?.send.to_string(),
            alive: peer.paths_alive.get(k).copied().unwrap_or(false),
        })
    });
    Node {
        name: node.name.clone(),
        witness: node.witness,
        role: peer.role.map(|role| role.word().to_owned()),
        term: peer.term,
        priority: peer.priority,
        alive: peer.alive,
        last_heard_ms: peer.last_heard.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        rtt_ms: peer.rtt.map(millis),
        loss: peer.role.map(|_| peer.loss),
        clock_offset_ms: peer.clock_offset_ns.map(|ns| round(ns as f64 / 1e6)),
        healthy: peer.healthy,
        maintenance: peer.maintenance,
        ready: peer.ready,
        config_match: peer.config_match,
        paths: paths.collect(),
    }
}

fn floating_ips(config: &Config, view: &View) -> Vec<FloatingIp> {
    let entry = |(index, ip): (usize, &crate::config::FloatingIp)| FloatingIp {
        address: ip.address.to_string(),
        interface: ip.interface.clone(),
        held: view.floating_ips.get(index).copied().unwrap_or(false),
    };
    config.floating_ips.iter().enumerate().map(entry).collect()
}

fn wireguard(config: &Config, kind: WireguardKind, view: &View) -> Vec<Wireguard> {
    let backend = match kind {
        WireguardKind::None => return Vec::new(),
        WireguardKind::Kernel => "kernel",
        WireguardKind::Embedded => "embedded",
    };
    let entry = |(index, wireguard): (usize, &crate::config::Wireguard)| {
        let tunnel = view.tunnels.get(index).cloned().unwrap_or_default();
        Wireguard {
            interface: wireguard.interface.clone(),
            backend: backend.to_owned(),
            up: tunnel.up,
            staged: tunnel.staged,
            peers: tunnel.peers,
            recent_handshakes: tunnel.recent_handshakes,
            endpoints_known: tunnel.endpoints_known,
            source: wireguard.source.iter().map(ToString::to_string).collect(),
        }
    };
    config.wireguard.iter().enumerate().map(entry).collect()
}

fn hook(result: &HookResult) -> Hook {
    let outcome = result.outcome.as_ref();
    Hook {
        run: result.run.clone(),
        on: state_word(result.on).to_owned(),
        exit: outcome.and_then(crate::process::Outcome::exit_code),
        duration_ms: u64::try_from(result.duration.as_millis()).unwrap_or(u64::MAX),
        at: rfc3339(result.at_ns),
        outcome: outcome.map_or_else(|| "running".to_owned(), ToString::to_string),
    }
}

fn counters(picture: &Picture, view: &View) -> std::collections::BTreeMap<String, u64> {
    let link = &picture.link;
    [
        ("sent", link.sent),
        ("received", link.received),
        ("send_errors", link.send_errors),
        ("receive_errors", link.receive_errors),
        ("unbound", link.unbound),
        ("events_dropped", picture.events_dropped),
        ("restored", view.restored),
    ]
    .map(|(name, count)| (name.to_owned(), count))
    .into()
}

fn millis(duration: Duration) -> f64 {
    round(duration.as_secs_f64() * 1e3)
}

/// To a microsecond: more would be noise.
fn round(millis: f64) -> f64 {
    (millis * 1e3).round() / 1e3
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// One line for `systemctl status`.
pub(super) fn headline(role: Role, term: u64, master: Option<&str>) -> String {
    match (role, master) {
        (Role::Master, _) => format!("master, term {term}"),
        (role, Some(master)) => format!("{}; master is {master}, term {term}", role.word()),
        (role, None) => format!("{}; no master is known", role.word()),
    }
}
