//! A machine: a clock, a disk, a process with its node and its reconciler, and what can pause them.

use std::collections::VecDeque;

use wgha_proto::{
    Answer, ArbiterHeader, Boot, Command, Evidence, Health, Keyring, Node, NodeConfig, Report,
    RoleLevel, Term, VoteRecord, Word,
};

use crate::clock::Clock;
use crate::etcd::Desk;
use crate::gateway::{Gateway, Manner};
use crate::network::Datagram;
use crate::options::Nanos;
use crate::rng::Rng;

/// A paused process finds at most so many datagrams when it wakes: a socket buffer is finite.
const INBOX: usize = 512;

/// Where a datagram comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The network: the first copy, or another.
    Network { first: bool },
    /// The attacker, who expects it to be refused.
    Attack(Attack),
}

/// What the attacker sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// Delivered before, to this run of the receiver.
    Replay,
    /// Of a run of the sender that is over.
    OldBoot,
    /// Of a live sender, delivered before to an earlier run of the receiver.
    OldReceiver,
    Reflection,
    WrongReceiver,
    Flipped,
    Truncated,
    Forged,
}

/// One input of a node.
#[derive(Debug)]
pub(crate) enum Input {
    Timer,
    Datagram(Datagram, Origin),
    Report(Report),
    Health(Health),
    Evidence(Evidence),
    Command(Command),
    Reload(Box<NodeConfig>, Keyring),
    /// Of etcd, by the agent.
    Word(Word),
    /// To the request of this number; `None`: none came in time.
    Answered(u64, Option<(ArbiterHeader, Answer)>),
}

/// What survives a restart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) highest_term: Term,
    pub(crate) maintenance: bool,
    pub(crate) votes: Option<VoteRecord>,
}

pub(crate) struct Process {
    pub(crate) node: Node,
    pub(crate) level: RoleLevel,
    /// When it last ran.
    pub(crate) ran: Nanos,
    /// How long it had not run before that.
    pub(crate) gap: Nanos,
    /// When its own timer is set.
    pub(crate) wake_at: Nanos,
    /// Where it asks etcd, if there is one.
    pub(crate) desk: Option<Desk>,
    /// A probe of the router is under way.
    pub(crate) probing: bool,
}

pub(crate) struct Host {
    /// Which node of the cluster it is; more than one host may be the same.
    pub(crate) member: usize,
    pub(crate) witness: bool,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    /// How many processes ran here. The first is 1.
    pub(crate) boots: u32,
    pub(crate) process: Option<Process>,
    pub(crate) gateway: Gateway,
    /// When the reconciler's next step is set.
    pub(crate) gateway_at: Nanos,
    /// The gate of this machine lets packets pass until then, whatever becomes of the process. Only with leases.
    pub(crate) gate_until: Nanos,
    /// How many faults pause the node, and the reconciler.
    pub(crate) node_paused: u32,
    pub(crate) gateway_paused: u32,
    /// How many faults keep it from the router.
    pub(crate) router_cuts: u32,
    pub(crate) healthy: bool,
    pub(crate) inbox: VecDeque<Input>,
    pub(crate) config: NodeConfig,
    pub(crate) keys: Keyring,
}

impl Host {
    pub(crate) fn new(member: usize, config: NodeConfig, keys: Keyring, rng: &mut Rng) -> Host {
        Host {
            member,
            witness: config.witness,
            clock: Clock::draw(rng),
            disk: Disk::default(),
            boots: 0,
            process: None,
            gateway: Gateway::new(Manner::Faithful),
            gateway_at: Nanos::MAX,
            gate_until: 0,
            node_paused: 0,
            gateway_paused: 0,
            router_cuts: 0,
            healthy: true,
            inbox: VecDeque::new(),
            config,
            keys,
        }
    }

    /// Starts a process. Its memory is empty, its disk is not.
    pub(crate) fn boot(&mut self, now: Nanos, rng: &mut Rng, disk: Disk, etcd: bool) {
        let session = rng.bytes();
        let desk = etcd.then(|| Desk::new(&self.config, session));
        let boot = Boot {
            session,
            obituary_secret: rng.bytes(),
            highest_term: disk.highest_term,
            maintenance: disk.maintenance,
            votes: disk.votes,
        };
        let node = Node::new(self.config.clone(), self.keys.clone(), boot, self.clock.local(now));
        let level = node.level().clone();
        self.boots += 1;
        self.inbox.clear();
        self.process =
            Some(Process { node, level, ran: now, gap: 0, wake_at: 0, desk, probing: false });
    }

    /// The process is gone, with everything that it knew.
    pub(crate) fn kill(&mut self) {
        self.process = None;
        self.inbox.clear();
        self.gateway.crash();
        self.gateway_at = Nanos::MAX;
    }

    pub(crate) fn running(&self) -> bool {
        self.process.is_some() && self.node_paused == 0
    }

    /// Keeps an input for a process that does not run now. Datagrams beyond the buffer are lost.
    pub(crate) fn keep(&mut self, input: Input) {
        if self.inbox.len() < INBOX || !matches!(input, Input::Datagram(..)) {
            self.inbox.push_back(input);
        }
    }

    pub(crate) fn is_master(&self) -> bool {
        self.process.as_ref().is_some_and(|p| p.level.role == wgha_proto::Role::Master)
    }
}
