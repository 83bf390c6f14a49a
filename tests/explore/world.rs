//! Two gateways and a witness, with everything around them that the nodes do not do themselves.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use wgha_proto::{
    Ability, Boot, Command, Destination, Errand, Event, Keyring, LEAST_REACTION, Node, NodeConfig,
    PeerConfig, Quorum, Reason, Report, Role, Term, Time, VoteRecord, WireguardKind,
};

/// Nanoseconds of the world's clock.
type Nanos = u64;

const MS: Nanos = 1_000_000;
const INTERVAL: Nanos = 100 * MS;
const MISSES: u8 = 3;
/// A lease, and the detection time.
pub(crate) const LEASE: Nanos = INTERVAL * MISSES as Nanos;
/// Choices are made this often.
pub(crate) const STEP: Nanos = INTERVAL / 2;
/// One way. Shorter than the time in which a gate may be late.
const DELAY: Nanos = 6 * MS;
/// What comes late comes so much later: inside the lease of its sender, or of its successor.
const LATE: Nanos = LEASE * 7 / 10;
/// What a gate may close late.
const REACTION: Nanos = LEAST_REACTION.as_nanos() as Nanos;
/// Until effects are off.
const LEAVING: Nanos = 15 * MS;
/// Times are compared in steps of this.
const GRAIN: Duration = Duration::from_millis(2);

pub(crate) const HOSTS: usize = 3;
const NAMES: [&str; HOSTS] = ["gw1", "gw2", "w1"];

/// Rates of the three clocks, in parts per million: at their bounds.
pub(crate) const PAIRS: [[i64; HOSTS]; 2] = [[-10_000, 10_000, 10_000], [10_000, -10_000, 10_000]];

/// What a search must meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Takeover,
    Handover,
    SplitVote,
    Expiry,
    RestartInLease,
}

impl Seen {
    pub(crate) const ALL: [Seen; 5] =
        [Seen::Takeover, Seen::Handover, Seen::SplitVote, Seen::Expiry, Seen::RestartInLease];
}

/// A datagram under way.
#[derive(Clone, Debug)]
struct Flying {
    at: Nanos,
    from: usize,
    to: usize,
    bytes: Arc<[u8]>,
    /// The sender's fingerprint when it sent this.
    print: u64,
}

#[derive(Clone)]
struct Host {
    config: NodeConfig,
    /// How fast its clock runs, and what it showed at the world's zero.
    ppm: i64,
    offset: Nanos,
    node: Option<Node>,
    boots: u8,
    paused: bool,
    /// What came while it was paused.
    inbox: Vec<Flying>,
    /// Until when the machine's gate lets pass.
    gate_until: Nanos,
    /// The term whose effects stand, and when they will be off.
    acting: Option<Term>,
    off_at: Option<Nanos>,
    errand: Option<Errand>,
    highest: Term,
    votes: VoteRecord,
}

#[derive(Clone)]
pub(crate) struct World {
    now: Nanos,
    hosts: Vec<Host>,
    flying: Vec<Flying>,
    pub(crate) cut: [[bool; HOSTS]; HOSTS],
    pub(crate) off: [bool; HOSTS],
    pub(crate) late: [[bool; HOSTS]; HOSTS],
    pub(crate) twice: [[bool; HOSTS]; HOSTS],
    /// Gates stay open half a lease beyond their time.
    late_gate: bool,
    seen: Vec<Seen>,
    /// What must not be.
    pub(crate) broken: Option<String>,
}

fn config(me: usize) -> NodeConfig {
    let others = (0..HOSTS).filter(|other| *other != me);
    NodeConfig {
        cluster: "explored".to_owned(),
        name: NAMES[me].to_owned(),
        witness: me == 2,
        priority: if me == 0 { 150 } else { 100 },
        interval: Duration::from_nanos(INTERVAL),
        misses: MISSES,
        preempt: None,
        handover_timeout: Duration::from_millis(500),
        neighbour_retry: Duration::ZERO,
        fingerprint: [1; 16],
        wireguard: if me == 2 { WireguardKind::None } else { WireguardKind::Kernel },
        quorum: Quorum::Majority { reaction: LEAST_REACTION, arbiter: false },
        peers: others
            .map(|other| PeerConfig {
                name: NAMES[other].to_owned(),
                witness: other == 2,
                paths: 1,
            })
            .collect(),
    }
}

