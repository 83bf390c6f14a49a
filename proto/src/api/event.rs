//! What happened in a node, and why.

use std::time::Duration;

use super::{NodeName, Role, Term, VoteRecord};

/// What happened inside the node, in order; for log, events and status. Effects follow
/// [`Node::level`](crate::Node::level), not these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The role or its term changed.
    Role {
        /// The role before.
        from: Role,
        /// The role now.
        to: Role,
        /// The term it belongs to: mine if I am master, else the highest known.
        term: Term,
        /// Why.
        reason: Reason,
        /// How long ago the trouble began that the change answers: for a takeover the time since
        /// the last sign of the master.
        detect: Duration,
    },
    /// A peer became reachable (timely heartbeats) or stopped being so.
    Peer {
        /// The peer.
        name: NodeName,
        /// Reachable now.
        alive: bool,
    },
    /// Another master yielded to me: announce addresses and assert claims again.
    Reassert {
        /// My term.
        term: Term,
    },
    /// The handover that was asked for ended.
    Handover {
        /// The successor.
        to: NodeName,
        /// Done, or why not.
        result: Result<(), String>,
    },
    /// What costs clients their instant return began or ended. Once for each change.
    Alarm {
        /// The other gateway.
        name: NodeName,
        /// What it is.
        alarm: Alarm,
        /// It began.
        on: bool,
    },
    /// The highest term known grew: keep it on disk.
    HighestTerm(Term),
    /// Maintenance was switched: keep it on disk.
    Maintenance(bool),
    /// This node asked for a lease of this term, and withdrew: a better candidate asks, no majority granted it in time,
    /// or it is no longer its turn.
    Withdrew(Term),
    /// A vote was given to another session or term, or other voters came into force: keep it on disk.
    Votes(VoteRecord),
    /// The last session is over, and a new one began ([`Node::renew`](crate::Node::renew)): why.
    Renewed(Reason),
    /// [`Command::Stop`](super::Command::Stop) is complete.
    Stopped,
}

/// What makes clients refuse a gateway's handshakes after a change of role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Clocks that stamp handshakes are more than a second apart.
    Clock {
        /// The other's minus mine, in nanoseconds.
        offset_ns: i64,
    },
    /// The other runs another implementation of WireGuard, which stamps 27 s apart.
    Wireguard,
}

/// Why the role changed. One variant, one word in log and events, one test.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The process started.
    Started,
    /// Listened long enough after the start; now a candidate.
    Listened,
    /// Nobody is master and I am the best candidate.
    NoMaster,
    /// The master was silent for the detection time.
    MasterSilent(NodeName),
    /// The master's node came back with a new session, so it is no longer master.
    MasterRestarted(NodeName),
    /// The master released the role.
    MasterReleased(NodeName),
    /// The master's session was ended by its obituary.
    MasterObituary(NodeName),
    /// A handover from this master.
    HandoverFrom(NodeName),
    /// A handover to this successor.
    HandoverTo(NodeName),
    /// There were two masters and this one stays.
    Yielded(NodeName),
    /// The process did not run for longer than its permission to be master.
    Slept(Duration),
    /// Cannot serve.
    Fault(String),
    /// Another live process uses my name.
    DuplicateName,
    /// This machine was copied, or set back to an earlier state.
    Copied,
    /// What kept me from serving is over.
    Recovered,
    /// The process ends.
    Stopping,
    /// Maintenance was switched on.
    Maintenance,
    /// The lease ran out: no majority renewed it.
    LeaseLost,
}

impl Reason {
    /// The reason as one lower-case word with `-`, as in log and events.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Reason::Started => "started",
            Reason::Listened => "listened",
            Reason::NoMaster => "no-master",
            Reason::MasterSilent(_) => "master-silent",
            Reason::MasterRestarted(_) => "master-restarted",
            Reason::MasterReleased(_) => "master-released",
            Reason::MasterObituary(_) => "master-obituary",
            Reason::HandoverFrom(_) => "handover-from",
            Reason::HandoverTo(_) => "handover-to",
            Reason::Yielded(_) => "yielded",
            Reason::Slept(_) => "slept",
            Reason::Fault(_) => "fault",
            Reason::DuplicateName => "duplicate-name",
            Reason::Copied => "copied",
            Reason::Recovered => "recovered",
            Reason::Stopping => "stopping",
            Reason::Maintenance => "maintenance",
            Reason::LeaseLost => "lease-lost",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::Started => f.write_str("started"),
            Reason::Listened => f.write_str("listened long enough after the start"),
            Reason::NoMaster => f.write_str("no master"),
            Reason::MasterSilent(name) => write!(f, "master {name} is silent"),
            Reason::MasterRestarted(name) => write!(f, "master {name} restarted"),
            Reason::MasterReleased(name) => write!(f, "master {name} released the role"),
            Reason::MasterObituary(name) => write!(f, "master {name} died"),
            Reason::HandoverFrom(name) => write!(f, "handover from {name}"),
            Reason::HandoverTo(name) => write!(f, "handover to {name}"),
            Reason::Yielded(name) => write!(f, "yielded to master {name}"),
            Reason::Slept(gap) => write!(f, "did not run for {} ms", gap.as_millis()),
            Reason::Fault(why) => write!(f, "fault: {why}"),
            Reason::DuplicateName => f.write_str("fault: duplicate name"),
            Reason::Copied => f.write_str("this machine was copied or set back"),
            Reason::Recovered => f.write_str("able to serve again"),
            Reason::Stopping => f.write_str("stopping"),
            Reason::Maintenance => f.write_str("maintenance"),
            Reason::LeaseLost => f.write_str("no majority renewed the lease"),
        }
    }
}
