//! What goes into a [`Node`](crate::Node) and what comes out of it, apart from datagrams.
//!
//! In: `config` and `input`. Out: `event` (what happened), [`RoleLevel`] (what effects follow) and
//! `snapshot` (a picture for status).

mod arbiter;
mod config;
mod event;
mod input;
mod snapshot;

pub use arbiter::{Wish, Word};
pub use config::{NodeConfig, PeerConfig, Preempt, Quorum};
pub use event::{Alarm, Event, Reason};
pub use input::{Ability, Boot, Command, Doubt, Evidence, Health, Refused, Report, VoteRecord};
pub use snapshot::{
    ArbiterSnapshot, Broken, LeaseCounts, LeaseSnapshot, PathSnapshot, PeerSnapshot, Snapshot,
};

/// The name of a node, unique in its cluster: 1 to 64 bytes of `[A-Za-z0-9._-]`.
pub type NodeName = String;

/// A number that grows with every takeover. A takeover is (term, node). 0: none yet.
pub type Term = u64;

/// Which of the paths to a peer: an index into [`PeerConfig::paths`].
pub type PathIndex = u8;

/// What a node does in its cluster now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Started and listening; not yet a candidate.
    Init,
    /// Ready to take over, or a witness, or in maintenance.
    Backup,
    /// The gateway that serves.
    Master,
    /// Cannot serve; the reason says why.
    Fault,
}

impl Role {
    /// The role in one lower-case word, as in status, hooks and log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Role::Init => "init",
            Role::Backup => "backup",
            Role::Master => "master",
            Role::Fault => "fault",
        }
    }
}

/// Which WireGuard a gateway runs. The two stamp handshakes 27 s apart, so a pair must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum WireguardKind {
    /// A witness, or a gateway without `[[wireguard]]`.
    #[default]
    None,
    /// The kernel's module.
    Kernel,
    /// gotatun inside wgha.
    Embedded,
}

/// The level that effects follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleLevel {
    /// `Master` alone means: floating IPs, wg0 up. Anything else means: none of it.
    pub role: Role,
    /// My term if `role` is `Master`, else the highest known; with leases, the highest known that was won.
    pub term: Term,
    /// Why the role is what it is.
    pub reason: Reason,
    /// Who is master, as far as I know.
    pub master: Option<NodeName>,
    /// What a handover needs of the machine while the role stays where it is.
    pub errand: Option<Errand>,
}

/// What a handover needs before the role moves. Each has a number of its own, named in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// As successor: look whether everything is there to take over at once, and answer with
    /// [`Report::Examined`]. It stays a while after the answer: the role may come any moment, so
    /// that nothing else should be begun.
    Examine {
        /// The number.
        id: u32,
        /// The master.
        from: NodeName,
    },
    /// As master: tell the successor what it does not know yet, and answer with
    /// [`Report::Flushed`]. The master leaves soon, answered or not.
    Flush {
        /// The number.
        id: u32,
        /// The successor.
        to: NodeName,
    },
}
