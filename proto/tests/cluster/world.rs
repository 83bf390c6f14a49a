//! A few nodes, a network, and a reconciler for each, all on one virtual clock.

use std::collections::BTreeSet;
use std::time::Duration;

use wgha_proto::{
    Ability, Boot, Destination, Doubt, Errand, Event, Evidence, Keyring, Node, NodeConfig,
    PeerConfig, Reason, Report, Role, Time, VoteRecord, WireguardKind,
};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const INTERVAL: Duration = Duration::from_millis(100);
/// How long a machine may take to find its neighbours again.
pub(crate) const NEIGHBOURS: Duration = Duration::from_secs(1);

/// A datagram on its way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) at: Time,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) node: Node,
    pub(crate) config: NodeConfig,
    /// Every event so far, with its time.
    pub(crate) events: Vec<(Time, Event)>,
    /// Off: neither runs nor receives.
    pub(crate) running: bool,
    /// The role and term that the effects follow, and when they will be there.
    acting: Option<u64>,
    change: Option<(Time, Option<u64>)>,
    /// Its state directory is lost.
    forgot: bool,
    /// What the environment answers to probes: `None` without a source.
    pub(crate) outside: Option<bool>,
    /// The errand that was run last.
    errand: Option<Errand>,
    /// What the machine finds when it is asked to take the role.
    pub(crate) doubt: Option<Doubt>,
    /// The machine answers no errand.
    pub(crate) mute: bool,
    pub(crate) flushes: usize,
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) members: Vec<Member>,
    pub(crate) packets: Vec<Packet>,
    /// Everything ever sent, for replays.
    pub(crate) seen: Vec<Packet>,
    /// (from, to) pairs over which nothing goes.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    pub(crate) delay: Duration,
    /// How long the reconciler takes.
    pub(crate) effort: Duration,
    /// Instants at which two nodes acted.
    pub(crate) two_acting: usize,
    boots: u8,
    pub(crate) keys: Keyring,
}

pub(crate) fn keys() -> Keyring {
    Keyring::generate(7, [9; 32])
}

/// A config for `name` in a cluster of `all`: (name, priority); names in `w…` are witnesses.
pub(crate) fn config(all: &[(&str, u8)], name: &str) -> NodeConfig {
    let priority = all.iter().find(|(n, _)| *n == name).unwrap().1;
    let peers = all.iter().filter(|(n, _)| *n != name);
    NodeConfig {
        cluster: "edge".into(),
        name: name.into(),
        witness: name.starts_with('w'),
        priority,
        interval: INTERVAL,
        misses: 3,
        preempt: None,
        handover_timeout: Duration::from_millis(500),
        neighbour_retry: NEIGHBOURS,
        fingerprint: [1; 16],
        wireguard: if name.starts_with('w') { WireguardKind::None } else { WireguardKind::Kernel },
        quorum: wgha_proto::Quorum::None,
        peers: peers
            .map(|(n, _)| PeerConfig { name: (*n).into(), witness: n.starts_with('w'), paths: 1 })
            .collect(),
    }
}

impl World {
    pub(crate) fn new(all: &[(&str, u8)]) -> World {
        World::with(all, |_| {})
    }

    pub(crate) fn with(all: &[(&str, u8)], adapt: impl Fn(&mut NodeConfig)) -> World {
        let mut world = World {
            now: Time::from_nanos(1_000_000_000_000),
            members: Vec::new(),
            packets: Vec::new(),
            seen: Vec::new(),
            cut: BTreeSet::new(),
            delay: MS,
            effort: 3 * MS,
            two_acting: 0,
            boots: 0,
            keys: keys(),
        };
        for (name, _) in all {
            let mut config = config(all, name);
            adapt(&mut config);
            // Not a machine that lost its memory: it never had one.
            let votes = VoteRecord::without_grant(Duration::ZERO);
            let node = world.boot(&config, 0, false, Some(votes));
            world.members.push(Member {
                name: (*name).into(),
                node,
                config,
                events: Vec::new(),
                running: true,
                acting: None,
                change: None,
                forgot: false,
                outside: None,
                errand: None,
                doubt: None,
                mute: false,
                flushes: 0,
            });
        }
        for index in 0..world.members.len() {
            world.report(index, Report::Ability(Ability::Ready));
        }
        world
    }

    fn boot(
        &mut self,
        config: &NodeConfig,
        highest_term: u64,
        maintenance: bool,
        votes: Option<VoteRecord>,
    ) -> Node {
        self.boots += 1;
        let boot = Boot {
            session: [self.boots; 16],
            obituary_secret: [self.boots; 32],
            highest_term,
            maintenance,
            votes,
        };
        let keys = if config.witness { self.keys.to_witness() } else { self.keys.clone() };
        Node::new(config.clone(), keys, boot, self.now)
    }

