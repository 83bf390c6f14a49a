//! What of a node's state decides what it does next.

use std::mem::discriminant;
use std::time::Duration;

use super::Node;
use super::lease::Lease;
use crate::fingerprint::Printer;
use crate::freshness::Session;
use crate::peer::Peer;
use crate::time::Time;

impl Node {
    /// A number that is the same for two states of this node that go on alike, but for `grain` and for rare collisions.
    /// `last` gives the number of the last message that a peer, by its index, has sent to this node
    /// ([`last_number`](Node::last_number) there). For explorers of states.
    #[must_use]
    pub fn fingerprint(&self, now: Time, grain: Duration, last: &dyn Fn(usize) -> u64) -> u64 {
        let mut p = Printer::new(now, grain, self.config.detection() * 4);
        self.print_role(&mut p);
        self.print_handover(&mut p);
        for (index, peer) in self.peers.iter().enumerate() {
            self.print_peer(&mut p, peer, last(index));
        }
        if let Some(lease) = self.lease.as_deref() {
            let numbers = |tag: &_| {
                let peer = self.peers.iter().position(|peer| peer.tag == *tag);
                peer.map_or(lease.own_asks, last)
            };
            lease.print(&mut p, &numbers);
        }
        p.finish()
    }

    /// The number of the last message to a peer, by its index; 0 if there was none.
    #[must_use]
    pub fn last_number(&self, peer: usize) -> u64 {
        self.peers.get(peer).map_or(0, |peer| peer.log.last())
    }

    fn print_role(&self, p: &mut Printer) {
        p.put((
            self.session,
            self.state as u8,
            self.over.is_some(),
            self.level.role,
            self.level.term,
        ));
        p.put((&self.level.master, self.term, self.highest, self.highest_held));
        for at in [
            self.expected,
            self.awake_since,
            self.next_heartbeat,
            self.won_at,
            self.vacancy.since,
            self.vacancy.reserved_until,
            self.outside.isolated_until,
        ] {
            p.at(at);
        }
        for at in [self.listened_at, self.eligible_since, self.improved_at, self.outdone_at] {
            p.maybe_at(at);
        }
        p.maybe_at(self.failure.hold.as_ref().map(|(until, _)| *until));
        p.maybe_at(self.duplicate.first);
        p.put((discriminant(&self.ability), discriminant(&self.outside.evidence), self.health.ok));
        p.put((self.maintenance, self.stopping.map(|stopping| discriminant(&stopping))));
    }

    fn print_handover(&self, p: &mut Printer) {
        if let Some(outgoing) = &self.outgoing {
            p.put((outgoing.to, outgoing.term, outgoing.step as u8));
            p.maybe_at(outgoing.deadline);
            p.at(outgoing.repeat_at);
        }
        if let Some(incoming) = &self.incoming {
            p.put((incoming.peer, incoming.session, incoming.examined.is_some()));
            p.at(incoming.expected_until);
        }
        if let Some(release) = &self.release {
            p.put((release.term, release.successor, release.repeats));
            p.at(release.until);
            p.at(release.reserved_until);
            p.at(release.repeat_at);
        }
        p.put(self.yielded.map(|(term, _)| term));
    }

    fn print_peer(&self, p: &mut Printer, peer: &Peer, last: u64) {
        if let Some(Session { id, newest, newest_at, .. }) = &peer.session {
            p.put((id, last.saturating_sub(*newest)));
            p.at(*newest_at);
        }
        peer.log.print(p, self.now, self.config.detection());
        p.put(peer.release_number.map(|number| peer.log.last().saturating_sub(number)));
        p.put((peer.release_answered, peer.reply.is_some(), peer.alive, peer.ended.len()));
        for at in [peer.gone_at, peer.answered_at, peer.last_timely, peer.better_since] {
            p.maybe_at(at);
        }
        p.length(peer.rtt.unwrap_or_default());
        p.put((peer.released, peer.yielded));
        if let Some(claim) = &peer.claim {
            p.put(claim.term);
            p.at(claim.last);
        }
        if let Some((said, at)) = &peer.said {
            p.at(*at);
            said.print(p);
        }
        p.maybe_at(peer.lease.echoed);
        p.put(peer.lease.refused.map(|(term, _)| term));
        p.maybe_at(peer.lease.refused.and_then(|(_, until)| until));
        p.put(peer.lease.answered.map(|(_, verdict)| discriminant(&verdict)));
        p.maybe_at(peer.lease.answered.map(|(at, _)| at));
    }
}

impl Lease {
    fn print(&self, p: &mut Printer, last: &dyn Fn(&[u8; 8]) -> u64) {
        self.voters.print(p);
        self.voter.print(p, last);
        self.candidate.print(p);
        p.put(self.holder.is_some());
        if let Some(holder) = &self.holder {
            holder.print(p);
        }
        p.length(self.timing.margin);
        p.put(self.arbiter.present);
        p.at(self.arbiter.wanted_until);
        p.at(self.withdrawal_until);
        p.at(self.released_end);
        p.put(self.handed_on);
        p.length(self.longest);
    }
}
