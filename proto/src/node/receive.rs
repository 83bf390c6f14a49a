//! From bytes to what they change. Cheap checks first, state changes last.
//!
//! The order of the checks, and which refusal wins, is docs/protocol.md §5: a second implementation is
//! held to it by tests/interop. What is refused changes nothing (but the count of its refusal), and
//! nothing unauthenticated gets further than `open`.

use std::time::Duration;

use super::{Answer, Node};
use crate::api::Reason;
use crate::freshness::EchoOf;
use crate::refusal::Refusal;
use crate::seal::SealKeys;
use crate::time::Time;
use crate::wire::body::{Body, Echo};
use crate::wire::{Header, MAGIC, MAX_DATAGRAM, MAX_PATHS, MIN_DATAGRAM, VERSION};

impl Node {
    /// One datagram, from its header to its effects (§5).
    pub(super) fn receive(&mut self, bytes: &mut [u8]) -> Result<(), Refusal> {
        let header = self.check_header(bytes)?;
        let index =
            self.peers.iter().position(|p| p.tag == header.sender).ok_or(Refusal::Sender)?;
        let (now, is_next) = (self.now, self.is_next(index, &header));
        let result = self.receive_from(index, &header, bytes);
        // What was refused before it was opened cost nothing.
        if result.is_err_and(|refusal| refusal > Refusal::Flooded)
            && !is_next
            && let Some(peer) = self.peers.get_mut(index)
        {
            peer.budget.charge(now);
        }
        result
    }

    /// Whether this is one of too many in a peer's name, and cannot be the next of its session (§5, `flooded`). What the header alone
    /// is refused for has its own name.
    pub(super) fn is_flood(&self, now: Time, bytes: &[u8]) -> bool {
        let Ok(header) = self.check_header(bytes) else { return false };
        let Some(index) = self.peers.iter().position(|p| p.tag == header.sender) else {
            return false;
        };
        let spent = self.peers.get(index).is_some_and(|peer| peer.budget.is_spent(now));
        spent && !self.is_next(index, &header) && self.check_peer(index, &header).is_ok()
    }

    /// Whether this can be the next datagram of the established session, as far as its header says.
    fn is_next(&self, index: usize, header: &Header) -> bool {
        let session = self.peers.get(index).and_then(|peer| peer.session_of(&header.session));
        session.is_some_and(|session| session.is_next(header.path, header.counter))
    }

    /// One datagram of this peer, from opening it on.
    fn receive_from(
        &mut self,
        index: usize,
        header: &Header,
        bytes: &mut [u8],
    ) -> Result<(), Refusal> {
        let body = self.open(index, header, bytes)?;
        if let Some(obituary) = body.obituary {
            // Before anything about the sender's own freshness: an obituary proves itself, and is often
            // about a node that can no longer say anything.
            self.read_obituary(&obituary);
            if self.peers.get(index).is_some_and(|peer| peer.ended.contains(&header.session)) {
                // It was this session's own.
                return Ok(());
            }
        }
        let sent = self.echo_of(index, body.echo)?;
        if let Some(session) =
            self.peers.get(index).and_then(|peer| peer.session_of(&header.session))
        {
            // Neither of now nor newer than what I have: it can say nothing, and where the window was
            // forgotten (another session was established in between) it may be a replay.
            if sent.is_none() && body.number <= session.newest {
                return Err(Refusal::Replayed);
            }
            self.hear_known(index, header, body, sent);
            return Ok(());
        }
        self.hear_stranger(index, header, body, sent)
    }

