//! What a node is told and asked: its start, reports of the machine, evidence, commands.

use std::time::Duration;

use super::{NodeName, Term};
use crate::time::Time;

/// What the start of a process contributes: fresh randomness, and what was kept on disk.
pub struct Boot {
    /// Random; identifies this run of the process to its peers.
    pub session: [u8; 16],
    /// Random; whoever shows it ends the session (docs/protocol.md §5).
    pub obituary_secret: [u8; 32],
    /// The highest term known when the process last ran; 0 if unknown.
    pub highest_term: Term,
    /// Maintenance was on when the process last ran (docs/protocol.md §6).
    pub maintenance: bool,
    /// What was kept of votes; `None` without a memory. With [`Quorum::Majority`](super::Quorum::Majority) the caller
    /// has written a `longest` of at least the detection time to disk before the node starts or takes a config,
    /// and still gives what stood there before.
    pub votes: Option<VoteRecord>,
}

/// What a voter must know after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoteRecord {
    /// The longest duration that it may have granted: it abstains for that long, and 2 % more.
    pub longest: Duration,
    /// The highest term that it granted; 0 if none.
    pub term: Term,
    /// The session that got it.
    pub session: [u8; 16],
    /// The voters in force, by name; empty if there were no leases.
    pub voters: Vec<NodeName>,
    /// Those that were in force before them; empty if there were none.
    pub before: Vec<NodeName>,
}

impl VoteRecord {
    /// No grant is known; it abstains as if it had granted one of this length: zero only where there surely was none.
    #[must_use]
    pub const fn without_grant(longest: Duration) -> VoteRecord {
        VoteRecord { longest, term: 0, session: [0; 16], voters: Vec::new(), before: Vec::new() }
    }
}

/// What the reconciler of the machine tells the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Everything that belongs to being master in this term is up.
    Entered(Term),
    /// Nothing of what belongs to being master in this term or an earlier one is left. Verified, not
    /// assumed. Also said, with the term of the level, when the level is read as not master for the first
    /// time: being master may have begun and ended unseen.
    Left(Term),
    /// Being master in this term failed; the text says why. Effects may still stand until `Left`.
    Failed(Term, String),
    /// Whether this gateway could serve, apart from its health checks.
    Ability(Ability),
    /// The answer to [`Errand::Examine`](super::Errand::Examine) of this number.
    Examined(u32, Result<(), Doubt>),
    /// The answer to [`Errand::Flush`](super::Errand::Flush) of this number: the successor has it all.
    Flushed(u32),
}

/// What a gateway that is asked to take the role finds against doing so at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// A WireGuard interface, or an interface for a floating IP, is not as it should be.
    NotStaged,
    /// Another program has WireGuard's port.
    PortTaken,
    /// The master cannot tell it where clients are. `force` passes over that.
    NotInSync,
    /// What it knows of the clients is older than one poll of the master. `force` passes over that.
    StaleEndpoints,
}

/// Whether a gateway could serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ability {
    /// Not yet examined: the role stays `init`.
    Unknown,
    /// Staged and free to take over.
    Ready,
    /// Could take over, but a handover would not be smooth; the text says why.
    NotReady(String),
    /// Cannot serve: the role is `fault`; the text says why.
    Unable(String),
}

/// The outcome of the health checks (docs/protocol.md §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Every check passes.
    pub ok: bool,
    /// When the last pass of all checks began that succeeded.
    pub last_pass_began: Option<Time>,
}

/// Outside evidence: does something that is no node of the cluster answer me? (docs/protocol.md §7)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// There is nothing to ask; takeovers need no evidence.
    NoSource,
    /// A source that normally answers answered a probe sent at this time.
    Answered(Time),
    /// A source that normally answers does not.
    Silent,
}

/// What an operator or the process asks of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Give the role to `to`, or to the best candidate. `force` passes over differences of
    /// configuration and of the WireGuard implementation.
    Handover {
        /// The successor's name; the best ready gateway if none is given.
        to: Option<NodeName>,
        /// Hand over in spite of a doubt that can be passed over.
        force: bool,
    },
    /// Enter or leave maintenance. `force` enters it even if nobody can take over.
    Maintenance {
        /// Enter (`true`) or leave.
        on: bool,
        /// Enter even if no other gateway can serve.
        force: bool,
    },
    /// End: hand over if possible, release, say goodbye. [`Event::Stopped`](super::Event::Stopped) follows, at the latest
    /// one `handover_timeout` plus one detection time after `Left`.
    Stop,
}

/// Why a command was not obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Only the master can hand over.
    #[error("this node is not master")]
    NotMaster,
    /// The named node is not one of the cluster.
    #[error("no gateway named {0:?} in this cluster")]
    UnknownNode(NodeName),
    /// A witness cannot be master.
    #[error("{0:?} is a witness")]
    Witness(NodeName),
    /// A witness has no role to give up.
    #[error("a witness cannot do that")]
    IAmWitness,
    /// The named node is this one.
    #[error("{0:?} is this node")]
    Myself(NodeName),
    /// No gateway can take the role; one reason for each.
    #[error("no gateway can take over: {0}")]
    NoSuccessor(String),
    /// The named gateway cannot take the role.
    #[error("{name} cannot take over: {why}")]
    NotASuccessor {
        /// The gateway.
        name: NodeName,
        /// What stands against it.
        why: String,
    },
    /// One handover at a time.
    #[error("a handover is already under way")]
    HandoverUnderWay,
    /// The process is ending.
    #[error("this node is stopping")]
    Stopping,
}
