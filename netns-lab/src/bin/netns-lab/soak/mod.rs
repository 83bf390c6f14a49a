//! Random faults on real processes, and a look at everything after each.

mod clocks;
mod deck;
pub(crate) mod fault;
pub(crate) mod revive;
mod shape;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netns_lab::{Cluster, ClusterOptions, Lab, WgPeer};

use deck::Deck;
use fault::{Fault, Kind};
use shape::Shapes;

/// A voter that starts for the first time abstains for half a minute.
const FIRST: Duration = Duration::from_secs(90);
/// After a fault everything is right again within this: a client whose handshakes were lost tries again after up to 20 s.
const BOUND: Duration = Duration::from_secs(60);

/// Faults, however long they take.
const LEAST: u32 = 3;

/// Minutes in which every kind must have come, many times over.
const HOUR: u64 = 60;

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
    for node in lab.members() {
        clocks::set(lab.dir(), node.name(), 0)?;
    }
    let program = clocks::program(lab.dir(), &options.pair.program()?)?;
    let mut cluster = Cluster::start(&lab, &program)?;
    let peer = lab.start_client(1)?;
    let mut rng = fastrand::Rng::with_seed(seed);
    let result = soak(&lab, &mut cluster, peer, &mut rng, Duration::from_secs(60 * minutes));
    drop(cluster);
    clocks::clean();
    let tally = result.map_err(|e| super::with_logs(&lab, e.context(format!("seed {seed}"))))?;
    tally.print();
    let missing = tally.missing();
    if !missing.is_empty() {
        println!("not reached: {}", missing.join(", "));
    }
    ensure!(minutes < HOUR || missing.is_empty(), "seed {seed}: an hour is enough for every kind");
    Ok(())
}

fn soak(
    lab: &Lab,
    cluster: &mut Cluster,
    mut peer: WgPeer,
    rng: &mut fastrand::Rng,
    time: Duration,
) -> Result<Tally> {
    cluster.wait_master(FIRST)?;
    cluster.wait_ready(FIRST)?;
    lab.wait_clean(cluster, &[&peer], BOUND).context("before the first fault")?;
    let shapes = Shapes::learn(lab, cluster, &peer)?;
    let mut deck = Deck::new(rng);
    let (end, mut tally, mut number) = (Instant::now() + time, Tally::default(), 0);
    while Instant::now() < end || number < LEAST {
        number += 1;
        let before = cluster.wait_master(BOUND)?;
        let mut faults: Vec<Fault> =
            deck.draw(rng).into_iter().map(|kind| Fault::of(kind, rng, lab, &before)).collect();
        // Whether its clock was set is asked of a daemon that lives.
        faults.sort_by_key(|fault| fault.kind() != Kind::Clock);
        let said: Vec<String> = faults.iter().map(Fault::to_string).collect();
        let said = said.join("; ");
        let undo: Vec<_> = faults
            .iter()
            .map(|fault| fault.begin(lab, cluster))
            .collect::<Result<_>>()
            .with_context(|| said.clone())?;
        std::thread::sleep(Duration::from_millis(rng.u64(50..6_000)));
        undo.into_iter().try_for_each(|undo| undo.end(lab, cluster))?;
        revive::revive(lab, cluster, &faults, rng).with_context(|| said.clone())?;
        let healed = Instant::now();
        let looked = settle(lab, cluster, &peer, &shapes, &faults, rng);
        looked.with_context(|| format!("after fault {number}: {said}"))?;
        let after = cluster.wait_master(BOUND)?;
        println!(
            "{number:4}  {said}: all right after {:.1} s, master {} -> {}",
            healed.elapsed().as_secs_f64(),
            before.name(),
            after.name()
        );
        tally.add(&faults, healed.elapsed(), before.name() != after.name());
        if faults.iter().any(|fault| fault.kind() == Kind::Clock) {
            // A gateway may have begun a handshake with it an hour ahead: it would refuse those of all others for an hour, and
            // come back by its own 15 s after whatever fault.
            peer.stop()?;
            peer = lab.start_client(1)?;
            lab.wait_clean(cluster, &[&peer], BOUND).context("a client that begins anew")?;
            let heir = lab.gateways().iter().find(|gateway| gateway.name() != after.name());
            cluster.wait_told(heir.context("no backup")?, 1, BOUND)?;
        }
    }
    Ok(tally)
}

/// Waits until every audit is content. A daemon may end long after the fault: a guard that was stopped with its worker buries it
/// when it wakes up.
fn settle(
    lab: &Lab,
    cluster: &mut Cluster,
    peer: &WgPeer,
    shapes: &Shapes,
    faults: &[Fault],
    rng: &mut fastrand::Rng,
) -> Result<()> {
    let end = Instant::now() + BOUND;
    loop {
        revive::revive_once(lab, cluster, faults, rng)?;
        let mut wrong = match cluster.wait_ready(Duration::ZERO) {
            Ok(()) => lab.audit(cluster, &[peer]),
            Err(e) => vec![format!("{e:#}")],
        };
        if wrong.is_empty() {
            wrong = shapes.compare(lab, cluster)?;
        }
        if wrong.is_empty() {
            wrong.extend(faults.iter().filter_map(|fault| fault.left(lab, cluster)));
        }
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
            let (count, worst) = self.of_kind.entry(fault.kind().name()).or_default();
            *count += 1;
            *worst = until.max(*worst);
        }
        self.masters += u32::from(moved);
    }

    /// The kinds that did not come.
    fn missing(&self) -> Vec<&'static str> {
        deck::all().map(Kind::name).filter(|name| !self.of_kind.contains_key(name)).collect()
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
