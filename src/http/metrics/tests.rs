//! The exposition, read by rules of its own: those of OpenMetrics 1.0 that matter to a scraper.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::events::{Event, Phases};
use crate::status::{Arbiter, Changes, Evidence, Gate, Lease, tests::sample};

const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// A status in which nothing is missing.
fn full() -> Status {
    let mut status = sample();
    let counts = [("granted", 5), ("refused", 4), ("won", 3), ("lost", 2)];
    let counts = counts.map(|(event, n)| (event.to_owned(), n)).into();
    status.lease = Lease { held: true, expires_ms: Some(1500), counts, ..Lease::default() };
    status.gate = Some(Gate { open: true, lapsed: 2, slowest_us: 1500, ..Gate::default() });
    status.evidence = Evidence { state: "answered".into(), ..Evidence::default() };
    let endpoint = "https://10.0.3.1:2379".to_owned();
    let reachable = Some(true);
    status.arbiter =
        Some(Arbiter { endpoint, reachable, requests: 9, failed: 2, ..Arbiter::default() });
    let counters = ["sent", "received", "send_errors", "receive_errors", "unbound"];
    let more = ["dropped", "strangers", "events_dropped", "files_dropped", "restored", "invented"];
    status.link = counters.into_iter().chain(more).map(|key| (key.to_owned(), 5)).collect();
    for node in status.nodes.iter_mut().filter(|node| node.name.starts_with("gw2")) {
        node.name = "gw2".into();
        node.sync = Some(true);
        node.config_match = Some(true);
        node.clock_offset_ms = Some(-1500.0);
        node.alarms = vec!["clock".into()];
    }
    status.changes = Changes {
        roles: BTreeMap::from([("master".into(), 2), ("backup".into(), 3)]),
        takeovers: 1,
        handovers_taken: 1,
        last_takeover: Some(Event {
            at: "2026-11-22T00:00:00.500Z".into(),
            from: "backup".into(),
            to: "master".into(),
            term: 7,
            reason: "master gw2 is silent".into(),
            phases_ms: Phases { detect: Some(612.5), hooks: Some(7.0), ..Phases::default() },
        }),
        ..Changes::default()
    };
    status
}

fn text_of(status: Status) -> String {
    let counts = Counts::default();
    counts.answered("/master", 200);
    exposition(Arc::new(status), Arc::new(counts)).unwrap()
}

/// A family: type, unit, and its samples as name with labels.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    unit: Option<String>,
    help: String,
    samples: BTreeMap<String, f64>,
}

/// Reads an exposition, or says which line breaks which rule.
fn parse(text: &str) -> Result<BTreeMap<String, Family>, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("no # EOF at the end")?;
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in body.lines() {
        let bad = |why: &str| format!("{why}: {line}");
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let mut word = || words.next().ok_or_else(|| bad("a short line"));
            let (what, name, value) = (word()?, word()?, word()?.to_owned());
            if what == "HELP" && families.contains_key(name) {
                return Err(bad("a family comes twice"));
            }
            let family = families.entry(name.to_owned()).or_default();
            current = name.to_owned();
            match what {
                "HELP" => family.help = value,
                "TYPE" => family.kind = value,
                "UNIT" => family.unit = Some(value),
                _ => return Err(bad("unknown descriptor")),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').ok_or_else(|| bad("no value"))?;
        let value: f64 = value.parse().map_err(|_| bad("no number"))?;
        let family = families.get_mut(&current).ok_or_else(|| bad("no family"))?;
        let name = series.split('{').next().unwrap_or_default();
        let suffix = match family.kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            "gauge" => "",
            _ => return Err(bad("unknown type")),
        };
        if name != format!("{current}{suffix}") {
            return Err(bad("a sample of another family"));
        }
        if !value.is_finite() || (family.kind == "counter" && value < 0.0) {
            return Err(bad("an impossible value"));
        }
        if family.samples.insert(series.to_owned(), value).is_some() {
            return Err(bad("a series comes twice"));
        }
    }
    Ok(families)
}

