//! The holder: until when its lease lasts, by what it knows itself.

use std::time::Duration;

use super::set::VoterSet;
use super::{SessionId, Timing, drift};
use crate::api::Term;
use crate::fingerprint::Printer;
use crate::time::Time;
use crate::wire::Tag;

/// Until when each voter's vote is mine, counted from the sending of the very ask that it granted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts(Vec<(Tag, Time)>);

impl Parts {
    /// A voter granted the ask that I sent at `sent`, for `granted`.
    pub(crate) fn note(&mut self, voter: Tag, sent: Time, granted: Duration, timing: &Timing) {
        let end = sent + granted.min(timing.lease);
        match self.0.iter_mut().find(|(tag, _)| *tag == voter) {
            Some((_, known)) => *known = end.max(*known),
            None => self.0.push((voter, end)),
        }
    }

    /// The arbiter's vote is mine until `until`, which it may be for longer than L.
    pub(crate) fn note_until(&mut self, voter: Tag, until: Time) {
        match self.0.iter_mut().find(|(tag, _)| *tag == voter) {
            Some((_, known)) => *known = until.max(*known),
            None => self.0.push((voter, until)),
        }
    }

    /// What this voter granted counts no more.
    pub(crate) fn forget(&mut self, voter: Tag) {
        self.0.retain(|(tag, _)| *tag != voter);
    }

    /// The end of the lease that these parts make: the k-th latest. `None` without a majority.
    pub(crate) fn end(&self, set: &VoterSet) -> Option<Time> {
        self.end_by(set, |_| true)
    }

    fn end_by(&self, set: &VoterSet, counts: impl Fn(&Tag) -> bool) -> Option<Time> {
        let counted = self.0.iter().filter(|(voter, _)| set.contains(voter) && counts(voter));
        let mut ends: Vec<Time> = counted.map(|(_, end)| *end).collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.get(set.majority() - 1).copied()
    }

    pub(crate) fn print(&self, p: &mut Printer) {
        let mut parts = self.0.clone();
        parts.sort_unstable();
        for (voter, end) in parts {
            p.put(voter);
            p.at(end);
        }
    }

    /// The voters whose part has not ended.
    pub(crate) fn live(&self, now: Time) -> impl Iterator<Item = &Tag> {
        self.0.iter().filter(move |(_, end)| now < *end).map(|(voter, _)| voter)
    }
}

/// A lease that was handed to me, good until my own votes are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inherited {
    pub(crate) session: SessionId,
    pub(crate) term: Term,
    end: Time,
}

impl Inherited {
    /// The old holder's `remaining`, said in a message that echoes one that I sent at `sent`: its clock began to count
    /// after that, and may run slower than mine.
    pub(crate) fn new(
        session: SessionId,
        term: Term,
        sent: Time,
        remaining: Duration,
        timing: &Timing,
    ) -> Inherited {
        let remaining = remaining.min(timing.lease);
        Inherited { session, term, end: sent + (remaining - drift(remaining)) }
    }

    /// When it ends, margin not taken off.
    pub(crate) fn end(&self) -> Time {
        self.end
    }
}

/// A lease.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub(crate) term: Term,
    pub(crate) parts: Parts,
    /// Said in my asks for as long as I hold: a voter may have missed all of them until now.
    pub(crate) inherited: Option<Inherited>,
    /// Votes that I had before leases came into force end then.
    pub(crate) grace: Time,
}

impl Holder {
    pub(crate) fn new(term: Term, parts: Parts, inherited: Option<Inherited>) -> Holder {
        Holder { term, parts, inherited, grace: Time::ZERO }
    }

    /// Until when it can be handed on: by votes of mine alone. Voters keep the term after mine free because they
    /// granted mine.
    pub(crate) fn transferable_until(&self, set: &VoterSet) -> Option<Time> {
        self.parts.end(set)
    }

    /// When the lease ends.
    pub(crate) fn end(&self, set: &VoterSet) -> Time {
        let own = self.parts.end(set).unwrap_or(Time::ZERO);
        own.max(self.inherited.map_or(Time::ZERO, |inherited| inherited.end)).max(self.grace)
    }

    /// When it would end without the arbiter.
    pub(crate) fn end_without_arbiter(&self, set: &VoterSet) -> Time {
        let arbiter = set.arbiter().map(|(_, tag)| tag);
        let own = self.parts.end_by(set, |voter| Some(*voter) != arbiter);
        let inherited = self.inherited.map_or(Time::ZERO, |inherited| inherited.end);
        own.unwrap_or(Time::ZERO).max(inherited).max(self.grace)
    }

    pub(crate) fn print(&self, p: &mut Printer) {
        p.put((self.term, self.inherited.map(|inherited| (inherited.session, inherited.term))));
        p.maybe_at(self.inherited.map(|inherited| inherited.end));
        p.at(self.grace);
        self.parts.print(p);
    }

    /// Until when its effects may stand.
    pub(crate) fn permitted_until(&self, set: &VoterSet, timing: &Timing) -> Time {
        self.end(set) - timing.margin
    }
}

#[cfg(test)]
mod tests;
