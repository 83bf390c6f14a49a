//! Asking for a lease: when it is my turn, until a majority granted it or another is better (docs/protocol.md §11).

use std::time::Duration;

use super::Node;
use crate::api::{Event, Reason};
use crate::election::Input;
use crate::lease::candidate::Step;
use crate::lease::holder::Holder;
use crate::lease::voter::{self, Verdict};
use crate::time::Time;

impl Node {
    /// The election says that it is my turn: at once master, or with leases, a candidate.
    pub(super) fn win(&mut self, reason: Reason) {
        match self.leases_mut() {
            Some(lease) => lease.turn = Some(reason),
            None => self.step(Input::Won, reason),
        }
    }

    /// Asks while it is my turn, and withdraws when it no longer is.
    pub(super) fn candidacy(&mut self) {
        let Some(lease) = self.leases_mut() else { return };
        match lease.turn.take() {
            Some(reason) => self.pursue(reason),
            None => self.withdraw(self.now),
        }
        if self.state.claims() {
            self.ask_myself();
        }
    }

    fn pursue(&mut self, reason: Reason) {
        if let Some(why) = self.bid_obstacle() {
            self.withdraw(self.now);
            self.held_back = Some(why);
            return;
        }
        let (now, highest) = (self.now, self.highest);
        let Some(lease) = self.leases_mut() else { return };
        match lease.candidate.bid().map(|bid| bid.term) {
            None => lease.candidate.begin(now, highest, reason),
            Some(term) if term < highest => lease.candidate.raise(now, highest),
            Some(_) => {}
        }
        self.ask_myself();
        if self.try_to_win() {
            return;
        }
        self.held_back = Some("asking");
        let Some(lease) = self.leases_mut() else { return };
        match lease.candidate.step(now, &lease.timing) {
            Step::Ask => self.queue_all(),
            Step::Wait(_) => {}
            Step::GiveUp => {
                // Whoever may have a majority where I have none gets the time for it.
                let wait = self.config.detection() + self.turn_wait();
                self.withdraw(now + wait);
            }
        }
    }

    /// (rank + 1) × I/4: what one that withdrew leaves to the others.
    pub(super) fn turn_wait(&self) -> Duration {
        self.config.interval / 4 * self.rank().saturating_add(1)
    }

    /// A majority granted my bid: I hold the lease.
    fn try_to_win(&mut self) -> bool {
        let now = self.now;
        let Some(lease) = self.leases_mut() else { return false };
        let end = lease.candidate.bid().and_then(|bid| bid.parts.end(&lease.voters.in_force));
        if end.is_none_or(|end| now >= end - lease.timing.margin) {
            return false;
        }
        let Some(bid) = lease.candidate.take() else { return false };
        lease.holder = Some(Holder::new(bid.term, bid.parts, None));
        self.held_back = None;
        self.lease_counts.won += 1;
        self.step(Input::Won, bid.reason);
        true
    }

    /// What keeps me from asking, in the word that status shows.
    fn bid_obstacle(&self) -> Option<&'static str> {
        let lease = self.leases()?;
        if self.foreign_voters() {
            return Some("voters-differ");
        }
        if self.now < lease.voter.abstain_until() {
            return Some("abstaining");
        }
        if lease.voter.grant(self.now).is_some_and(|grant| grant.session != self.session) {
            return Some("vote-given");
        }
        if self.now < lease.candidate.not_before() {
            return Some("waiting");
        }
        let set = &lease.voters.in_force;
        let mine = usize::from(set.contains(&self.tag));
        let votes = self.peers.iter().filter(|peer| peer.alive && set.contains(&peer.tag)).count();
        let arbiter = usize::from(set.arbiter().is_some() && lease.arbiter.present);
        (mine + votes + arbiter < set.majority()).then_some("no-majority")
    }

    /// Gives up what I ask for, for ever; frees my own vote, and tells all.
    pub(super) fn withdraw(&mut self, not_before: Time) {
        let (now, detection, tag, session) =
            (self.now, self.config.detection(), self.tag, self.session);
        let Some(lease) = self.leases_mut() else { return };
        let Some(term) = lease.candidate.withdraw(not_before) else { return };
        lease.own_asks += 1;
        lease.voter.withdrawn(tag, session, lease.own_asks, term);
        lease.withdrawal_until = now + detection;
        self.event(Event::Withdrew(term));
        self.queue_all();
    }

    /// My own vote follows the rules of all votes.
    pub(super) fn ask_myself(&mut self) {
        let (now, tag, session) = (self.now, self.tag, self.session);
        let foreign = self.foreign_voters();
        let Some(lease) = self.leases_mut() else { return };
        let bid = lease.candidate.bid().map(|bid| (bid.term, None));
        let held = lease.holder.as_ref().map(|h| (h.term, h.inherited));
        let Some((term, inherited)) = bid.or(held) else { return };
        if !lease.voters.in_force.contains(&tag) {
            return;
        }
        lease.own_asks += 1;
        let ask = voter::Ask {
            node: tag,
            session,
            number: lease.own_asks,
            term,
            transfer: inherited.map(|i| (i.session, i.term)),
            timely: true,
            same_voters: !foreign,
        };
        if lease.voter.ask(now, &ask, &lease.timing) == Verdict::Granted {
            let timing = lease.timing;
            if let Some(bid) = lease.candidate.bid_for(term) {
                bid.parts.note(tag, now, timing.lease, &timing);
            } else if let Some(holder) = &mut lease.holder {
                holder.parts.note(tag, now, timing.lease, &timing);
            }
        }
        self.keep_votes();
    }
}
