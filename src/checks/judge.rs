//! Whether a check passes, and when it runs next. Pure: time comes in as an argument.

use std::time::Duration;

use wgha_proto::{Health, Time};

/// How often in a row it takes to change the verdict, and what has come so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judge {
    rise: u8,
    fall: u8,
    /// The verdict. It passes until it has failed `fall` times: nothing is known of a node that has just started.
    pub(super) ok: bool,
    /// Runs in a row that contradict the verdict.
    streak: u8,
    /// When the last run began that passed.
    passed: Option<Time>,
}

impl Judge {
    pub(super) const fn new(rise: u8, fall: u8) -> Judge {
        Judge { rise, fall, ok: true, streak: 0, passed: None }
    }

    /// Takes the result of a run that began then. True if the verdict changed.
    pub(super) fn note(&mut self, began: Time, passed: bool) -> bool {
        if passed {
            self.passed = Some(began);
        }
        if passed == self.ok {
            self.streak = 0;
            return false;
        }
        self.streak = self.streak.saturating_add(1);
        let changed = self.streak >= if self.ok { self.fall } else { self.rise };
        if changed {
            self.ok = passed;
            self.streak = 0;
        }
        changed
    }
}

/// The health of the node: every check passes, and since when at least nothing has been seen to fail.
pub(super) fn health<'a>(all: impl Iterator<Item = &'a Judge> + Clone) -> Health {
    let ok = all.clone().all(|judge| judge.ok);
    // The oldest: a pass of all checks is as old as the oldest of their passes. None as long as one never passed.
    let passes: Option<Vec<Time>> = all.map(|judge| judge.passed).collect();
    Health { ok, last_pass_began: passes.and_then(|passes| passes.into_iter().min()) }
}

/// When the run after one that began and ended then begins: at the next beat of `interval`, so that one that takes long
/// leaves out beats instead of pushing them back.
pub(super) fn next_run(began: Time, ended: Time, interval: Duration) -> Time {
    let step = interval.as_nanos().max(1);
    let beats = ended.since(began).as_nanos() / step + 1;
    let wait = u64::try_from(beats.saturating_mul(step)).unwrap_or(u64::MAX);
    began + Duration::from_nanos(wait)
}
