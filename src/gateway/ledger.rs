//! What this node put up, kept on disk: `wgha release` undoes it after a crash, and PostUp never
//! runs twice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{error, warn};

use crate::config::{Config, Wireguard};
use crate::net::gate;
use crate::state::{Applied, AppliedAddress, AppliedInterface, StateDir, StateError};

/// All that a daemon with this config may have put up: every interface, with its UDP port where `port_of` knows it, every floating IP
/// and the gate. A witness puts nothing up.
pub fn by_config(config: &Config, port_of: impl Fn(&Wireguard) -> Option<u16>) -> Applied {
    if config.node().witness {
        return Applied::default();
    }
    let interface = |entry: &Wireguard| AppliedInterface {
        name: entry.interface.clone(),
        listen_port: port_of(entry),
        ..AppliedInterface::default()
    };
    Applied {
        interfaces: config.wireguard.iter().map(interface).collect(),
        floating_ips: config.floating_ips.iter().map(AppliedAddress::from).collect(),
        // Whose reservations they are is not known, and they hurt nobody.
        reserved_ports: Vec::new(),
        gates: Vec::from_iter(config.cluster.gate.then(|| gate::table_name(&config.cluster.name))),
    }
}

/// The record, shared by the reconciler and the script runner.
#[derive(Clone, Debug)]
pub struct Ledger {
    state: Arc<StateDir>,
    applied: Arc<Mutex<Applied>>,
}

impl Ledger {
    /// The record as an earlier run left it. If it is damaged it is made anew of `by_config`, see [`by_config`]: too much, if anything.
    ///
    /// # Errors
    ///
    /// The record is damaged, and `by_config` does not know either.
    pub fn open<E>(
        state: Arc<StateDir>,
        by_config: impl FnOnce() -> Result<Applied, E>,
    ) -> Result<Ledger, E> {
        let applied = match state.applied() {
            Some(applied) => applied,
            None => {
                let applied = by_config()?;
                warn!(
                    "what was put up is not known: everything that the config names counts as put up, and \
                     PostDown will not run for a PostUp that ran"
                );
                // Now: the next who asks must not take a record that is missing for a machine that is clean.
                if let Err(e) = state.set_applied(&applied) {
                    error!("the record is not replaced: {e}");
                }
                applied
            }
        };
        Ok(Ledger { state, applied: Arc::new(Mutex::new(applied)) })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Applied {
        let interface = AppliedInterface { name: "wg0".into(), ..AppliedInterface::default() };
        Applied {
            interfaces: vec![interface],
            gates: vec!["wgha_edge".into()],
            ..Applied::default()
        }
    }

    fn open(state: &Arc<StateDir>, by_config: Result<Applied, ()>) -> Result<Applied, ()> {
        Ledger::open(Arc::clone(state), || by_config).map(|ledger| ledger.applied())
    }

    #[test]
    fn a_damaged_record_is_not_an_empty_one() {
        let tmp = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(tmp.path()).unwrap());
        // Missing: nothing was put up, and nobody is asked.
        assert_eq!(open(&state, Err(())), Ok(Applied::default()));
        let path = tmp.path().join("applied.json");
        std::fs::write(&path, "{").unwrap();
        assert_eq!(open(&state, Ok(some())), Ok(some()));
        // And the next one knows it as well.
        assert_eq!(open(&state, Err(())), Ok(some()));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(open(&state, Err(())), Err(()), "nobody knows");
    }
}
