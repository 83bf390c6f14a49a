//! Whether the worker hangs, judged by looks at its progress.

use std::time::Duration;

use wgha_proto::Time;

/// Below this nothing is called hanging: a machine that is busy for a moment is no reason to kill.
const LEAST: Duration = Duration::from_millis(500);

/// A worker's progress. It hangs if looks in time, over its whole patience, saw none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    patience: Duration,
    looked: Time,
    /// For how long looks in time have seen no progress.
    still: Duration,
}

impl Pulse {
    /// `patience`: the detection time; at least half a second counts.
    pub(super) fn new(patience: Duration, now: Time) -> Pulse {
        Pulse { patience: patience.max(LEAST), looked: now, still: Duration::ZERO }
    }

    /// When to look next.
    pub(super) fn next(&self) -> Time {
        self.looked + self.patience / 4
    }

    /// Looks: whether there was progress since the last look. True if the worker hangs.
    pub(super) fn look(&mut self, now: Time, progress: bool) -> bool {
        let since = now.since(self.looked);
        self.looked = now;
        // Who looks late was stopped or starved as well (the machine slept, the whole tree was stopped): that
        // the worker stood still meanwhile says nothing.
        if progress || since > self.patience / 2 {
            self.still = Duration::ZERO;
        } else {
            self.still += since;
        }
        self.still >= self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Time {
        Time::from_nanos((1000 + ms) * MS)
    }

    /// Looks every quarter until it hangs.
    fn hangs_at(
        pulse: &mut Pulse,
        from: u64,
        to: u64,
        progress: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        (from..=to).step_by(150).find(|ms| pulse.look(at(*ms), progress(*ms)))
    }

    #[test]
    fn hangs_after_its_patience_without_progress() {
        let mut pulse = Pulse::new(Duration::from_millis(600), at(0));
        assert_eq!(pulse.next(), at(150));
        assert_eq!(hangs_at(&mut pulse, 150, 10_000, |ms| ms < 3000), Some(3450));
        let mut pulse = Pulse::new(Duration::from_millis(600), at(0));
        assert_eq!(hangs_at(&mut pulse, 150, 10_000, |ms| ms % 450 == 0), None);
    }

    #[test]
    fn who_slept_itself_begins_again() {
        let mut pulse = Pulse::new(Duration::from_millis(600), at(0));
        for ms in [150, 300, 450] {
            assert!(!pulse.look(at(ms), false));
        }
        // Both were stopped for five seconds.
        assert!(!pulse.look(at(5450), false));
        assert_eq!(hangs_at(&mut pulse, 5600, 10_000, |_| false), Some(6050));
    }

    #[test]
    fn quick_heartbeats_do_not_make_it_impatient() {
        let mut pulse = Pulse::new(Duration::from_millis(20), at(0));
        assert_eq!(pulse.next(), at(125));
        assert!(!pulse.look(at(125), false) && !pulse.look(at(250), false));
        assert!(!pulse.look(at(375), false) && pulse.look(at(500), false));
    }
}
