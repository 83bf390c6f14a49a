//! Puts `wgha status` together from what the node, the reconciler and the hooks know.

use std::collections::BTreeMap;
use std::time::Duration;

use wgha_proto::{
    LeaseCounts, LeaseSnapshot, PathSnapshot, PeerSnapshot, Role, Snapshot, Time, WireguardKind,
};

use crate::alarm;
use crate::arbiter;
use crate::clock::{self, millis};
use crate::config::{self, Config};
use crate::daemon::Picture;
use crate::events::rfc3339;
use crate::evidence;
use crate::gateway::view::View;
use crate::hooks::HookResult;
use crate::link;
use crate::net::gate;
use crate::status::{
    Arbiter, Changes, Evidence, EvidenceSource, FloatingIp, Gate, Hook, Lease, Node, Path, Status,
    Sync, Wireguard,
};
use crate::sync;

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
        exclusive: exclusive(config, node.lease.as_ref()),
        fencing: "process only".to_owned(),
        uptime_seconds: uptime.as_secs(),
        lease: lease(node.lease.as_ref()),
        nodes: nodes(config, picture),
        floating_ips: floating_ips(config, view),
        wireguard: wireguard(config, kind, view, picture.now),
        checks: Vec::new(),
        hooks: hooks.iter().map(Hook::from).collect(),
        claims: Vec::new(),
        sync: Vec::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        held_back: node.held_back.map(str::to_owned),
        warnings: warnings(node),
        refusals: node.refusals.iter().map(|(word, n)| ((*word).to_owned(), *n)).collect(),
        link: counters(picture, view),
        gate: None,
        no_gate: None,
        evidence: Evidence::default(),
        arbiter: None,
        realtime: picture.realtime.clone(),
        changes: Changes::default(),
    }
}

fn warnings(node: &Snapshot) -> Vec<String> {
    let of = |peer: &PeerSnapshot| {
        let name = peer.name.clone();
        peer.alarms.clone().into_iter().map(move |alarm| alarm::text(&name, alarm))
    };
    let blocked = node.lease.as_ref().is_some_and(|lease| lease.blocked);
    let blocked = blocked.then(|| {
        "the config's voters wait in vain: change one node at a time (none while an etcd votes), or see `wgha reload --force-voters`"
            .to_owned()
    });
    node.peers.iter().flat_map(of).chain(blocked).collect()
}

/// Adds what the sync channel knows; a witness has none.
pub(super) fn add_sync(status: &mut Status, sync: Option<&sync::Picture>) {
    let Some(sync) = sync else { return };
    let me = status.node.clone();
    for node in status.nodes.iter_mut().filter(|node| !node.witness && node.name != me) {
        node.sync = Some(sync.connected.contains_key(&node.name));
    }
    let refusals = sync.refusals.iter().map(|(word, count)| ((*word).to_owned(), *count));
    status.refusals.extend(refusals);
}

/// Adds what the gate's thread knows; a witness has none, nor anything that one could shut.
pub(super) fn add_gate(status: &mut Status, gate: Option<&gate::Monitor>, now: Time) {
    let Some(gate) = gate else { return };
    let (turns, health) = (gate.turns(), gate.health());
    if health.process_only.is_none() {
        status.fencing = "gate".to_owned();
        status.gate = Some(Gate {
            open: turns.open_until > now,
            shuts_ms: (turns.open_until > now).then(|| millis(turns.open_until.since(now))),
            renewed: turns.renewed,
            lapsed: turns.lapsed,
            restored: health.restored,
            slowest_us: u64::try_from(turns.slowest.as_micros()).unwrap_or(u64::MAX),
        });
    } else if status.lease.expires_ms.is_some() {
        // A lease ends by itself; the effects of a process that does not run stay.
        status.exclusive.push_str(" while its process runs");
    }
    status.no_gate = health.process_only;
    *status.link.entry("restored".to_owned()).or_default() += health.restored;
}

/// Adds what is known of the etcd that votes; `asked` is `None` on a witness.
pub(super) fn add_arbiter(status: &mut Status, asked: Option<&arbiter::Picture>, node: &Snapshot) {
    let voter = node.lease.as_ref().and_then(|lease| lease.arbiter.as_ref());
    let asked = asked.filter(|asked| !asked.endpoint.is_empty());
    if voter.is_none() && asked.is_none() {
        return;
    }
    let asked = asked.cloned().unwrap_or_default();
    status.arbiter = Some(Arbiter {
        kind: "etcd".to_owned(),
        endpoint: asked.endpoint,
        reachable: asked.reachable,
        wanted: voter.is_some_and(|voter| voter.wanted),
        held: voter.is_some_and(|voter| voter.held),
        last_error: asked.last_error,
        requests: asked.requests.0,
        failed: asked.requests.1,
    });
}

/// Adds what is known of outside evidence; a witness asks nobody.
pub(super) fn add_evidence(status: &mut Status, evidence: Option<&evidence::Picture>, now: Time) {
    let Some(picture) = evidence else { return };
    let age = |at: Option<Time>| at.map(|at| millis(now.since(at)));
    let source = |known: &evidence::judge::Known| EvidenceSource {
        address: known.key.1.to_string(),
        interface: known.key.0.clone(),
        usual: known.usual,
        present: known.present,
        asked_ms: age(known.asked),
        answered_ms: age(known.answered),
    };
    status.evidence = Evidence {
        state: picture.word().to_owned(),
        wanted: picture.wanted,
        tunnel_ms: age(picture.tunnel),
        sources: picture.sources.iter().map(source).collect(),
        trouble: picture.trouble.clone(),
    };
}

