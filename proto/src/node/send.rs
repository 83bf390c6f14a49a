//! Heartbeats: when they go, and what they say.
//!
//! Sections are those of docs/protocol.md. Every message says everything that its sender has to say, so
//! any one that arrives makes up for all that were lost; a change is only a reason to send one now.

use crate::api::{Ability, Evidence, PathIndex, Role};
use crate::election::State;
use crate::handover::Step;
use crate::peer::{Peer, millis};
use crate::seal::SealKeys;
use crate::time::Time;
use crate::wire::body::{Body, EvidenceKind, Flags, Handover, Hears, Release};
use crate::wire::{Header, MAX_PATHS};

use super::{Answer, Destination, Node, Stopping};

impl Node {
    /// The next datagram to send, made now. `out` is cleared and filled.
    pub fn poll_transmit(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Destination> {
        self.now = self.now.max(now);
        // The permission ended since the last input: what would be said is no longer true.
        if self.is_overdue() || self.is_mute() {
            return None;
        }
        if let Some(answer) = self.answer.take()
            && self.build_answer(answer, out).is_some()
        {
            return Some(Destination::Sender);
        }
        loop {
            let index = self.peers.iter().position(|peer| peer.pending != 0)?;
            let peer = self.peers.get_mut(index)?;
            let path = u8::try_from(peer.pending.trailing_zeros()).ok()?;
            // Taken off before it is built: one that cannot be built must not be tried for ever.
            peer.pending &= peer.pending - 1;
            // All paths carry one message, under one number: a receiver takes the first copy in full
            // and the others as signs of life on their paths (§5).
            let number = match peer.batch {
                Some(number) => number,
                None => *peer.batch.insert(peer.log.next(self.now)),
            };
            // Whoever echoes this number or a later one has the release (§9).
            if self.release.is_some() {
                peer.release_number.get_or_insert(number);
            }
            let body = self.body(index, number)?;
            // Without a key for this peer there is nothing to say to it.
            if self.build(index, path, &body, out).is_some() {
                if self.state == State::Serving
                    && let Some(peer) = self.peers.get_mut(index)
                {
                    peer.claim_sent = self.now;
                }
                return Some(Destination::Peer { peer: index, path });
            }
        }
    }

    /// Queues a message on all paths to everyone: something changed. Not after the goodbye: who heard
    /// that refuses the session, and who did not would take it for alive.
    pub(super) fn queue_all(&mut self) {
        if self.stopping != Some(Stopping::Done) {
            self.peers.iter_mut().for_each(Peer::queue);
        }
    }

    /// The same to one peer.
    pub(super) fn queue(&mut self, index: usize) {
        if let Some(peer) = self.peers.get_mut(index) {
            peer.queue();
        }
    }

    /// Queues the regular heartbeat if it is due. The schedule is absolute: it does not drift, and
    /// what a sleep missed is not made up for.
    pub(super) fn heartbeat(&mut self) {
        if self.now < self.next_heartbeat {
            return;
        }
        self.queue_all();
        let interval = self.config.interval;
        self.next_heartbeat = self.next_heartbeat + interval;
        // Slept through one or more: go on in step, with the next that lies ahead.
        if self.next_heartbeat <= self.now {
            let behind = self.now.since(self.next_heartbeat).as_nanos();
            let slots = behind / interval.as_nanos().max(1) + 1;
            self.next_heartbeat =
                self.next_heartbeat + interval * u32::try_from(slots).unwrap_or(u32::MAX);
        }
    }

    /// Wall clock at `now`, nanoseconds since 1970.
    pub(super) fn wall(&self, now: Time) -> i64 {
        i64::try_from(now.as_nanos()).unwrap_or(i64::MAX).saturating_add(self.wall_offset)
    }

    /// An ordinary heartbeat; to a session that is not established, but for its echo, which names the session that was not established: with
    /// it that session proves that it is live (§5, Sessions).
    fn build_answer(&mut self, answer: Answer, out: &mut Vec<u8>) -> Option<()> {
        let now = self.now;
        let number = self.peers.get_mut(answer.peer)?.log.next(now);
        let mut body = self.body(answer.peer, number)?;
        body.echo = answer.echo.or(body.echo);
        body.duplicate_name = answer.duplicate;
        self.build(answer.peer, answer.path, &body, out)
    }

    /// Seals `body` to a peer (§2, §3). The counter grows even if sealing fails: no number is used
    /// twice.
    fn build(
        &mut self,
        index: usize,
        path: PathIndex,
        body: &Body,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let key = self.keys.sending()?;
        let peer = self.peers.get(index)?;
        // Derived anew only when the sending key changed; session and names are fixed until then.
        let stale = peer.tx.as_ref().is_none_or(|(id, _)| *id != key);
        let new = if stale { Some((key, self.seal_keys(key, peer)?)) } else { None };
        let peer = self.peers.get_mut(index)?;
        if new.is_some() {
            peer.tx = new;
        }
        let counter = peer.counters.get_mut(usize::from(path))?;
        *counter += 1;
        let counter = *counter;
        let peer = self.peers.get(index)?;
        out.clear();
        self.header(peer, path, key, counter).encode(out);
        body.encode(out);
        peer.tx.as_ref()?.1.seal(out)
    }

    /// What seals from this session to a peer; `None` without a key for it.
    pub(super) fn seal_keys(&self, key: u16, peer: &Peer) -> Option<SealKeys> {
        let prk = self.keys.find(key, self.config.witness || peer.config.witness)?;
        let (cluster, me) = (&self.config.cluster, &self.config.name);
        Some(SealKeys::derive(prk, cluster, &self.session, me, &peer.config.name))
    }

    /// The header of a datagram to a peer.
    pub(super) fn header(&self, peer: &Peer, path: PathIndex, key: u16, counter: u64) -> Header {
        Header {
            path,
            key,
            cluster: self.cluster_tag,
            sender: self.tag,
            receiver: peer.tag,
            session: self.session,
            counter,
        }
    }

    /// What I say to one peer now (§4).
    pub(super) fn body(&self, index: usize, number: u64) -> Option<Body> {
        let peer = self.peers.get(index)?;
        let now = self.now;
        let claims = self.state.claims();
        let (evidence, evidence_age_ms) = self.evidence_for(peer);
        Some(Body {
            number,
            echo: peer.echo(now),
            // Master with `leaving` until all effects are off, so that nobody acts before (§4).
            role: if claims { Role::Master } else { self.state.role() },
            term: if claims { self.term } else { 0 },
            priority: self.config.priority,
            flags: self.flags(),
            interval_us: crate::peer::micros(self.config.interval),
            misses: self.config.misses,
            fingerprint: self.config.fingerprint,
            wireguard: self.config.wireguard,
            sent_ns: now.as_nanos(),
            wall_ns: self.wall(now),
            hears: self.hears(),
            evidence,
            evidence_age_ms,
            obituary_hash: self.obituary_hash,
            health_pass_ms: self.health.last_pass_began.map(|at| millis(now.since(at))),
            highest_term: self.highest,
            release: self.release.map(|r| Release {
                term: r.term,
                successor: r.successor,
                remaining_ms: self.release_remaining(r.reserved_until),
                sequence: r.sequence,
            }),
            handover: self.handover_step(index),
            yielded: self.yielded.map(|(term, at)| (term, millis(now.since(at)))),
            goodbye: self.says_goodbye(),
            // Said in answers alone.
            duplicate_name: false,
            obituary: None,
            loss: peer.session.as_ref().and_then(crate::freshness::Session::lost),
            paths_heard: self.paths_heard(peer),
            lease: self.lease_fields(peer),
        })
    }

    /// Flags of §4, field 5.
    fn flags(&self) -> Flags {
        Flags {
            healthy: self.health.ok,
            maintenance: self.maintenance,
            ready: self.is_ready(),
            leaving: self.state.is_leaving() || self.stopping.is_some(),
            settled: self.is_settled(),
        }
    }

    /// Staged and able to take over, or serving.
    pub(super) fn is_ready(&self) -> bool {
        !self.config.witness
            && self.stopping.is_none()
            && match self.state {
                State::Serving => true,
                State::Standby => self.ability == Ability::Ready && !self.abstains(),
                State::Init | State::Leaving | State::LeavingForFault | State::Faulty => false,
            }
    }

    /// Evidence relative to the time since I last lost this peer (§4, field 11): an older answer says
    /// nothing about which of us two is cut off.
    fn evidence_for(&self, peer: &Peer) -> (EvidenceKind, u32) {
        match self.outside.evidence {
            Evidence::NoSource => (EvidenceKind::NoSource, 0),
            Evidence::Answered(at) if at > peer.lost_since => {
                (EvidenceKind::Answered, millis(self.now.since(at)))
            }
            Evidence::Answered(at) => (EvidenceKind::Silent, millis(self.now.since(at))),
            Evidence::Silent => (EvidenceKind::Silent, 0),
        }
    }

    /// Something outside answered a probe that I sent after `since`.
    pub(super) fn has_evidence_since(&self, since: Time) -> bool {
        matches!(self.outside.evidence, Evidence::Answered(at) if at > since)
    }

    /// The master that I hear, or am. Whoever lost it learns that it lives, and stays (§7).
    fn hears(&self) -> Option<Hears> {
        if self.state.claims() {
            return Some(Hears { node: self.tag, term: self.term, age_ms: 0 });
        }
        let (index, claim) = self.best_claim()?;
        let node = self.peers.get(index)?.tag;
        Some(Hears { node, term: claim.term, age_ms: millis(self.now.since(claim.last)) })
    }

    /// The request is in every message while it is asked, the answer in every one while the request
    /// comes (§9): no step of a handover hangs on one datagram.
    fn handover_step(&self, index: usize) -> Option<Handover> {
        match self.outgoing.as_ref().filter(|o| o.to == index && o.step == Step::Asking) {
            Some(o) => Some(Handover::Request {
                term: o.term,
                id: o.id,
                force: o.force,
                manual: o.cause.is_manual(),
            }),
            None => self.peers.get(index)?.reply,
        }
    }

    /// On which of its paths this peer reached me within my detection time (§4, field 24): it cannot
    /// know by itself whether what it sends arrives.
    fn paths_heard(&self, peer: &Peer) -> u8 {
        let mut bits = 0;
        for (path, at) in (0..MAX_PATHS).zip(peer.path_timely) {
            if at.is_some_and(|at| self.now.since(at) < self.config.detection()) {
                bits |= 1 << path;
            }
        }
        bits
    }
}
