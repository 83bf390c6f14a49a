//! Floods of datagrams at a gateway's heartbeat socket: no role may change, and memory stays as it is.

use std::net::SocketAddrV4;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netns_lab::{Cluster, Flood, Heard, Lab, Node, listen, topology};

use crate::idle::Cost;

const SETTLE: Duration = Duration::from_secs(20);

/// More than this must not be added to a daemon's memory by a flood, in KiB.
const GROWTH_KIB: u64 = 2048;

/// Where the header of a datagram ends, and where its counter is (docs/protocol.md §2).
const HEADER: usize = 68;
const COUNTER: usize = 48;

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pair: super::Pair,
    /// How long each flood lasts.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Datagrams a second, or as many as one thread can send.
    #[arg(long, default_value_t = 200_000)]
    rate: u32,
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Garbage,
    Strangers,
    Forged,
    ForgedSessions,
    Replays,
}

const KINDS: [(Kind, &str); 5] = [
    (Kind::Garbage, "garbage"),
    (Kind::Strangers, "the peer's header, from an unknown address"),
    (Kind::Forged, "the peer's header and session, from its address"),
    (Kind::ForgedSessions, "the peer's header, sessions invented"),
    (Kind::Replays, "replays of the peer's heartbeats"),
];

pub(crate) fn run(options: &Options) -> Result<()> {
    let lab = Lab::builder().cluster(options.pair.cluster()).build()?;
    let mut cluster = Cluster::start(&lab, &options.pair.program()?)?;
    let master = cluster.wait_master(SETTLE)?;
    cluster.wait_ready(SETTLE)?;
    let backup = lab.gateways().iter().find(|g| g.name() != master.name()).context("no backup")?;
    println!(
        "{} s each at {} datagrams a second; heartbeat {} ms, misses {}; {} cores",
        options.seconds,
        options.rate,
        options.pair.heartbeat_ms,
        options.pair.misses,
        thread::available_parallelism()?
    );
    let before = cluster.changes()?;
    for (role, target, peer) in [("backup", backup, &master), ("master", &master, backup)] {
        // Long enough for more than a window of them.
        let sample = Duration::from_millis(options.pair.heartbeat_ms) * 8;
        let captured = listen(target, address(peer)?, topology::HEARTBEAT_PORT, sample)?;
        let captured = captured.join().map_err(|_| anyhow::anyhow!("listening panicked"))??;
        ensure!(!captured.is_empty(), "no heartbeat of {} was seen", peer.name());
        for (kind, words) in KINDS {
            let flood = Stage { lab: &lab, target, peer, captured: &captured, options };
            println!("{words}, to the {role}: {}", flood.run(&mut cluster, kind)?);
            let after = cluster.changes()?;
            ensure!(before == after, "a role changed: {before:?}, then {after:?}");
        }
    }
    ensure!(cluster.wait_master(SETTLE)?.name() == master.name(), "another node is master");
    println!("no role changed");
    Ok(())
}

/// Where a gateway's heartbeats come from.
fn address(node: &Node) -> Result<SocketAddrV4> {
    let number = node.name().trim_start_matches("gw").parse().context("no gateway")?;
    Ok(SocketAddrV4::new(topology::gateway(number).v4, topology::HEARTBEAT_PORT))
}

/// Packets that have come to a node's outer interface, each of those that the kernel was given together.
fn packets(node: &Node) -> Result<u64> {
    let text = node.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("eth0:"));
    // Bytes, packets, ...
    let packets = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    packets.context("no count of eth0's packets")
}

struct Stage<'a> {
    lab: &'a Lab,
    target: &'a Node,
    peer: &'a Node,
    captured: &'a [Heard],
    options: &'a Options,
}

