//! Whole nodes: two gateways and a witness, whose datagrams, time, machine and operators the input moves.
//!
//! The simulation (tests/sim) plays fair faults in great numbers; here the input decides every step,
//! down to the bytes of a datagram.

use std::time::Duration;

use wgha_proto::{
    Ability, Boot, Command, Destination, Errand, Evidence, Health, Keyring, LEAST_REACTION, Node,
    NodeConfig, PeerConfig, Quorum, Report, Role, Time, VoteRecord, WireguardKind,
};

use crate::seal::drain;

const NAMES: [&str; 3] = ["gw1", "gw2", "w1"];
/// Kept under way; the oldest goes when there are more.
const FLYING: usize = 64;
const STEPS: usize = 2_000;

struct Flying {
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

struct Cluster {
    now: Time,
    nodes: Vec<Node>,
    flying: Vec<Flying>,
    /// Seen last on each node, so that the machine answers once.
    errands: [Option<Errand>; 3],
    left: [bool; 3],
    /// How many began in a node that ran.
    sessions: u32,
}

fn start(me: usize, majority: bool) -> Node {
    let names = if majority { 3 } else { 2 };
    let config = NodeConfig {
        cluster: "fuzzed".to_owned(),
        name: NAMES[me].to_owned(),
        witness: me == 2,
        priority: 150 - 50 * u8::from(me == 1),
        interval: Duration::from_millis(100),
        misses: 3,
        preempt: None,
        handover_timeout: Duration::from_millis(500),
        neighbour_retry: Duration::ZERO,
        fingerprint: [1; 16],
        wireguard: if me == 2 { WireguardKind::None } else { WireguardKind::Kernel },
        quorum: if majority {
            Quorum::Majority { reaction: LEAST_REACTION, arbiter: false }
        } else {
            Quorum::None
        },
        peers: (0..names)
            .filter(|other| *other != me)
            .map(|other| PeerConfig {
                name: NAMES[other].to_owned(),
                witness: other == 2,
                paths: 1,
            })
            .collect(),
    };
    let keys = Keyring::generate(1, [7; 32]);
    let keys = if me == 2 { keys.to_witness() } else { keys };
    let boot = Boot {
        session: [me as u8 + 1; 16],
        obituary_secret: [me as u8 + 101; 32],
        highest_term: 0,
        maintenance: false,
        votes: majority.then(|| VoteRecord::without_grant(Duration::ZERO)),
    };
    Node::new(config, keys, boot, Time::from_nanos(1))
}

impl Cluster {
    fn new(majority: bool) -> Cluster {
        let nodes = (0..if majority { 3 } else { 2 }).map(|me| start(me, majority)).collect();
        let now = Time::from_nanos(1);
        let mut cluster = Cluster {
            now,
            nodes,
            flying: Vec::new(),
            errands: Default::default(),
            left: [false; 3],
            sessions: 0,
        };
        for me in 0..cluster.nodes.len() {
            cluster.feed(me, |node, now| node.handle_report(now, Report::Ability(Ability::Ready)));
        }
        cluster
    }

    /// One input, and everything that the contract of [`Node`] asks for after it.
    fn feed(&mut self, me: usize, input: impl FnOnce(&mut Node, Time)) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(me) else { return };
        input(node, now);
        let flying = &mut self.flying;
        let sessions = &mut self.sessions;
        let mut send = |to, bytes: &[u8]| {
            // The sender of what was just handled is not followed here: it sends again.
            let Destination::Peer { peer, .. } = to else { return };
            let to = if peer < me { peer } else { peer + 1 };
            if flying.len() >= FLYING {
                flying.remove(0);
            }
            flying.push(Flying { from: me, to, bytes: bytes.to_vec() });
        };
        drain(node, now, &mut send);
        if node.wants_session() {
            *sessions += 1;
            let mut session = [me as u8 + 1; 16];
            session[..4].copy_from_slice(&sessions.to_be_bytes());
            node.renew(now, session, &[7; 32]);
            drain(node, now, &mut send);
        }
        assert!(
            node.poll_timeout() > now
                || node.level().role == Role::Fault
                || node.poll_timeout() == now
        );
        self.machine(me);
    }