    /// What can be refused without any arithmetic. Length, magic and cluster are at fixed places, so
    /// that a filter in the kernel can do the same (§2).
    fn check_header(&self, bytes: &[u8]) -> Result<Header, Refusal> {
        if !(MIN_DATAGRAM..=MAX_DATAGRAM).contains(&bytes.len()) {
            return Err(Refusal::Length);
        }
        if !bytes.starts_with(&MAGIC) {
            return Err(Refusal::Magic);
        }
        if bytes.get(4) != Some(&VERSION) {
            return Err(Refusal::Version);
        }
        let header = Header::decode(bytes).ok_or(Refusal::Length)?;
        if header.cluster != self.cluster_tag {
            return Err(Refusal::Cluster);
        }
        // Before the receiver: what comes back to me is addressed to someone else.
        if header.sender == self.tag {
            return Err(Refusal::Reflection);
        }
        if header.receiver != self.tag {
            return Err(Refusal::Receiver);
        }
        Ok(header)
    }

    /// What its header is refused for without being opened, by what I know of the sender.
    fn check_peer(&self, index: usize, header: &Header) -> Result<(), Refusal> {
        let peer = self.peers.get(index).ok_or(Refusal::Sender)?;
        if header.path >= MAX_PATHS {
            return Err(Refusal::Path);
        }
        let vote = self.config.witness || peer.config.witness;
        self.keys.find(header.key, vote).ok_or(Refusal::Key)?;
        if peer.ended.contains(&header.session) {
            return Err(Refusal::Ended);
        }
        Ok(())
    }

    /// Opens the datagram, checks that it was not seen before, and reads its body. Changes nothing
    /// but the cache of keys, and that only for what is authentic.
    fn open(&mut self, index: usize, header: &Header, bytes: &mut [u8]) -> Result<Body, Refusal> {
        self.check_peer(index, header)?;
        // A witness never holds the gateways' secret, so whatever it sends or gets is sealed with
        // the vote secret derived from it (§3).
        let vote = self.config.witness;
        let peer = self.peers.get_mut(index).ok_or(Refusal::Sender)?;
        let prk = self.keys.find(header.key, vote || peer.config.witness).ok_or(Refusal::Key)?;
        // Derived once a session. Only an established session's keys are kept: those of a stranger
        // would push them out.
        let cached = peer.rx.as_ref().filter(|(k, s, _)| *k == header.key && *s == header.session);
        let (plain, fresh) = if let Some((_, _, keys)) = cached {
            (keys.open(bytes)?, None)
        } else {
            let (cluster, me) = (&self.config.cluster, &self.config.name);
            let keys = SealKeys::derive(prk, cluster, &header.session, &peer.config.name, me);
            (keys.open(bytes)?, Some(keys))
        };
        if let Some(session) = peer.session.as_ref().filter(|s| s.id == header.session) {
            // After opening: a counter means nothing before it is authentic. The window is only asked,
            // not moved: `hear_known` marks it.
            if !session.is_new(header.path, header.counter) {
                return Err(Refusal::Replayed);
            }
            if let Some(keys) = fresh {
                peer.rx = Some((header.key, header.session, keys));
            }
        }
        Body::decode(plain).ok_or(Refusal::Malformed)
    }

    /// When I sent what this echoes, and how long the sender had it, if that is timely: freshness
    /// without clocks (§5). `None` for an echo of another session of mine, or one too old.
    fn echo_of(
        &self,
        index: usize,
        echo: Option<Echo>,
    ) -> Result<Option<(Time, Duration)>, Refusal> {
        let Some(echo) = echo.filter(|echo| echo.session == self.session) else {
            return Ok(None);
        };
        let peer = self.peers.get(index).ok_or(Refusal::Sender)?;
        match peer.log.echo_of(echo.number, self.now, self.config.detection()) {
            EchoOf::Recent(sent) => Ok(Some((sent, Duration::from_micros(u64::from(echo.age_us))))),
            EchoOf::Stale => Ok(None),
            // Someone else counts in my session: I was copied, or rolled back.
            EchoOf::NeverSent => Err(Refusal::NeverSent),
        }
    }

