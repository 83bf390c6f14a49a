//! The other nodes, and the heartbeats to and from them.

use std::fmt;

use super::{Families, Labels, Reading, flag, label, seconds};
use crate::status::{Node, Status};

/// What [`Node::alarms`] may hold.
const ALARMS: [&str; 2] = ["clock", "wireguard"];

pub(super) fn write(families: &mut Families<'_>, s: &Status) -> fmt::Result {
    let others: Vec<&Node> = s.nodes.iter().filter(|node| node.name != s.node).collect();
    let flags: [Reading<Node, Option<bool>>; 6] = [
        ("peer_alive", "1 if the node and this one hear each other", |n| Some(n.alive)),
        ("peer_healthy", "1 if its checks pass, as it last said", |n| {
            heard(n).then_some(n.healthy)
        }),
        ("peer_maintenance", "1 in maintenance, as it last said", |n| {
            heard(n).then_some(n.maintenance)
        }),
        ("peer_ready", "1 if able to take over, as it last said", |n| heard(n).then_some(n.ready)),
        ("peer_config_match", "1 if its config agrees where it must", |n| n.config_match),
        ("peer_sync_connected", "1 if the sync channel to it stands", |n| n.sync),
    ];
    for (name, help, value) in flags {
        let samples = others.iter().filter_map(|n| Some((of(n), flag(value(n)?))));
        families.gauges(name, help, samples)?;
    }
    let figures: [Reading<Node, Option<f64>>; 4] = [
        ("peer_last_heard_seconds", "Time since its last authentic heartbeat", |n| {
            n.last_heard_ms.map(seconds)
        }),
        ("peer_round_trip_seconds", "Smoothed round trip", |n| n.rtt_ms.map(|ms| ms / 1e3)),
        ("peer_loss_ratio", "Lost heartbeats of the last 64, on the best path", |n| n.loss),
        ("peer_clock_offset_seconds", "Its clock that stamps handshakes minus this one's", |n| {
            n.clock_offset_ms.map(|ms| ms / 1e3)
        }),
    ];
    for (name, help, value) in figures {
        let samples = others.iter().filter_map(|n| Some((of(n), value(n)?)));
        families.gauges(name, help, samples)?;
    }
    let alarms = others.iter().filter(|n| !n.witness).flat_map(|n| alarms(n));
    let help =
        "1 while something makes clients wait after a change of role between it and this node";
    families.gauges("peer_alarm", help, alarms)?;
    paths(families, s, &others)?;
    let refusals = s.refusals.iter().map(|(reason, n)| (label("reason", reason), *n));
    families.counters(
        "refusals",
        "Refused datagrams and connections of the sync channel",
        refusals,
    )?;
    link(families, s)
}

fn paths(families: &mut Families<'_>, s: &Status, others: &[&Node]) -> fmt::Result {
    let path = |n: &Node, address: &str| [of(n), label("path", address)].concat();
    let alive = others
        .iter()
        .flat_map(|n| n.paths.iter().map(move |p| (path(n, &p.address), flag(p.alive))));
    families.gauges("path_alive", "1 if both directions of the path work", alive)?;
    let own = s.nodes.iter().filter(|node| node.name == s.node).flat_map(|node| &node.paths);
    let own = own.map(|p| (label("address", &p.address), flag(p.alive)));
    families.gauges("address_bound", "1 if heartbeats leave from this node's own address", own)
}

/// Counters that [`Status::link`] has, and how they are shown. Others come as `other_events`.
const LINK: [(&str, &str, &str); 10] = [
    ("sent", "datagrams_sent", "Heartbeats sent"),
    ("received", "datagrams_received", "Datagrams received on the heartbeat's sockets"),
    ("send_errors", "send_errors", "Heartbeats that the kernel refused to send"),
    ("receive_errors", "receive_errors", "Receives that failed"),
    ("unbound", "unbound_sends", "Heartbeats not sent because their address could not be bound"),
    (
        "dropped",
        "datagrams_dropped",
        "Dropped by the kernel: not of this cluster, or too many at once",
    ),
    (
        "strangers",
        "datagrams_of_strangers",
        "From unknown addresses, beyond the rate that those share",
    ),
    ("events_dropped", "events_dropped", "Events that came faster than they were logged"),
    ("files_dropped", "files_dropped", "Messages about synced files that came too fast"),
    ("restored", "restored", "What others removed and wgha put back, or the other way round"),
];

fn link(families: &mut Families<'_>, s: &Status) -> fmt::Result {
    for (key, name, help) in LINK {
        let sample = s.link.get(key).map(|n| (vec![], *n));
        families.counters(name, help, sample)?;
    }
    let others = s.link.iter().filter(|(key, _)| LINK.iter().all(|(known, ..)| known != key));
    let others = others.map(|(key, n)| (label("event", key), *n));
    families.counters("other_events", "Further counters of status", others)
}

fn of(node: &Node) -> Labels {
    label("node", &node.name)
}

fn heard(node: &Node) -> bool {
    node.last_heard_ms.is_some()
}

fn alarms(node: &Node) -> impl Iterator<Item = (Labels, i64)> {
    let stands = |kind: &str| node.alarms.iter().any(|alarm| alarm == kind);
    ALARMS
        .into_iter()
        .map(move |kind| ([of(node), label("kind", kind)].concat(), flag(stands(kind))))
}
