//! Two masters at once, seen from outside: the master is cut off from everyone who votes, while clients reach both gateways.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netns_lab::{
    Capture, Cluster, ClusterOptions, Lab, MasterFrame, Node, Prober, realtime_ns, topology,
};

/// A voter that starts for the first time abstains for half a minute.
const FIRST: Duration = Duration::from_secs(90);
const BOUND: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pair: super::Pair,
    /// Partitions.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
}

/// One partition, in milliseconds.
struct Round {
    /// From the cut until the new master was heard.
    moved: f64,
    /// From the old master's last packet to the new one's first; negative: both at once.
    gap: f64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let quorum = "majority".to_owned();
    let lab = Lab::builder()
        .witness()
        .cluster(ClusterOptions { quorum, ..options.pair.cluster() })
        .build()?;
    let cluster = Cluster::start(&lab, &options.pair.program()?)?;
    let _peer = lab.start_client(1)?;
    cluster.wait_master(FIRST)?;
    println!(
        "two gateways and a witness, heartbeat {} ms x {}, {} partitions of the master",
        options.pair.heartbeat_ms, options.pair.misses, options.rounds
    );
    let mut all = Vec::new();
    for number in 1..=options.rounds {
        let round = one(&lab, &cluster).with_context(|| format!("partition {number}"));
        all.push(round.map_err(|e| super::with_logs(&lab, e))?);
    }
    let mut moved: Vec<f64> = all.iter().map(|round| round.moved).collect();
    let mut gap: Vec<f64> = all.iter().map(|round| round.gap).collect();
    moved.sort_by(f64::total_cmp);
    gap.sort_by(f64::total_cmp);
    let at =
        |sorted: &[f64], part: usize| sorted.get(sorted.len() * part / 100).copied().unwrap_or(0.0);
    println!(
        "from the cut to the new master's first packet: median {:.1} ms, worst {:.1} ms",
        at(&moved, 50),
        moved.last().unwrap_or(&0.0)
    );
    println!(
        "from the old master's last packet to the new one's first: least {:.1} ms, median {:.1} ms",
        gap.first().unwrap_or(&0.0),
        at(&gap, 50)
    );
    let overlaps = gap.iter().filter(|gap| **gap <= 0.0).count();
    ensure!(
        overlaps == 0,
        "two masters were heard at once in {overlaps} of {} partitions",
        gap.len()
    );
    println!("never two at once");
    Ok(())
}

fn one(lab: &Lab, cluster: &Cluster) -> Result<Round> {
    cluster.wait_ready(BOUND)?;
    let master = cluster.wait_master(BOUND)?;
    let to = (topology::wg_gateway().v4, topology::ECHO_PORT).into();
    let echoes: Vec<_> = lab
        .gateways()
        .iter()
        .map(|g| netns_lab::Echo::start(g, topology::ECHO_PORT))
        .collect::<Result<_>>()?;
    let prober = Prober::start(lab.client_node(1), to, Duration::from_millis(1))?;
    prober.wait_steady(realtime_ns(), SETTLE, BOUND).context("before the cut")?;
    lab.warm_neighbours();
    let capture = Capture::start(lab)?;
    let others: Vec<&str> =
        lab.members().map(Node::name).filter(|name| *name != master.name()).collect();
    let cut_at = realtime_ns();
    let cut = lab.partition(&[master.name()], &others)?;
    // The client reaches the old one until that leaves by itself.
    let end = Instant::now() + BOUND;
    while !cluster.masters().iter().any(|node| node.name() != master.name()) {
        ensure!(Instant::now() < end, "nobody took over from {}", master.name());
        std::thread::sleep(Duration::from_millis(20));
    }
    prober.wait_steady(realtime_ns(), SETTLE, BOUND).context("after the cut")?;
    // Whatever the old one would still send.
    std::thread::sleep(SETTLE);
    let heard = capture.stop()?;
    lab.heal(cut)?;
    prober.stop();
    drop(echoes);
    let old = lab.gateways().iter().position(|g| g.name() == master.name()).context("no master")?;
    measure(&heard, old, cut_at)
}

fn measure(heard: &[MasterFrame], old: usize, cut_at: u64) -> Result<Round> {
    let of_old = heard.iter().filter(|h| h.gateway == old).map(|h| h.at);
    let of_new = heard.iter().filter(|h| h.gateway != old && h.at > cut_at).map(|h| h.at);
    let last = of_old.max().context("the old master was never heard: the capture is deaf")?;
    let first = of_new.min().context("the new master was never heard")?;
    let ms = |from: u64, to: u64| (to as f64 - from as f64) / 1e6;
    Ok(Round { moved: ms(cut_at, first), gap: ms(last, first) })
}
