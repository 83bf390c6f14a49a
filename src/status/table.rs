//! The table of `wgha status`.

use std::time::{Duration, SystemTime};

use super::{Arbiter, Node, Path, Status};

/// The widest line.
const WIDTH: usize = 80;

/// The widest cell that is not the last of its row.
const CELL: usize = 24;

/// The widest name of a node.
const NAME: usize = 16;

/// The status at a glance: plain text, at most 80 columns, with a final newline.
///
/// `now` turns times into ages. Text from outside cannot move the cursor: control characters become
/// `?`.
#[must_use]
pub fn table(status: &Status, now: SystemTime) -> String {
    let mut page = Page::default();
    head(&mut page, status, now);
    nodes(&mut page, status);
    resources(&mut page, status);
    programs(&mut page, status, now);
    refusals(&mut page, status);
    page.0
}

fn head(page: &mut Page, s: &Status, now: SystemTime) {
    let age = age(&s.since, now);
    page.line(&format!("{} / {}: {}, term {}, for {age}", s.cluster, s.node, s.role, s.term));
    page.line(&format!("  why        {}", s.reason));
    page.line(&format!("  master     {}", s.master.as_deref().unwrap_or("none known")));
    page.line(&format!("  state      {}", flags(s)));
    if let Some(why) = &s.held_back {
        page.line(&format!("  held back  {why}"));
    }
    if let Some(text) = evidence(s) {
        page.line(&format!("  evidence   {text}"));
    }
    page.line(&format!("  exclusive  {}", s.exclusive));
    let why = s.no_gate.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
    page.line(&format!("  fencing    {}{why}", s.fencing));
    if let Some(realtime) = &s.realtime {
        let all = if realtime.missing.is_empty() { "on" } else { &realtime.missing.join("; ") };
        page.line(&format!("  realtime   {all}"));
    }
    if let Some(ms) = s.lease.expires_ms {
        let held = if s.lease.held { "held" } else { "not held" };
        page.line(&format!("  lease      {held}, {ms} ms left"));
    }
    if let Some(arbiter) = &s.arbiter {
        page.line(&format!("  etcd       {}", etcd(arbiter)));
    }
    let up = span(Duration::from_secs(s.uptime_seconds));
    let version = if s.version.is_empty() { "" } else { ", wgha " };
    page.line(&format!("  running    for {up}{version}{}", s.version));
}

/// Whether it answers, and whose its vote is.
fn etcd(a: &Arbiter) -> String {
    let vote = match (a.held, a.wanted) {
        (true, _) => "its vote is held",
        (false, true) => "its vote is asked for",
        (false, false) => "its vote is not needed",
    };
    match (&a.last_error, a.reachable) {
        (Some(why), _) => format!("DOES NOT VOTE: {why}"),
        (None, Some(_)) => format!("{} answers, {vote}", a.endpoint),
        (None, None) if a.endpoint.is_empty() => "votes; gateways ask it".to_owned(),
        (None, None) => format!("{} not asked yet", a.endpoint),
    }
}

/// Whether something outside answers, and what. Nothing of a witness.
fn evidence(s: &Status) -> Option<String> {
    let e = &s.evidence;
    let asked = e.sources.iter().filter(|source| source.usual);
    let names = asked.map(|source| source.address.as_str()).collect::<Vec<_>>().join(", ");
    match (e.state.as_str(), &e.trouble) {
        ("", _) => None,
        ("off", _) => Some("off".to_owned()),
        ("answered", _) if names.is_empty() => Some("clients are heard".to_owned()),
        ("answered", _) => Some(format!("{names} answers")),
        ("silent", _) => Some(format!("NO ANSWER from {names}")),
        (_, Some(trouble)) => Some(format!("none: {trouble}")),
        _ => Some("none: no router answers".to_owned()),
    }
}

