//! What this node does to its machine: floating IPs, WireGuard, programs, files.

use std::fmt;

use super::{Families, Labels, Reading, flag, label, seconds};
use crate::status::{Claim, Gate, Hook, Status, Wireguard};

pub(super) fn write(families: &mut Families<'_>, s: &Status) -> fmt::Result {
    let held = s.floating_ips.iter().map(|ip| {
        let labels = vec![("address", ip.address.clone()), ("interface", ip.interface.clone())];
        (labels, flag(ip.held))
    });
    families.gauges("floating_ip_held", "1 if this machine has the floating IP", held)?;
    gate(families, s.gate.as_ref())?;
    wireguard(families, &s.wireguard)?;
    let checks = s.checks.iter().map(|check| (label("check", &check.name), flag(check.ok)));
    families.gauges("check_passes", "1 if the health check passes", checks)?;
    hooks(families, &s.hooks)?;
    claims(families, &s.claims)?;
    files(families, s)
}

fn gate(families: &mut Families<'_>, gate: Option<&Gate>) -> fmt::Result {
    let Some(gate) = gate else { return Ok(()) };
    families.gauge("gate_open", "1 while the gate lets packets pass", flag(gate.open))?;
    let renewals = [(vec![], gate.renewed)];
    families.counters(
        "gate_renewals",
        "How often the gate was opened, renewed or shut",
        renewals,
    )?;
    let help = "How often it had shut by itself before it was renewed";
    families.counters("gate_lapses", help, [(vec![], gate.lapsed)])?;
    let slowest = std::time::Duration::from_micros(gate.slowest_us).as_secs_f64();
    families.gauge("gate_slowest_renewal_seconds", "The slowest renewal since the start", slowest)
}

fn wireguard(families: &mut Families<'_>, all: &[Wireguard]) -> fmt::Result {
    let of = |w: &Wireguard| label("interface", &w.interface);
    let backends = all.iter().map(|w| [of(w), label("backend", &w.backend)].concat());
    families.info("wireguard", "Which WireGuard the interface has", backends)?;
    let figures: [Reading<Wireguard, u64>; 5] = [
        ("wireguard_up", "1 if the interface serves", |w| u64::from(w.up)),
        ("wireguard_staged", "1 if it is configured", |w| u64::from(w.staged)),
        ("wireguard_peers", "Configured peers", |w| w.peers),
        ("wireguard_active_peers", "Peers with a handshake in the last 180 s", |w| {
            w.recent_handshakes
        }),
        ("wireguard_known_endpoints", "Peers whose endpoint is known", |w| w.endpoints_known),
    ];
    for (name, help, value) in figures {
        families.gauges(name, help, all.iter().map(|w| (of(w), value(w))))?;
    }
    let ages = all.iter().filter_map(|w| Some((of(w), seconds(w.endpoints_age_ms?))));
    let help = "Age of the newest complete picture of where peers are";
    families.gauges("wireguard_endpoints_age_seconds", help, ages)
}

fn hooks(families: &mut Families<'_>, all: &[Hook]) -> fmt::Result {
    let ended = || all.iter().filter(|hook| hook.outcome != "running");
    let of = |hook: &Hook| program(&hook.run, "hook");
    let failed = ended().map(|hook| (of(hook), flag(hook.exit != Some(0))));
    families.gauges("hook_failed", "1 if its last run did not end with exit code 0", failed)?;
    let codes = ended().filter_map(|hook| Some((of(hook), i64::from(hook.exit?))));
    let help = "Exit code of its last run; none if it did not end by itself";
    families.gauges("hook_exit_code", help, codes)?;
    let took = ended().map(|hook| (of(hook), seconds(hook.duration_ms)));
    families.gauges("hook_duration_seconds", "How long its last run took", took)
}

fn claims(families: &mut Families<'_>, all: &[Claim]) -> fmt::Result {
    let of = |claim: &Claim| program(&claim.run, "claim");
    let held = all.iter().map(|claim| (of(claim), flag(claim.held)));
    families.gauges("claim_held", "1 if this node has what the claim is for", held)?;
    let failures = all.iter().map(|claim| (of(claim), i64::from(claim.failures)));
    families.gauges("claim_failures", "Runs that failed since the last that did not", failures)?;
    let given_up = all.iter().map(|claim| (of(claim), flag(claim.given_up)));
    let help = "1 if its program said that trying again is useless";
    families.gauges("claim_given_up", help, given_up)?;
    let took = all.iter().map(|claim| (of(claim), seconds(claim.duration_ms)));
    families.gauges("claim_duration_seconds", "How long its last run took", took)
}

/// Program and arguments as in the config.
fn program(run: &[String], key: &'static str) -> Labels {
    label(key, &run.join(" "))
}

/// Names of files come from other gateways too, where a directory is synced: so numbers alone.
fn files(families: &mut Families<'_>, s: &Status) -> fmt::Result {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let in_sync = s.sync.iter().filter(|file| file.in_sync).count();
    let troubled = s.sync.iter().filter(|file| file.problem.is_some()).count();
    families.gauge("sync_files", "Synced files", count(s.sync.len()))?;
    families.gauge(
        "sync_files_in_sync",
        "Synced files that all gateways have alike",
        count(in_sync),
    )?;
    let help = "Synced files that do not travel, or of which an edit lost";
    families.gauge("sync_files_with_problem", help, count(troubled))
}