impl Stage<'_> {
    fn run(&self, cluster: &mut Cluster, kind: Kind) -> Result<String> {
        let (from, to) = (address(self.peer)?, address(self.target)?);
        let stranger = SocketAddrV4::new(topology::router().v4, topology::HEARTBEAT_PORT);
        let from = if matches!(kind, Kind::Strangers) { stranger } else { from };
        let pid = cluster.process(self.target.name()).pid();
        let time = Duration::from_secs(self.options.seconds);
        let before = packets(self.target)?;
        let (counts, cost, start) = (self.counts(cluster)?, Cost::of(pid), Instant::now());
        let heard = listen(self.peer, to, topology::HEARTBEAT_PORT, time)?;
        let payloads = self.payloads(kind);
        let flood = Flood::start(self.lab, self.target, (from, to), &payloads, self.options.rate)?;
        thread::sleep(time);
        // The load while it lasts, not what is done after it.
        let (after, elapsed) = (Cost::of(pid), start.elapsed().as_secs_f64());
        let sent = flood.stop()?;
        let arrived = packets(self.target)? - before;
        ensure!(arrived >= sent, "{arrived} packets reached the gateway of {sent} that were sent");
        let heard = heard.join().map_err(|_| anyhow::anyhow!("listening panicked"))??;
        let now = self.counts(cluster)?;
        ensure!(after.kib > 0, "the daemon ended");
        let grown = after.kib.saturating_sub(cost.kib);
        ensure!(grown <= GROWTH_KIB, "memory grew by {grown} KiB, from {} KiB", cost.kib);
        let rate = |count: u64| (count as f64 / elapsed).round();
        Ok(format!(
            "sent {}/s; read {}/s, dropped by the kernel {}/s, opened in vain {}/s, unopened {}/s; processor {:.0} % of a core, \
             memory {} KiB (+{grown}); heartbeats at the peer: {}",
            rate(sent),
            rate(now.received - counts.received),
            rate(now.dropped - counts.dropped),
            rate(now.opened - counts.opened),
            rate(now.unopened - counts.unopened),
            after.cpu_ns.saturating_sub(cost.cpu_ns) as f64 / elapsed / 1e7,
            after.kib,
            jitter(&heard, self.options.pair.heartbeat_ms)?
        ))
    }

    /// Different ones, so that nothing is cheap because it was seen before.
    fn payloads(&self, kind: Kind) -> Vec<Vec<u8>> {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            // xorshift64: the same noise in every run.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let originals = self.captured.iter().map(|heard| &heard.payload);
        if matches!(kind, Kind::Replays) {
            return originals.cloned().collect();
        }
        let forge = |original: &Vec<u8>| {
            let mut bytes = original.clone();
            let kept = match kind {
                Kind::Garbage => 0,
                Kind::ForgedSessions => 32,
                _ => COUNTER,
            };
            bytes.iter_mut().skip(kept).for_each(|byte| *byte = (next() >> 32) as u8);
            if kept > 0 {
                // Plausible: a bit ahead of what was sent.
                let counter = counter(original) + 100_000 + next() % 1000;
                bytes[COUNTER..COUNTER + 8].copy_from_slice(&counter.to_be_bytes());
            }
            bytes
        };
        originals.filter(|o| o.len() > HEADER).cycle().take(512).map(forge).collect()
    }

    fn counts(&self, cluster: &Cluster) -> Result<Counts> {
        let status = cluster.status(self.target)?;
        let link = |word: &str| status["link"][word].as_u64().context("no counter of that name");
        let refusals = status["refusals"].as_object().context("no refusals")?;
        let all: u64 = refusals.values().filter_map(serde_json::Value::as_u64).sum();
        let unopened = refusals.get("flooded").and_then(serde_json::Value::as_u64).unwrap_or(0);
        Ok(Counts {
            received: link("received")?,
            dropped: link("dropped")?,
            opened: all - unopened,
            unopened,
        })
    }
}

struct Counts {
    received: u64,
    dropped: u64,
    /// Refused after they were opened.
    opened: u64,
    /// Refused because too many had been.
    unopened: u64,
}

fn counter(datagram: &[u8]) -> u64 {
    let bytes = datagram.get(COUNTER..).and_then(|b| b.first_chunk());
    bytes.map_or(0, |b| u64::from_be_bytes(*b))
}

/// How far from the interval the times between heartbeats are.
fn jitter(heard: &[Heard], interval_ms: u64) -> Result<String> {
    let gap = |pair: &[Heard]| pair.last().zip(pair.first()).map(|(b, a)| b.at - a.at);
    let mut off: Vec<f64> = heard
        .windows(2)
        .filter_map(gap)
        .map(|ns| (ns as f64 / 1e6 - interval_ms as f64).abs())
        .collect();
    ensure!(!off.is_empty(), "the peer heard no heartbeats of the flooded gateway");
    off.sort_by(f64::total_cmp);
    let at =
        |share: f64| off.get((off.len() as f64 * share) as usize).or(off.last()).unwrap_or(&0.0);
    Ok(format!(
        "{} of them, jitter median {:.1}, 95 % {:.1}, worst {:.1} ms",
        heard.len(),
        at(0.5),
        at(0.95),
        at(1.0)
    ))
}
