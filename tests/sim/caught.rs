//! Every invariant can fail: broken drivers and reconcilers, each caught by the invariant that is there for it.

use crate::audit::Rule;
use crate::gateway::Manner;
use crate::schedule::{run, run_leases};
use crate::world::Mutation;

/// A broken part is found within so many schedules.
const SCHEDULES: u64 = 200;

fn caught(mutation: Mutation, by: &[Rule]) {
    let mut found = Vec::new();
    for seed in 1..=SCHEDULES {
        if let Err(failure) = run(seed, mutation, false) {
            if by.contains(&failure.violation.rule) {
                return;
            }
            found.push(failure.violation.rule);
        }
    }
    panic!("{mutation:?} is not caught by {by:?} in {SCHEDULES} schedules, only by {found:?}");
}

/// Leases are broken by rarer accidents.
const LEASE_SCHEDULES: u64 = 1_000;

fn caught_with_leases(mutation: Mutation) {
    let mut found = Vec::new();
    for seed in 1..=LEASE_SCHEDULES {
        if let Err(failure) = run_leases(seed, mutation, false) {
            if failure.violation.rule == Rule::OneGate {
                return;
            }
            found.push(failure.violation.rule);
        }
    }
    panic!("{mutation:?} is not caught in {LEASE_SCHEDULES} schedules, only by {found:?}");
}

#[test]
fn gate_open_too_long() {
    caught_with_leases(Mutation::GateOpen);
}

/// An obituary frees the votes, so it must not come before the gate is shut.
#[test]
fn obituary_before_the_gate() {
    caught_with_leases(Mutation::BuriedOpen);
}

#[test]
fn votes_forgotten() {
    caught_with_leases(Mutation::VotesForgotten);
}

#[test]
fn etcd_forgets_too_soon() {
    caught_with_leases(Mutation::EtcdHasty);
}

macro_rules! caught {
    ($($name:ident: $mutation:expr, $($rule:ident)|+;)*) => {
        $(#[test]
        fn $name() {
            caught($mutation, &[$(Rule::$rule),+]);
        })*
    };
}

caught! {
    left_said_early: Mutation::Reconciler(Manner::LeftEarly), LeftFirst;
    effects_never_off: Mutation::Reconciler(Manner::NeverLeaves), TwoActing;
    effects_never_on: Mutation::Reconciler(Manner::NeverEnters), NoneActing;
    evidence_ignored: Mutation::EvidenceIgnored, Unjustified;
    claims_lost: Mutation::ClaimsLost, Unjustified;
    damaged: Mutation::Damaged, Accepted;
    slow_clock: Mutation::SlowClock, Cadence | NoneActing;
    fast_clock: Mutation::FastClock, Unjustified | Storm;
    disk_forgets: Mutation::DiskForgets, Term;
    event_lost: Mutation::EventLost, Chain;
    meddler: Mutation::Meddler, Unjustified;
    attack_helped: Mutation::AttackHelped, Unmoved;
    heartbeats_late: Mutation::HeartbeatsLate, Cadence;
    storm: Mutation::Storm, Storm;
    answers_lost: Mutation::AnswersLost, Answer;
    stays_stopped: Mutation::StaysStopped, Answer | Cadence;
    buried_alive: Mutation::BuriedAlive, Obituary | Accepted;
    buried_early: Mutation::BuriedEarly, Obituary;
    never_recovers: Mutation::NeverRecovers, Liveness;
}
