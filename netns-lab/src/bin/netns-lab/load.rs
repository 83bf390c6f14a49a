//! A pair on a machine whose cores are all busy: no false takeover may happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netns_lab::{Cluster, Lab, Process, Spec, WgKind, find_program, topology};

const SETTLE: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pair: super::Pair,
    /// How long the cores are busy.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Saturate the tunnel with iperf3 instead of the cores with busy loops.
    #[arg(long)]
    tunnel: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let lab = Lab::builder().cluster(options.pair.cluster()).build()?;
    let cluster = Cluster::start(&lab, &options.pair.program()?)?;
    let master = cluster.wait_master(SETTLE)?;
    cluster.wait_ready(SETTLE)?;
    let client = lab.client_node(1);
    let _peer = lab.start_client(1)?;
    let inner = topology::wg_gateway().v4.into();
    ensure!(wait(|| client.ping(inner)), "the tunnel does not come up");
    let before = cluster.changes()?;
    println!(
        "{} for {} s; heartbeat {} ms, misses {}; {} is master; client {:?}",
        if options.tunnel { "tunnel saturated" } else { "every core busy" },
        options.seconds,
        options.pair.heartbeat_ms,
        options.pair.misses,
        master.name(),
        WgKind::choose(client)?,
    );
    let load = if options.tunnel { Load::tunnel(&lab, options.seconds)? } else { Load::cores()? };
    let worst = watch(&cluster, Duration::from_secs(options.seconds))?;
    let said = load.stop()?;
    println!("{said}");
    for (name, age) in worst {
        println!("{name}: at most {age} ms since the peer's last heartbeat, looked at each 100 ms");
    }
    let after = cluster.changes()?;
    ensure!(before == after, "a role changed under load: {before:?}, then {after:?}");
    ensure!(cluster.wait_master(SETTLE)?.name() == master.name(), "another node is master");
    ensure!(wait(|| client.ping(inner)), "the tunnel does not answer after the load");
    println!("no role changed");
    Ok(())
}

/// The longest silence of its peer that each gateway's status showed.
fn watch(cluster: &Cluster, time: Duration) -> Result<Vec<(String, u64)>> {
    let end = Instant::now() + time;
    let mut worst: Vec<(String, u64)> =
        cluster.nodes().map(|node| (node.name().to_owned(), 0)).collect();
    while Instant::now() < end {
        for (node, (_, worst)) in cluster.nodes().zip(&mut worst) {
            let status = cluster.status(node)?;
            let ages = status["nodes"].as_array().context("status without nodes")?.iter();
            *worst = ages.filter_map(|n| n["last_heard_ms"].as_u64()).fold(*worst, u64::max);
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(worst)
}

enum Load {
    Cores {
        stop: Arc<AtomicBool>,
        threads: Vec<JoinHandle<u64>>,
        started: Instant,
    },
    /// iperf3's server and client.
    Tunnel(Box<(Process, Process)>),
}

impl Load {
    /// One busy loop for each core, in this process: the scheduler treats it as one group.
    fn cores() -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = thread::available_parallelism()?.get();
        let threads = (0..cores).map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut turns = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    turns = std::hint::black_box(turns + 1);
                }
                turns
            })
        });
        Ok(Self::Cores { threads: threads.collect(), stop, started: Instant::now() })
    }

    /// A TCP stream from the client to the host behind the gateways.
    fn tunnel(lab: &Lab, seconds: u64) -> Result<Self> {
        ensure!(find_program("iperf3").is_some(), "the program iperf3 is missing: install iperf3");
        let host = topology::host().v4.to_string();
        let server = lab.host().spawn(Spec::new(["iperf3", "--server"]).named("iperf3-server"))?;
        // It has no sign of being ready but its port.
        ensure!(
            wait(|| lab.host().sh("ss -ltn | grep -q :5201").is_ok()),
            "iperf3 does not listen"
        );
        let time = (seconds + 2).to_string();
        let argv = ["iperf3", "--client", &host, "--time", &time, "--interval", "0"];
        let client = lab.client_node(1).spawn(Spec::new(argv).named("iperf3-client"))?;
        Ok(Self::Tunnel(Box::new((server, client))))
    }

    fn stop(self) -> Result<String> {
        match self {
            Self::Cores { stop, threads, started } => {
                stop.store(true, Ordering::Relaxed);
                let cores = threads.len();
                let turns: u64 = threads.into_iter().filter_map(|t| t.join().ok()).sum();
                let rate = turns as f64 / started.elapsed().as_secs_f64() / 1e6;
                Ok(format!("{cores} busy loops made {rate:.0} million turns a second"))
            }
            Self::Tunnel(mut pair) => {
                let (server, client) = &mut *pair;
                let status = client.wait(SETTLE)?;
                let log = client.log();
                ensure!(status.success(), "iperf3 failed:\n{log}");
                server.kill()?;
                let line = log.lines().find(|l| l.contains("receiver")).unwrap_or_default();
                Ok(format!("iperf3: {}", line.trim()))
            }
        }
    }
}

fn wait(mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + SETTLE;
    while Instant::now() < end {
        if done() {
            return true;
        }
        thread::sleep(Duration::from_millis(200));
    }
    false
}
