//! Giving the role up and getting it: handovers, releases, yields (design §5.5 and §5.6).

use std::time::Duration;

use super::{Incoming, Node, Releasing, Stopping};
use crate::api::{Ability, Event, Reason, Role};
use crate::election::{Input, State};
use crate::handover::{Cause, Fitness, Objection, Outgoing, Step};
use crate::wire::Tag;
use crate::wire::body::{Body, Handover};

/// A release is said again after this, the first [`QUICK_REPEATS`] times.
const REPEAT: Duration = Duration::from_millis(5);
const QUICK_REPEATS: u32 = 10;
/// Refused attempts to hand over of my own accord: the first wait, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// No successor is named.
const NOBODY: Tag = [0; 8];

impl Node {
    /// Everything about transfers that time or a level brings about.
    pub(super) fn transfer(&mut self) {
        self.watch_outgoing();
        self.repeat_release();
        self.hand_over_if_better();
        self.finish_stop();
    }

    /// Asks a peer to take the role.
    pub(super) fn ask(&mut self, to: usize, force: bool, cause: Cause) {
        let id = self.next_handover_id;
        self.next_handover_id = id.wrapping_add(1);
        self.outgoing = Some(Outgoing {
            to,
            id,
            term: self.term,
            force,
            cause,
            step: Step::Asking,
            deadline: Some(self.now + self.config.handover_timeout),
            repeat_at: self.now + self.request_pause(),
        });
        self.queue(to);
    }

    fn request_pause(&self) -> Duration {
        (self.config.interval / 4).max(REPEAT)
    }

    /// A handover came to nothing.
    pub(super) fn abort(&mut self, why: &str) {
        if let Some(outgoing) = &self.outgoing {
            let name = self.peer_name(outgoing.to);
            self.abort_to(name, why);
        }
    }

    pub(super) fn abort_to(&mut self, name: String, why: &str) {
        let Some(outgoing) = self.outgoing.take() else { return };
        self.event(Event::Handover { to: name, result: Err(why.to_owned()) });
        let wait = self.backoff.next.max(BACKOFF.0);
        self.backoff.until = self.now + wait;
        self.backoff.next = (wait * 2).min(BACKOFF.1);
        // Nothing was given up while the successor was only being asked.
        if outgoing.cause.leaves_anyway() && outgoing.step == Step::Asking {
            self.leave_for(outgoing.cause);
        }
    }

    /// Leaves the role to whoever is best.
    pub(super) fn leave_for(&mut self, cause: Cause) {
        let reason = if cause == Cause::Stop { Reason::Stopping } else { Reason::Maintenance };
        self.step(Input::Leave, reason);
    }

    fn watch_outgoing(&mut self) {
        let Some(outgoing) = &self.outgoing else { return };
        let (to, step, now) = (outgoing.to, outgoing.step, self.now);
        let expired = outgoing.deadline.is_some_and(|deadline| now >= deadline);
        match step {
            Step::Asking if self.state != State::Serving => self.abort("this node left the role"),
            Step::Asking if expired => self.abort("no answer in time"),
            Step::Asking if now >= outgoing.repeat_at => {
                let next = now + self.request_pause();
                if let Some(outgoing) = &mut self.outgoing {
                    outgoing.repeat_at = next;
                }
                self.queue(to);
            }
            Step::Released if expired => self.abort("the successor did not take over in time"),
            Step::Asking | Step::Leaving | Step::Released => {}
        }
    }

    /// A step of a handover that a peer says.
    pub(super) fn take_handover(&mut self, index: usize, body: &Body) {
        match body.handover {
            Some(Handover::Request { term, id, force, manual }) => {
                self.answer_request(index, body, (term, id, force, manual));
            }
            Some(Handover::Ready { id }) if self.asks(index, id) => self.commit(),
            Some(Handover::Refuse { id, reason }) if self.asks(index, id) => {
                self.abort(Objection::text_of(reason));
            }
            Some(Handover::Ready { .. } | Handover::Refuse { .. }) => {}
            None => {
                if let Some(peer) = self.peers.get_mut(index) {
                    peer.reply = None;
                }
            }
        }
    }

    fn asks(&self, index: usize, id: u32) -> bool {
        self.state == State::Serving
            && self
                .outgoing
                .as_ref()
                .is_some_and(|o| o.to == index && o.id == id && o.step == Step::Asking)
    }

    /// The successor is ready: from here on the role is given up.
    fn commit(&mut self) {
        let Some(outgoing) = &mut self.outgoing else { return };
        outgoing.step = Step::Leaving;
        outgoing.deadline = None;
        let name = self.outgoing.as_ref().map(|o| self.peer_name(o.to)).unwrap_or_default();
        self.step(Input::Leave, Reason::HandoverTo(name));
    }

