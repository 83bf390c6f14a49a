//! The arbiter's vote at a node: when it is needed, and what its words change (docs/protocol.md §11, Arbiter).
//!
//! A candidate asks it with everyone else. A holder asks it only while the others do not keep its lease young: etcd
//! keeps what is bound for seconds, and a holder that dies without having asked leaves a vote that is free.

use super::Node;
use super::lease::Lease;
use crate::api::{Wish, Word};
use crate::lease::Timing;
use crate::time::Time;

/// What a node knows of the arbiter.
#[derive(Clone, Debug, Default)]
pub(super) struct Arbiter {
    /// It answered when it was asked last.
    pub(super) present: bool,
    /// As holder I ask for its vote until then.
    pub(super) wanted_until: Time,
}

impl Lease {
    /// When the lease of a holder is so old without the arbiter that its vote is asked for: at a half of the time that
    /// it may act, but not before the next round of grants can have come.
    fn needs_arbiter_at(&self) -> Option<Time> {
        let set = &self.voters.in_force;
        let holder = self.holder.as_ref().filter(|_| set.arbiter().is_some())?;
        let Timing { lease, margin, interval } = self.timing;
        let patience = (lease.saturating_sub(margin) / 2).max(interval * 3 / 2);
        Some(holder.end_without_arbiter(set) - lease + patience)
    }
}

impl Node {
    /// Takes a word of the arbiter.
    pub fn handle_arbiter(&mut self, now: Time, word: Word) {
        self.begin(now);
        self.take_word(word);
        // A vote that was forgotten may have been the one that the lease hung on.
        self.check_lease();
        self.finish();
    }

    /// The name under which the arbiter votes in the set in force; `None`: none does.
    #[must_use]
    pub fn arbiter_voter(&self) -> Option<&str> {
        self.leases()?.voters.in_force.arbiter().map(|(name, _)| name)
    }

    /// What is wanted of the arbiter's vote. Valid like [`level`](Node::level).
    #[must_use]
    pub fn arbiter_wish(&self) -> Wish {
        let Some(lease) = self.leases() else { return Wish::Keep };
        if lease.voters.in_force.arbiter().is_none() || self.config.witness {
            return Wish::Keep;
        }
        if let Some(bid) = lease.candidate.bid() {
            return Wish::Ask { term: bid.term, of: None };
        }
        if let Some(holder) =
            lease.holder.as_ref().filter(|_| self.now < lease.arbiter.wanted_until)
        {
            let of = holder.inherited.map(|inherited| (inherited.session, inherited.term));
            return Wish::Ask { term: holder.term, of };
        }
        // What may act, or was handed on, is freed by time alone.
        if lease.holder.is_some() || self.state.claims() || self.now < lease.released_end {
            return Wish::Keep;
        }
        Wish::Free { withdrawn: lease.candidate.withdrawn() }
    }

    /// Whether I hold a lease that the arbiter's vote should keep alive.
    pub(super) fn judge_arbiter(&mut self) {
        let (now, detection) = (self.now, self.config.detection());
        let Some(lease) = self.leases_mut() else { return };
        if lease.needs_arbiter_at().is_some_and(|at| at <= now) {
            // For some time, so that a link that loses much does not ask and forget in turns.
            lease.arbiter.wanted_until = now + detection;
        }
    }

    pub(super) fn arbiter_wake(&self) -> Option<Time> {
        let lease = self.leases()?;
        let later = |at: &Time| *at > self.now;
        let until = Some(lease.arbiter.wanted_until).filter(later);
        let released = Some(lease.released_end).filter(later);
        let needed = lease.needs_arbiter_at().filter(later);
        [until, released, needed].into_iter().flatten().min()
    }

    fn take_word(&mut self, word: Word) {
        let (now, highest) = (self.now, self.highest);
        let Some(lease) = self.leases_mut() else { return };
        let mine = lease.voters.in_force.arbiter().map(|(_, tag)| tag);
        lease.arbiter.present = !matches!(word, Word::Lost | Word::Void);
        match word {
            Word::Granted { voter, term, until } if mine == Some(voter) => {
                if let Some(bid) = lease.candidate.bid_for(term) {
                    bid.parts.note_until(voter, until);
                } else if let Some(holder) = lease.holder.as_mut().filter(|h| h.term == term) {
                    holder.parts.note_until(voter, until);
                }
            }
            Word::Refused { term, taken: Some(taken) }
                if lease.candidate.bid_for(term).is_some() =>
            {
                lease.candidate.raise(now, highest.max(taken));
                self.note_term(taken);
            }
            Word::Void => {
                let Some(voter) = mine else { return };
                if let Some(holder) = &mut lease.holder {
                    holder.parts.forget(voter);
                }
                if let Some(parts) = lease.candidate.parts_mut() {
                    parts.forget(voter);
                }
            }
            Word::Present | Word::Lost | Word::Granted { .. } | Word::Refused { .. } => {}
        }
    }
}
