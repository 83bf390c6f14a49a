//! A number for the state of a node, for whoever explores states (`tests/explore`): nodes with the same one go on
//! alike. Times count from now, in steps of a grain; numbers of messages from the last that was sent.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::time::Time;

/// Takes a state in, part by part.
pub(crate) struct Printer {
    hasher: DefaultHasher,
    now: Time,
    grain_ns: u64,
    /// What is longer ago than this no longer matters.
    history_ns: u64,
}

impl Printer {
    pub(crate) fn new(now: Time, grain: Duration, history: Duration) -> Printer {
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX).max(1);
        Printer {
            hasher: DefaultHasher::new(),
            now,
            grain_ns: nanos(grain),
            history_ns: nanos(history),
        }
    }

    /// Anything that is neither a time nor a number that only grows.
    pub(crate) fn put(&mut self, value: impl Hash) {
        value.hash(&mut self.hasher);
    }

    /// An instant.
    pub(crate) fn at(&mut self, at: Time) {
        let (at, now) = (at.as_nanos(), self.now.as_nanos());
        if at >= now {
            self.put((true, (at - now) / self.grain_ns));
        } else {
            self.put((false, (now - at).min(self.history_ns) / self.grain_ns));
        }
    }

    /// An instant that may not have come.
    pub(crate) fn maybe_at(&mut self, at: Option<Time>) {
        self.put(at.is_some());
        if let Some(at) = at {
            self.at(at);
        }
    }

    /// A length of time.
    pub(crate) fn length(&mut self, length: Duration) {
        self.put(length.as_nanos() / u128::from(self.grain_ns));
    }

    pub(crate) fn finish(&self) -> u64 {
        self.hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn print(now: u64, at: u64) -> u64 {
        let ms = |n: u64| Time::from_nanos(n * 1_000_000);
        let mut printer = Printer::new(ms(now), MS, 100 * MS);
        printer.at(ms(at));
        printer.finish()
    }

    #[test]
    fn only_how_far_away_a_time_is_counts_and_not_for_ever() {
        assert_eq!(print(1_000, 1_007), print(5_000, 5_007));
        assert_ne!(print(1_000, 1_007), print(1_000, 1_008));
        assert_ne!(print(1_000, 1_007), print(1_000, 993));
        assert_eq!(print(1_000, 900), print(1_000, 1));
    }
}
