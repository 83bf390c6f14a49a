//! What etcd is asked, and what it answers.

use super::register::{Register, Vote};

/// What etcd is asked. Every request goes through etcd's own majority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Both keys, by a linearizable read.
    Look,
    /// A new lease of so many seconds.
    Lease {
        /// Its length.
        seconds: u32,
    },
    /// A change of both keys, if they are at these revisions (0: not there); else both keys.
    Write {
        /// `mod_revision` of `master` and `highest`.
        expected: (u64, u64),
        /// What to do.
        change: Change,
    },
}

/// A change of both keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `master` is this vote, under this lease; `highest` is the same, without a lease.
    Take {
        /// The lease's id.
        lease: i64,
        /// The value of both.
        vote: Vote,
    },
    /// `master` is removed; `highest`, if one is given, replaced.
    Free {
        /// The new value of `highest`.
        highest: Option<Vote>,
    },
}

/// What etcd answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a look, and to a write whose condition did not hold.
    Seen(Register),
    /// The lease is made.
    Leased {
        /// Its id.
        id: i64,
        /// Its length, maybe longer than asked for.
        seconds: u32,
    },
    /// The write is done.
    Written,
}

/// What comes with every answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which etcd cluster it is.
    pub cluster: u64,
    /// The revision of its store.
    pub revision: u64,
}
