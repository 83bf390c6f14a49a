//! What comes from outside of the cluster: whether this node is cut off from everything, and was until a moment ago.

use std::time::Duration;

use crate::api::Evidence;
use crate::time::Time;

/// The evidence, and what an end of its silence means.
#[derive(Clone, Debug)]
pub(super) struct Outside {
    pub(super) evidence: Evidence,
    /// Was cut off, and listens until then before it takes over by silence.
    pub(super) isolated_until: Time,
    /// When the last silence began.
    silent_since: Time,
    /// When the newest probe was sent that was answered before it.
    answered: Option<Time>,
}

/// How long a node that was cut off listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// A master's heartbeats come at this pace.
    pub(super) interval: Duration,
    /// D + step (docs/protocol.md §6, Isolation).
    pub(super) wait: Duration,
    /// More, if it was cut off for as long: its machine has lost its neighbours.
    pub(super) retry: Duration,
}

impl Outside {
    pub(super) fn new(now: Time, evidence: Evidence) -> Outside {
        Outside { evidence, isolated_until: Time::ZERO, silent_since: now, answered: None }
    }

    /// Takes what is new. `held`: without evidence the node would have taken over; `missed_since`: the first heartbeat
    /// of the silent master was due.
    pub(super) fn take(
        &mut self,
        now: Time,
        evidence: Evidence,
        held: bool,
        missed_since: Time,
        patience: Patience,
    ) {
        let back = self.evidence == Evidence::Silent && matches!(evidence, Evidence::Answered(_));
        let silent = now.since(self.silent_since);
        // A busy machine, or router, answers late. Who was answered since the heartbeat was missed, and without
        // answers for less than the next one takes, was not cut off while they all were lost.
        let moment = silent < patience.interval && self.answered >= Some(missed_since);
        if back && held && !moment {
            let lost = silent >= patience.retry;
            let retry = if lost { patience.retry } else { Duration::ZERO };
            self.isolated_until = now + patience.wait + retry;
        }
        if let Evidence::Answered(sent) = evidence {
            self.answered = Some(sent);
        }
        if self.evidence != Evidence::Silent {
            self.silent_since = now;
        }
        self.evidence = evidence;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        interval: Duration::from_millis(200),
        wait: Duration::from_millis(650),
        retry: Duration::from_secs(1),
    };

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    /// Takes (when, the evidence) of a node that misses heartbeats since 1,000 ms and would act from 1,400 ms on; returns
    /// until when it listens.
    fn listens_until(evidence: &[(u64, Evidence)]) -> Time {
        let mut outside = Outside::new(at(0), Evidence::NoSource);
        for &(now, evidence) in evidence {
            outside.take(at(now), evidence, now >= 1400, at(1000), PATIENCE);
        }
        outside.isolated_until
    }

    #[test]
    fn who_was_cut_off_listens_before_it_takes_over() {
        use Evidence::{Answered, Silent};
        let answered = |ms| Answered(at(ms));
        type Row = (&'static str, Vec<(u64, Evidence)>, u64);
        let table: [Row; 7] = [
            (
                "always answered",
                vec![(5, answered(0)), (1100, answered(1000)), (1500, answered(1450))],
                0,
            ),
            (
                "silent, and back before it would act",
                vec![(5, answered(0)), (1100, Silent), (1390, answered(1300))],
                0,
            ),
            ("cut off", vec![(5, answered(0)), (1100, Silent), (1900, answered(1850))], 2550),
            ("for long", vec![(5, answered(0)), (1100, Silent), (9000, answered(8950))], 10_650),
            (
                "briefly, as far as is known",
                vec![(5, answered(0)), (1350, Silent), (1450, answered(1400))],
                2100,
            ),
            (
                "a late answer",
                vec![(1050, answered(1010)), (1350, Silent), (1450, answered(1250))],
                0,
            ),
            (
                "late answers after it was cut off",
                vec![
                    (5, answered(0)),
                    (1100, Silent),
                    (1900, answered(1850)),
                    (2500, Silent),
                    (2540, answered(2400)),
                ],
                2550,
            ),
        ];
        for (name, evidence, until) in table {
            assert_eq!(listens_until(&evidence), at(until), "{name}");
        }
        let again = [
            (5, answered(0)),
            (1100, Silent),
            (1900, answered(1850)),
            (2100, Silent),
            (2300, answered(2290)),
        ];
        assert_eq!(listens_until(&again), at(2950), "cut off twice");
    }
}
