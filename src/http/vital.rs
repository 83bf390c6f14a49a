//! What is known without asking: the published role, and whether the protocol's loop turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use wgha_proto::{Role, RoleLevel, Time};

use crate::clock;
use crate::config::Config;
use crate::daemon;

/// The loop turns once a second at least; after three times that it hangs.
const HANGS: Duration = Duration::from_secs(3);

/// The vital signs of the protocol's loop.
#[derive(Debug)]
pub struct Vital {
    level: watch::Receiver<RoleLevel>,
    /// When the loop last turned, in nanoseconds of [`clock::now`].
    turned_at: Arc<AtomicU64>,
    /// For how many nanoseconds after a turn what it published is believed.
    believed: AtomicU64,
}

/// What the protocol's loop says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It published this role, a moment ago.
    Role(Role),
    /// It has said nothing for longer than others wait for a silent master, or has ended.
    Nothing,
}

impl Vital {
    /// The signs of the loop behind `handle`.
    #[must_use]
    pub fn new(handle: &daemon::Handle, config: &Config) -> Vital {
        Vital::of(handle.level.clone(), Arc::clone(&handle.turns), believed(config))
    }

    pub(super) fn of(
        level: watch::Receiver<RoleLevel>,
        turned_at: Arc<AtomicU64>,
        believed: Duration,
    ) -> Vital {
        let vital = Vital { level, turned_at, believed: AtomicU64::new(0) };
        vital.believe(believed);
        vital
    }

    /// Takes up another detection time.
    pub fn reconfigure(&self, config: &Config) {
        self.believe(believed(config));
    }

    /// The role, if the loop still stands by it.
    #[must_use]
    pub fn said(&self) -> Said {
        // The turn first: the level is then at least as new.
        let silent = self.silent();
        let believed = Duration::from_nanos(self.believed.load(Ordering::Relaxed));
        match silent {
            Some(silent) if silent < believed => Said::Role(self.level.borrow().role),
            _ => Said::Nothing,
        }
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

    fn believe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.believed.store(nanos, Ordering::Relaxed);
    }
}

/// A master that says nothing is replaced after the detection time. Its last heartbeat left before its
/// loop last turned, by half an interval in the mean.
fn believed(config: &Config) -> Duration {
    config.detection().saturating_sub(config.cluster.heartbeat / 2)
}
