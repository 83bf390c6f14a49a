//! How many datagrams in the name of one peer may be opened in vain.
//!
//! Opening costs a hundred times what looking at the header costs, and whoever can forge a peer's address decides how often it is
//! done. So it is done at a bounded rate, except for what can be the next of the established session: only the peer, and
//! who sees its datagrams, knows the session's number.

use std::time::Duration;

use crate::time::Time;

/// Between two at the full rate: 20,000 a second, some percent of a core. Another session of the peer, which cannot be told from an
/// invented one before it is opened, has its share of them.
const STEP: Duration = Duration::from_micros(50);

/// How much may be opened in vain at once, as the time in which the rate allows as much.
const BURST: Duration = Duration::from_millis(100);

/// The account of one peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// When as much as was opened would have been opened at that rate.
    paid_until: Time,
}

impl Budget {
    pub(crate) const fn new() -> Budget {
        Budget { paid_until: Time::ZERO }
    }

    /// Whether nothing more may be opened now.
    pub(crate) fn is_spent(self, now: Time) -> bool {
        self.paid_until.since(now) >= BURST
    }

    /// One was opened in vain.
    pub(crate) fn charge(&mut self, now: Time) {
        self.paid_until = self.paid_until.max(now) + STEP;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(budget: &mut Budget, now: Time, offered: usize) -> usize {
        (0..offered)
            .filter(|_| {
                let spent = budget.is_spent(now);
                if !spent {
                    budget.charge(now);
                }
                !spent
            })
            .count()
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut budget = Budget::new();
        let start = Time::from_nanos(1_000_000_000_000);
        assert_eq!(opened(&mut budget, start, 100_000), 2000);
        assert_eq!(opened(&mut budget, start + Duration::from_millis(10), 100_000), 200);
        // However long nothing came, a burst is a burst.
        assert_eq!(opened(&mut budget, start + Duration::from_secs(1000), 100_000), 2000);
    }
}
