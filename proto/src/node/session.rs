//! The end of a session in a process that goes on (docs/protocol.md §5, *The end of a session*).
//!
//! Whoever did not run for longer than a lease, or runs on a machine that was copied or set back, knows
//! nothing for certain: not what it granted, not what it heard, not whether its session is its alone. It gives
//! up what it holds, under the old session, and begins anew with what a restart would know.

use super::{Node, Outside, Stopping};
use crate::api::{Boot, Event, Reason};
use crate::election::{Input, State};
use crate::time::Time;

impl Node {
    /// The session that is now.
    #[must_use]
    pub const fn session(&self) -> [u8; 16] {
        self.session
    }

    /// The machine was copied, or set back to an earlier state, as the machine itself says.
    pub fn handle_copied(&mut self, now: Time) {
        self.begin(now);
        self.end_own_session(Reason::Copied);
        self.finish();
    }

    /// The session is over, and nothing that belongs to being master is left: [`renew`](Node::renew) is
    /// due, once [`poll_transmit`](Node::poll_transmit) has returned `None`. Until then nothing more is said.
    #[must_use]
    pub fn wants_session(&self) -> bool {
        self.over.is_some() && !self.state.claims() && self.stopping.is_none()
    }

    /// Begins another session, of these random numbers, as a restart would: it listens first, and does not vote
    /// before what it may have granted is over. What the machine said of itself stays. Its
    /// [`obituaries`](Node::obituaries) are others. Does nothing unless [`wants_session`](Node::wants_session).
    pub fn renew(&mut self, now: Time, session: [u8; 16], obituary_secret: &[u8; 32]) {
        if !self.wants_session() {
            return;
        }
        let Some(reason) = self.over.clone() else { return };
        self.now = self.now.max(now);
        for index in 0..self.peers.len() {
            self.note_alive(index, false);
        }
        let boot = Boot {
            session,
            obituary_secret: *obituary_secret,
            highest_term: self.highest,
            maintenance: self.maintenance,
            votes: self.votes_to_keep(),
        };
        let fresh = Node::new(self.config.clone(), self.keys.clone(), boot, self.now);
        let old = std::mem::replace(self, fresh);
        let (from, detect) = (old.level.role, old.detect_time(&reason));
        self.keep_from(old);
        self.level.reason = reason.clone();
        self.event(Event::Renewed(reason.clone()));
        let (to, term) = (self.level.role, self.level.term);
        if from != to {
            self.event(Event::Role { from, to, term, reason, detect });
        }
        self.finish();
    }

    /// What is of the machine, the operator or the process, not of the session.
    fn keep_from(&mut self, old: Node) {
        self.ability = old.ability;
        self.health = old.health;
        self.unhealthy_since = old.unhealthy_since;
        self.outside = Outside::new(self.now, old.outside.evidence);
        self.wall_offset = old.wall_offset;
        self.floating = old.floating;
        self.failure = old.failure;
        self.backoff = old.backoff;
        self.no_preempt = old.no_preempt;
        self.yielded = old.yielded;
        // The reconciler may still answer one of the last.
        self.next_errand = old.next_errand;
        self.next_handover_id = old.next_handover_id;
        self.refusals = old.refusals;
        self.events.extend(old.events);
        // Alarms stand until they are over, whatever session they were found in.
        for (peer, old) in self.peers.iter_mut().zip(old.peers) {
            peer.clock_watch = old.clock_watch;
            peer.wireguard_differs = old.wireguard_differs;
        }
    }

    /// The session is over. What is held goes off first, and until then it is said as ever; but not in a
    /// session that another machine has too.
    pub(super) fn end_own_session(&mut self, reason: Reason) {
        if self.is_mute() {
            // Nothing is worse.
            return;
        }
        self.awake_since = self.now;
        if self.state == State::Serving {
            // Whoever took over in the meantime must take addresses and claims back.
            self.yielded = Some((self.term, self.now));
        }
        self.over = Some(reason.clone());
        self.step(Input::Leave, reason);
        // Nobody will be told that he is the successor.
        self.abort("this node begins another session");
        self.queue_all();
    }

    /// What is said last in a session that is over: that it is, where it is this node's alone.
    pub(super) fn says_goodbye(&self) -> bool {
        self.stopping == Some(Stopping::Done) || self.wants_session()
    }

    /// Nobody may speak for a session that two machines have.
    pub(super) fn is_mute(&self) -> bool {
        self.over == Some(Reason::Copied)
    }
}
