//! What a new message of a known peer changes.

use ring::digest;

use super::receive::micros_of;
use super::{Node, Vacancy};
use crate::api::{Event, Reason, Role};
use crate::election::State;
use crate::peer::Claim;
use crate::time::Time;
use crate::wire::body::{Body, Obituary};

impl Node {
    /// What an authentic message says that came late: a term, a yield, a release; no more.
    pub(super) fn take_late(&mut self, index: usize, body: &Body) {
        self.note_term(body.term.max(body.highest_term));
        self.take_yield(index, body);
        self.take_release(index, body);
    }

    /// All that a timely message says.
    pub(super) fn take(&mut self, index: usize, body: Body) {
        if body.duplicate_name {
            self.note_duplicate();
        }
        let outdid = self.outdoes(index);
        self.note_term(body.term.max(body.highest_term));
        self.take_echo_of_release(index, &body);
        self.take_yield(index, &body);
        self.take_release(index, &body);
        self.take_claim(index, &body);
        self.take_handover(index, &body);
        self.note_maintenance(index, body.flags.maintenance);
        let goodbye = body.goodbye;
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(index) {
            peer.said = Some((body, now));
        }
        if !outdid && self.outdoes(index) {
            self.outdone_at = Some(now);
        }
        if goodbye {
            self.end_session(index, Reason::MasterReleased);
        }
        self.conflict(index);
    }

    /// The claim of a master, or the end of one.
    fn take_claim(&mut self, index: usize, body: &Body) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(index) else { return };
        if peer.config.witness {
            return;
        }
        let had = peer.claim.is_some();
        if body.role != Role::Master {
            peer.claim = None;
            if had {
                let name = peer.config.name.clone();
                self.vacate(Reason::MasterReleased(name), now);
            }
            return;
        }
        // A term that it released itself is not claimed again.
        if body.term <= peer.released {
            return;
        }
        let interval = micros_of(body.interval_us);
        let detection = interval * u32::from(body.misses);
        peer.claim = Some(Claim { term: body.term, last: now, interval, detection });
        // A master of an older term that is silent is history now.
        for (other, peer) in self.peers.iter_mut().enumerate() {
            if other != index && !peer.alive && peer.claim.is_some_and(|c| c.term < body.term) {
                peer.claim = None;
            }
        }
        self.take_success(index, body.term);
    }

    /// Nobody is master any more, unless another claim stands.
    pub(super) fn vacate(&mut self, reason: Reason, reserved_until: Time) {
        if !self.state.claims() {
            self.vacancy = Vacancy { since: self.now, reason, reserved_until };
        }
    }

    /// The session of a peer is over for ever.
    fn end_session(&mut self, index: usize, reason: fn(String) -> Reason) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let was_master = peer.claim.is_some();
        peer.end_session(self.now);
        let name = peer.config.name.clone();
        if was_master {
            self.vacate(reason(name), self.now);
        }
        self.note_alive(index, false);
    }

    /// Whoever knows the secret may end the session: it does not matter who says it.
    pub(super) fn read_obituary(&mut self, obituary: &Obituary) {
        let Some(index) = self.peers.iter().position(|p| p.tag == obituary.node) else { return };
        let hash = digest::digest(&digest::SHA256, &obituary.secret);
        let valid = self.peers.get(index).is_some_and(|peer| {
            peer.is_established(&obituary.session)
                && peer.said.as_ref().is_some_and(|(said, _)| said.obituary_hash == hash.as_ref())
        });
        if valid {
            self.end_session(index, Reason::MasterObituary);
        }
    }

    pub(super) fn note_term(&mut self, term: u64) {
        if term > self.highest {
            self.highest = term;
            self.event(Event::HighestTerm(term));
        }
    }

    /// Someone established lives under my name.
    fn note_duplicate(&mut self) {
        let now = self.now;
        self.duplicate.last = now;
        let first = *self.duplicate.first.get_or_insert(now);
        // The session of an earlier run of mine is answered for up to two intervals after its last word.
        if now.since(first) >= self.config.detection() + self.config.interval {
            self.duplicate.fault = true;
        }
    }

    pub(super) fn note_alive(&mut self, index: usize, alive: bool) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        if peer.alive == alive {
            return;
        }
        peer.alive = alive;
        if !alive {
            peer.lost_since = peer.last_timely.unwrap_or(self.now);
            peer.better_since = None;
        }
        let name = peer.config.name.clone();
        self.event(Event::Peer { name, alive });
    }

    fn note_maintenance(&mut self, index: usize, on: bool) {
        let Some(peer) = self.peers.get(index) else { return };
        let was = peer.said.as_ref().is_some_and(|(said, _)| said.flags.maintenance);
        let name = &peer.config.name;
        if was && !on && self.no_preempt.as_ref().is_some_and(|(from, _)| from == name) {
            self.no_preempt = None;
        }
    }

    /// Two masters that hear each other (design §5.5). Only timely claims are compared: one whose
    /// echoes are stale comes from a node that does not hear me, and must not displace me.
    fn conflict(&mut self, index: usize) {
        if self.state != State::Serving {
            return;
        }
        let Some(peer) = self.peers.get(index) else { return };
        let (Some(claim), Some((said, _))) = (peer.claim, peer.said.as_ref()) else { return };
        if said.flags.leaving {
            return;
        }
        let theirs = (said.has_evidence(), claim.term, said.priority, &peer.config.name);
        let mine = (
            self.has_evidence_since(peer.lost_since),
            self.term,
            self.config.priority,
            &self.config.name,
        );
        if theirs > mine {
            let name = peer.config.name.clone();
            self.yield_to(name);
        }
    }
}
