//! The seeded simulation: real `Node`s on virtual time, everything around them by chance.
//!
//! One number, the seed, decides a whole schedule: the cluster, its clocks and network, at least five faults over at
//! least thirty detection times (the *safety phase*), and what heals at the end (the *liveness phase*).
//! What must hold, and under which condition, stands in [`audit`]. What a run must have met stands in [`stats`].
//!
//! ```text
//! cargo test -p wgha-proto --test sim                                 2,000 schedules
//! WGHA_SIM_SCHEDULES=50000 cargo test -p wgha-proto --test sim -- --nocapture schedules
//! WGHA_SIM_SEED=4711 cargo test -p wgha-proto --test sim -- --nocapture schedules     one, with its trace
//! WGHA_SIM_LEASES=5000 cargo test -p wgha-proto --test sim -- --nocapture schedules_with_leases
//! WGHA_SIM_LEASE_SEED=4711 cargo test -p wgha-proto --test sim -- --nocapture schedules_with_leases
//! ```
//!
//! `WGHA_SIM_RULES=OneGate,Liveness` lets nothing but these invariants end a schedule; `tests/mutations/run` uses it.
//!
//! With leases (3,000 schedules, 5,000 in all) the clusters have three to seven voters, and the promise is
//! harder: see [`leases`]. In the liveness phase exactly one gateway serves, and one that a majority hears, also with one
//! node left deaf, mute or half-linked.
//!
//! # Liveness
//!
//! Two detection times, and the slack of `Audit::wait` (rank wait, an interval, round trip) with the times of
//! entering and leaving, after everything healed, exactly one gateway serves. With one deaf node: exactly one of the
//! others serves (a master that turns deaf keeps its effects: with two voters nothing can tell it). With a broken
//! link or direction between two gateways of a pair both may act, as docs/guarantees.md says: at least one serves. If a
//! third node hears both, a link that breaks in quiet changes nothing: exactly one serves. It is quiet if one serves,
//! every gateway is fit to, and no member's last word to another was lost.

mod attacker;
mod audit;
mod caught;
mod clock;
mod contest;
mod etcd;
mod faults;
mod gateway;
mod host;
mod leases;
mod network;
mod options;
mod reasons;
mod rng;
mod schedule;
mod stats;
mod voters;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::schedule::{Failure, run, run_leases};
use crate::stats::Stats;
use crate::world::Mutation;

/// Without a wish from outside.
const SCHEDULES: u64 = 2_000;
/// The same with leases.
const LEASE_SCHEDULES: u64 = 5_000;
/// A run of more schedules than that says how far it is.
const PROGRESS: u64 = 10_000;

/// From this many schedules on, each required situation must have occurred.
const ENOUGH: u64 = 1_000;

/// One schedule, from its seed.
type Run = fn(u64, Mutation, bool) -> Result<Stats, Box<Failure>>;

fn from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, is {text:?}")))
}

#[test]
fn schedules() {
    if let Some(seed) = from_env("WGHA_SIM_SEED") {
        let result = run(seed, Mutation::None, true);
        match result {
            Ok(stats) => stats.print(),
            Err(failure) => panic!("{failure}"),
        }
        return;
    }
    let count = from_env("WGHA_SIM_SCHEDULES").unwrap_or(SCHEDULES);
    let first = from_env("WGHA_SIM_FIRST").unwrap_or(1);
    let (stats, failures) = run_many(first, count, run);
    stats.print();
    for failure in failures.iter().take(40) {
        println!("{failure}");
    }
    assert!(failures.is_empty(), "{} of {count} schedules failed", failures.len());
    let missing = stats.missing();
    assert!(count < ENOUGH || missing.is_empty(), "never happened: {missing:?}");
}

#[test]
fn schedules_with_leases() {
    if let Some(seed) = from_env("WGHA_SIM_LEASE_SEED") {
        match run_leases(seed, Mutation::None, true) {
            Ok(stats) => stats.print(),
            Err(failure) => panic!("{failure}"),
        }
        return;
    }
    let count = from_env("WGHA_SIM_LEASES").unwrap_or(LEASE_SCHEDULES);
    let first = from_env("WGHA_SIM_FIRST").unwrap_or(1);
    let (stats, failures) = run_many(first, count, run_leases);
    stats.print();
    for failure in failures.iter().take(40) {
        println!("{failure}");
    }
    assert!(failures.is_empty(), "{} of {count} schedules failed", failures.len());
    let rare = stats.rare(count / 100);
    assert!(count < ENOUGH || rare.is_empty(), "too rare: {rare:?}");
}

#[test]
fn one_seed_is_one_schedule() {
    for seed in [3, 17, 123] {
        let one = run(seed, Mutation::None, false).map(|stats| stats.digest());
        let other = run(seed, Mutation::None, false).map(|stats| stats.digest());
        assert_eq!(one.map_err(|f| f.to_string()), other.map_err(|f| f.to_string()), "seed {seed}");
    }
}

/// Runs the seeds from `first` on, on all processors.
fn run_many(first: u64, count: u64, run: Run) -> (Stats, Vec<Failure>) {
    let next = AtomicU64::new(first);
    let total = Mutex::new((Stats::new(), Vec::new()));
    // One failure is enough for whoever only asks whether there is one.
    let stop = std::env::var_os("WGHA_SIM_STOP").is_some();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = stop && !total.lock().expect("no worker panics").1.is_empty();
                    if seed >= first + count || enough {
                        return;
                    }
                    let result = run(seed, Mutation::None, false);
                    let mut total = total.lock().expect("no worker panics");
                    match result {
                        Ok(stats) => total.0.merge(&stats),
                        Err(failure) => total.1.push(*failure),
                    }
                    let done = seed + 1 - first;
                    if done.is_multiple_of(PROGRESS) && done < count {
                        println!("{done} of {count} schedules, {} failed", total.1.len());
                    }
                }
            });
        }
    });
    let (stats, mut failures) = total.into_inner().expect("no worker panics");
    failures.sort_by_key(|failure| failure.seed);
    (stats, failures)
}