    pub(crate) fn index(&self, name: &str) -> usize {
        self.members.iter().position(|m| m.name == name).unwrap()
    }

    pub(crate) fn node(&mut self, name: &str) -> &mut Node {
        let index = self.index(name);
        &mut self.members[index].node
    }

    pub(crate) fn role(&self, name: &str) -> Role {
        self.members[self.index(name)].node.level().role
    }

    pub(crate) fn reason(&self, name: &str) -> Reason {
        self.members[self.index(name)].node.level().reason.clone()
    }

    /// The process dies without a word.
    pub(crate) fn kill(&mut self, name: &str) {
        let index = self.index(name);
        let member = &mut self.members[index];
        (member.running, member.acting, member.change) = (false, None, None);
    }

    /// The process dies, and whoever outlives it shows its obituary.
    pub(crate) fn bury(&mut self, name: &str) {
        self.kill(name);
        let from = self.index(name);
        let at = self.now + self.delay;
        let member = &self.members[from];
        for (peer, _, bytes) in member.node.obituaries() {
            let to = self.index(&member.config.peers[peer].name);
            self.packets.push(Packet { at, from, to, bytes });
        }
    }

    /// Starts the process again.
    pub(crate) fn start(&mut self, name: &str, maintenance: bool) {
        let index = self.index(name);
        let config = self.members[index].config.clone();
        // What the process kept on disk.
        let terms = self.members[index].events.iter().filter_map(|(_, event)| match event {
            Event::HighestTerm(term) => Some(*term),
            _ => None,
        });
        let highest = terms.max().unwrap_or(0);
        let mut votes = self.members[index].events.iter().rev().filter_map(|(_, e)| match e {
            Event::Votes(votes) => Some(votes.clone()),
            _ => None,
        });
        let votes = votes.next().filter(|_| !self.members[index].forgot);
        let node = self.boot(&config, highest, maintenance, votes);
        let member = &mut self.members[index];
        (member.node, member.running) = (node, true);
        self.report(index, Report::Ability(Ability::Ready));
    }

    /// The state directory is lost.
    pub(crate) fn forget(&mut self, name: &str) {
        let index = self.index(name);
        self.members[index].forgot = true;
    }

    /// Gives a node another config.
    pub(crate) fn reload(&mut self, name: &str, config: NodeConfig) {
        let (index, now) = (self.index(name), self.now);
        let keys = if config.witness { self.keys.to_witness() } else { self.keys.clone() };
        self.members[index].config = config.clone();
        self.members[index].node.reconfigure(now, config, keys);
        self.settle(index, None);
    }

    /// Cuts both directions between two nodes, or heals them.
    pub(crate) fn link(&mut self, a: &str, b: &str, up: bool) {
        let (a, b) = (self.index(a), self.index(b));
        for pair in [(a, b), (b, a)] {
            if up {
                self.cut.remove(&pair);
            } else {
                self.cut.insert(pair);
            }
        }
    }

    pub(crate) fn report(&mut self, index: usize, report: Report) {
        let now = self.now;
        self.members[index].node.handle_report(now, report);
        self.settle(index, None);
    }

    pub(crate) fn command(
        &mut self,
        name: &str,
        command: wgha_proto::Command,
    ) -> Result<(), wgha_proto::Refused> {
        let (index, now) = (self.index(name), self.now);
        let result = self.members[index].node.handle_command(now, command);
        self.settle(index, None);
        result
    }

    /// Runs for a while.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Does the next thing before `end`; false if there is none.
    fn step(&mut self, end: Time) -> bool {
        let running = self.members.iter().enumerate().filter(|(_, m)| m.running);
        let timers = running.map(|(i, m)| {
            let change = m.change.map_or(m.node.poll_timeout(), |(at, _)| at);
            (m.node.poll_timeout().min(change), i)
        });
        let timer = timers.min();
        let packet = (0..self.packets.len()).min_by_key(|i| self.packets[*i].at);
        let packet_at = packet.map(|i| self.packets[i].at);
        match (timer, packet_at) {
            (Some((at, index)), arrival) if arrival.is_none_or(|arrival| at < arrival) => {
                if at > end {
                    return false;
                }
                self.now = self.now.max(at);
                self.tick(index);
            }
            (_, Some(at)) => {
                if at > end {
                    return false;
                }
                self.now = self.now.max(at);
                let packet = self.packets.remove(packet.unwrap());
                self.deliver(packet);
            }
            _ => return false,
        }
        true
    }