#[test]
fn every_family_has_help_type_unit_and_a_good_name() {
    let families = parse(&text_of(full())).unwrap();
    assert!(families.len() > 40, "{}", families.len());
    for (name, family) in &families {
        assert!(name.starts_with("wgha_") && !name.ends_with("_total"), "{name}");
        let lower = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
        assert!(name.chars().all(lower), "{name}");
        assert!(
            family.help.ends_with('.') && !family.help.ends_with(".."),
            "{name}: {}",
            family.help
        );
        assert!(!family.samples.is_empty(), "{name}");
        for unit in ["seconds", "ratio"] {
            let announced = family.unit.as_deref() == Some(unit);
            assert_eq!(name.ends_with(&format!("_{unit}")), announced, "{name}");
        }
        assert!(!["_ms", "_milliseconds", "_percent"].iter().any(|u| name.ends_with(u)), "{name}");
    }
}

/// The parser of these tests notices what it is there for.
#[test]
fn the_parser_is_strict() {
    let good = "# HELP wgha_a A.\n# TYPE wgha_a counter\nwgha_a_total{x=\"1\"} 1\n# EOF\n";
    assert_eq!(parse(good).unwrap()["wgha_a"].samples["wgha_a_total{x=\"1\"}"], 1.0);
    for (from, to) in [
        ("# EOF\n", ""),
        ("_total", ""),
        ("} 1", "} one"),
        ("} 1\n", "} 1\nwgha_a_total{x=\"1\"} 2\n"),
        ("counter", "histogramm"),
        ("# HELP wgha_a A.\n# TYPE wgha_a counter\n", ""),
    ] {
        assert!(parse(&good.replace(from, to)).is_err(), "{from:?} -> {to:?}");
    }
}

#[test]
fn the_values_are_those_of_status() {
    let families = parse(&text_of(full())).unwrap();
    let all: BTreeMap<&str, f64> = families
        .values()
        .flat_map(|family| family.samples.iter().map(|(name, value)| (name.as_str(), *value)))
        .collect();
    for (series, value) in [
        ("wgha_node_info{cluster=\"edge\",node=\"gw1\",version=\"0.1.0\"}", 1.0),
        ("wgha_role{role=\"master\"}", 1.0),
        ("wgha_role{role=\"backup\"}", 0.0),
        ("wgha_term", 7.0),
        ("wgha_master{node=\"gw1\"}", 1.0),
        ("wgha_healthy", 1.0),
        ("wgha_maintenance", 0.0),
        ("wgha_exclusive", 0.0),
        ("wgha_uptime_seconds", 90_061.0),
        ("wgha_role_since_timestamp_seconds", 1_795_305_600.0),
        ("wgha_lease_remaining_seconds", 1.5),
        ("wgha_lease_events_total{event=\"granted\"}", 5.0),
        ("wgha_lease_events_total{event=\"lost\"}", 2.0),
        ("wgha_warnings", 1.0),
        ("wgha_evidence{state=\"answered\"}", 1.0),
        ("wgha_etcd_reachable", 1.0),
        ("wgha_etcd_vote_held", 0.0),
        ("wgha_etcd_requests_total{result=\"ok\"}", 7.0),
        ("wgha_etcd_requests_total{result=\"failed\"}", 2.0),
        ("wgha_role_changes_total{to=\"backup\"}", 3.0),
        ("wgha_role_changes_total{to=\"fault\"}", 0.0),
        ("wgha_takeovers_total", 1.0),
        ("wgha_handovers_total{result=\"taken\"}", 1.0),
        ("wgha_last_takeover_timestamp_seconds", 1_795_305_600.5),
        ("wgha_last_takeover_phase_seconds{phase=\"detect\"}", 0.6125),
        ("wgha_peer_clock_offset_seconds{node=\"gw2\"}", -1.5),
        ("wgha_peer_alarm{node=\"gw2\",kind=\"clock\"}", 1.0),
        ("wgha_peer_alarm{node=\"gw2\",kind=\"wireguard\"}", 0.0),
        ("wgha_refusals_total{reason=\"replayed\"}", 3.0),
        ("wgha_datagrams_sent_total", 5.0),
        ("wgha_restored_total", 5.0),
        ("wgha_other_events_total{event=\"invented\"}", 5.0),
        ("wgha_floating_ip_held{address=\"203.0.113.10/32\",interface=\"eth0\"}", 1.0),
        ("wgha_wireguard_info{interface=\"wg0\",backend=\"kernel\"}", 1.0),
        ("wgha_wireguard_active_peers{interface=\"wg0\"}", 31.0),
        ("wgha_wireguard_endpoints_age_seconds{interface=\"wg0\"}", 0.512),
        ("wgha_gate_open", 1.0),
        ("wgha_gate_lapses_total", 2.0),
        ("wgha_gate_slowest_renewal_seconds", 0.0015),
        ("wgha_check_passes{check=\"uplink\"}", 0.0),
        ("wgha_hook_exit_code{hook=\"/etc/wgha/notify.sh --verbose\"}", 0.0),
        ("wgha_hook_duration_seconds{hook=\"/etc/wgha/notify.sh --verbose\"}", 1.25),
        ("wgha_claim_held{claim=\"aws-eip\"}", 1.0),
        ("wgha_sync_files_in_sync", 1.0),
        ("wgha_http_requests_total{path=\"/master\",code=\"200\"}", 1.0),
    ] {
        assert_eq!(all.get(series), Some(&value), "{series}\n{all:#?}");
    }
    assert!(!all.keys().any(|series| series.contains("peer_alive{node=\"gw1\"}")));
}

