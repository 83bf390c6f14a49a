//! How long the floating IP takes to move when the master's link is cut, or its worker killed.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use netns_lab::{Cluster, Lab, Node, Watch, realtime_ns, topology};
use nix::sys::signal::{Signal, kill};

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pair: super::Pair,
    /// Number of faults.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// What befalls the master.
    #[arg(long, value_enum, default_value_t = Fault::Link)]
    fault: Fault,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Fault {
    /// Its links are cut.
    Link,
    /// kill -9 of its worker; its guard lives.
    Kill,
}

/// Milliseconds from the fault until ...
struct Moved {
    /// ... the old address was gone; a gateway that is cut off keeps it.
    gone: Option<f64>,
    /// ... the other gateway had the address.
    address: f64,
    /// ... the router sent to the other gateway.
    router: f64,
}

/// kill -9 of the worker: the other is master, and the old address gone, after this at the median.
const KILL_TARGET_MS: f64 = 30.0;

pub(crate) fn run(options: &Options) -> Result<()> {
    let lab = Lab::builder().cluster(options.pair.cluster()).build()?;
    let watch = Watch::start(&lab)?;
    let mut cluster = Cluster::start(&lab, &options.pair.program()?)?;
    let mut all = Vec::new();
    println!("heartbeat {} ms, misses {}", options.pair.heartbeat_ms, options.pair.misses);
    for number in 1..=options.rounds {
        cluster
            .wait_ready(Duration::from_secs(30))
            .with_context(|| format!("before round {number}"))?;
        let master = cluster.wait_master(Duration::from_secs(20))?;
        let moved = round(&lab, &mut cluster, &watch, &master, options.fault)
            .with_context(|| format!("round {number}"))?;
        let gone = moved.gone.map_or_else(String::new, |ms| format!("gone after {ms:.1} ms, "));
        println!(
            "round {number}: {}; {gone}address after {:.1} ms, router after {:.1} ms",
            master.name(),
            moved.address,
            moved.router
        );
        all.push(moved);
    }
    let gone: Vec<f64> = all.iter().filter_map(|m| m.gone).collect();
    if options.fault == Fault::Kill {
        print("old address gone                ", gone);
    }
    print("floating IP on the other gateway", all.iter().map(|m| m.address).collect());
    print("router sends to it              ", all.iter().map(|m| m.router).collect());
    if options.fault == Fault::Kill {
        println!("target of the first two: median at most {KILL_TARGET_MS:.0} ms");
    }
    Ok(())
}

fn round(
    lab: &Lab,
    cluster: &mut Cluster,
    watch: &Watch,
    master: &Node,
    fault: Fault,
) -> Result<Moved> {
    lab.warm_neighbours();
    let floating = topology::floating().v4;
    let heirs: Vec<&Node> = lab.gateways().iter().filter(|g| g.name() != master.name()).collect();
    let worker = cluster.process(master.name()).worker()?;
    let at = realtime_ns();
    match fault {
        Fault::Link => lab.cut_link(master, true)?,
        Fault::Kill => kill(worker, Signal::SIGKILL)?,
    }
    let detection = lab.cluster().heartbeat * lab.cluster().misses;
    let mut found = None;
    // Looking costs processor time: rarely, and not before it can have happened.
    for wait in std::iter::once(detection * 2).chain((0..50).map(|_| Duration::from_millis(200))) {
        thread::sleep(wait);
        found = heirs.iter().find_map(|heir| {
            let address = watch.first(at, heir.name(), &format!("{floating} added"))?;
            let router = watch.first(at, "router", &format!("{floating} is at {}", heir.name()))?;
            let gone = watch.first(at, master.name(), &format!("{floating} removed"));
            (gone.is_some() || fault == Fault::Link).then_some((gone, address, router))
        });
        if found.is_some() {
            break;
        }
    }
    lab.heal_all()?;
    if fault == Fault::Kill {
        cluster.process(master.name()).wait(Duration::from_secs(20)).context("its guard stays")?;
        cluster.start_on(lab, master.name())?;
    }
    cluster.wait_master(Duration::from_secs(20))?;
    let (gone, address, router) = found.context("the floating IP did not move within 10 s")?;
    let ms = |then: u64| (then - at) as f64 / 1e6;
    // Healed later than that, and so no figure.
    let gone = gone.filter(|_| fault == Fault::Kill).map(ms);
    Ok(Moved { gone, address: ms(address), router: ms(router) })
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
        "{what}: median {median:.1} ms, worst {:.1} ms of {}",
        ms.last().unwrap_or(&0.0),
        ms.len()
    );
}
