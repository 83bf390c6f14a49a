//! How often the master asks its device where the clients are.

use std::time::Duration;

use crate::sync::endpoints::{PERIOD_GROWTH, PERIOD_MAX, PERIOD_MIN};

/// Between two polls: so many times what one costs, so that polling takes a hundredth of a core; within bounds.
const COST: u32 = 100;

/// So many polls are compared.
const SAMPLES: usize = 4;

/// What the last polls took.
///
/// A poll that was slow because the machine was busy costs no more than another, and if it were believed the next one would be
/// seconds later: a client that came meanwhile would be unknown to the next master, and find it by itself after 15 s. So the cost
/// is the least of several, until there are so many nothing, and a pause at most doubles: the other gateways know when to expect
/// the next difference.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The newest first.
    took: [Duration; SAMPLES],
    pause: Duration,
}

impl Pace {
    /// How long to wait after a poll that took so long.
    pub(super) fn pause(&mut self, took: Duration) -> Duration {
        self.took.rotate_right(1);
        let [newest, ..] = &mut self.took;
        *newest = took;
        let cost = self.took.iter().min().copied().unwrap_or_default();
        let most = (self.pause * PERIOD_GROWTH).clamp(PERIOD_MIN, PERIOD_MAX);
        self.pause = (cost * COST).clamp(PERIOD_MIN, most);
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(took_ms: &[u64]) -> Vec<u128> {
        let mut pace = Pace::default();
        took_ms.iter().map(|ms| pace.pause(Duration::from_millis(*ms)).as_millis()).collect()
    }

    #[test]
    fn a_slow_poll_between_fast_ones_delays_none() {
        assert_eq!(pauses(&[400, 1, 400, 400, 400, 2, 900, 900, 900]), [500; 9]);
    }

    #[test]
    fn a_device_that_is_slow_is_asked_less_and_less() {
        assert_eq!(pauses(&[30; 6]), [500, 500, 500, 1_000, 2_000, 3_000]);
        assert_eq!(pauses(&[500; 9])[3..], [1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    }

    #[test]
    fn one_fast_poll_is_enough_to_be_asked_often_again() {
        assert_eq!(pauses(&[500, 500, 500, 500, 500, 1, 500])[4..], [2_000, 500, 500]);
    }
}