/// The host that a node's peer of this index is.
fn host_of(me: usize, peer: usize) -> usize {
    if peer < me { peer } else { peer + 1 }
}

/// The other way round.
fn peer_of(me: usize, host: usize) -> usize {
    if host < me { host } else { host - 1 }
}

impl Host {
    fn local(&self, world: Nanos) -> Time {
        let drift = i128::from(world) * i128::from(self.ppm) / 1_000_000;
        Time::from_nanos((i128::from(self.offset) + i128::from(world) + drift) as u64)
    }

    /// The first instant of the world at which its clock shows this.
    fn world(&self, local: Time) -> Nanos {
        let since = i128::from(local.as_nanos()) - i128::from(self.offset);
        (since.max(0) * 1_000_000 / (1_000_000 + i128::from(self.ppm)) + 2) as Nanos
    }

    fn runs(&self) -> bool {
        self.node.is_some() && !self.paused
    }

    /// That of its run, or of the last session that began in it.
    fn session(&self, host: usize) -> [u8; 16] {
        let mut session = [self.boots; 16];
        session[0] = host as u8;
        session
    }
}

fn secret(session: [u8; 16]) -> [u8; 32] {
    session.repeat(2).try_into().unwrap_or([0; 32])
}

impl World {
    /// All three start now, and have never granted anything.
    pub(crate) fn new(rates: [i64; HOSTS], late_gate: bool) -> World {
        let hosts = rates.into_iter().enumerate().map(|(me, ppm)| Host {
            config: config(me),
            ppm,
            offset: (me as Nanos + 1) * 1_000_000 * MS,
            node: None,
            boots: 0,
            paused: false,
            inbox: Vec::new(),
            gate_until: 0,
            acting: None,
            off_at: None,
            errand: None,
            highest: 0,
            votes: VoteRecord::without_grant(Duration::ZERO),
        });
        let mut world = World {
            now: 0,
            hosts: hosts.collect(),
            flying: Vec::new(),
            cut: Default::default(),
            off: Default::default(),
            late: Default::default(),
            twice: Default::default(),
            late_gate,
            seen: Vec::new(),
            broken: None,
        };
        for host in 0..HOSTS {
            world.boot(host);
        }
        world
    }

    /// Runs until the better gateway is master, and everything that comes of the start is over.
    pub(crate) fn settle_down(&mut self) {
        for _ in 0..10 * LEASE / STEP {
            self.step();
        }
        assert_eq!((self.is_master(0), self.is_master(1)), (true, false));
        self.seen.clear();
    }

    pub(crate) fn take_seen(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }

    /// One step of time, and everything that comes due in it.
    pub(crate) fn step(&mut self) {
        let end = self.now + STEP;
        while let Some((at, due)) = self.next_due().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.happen(due);
        }
        self.now = end;
        (self.late, self.twice) = Default::default();
    }

    /// The next thing: datagrams before machines before timers, so that one order is always taken.
    fn next_due(&self) -> Option<(Nanos, Due)> {
        let flying = self.flying.iter().enumerate().map(|(i, d)| (d.at, Due::Arrival(i)));
        let off = self.hosts.iter().enumerate().filter(|(_, host)| host.runs());
        let off = off.filter_map(|(i, host)| Some((host.off_at?, Due::Off(i))));
        let timers = self.hosts.iter().enumerate().filter(|(_, host)| host.runs());
        let timers = timers.filter_map(|(i, host)| {
            Some((host.world(host.node.as_ref()?.poll_timeout()), Due::Timer(i)))
        });
        flying.chain(off).chain(timers).min_by_key(|(at, due)| (*at, *due))
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Arrival(index) => {
                let datagram = self.flying.swap_remove(index);
                self.arrive(datagram);
            }
            Due::Off(host) => {
                self.hosts[host].off_at = None;
                if let Some(term) = self.hosts[host].acting.take() {
                    self.hosts[host].gate_until = self.hosts[host].gate_until.min(self.now);
                    self.feed(host, |node, now| node.handle_report(now, Report::Left(term)));
                }
            }
            Due::Timer(host) => self.feed(host, Node::handle_timeout),
        }
    }

    fn arrive(&mut self, datagram: Flying) {
        let (from, to) = (datagram.from, datagram.to);
        if self.hosts[to].paused {
            self.hosts[to].inbox.push(datagram);
            return;
        }
        let mut bytes = datagram.bytes.to_vec();
        self.input(to, Some(from), |node, now| {
            node.handle_timeout(now);
            // What is refused changes nothing.
            let _ = node.handle_datagram(now, &mut bytes);
        });
    }

    fn feed(&mut self, host: usize, input: impl FnOnce(&mut Node, Time)) {
        self.input(host, None, input);
    }

    /// Gives a node an input, and does what it then wants.
    fn input(&mut self, host: usize, from: Option<usize>, input: impl FnOnce(&mut Node, Time)) {
        let now = self.hosts[host].local(self.now);
        let Some(mut node) = self.hosts[host].node.take() else { return };
        input(&mut node, now);
        self.hosts[host].node = Some(node);
        self.follow(host);
        self.send(host, from);
        self.events(host);
        self.set_gate(host);
        self.renew(host);
        self.errand(host);
    }

    /// A new session in the same process, when the last is over.
    fn renew(&mut self, host: usize) {
        let now = self.hosts[host].local(self.now);
        let h = &mut self.hosts[host];
        if !h.node.as_ref().is_some_and(Node::wants_session) {
            return;
        }
        h.boots += 1;
        let session = h.session(host);
        h.votes.longest = h.votes.longest.max(h.config.detection());
        self.feed(host, |node, _| node.renew(now, session, &secret(session)));
    }

    /// The machine follows the level.
    fn follow(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        let Some(node) = &h.node else { return };
        let level = node.level();
        let wanted = (level.role == Role::Master).then_some(level.term);
        match (h.acting, wanted) {
            (None, Some(term)) => h.acting = Some(term),
            (Some(_), None) if h.off_at.is_none() => h.off_at = Some(self.now + LEAVING),
            _ => {}
        }
    }

    fn send(&mut self, host: usize, back: Option<usize>) {
        let now = self.hosts[host].local(self.now);
        let (mut out, mut batch) = (Vec::new(), Vec::new());
        let Some(node) = &mut self.hosts[host].node else { return };
        while let Some(destination) = node.poll_transmit(now, &mut out) {
            let to = match destination {
                Destination::Peer { peer, .. } => Some(host_of(host, peer)),
                Destination::Sender => back,
            };
            batch.extend(to.map(|to| (to, Arc::<[u8]>::from(out.as_slice()))));
        }
        if batch.is_empty() {
            return;
        }
        let print = self.fingerprint(host);
        for (to, bytes) in batch {
            if self.cut[host][to] || self.off[host] || self.off[to] {
                continue;
            }
            let at = self.now + DELAY + if self.late[host][to] { LATE } else { 0 };
            let datagram = Flying { at, from: host, to, bytes, print };
            if self.twice[host][to] {
                self.flying.push(Flying { at: at + LATE, ..datagram.clone() });
            }
            self.flying.push(datagram);
        }
    }

    fn events(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        let Some(node) = &mut h.node else { return };
        while let Some(event) = node.poll_event() {
            match event {
                Event::HighestTerm(term) => h.highest = term,
                Event::Votes(votes) => h.votes = votes,
                Event::Withdrew(_) => self.seen.push(Seen::SplitVote),
                Event::Role { to: Role::Master, reason: Reason::HandoverFrom(_), .. } => {
                    self.seen.push(Seen::Handover);
                }
                // The first election of all is none.
                Event::Role { to: Role::Master, reason: Reason::NoMaster, .. } => {}
                Event::Role { to: Role::Master, .. } => self.seen.push(Seen::Takeover),
                Event::Role { reason: Reason::LeaseLost, .. } => self.seen.push(Seen::Expiry),
                _ => {}
            }
        }
    }

    fn set_gate(&mut self, host: usize) {
        let slack = if self.late_gate { LEASE / 2 } else { 0 };
        let h = &mut self.hosts[host];
        let Some(node) = &h.node else { return };
        h.gate_until = match node.permitted_until() {
            Some(until) => h.world(until) + REACTION + slack,
            None => h.gate_until.min(self.now + REACTION + slack),
        };
        let open = |h: &&Host| h.gate_until > self.now;
        if self.hosts.iter().filter(open).count() > 1 {
            let until = |h: &Host| h.gate_until as f64 / MS as f64;
            let gates: Vec<f64> = self.hosts.iter().map(until).collect();
            let now = self.now as f64 / MS as f64;
            self.broken = Some(format!("at {now} ms the gates are open until {gates:?}"));
        }
    }

    fn errand(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        let Some(node) = &h.node else { return };
        let errand = node.level().errand.clone();
        if errand == h.errand {
            return;
        }
        h.errand.clone_from(&errand);
        let report = match errand {
            Some(Errand::Examine { id, .. }) => Report::Examined(id, Ok(())),
            Some(Errand::Flush { id, .. }) => Report::Flushed(id),
            None => return,
        };
        self.feed(host, |node, now| node.handle_report(now, report));
    }

    /// A process starts, with what the disk has.
    pub(crate) fn boot(&mut self, host: usize) {
        let keys = Keyring::generate(1, [7; 32]);
        let open = self.hosts.iter().any(|h| h.gate_until > self.now);
        let now = self.hosts[host].local(self.now);
        let h = &mut self.hosts[host];
        h.boots += 1;
        if h.boots > 1 && open {
            self.seen.push(Seen::RestartInLease);
        }
        let session = h.session(host);
        let boot = Boot {
            session,
            obituary_secret: secret(session),
            highest_term: h.highest,
            maintenance: false,
            votes: Some(h.votes.clone()),
        };
        // Written before the node runs.
        h.votes.longest = h.votes.longest.max(h.config.detection());
        let keys = if h.config.witness { keys.to_witness() } else { keys };
        h.node = Some(Node::new(h.config.clone(), keys, boot, now));
        // What a run before left is taken off by the start.
        (h.acting, h.off_at, h.errand) = (None, None, None);
        h.gate_until = h.gate_until.min(self.now);
        self.feed(host, |node, now| node.handle_report(now, Report::Ability(Ability::Ready)));
    }

    pub(crate) fn is_down(&self, host: usize) -> bool {
        self.hosts[host].node.is_none()
    }

    pub(crate) fn runs(&self, host: usize) -> bool {
        self.hosts[host].runs()
    }

    pub(crate) fn is_master(&self, host: usize) -> bool {
        self.hosts[host].node.as_ref().is_some_and(|node| node.level().role == Role::Master)
    }

    /// The process is gone. The gate closes when its time is over.
    pub(crate) fn kill(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        (h.node, h.paused, h.off_at) = (None, false, None);
        h.inbox.clear();
    }

    pub(crate) fn pause(&mut self, host: usize) {
        self.hosts[host].paused = true;
    }

    /// First its timers, then what its socket kept.
    pub(crate) fn resume(&mut self, host: usize) {
        self.hosts[host].paused = false;
        self.feed(host, Node::handle_timeout);
        for datagram in std::mem::take(&mut self.hosts[host].inbox) {
            self.arrive(datagram);
        }
    }

    /// What is refused changes nothing.
    pub(crate) fn command(&mut self, host: usize, command: Command) {
        self.feed(host, |node, now| drop(node.handle_command(now, command)));
    }

    fn fingerprint(&self, host: usize) -> u64 {
        let h = &self.hosts[host];
        let Some(node) = &h.node else { return 0 };
        let last = |peer: usize| {
            let other = host_of(host, peer);
            let node = self.hosts[other].node.as_ref();
            node.map_or(0, |node| node.last_number(peer_of(other, host)))
        };
        node.fingerprint(h.local(self.now), GRAIN, &last)
    }

    /// Two worlds with the same print go on alike, up to the grain of time.
    pub(crate) fn print(&self) -> u64 {
        let mut p = DefaultHasher::new();
        let away = |at: Nanos| at.saturating_sub(self.now) / GRAIN.as_nanos() as Nanos;
        for (index, h) in self.hosts.iter().enumerate() {
            self.fingerprint(index).hash(&mut p);
            (h.node.is_some(), h.boots, h.paused, away(h.gate_until), h.acting).hash(&mut p);
            (h.off_at.map(away), h.highest, h.votes.longest, h.votes.term).hash(&mut p);
            (h.votes.session, &h.votes.voters).hash(&mut p);
            h.inbox.iter().for_each(|d| (d.from, d.print).hash(&mut p));
        }
        (self.cut, self.off, self.late, self.twice).hash(&mut p);
        let mut flying: Vec<_> =
            self.flying.iter().map(|d| (away(d.at), d.from, d.to, d.print)).collect();
        flying.sort_unstable();
        flying.hash(&mut p);
        p.finish()
    }
}

/// Something that comes due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Arrival(usize),
    Off(usize),
    Timer(usize),
}