    fn tick(&mut self, index: usize) {
        let now = self.now;
        let member = &mut self.members[index];
        if let Some((_, acting)) = member.change.filter(|(at, _)| *at <= now) {
            let before = std::mem::replace(&mut member.acting, acting);
            member.change = None;
            match (before, acting) {
                (_, Some(term)) => member.node.handle_report(now, Report::Entered(term)),
                (Some(term), None) => member.node.handle_report(now, Report::Left(term)),
                (None, None) => {}
            }
        } else {
            member.node.handle_timeout(now);
        }
        self.settle(index, None);
    }

    pub(crate) fn deliver(&mut self, packet: Packet) {
        if !self.members[packet.to].running || self.cut.contains(&(packet.from, packet.to)) {
            return;
        }
        let now = self.now;
        let mut bytes = packet.bytes;
        let _ = self.members[packet.to].node.handle_datagram(now, &mut bytes);
        self.settle(packet.to, Some(packet.from));
    }

    /// What the caller does after each input: send, record, follow the level.
    pub(crate) fn settle(&mut self, index: usize, sender: Option<usize>) {
        let (now, delay, effort) = (self.now, self.delay, self.effort);
        if self.members[index].node.wants_evidence()
            && let Some(answers) = self.members[index].outside
        {
            let evidence = if answers { Evidence::Answered(now) } else { Evidence::Silent };
            self.members[index].node.handle_evidence(now, evidence);
        }
        let mut out = Vec::new();
        while let Some(destination) = self.members[index].node.poll_transmit(now, &mut out) {
            assert!(out.len() <= wgha_proto::MAX_DATAGRAM);
            let to = match destination {
                Destination::Peer { peer, .. } => {
                    let name = &self.members[index].config.peers[peer].name;
                    self.members.iter().position(|m| m.name == *name)
                }
                Destination::Sender => Some(sender.expect("an answer needs a question")),
            };
            let Some(to) = to else { continue };
            let packet = Packet { at: now + delay, from: index, to, bytes: out.clone() };
            self.seen.push(packet.clone());
            self.packets.push(packet);
        }
        let member = &mut self.members[index];
        while let Some(event) = member.node.poll_event() {
            member.events.push((now, event));
        }
        if member.node.wants_session() {
            self.boots += 1;
            let number = self.boots;
            member.node.renew(now, [number; 16], &[number; 32]);
            return self.settle(index, None);
        }
        assert!(member.node.poll_timeout() > now, "a timeout in the past would spin");
        self.run_errand(index);
        let member = &mut self.members[index];
        let level = member.node.level();
        let wanted = (level.role == Role::Master).then_some(level.term);
        let going = member.change.map_or(member.acting, |(_, acting)| acting);
        if wanted != going {
            // Leaving is reported even where entering had not finished.
            if wanted.is_none() && member.acting.is_none() {
                member.acting = going;
            }
            member.change = Some((now + effort, wanted));
        }
        if self.members.iter().filter(|m| m.running && m.acting.is_some()).count() > 1 {
            self.two_acting += 1;
        }
    }

    /// What a handover asks of the machine, answered at once unless the machine is `mute`.
    fn run_errand(&mut self, index: usize) {
        let member = &mut self.members[index];
        let errand = member.node.level().errand.clone();
        if errand == member.errand || member.mute {
            return;
        }
        member.errand.clone_from(&errand);
        match errand {
            Some(Errand::Examine { id, .. }) => {
                let found = member.doubt.map_or(Ok(()), Err);
                self.report(index, Report::Examined(id, found));
            }
            Some(Errand::Flush { id, .. }) => {
                member.flushes += 1;
                self.report(index, Report::Flushed(id));
            }
            None => {}
        }
    }

    /// Reasons of all role changes of a node, in order.
    pub(crate) fn reasons(&self, name: &str) -> Vec<Reason> {
        let events = &self.members[self.index(name)].events;
        let reasons = events.iter().filter_map(|(_, event)| match event {
            Event::Role { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        reasons.collect()
    }

    pub(crate) fn saw(&self, name: &str, wanted: impl Fn(&Event) -> bool) -> usize {
        self.members[self.index(name)].events.iter().filter(|(_, event)| wanted(event)).count()
    }

    /// When the node last took this role.
    pub(crate) fn since(&self, name: &str, role: Role) -> Time {
        let events = &self.members[self.index(name)].events;
        let mut changes = events.iter().rev();
        changes.find(|(_, e)| matches!(e, Event::Role { to, .. } if *to == role)).unwrap().0
    }

    pub(crate) fn masters(&self) -> Vec<&str> {
        let members =
            self.members.iter().filter(|m| m.running && m.node.level().role == Role::Master);
        members.map(|m| m.name.as_str()).collect()
    }
}
