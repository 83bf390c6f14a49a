//! The end of being master, as it is said: releases, yields, goodbye (design §5.5 and §5.6).

use std::time::Duration;

use super::transfer::REPEAT;
use super::{Node, Releasing, Stopping};
use crate::api::{Event, Reason};
use crate::election::{Input, State};
use crate::handover::Step;
use crate::peer::Peer;
use crate::wire::Tag;
use crate::wire::body::Body;

/// A release is said again after [`REPEAT`] this often, then more slowly.
const QUICK_REPEATS: u32 = 10;
/// No successor is named.
const NOBODY: Tag = [0; 8];

impl Node {
    /// All effects of a term are off: now, and only now, it is said.
    pub(super) fn left(&mut self, term: u64) {
        // Of a term that the reconciler never saw it says so under a later one.
        if !self.state.is_leaving() || term < self.term {
            return;
        }
        let term = self.term;
        let successor = match self.outgoing.as_mut().filter(|o| o.step == Step::Leaving) {
            Some(outgoing) => {
                outgoing.step = Step::Released;
                let patience = self.config.detection() + self.config.handover_timeout;
                outgoing.deadline = Some(self.now + patience);
                self.peers.get(outgoing.to).map_or(NOBODY, |peer| peer.tag)
            }
            None => NOBODY,
        };
        self.releases = self.releases.saturating_add(1);
        let until = self.now + self.config.detection();
        self.release = Some(Releasing {
            term,
            successor,
            sequence: self.releases,
            until,
            repeat_at: self.now + REPEAT,
            repeats: 0,
        });
        for peer in &mut self.peers {
            peer.release_number = None;
            peer.release_answered = false;
        }
        // Whoever hears the release acts at once, so I must not stand up again before its claim can
        // have come.
        let heirs = successor != NOBODY || self.peers.iter().any(Peer::is_candidate);
        let reserved = if heirs { until } else { self.now };
        self.step(Input::Left, self.level.reason.clone());
        self.vacate(Reason::MasterReleased(self.config.name.clone()), reserved);
        self.queue_all();
    }

    /// Says a release again to those who did not answer it.
    pub(super) fn repeat_release(&mut self) {
        let Some(mut release) = self.release else { return };
        let open = |peer: &Peer| peer.alive && !peer.release_answered;
        let now = self.now;
        if now >= release.until || !self.peers.iter().any(open) {
            self.release = None;
            return;
        }
        if now >= release.repeat_at {
            release.repeats = release.repeats.saturating_add(1);
            let slow = (self.config.interval / 2).max(REPEAT);
            let pause = if release.repeats < QUICK_REPEATS { REPEAT } else { slow };
            release.repeat_at = now + pause;
            self.peers.iter_mut().filter(|peer| open(peer)).for_each(Peer::queue);
            self.release = Some(release);
        }
    }

    /// Whoever echoes a message that carried the release has it.
    pub(super) fn take_echo_of_release(&mut self, index: usize, body: &Body) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        if let (Some(echo), Some(first)) = (body.echo, peer.release_number)
            && echo.number >= first
        {
            peer.release_answered = true;
        }
    }

    /// Honours a release: once, and only knowing no higher term.
    pub(super) fn take_release(&mut self, index: usize, body: &Body) {
        let Some(release) = body.release else { return };
        let (highest, tag, detection) = (self.highest, self.tag, self.config.detection());
        let Some(peer) = self.peers.get_mut(index) else { return };
        if peer.config.witness || release.term <= peer.released {
            return;
        }
        peer.released = release.term;
        if peer.claim.is_some_and(|claim| claim.term <= release.term) {
            peer.claim = None;
        }
        // Answered at once: the repetitions stop.
        peer.queue();
        let name = peer.config.name.clone();
        if release.term < highest {
            // Somebody has taken over since; if that one lives, its claim comes within this time.
            self.vacate(Reason::MasterReleased(name), self.now + detection);
            return;
        }
        let remaining = Duration::from_millis(u64::from(release.remaining_ms)).min(detection);
        let for_other = release.successor != NOBODY && release.successor != tag;
        let reserved = if for_other { self.now + remaining } else { self.now };
        self.vacate(Reason::MasterReleased(name.clone()), reserved);
        if release.successor == tag && self.obstacle().is_none() {
            let asked =
                self.incoming.take().filter(|incoming| incoming.peer == index && incoming.manual);
            self.no_preempt = asked.map(|incoming| (name.clone(), incoming.session));
            self.step(Input::Won, Reason::HandoverFrom(name));
        }
    }

    /// A peer claims a higher term than the one that I handed over.
    pub(super) fn take_success(&mut self, index: usize, term: u64) {
        let done = self
            .outgoing
            .as_ref()
            .is_some_and(|o| o.to == index && o.step == Step::Released && term > o.term);
        if done {
            self.outgoing = None;
            self.backoff = super::Backoff::default();
            let to = self.peer_name(index);
            self.event(Event::Handover { to, result: Ok(()) });
        }
    }

    /// Another master stays.
    pub(super) fn yield_to(&mut self, name: String) {
        self.yielded = Some((self.term, self.now));
        self.step(Input::Leave, Reason::Yielded(name));
    }

    /// A peer yielded: my addresses and claims may have been overwritten by it (design §5.5).
    pub(super) fn take_yield(&mut self, index: usize, body: &Body) {
        let Some((term, _)) = body.yielded else { return };
        let Some(peer) = self.peers.get_mut(index) else { return };
        if term <= peer.yielded {
            return;
        }
        peer.yielded = term;
        if self.state == State::Serving {
            self.event(Event::Reassert { term: self.term });
        }
    }

    /// Goodbye once nothing is left to give up or to say.
    pub(super) fn finish_stop(&mut self) {
        let busy = self.state.claims() || self.release.is_some();
        if self.stopping == Some(Stopping::UnderWay) && !busy {
            if self.outgoing.is_some() {
                self.abort("stopped before the successor was heard");
            }
            self.queue_all();
            self.stopping = Some(Stopping::Done);
            self.refresh_level();
            self.event(Event::Stopped);
        }
    }
}
