//! Random faults on real processes, and a look at everything after each.

mod fault;
mod shape;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netns_lab::{Cluster, ClusterOptions, Lab, WgPeer};

use fault::Fault;
use shape::Shapes;

/// A voter that starts for the first time abstains for half a minute.
const FIRST: Duration = Duration::from_secs(90);
/// After a fault everything is right again within this: a client whose handshakes were lost tries again after up to 20 s.
const BOUND: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pair: super::Pair,
    /// The faults follow from it; unless given, one of the clock, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// How long new faults are begun.
    #[arg(long, default_value_t = 3)]
    minutes: u64,
}

/// What a run met.
#[derive(Default)]
struct Tally {
    of_kind: BTreeMap<&'static str, (u32, Duration)>,
    masters: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let seed = options.seed.unwrap_or_else(netns_lab::realtime_ns);
    let minutes = options.minutes;
    println!(
        "soak --seed {seed} --minutes {minutes}: two gateways and a witness, heartbeat {} ms x {}",
        options.pair.heartbeat_ms, options.pair.misses
    );
    let quorum = "majority".to_owned();
    let pair = ClusterOptions { quorum, ..options.pair.cluster() };
    let lab = Lab::builder().witness().cluster(pair).build()?;
    let mut cluster = Cluster::start(&lab, &options.pair.program()?)?;
    let peer = lab.start_client(1)?;
    let mut rng = fastrand::Rng::with_seed(seed);
    let result = soak(&lab, &mut cluster, &peer, &mut rng, Duration::from_secs(60 * minutes));
    let tally = result.map_err(|e| super::with_logs(&lab, e.context(format!("seed {seed}"))))?;
    tally.print();
    Ok(())
}

fn soak(
    lab: &Lab,
    cluster: &mut Cluster,
    peer: &WgPeer,
    rng: &mut fastrand::Rng,
    time: Duration,
) -> Result<Tally> {
    cluster.wait_master(FIRST)?;
    cluster.wait_ready(FIRST)?;
    lab.wait_clean(cluster, &[peer], BOUND).context("before the first fault")?;
    let shapes = Shapes::learn(lab, cluster, peer)?;
    let (end, mut tally, mut number) = (Instant::now() + time, Tally::default(), 0);
    while Instant::now() < end {
        number += 1;
        let before = cluster.wait_master(BOUND)?;
        let faults = Fault::choose(rng, lab, &before);
        let said: Vec<String> = faults.iter().map(Fault::to_string).collect();
        let said = said.join("; ");
        let undo: Vec<_> = faults
            .iter()
            .map(|fault| fault.begin(lab, cluster))
            .collect::<Result<_>>()
            .with_context(|| said.clone())?;
        std::thread::sleep(Duration::from_millis(rng.u64(50..6_000)));
        undo.into_iter().try_for_each(|undo| undo.end(lab, cluster))?;
        fault::revive(lab, cluster, rng)?;
        let healed = Instant::now();
        let looked = settle(lab, cluster, peer, &shapes);
        looked.with_context(|| format!("after fault {number}: {said}"))?;
        let after = cluster.wait_master(BOUND)?;
        println!(
            "{number:4}  {said}: all right after {:.1} s, master {} -> {}",
            healed.elapsed().as_secs_f64(),
            before.name(),
            after.name()
        );
        tally.add(&faults, healed.elapsed(), before.name() != after.name());
    }
    ensure!(number >= 3, "only {number} faults in {time:?}");
    Ok(tally)
}

/// Waits until every audit is content.
fn settle(lab: &Lab, cluster: &Cluster, peer: &WgPeer, shapes: &Shapes) -> Result<()> {
    let end = Instant::now() + BOUND;
    cluster.wait_ready(BOUND)?;
    lab.wait_clean(cluster, &[peer], BOUND)?;
    loop {
        let wrong = shapes.compare(lab, cluster)?;
        if wrong.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < end, "after {BOUND:?}: {}", wrong.join("\n"));
        std::thread::sleep(Duration::from_millis(200));
    }
}

impl Tally {
    fn add(&mut self, faults: &[Fault], until: Duration, moved: bool) {
        for fault in faults {
            let (count, worst) = self.of_kind.entry(fault.kind()).or_default();
            *count += 1;
            *worst = until.max(*worst);
        }
        self.masters += u32::from(moved);
    }

    fn print(&self) {
        let total: u32 = self.of_kind.values().map(|(count, _)| count).sum();
        println!("{total} faults, the master another one after {} of the rounds:", self.masters);
        for (kind, (count, worst)) in &self.of_kind {
            println!("{count:5}  {kind}: all right after {:.1} s at most", worst.as_secs_f64());
        }
        println!("nothing was left behind, and there was one master after each");
    }
}
