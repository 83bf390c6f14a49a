//! What peers say about votes: their asks of mine, and theirs for me (docs/protocol.md §11).

use std::time::Duration;

use super::Node;
use super::lease::Votes;
use crate::api::Term;
use crate::freshness::EchoOf;
use crate::lease::SessionId;
use crate::lease::voter::{self, Verdict};
use crate::wire::body::{Ask, Grant};

impl Node {
    /// What a timely message of a peer says about leases.
    pub(super) fn take_lease(&mut self, index: usize, said: &Votes) {
        if self.leases().is_none() {
            return;
        }
        match said.fields.ask {
            Some(ask) => self.judge(index, said, ask),
            None => {
                if let Some(peer) = self.peers.get_mut(index) {
                    peer.lease.refused = None;
                    peer.lease.answered = None;
                }
            }
        }
        self.free(index, said);
        if let Some(grant) = said.fields.grant {
            self.take_grant(index, grant);
        }
        if let Some(refuse) = said.fields.refuse {
            let (now, highest) = (self.now, self.highest);
            let remaining = Duration::from_millis(u64::from(refuse.remaining_ms));
            let Some(lease) = self.leases_mut() else { return };
            // Not for this term, ever: another session had it.
            if remaining.is_zero() && lease.candidate.bid_for(refuse.term).is_some() {
                lease.candidate.raise(now, highest);
            } else {
                lease.candidate.refused(now, refuse.term, remaining);
            }
        }
    }

    /// Releases and withdrawals free a vote, also in messages that come late: what was given up stays given up.
    pub(super) fn free(&mut self, index: usize, said: &Votes) {
        let Some((tag, session)) = self.voter_at(index) else { return };
        let Some(lease) = self.leases_mut() else { return };
        if let Some(term) = said.fields.withdraw {
            lease.voter.withdrawn(tag, session, said.number, term);
        }
        if let Some(release) = said.release {
            // Nothing that is left can be handed on.
            let successor = release.successor != [0; 8] && release.remaining_ms > 0;
            lease.voter.released(tag, session, said.number, release.term, successor);
        }
    }

    /// The peer's tag and session, if it is one of the voters in force.
    pub(super) fn voter_at(&self, index: usize) -> Option<([u8; 8], SessionId)> {
        let peer = self.peers.get(index)?;
        let session = peer.session.as_ref()?.id;
        let votes = self.leases()?.voters.in_force.contains(&peer.tag);
        votes.then_some((peer.tag, session))
    }

    /// An ask of a peer: granted or refused, and answered at once.
    fn judge(&mut self, index: usize, said: &Votes, ask: Ask) {
        let Some((tag, session)) = self.voter_at(index) else { return };
        // Of two that ask the worse one makes way, or both would keep their votes from each other.
        let outdone = said.fields.held.is_none() && self.outdoes(index);
        if outdone {
            let wait = self.turn_wait();
            self.withdraw(self.now + wait);
        }
        let (now, foreign) = (self.now, self.foreign_voters());
        let Some(lease) = self.leases_mut() else { return };
        let same_voters = lease.voters.accepts(said.fields.voters) && !foreign;
        let (number, term, transfer) = (said.number, ask.term, ask.transfer);
        let ask =
            voter::Ask { node: tag, session, number, term, transfer, timely: true, same_voters };
        let verdict = lease.voter.ask(now, &ask, &lease.timing);
        match verdict {
            Verdict::Granted => self.lease_counts.granted += 1,
            Verdict::Refused(_) => self.lease_counts.refused += 1,
            Verdict::Ignored => {}
        }
        self.keep_votes();
        self.answer_ask(index, ask.term, verdict);
    }

    fn answer_ask(&mut self, index: usize, term: Term, verdict: Verdict) {
        let (now, pause) = (self.now, self.config.interval / 4);
        let asking =
            self.leases().is_some_and(|l| l.holder.is_some() || l.candidate.bid().is_some());
        let Some(peer) = self.peers.get_mut(index) else { return };
        peer.lease.refused = match verdict {
            Verdict::Ignored => return,
            Verdict::Granted => None,
            Verdict::Refused(remaining) => {
                Some((term, (!remaining.is_zero()).then(|| now + remaining)))
            }
        };
        let kind = std::mem::discriminant(&verdict);
        let news = peer.lease.answered.is_none_or(|(at, before)| {
            now.since(at) >= pause || std::mem::discriminant(&before) != kind
        });
        // Two that ask each other must not answer each answer.
        if news || !asking {
            peer.lease.answered = Some((now, verdict));
            peer.queue();
        }
    }

    /// A voter granted one of my asks. Its part counts from when I sent that very one.
    fn take_grant(&mut self, index: usize, grant: Grant) {
        if grant.node != self.tag || grant.session != self.session {
            return;
        }
        let (now, within) = (self.now, self.config.detection());
        let Some(peer) = self.peers.get(index) else { return };
        let (tag, echo) = (peer.tag, peer.log.echo_of(grant.ask, now, within));
        let EchoOf::Recent(sent) = echo else { return };
        let granted = Duration::from_millis(u64::from(grant.duration_ms));
        let Some(lease) = self.leases_mut() else { return };
        let timing = lease.timing;
        if let Some(bid) = lease.candidate.bid_for(grant.term) {
            bid.parts.note(tag, sent, granted, &timing);
        } else if let Some(holder) = lease.holder.as_mut().filter(|h| h.term == grant.term) {
            holder.parts.note(tag, sent, granted, &timing);
        }
    }

    /// A session is over, and everything of it off.
    pub(super) fn free_ended(&mut self, session: SessionId) {
        if let Some(lease) = self.leases_mut() {
            lease.voter.ended(session);
        }
    }

    /// Whether this node can neither vote nor be voted for yet.
    pub(super) fn abstains(&self) -> bool {
        self.leases().is_some_and(|lease| self.now < lease.voter.abstain_until())
    }
}