fn nodes(page: &mut Page, s: &Status) {
    let heads = ["NODE", "ROLE", "STATE", "TERM", "PRIO", "HEARD", "RTT", "LOSS", "CLOCK"];
    page.rows(&heads, s.nodes.iter().map(|n| node(n, n.name == s.node)));
    for n in s.nodes.iter().filter(|n| n.config_match == Some(false)) {
        page.line(&format!("! the config of {} differs from that of {}", n.name, s.node));
    }
    for warning in &s.warnings {
        page.line(&format!("! {warning}"));
    }
    let worth = |n: &&Node| own(n).count() > 1 || one_way(n) || by_floating(n);
    let paths = s.nodes.iter().filter(worth).flat_map(|n| n.paths.iter().map(move |p| (n, p)));
    page.rows(
        &["PATH TO", "STATE", "ADDRESS"],
        paths.map(|(n, p)| {
            let address = p.address.clone() + if p.floating { " (floating)" } else { "" };
            vec![n.name.clone(), path_state(p).to_owned(), address]
        }),
    );
}

/// The paths to a node's own addresses.
fn own(n: &Node) -> impl Iterator<Item = &Path> {
    n.paths.iter().filter(|p| !p.floating)
}

/// It is heard over a floating IP alone.
fn by_floating(n: &Node) -> bool {
    n.paths.iter().any(|p| p.floating && p.alive) && !own(n).any(|p| p.alive)
}

/// Only one direction of some path works.
fn one_way(n: &Node) -> bool {
    own(n).any(|p| matches!(p.broken.as_deref(), Some("receive" | "send")))
}

/// Seen from here.
fn path_state(p: &Path) -> &'static str {
    match (p.broken.as_deref(), p.alive) {
        (Some("receive"), _) => "RECEIVES NOTHING",
        (Some("send"), _) => "SENDS IN VAIN",
        (_, true) => "alive",
        (_, false) => "silent",
    }
}

fn node(n: &Node, me: bool) -> Vec<String> {
    let role = n.role.as_deref().unwrap_or("?");
    let role = if n.witness { "witness" } else { role };
    // Short names leave room for the figures.
    let name = shorten(&n.name, if me { NAME - 2 } else { NAME });
    let dash = || "-".to_owned();
    vec![
        if me { name + " *" } else { name },
        role.to_owned(),
        node_state(n, me).to_owned(),
        n.term.to_string(),
        n.priority.filter(|_| !n.witness).map_or_else(dash, |p| p.to_string()),
        n.last_heard_ms.map_or_else(dash, |ms| span(Duration::from_millis(ms))),
        n.rtt_ms.map_or_else(dash, milliseconds),
        n.loss.map_or_else(dash, |loss| format!("{:.0}%", loss * 100.0)),
        n.clock_offset_ms.map_or_else(dash, offset),
    ]
}

/// The worst that can be said of a node.
fn node_state(n: &Node, me: bool) -> &'static str {
    match n {
        Node { last_heard_ms: None, alive: false, .. } if !me => "never heard",
        Node { alive: false, .. } if !me && one_way(n) => "DEAF TO US",
        Node { alive: false, .. } if !me => "SILENT",
        Node { witness: true, .. } => "votes",
        Node { maintenance: true, .. } => "MAINTENANCE",
        Node { healthy: false, .. } => "UNHEALTHY",
        Node { ready: false, .. } => "NOT READY",
        _ => "ready",
    }
}

/// What stands against this node, or that nothing does.
fn flags(s: &Status) -> String {
    let named = [
        (s.maintenance, "MAINTENANCE"),
        (!s.healthy, "UNHEALTHY"),
        (s.ready, "ready"),
        (!s.ready, "NOT READY"),
    ];
    let words = named.iter().filter(|(holds, _)| *holds).map(|(_, word)| *word);
    words.collect::<Vec<_>>().join(", ")
}

