//! The candidate: asks for a term, and withdraws.

use std::time::Duration;

use super::Timing;
use super::holder::Parts;
use crate::api::{Reason, Term};
use crate::fingerprint::Printer;
use crate::time::Time;

/// A term that is being asked for.
#[derive(Clone, Debug)]
pub(crate) struct Bid {
    pub(crate) term: Term,
    pub(crate) since: Time,
    /// Why I take over, if I win.
    pub(crate) reason: Reason,
    pub(crate) parts: Parts,
    /// When it is asked next.
    ask_at: Time,
    /// A refusal's remaining time is over then.
    again_at: Option<Time>,
}

/// What a candidate does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Asks everyone.
    Ask,
    /// Waits, until then at the latest.
    Wait(Time),
    /// Gives this bid up: no majority within L.
    GiveUp,
}

/// My candidacies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidate {
    bid: Option<Bid>,
    /// I withdrew this term, and never ask for it or an earlier one again. 0: none.
    withdrawn: Term,
    /// Does not ask before then.
    not_before: Time,
}

impl Candidate {
    pub(crate) fn bid(&self) -> Option<&Bid> {
        self.bid.as_ref()
    }

    pub(crate) fn not_before(&self) -> Time {
        self.not_before
    }

    /// The term that I withdrew last; 0 if none.
    pub(crate) fn withdrawn(&self) -> Term {
        self.withdrawn
    }

    /// Asks for a term from now on; above `highest`, the highest seen, and above all that I withdrew.
    pub(crate) fn begin(&mut self, now: Time, highest: Term, reason: Reason) {
        let term = self.next_term(highest);
        self.bid = Some(Bid {
            term,
            since: now,
            reason,
            parts: Parts::default(),
            ask_at: now,
            again_at: None,
        });
    }

    /// The one after the highest is not asked for: its holder may have handed it on, and the successor acts under it
    /// unheard.
    fn next_term(&self, highest: Term) -> Term {
        highest.max(self.withdrawn).saturating_add(2)
    }

    /// Asks for a higher term instead: this one is taken.
    pub(crate) fn raise(&mut self, now: Time, highest: Term) {
        let taken = self.bid.as_ref().map_or(0, |bid| bid.term);
        self.withdrawn = self.withdrawn.max(taken);
        let term = self.next_term(highest);
        if let Some(bid) = &mut self.bid {
            bid.term = term;
            bid.parts = Parts::default();
            bid.ask_at = now;
            bid.again_at = None;
        }
    }

    /// What is due.
    pub(crate) fn step(&mut self, now: Time, timing: &Timing) -> Step {
        let Some(bid) = &mut self.bid else { return Step::Wait(now + timing.interval) };
        if now.since(bid.since) >= timing.lease {
            return Step::GiveUp;
        }
        if now >= bid.ask_at || bid.again_at.is_some_and(|at| now >= at) {
            bid.ask_at = now + timing.interval / 3;
            bid.again_at = bid.again_at.filter(|at| now < *at);
            return Step::Ask;
        }
        Step::Wait(bid.next(timing))
    }

    /// When something is due next, if a bid runs.
    pub(crate) fn due(&self, timing: &Timing) -> Option<Time> {
        self.bid.as_ref().map(|bid| bid.next(timing))
    }

    /// A voter refused my bid for so long.
    pub(crate) fn refused(&mut self, now: Time, term: Term, remaining: Duration) {
        if let Some(bid) = self.bid.as_mut().filter(|bid| bid.term == term) {
            let at = now + remaining;
            bid.again_at =
                Some(bid.again_at.filter(|known| *known > now).map_or(at, |k| k.min(at)));
        }
    }

    /// A voter granted an ask: only of the term that I ask for now does it count.
    pub(crate) fn bid_for(&mut self, term: Term) -> Option<&mut Bid> {
        self.bid.as_mut().filter(|bid| bid.term == term)
    }

    pub(crate) fn parts_mut(&mut self) -> Option<&mut Parts> {
        self.bid.as_mut().map(|bid| &mut bid.parts)
    }

    /// Withdraws the bid for ever, and asks for nothing before `not_before`. The term, if there was one.
    pub(crate) fn withdraw(&mut self, not_before: Time) -> Option<Term> {
        let bid = self.bid.take()?;
        self.withdrawn = self.withdrawn.max(bid.term);
        self.pause(not_before);
        Some(bid.term)
    }

    /// Asks for nothing before this time.
    pub(crate) fn pause(&mut self, not_before: Time) {
        self.not_before = self.not_before.max(not_before);
    }

    pub(crate) fn print(&self, p: &mut Printer) {
        p.put((self.withdrawn, self.bid.is_some()));
        p.at(self.not_before);
        if let Some(bid) = &self.bid {
            p.put(bid.term);
            p.at(bid.since);
            p.at(bid.ask_at);
            p.maybe_at(bid.again_at);
            bid.parts.print(p);
        }
    }

    /// The bid is won.
    pub(crate) fn take(&mut self) -> Option<Bid> {
        self.bid.take()
    }
}

impl Bid {
    fn next(&self, timing: &Timing) -> Time {
        let next = self.ask_at.min(self.since + timing.lease);
        self.again_at.map_or(next, |at| next.min(at))
    }
}

#[cfg(test)]
mod tests;
