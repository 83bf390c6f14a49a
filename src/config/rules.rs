//! What tables must not say together.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::section::{At, Sink};
use super::{
    Check, CheckKind, Claim, Cluster, FloatingIp, Hook, MAX_NODES, Node, QuorumChoice, SyncFile,
    Wireguard,
};

/// `[[node]]` against each other.
pub(super) fn nodes(sink: &mut Sink<'_>, nodes: &[At<Node>]) {
    if nodes.len() > MAX_NODES {
        let line = nodes[MAX_NODES].line;
        sink.at(
            line,
            "[[node]]",
            format!("expected at most {MAX_NODES} nodes, found {}", nodes.len()),
        );
    }
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut addresses: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    for At { line, value: node } in nodes {
        if let Some(first) = names.insert(&node.name, *line) {
            let message = format!("{:?} is the name of another node, at line {first}", node.name);
            sink.at(*line, "[[node]] name", message);
        }
        for address in &node.addresses {
            if let Some(other) = addresses.insert(address.send, &node.name) {
                let message = format!("{} is also an address of node {other:?}", address.send);
                sink.at(*line, "[[node]] addresses", message);
            }
        }
    }
    if !nodes.is_empty() && nodes.iter().all(|node| node.value.witness) {
        sink.whole("[[node]] witness", "all nodes are witnesses; expected at least one gateway");
    }
}

/// The length of a lease is the detection time, and a voter that lost its memory sits out the longest.
pub(super) fn lease(sink: &mut Sink<'_>, cluster: &Cluster, nodes: usize, arbiter: bool) {
    if arbiter && nodes == 1 {
        sink.whole("[arbiter]", "has nothing to decide for one node; expected two nodes or more");
    }
    if arbiter && cluster.quorum == QuorumChoice::None {
        sink.whole("[arbiter]", "votes where a majority is needed; [cluster] quorum is \"none\"");
    }
    let majority = cluster.quorum.needs_majority(nodes + usize::from(arbiter));
    let detection = cluster.detection();
    let longest = wgha_proto::LONGEST_LEASE;
    if majority && detection > longest {
        let message = format!(
            "heartbeat x misses is {} s; expected at most {} s where a majority is needed",
            detection.as_secs_f64(),
            longest.as_secs()
        );
        sink.whole("[cluster] misses", message);
    }
}

/// `[http]` and `[probe]` against each other, and against `[[node]]`: gateways listen by TCP where their heartbeats
/// come.
pub(super) fn listeners(
    sink: &mut Sink<'_>,
    http: Option<&At<SocketAddr>>,
    probe: Option<&At<SocketAddr>>,
    nodes: &[At<Node>],
) {
    for (key, at) in [("[http] listen", http), ("[probe] listen", probe)] {
        let Some(At { line, value: listen }) = at else { continue };
        let mut taken = nodes.iter().flat_map(|node| &node.value.addresses).map(|a| a.bind);
        if let Some(taken) = taken.find(|taken| overlaps(*listen, *taken)) {
            let message =
                format!("the nodes' own port: {taken} is in [[node]]; expected another one");
            sink.at(*line, key, message);
        }
    }
    if let (Some(http), Some(probe)) = (http, probe)
        && (overlaps(http.value, probe.value) || overlaps(probe.value, http.value))
    {
        let message = format!("{} is that of [http]; expected another port", probe.value);
        sink.at(probe.line, "[probe] listen", message);
    }
}

/// Who listens at `listen` is in the way of who listens at `taken`.
fn overlaps(listen: SocketAddr, taken: SocketAddr) -> bool {
    let one = listen.ip().is_unspecified() || listen.ip() == taken.ip();
    one && listen.port() == taken.port()
}

/// `[[check]]` against each other and against `[[wireguard]]`.
pub(super) fn checks(sink: &mut Sink<'_>, checks: &[At<Check>], wireguard: &[At<Wireguard>]) {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for At { line, value } in checks {
        if let Some(first) = names.insert(&value.name, *line) {
            let message = format!("{:?} is also the check of line {first}", value.name);
            sink.at(*line, "[[check]] name", message);
        }
        if let CheckKind::Wireguard(interface, _) = &value.kind
            && !wireguard.iter().any(|w| w.value.interface == *interface)
        {
            let message = format!("expected the interface of a [[wireguard]], found {interface:?}");
            sink.at(*line, "[[check]] wireguard", message);
        }
    }
}

