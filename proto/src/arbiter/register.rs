//! What the arbiter keeps: two keys, and the rules by which they change hands.
//!
//! ```text
//!   .../master    whom the vote is bound to; under a lease of etcd, so it goes by itself
//!   .../highest   the highest term that was granted, and to whom; stays
//! ```
//!
//! The rules are those of every voter (docs/protocol.md §11). Whoever wants the vote reads both keys, judges, and writes
//! both under the condition that neither changed meanwhile.

use std::fmt::Write;

use crate::api::{NodeName, Term};

/// The first word of a value of ours.
const MAGIC: &str = "wgha1";

/// The longest value that is looked at, in bytes.
const MAX_TEXT: usize = 256;

/// A vote, as a value in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The term that it was given for.
    pub term: Term,
    /// The session that has it.
    pub session: [u8; 16],
    /// The term may have been won and handed on: then its successor acts in the one after it.
    pub heir: bool,
    /// The session's node, for whoever reads the key.
    pub node: NodeName,
}

impl Vote {
    /// The value: `wgha1 TERM SESSION HEIR NODE`.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut session = String::with_capacity(32);
        for byte in self.session {
            // Writing into a string does not fail.
            let _ = write!(session, "{byte:02x}");
        }
        format!("{MAGIC} {} {session} {} {}", self.term, u8::from(self.heir), self.node)
    }

    /// The vote that a value says; `None` if it is not one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Vote> {
        let mut words = Some(text).filter(|text| text.len() <= MAX_TEXT)?.split(' ');
        let magic = words.next()? == MAGIC;
        let term = words.next()?.parse().ok()?;
        let session = session(words.next()?)?;
        let heir = match words.next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let node = words.next()?.to_owned();
        (magic && words.next().is_none()).then_some(Vote { term, session, heir, node })
    }
}

fn session(hex: &str) -> Option<[u8; 16]> {
    if hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut session = [0; 16];
    for (index, byte) in session.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(session)
}

/// A key as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// `None`: somebody else wrote it.
    pub vote: Option<Vote>,
    /// Of its last change: `mod_revision`.
    pub revision: u64,
}

/// Both keys at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Register {
    /// `.../master`.
    pub bound: Option<Kept>,
    /// `.../highest`.
    pub highest: Option<Kept>,
}

/// What becomes of an ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It may be written.
    Free,
    /// Another has the vote now.
    Bound,
    /// Not for this term, ever, because of this one.
    Taken(Term),
}

impl Register {
    /// The revisions that a write is conditional on: of `master`, of `highest`. 0: the key is not there.
    #[must_use]
    pub fn revisions(&self) -> (u64, u64) {
        let revision = |kept: &Option<Kept>| kept.as_ref().map_or(0, |kept| kept.revision);
        (revision(&self.bound), revision(&self.highest))
    }

    pub(super) fn judge(
        &self,
        me: &[u8; 16],
        term: Term,
        of: Option<([u8; 16], Term)>,
    ) -> Judgement {
        if let Some(Kept { vote, .. }) = &self.bound {
            let Some(vote) = vote else { return Judgement::Bound };
            if vote.session != *me && of != Some((vote.session, vote.term)) {
                return Judgement::Bound;
            }
        }
        let Some(Kept { vote, .. }) = &self.highest else { return Judgement::Free };
        let Some(highest) = vote else { return Judgement::Bound };
        let heir = of.is_some_and(|(_, of)| of == highest.term);
        let inherited = highest.heir && term == highest.term.saturating_add(1) && !heir;
        let others = highest.session != *me && (term == highest.term || inherited);
        if term < highest.term || others {
            return Judgement::Taken(highest.term);
        }
        Judgement::Free
    }

    /// What there is to write so that nothing of `me` is left: `None` if nothing is. Of a term that was withdrawn
    /// nobody is the heir.
    pub(super) fn freed(&self, me: &[u8; 16], withdrawn: Term) -> Option<Option<Vote>> {
        let of_mine = |kept: &Option<Kept>| -> Option<Vote> {
            kept.as_ref()?.vote.as_ref().filter(|vote| vote.session == *me).cloned()
        };
        let barren = of_mine(&self.highest)
            .filter(|vote| vote.heir && vote.term <= withdrawn)
            .map(|vote| Vote { heir: false, ..vote });
        (barren.is_some() || of_mine(&self.bound).is_some()).then_some(barren)
    }
}
