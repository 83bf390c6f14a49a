//! systemd's watchdog: fed only while the protocol's loop makes progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::warn;

/// Tells systemd that the daemon is ready and alive. Without systemd it does nothing.
#[derive(Debug)]
pub(super) struct Watchdog {
    turns: Arc<AtomicU64>,
    seen: u64,
    /// How often systemd wants to hear, halved; a default if it does not watch.
    pub(super) every: Duration,
    watched: bool,
}

impl Watchdog {
    /// `turns` changes with every turn of the protocol's loop.
    pub(super) fn new(turns: Arc<AtomicU64>) -> Watchdog {
        let wanted = sd_notify::watchdog_enabled();
        let every = wanted.unwrap_or(Duration::from_secs(20)) / 2;
        Watchdog { turns, seen: 0, every, watched: wanted.is_some() }
    }

    /// Feeds the watchdog if the loop has turned since the last call.
    pub(super) fn feed(&mut self) {
        let turns = self.turns.load(Ordering::Relaxed);
        if turns == self.seen {
            warn!("the protocol's loop makes no progress");
        } else if self.watched {
            notify(&[sd_notify::NotifyState::Watchdog]);
        }
        self.seen = turns;
    }

    /// The daemon takes part in the cluster.
    pub(super) fn ready(&self, status: &str) {
        notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(status)]);
    }

    /// A line for `systemctl status`.
    pub(super) fn status(&self, status: &str) {
        notify(&[sd_notify::NotifyState::Status(status)]);
    }

    /// The daemon ends.
    pub(super) fn stopping(&self) {
        notify(&[sd_notify::NotifyState::Stopping]);
    }
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    // Without systemd there is nobody to tell, and sd_notify says Ok.
    if let Err(e) = sd_notify::notify(states) {
        warn!("systemd cannot be told: {e}");
    }
}
