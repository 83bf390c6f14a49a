//! What the rest of the process tells the loop, and holds of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{mpsc, oneshot, watch};
use wgha_proto::{
    Command, Event, Evidence, Health, Keyring, NodeConfig, PathSnapshot, Refused, Report,
    RoleLevel, Snapshot, Term, Time, VoteRecord, Word,
};

use crate::arbiter;
use crate::config::Config;
use crate::link::LinkCounters;
use crate::realtime::Realtime;
use crate::state::Applied;

/// What can arrive at the loop besides datagrams and time.
#[derive(Debug)]
pub enum Input {
    /// From the reconciler.
    Report(Report),
    /// From the checks.
    Health(Health),
    /// From the probes of outside sources.
    Evidence(Evidence),
    /// From an operator; the answer is whether it is obeyed.
    Command(Command, oneshot::Sender<Result<(), Refused>>),
    /// `wgha status`.
    Look(oneshot::Sender<Picture>),
    /// From etcd, where one votes.
    Arbiter(Word),
    /// A new config.
    Reconfigure(Box<NewConfig>),
    /// Have the voters of the config in force vote from now on.
    ForceVoters,
    /// The machine was copied, or set back: it says so itself.
    Copied,
}

/// What a reload brings to the loop.
#[derive(Debug)]
pub struct NewConfig {
    /// For the sockets.
    pub config: Config,
    /// For the node.
    pub node: NodeConfig,
    /// For the node.
    pub keys: Keyring,
    /// For the guard: all that it may put up.
    pub puts_up: Applied,
}

/// The state of the protocol, for status.
#[derive(Debug)]
pub struct Picture {
    /// When it was taken.
    pub now: Time,
    /// The node.
    pub node: Snapshot,
    /// For each peer of it, what is known of the paths over floating IPs: number and picture.
    pub floating: Vec<Vec<(u8, PathSnapshot)>>,
    /// The sockets.
    pub link: LinkCounters,
    /// My addresses that could not be bound, and why.
    pub unbound: Vec<(SocketAddr, String)>,
    /// Events that nobody took in time.
    pub events_dropped: u64,
    /// What this thread got of what `realtime` wants; `None`: it wants nothing.
    pub realtime: Option<Realtime>,
}

/// What must survive a restart, as last said; `None`: nothing was said since the start. A level and no event, so that none of it is lost
/// when nobody reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The highest term.
    pub highest_term: Option<Term>,
    /// Whether maintenance is on.
    pub maintenance: Option<bool>,
    /// The votes.
    pub votes: Option<VoteRecord>,
}

impl Memory {
    /// True if the event is about something to be kept.
    pub(super) fn take(&mut self, event: &Event) -> bool {
        match event {
            Event::HighestTerm(term) => self.highest_term = Some(*term),
            Event::Maintenance(on) => self.maintenance = Some(*on),
            Event::Votes(votes) => self.votes = Some(votes.clone()),
            _ => return false,
        }
        true
    }
}

/// What the rest of the process holds of the loop.
#[derive(Debug)]
pub struct Handle {
    /// Inputs; full means that the loop does not run.
    pub inputs: mpsc::Sender<Input>,
    /// The level that effects follow.
    pub level: watch::Receiver<RoleLevel>,
    /// Whether the master was missed, so that outside evidence is wanted.
    pub wants_evidence: watch::Receiver<bool>,
    /// What is wanted of the vote of an etcd.
    pub arbiter: watch::Receiver<arbiter::Level>,
    /// What happened, in order.
    pub events: mpsc::Receiver<Event>,
    /// What is to be kept on disk.
    pub memory: watch::Receiver<Memory>,
    /// When the loop last turned, in nanoseconds of [`clock::now`](crate::clock::now): whoever must know whether it still
    /// does looks at it. It turns once a second at least.
    pub turns: Arc<AtomicU64>,
    /// Why the guard does not know what to do after this process; `None` while it does.
    pub unheard: watch::Receiver<Option<String>>,
}
