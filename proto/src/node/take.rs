//! What a new message of a known peer changes.
//!
//! Sections are those of docs/protocol.md. Only authentic messages, newer than all before of their
//! session, come here; what they change is level by level, and `decide` draws the conclusions.

use ring::digest;

use super::lease::Votes;
use super::receive::micros_of;
use super::{Node, Vacancy};
use crate::api::{Alarm, Event, Reason, Role, Term, WireguardKind};
use crate::election::State;
use crate::peer::Claim;
use crate::time::Time;
use crate::wire::body::{Body, Obituary};

impl Node {
    /// What an authentic message says that came late: a term, a yield, a release; no more.
    pub(super) fn take_late(&mut self, index: usize, body: &Body) {
        self.note_term(body.term.max(body.highest_term));
        self.note_held(body.term);
        self.take_yield(index, body);
        if let Some(peer) = self.peers.get_mut(index) {
            peer.lease.echoed = None;
        }
        let (fields, release, number) = (body.lease, body.release, body.number);
        self.free(index, &Votes { fields, release, number });
        self.take_release(index, body);
    }

    /// All that a timely message says. The order matters twice: terms before claims and releases,
    /// which are judged by the highest term; and the message is kept (`said`) after what compares it
    /// with the one before, but before what reads the present one.
    pub(super) fn take(&mut self, index: usize, body: Body) {
        if body.duplicate_name {
            self.note_duplicate();
        }
        let outdid = self.outdoes(index);
        self.note_term(body.term.max(body.highest_term));
        self.note_held(body.term);
        self.take_echo_of_release(index, &body);
        self.take_yield(index, &body);
        self.take_release(index, &body);
        self.take_claim(index, &body);
        self.take_handover(index, &body);
        self.note_maintenance(index, body.flags.maintenance);
        let (goodbye, lease) = (body.goodbye, body.lease);
        let (release, number) = (body.release, body.number);
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(index) {
            peer.said = Some((body, now));
        }
        self.take_lease(index, &Votes { fields: lease, release, number });
        self.watch_stamps(index);
        if !outdid && self.outdoes(index) {
            self.outdone_at = Some(now);
        }
        if goodbye {
            self.end_session(index, Reason::MasterReleased);
        }
        // Last: it compares what both say now.
        self.conflict(index);
    }

    /// The claim of a master, or the end of one (§7). A witness cannot be master, whatever it says.
    fn take_claim(&mut self, index: usize, body: &Body) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(index) else { return };
        if peer.config.witness {
            return;
        }
        let had = peer.claim.is_some();
        if body.role != Role::Master {
            // Any other role ends a claim: a master that leaves says `master` until its effects are
            // off, so the role is free (§4).
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
        // As it announces them: its heartbeats come at its pace, not at mine (§7, case 1).
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

    /// Nobody is master any more, unless another claim stands. From now on, and for others than a
    /// named successor from `reserved_until` on, the role is free to be won (§7, cases 2 and 3).
    pub(super) fn vacate(&mut self, reason: Reason, reserved_until: Time) {
        // What ends another's claim while I hold the role leaves no vacancy.
        if !self.state.claims() {
            self.vacancy = Vacancy { since: self.now, reason, reserved_until };
        }
    }

    /// The session of a peer is over for ever, by its goodbye or its obituary. It is not awaited any
    /// longer, so nobody has to sit out the detection time.
    fn end_session(&mut self, index: usize, reason: fn(String) -> Reason) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let was_master = peer.claim.is_some();
        let session = peer.session.as_ref().map(|session| session.id);
        peer.end_session(self.now);
        let name = peer.config.name.clone();
        if let Some(session) = session {
            self.free_ended(session);
        }
        if was_master {
            self.vacate(reason(name), self.now);
        }
        self.note_alive(index, false);
    }

    /// Whoever knows the secret may end the session: it does not matter who says it.
    pub(super) fn read_obituary(&mut self, obituary: &Obituary) {
        let Some(index) = self.peers.iter().position(|p| p.tag == obituary.node) else { return };
        // A hash announced in a sealed heartbeat commits the session to the secret (§4, fields 12 and
        // 22). Only an established session counts: of any other nothing was announced to me.
        let hash = digest::digest(&digest::SHA256, &obituary.secret);
        let valid = self.peers.get(index).is_some_and(|peer| {
            peer.is_established(&obituary.session)
                && peer.said.as_ref().is_some_and(|(said, _)| said.obituary_hash == hash.as_ref())
        });
        if valid {
            self.end_session(index, Reason::MasterObituary);
        }
    }

