//! The etcd that votes, as a store that is right and otherwise anything: slow, unreachable, down; and the agents of the
//! hosts, which are the real ones.
//!
//! Its clock may be as wrong as any other. What stands under a lease is gone the moment that the lease is over by that
//! clock, which etcd itself only manages to do later. A request whose answer is lost may have been done, or be done late.

use std::collections::BTreeMap;
use std::time::Duration;

use wgha_proto::{
    Agent, Answer, ArbiterHeader, Change, Kept, NodeConfig, Register, Request, Time, Vote,
    arbiter_voter,
};

use crate::clock::Clock;
use crate::host::Input;
use crate::options::{MS, Nanos};
use crate::rng::Rng;
use crate::stats::Situation;
use crate::world::{Happening, World, host_name};

/// The store.
#[derive(Debug)]
pub(crate) struct Etcd {
    clock: Clock,
    revision: u64,
    /// `master`, and the lease that it stands under.
    bound: Option<(Vote, u64, i64)>,
    highest: Option<(Vote, u64)>,
    /// When each lease ends, by its clock, and how long it was.
    leases: BTreeMap<i64, (Time, Duration)>,
    next_lease: i64,
    /// How many faults keep it down.
    pub(crate) down: u32,
    /// How many faults keep each host from it.
    pub(crate) cuts: Vec<u32>,
    /// One way, at most.
    delay: Nanos,
    /// What faults add.
    pub(crate) slower: Nanos,
    /// Broken: it keeps nothing for as long as it says.
    hasty: bool,
}

/// What a process keeps of its agent.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    agent: Agent,
    /// The number of the request that is under way.
    number: u64,
    /// When its own timer is set.
    due: Nanos,
}

impl Etcd {
    pub(crate) fn draw(rng: &mut Rng, hosts: usize, interval: Nanos, hasty: bool) -> Etcd {
        Etcd {
            clock: Clock::draw(rng),
            revision: 1,
            bound: None,
            highest: None,
            leases: BTreeMap::new(),
            next_lease: 1,
            down: 0,
            cuts: vec![0; hosts],
            delay: rng.within(MS / 10, interval / 4),
            slower: 0,
            hasty,
        }
    }

    /// What is over by time.
    fn expire(&mut self, now: Nanos) {
        let local = self.clock.local(now);
        self.leases.retain(|_, (end, _)| local < *end);
        if self.bound.as_ref().is_some_and(|(.., lease)| !self.leases.contains_key(lease)) {
            self.bound = None;
            self.revision += 1;
        }
    }

    fn register(&self) -> Register {
        let kept = |vote: &Vote, revision| Kept { vote: Some(vote.clone()), revision };
        Register {
            bound: self.bound.as_ref().map(|(vote, revision, _)| kept(vote, *revision)),
            highest: self.highest.as_ref().map(|(vote, revision)| kept(vote, *revision)),
        }
    }

    /// Starts again: every lease has its whole length before it.
    fn restart(&mut self, now: Nanos) {
        let local = self.clock.local(now);
        self.leases.values_mut().for_each(|(end, length)| *end = local + *length);
    }

    fn serve(&mut self, now: Nanos, request: &Request) -> Option<Answer> {
        self.expire(now);
        match request {
            Request::Look => Some(Answer::Seen(self.register())),
            Request::Lease { seconds } => {
                let (id, length) = (self.next_lease, Duration::from_secs(u64::from(*seconds)));
                let length = if self.hasty { length / 8 } else { length };
                self.next_lease += 1;
                self.leases.insert(id, (self.clock.local(now) + length, length));
                Some(Answer::Leased { id, seconds: *seconds })
            }
            Request::Write { expected, .. } if *expected != self.register().revisions() => {
                Some(Answer::Seen(self.register()))
            }
            Request::Write { change, .. } => {
                self.revision += 1;
                self.write(change).then_some(Answer::Written)
            }
        }
    }

    fn write(&mut self, change: &Change) -> bool {
        match change {
            Change::Take { lease, .. } if !self.leases.contains_key(lease) => return false,
            Change::Take { lease, vote } => {
                self.bound = Some((vote.clone(), self.revision, *lease));
                self.highest = Some((vote.clone(), self.revision));
            }
            Change::Free { highest } => {
                self.bound = None;
                if let Some(vote) = highest {
                    self.highest = Some((vote.clone(), self.revision));
                }
            }
        }
        true
    }
}

impl Desk {
    /// Of a process that starts.
    pub(crate) fn new(config: &NodeConfig, session: [u8; 16]) -> Desk {
        let names: Vec<&str> = config.peers.iter().map(|peer| peer.name.as_str()).collect();
        let all = names.into_iter().chain([config.name.as_str()]);
        let voter = arbiter_voter(&config.cluster, all);
        let mut agent = Agent::new(&config.cluster, &voter, &config.name, session);
        agent.pace(config.interval, config.detection());
        Desk { agent, number: 0, due: 0 }
    }
}

