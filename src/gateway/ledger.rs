//! What this node put up, kept on disk: `wgha release` undoes it after a crash, and PostUp never
//! runs twice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::state::{Applied, AppliedInterface, StateDir, StateError};

/// The record, shared by the reconciler and the script runner.
#[derive(Clone, Debug)]
pub struct Ledger {
    state: Arc<StateDir>,
    applied: Arc<Mutex<Applied>>,
}

impl Ledger {
    /// The record as an earlier run left it.
    #[must_use]
    pub fn open(state: Arc<StateDir>) -> Ledger {
        let applied = Arc::new(Mutex::new(state.applied()));
        Ledger { state, applied }
    }

    /// The record now.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.lock().clone()
    }

    /// The record of one interface, if there is one.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<AppliedInterface> {
        self.lock().interfaces.iter().find(|i| i.name == name).cloned()
    }

    /// Changes the record and, if it differs, writes it. Waits for the disk: do not call it between
    /// the change of role and WireGuard.
    ///
    /// # Errors
    ///
    /// The disk's; the record in memory is changed nevertheless.
    pub fn update(&self, change: impl FnOnce(&mut Applied)) -> Result<(), StateError> {
        let mut applied = self.lock();
        let before = applied.clone();
        change(&mut applied);
        if *applied == before { Ok(()) } else { self.state.set_applied(&applied) }
    }

    /// Changes the record of one interface, made if missing.
    ///
    /// # Errors
    ///
    /// As [`update`](Ledger::update).
    pub fn update_interface(
        &self,
        name: &str,
        change: impl FnOnce(&mut AppliedInterface),
    ) -> Result<(), StateError> {
        self.update(|applied| {
            let index = applied.interfaces.iter().position(|i| i.name == name);
            let index = index.unwrap_or_else(|| {
                applied
                    .interfaces
                    .push(AppliedInterface { name: name.to_owned(), ..Default::default() });
                applied.interfaces.len() - 1
            });
            if let Some(interface) = applied.interfaces.get_mut(index) {
                change(interface);
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, Applied> {
        // Replaced as a whole, so a panic elsewhere does not spoil it.
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