/// Names that would be one on the wire, which carries `tag` of each.
pub(super) fn node_tags<T: Ord>(sink: &mut Sink<'_>, nodes: &[At<Node>], tag: impl Fn(&str) -> T) {
    let mut tags: BTreeMap<T, &str> = BTreeMap::new();
    for At { line, value: node } in nodes {
        match tags.insert(tag(&node.name), &node.name) {
            Some(other) if other != node.name => {
                let message = format!(
                    "{:?} cannot be told from {other:?} on the wire; rename one",
                    node.name
                );
                sink.at(*line, "[[node]] name", message);
            }
            _ => {}
        }
    }
}

/// `[[floating_ip]]` against each other and against `[[node]]`.
pub(super) fn floating_ips(sink: &mut Sink<'_>, floating: &[At<FloatingIp>], nodes: &[At<Node>]) {
    let mut seen: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for At { line, value } in floating {
        let address = value.address.addr();
        if let Some(first) = seen.insert(address, *line) {
            let message = format!("{address} is also the floating IP of line {first}");
            sink.at(*line, "[[floating_ip]] address", message);
        }
        let of_node = |node: &&At<Node>| {
            let mut ips = node.value.addresses.iter().flat_map(|a| [a.send.ip(), a.bind.ip()]);
            ips.any(|ip| ip == address)
        };
        if let Some(node) = nodes.iter().find(of_node) {
            let message = format!("{address} is an address of node {:?}", node.value.name);
            sink.at(*line, "[[floating_ip]] address", message);
        }
    }
}

/// `[[wireguard]]` against each other and against `[[floating_ip]]`.
pub(super) fn wireguard(sink: &mut Sink<'_>, wireguard: &[At<Wireguard>], floating: &[FloatingIp]) {
    let mut interfaces: BTreeMap<&str, usize> = BTreeMap::new();
    for At { line, value } in wireguard {
        let key = "[[wireguard]] interface";
        if let Some(first) = interfaces.insert(&value.interface, *line) {
            let message = format!("{:?} is also the interface of line {first}", value.interface);
            sink.at(*line, key, message);
        }
        if floating.iter().any(|f| f.interface == value.interface) {
            let message = format!("{:?} carries a floating IP", value.interface);
            sink.at(*line, key, message);
        }
    }
}

/// Only root can start a program as somebody else.
pub(super) fn users(
    sink: &mut Sink<'_>,
    cluster: Option<&Cluster>,
    hooks: &[At<Hook>],
    claims: &[At<Claim>],
) {
    let Some(worker) = cluster.and_then(|cluster| cluster.user.as_ref()) else { return };
    let hooks = hooks.iter().map(|at| (at.line, "[[hook]] user", &at.value.user));
    let claims = claims.iter().map(|at| (at.line, "[[claim]] user", &at.value.user));
    for (line, key, user) in hooks.chain(claims) {
        let Some(user) = user.as_ref().filter(|user| *user != worker) else { continue };
        let message = format!(
            "{user:?} is not the user of [cluster], {worker:?}, who cannot start programs as somebody else; leave out one of the two"
        );
        sink.at(line, key, message);
    }
}

/// `[sync] files` against each other and against what must not leave the machine.
pub(super) fn sync(sink: &mut Sink<'_>, files: &[At<SyncFile>], cluster: Option<&Cluster>) {
    for (index, At { line, value: SyncFile { path, .. } }) in files.iter().enumerate() {
        let mut say = |message: String| {
            sink.at(*line, "[sync] files", format!("{}: {message}", path.display()));
        };
        if files.iter().take(index).any(|other| other.value.path == *path) {
            say("is named twice".to_owned());
        }
        if files.iter().any(|other| path.parent() == Some(&other.value.path)) {
            say("is in a directory that is named as well".to_owned());
        }
        let Some(cluster) = cluster else { continue };
        if *path == cluster.key_file || cluster.key_file.parent() == Some(path) {
            // It would travel under the key that it replaces, and rotation needs an order.
            say("the key file is not synced: copy it as docs/operations.md says".to_owned());
        }
        if path.starts_with(&cluster.state_dir) || cluster.state_dir.starts_with(path) {
            say("the state directory is this node's own".to_owned());
        }
    }
}
