//! How long the floating IP takes to move when the master's link is cut.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use netns_lab::{Cluster, Lab, Node, Watch, realtime_ns, topology};

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pair: super::Pair,
    /// Number of link cuts.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
}

/// Milliseconds from the cut until ...
struct Moved {
    /// ... the other gateway had the address.
    address: f64,
    /// ... the router sent to the other gateway.
    router: f64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let lab = Lab::builder().cluster(options.pair.cluster()).build()?;
    let watch = Watch::start(&lab)?;
    let cluster = Cluster::start(&lab, &options.pair.program()?)?;
    let mut all = Vec::new();
    println!("heartbeat {} ms, misses {}", options.pair.heartbeat_ms, options.pair.misses);
    for number in 1..=options.rounds {
        cluster
            .wait_ready(Duration::from_secs(30))
            .with_context(|| format!("before round {number}"))?;
        let master = cluster.wait_master(Duration::from_secs(20))?;
        let moved =
            round(&lab, &cluster, &watch, &master).with_context(|| format!("round {number}"))?;
        println!(
            "round {number}: {} cut; address after {:.0} ms, router after {:.0} ms",
            master.name(),
            moved.address,
            moved.router
        );
        all.push(moved);
    }
    print("floating IP on the other gateway", all.iter().map(|m| m.address).collect());
    print("router sends to it              ", all.iter().map(|m| m.router).collect());
    Ok(())
}

fn round(lab: &Lab, cluster: &Cluster, watch: &Watch, master: &Node) -> Result<Moved> {
    lab.warm_neighbours();
    let floating = topology::floating().v4;
    let heirs: Vec<&Node> = lab.gateways().iter().filter(|g| g.name() != master.name()).collect();
    let fault = realtime_ns();
    lab.cut_link(master, true)?;
    let detection = lab.cluster().heartbeat * lab.cluster().misses;
    let mut found = None;
    // Looking costs processor time: rarely, and not before it can have happened.
    for wait in std::iter::once(detection * 2).chain((0..50).map(|_| Duration::from_millis(200))) {
        thread::sleep(wait);
        found = heirs.iter().find_map(|heir| {
            let address = watch.first(fault, heir.name(), &format!("{floating} added"))?;
            let router =
                watch.first(fault, "router", &format!("{floating} is at {}", heir.name()))?;
            Some((address, router))
        });
        if found.is_some() {
            break;
        }
    }
    lab.heal_all()?;
    cluster.wait_master(Duration::from_secs(20))?;
    let (address, router) = found.context("the floating IP did not move within 10 s")?;
    let ms = |at: u64| (at - fault) as f64 / 1e6;
    Ok(Moved { address: ms(address), router: ms(router) })
}

fn print(what: &str, mut ms: Vec<f64>) {
    ms.sort_by(f64::total_cmp);
    let middle = ms.len() / 2;
    let median = match (ms.get(middle), middle.checked_sub(1).and_then(|m| ms.get(m))) {
        (Some(high), Some(low)) if ms.len().is_multiple_of(2) => (high + low) / 2.0,
        (Some(one), _) => *one,
        _ => return,
    };
    println!(
        "{what}: median {median:.0} ms, worst {:.0} ms of {}",
        ms.last().unwrap_or(&0.0),
        ms.len()
    );
}
