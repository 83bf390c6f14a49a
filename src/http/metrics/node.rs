//! This node: its role, and what became of it.

use std::fmt;

use wgha_proto::Role;

use super::{Families, flag, label, timestamp};
use crate::status::{Changes, Status};

const ROLES: [Role; 4] = [Role::Init, Role::Backup, Role::Master, Role::Fault];

pub(super) fn write(families: &mut Families<'_>, s: &Status) -> fmt::Result {
    let names = vec![
        ("cluster", s.cluster.clone()),
        ("node", s.node.clone()),
        ("version", s.version.clone()),
    ];
    families.info(
        "node",
        "Names of the cluster and of this node, and the program's version",
        [names],
    )?;
    let role = |role: Role| (label("role", role.word()), flag(s.role == role.word()));
    families.gauges("role", "1 for the role that this node has", ROLES.map(role))?;
    families.gauge("term", "The term if master, else the highest known", s.term)?;
    let since = timestamp(&s.since).map(|at| (vec![], at));
    families.gauges("role_since_timestamp_seconds", "When the role last changed", since)?;
    let takes = |name: &String| (label("node", name), flag(s.master.as_ref() == Some(name)));
    let gateways = s.nodes.iter().filter(|node| !node.witness).map(|node| takes(&node.name));
    families.gauges("master", "1 for the node that this one takes for master", gateways)?;
    families.gauge("healthy", "1 if every check passes", flag(s.healthy))?;
    families.gauge("maintenance", "1 in maintenance", flag(s.maintenance))?;
    families.gauge("ready", "1 if able to take over, or serving", flag(s.ready))?;
    let exclusive = flag(s.exclusive.starts_with("yes"));
    families.gauge("exclusive", "1 if at most one master is guaranteed", exclusive)?;
    families.gauge("uptime_seconds", "How long the daemon runs", s.uptime_seconds)?;
    let lease = s.lease.expires_ms.map(|ms| (vec![], super::seconds(ms)));
    families.gauges("lease_remaining_seconds", "How long the lease still holds", lease)?;
    let votes = s.lease.counts.iter().map(|(event, n)| (label("event", event), *n));
    let help = "Asks of other nodes for a lease that this one granted (renewals among them) or refused; leases of its own that it won, or lost while master";
    families.counters("lease_events", help, votes)?;
    let warnings = "Warnings that stand: clocks apart, another WireGuard";
    families.gauge("warnings", warnings, i64::try_from(s.warnings.len()).unwrap_or(i64::MAX))?;
    evidence(families, s)?;
    arbiter(families, s)?;
    changes(families, &s.changes)
}

fn evidence(families: &mut Families<'_>, s: &Status) -> fmt::Result {
    let state = s.evidence.state.as_str();
    let words = ["answered", "silent", "no-source", "off"].into_iter();
    let samples = words.filter(|_| !state.is_empty());
    let samples = samples.map(|word| (label("state", word), flag(word == state)));
    families.gauges("evidence", "1 for what outside evidence says of this node", samples)
}

fn arbiter(families: &mut Families<'_>, s: &Status) -> fmt::Result {
    let asked = s.arbiter.as_ref().filter(|arbiter| !arbiter.endpoint.is_empty());
    let reachable = asked.and_then(|arbiter| arbiter.reachable).map(|up| (vec![], flag(up)));
    families.gauges("etcd_reachable", "1 if the etcd that votes answered last time", reachable)?;
    let held = asked.map(|arbiter| (vec![], flag(arbiter.held)));
    families.gauges("etcd_vote_held", "1 if its vote is this node's", held)?;
    let results =
        asked.map(|a| [("ok", a.requests.saturating_sub(a.failed)), ("failed", a.failed)]);
    let results = results.into_iter().flatten().map(|(word, n)| (label("result", word), n));
    families.counters("etcd_requests", "Requests to the etcd that votes", results)
}

fn changes(families: &mut Families<'_>, changes: &Changes) -> fmt::Result {
    let roles = ROLES.map(Role::word);
    let count = |role| (label("to", role), changes.roles.get(role).copied().unwrap_or(0));
    families.counters("role_changes", "Changes of role, by the new one", roles.map(count))?;
    let takeovers = [(vec![], changes.takeovers)];
    families.counters("takeovers", "How often this node became master by itself", takeovers)?;
    let handovers = [
        ("taken", changes.handovers_taken),
        ("given", changes.handovers_given),
        ("failed", changes.handovers_failed),
    ];
    let handovers = handovers.map(|(result, n)| (label("result", result), n));
    families.counters(
        "handovers",
        "Handovers to this node (taken), from it (given), and those that did not come about",
        handovers,
    )?;
    let Some(last) = &changes.last_takeover else { return Ok(()) };
    let at = timestamp(&last.at).map(|at| (vec![], at));
    families.gauges("last_takeover_timestamp_seconds", "When this node last became master", at)?;
    let phases = [
        ("detect", last.phases_ms.detect),
        ("address", last.phases_ms.address),
        ("announce", last.phases_ms.announce),
        ("wireguard", last.phases_ms.wireguard),
        ("first_handshake", last.phases_ms.first_handshake),
        ("handshakes_90_percent", last.phases_ms.handshakes_90_percent),
        ("hooks", last.phases_ms.hooks),
    ];
    let known = phases.into_iter().filter_map(|(name, ms)| Some((label("phase", name), ms? / 1e3)));
    families.gauges("last_takeover_phase_seconds", "How long the parts of it took", known)
}
