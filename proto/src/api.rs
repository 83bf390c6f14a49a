//! What goes into a [`Node`](crate::Node) and what comes out of it, apart from datagrams.

use std::time::Duration;

use crate::time::Time;

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

/// The cluster as one node is configured to see it.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Bound into every key: nodes of other clusters are strangers.
    pub cluster: String,
    /// My name.
    pub name: NodeName,
    /// A witness only votes: it has no floating IP and is never a candidate.
    pub witness: bool,
    /// 1..=255; a higher one is preferred when there is no master.
    pub priority: u8,
    /// Time between two heartbeats to the same peer, 10 ms ..= 10 s.
    pub interval: Duration,
    /// Heartbeats missed until a master counts as silent, 2..=255.
    pub misses: u8,
    /// Hand over to a node of higher priority (design §5.2).
    pub preempt: Option<Preempt>,
    /// How long the preparation of a handover may take before it is called off.
    pub handover_timeout: Duration,
    /// What must agree between nodes, hashed; a difference is shown, never a reason to drop. The
    /// second half is of what gateways alone know; zero agrees with all.
    pub fingerprint: [u8; 16],
    /// Which WireGuard I run.
    pub wireguard: WireguardKind,
    /// Every other node of the cluster.
    pub peers: Vec<PeerConfig>,
}

impl NodeConfig {
    /// The detection time: `misses` × `interval`.
    #[must_use]
    pub fn detection(&self) -> Duration {
        self.interval * u32::from(self.misses)
    }
}

/// `preempt = true` and its delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preempt {
    /// How long the better node must have been ready before the role goes to it.
    pub delay: Duration,
}

/// Another node, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its name.
    pub name: NodeName,
    /// Whether it only votes.
    pub witness: bool,
    /// How many paths lead to it, 1..=8. The caller knows their addresses.
    pub paths: PathIndex,
}

/// What the start of a process contributes: fresh randomness, and what was kept on disk.
pub struct Boot {
    /// Random; identifies this run of the process to its peers.
    pub session: [u8; 16],
    /// Random; whoever shows it ends the session (design §4, obituary).
    pub obituary_secret: [u8; 32],
    /// The highest term known when the process last ran; 0 if unknown.
    pub highest_term: Term,
    /// Maintenance was on when the process last ran (design §5.11).
    pub maintenance: bool,
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

/// The outcome of the health checks (design §5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Every check passes.
    pub ok: bool,
    /// When the last pass of all checks began that succeeded.
    pub last_pass_began: Option<Time>,
}

/// Outside evidence: does something that is no node of the cluster answer me? (design §5.4)
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
    /// End: hand over if possible, release, say goodbye. [`Event::Stopped`] follows, at the latest
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

/// What happened inside the node, in order; for log, events and status. Effects follow
/// [`Node::role`](crate::Node::role), not these.
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
    /// Another master yielded to me: announce addresses and assert claims again (design §5.5).
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
    /// The highest term known grew: keep it on disk.
    HighestTerm(Term),
    /// Maintenance was switched: keep it on disk.
    Maintenance(bool),
    /// [`Command::Stop`] is complete.
    Stopped,
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
    /// What kept me from serving is over.
    Recovered,
    /// The process ends.
    Stopping,
    /// Maintenance was switched on.
    Maintenance,
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
            Reason::Recovered => "recovered",
            Reason::Stopping => "stopping",
            Reason::Maintenance => "maintenance",
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
            Reason::Recovered => f.write_str("able to serve again"),
            Reason::Stopping => f.write_str("stopping"),
            Reason::Maintenance => f.write_str("maintenance"),
        }
    }
}

/// The level that effects follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleLevel {
    /// `Master` alone means: floating IPs, wg0 up. Anything else means: none of it.
    pub role: Role,
    /// My term if `role` is `Master`, else the highest known.
    pub term: Term,
    /// Why the role is what it is.
    pub reason: Reason,
    /// Who is master, as far as I know.
    pub master: Option<NodeName>,
}

/// A picture of the node for `wgha status`.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Role, term, reason, master.
    pub level: RoleLevel,
    /// When the role last changed.
    pub since: Time,
    /// The outcome of the checks.
    pub healthy: bool,
    /// Maintenance is on.
    pub maintenance: bool,
    /// Staged and able to take over (or serving).
    pub ready: bool,
    /// What keeps the node from taking over, if anything: `isolated`, `listening`, …
    pub held_back: Option<&'static str>,
    /// One entry for each peer, in configured order.
    pub peers: Vec<PeerSnapshot>,
    /// How often each refusal happened: (word, count). See [`Refusal`](crate::Refusal).
    pub refusals: Vec<(&'static str, u64)>,
}

/// A picture of one peer.
#[derive(Clone, Debug)]
pub struct PeerSnapshot {
    /// Its name.
    pub name: NodeName,
    /// It only votes.
    pub witness: bool,
    /// Its role as it last said.
    pub role: Option<Role>,
    /// Its term as it last said.
    pub term: Term,
    /// Its priority as it last said.
    pub priority: Option<u8>,
    /// Timely within the detection time.
    pub alive: bool,
    /// Time since its last authentic heartbeat.
    pub last_heard: Option<Duration>,
    /// Smoothed round trip.
    pub rtt: Option<Duration>,
    /// Lost heartbeats of the last 64, 0.0..=1.0, on the best path.
    pub loss: f64,
    /// Its wall clock minus mine, in nanoseconds.
    pub clock_offset_ns: Option<i64>,
    /// Its checks pass.
    pub healthy: bool,
    /// Maintenance.
    pub maintenance: bool,
    /// Ready to take over.
    pub ready: bool,
    /// Its config fingerprint equals mine.
    pub config_match: Option<bool>,
    /// Its WireGuard implementation.
    pub wireguard: WireguardKind,
    /// For each path to it: it says that it heard me on it within its detection time.
    pub paths_alive: Vec<bool>,
}