impl World {
    /// After every input of a host: its agent hears what is wished, and asks.
    pub(crate) fn desk(&mut self, host: usize) {
        let local = self.hosts[host].clock.local(self.now);
        let Some(process) = &mut self.hosts[host].process else { return };
        let Some(desk) = &mut process.desk else { return };
        desk.agent.wish(process.node.arbiter_wish());
        let request = desk.agent.request(local);
        let mut words = Vec::new();
        while let Some(word) = desk.agent.word() {
            words.push(word);
        }
        if request.is_some() {
            desk.number += 1;
        }
        let (number, due) = (desk.number, desk.agent.due());
        let timeout = local + desk.agent.timeout();
        let boot = self.hosts[host].boots;
        for word in words {
            self.note(|| format!("{} hears of etcd: {word:?}", host_name(host)));
            if matches!(word, wgha_proto::Word::Granted { .. }) {
                self.stats.add(Situation::EtcdGranted);
            }
            let late = self.rng.within(1, self.o.latency());
            self.at(self.now + late, Happening::Word(host, boot, word));
        }
        if let Some(request) = request {
            self.note(|| format!("{} asks etcd: {request:?}", host_name(host)));
            let timeout = self.hosts[host].clock.world(timeout);
            self.at(timeout, Happening::Answered(host, boot, number, None));
            let delay = self.etcd_delay();
            if !self.is_cut_from_etcd(host) {
                self.at(self.now + delay, Happening::Etcd(host, boot, number, request));
            }
        }
        self.wake_desk(host, due);
    }

    fn wake_desk(&mut self, host: usize, due: Option<Time>) {
        let now = self.now;
        let h = &mut self.hosts[host];
        let Some(due) = due.map(|due| h.clock.world(due).max(now + 1)) else { return };
        let boot = h.boots;
        let Some(desk) = h.process.as_mut().and_then(|process| process.desk.as_mut()) else {
            return;
        };
        if desk.due != due {
            desk.due = due;
            self.at(due, Happening::Desk(host, boot));
        }
    }

    fn etcd_delay(&mut self) -> Nanos {
        let Some(etcd) = &self.etcd else { return 0 };
        let most = etcd.delay + etcd.slower;
        self.rng.within(etcd.delay / 2, most)
    }

    pub(crate) fn is_cut_from_etcd(&self, host: usize) -> bool {
        self.etcd.as_ref().is_some_and(|etcd| etcd.down > 0 || etcd.cuts[host] > 0)
    }

    /// A request arrives at the store.
    pub(crate) fn serve(&mut self, host: usize, boot: u32, number: u64, request: &Request) {
        let (now, down) = (self.now, self.is_cut_from_etcd(host));
        let (cluster, delay) = (7, self.etcd_delay());
        let Some(etcd) = self.etcd.as_mut().filter(|etcd| etcd.down == 0) else { return };
        let answer = etcd.serve(now, request);
        let header = ArbiterHeader { cluster, revision: etcd.revision };
        self.note(|| format!("  etcd: {answer:?} to {}", host_name(host)));
        if !down {
            let answer = answer.map(|answer| (header, answer));
            self.at(now + delay, Happening::Answered(host, boot, number, answer));
        }
    }

    /// An answer, or that none came in time.
    pub(crate) fn answered(
        &mut self,
        host: usize,
        number: u64,
        answer: Option<(ArbiterHeader, Answer)>,
    ) {
        let now = self.hosts[host].clock.local(self.now);
        let Some(process) = &mut self.hosts[host].process else { return };
        let Some(desk) = process.desk.as_mut().filter(|desk| desk.number == number) else { return };
        desk.agent.answer(now, answer);
        // The next answer is to another request.
        desk.number += 1;
    }

    pub(crate) fn etcd_down(&mut self) {
        if let Some(etcd) = &mut self.etcd {
            etcd.down += 1;
            self.stats.add(Situation::EtcdDown);
        }
    }

    pub(crate) fn etcd_up(&mut self) {
        let now = self.now;
        if let Some(etcd) = &mut self.etcd {
            etcd.down -= 1;
            if etcd.down == 0 {
                etcd.expire(now);
                etcd.restart(now);
            }
        }
    }

    /// The vote of etcd is this host's, or could be at once.
    pub(crate) fn etcd_votes(&self, host: usize) -> usize {
        usize::from(self.etcd.is_some() && !self.is_cut_from_etcd(host))
    }

    pub(crate) fn feed_answer(
        &mut self,
        host: usize,
        boot: u32,
        number: u64,
        answer: Option<(ArbiterHeader, Answer)>,
    ) {
        if self.hosts[host].boots == boot {
            self.feed(host, Input::Answered(number, answer));
        }
    }
}
