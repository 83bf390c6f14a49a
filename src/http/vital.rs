//! What is known without asking: the published role, and whether the protocol's loop turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use wgha_proto::{Role, RoleLevel, Time};

use crate::clock;
use crate::daemon;
use crate::net::gate::Permit;

/// The loop turns once a second at least; after three times that it hangs.
const HANGS: Duration = Duration::from_secs(3);

/// The vital signs of the protocol's loop.
#[derive(Clone, Debug)]
pub struct Vital {
    level: watch::Receiver<RoleLevel>,
    /// When the loop last turned, in nanoseconds of [`clock::now`].
    turned_at: Arc<AtomicU64>,
    /// Until when a master is believed: others may be master after it.
    permit: Permit,
}

/// What the protocol's loop says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It published this role, a moment ago.
    Role(Role),
    /// It said master, but not for how long others wait for a silent one, or its lease lasts; or it has ended.
    Nothing,
}

impl Vital {
    /// The signs of the loop behind `handle`, which says in `permit` how long the machine may act.
    #[must_use]
    pub fn new(handle: &daemon::Handle, permit: Permit) -> Vital {
        Vital::of(handle.level.clone(), Arc::clone(&handle.turns), permit)
    }

    pub(crate) const fn of(
        level: watch::Receiver<RoleLevel>,
        turned_at: Arc<AtomicU64>,
        permit: Permit,
    ) -> Vital {
        Vital { level, turned_at, permit }
    }

    /// The role, if the loop still stands by it.
    #[must_use]
    pub fn said(&self) -> Said {
        if self.silent().is_none() {
            return Said::Nothing;
        }
        match self.level.borrow().role {
            Role::Master if !self.permit.allows(clock::now()) => Said::Nothing,
            role => Said::Role(role),
        }
    }

    /// Until when this node is master with permission to act, if it is now.
    #[must_use]
    pub fn master_until(&self) -> Option<Time> {
        (self.said() == Said::Role(Role::Master)).then(|| self.permit.until())
    }

    /// Waits until another level is published.
    ///
    /// # Errors
    /// The loop has ended.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.level.changed().await
    }

    /// The loop makes progress.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.silent().is_some_and(|silent| silent < HANGS)
    }

    /// Since when the loop has not turned; `None`: it has ended.
    fn silent(&self) -> Option<Duration> {
        let turned = Time::from_nanos(self.turned_at.load(Ordering::Acquire));
        self.level.has_changed().is_ok().then(|| clock::now().since(turned))
    }
}
