//! Random faults between daemon, hook and a fake cloud, whose address is the clients' only way: after each it is at the master.

mod fault;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netns_lab::{Cloud, Cluster, ClusterOptions, Lab, Node, WgPeer, Whereabouts, topology};

use fault::{Round, Trouble};

/// The hooks, and whether the gateways have the address themselves; else the cloud's edge translates it.
const HOOKS: [(&str, bool); 4] =
    [("aws-eip", false), ("hetzner-floating-ip", true), ("gcp-route", true), ("aws-route", true)];
/// Rounds with one cloud before the next.
const TURN: u32 = 25;
/// After its faults everything is right again within this: a client whose handshakes were lost tries again after up to 20 s.
const BOUND: Duration = Duration::from_secs(60);
/// Everything is right twice, so far apart: a hook that was killed, or comes late, has had its effect.
const APART: Duration = Duration::from_millis(700);

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pair: super::Pair,
    /// The faults follow from it; unless given, one of the clock, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Rounds of faults, with each of four clouds in turn.
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    /// No round is begun after this, but for the first two.
    #[arg(long, default_value_t = 3_600)]
    seconds: u64,
}

/// Rounds, however long they take.
const LEAST: u32 = 2;

/// What a run met.
#[derive(Default)]
struct Tally {
    of_kind: BTreeMap<&'static str, u32>,
    rounds: u32,
    /// Rounds after which another one was master.
    moved: u32,
    /// From the end of the faults until the address was at the master, and until the tunnel answered, of each round.
    address: Vec<Duration>,
    tunnel: Vec<Duration>,
}

/// A pair in front of a cloud.
struct Site {
    lab: Lab,
    cloud: Cloud,
    cluster: Cluster,
    client: WgPeer,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let seed = options.seed.unwrap_or_else(netns_lab::realtime_ns);
    println!(
        "cloud --seed {seed} --rounds {}: two gateways, heartbeat {} ms x {}, claims verified each second",
        options.rounds, options.pair.heartbeat_ms, options.pair.misses
    );
    let mut rng = fastrand::Rng::with_seed(seed);
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut tally = Tally::default();
    let first = rng.usize(0..HOOKS.len());
    for (hook, floating) in HOOKS.into_iter().cycle().skip(first) {
        let rounds = TURN.min(options.rounds - tally.rounds);
        if rounds == 0 || (tally.rounds >= LEAST && Instant::now() >= end) {
            break;
        }
        println!("before {hook}:");
        let mut site = Site::start(options, hook, floating)?;
        let result = site.rounds(rounds, end, &mut rng, &mut tally);
        result
            .map_err(|e| super::with_logs(&site.lab, e.context(format!("seed {seed}, {hook}"))))?;
    }
    ensure!(tally.rounds >= LEAST.min(options.rounds), "only {} rounds", tally.rounds);
    tally.print();
    Ok(())
}

impl Site {
    fn start(options: &Options, hook: &str, floating: bool) -> Result<Site> {
        let extra = Cloud::claim(hook, "verify_every = \"1s\"\ntimeout = \"3s\"");
        let pair = ClusterOptions {
            extra,
            floating_v4: floating,
            floating_v6: false,
            floating_inner: false,
            ..options.pair.cluster()
        };
        let lab = Lab::builder().nat(false).cluster(pair).build()?;
        let cloud = Cloud::start(&lab, hook)?;
        let cluster = Cluster::start(&lab, &options.pair.program()?)?;
        let client = lab.start_client(1)?;
        let site = Site { lab, cloud, cluster, client };
        site.settle().context("before the first fault")?;
        Ok(site)
    }

    fn rounds(
        &mut self,
        count: u32,
        end: Instant,
        rng: &mut fastrand::Rng,
        tally: &mut Tally,
    ) -> Result<()> {
        for _ in 0..count {
            if tally.rounds >= LEAST && Instant::now() >= end {
                break;
            }
            let before = self.cluster.wait_master(BOUND)?;
            let troubles = Trouble::choose(rng, &self.lab, &before);
            let said: Vec<String> = troubles.iter().map(Trouble::to_string).collect();
            let said = said.join("; ");
            self.round(&troubles, rng, tally, &before, &said).with_context(|| said.clone())?;
        }
        Ok(())
    }