    /// Terms only grow. Kept on disk by the caller, so that a restart wins no term a second time.
    pub(super) fn note_term(&mut self, term: u64) {
        if term > self.highest {
            self.highest = term;
            self.event(Event::HighestTerm(term));
        }
    }

    /// A term that somebody holds or held; a higher one may have been asked for.
    pub(super) fn note_held(&mut self, term: Term) {
        self.highest_held = self.highest_held.max(term);
    }

    /// The term of a level that is not master: never one that I may still win, or `Left` of it would be said before it
    /// began.
    pub(super) fn known_term(&self) -> Term {
        if self.lease.is_none() {
            return self.highest;
        }
        self.highest_held.max(self.level.term)
    }

    /// Someone established lives under my name. Not at once a fault: whoever restarts is taken for a
    /// duplicate of itself until its old session counts as silent (§5).
    fn note_duplicate(&mut self) {
        let now = self.now;
        self.duplicate.last = now;
        let first = *self.duplicate.first.get_or_insert(now);
        // The session of an earlier run of mine is answered for up to two intervals after its last word.
        if now.since(first) >= self.config.detection() + self.config.interval {
            self.duplicate.fault = true;
        }
    }

    /// A peer became reachable, or stopped being so. Evidence is asked since the moment that it was
    /// lost (§4, field 11), which is its last sign, not now.
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

    /// Whether clients would take handshakes of both of us one after the other. A difference keeps
    /// nobody out: it is told, and (of the implementation) stands against a handover.
    fn watch_stamps(&mut self, index: usize) {
        let mine = self.config.wireguard;
        let Some(peer) = self.peers.get_mut(index) else { return };
        let Some((said, _)) = &peer.said else { return };
        let name = peer.config.name.clone();
        // Without WireGuard there is nothing to stamp.
        let both = mine != WireguardKind::None && said.wireguard != WireguardKind::None;
        let differs = both && said.wireguard != mine;
        let implementation = std::mem::replace(&mut peer.wireguard_differs, differs) != differs;
        let offset_ns = peer.clock.offset_ns().filter(|_| both).unwrap_or(0);
        let clock = peer.clock_watch.look(offset_ns);
        let apart = peer.clock_watch.apart;
        if implementation {
            let alarm = Alarm::Wireguard;
            self.event(Event::Alarm { name: name.clone(), alarm, on: differs });
        }
        if clock {
            self.event(Event::Alarm { name, alarm: Alarm::Clock { offset_ns }, on: apart });
        }
    }

    /// Whoever gave the role up by an operator's wish is a better master again when it leaves
    /// maintenance: preemption may undo the handover then (§9).
    fn note_maintenance(&mut self, index: usize, on: bool) {
        let Some(peer) = self.peers.get(index) else { return };
        let was = peer.said.as_ref().is_some_and(|(said, _)| said.flags.maintenance);
        let name = &peer.config.name;
        if was && !on && self.no_preempt.as_ref().is_some_and(|(from, _)| from == name) {
            self.no_preempt = None;
        }
    }

    /// Two masters that hear each other (§8). Only timely claims are compared: one whose
    /// echoes are stale comes from a node that does not hear me, and must not displace me.
    fn conflict(&mut self, index: usize) {
        if self.state != State::Serving {
            return;
        }
        let Some(peer) = self.peers.get(index) else { return };
        let (Some(claim), Some((said, _))) = (peer.claim, peer.said.as_ref()) else { return };
        // With leases a higher term is not enough: it must be won.
        if self.leases().is_some() {
            let name = peer.config.name.clone();
            if said.lease.held.is_some_and(|held| held.term > self.term) {
                self.yield_to(name);
            }
            return;
        }
        // It gives up already; two that yield to each other would leave nobody.
        if said.flags.leaving {
            return;
        }
        // Each side compares the same two tuples, so exactly one of them yields. Evidence first: of
        // two that were cut off from each other the one with the outside still there serves clients.
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
