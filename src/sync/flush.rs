//! Knowing that the other end has everything: a master that hands over waits for it, a bounded time.
//!
//! Frames keep their order, so a question behind the last difference is answered when that has
//! been taken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The questions to all gateways. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Flushes {
    peers: Arc<Mutex<BTreeMap<String, State>>>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Established connections.
    sessions: usize,
    /// Number of the last question.
    asked: u64,
    /// Number of the last one that was answered.
    answered: u64,
}

impl Flushes {
    /// Whether there is a connection to this gateway.
    #[must_use]
    pub fn connected(&self, peer: &str) -> bool {
        self.lock().get(peer).is_some_and(|state| state.sessions > 0)
    }

    /// Waits until `peer` has taken all that was said before. False if it cannot be asked, or goes
    /// away. Bound it.
    pub async fn flush(&self, peer: &str) -> bool {
        let mut changed = self.changed.subscribe();
        let number = match self.lock().get_mut(peer) {
            Some(state) if state.sessions > 0 => {
                state.asked += 1;
                state.asked
            }
            _ => return false,
        };
        self.changed.send_replace(());
        loop {
            match self.lock().get(peer) {
                Some(state) if state.answered >= number => return true,
                Some(state) if state.sessions > 0 => {}
                _ => return false,
            }
            if changed.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Marked as changed with every question.
    pub(super) fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The number of the last question to this gateway.
    pub(super) fn asked(&self, peer: &str) -> u64 {
        self.lock().get(peer).map_or(0, |state| state.asked)
    }

    /// An answer came.
    pub(super) fn answered(&self, peer: &str, number: u64) {
        if let Some(state) = self.lock().get_mut(peer) {
            // What was not asked cannot be answered.
            state.answered = state.answered.max(number.min(state.asked));
        }
        self.changed.send_replace(());
    }

    /// A connection is established, until this is dropped.
    pub(super) fn session(&self, peer: &str) -> Session {
        self.lock().entry(peer.to_owned()).or_default().sessions += 1;
        Session { flushes: self.clone(), peer: peer.to_owned() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        // Plain numbers: a panic elsewhere does not spoil them.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Flushes::session`].
pub(super) struct Session {
    flushes: Flushes,
    peer: String,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(state) = self.flushes.lock().get_mut(&self.peer) {
            state.sessions -= 1;
        }
        self.flushes.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_its_own_answer() {
        let flushes = Flushes::default();
        assert!(!flushes.flush("gw2").await, "no connection");
        let session = flushes.session("gw2");
        let asking = {
            let flushes = flushes.clone();
            tokio::spawn(async move { flushes.flush("gw2").await })
        };
        while flushes.asked("gw2") == 0 {
            tokio::task::yield_now().await;
        }
        flushes.answered("gw2", 0);
        tokio::task::yield_now().await;
        assert!(!asking.is_finished(), "an older answer");
        flushes.answered("gw2", 1);
        assert!(asking.await.unwrap());

        let again = {
            let flushes = flushes.clone();
            tokio::spawn(async move { flushes.flush("gw2").await })
        };
        while flushes.asked("gw2") == 1 {
            tokio::task::yield_now().await;
        }
        flushes.answered("gw3", 9);
        drop(session);
        assert!(!again.await.unwrap(), "the connection is gone");
    }

    #[tokio::test]
    async fn an_answer_to_nothing_counts_for_nothing() {
        let flushes = Flushes::default();
        let _session = flushes.session("gw2");
        flushes.answered("gw2", u64::MAX);
        let asking = {
            let flushes = flushes.clone();
            tokio::spawn(async move { flushes.flush("gw2").await })
        };
        while flushes.asked("gw2") == 0 {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        assert!(!asking.is_finished());
        flushes.answered("gw2", 1);
        assert!(asking.await.unwrap());
    }
}