/// What is not known is left out instead of being zero.
#[test]
fn an_empty_status_is_whole() {
    let families = parse(&text_of(Status::default())).unwrap();
    for absent in ["wgha_peer_alive", "wgha_peer_round_trip_seconds", "wgha_evidence"] {
        assert!(!families.contains_key(absent), "{absent}");
    }
    let mut status = full();
    for node in &mut status.nodes {
        (node.rtt_ms, node.last_heard_ms, node.config_match) = (None, None, None);
    }
    let families = parse(&text_of(status)).unwrap();
    assert!(families.contains_key("wgha_peer_alive"));
    for absent in ["wgha_peer_round_trip_seconds", "wgha_peer_ready", "wgha_peer_config_match"] {
        assert!(!families.contains_key(absent), "{absent}");
    }
}

/// Neither a quote in an argument nor two entries of one name spoil the page.
#[test]
fn names_cannot_spoil_the_page() {
    let mut status = full();
    let quoted = vec!["/bin/x".to_owned(), "a\"b\\c\nd".to_owned()];
    status.hooks[0].run = quoted;
    status.hooks.push(status.hooks[0].clone());
    let text = text_of(status);
    parse(&text).unwrap();
    assert!(text.contains(r#"wgha_hook_failed{hook="/bin/x a\"b\\c\nd"} 0"#), "{text}");
}

/// What other nodes and clients say is no label.
#[test]
fn nothing_from_the_network_is_a_label() {
    let mut status = full();
    status.sync[0].file = "/etc/conf.d/said-by-another".into();
    for node in status.nodes.iter_mut().filter(|node| node.name != "gw1") {
        node.role = Some("said-by-another".into());
        node.alarms = vec!["said-by-another".into()];
    }
    status.evidence.state = "said-by-another".into();
    status.reason = "said-by-another".into();
    status.warnings = vec!["said-by-another".into()];
    status.role = "said-by-another".into();
    assert!(!text_of(status).contains("said-by-another"));
}

/// docs/operations.md lists exactly the metrics that there are, with their types.
#[test]
fn the_documentation_lists_every_metric() {
    let families = parse(&text_of(full())).unwrap();
    let exists: BTreeSet<(String, String)> = families
        .into_iter()
        .map(|(name, family)| match family.kind.as_str() {
            "counter" => (format!("{name}_total"), family.kind),
            "info" => (format!("{name}_info"), family.kind),
            _ => (name, family.kind),
        })
        .collect();
    let rows = OPERATIONS.lines().filter_map(|line| line.strip_prefix("| `wgha_"));
    let documented: BTreeSet<(String, String)> = rows
        .map(|row| {
            let (name, rest) = row.split_once('`').unwrap();
            let kind = rest.split(" | ").nth(1).unwrap();
            (format!("wgha_{}", name.split('{').next().unwrap()), kind.to_owned())
        })
        .collect();
    assert_eq!(documented, exists);
}
