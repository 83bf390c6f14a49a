//! The end of being master, as it is said: releases, yields, goodbye (docs/protocol.md §8 and §9).
//!
//! A release is a promise that nothing of mine acts any more. It is therefore said only after the machine
//! verified that (`Left`), and believed by others without any wait.

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
        self.note_reaction();
        if self.over.is_some() {
            // The session is over for everyone with its goodbye; there is nobody to hand over to.
            self.step(Input::Left, self.level.reason.clone());
            self.queue_all();
            return;
        }
        let term = self.term;
        // Named only if it said `ready`; without one the role goes by §7.
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
        // Longer is of no use: by then whoever did not hear it has counted me as silent.
        let until = self.now + self.config.detection();
        // Whoever is named acts at once or not at all: clients do not wait longer than for the rest.
        let reserved_until = self.now + self.config.detection().min(self.config.handover_timeout);
        self.release = Some(Releasing {
            term,
            successor,
            sequence: self.releases,
            until,
            reserved_until,
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
        let reserved = if heirs { reserved_until } else { self.now };
        self.step(Input::Left, self.level.reason.clone());
        self.vacate(Reason::MasterReleased(self.config.name.clone()), reserved);
        self.queue_all();
    }

    /// Says a release again to those who did not answer it: ten times after 5 ms, because clients wait,
    /// then slower, because who has not answered by then is hardly there (§9).
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

    /// Whoever echoes a message that carried the release has it: numbers grow, and every message since
    /// the first has it.
    pub(super) fn take_echo_of_release(&mut self, index: usize, body: &Body) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        if let (Some(echo), Some(first)) = (body.echo, peer.release_number)
            && echo.number >= first
        {
            peer.release_answered = true;
        }
    }

    /// Honours a release: once for each term of a session, and only knowing no higher term (§9). A late
    /// one counts too: what was given up stays given up.
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
        // At most my detection time, whatever it says: a peer must not keep the role from me for ever.
        let remaining = Duration::from_millis(u64::from(release.remaining_ms)).min(detection);
        let for_other = release.successor != NOBODY && release.successor != tag;
        let reserved = if for_other { self.now + remaining } else { self.now };
        self.vacate(Reason::MasterReleased(name.clone()), reserved);
        // At once, without rank or evidence: its effects are off, and it hears me (§9).
        if release.successor == tag
            && self.obstacle().is_none()
            && self.inherits(index, body, &release)
        {
            let asked =
                self.incoming.take().filter(|incoming| incoming.peer == index && incoming.manual);
            self.no_preempt = asked.map(|incoming| (name.clone(), incoming.session));
            self.step(Input::Won, Reason::HandoverFrom(name));
        }
    }

    /// A peer claims a higher term than the one that I handed over: only its claim ends a handover,
    /// and with success only if it is the named successor's.
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

    /// Another master stays (§8). Said on, so that it sets right what my announcements changed.
    pub(super) fn yield_to(&mut self, name: String) {
        self.yielded = Some((self.term, self.now));
        self.step(Input::Leave, Reason::Yielded(name));
    }

    /// A peer yielded: my addresses and claims may have been overwritten by it (§8). Once for each of
    /// its terms, however often it says so.
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

    /// Goodbye once nothing is left to give up or to say (§9). The last message must have the goodbye, so
    /// it is queued before `Done` ends all queueing.
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
