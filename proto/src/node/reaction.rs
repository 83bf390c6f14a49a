//! How long the machine takes to stop acting, which the margin of a lease must cover (docs/protocol.md §11).

use std::time::Duration;

use super::Node;
use crate::api::Quorum;
use crate::lease;
use crate::time::Time;

/// What was seen of leaving.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reaction {
    /// When the machine was last told to leave.
    since: Time,
    /// The longest that it took, since this node began.
    slowest: Duration,
    /// The kernel stops it by itself, without anybody's reaction.
    gate: bool,
}

impl Reaction {
    pub(super) fn new(now: Time) -> Reaction {
        Reaction { since: now, slowest: Duration::ZERO, gate: true }
    }

    pub(super) fn begins(&mut self, now: Time) {
        self.since = now;
    }
}

impl Node {
    /// Whether a gate in the kernel shuts by itself when the permission ends; a node begins with `true`. Without one what a master does ends
    /// only when the machine has taken it off, so the margin of a lease is as long as that has taken at most, if that is more than
    /// [`Quorum::Majority`] says, up to a quarter of the lease.
    pub fn set_gate(&mut self, gate: bool) {
        if self.reaction.gate != gate {
            self.reaction.gate = gate;
            self.set_margin();
        }
    }

    /// All effects of a term are off.
    pub(super) fn note_reaction(&mut self) {
        let took = self.now.since(self.reaction.since);
        self.reaction.slowest = self.reaction.slowest.max(took);
        self.set_margin();
    }

    pub(super) fn set_margin(&mut self) {
        let Quorum::Majority { reaction, .. } = self.config.quorum else { return };
        let Some(lease) = self.lease.as_deref_mut() else { return };
        let length = lease.timing.lease;
        // A machine that once hung for long must be able to hold a lease.
        let seen = self.reaction.slowest.min(length / 4);
        let bound = if self.reaction.gate { reaction } else { reaction.max(seen) };
        lease.timing.margin = lease::margin(length, bound);
    }
}
