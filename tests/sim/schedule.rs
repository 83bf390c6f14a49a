//! One schedule, from its seed to its verdict.

use std::fmt;

use wgha_proto::Role;

use crate::audit::{Rule, Violation};
use crate::faults::Faults;
use crate::leases;
use crate::options::{Nanos, Options, Remaining};
use crate::rng::Rng;
use crate::stats::{Situation, Stats};
use crate::world::{Mutation, World, host_name};

/// A schedule in which an invariant was broken.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) violation: Violation,
    options: Options,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { rule, at, what } = &self.violation;
        write!(
            f,
            "seed {}: {rule:?} at {:.3} ms: {what}\n    WGHA_SIM_{}SEED={} shows its trace; {:?}",
            self.seed,
            *at as f64 / 1e6,
            if self.options.majority { "LEASE_" } else { "" },
            self.seed,
            self.options
        )
    }
}

const SECOND: Nanos = 1_000_000_000;
/// The longest hold-off after failures is a minute.
const HOLDS: u32 = 62;

pub(crate) fn run(seed: u64, mutation: Mutation, trace: bool) -> Result<Stats, Box<Failure>> {
    run_one(seed, false, mutation, trace)
}

/// The same with leases.
pub(crate) fn run_leases(
    seed: u64,
    mutation: Mutation,
    trace: bool,
) -> Result<Stats, Box<Failure>> {
    run_one(seed, true, mutation, trace)
}

fn run_one(
    seed: u64,
    leases: bool,
    mutation: Mutation,
    trace: bool,
) -> Result<Stats, Box<Failure>> {
    let mut rng = Rng::new(seed.wrapping_mul(0xd134_2543_de82_ef95));
    let options = if leases { Options::draw_leases(&mut rng) } else { Options::draw(&mut rng) };
    if trace {
        println!("seed {seed}: {options:#?}");
    }
    let mut w = World::new(rng, options.clone(), mutation, trace);
    start(&mut w);
    let safety = Faults::plan(&mut w);
    w.watch();
    w.run_until(safety);
    if w.audit.violation.is_none() {
        live(&mut w);
    }
    match w.audit.violation {
        Some(violation) => Err(Box::new(Failure { seed, violation, options })),
        None => {
            w.stats.ended(w.now);
            Ok(w.stats)
        }
    }
}

fn start(w: &mut World) {
    for (holds, situation) in [
        (!w.o.evidence, Situation::NoEvidence),
        (w.o.witnesses > 0, Situation::Witness),
        (w.o.gateways == 3, Situation::ThreeGateways),
        (w.o.gateways == 4, Situation::FourGateways),
    ] {
        if holds {
            w.stats.add(situation);
        }
    }
    for host in 0..w.o.members() - w.o.spare {
        w.boot(host);
    }
}

fn liveness_time(w: &World) -> Nanos {
    if w.o.majority {
        let abstains = w.audit.abstains_until.saturating_sub(w.now);
        let etcd = if w.o.etcd { 3 * (4 * w.o.detection() + 2 * SECOND) } else { 0 };
        return etcd + abstains + 8 * w.audit.long + 3 * w.audit.wait + w.o.enter + 2 * w.o.leave;
    }
    2 * w.audit.long + w.audit.wait + w.o.enter + 2 * w.o.leave
}

/// Heals, waits, and looks who serves.
fn live(w: &mut World) {
    // Who forgot everything in a change of voters grants nothing before that is over: another broken node would be one too many.
    let remaining = if leases::forgot_in_a_change(w) { Remaining::Nothing } else { w.o.remaining };
    let quiet = serving(w).len() == 1
        && w.gateways().all(|host| w.eligible(host))
        && w.audit.nothing_missed();
    Faults::heal_all(w, remaining);
    // Stops and restarts that are under way end first; what was delayed arrives.
    w.run_until(w.now + 3 * w.o.detection() + w.audit.slowest.min(4 * w.o.detection()));
    // Who failed as master holds off for a second, and longer each time.
    for _ in 0..HOLDS {
        let held = w.gateways().any(|host| w.audit.hosts[host].role == Some(Role::Fault));
        if held && w.audit.violation.is_none() {
            w.run_until(w.now + w.o.detection().max(SECOND));
        }
    }
    if w.mutation == Mutation::NeverRecovers {
        for host in w.gateways() {
            w.kill(host, true);
        }
    }
    let time = liveness_time(w);
    w.run_until(w.now + time);
    // A handover that nobody asked for (preemption, after its back-off) may be under way: it ends first.
    let takes = w.o.enter + 2 * w.o.leave + w.o.interval;
    let changed = |host: usize| w.now.saturating_sub(w.audit.hosts[host].changed_at) < takes;
    if w.audit.violation.is_none() && w.gateways().any(changed) {
        w.run_until(w.now + takes);
    }
    if w.audit.violation.is_none() {
        judge(w, remaining, quiet);
    }
}

fn serving(w: &World) -> Vec<usize> {
    w.gateways().filter(|&host| w.hosts[host].gateway.serving).collect()
}

fn judge(w: &mut World, remaining: Remaining, quiet: bool) {
    w.audit.now = w.now;
    let serving = serving(w);
    let deaf: Vec<usize> = w.gateways().filter(|&host| w.network.deaf[host] > 0).collect();
    let hearing: Vec<usize> = serving.iter().copied().filter(|host| !deaf.contains(host)).collect();
    let fine = match remaining {
        _ if w.o.majority => serving.len() == 1 && leases::connected(w, serving[0]),
        Remaining::MuteNode => false,
        Remaining::Nothing => serving.len() == 1,
        Remaining::DeafNode => hearing.len() == 1,
        Remaining::BrokenLink | Remaining::OneWayLink if w.o.members() > 2 && quiet => {
            serving.len() == 1
        }
        Remaining::BrokenLink | Remaining::OneWayLink => !serving.is_empty(),
    };
    if !fine {
        let names: Vec<String> = serving.iter().map(|host| host_name(*host)).collect();
        w.audit.broken(Rule::Liveness, format!("{remaining:?}: {names:?} serve"));
    }
}
