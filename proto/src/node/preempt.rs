//! Handing over of my own accord: to a healthy node, or to a better one.

use super::Node;
use crate::election::State;
use crate::handover::Cause;
use crate::peer::Peer;

impl Node {
    /// Hands over of my own accord: unhealthy, or a better node is there.
    pub(super) fn hand_over_if_better(&mut self) {
        self.note_better();
        if self.state != State::Serving || self.outgoing.is_some() || self.stopping.is_some() {
            return;
        }
        if self.now < self.backoff.until {
            return;
        }
        if let Some(since) = self.unhealthy_since {
            // Its last pass began after my failure: what fails here does not fail there.
            let passed = |index: usize| {
                let began = self.peers.get(index).and_then(Peer::pass_began);
                began.is_some_and(|began| began > since)
            };
            if let Some(to) = self.best_successor(true, passed) {
                self.ask(to, true, Cause::Unhealthy);
            }
            return;
        }
        let Some(preempt) = self.config.preempt else { return };
        // An operator moved the role away from the better node: that stands until it restarts, or
        // leaves maintenance.
        if self.no_preempt.is_some() {
            return;
        }
        let long_enough = |index: usize| {
            let since = self.peers.get(index).and_then(|peer| peer.better_since);
            since.is_some_and(|since| self.now.since(since) >= preempt.delay)
        };
        if let Some(to) = self.best_successor(false, long_enough) {
            self.ask(to, false, Cause::Preempt);
        }
    }

    /// Keeps, for each peer, since when it has been fit to preempt me. Any gap starts the delay anew:
    /// a node that comes and goes must not take the role back each time.
    fn note_better(&mut self) {
        let (now, priority) = (self.now, self.config.priority);
        for index in 0..self.peers.len() {
            let fit = self.objection_to(index, false).is_none();
            let Some(peer) = self.peers.get_mut(index) else { continue };
            let higher = peer.said.as_ref().is_some_and(|(said, _)| said.priority > priority);
            if fit && higher {
                peer.better_since.get_or_insert(now);
            } else {
                peer.better_since = None;
            }
            let session = peer.session.as_ref().map(|s| s.id);
            let name = &peer.config.name;
            let restarted = |(from, old): &(String, [u8; 16])| {
                from == name && session.is_some_and(|session| session != *old)
            };
            if self.no_preempt.as_ref().is_some_and(restarted) {
                self.no_preempt = None;
            }
        }
    }
}