/// Adds the synced files.
pub(super) fn add_files(status: &mut Status, files: Option<sync::files::Picture>) {
    let Some(picture) = files else { return };
    let row = |view: sync::files::FileView| Sync {
        file: view.file,
        version: view.version,
        in_sync: view.in_sync,
        problem: view.problem,
    };
    status.sync = picture.files.into_iter().map(row).collect();
    status.link.insert("files_dropped".to_owned(), picture.dropped);
}

/// Whether a master is the only one, and by what.
fn exclusive(config: &Config, lease: Option<&LeaseSnapshot>) -> String {
    match lease {
        Some(lease) => {
            format!("yes (lease of {} of {} voters)", lease.majority, lease.voters.len())
        }
        None if config.needs_majority() => "no (not every node has this config yet)".to_owned(),
        None if config.voters() <= 2 => "no (two voters)".to_owned(),
        None => "no (quorum = \"none\")".to_owned(),
    }
}

/// The arbiter is known by what it is, without the set of nodes that it votes for.
pub(super) fn voter(name: &str) -> String {
    if name.starts_with("@etcd.") { "@etcd".to_owned() } else { name.to_owned() }
}

fn lease(lease: Option<&LeaseSnapshot>) -> Lease {
    let Some(lease) = lease else { return Lease::default() };
    Lease {
        held: lease.held,
        expires_ms: Some(lease.permitted.map_or(0, millis)),
        margin_ms: Some(millis(lease.margin)),
        votes: lease.votes.iter().map(|name| voter(name)).collect(),
        voters: lease.voters.iter().map(|name| voter(name)).collect(),
        pending: lease.pending,
        abstains_ms: lease.abstains.map(millis),
        counts: lease_counts(lease.counts),
    }
}

fn lease_counts(counts: LeaseCounts) -> BTreeMap<String, u64> {
    let LeaseCounts { granted, refused, won, lost } = counts;
    [("granted", granted), ("refused", refused), ("won", won), ("lost", lost)]
        .map(|(name, count)| (name.to_owned(), count))
        .into()
}

fn nodes(config: &Config, picture: &Picture) -> Vec<Node> {
    let me = config.node();
    let mut peers = picture.node.peers.iter().zip(&picture.floating);
    let mut all = Vec::with_capacity(config.nodes.len());
    for node in &config.nodes {
        if node.name == me.name {
            all.push(myself(node, picture));
        } else if let Some((peer, floating)) = peers.next() {
            let mut entry = other(me, node, peer);
            // It leads to whoever is master.
            if peer.role == Some(Role::Master) {
                entry.paths.extend(floating_paths(config, node, floating));
            }
            all.push(entry);
        }
    }
    all
}

fn myself(node: &config::Node, picture: &Picture) -> Node {
    let bound = |a: &config::NodeAddress| picture.unbound.iter().all(|(b, _)| *b != a.bind);
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
        sync: None,
        alarms: Vec::new(),
        paths: node
            .addresses
            .iter()
            .map(|a| Path { address: a.send.to_string(), alive: bound(a), ..Path::default() })
            .collect(),
    }
}

fn floating_paths(config: &Config, node: &config::Node, known: &[(u8, PathSnapshot)]) -> Vec<Path> {
    let one = |(number, address): (u8, std::net::SocketAddr)| {
        let (_, picture) = known.iter().find(|(known, _)| *known == number)?;
        Some(Path { floating: true, ..Path::from_peer(address.to_string(), *picture) })
    };
    link::floating_routes(config, node).filter_map(one).collect()
}

fn other(me: &config::Node, node: &config::Node, peer: &PeerSnapshot) -> Node {
    let count = link::path_count(me.addresses.len(), node.addresses.len());
    let address = |k: usize| node.addresses.get(k).or(node.addresses.last());
    let addresses: Vec<_> = (0..count).filter_map(address).map(|a| a.send.to_string()).collect();
    Node::from_peer(peer, &addresses)
}

fn floating_ips(config: &Config, view: &View) -> Vec<FloatingIp> {
    let entry = |(index, ip): (usize, &config::FloatingIp)| FloatingIp {
        address: ip.address.to_string(),
        interface: ip.interface.clone(),
        held: view.floating_ips.get(index).copied().unwrap_or(false),
    };
    config.floating_ips.iter().enumerate().map(entry).collect()
}

fn wireguard(config: &Config, kind: WireguardKind, view: &View, now: Time) -> Vec<Wireguard> {
    let backend = match kind {
        WireguardKind::None => return Vec::new(),
        WireguardKind::Kernel => "kernel",
        WireguardKind::Embedded => "embedded",
    };
    let entry = |(index, wireguard): (usize, &config::Wireguard)| {
        let tunnel = view.tunnels.get(index).cloned().unwrap_or_default();
        Wireguard {
            interface: wireguard.interface.clone(),
            backend: backend.to_owned(),
            up: tunnel.up,
            staged: tunnel.staged,
            peers: tunnel.peers,
            recent_handshakes: tunnel.recent_handshakes,
            endpoints_known: tunnel.endpoints_known,
            endpoints_age_ms: tunnel.endpoints_at.map(|at| millis(now.since(at))),
            source: wireguard.source.iter().map(ToString::to_string).collect(),
        }
    };
    config.wireguard.iter().enumerate().map(entry).collect()
}

fn counters(picture: &Picture, view: &View) -> BTreeMap<String, u64> {
    let link = &picture.link;
    [
        ("sent", link.sent),
        ("received", link.received),
        ("send_errors", link.send_errors),
        ("receive_errors", link.receive_errors),
        ("unbound", link.unbound),
        ("dropped", link.dropped),
        ("strangers", link.strangers),
        ("events_dropped", picture.events_dropped),
        ("restored", view.restored),
    ]
    .map(|(name, count)| (name.to_owned(), count))
    .into()
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