    /// The machine follows the level, and answers errands, at once.
    fn machine(&mut self, me: usize) {
        let level = self.nodes[me].level().clone();
        if level.errand != self.errands[me] {
            self.errands[me].clone_from(&level.errand);
            match level.errand {
                Some(Errand::Examine { id, .. }) => {
                    self.feed(me, |node, now| {
                        node.handle_report(now, Report::Examined(id, Ok(())))
                    });
                }
                Some(Errand::Flush { id, .. }) => {
                    self.feed(me, |node, now| node.handle_report(now, Report::Flushed(id)));
                }
                None => {}
            }
            return;
        }
        let is_master = level.role == Role::Master;
        let was_left = std::mem::replace(&mut self.left[me], !is_master);
        if !is_master && !was_left {
            self.feed(me, |node, now| node.handle_report(now, Report::Left(level.term)));
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = (0..self.nodes.len()).map(|me| (self.nodes[me].poll_timeout(), me)).min();
            let Some((at, me)) = due.filter(|(at, _)| *at <= end) else { break };
            self.now = self.now.max(at);
            self.feed(me, |node, now| node.handle_timeout(now));
            self.check();
        }
        self.now = end;
    }

    /// One step of the input. The first byte says what, the second for whom or how much.
    fn step(&mut self, what: u8, much: u8) {
        let count = self.nodes.len();
        let me = usize::from(much) % count;
        match what % 16 {
            0..=2 => self.pass(Duration::from_millis(u64::from(much))),
            3..=7 if !self.flying.is_empty() => {
                let index = usize::from(much) % self.flying.len();
                let mut flying = self.flying.remove(index);
                match what % 16 {
                    // As it is.
                    3 | 4 => {}
                    // And again later.
                    5 => self.flying.push(Flying { bytes: flying.bytes.clone(), ..flying }),
                    // Changed on its way.
                    6 => {
                        let at = usize::from(what) * usize::from(much) % flying.bytes.len();
                        flying.bytes[at] ^= much | 1;
                    }
                    // To the wrong one, or back.
                    _ => {
                        flying.to =
                            if much & 64 == 0 { flying.from } else { (flying.to + 1) % count }
                    }
                }
                self.feed(flying.to, |node, now| {
                    let _ = node.handle_datagram(now, &mut flying.bytes);
                });
            }
            3..=7 => {}
            // All that is under way arrives, in order: a quiet network.
            8 | 9 => {
                for mut flying in std::mem::take(&mut self.flying) {
                    self.feed(flying.to, |node, now| {
                        let _ = node.handle_datagram(now, &mut flying.bytes);
                    });
                }
            }
            10 => self.flying.clear(),
            11 => self.command(me, what, much),
            12 => {
                let evidence = match much / 4 % 3 {
                    0 => Evidence::NoSource,
                    1 => Evidence::Silent,
                    _ => Evidence::Answered(self.now),
                };
                self.feed(me, |node, now| node.handle_evidence(now, evidence));
            }
            13 => {
                let health = Health { ok: much & 4 == 0, last_pass_began: Some(self.now) };
                self.feed(me, |node, now| node.handle_health(now, health));
            }
            14 => {
                let ability = match much / 4 % 4 {
                    0 => Ability::Unable("fuzzed".to_owned()),
                    1 => Ability::NotReady("fuzzed".to_owned()),
                    _ => Ability::Ready,
                };
                self.feed(me, |node, now| node.handle_report(now, Report::Ability(ability)));
            }
            _ => {
                // A report about any term, asked for or not.
                let term = u64::from(much / 4 % 8);
                let report = match much / 32 {
                    0 => Report::Failed(term, "fuzzed".to_owned()),
                    1 => Report::Entered(term),
                    2 => Report::Flushed(u32::from(much)),
                    3 => Report::Examined(u32::from(much), Ok(())),
                    _ => Report::Entered(self.nodes[me].level().term),
                };
                self.feed(me, |node, now| node.handle_report(now, report));
            }
        }
        self.check();
    }

    fn command(&mut self, me: usize, what: u8, much: u8) {
        let to = (much & 4 != 0).then(|| NAMES[usize::from(much / 8) % 3].to_owned());
        let (on, force) = (much & 16 != 0, what & 16 != 0);
        let command = match much / 32 {
            0..=3 => Command::Handover { to, force },
            4..=6 => Command::Maintenance { on, force },
            _ => Command::Stop,
        };
        self.feed(me, |node, now| {
            let _ = node.handle_command(now, command);
        });
    }

    /// With a majority at most one node may act, at every instant: their clocks are one clock here.
    fn check(&self) {
        let now = self.now;
        let acts = |node: &&Node| node.permitted_until().is_some_and(|until| until > now);
        if self.nodes.len() == 3 {
            assert!(self.nodes.iter().filter(acts).count() <= 1, "two nodes may act");
        }
        for node in &self.nodes {
            let _ = node.snapshot(now);
        }
    }
}

/// Sequences of datagrams, time, reports and commands; the first byte's lowest bit chooses two gateways alone.
pub(crate) fn node(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let mut cluster = Cluster::new(first & 1 == 0);
    for pair in rest.chunks_exact(2).take(STEPS) {
        cluster.step(pair[0], pair[1]);
    }
}