    /// A session that is not established: it gets an answer (at most one in three quarters of an
    /// interval, so that each heartbeat of a newcomer can get one), and takes the place of the
    /// established one only when it is live and that is not.
    fn hear_stranger(
        &mut self,
        index: usize,
        header: &Header,
        body: Body,
        sent: Option<(Time, Duration)>,
    ) -> Result<(), Refusal> {
        let (now, interval) = (self.now, self.config.interval);
        let peer = self.peers.get_mut(index).ok_or(Refusal::Sender)?;
        // Twice the larger of both intervals (§5, Sessions): one heartbeat may be lost either way.
        let theirs = peer.said.as_ref().map(|(said, _)| micros_of(said.interval_us));
        let patience = interval.max(theirs.unwrap_or_default()) * 2;
        let occupied = peer.session.is_some()
            && peer
                .last_timely
                .is_some_and(|last| now.since(last.max(self.awake_since)) < patience);
        // After a sleep of mine the old session may be long over: no duplicate, only not replaced yet.
        let heard = peer.last_timely.is_some_and(|last| now.since(last) < patience);
        let duplicate = peer.session.is_some() && heard;
        if sent.is_some() && !occupied {
            let was_master = peer.claim.is_some();
            peer.establish(header.session);
            // It hears from me at once, so it can establish me as quickly.
            peer.queue();
            // The process that claimed is gone, whatever its successor is (§7): no need to wait.
            if was_master {
                let name = peer.config.name.clone();
                self.vacate(Reason::MasterRestarted(name), now);
            }
            self.hear_known(index, header, body, sent);
            return Ok(());
        }
        if peer.answered_at.is_none_or(|at| now.since(at) >= interval * 3 / 4) {
            peer.answered_at = Some(now);
            let echo = Echo { session: header.session, number: body.number, age_us: 0 };
            let echo = Some(echo);
            self.answer = Some(Answer { peer: index, path: header.path, echo, duplicate });
        }
        Err(Refusal::UnknownSession)
    }

    /// A datagram of the established session, new and authentic.
    fn hear_known(
        &mut self,
        index: usize,
        header: &Header,
        body: Body,
        sent: Option<(Time, Duration)>,
    ) {
        let (now, wall) = (self.now, self.wall(self.now));
        let Some(peer) = self.peers.get_mut(index) else { return };
        let Some(session) = peer.session.as_mut() else { return };
        // From here on it counts as seen: all that could refuse it has been asked.
        session.mark(header.path, header.counter);
        let newest = session.advance(body.number, now);
        peer.last_heard = Some(now);
        if let Some(at) = peer.path_heard.get_mut(usize::from(header.path)) {
            *at = Some(now);
        }
        // Late ones may report what stays true (a term, a yield, a release), but are no sign of life:
        // an attacker may have held them back (§5, Late).
        let Some((sent_at, age)) = sent else {
            if newest {
                self.take_late(index, &body);
            }
            return;
        };
        peer.last_timely = Some(now);
        if let Some(at) = peer.path_timely.get_mut(usize::from(header.path)) {
            *at = Some(now);
        }
        if newest {
            // §5, Measurements. The offset assumes a way there as long as the way back, which is why
            // `clock` keeps that of the shortest round trip.
            let rtt = now.since(sent_at).saturating_sub(age);
            peer.rtt = Some(peer.rtt.map_or(rtt, |old| (old * 7 + rtt) / 8));
            let half = i64::try_from(rtt.as_nanos() / 2).unwrap_or(i64::MAX);
            let offset = body.wall_ns.saturating_add(half).saturating_sub(wall);
            peer.clock.add(rtt, offset);
        }
        self.answer_floating(index, header, &body);
        // Before its content: an event about a peer that is not alive would read wrongly.
        self.note_alive(index, true);
        if newest {
            if let Some(peer) = self.peers.get_mut(index) {
                peer.lease.echoed = Some(sent_at);
            }
            self.take(index, body);
        }
    }
}

/// An interval as the wire has it: microseconds (§4, timing).
pub(super) fn micros_of(us: u32) -> Duration {
    Duration::from_micros(u64::from(us))
}
