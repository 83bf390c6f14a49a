//! Every schedule up to a bound, not a sample: two gateways and a witness, real `Node`s, all that can befall them.
//!
//! Time goes in steps of half an interval. Before each step anything may happen, in any combination: a direction of a
//! link is cut or joined, a node is cut off, killed, started again, paused, resumed, a handover is asked for, what one
//! node sends to another in this step comes late, or comes twice. Joining, starting and resuming is free, each of
//! the others is one *fault*, and all schedules with at most so many faults are tried. Within a step everything takes the
//! time that it takes: messages a fixed delay, timers to the nanosecond, with the clocks of the nodes at the bounds of
//! their rates. Gates close as late as they may.
//!
//! Two worlds with the same [`World::print`] go on alike, so one of them is enough. What must hold: the gate of at most
//! one machine is open. What must have been met: takeover, handover, split vote, expiry, a restart inside a lease.
//!
//! ```text
//! cargo test -p wgha-proto --test explore                    one fault in three lease times; seconds
//! WGHA_EXPLORE_FAULTS=2 WGHA_EXPLORE_LEASES=3 \
//!     cargo test --release -p wgha-proto --test explore -- --nocapture everything
//! ```
//!
//! `WGHA_EXPLORE_STATES` (30 million) bounds the states that are remembered, 8 bytes each with their table's slack;
//! beyond it the run ends and fails.

mod choice;
mod search;
mod world;

use crate::search::{Bounds, Found, search};
use crate::world::{PAIRS, Seen, World};

fn from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, is {text:?}")))
}

fn bounds() -> Bounds {
    Bounds {
        faults: from_env("WGHA_EXPLORE_FAULTS").unwrap_or(1) as u8,
        leases: from_env("WGHA_EXPLORE_LEASES").unwrap_or(3) as u32,
        states: from_env("WGHA_EXPLORE_STATES").unwrap_or(30_000_000),
    }
}

fn roots(late_gate: bool) -> Vec<(String, World)> {
    let mut roots = Vec::new();
    for rates in PAIRS {
        let mut cold = World::new(rates, late_gate);
        roots.push((format!("start, clocks {rates:?} ppm"), cold.clone()));
        cold.settle_down();
        roots.push((format!("gw1 is master, clocks {rates:?} ppm"), cold));
    }
    roots
}

#[test]
fn everything() {
    let bounds = bounds();
    let mut total = Found::default();
    for (name, root) in roots(false) {
        let found = search(&root, &bounds);
        println!("{name}: {found}");
        if let Some(trail) = &found.trail {
            panic!("two gates are open, {name}:\n{}", trail.join("\n"));
        }
        assert!(!found.full, "more than {} states: raise WGHA_EXPLORE_STATES", bounds.states);
        total.add(&found);
    }
    println!("all: {total}");
    let missing: Vec<_> = Seen::ALL.into_iter().filter(|seen| total.count(*seen) == 0).collect();
    assert!(missing.is_empty(), "never reached: {missing:?}");
}

/// The search can fail: a gate that stays open for half a lease too long is found.
#[test]
fn a_gate_that_closes_late_is_found() {
    let bounds = Bounds { faults: 1, ..bounds() };
    let found = roots(true).into_iter().any(|(_, root)| search(&root, &bounds).trail.is_some());
    assert!(found);
}