    fn round(
        &mut self,
        troubles: &[Trouble],
        rng: &mut fastrand::Rng,
        tally: &mut Tally,
        before: &Node,
        said: &str,
    ) -> Result<()> {
        let mut round = Round::new(&self.lab, &self.cloud);
        for trouble in troubles {
            round.begin(trouble, &mut self.cluster)?;
        }
        std::thread::sleep(Duration::from_millis(rng.u64(50..2_500)));
        round.end(&mut self.cluster, rng)?;
        let (address, tunnel, after) = self.settle()?;
        tally.rounds += 1;
        println!(
            "{:4}  {said}: the address at the master after {:.1} s, the tunnel after {:.1} s, master {} -> {after}",
            tally.rounds,
            address.as_secs_f64(),
            tunnel.as_secs_f64(),
            before.name(),
        );
        tally.moved += u32::from(before.name() != after);
        tally.address.push(address);
        tally.tunnel.push(tunnel);
        troubles.iter().for_each(|t| *tally.of_kind.entry(t.kind()).or_default() += 1);
        Ok(())
    }

    /// Waits until there is one master, the address is there and nowhere else, and the client gets answers; and looks once more
    /// a moment later. Returns how long the address and the tunnel took, and the master.
    fn settle(&self) -> Result<(Duration, Duration, String)> {
        let healed = Instant::now();
        loop {
            self.until(healed, || self.wrong())?;
            let address = healed.elapsed();
            self.until(healed, || self.silent())?;
            let tunnel = healed.elapsed();
            std::thread::sleep(APART);
            if self.wrong()?.is_empty() && self.silent()?.is_empty() {
                let master = self.cluster.wait_master(BOUND)?;
                return Ok((address, tunnel, master.name().to_owned()));
            }
        }
    }

    fn until(&self, begun: Instant, wrong: impl Fn() -> Result<Vec<String>>) -> Result<()> {
        loop {
            let found = wrong()?;
            if found.is_empty() {
                return Ok(());
            }
            ensure!(begun.elapsed() < BOUND, "after {BOUND:?}: {}", found.join("; "));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn wrong(&self) -> Result<Vec<String>> {
        let masters = self.cluster.masters();
        let names: Vec<&str> = masters.iter().map(Node::name).collect();
        let [master] = names.as_slice() else {
            return Ok(vec![format!("masters: {names:?}")]);
        };
        let (at, name) = (self.cloud.look()?, Some((*master).to_owned()));
        let mut wrong = Vec::new();
        if at != (Whereabouts { owner: name.clone(), led: name }) {
            wrong.push(format!("{master} is master, {at:?}"));
        }
        for node in self.lab.gateways() {
            let status = match self.cluster.status(node) {
                Ok(status) => status,
                Err(e) => {
                    wrong.push(format!("{}: {e:#}", node.name()));
                    continue;
                }
            };
            let expected = if node.name() == *master { "held" } else { "unknown" };
            let claim = &status["claims"][0];
            if claim["state"] != expected {
                wrong.push(format!("{}: {claim}", node.name()));
            }
            // Two masters see each other, and a master that can hand over, before the next round.
            if status["ready"] != true {
                wrong.push(format!("{}: {}", node.name(), status["held_back"]));
            }
        }
        Ok(wrong)
    }

    /// What keeps the client from an answer through the tunnel.
    fn silent(&self) -> Result<Vec<String>> {
        let node = self.client.node();
        let mut wrong = Vec::new();
        if !node.ping(topology::wg_gateway().v4.into()) {
            wrong.push(format!("{}: no ping through the tunnel", node.name()));
        }
        let endpoint = self.client.endpoint()?;
        if endpoint != topology::endpoint(false) {
            wrong.push(format!("{}: it sends to {endpoint}", node.name()));
        }
        Ok(wrong)
    }
}

impl Tally {
    fn print(&mut self) {
        let faults: u32 = self.of_kind.values().sum();
        println!(
            "{} rounds, {faults} faults, the master another one after {} of the rounds; the address was at the master after each:",
            self.rounds, self.moved
        );
        for (what, times) in [("address", &mut self.address), ("tunnel", &mut self.tunnel)] {
            times.sort_unstable();
            let at = |percent: usize| times.get((times.len() - 1) * percent / 100);
            let [half, most, worst] =
                [50, 95, 100].map(|percent| at(percent).copied().unwrap_or_default().as_secs_f64());
            println!(
                "{what}: {half:.1} s after the end of the faults in half of the rounds, {most:.1} s in 95 of 100, {worst:.1} s at most"
            );
        }
        for (kind, count) in &self.of_kind {
            println!("{count:5}  {kind}");
        }
    }
}