    fn answer_request(&mut self, index: usize, body: &Body, request: (u64, u32, bool, bool)) {
        let (term, id, force, manual) = request;
        if body.role != Role::Master || body.term != term {
            return;
        }
        let fitness = Fitness {
            ability_known: self.ability != Ability::Unknown,
            fault: self.state.role() == Role::Fault,
            backup: self.state == State::Standby,
            stopping: self.stopping.is_some(),
            maintenance: self.maintenance,
            healthy: self.health.ok,
            ready: self.is_ready(),
            same_wireguard: body.wireguard == self.config.wireguard,
            same_config: body.fingerprint == self.config.fingerprint,
        };
        let reply = match fitness.objection(force) {
            None => Handover::Ready { id },
            Some(objection) => Handover::Refuse { id, reason: objection as u8 },
        };
        let Some(peer) = self.peers.get_mut(index) else { return };
        if let Some(session) = &peer.session {
            self.incoming = Some(Incoming { peer: index, session: session.id, manual });
        }
        peer.reply = Some(reply);
        peer.queue();
    }

    /// What stands against a peer as successor, as far as is known here.
    pub(super) fn objection_to(&self, index: usize, force: bool) -> Option<&'static str> {
        let Some(peer) = self.peers.get(index) else { return Some("unknown") };
        if peer.config.witness {
            return Some("a witness");
        }
        let Some((said, _)) = peer.said.as_ref().filter(|_| peer.alive) else {
            return Some("not reachable");
        };
        let fitness = Fitness {
            ability_known: true,
            fault: said.role == Role::Fault,
            backup: said.role == Role::Backup,
            stopping: said.flags.leaving,
            maintenance: said.flags.maintenance,
            healthy: said.flags.healthy,
            ready: said.flags.ready,
            same_wireguard: said.wireguard == self.config.wireguard,
            same_config: said.fingerprint == self.config.fingerprint,
        };
        fitness.objection(force).map(Objection::text)
    }

    /// The best peer that nothing stands against.
    pub(super) fn best_successor(&self, force: bool, fit: impl Fn(usize) -> bool) -> Option<usize> {
        let able = (0..self.peers.len()).filter(|i| self.objection_to(*i, force).is_none() && fit(*i));
        able.max_by_key(|index| self.peers.get(*index).and_then(crate::peer::Peer::standing))
    }

    /// Hands over of my own accord: unhealthy, or a better node is there (design §5.2, §5.7).
    fn hand_over_if_better(&mut self) {
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
                let began = self.peers.get(index).and_then(crate::peer::Peer::pass_began);
                began.is_some_and(|began| began > since)
            };
            if let Some(to) = self.best_successor(true, passed) {
                self.ask(to, true, Cause::Unhealthy);
            }
            return;
        }
        let Some(preempt) = self.config.preempt else { return };
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

    /// Keeps, for each peer, since when it has been fit to preempt me.
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

    /// All effects of a term are off: now, and only now, it is said.
    pub(super) fn left(&mut self, term: u64) {
        if !self.state.is_leaving() || term != self.term {
            return;
        }
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
        let reserved = if successor == NOBODY { self.now } else { until };
        self.step(Input::Left, self.level.reason.clone());
        self.vacate(Reason::MasterReleased(self.config.name.clone()), reserved);
        self.queue_all();
    }

    /// Says a release again to those who did not answer it.
    fn repeat_release(&mut self) {
        let Some(mut release) = self.release else { return };
        let open = |peer: &&mut crate::peer::Peer| peer.alive && !peer.release_answered;
        let now = self.now;
        if now >= release.until || !self.peers.iter_mut().any(|mut peer| open(&(&mut peer))) {
            self.release = None;
            return;
        }
        if now >= release.repeat_at {
            release.repeats = release.repeats.saturating_add(1);
            let slow = (self.config.interval / 2).max(REPEAT);
            let pause = if release.repeats < QUICK_REPEATS { REPEAT } else { slow };
            release.repeat_at = now + pause;
            self.peers.iter_mut().filter(open).for_each(crate::peer::Peer::queue);
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
            self.vacate(Reason::MasterReleased(name), self.now);
            return;
        }
        let remaining = Duration::from_millis(u64::from(release.remaining_ms)).min(detection);
        let for_other = release.successor != NOBODY && release.successor != tag;
        let reserved = if for_other { self.now + remaining } else { self.now };
        self.vacate(Reason::MasterReleased(name.clone()), reserved);
        if release.successor == tag && self.obstacle().is_none() {
            let asked = self.incoming.take().filter(|incoming| incoming.peer == index && incoming.manual);
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
    fn finish_stop(&mut self) {
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
