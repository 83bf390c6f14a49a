//! The fields of leases (docs/protocol.md §4, types 32 to 38). Only nodes that need a majority say them.

use super::super::{Tag, array};
use super::field;
use super::value::{exact, nonzero, put, tail_u32};
use crate::api::Term;
use crate::lease::SessionId;
use crate::lease::set::SetHash;

/// "May I hold this term?" The number of the message is the number of the ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) term: Term,
    /// As successor of this session in this term.
    pub(crate) transfer: Option<(SessionId, Term)>,
}

/// "My vote is this session's." Said to everyone while it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) node: Tag,
    pub(crate) session: SessionId,
    pub(crate) term: Term,
    /// From the receipt of the ask.
    pub(crate) duration_ms: u32,
    /// The number of the message that asked.
    pub(crate) ask: u64,
}

/// "You may not hold this term."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refuse {
    pub(crate) term: Term,
    /// Until it is worth asking again; 0: only for a higher term.
    pub(crate) remaining_ms: u32,
}

/// "I hold this term."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) term: Term,
    pub(crate) remaining_ms: u32,
}

/// All of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaseFields {
    pub(crate) ask: Option<Ask>,
    pub(crate) grant: Option<Grant>,
    pub(crate) refuse: Option<Refuse>,
    /// This term, and every one before it, is asked for no more.
    pub(crate) withdraw: Option<Term>,
    pub(crate) held: Option<Held>,
    /// Hash of the voters in force.
    pub(crate) voters: Option<SetHash>,
    /// Hash of the voters of the config, if others are in force.
    pub(crate) pending: Option<SetHash>,
}

impl LeaseFields {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self.ask {
            None => {}
            Some(Ask { term, transfer: None }) => put(out, field::ASK, &[&term.to_be_bytes()]),
            Some(Ask { term, transfer: Some((session, old)) }) => {
                put(out, field::ASK, &[&term.to_be_bytes(), &session, &old.to_be_bytes()]);
            }
        }
        if let Some(g) = self.grant {
            let (term, ask) = (g.term.to_be_bytes(), g.ask.to_be_bytes());
            let duration = g.duration_ms.to_be_bytes();
            put(out, field::GRANT, &[&g.node, &g.session, &term, &duration, &ask]);
        }
        if let Some(r) = self.refuse {
            put(out, field::REFUSE, &[&r.term.to_be_bytes(), &r.remaining_ms.to_be_bytes()]);
        }
        if let Some(term) = self.withdraw {
            put(out, field::WITHDRAW, &[&term.to_be_bytes()]);
        }
        if let Some(h) = self.held {
            put(out, field::LEASE, &[&h.term.to_be_bytes(), &h.remaining_ms.to_be_bytes()]);
        }
        if let Some(hash) = self.voters {
            put(out, field::VOTERS, &[&hash]);
        }
        if let Some(hash) = self.pending {
            put(out, field::VOTERS_PENDING, &[&hash]);
        }
    }

    /// Takes one field; `Some(false)` if its type is not known, `None` if it is malformed.
    pub(super) fn read(&mut self, kind: u8, v: &[u8]) -> Option<bool> {
        match kind {
            field::ASK => {
                let transfer = match v.get(8..)? {
                    [] => None,
                    old => {
                        Some((array(old, 0)?, nonzero(u64::from_be_bytes(exact(old.get(16..)?)?))?))
                    }
                };
                self.ask = Some(Ask { term: term_at(v, 0)?, transfer });
            }
            field::GRANT => {
                self.grant = Some(Grant {
                    node: array(v, 0)?,
                    session: array(v, 8)?,
                    term: term_at(v, 24)?,
                    duration_ms: u32::from_be_bytes(array(v, 32)?),
                    ask: nonzero(u64::from_be_bytes(exact(v.get(36..)?)?))?,
                });
            }
            field::REFUSE => {
                self.refuse = Some(Refuse { term: term_at(v, 0)?, remaining_ms: tail_u32(v, 8)? });
            }
            field::WITHDRAW => {
                self.withdraw = Some(nonzero(u64::from_be_bytes(exact(v)?))?);
            }
            field::LEASE => {
                self.held = Some(Held { term: term_at(v, 0)?, remaining_ms: tail_u32(v, 8)? });
            }
            field::VOTERS => self.voters = Some(exact(v)?),
            field::VOTERS_PENDING => self.pending = Some(exact(v)?),
            // Said by a newer version.
            _ => return Some(false),
        }
        Some(true)
    }
}

/// A term at an offset: none is 0.
fn term_at(v: &[u8], at: usize) -> Option<Term> {
    nonzero(u64::from_be_bytes(array(v, at)?))
}
