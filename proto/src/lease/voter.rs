//! The voter: to whom my vote is bound, and until when.
//!
//! ```text
//!   free ──ask──► bound to a session until receipt + L ──ask of it──► bound for another L
//!    ▲                  │            │
//!    │ time, release,   │            │ release to a successor
//!    │ withdrawal,      │            ▼
//!    └── its end ───────┘      handed on: only the successor's transfer is granted, until the same time
//! ```

use std::time::Duration;

use super::{SessionId, Timing, abstention};
use crate::api::Term;
use crate::fingerprint::Printer;
use crate::time::Time;
use crate::wire::Tag;

/// Whom the vote is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) node: Tag,
    pub(crate) session: SessionId,
    pub(crate) term: Term,
    /// The number of the ask that was granted last.
    pub(crate) ask: u64,
    /// What that ask was granted for. A config that is longer by now makes no earlier grant longer.
    pub(crate) duration: Duration,
    pub(crate) until: Time,
    /// Released to a successor: what is left of it is for that one.
    handed_on: bool,
}

/// One ask, as the voter judges it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) node: Tag,
    pub(crate) session: SessionId,
    /// The number of the message that asked.
    pub(crate) number: u64,
    pub(crate) term: Term,
    /// Of whose lease it is the successor: session and term.
    pub(crate) transfer: Option<(SessionId, Term)>,
    /// The message echoes one that I sent within my detection time.
    pub(crate) timely: bool,
    /// The asker's voters in force are mine.
    pub(crate) same_voters: bool,
}

/// What becomes of an ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Old: it changes nothing and gets no answer.
    Ignored,
    /// Bound to the asker, for L from now.
    Granted,
    /// Not before this time has passed; zero: not for this term, whenever.
    Refused(Duration),
}

/// The highest term that was granted, and to which session.
pub(crate) type Highest = (Term, SessionId);

/// My vote.
#[derive(Clone, Debug)]
pub(crate) struct Voter {
    grant: Option<Grant>,
    highest: Highest,
    /// It may have been won, and handed on since: then its successor acts in the term after it.
    may_have_heir: bool,
    abstain_until: Time,
    /// The number of the last ask, release or withdrawal of each asker.
    last: Vec<(Tag, SessionId, u64)>,
}

impl Voter {
    /// A voter that starts now. `longest` is the longest duration that an earlier run may have granted.
    pub(crate) fn new(now: Time, longest: Duration, highest: Highest) -> Voter {
        let abstain_until = now + abstention(longest);
        Voter {
            grant: None,
            highest,
            may_have_heir: highest.0 > 0,
            abstain_until,
            last: Vec::new(),
        }
    }

    /// What binds me now.
    pub(crate) fn grant(&self, now: Time) -> Option<&Grant> {
        self.grant.as_ref().filter(|grant| now < grant.until)
    }

    /// The highest term granted, and to whom: kept on disk, so that no term is granted twice.
    pub(crate) fn highest(&self) -> Highest {
        self.highest
    }

    pub(crate) fn abstain_until(&self) -> Time {
        self.abstain_until
    }

    /// Judges an ask, and binds the vote if it is granted.
    pub(crate) fn ask(&mut self, now: Time, ask: &Ask, timing: &Timing) -> Verdict {
        if now < self.abstain_until {
            return Verdict::Refused(self.abstain_until.since(now));
        }
        if !ask.timely || !ask.same_voters {
            return Verdict::Refused(timing.interval);
        }
        if let Some(grant) = self.grant(now)
            && !grant.yields_to(ask)
        {
            return Verdict::Refused(grant.until.since(now));
        }
        let (term, session) = self.highest;
        let taken = ask.term == term || self.is_for_heir(ask);
        if ask.term < term || ask.session != session && taken {
            return Verdict::Refused(Duration::ZERO);
        }
        if !self.advance(ask.node, ask.session, ask.number) {
            return Verdict::Ignored;
        }
        self.highest = (ask.term, ask.session);
        self.may_have_heir = true;
        self.grant = Some(Grant {
            node: ask.node,
            session: ask.session,
            term: ask.term,
            ask: ask.number,
            duration: timing.lease,
            until: now + timing.lease,
            handed_on: false,
        });
        Verdict::Granted
    }

    /// The holder of this term gave it up, with all effects off. To a successor the vote stays bound until that asks.
    pub(crate) fn released(
        &mut self,
        node: Tag,
        session: SessionId,
        number: u64,
        term: Term,
        successor: bool,
    ) {
        self.advance(node, session, number);
        match &mut self.grant {
            Some(grant) if grant.session == session && grant.term <= term => {
                if successor {
                    grant.handed_on = true;
                } else {
                    self.grant = None;
                }
            }
            _ => {}
        }
    }

    /// A candidate withdrew this term and every one before.
    pub(crate) fn withdrawn(&mut self, node: Tag, session: SessionId, number: u64, term: Term) {
        self.advance(node, session, number);
        if self.highest.1 == session && self.highest.0 <= term {
            self.may_have_heir = false;
        }
        if self.grant.is_some_and(|grant| grant.session == session && grant.term <= term) {
            self.grant = None;
        }
    }

    /// This session is over, by its own word or its obituary: nothing of it acts any more. A successor of it may.
    pub(crate) fn ended(&mut self, session: SessionId) {
        if self.grant.is_some_and(|grant| grant.session == session && !grant.handed_on) {
            self.grant = None;
        }
    }

    /// Whether this ask is for a term that belongs to whom the highest was handed on to, and the asker is not that one.
    fn is_for_heir(&self, ask: &Ask) -> bool {
        let (term, _) = self.highest;
        let heir = ask.transfer.is_some_and(|(_, of)| of == term);
        self.may_have_heir && ask.term == term.saturating_add(1) && !heir
    }

    /// The numbers of messages count from the last of each node.
    pub(crate) fn print(&self, p: &mut Printer, last: &dyn Fn(&Tag) -> u64) {
        p.put((self.highest, self.may_have_heir));
        p.at(self.abstain_until);
        p.put(self.grant.is_some());
        if let Some(grant) = &self.grant {
            let ask = last(&grant.node).saturating_sub(grant.ask);
            p.put((grant.node, grant.session, grant.term, ask, grant.duration, grant.handed_on));
            p.at(grant.until);
        }
        for (tag, session, number) in &self.last {
            p.put((tag, session, last(tag).saturating_sub(*number)));
        }
    }

    /// Notes a message number of an asker; whether it is above all before.
    fn advance(&mut self, node: Tag, session: SessionId, number: u64) -> bool {
        match self.last.iter_mut().find(|(tag, ..)| *tag == node) {
            Some((_, known, last)) if *known == session => {
                let newer = number > *last;
                *last = number.max(*last);
                newer
            }
            Some(entry) => {
                *entry = (node, session, number);
                true
            }
            None => {
                self.last.push((node, session, number));
                true
            }
        }
    }
}

impl Grant {
    /// Whether this ask may take the vote although it is bound.
    fn yields_to(&self, ask: &Ask) -> bool {
        let same = ask.session == self.session;
        if same { !self.handed_on } else { ask.transfer == Some((self.session, self.term)) }
    }
}

#[cfg(test)]
mod tests;
