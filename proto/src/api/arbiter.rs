//! The arbiter, an etcd that votes: what a node wishes of it, and what it is told.

use super::Term;
use crate::time::Time;
use crate::wire::Tag;

/// What a node wants of the arbiter's vote: a level, not an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// What is bound to me stays until its time is over; nothing is asked for.
    #[default]
    Keep,
    /// Nothing of mine acts: what is bound to me is freed. Every term up to this one was withdrawn, so nobody can have
    /// inherited it; 0: none was.
    Free {
        /// The highest term withdrawn.
        withdrawn: Term,
    },
    /// The vote for this term, for as long as this is wished.
    Ask {
        /// The term.
        term: Term,
        /// Of whose lease I am the successor: session and term.
        of: Option<([u8; 16], Term)>,
    },
}

/// What the arbiter says, as far as a node needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The vote is mine in this term until this time of my clock, its clock's error taken off.
    Granted {
        /// The arbiter's tag: others have voted in other sets of voters.
        voter: Tag,
        /// The term.
        term: Term,
        /// Until when.
        until: Time,
    },
    /// The vote is another's.
    Refused {
        /// The term that was asked for.
        term: Term,
        /// This term or one that rules mine out was granted to another session: never for this one.
        taken: Option<Term>,
    },
    /// It answers.
    Present,
    /// It does not answer.
    Lost,
    /// It forgot what it had granted, so nothing of that counts any more.
    Void,
}
