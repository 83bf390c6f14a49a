//! What the listener counts of itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counters since the start of the process, and the connections of now.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Connections that stand.
    pub(super) open: Count,
    /// Connections that were refused: too many, and none of them idle.
    pub(super) refused: Count,
    /// Idle connections that were closed to make room.
    pub(super) displaced: Count,
    /// Connections that were closed because they asked nothing for too long.
    pub(super) quiet: Count,
    answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

impl Counts {
    /// One more answer. `path` is one of the known ones, or `other`.
    pub(super) fn answered(&self, path: &'static str, code: u16) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry((path, code)).or_default() += 1;
    }

    /// Answers by path and code.
    pub(super) fn answers(&self) -> BTreeMap<(&'static str, u16), u64> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A number that several may change.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, value: usize) {
        self.0.store(u64::try_from(value).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