fn resources(page: &mut Page, s: &Status) {
    let ips = s.floating_ips.iter();
    let here = |held| if held { "here" } else { "not here" };
    page.rows(
        &["FLOATING IP", "INTERFACE", "HELD"],
        ips.map(|f| vec![f.address.clone(), f.interface.clone(), here(f.held).to_owned()]),
    );
    page.rows(
        &["WIREGUARD", "BACKEND", "STATE", "PEERS", "ACTIVE", "KNOWN", "SOURCE"],
        s.wireguard.iter().map(|w| {
            let state = match (w.up, w.staged) {
                (true, _) => "up",
                (false, true) => "staged",
                (false, false) => "DOWN",
            };
            let source = if w.source.is_empty() { "any".to_owned() } else { w.source.join(" ") };
            let (peers, active) = (w.peers.to_string(), w.recent_handshakes.to_string());
            let known = w.endpoints_known.to_string();
            let (name, backend) = (w.interface.clone(), w.backend.clone());
            vec![name, backend, state.to_owned(), peers, active, known, source]
        }),
    );
    let sync = s.sync.iter();
    let same = |in_sync| if in_sync { "in sync" } else { "DIFFERS" };
    page.rows(
        &["SYNC", "VERSION", "FILE"],
        sync.map(|f| vec![same(f.in_sync).to_owned(), f.version.to_string(), f.file.clone()]),
    );
    for (file, problem) in s.sync.iter().filter_map(|f| Some((&f.file, f.problem.as_ref()?))) {
        page.line(&format!("! {file}: {problem}"));
    }
}

fn programs(page: &mut Page, s: &Status, now: SystemTime) {
    let ok = |ok| if ok { "ok" } else { "FAILS" };
    page.rows(
        &["CHECK", "RESULT", "DETAIL"],
        s.checks.iter().map(|c| vec![c.name.clone(), ok(c.ok).to_owned(), c.detail.clone()]),
    );
    page.rows(
        &["HOOK ON", "AGO", "TOOK", "RESULT", "PROGRAM"],
        s.hooks.iter().map(|h| {
            let took = span(Duration::from_millis(h.duration_ms));
            vec![h.on.clone(), age(&h.at, now), took, h.outcome.clone(), h.run.join(" ")]
        }),
    );
    page.rows(
        &["CLAIM", "VERIFIED", "DETAIL", "PROGRAM"],
        s.claims.iter().map(|c| {
            let verified = c.checked_at.as_ref().map(|at| format!("{} ago", age(at, now)));
            let state = if c.given_up { "GIVEN UP" } else { &c.state };
            let verified = verified.unwrap_or_else(|| "never".to_owned());
            vec![state.to_owned(), verified, c.detail.clone(), c.run.join(" ")]
        }),
    );
}

fn refusals(page: &mut Page, s: &Status) {
    let some = s.refusals.iter().filter(|(_, count)| **count > 0);
    page.rows(&["REFUSED", "COUNT"], some.map(|(word, n)| vec![word.clone(), n.to_string()]));
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, text: &str) {
        let clean = text.replace(char::is_control, "?");
        self.0.push_str(shorten(&clean, WIDTH).trim_end());
        self.0.push('\n');
    }

    /// Rows in columns under a heading, after an empty line; nothing if there are no rows.
    fn rows(&mut self, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) {
        let heads = heads.iter().map(|h| (*h).to_owned()).collect();
        let mut all: Vec<Vec<String>> = vec![heads];
        all.extend(rows);
        if all.len() == 1 {
            return;
        }
        for row in &mut all {
            let last = row.len().saturating_sub(1);
            row.iter_mut().take(last).for_each(|cell| *cell = shorten(cell, CELL));
        }
        let width = |column: usize| {
            all.iter()
                .filter_map(|row| row.get(column))
                .map(|c| c.chars().count())
                .max()
                .unwrap_or(0)
        };
        let columns = all.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        self.0.push('\n');
        for row in &all {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            self.line(&cells.collect::<Vec<_>>().join("  "));
        }
    }
}

fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

fn age(at: &str, now: SystemTime) -> String {
    match humantime::parse_rfc3339(at) {
        // A wall clock that was set back makes an age of zero.
        Ok(at) => span(now.duration_since(at).unwrap_or_default()),
        Err(_) => "?".to_owned(),
    }
}

/// A duration in its two largest units: `850ms`, `12.3s`, `4m 07s`, `5h 02m`, `3d 04h`.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{:.1}s", duration.as_millis() as f64 / 1000.0),
        60..3600 => format!("{minutes}m {:02}s", seconds % 60),
        3600..86400 => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {:02}h", hours % 24),
    }
}

fn milliseconds(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.1}ms") } else { format!("{ms:.0}ms") }
}

fn offset(ms: f64) -> String {
    if ms.abs() < 10_000.0 { format!("{ms:+.0}ms") } else { format!("{:+.0}s", ms / 1000.0) }
}
