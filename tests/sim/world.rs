//! The world: hosts, network, reconcilers and faults on one virtual time line.
//!
//! It drives a `Node` as `src/daemon.rs` does: first the timer, then one input, then everything the node
//! wants sent, then the level to the reconciler, then the events.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use wgha_proto::{
    Command, Destination, Event, Evidence, Health, Keyring, NodeConfig, Refused, Role,
};

use crate::attacker::Attacker;
use crate::audit::{Audit, Rule};
use crate::etcd::{Desk, Etcd};
use crate::faults::Faults;
use crate::gateway::Manner;
use crate::host::{Attack, Host, Input, Origin};
use crate::network::{Datagram, Network};
use crate::options::{Nanos, Options, member_of_peer};
use crate::rng::Rng;
use crate::stats::{Situation, Stats};

/// A broken driver: each is caught by an invariant, or the invariant is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    None,
    Reconciler(Manner),
    /// Every probe of the router counts as answered.
    EvidenceIgnored,
    /// Claims are lost between the socket and the node.
    ClaimsLost,
    /// Good datagrams are damaged between the socket and the node.
    Damaged,
    /// The nodes' clocks run at a third, or three times as fast, and their timers with them.
    SlowClock,
    FastClock,
    /// The disk forgets the highest term.
    DiskForgets,
    /// Every third role event is lost.
    EventLost,
    /// Somebody switches maintenance on that no operator asked for.
    Meddler,
    /// Something other than the datagram changes the node while the attacker's is read.
    AttackHelped,
    /// Every fourth due heartbeat waits for the next timer.
    HeartbeatsLate,
    /// Every datagram is sent nine times.
    Storm,
    /// The answers to commands that end later never come.
    AnswersLost,
    /// The process stays when it has stopped.
    StaysStopped,
    /// No gateway comes back when everything is healed.
    NeverRecovers,
    /// Obituaries are shown of processes that live.
    BuriedAlive,
    /// Obituaries are shown before the effects are off.
    BuriedEarly,
    /// The guard does not shut the gate. Only with leases.
    BuriedOpen,
    /// Voters forget what they granted when they restart.
    VotesForgotten,
    /// The gate stays open beyond the permission.
    GateOpen,
    /// etcd forgets what is bound before its time.
    EtcdHasty,
}

/// Something that happens at a time.
#[derive(Debug)]
pub(crate) enum Happening {
    Deliver(Datagram, Origin),
    Wake(usize),
    Gateway(usize),
    /// The guard of this run of a host has taken its effects off.
    Guard(usize, u32, Vec<(usize, u8, Vec<u8>)>),
    Probe(usize),
    Answer(usize, u32, Evidence),
    Health(usize, u32),
    /// A request to etcd arrives, of this host, its run, its number.
    Etcd(usize, u32, u64, wgha_proto::Request),
    Answered(usize, u32, u64, Option<(wgha_proto::ArbiterHeader, wgha_proto::Answer)>),
    /// The agent tells its node.
    Word(usize, u32, wgha_proto::Word),
    /// The agent's timer.
    Desk(usize, u32),
    Fault(usize),
    Heal(usize),
    Attack,
    /// A look at the invariants though nothing else happens.
    Look,
}

/// Where the datagram came from that is being handled: host, path, and its run and time of sending.
type Back = (usize, u8, (u32, Nanos));

struct Entry {
    at: Nanos,
    order: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub(crate) struct World {
    pub(crate) now: Nanos,
    pub(crate) o: Options,
    pub(crate) rng: Rng,
    pub(crate) hosts: Vec<Host>,
    pub(crate) network: Network,
    pub(crate) faults: Faults,
    pub(crate) attacker: Attacker,
    pub(crate) audit: Audit,
    pub(crate) stats: Stats,
    pub(crate) etcd: Option<Etcd>,
    pub(crate) mutation: Mutation,
    pub(crate) trace: bool,
    /// The trace shows every datagram.
    wire: bool,
    queue: BinaryHeap<Reverse<Entry>>,
    order: u64,
    messages: u64,
    /// The node that runs now said that it stopped.
    stopped: bool,
    /// Everything of chance has stopped.
    pub(crate) healed: bool,
    /// All members are in everyone's config.
    pub(crate) joined: bool,
}

impl World {
    pub(crate) fn new(mut rng: Rng, o: Options, mutation: Mutation, trace: bool) -> World {
        let keys = Keyring::generate(1, rng.bytes());
        // One more host than members: where a second process of some name may run.
        let mut hosts: Vec<Host> = (0..=o.members())
            .map(|host| {
                let member = host % o.members();
                let keys = if o.is_witness(member) { keys.to_witness() } else { keys.clone() };
                Host::new(member, o.first_config(member), keys, &mut rng)
            })
            .collect();
        for host in &mut hosts {
            match mutation {
                Mutation::Reconciler(manner) => host.gateway = crate::gateway::Gateway::new(manner),
                Mutation::SlowClock => host.clock = host.clock.with_ppm(-660_000),
                Mutation::FastClock => host.clock = host.clock.with_ppm(2_000_000),
                _ => {}
            }
        }
        let count = hosts.len();
        let hasty = mutation == Mutation::EtcdHasty;
        let etcd = o.etcd.then(|| Etcd::draw(&mut rng, count, o.interval, hasty));
        World {
            etcd,
            now: 0,
            network: Network::new(count, o.paths),
            faults: Faults::new(),
            attacker: Attacker::default(),
            audit: Audit::new(count, &o),
            stats: Stats::new(),
            o,
            rng,
            hosts,
            mutation,
            trace,
            wire: trace && std::env::var_os("WGHA_SIM_WIRE").is_some(),
            queue: BinaryHeap::new(),
            order: 0,
            messages: 0,
            stopped: false,
            healed: false,
            joined: false,
        }
    }

    /// Runs until `end`, or until an invariant is broken.
    pub(crate) fn run_until(&mut self, end: Nanos) {
        while self.audit.violation.is_none() {
            match self.queue.peek() {
                Some(Reverse(entry)) if entry.at <= end => {}
                _ => break,
            }
            let Some(Reverse(entry)) = self.queue.pop() else { break };
            self.now = entry.at;
            self.happen(entry.what);
            Audit::look(self);
        }
        self.now = self.now.max(end);
    }

    pub(crate) fn at(&mut self, at: Nanos, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Entry { at: at.max(self.now), order: self.order, what }));
    }

    pub(crate) fn fault_at(&mut self, at: Nanos, fault: usize) {
        self.at(at, Happening::Fault(fault));
    }

    pub(crate) fn heal_at(&mut self, at: Nanos, fault: usize) {
        self.at(at, Happening::Heal(fault));
    }

    /// From now on the invariants are looked at, and the attacker strikes.
    pub(crate) fn watch(&mut self) {
        self.at(self.now, Happening::Look);
        self.at(self.now, Happening::Attack);
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Deliver(datagram, origin) => {
                self.feed(datagram.to, Input::Datagram(datagram, origin));
            }
            Happening::Wake(host) => {
                let due = self.hosts[host].process.as_ref().is_some_and(|p| p.wake_at <= self.now);
                if due && self.hosts[host].running() {
                    self.feed(host, Input::Timer);
                }
            }
            Happening::Gateway(host) => self.gateway(host),
            Happening::Guard(host, boot, obituaries) => self.bury(host, boot, obituaries),
            Happening::Probe(host) => self.probe(host),
            Happening::Answer(host, boot, evidence) => {
                if self.hosts[host].boots == boot {
                    if let Some(process) = &mut self.hosts[host].process {
                        process.probing = false;
                    }
                    self.feed(host, Input::Evidence(evidence));
                    self.probe_if_wanted(host);
                }
            }
            Happening::Health(host, boot) => {
                if self.hosts[host].boots == boot && self.hosts[host].running() {
                    self.check_health(host);
                }
                if self.hosts[host].boots == boot && self.hosts[host].process.is_some() {
                    let next = self.now + self.o.interval * 2;
                    self.at(next, Happening::Health(host, boot));
                }
            }
            Happening::Etcd(host, boot, number, request) => {
                self.serve(host, boot, number, &request);
            }
            Happening::Answered(host, boot, number, answer) => {
                self.feed_answer(host, boot, number, answer);
            }
            Happening::Word(host, boot, word) => {
                if self.hosts[host].boots == boot {
                    self.feed(host, Input::Word(word));
                }
            }
            Happening::Desk(host, boot) => {
                if self.hosts[host].boots == boot && self.hosts[host].running() {
                    self.desk(host);
                }
            }
            Happening::Fault(fault) => Faults::strike(self, fault),
            Happening::Heal(fault) => Faults::heal(self, fault),
            Happening::Attack => {
                Attacker::strike(self);
                // With leases there are more members, and the attacker is tried without.
                let pause = if self.o.majority { self.o.interval * 5 } else { self.o.interval / 2 };
                self.at(self.now + pause, Happening::Attack);
            }
            Happening::Look => {
                Audit::look_slowly(self);
                self.at(self.now + self.o.interval / 4, Happening::Look);
            }
        }
    }

    pub(crate) fn boot(&mut self, host: usize) {
        let now = self.now;
        let mut disk = self.hosts[host].disk.clone();
        if self.mutation == Mutation::DiskForgets {
            disk.highest_term = 0;
        }
        let mut rng = Rng::new(self.rng.next());
        self.leases_boot(host, &mut disk);
        let etcd = self.etcd.is_some() && !self.hosts[host].witness;
        self.hosts[host].boot(now, &mut rng, disk, etcd);
        self.note(|| format!("{} boots", host_name(host)));
        self.audit.booted(host, now);
        let boot = self.hosts[host].boots;
        if !self.o.evidence {
            self.feed(host, Input::Evidence(Evidence::NoSource));
        } else {
            self.feed(host, Input::Evidence(Evidence::Silent));
            self.at(now, Happening::Probe(host));
        }
        self.at(now, Happening::Health(host, boot));
        self.set_gateway(host);
        if self.hosts[host].witness {
            self.feed(host, Input::Report(wgha_proto::Report::Ability(wgha_proto::Ability::Ready)));
        }
        self.feed(host, Input::Timer);
    }

    /// The process ends now. Effects stay unless `clean`.
    pub(crate) fn kill(&mut self, host: usize, clean: bool) {
        self.note(|| {
            format!("{} dies{}", host_name(host), if clean { "" } else { ", effects stay" })
        });
        self.hosts[host].kill();
        if clean {
            self.hosts[host].gateway.effects = false;
            self.shut_gate(host, 0);
        }
        self.audit.died(host, self.now);
    }

    /// The process ends now, and its guard outlives it: that takes the effects off, then says so.
    pub(crate) fn kill_guarded(&mut self, host: usize) {
        let boot = self.hosts[host].boots;
        let Some(process) = &self.hosts[host].process else { return };
        let obituaries = process.node.obituaries();
        if self.mutation != Mutation::BuriedAlive {
            self.kill(host, false);
        }
        let takes = self.rng.within(1, self.o.leave);
        self.at(self.now + takes, Happening::Guard(host, boot, obituaries));
    }

    fn bury(&mut self, host: usize, boot: u32, obituaries: Vec<(usize, u8, Vec<u8>)>) {
        // A process that starts meanwhile finds the guard at work, and waits; here it has won.
        if self.hosts[host].boots != boot {
            self.stats.add(Situation::CrashGuardedLate);
            return;
        }
        if !matches!(self.mutation, Mutation::BuriedEarly | Mutation::BuriedAlive) {
            self.hosts[host].gateway.effects = false;
            if self.mutation != Mutation::BuriedOpen {
                self.shut_gate(host, 0);
            }
        }
        self.note(|| format!("the guard of {} shows its obituary", host_name(host)));
        self.messages += 1;
        for (peer, path, bytes) in obituaries {
            let to = member_of_peer(self.hosts[host].member, peer);
            let sent = self.audit.sent(&self.hosts, host, to, path, self.now, &bytes);
            let (role, term, echo) = (Role::Init, 0, None);
            let (leaving, hears_master, hears_maybe) = (false, false, false);
            let (from_boot, message) = (boot, self.messages);
            let datagram = Datagram {
                obituary: true,
                from_boot,
                message,
                role,
                term,
                echo,
                leaving,
                hears_master,
                hears_maybe,
                ..sent
            };
            let fate = self.network.fate(&mut self.rng, &self.o, &datagram);
            if fate.is_empty() {
                self.stats.add(Situation::ObituaryLost);
            }
            for (copy, delay) in fate.into_iter().enumerate() {
                let origin = Origin::Network { first: copy == 0 };
                self.at(self.now + delay, Happening::Deliver(datagram.clone(), origin));
            }
        }
    }

    pub(crate) fn check_health(&mut self, host: usize) {
        let h = &self.hosts[host];
        let local = h.clock.local(self.now);
        let ok = h.healthy;
        if !ok {
            self.audit.hosts[host].unhealthy_at = Some(self.now);
        }
        let health = Health { ok, last_pass_began: ok.then_some(local) };
        self.feed(host, Input::Health(health));
    }

    /// Gives one input to the node of a host, as the daemon does.
    pub(crate) fn feed(&mut self, host: usize, input: Input) {
        if self.hosts[host].process.is_none() {
            return;
        }
        if self.hosts[host].node_paused > 0 {
            self.hosts[host].keep(input);
            return;
        }
        self.ran(host);
        if self.mutation == Mutation::Meddler && self.rng.permille(1) {
            let command = Command::Maintenance { on: true, force: true };
            self.with_node(host, |node, now| drop(node.handle_command(now, command)));
        }
        match input {
            Input::Timer => self.with_node(host, |node, now| node.handle_timeout(now)),
            Input::Report(report) => {
                self.note(|| format!("{} reports {report:?}", host_name(host)));
                self.audit.reported(host, &report, self.now);
                if matches!(report, wgha_proto::Report::Left(_)) {
                    self.shut_gate(host, 0);
                }
                self.with_node(host, |node, now| node.handle_report(now, report));
            }
            Input::Health(health) => {
                self.with_node(host, |node, now| node.handle_health(now, health))
            }
            Input::Evidence(evidence) => {
                self.with_node(host, |node, now| node.handle_evidence(now, evidence));
            }
            Input::Command(command) => {
                self.command_now(host, command);
                return;
            }
            Input::Reload(config, keys) => {
                self.audit.reloaded(host, self.now);
                self.with_node(host, |node, now| node.reconfigure(now, *config, keys));
            }
            Input::Word(word) => self.with_node(host, |node, now| node.handle_arbiter(now, word)),
            Input::Answered(number, answer) => {
                self.answered(host, number, answer);
                // Time alone may have ended the process.
                if self.stopped {
                    self.drain(host, None)
                } else {
                    self.desk(host)
                }
                return;
            }
            Input::Datagram(datagram, origin) => {
                self.receive(host, datagram, origin);
                return;
            }
        }
        self.drain(host, None);
    }

    /// The process runs now: its timer comes first.
    fn ran(&mut self, host: usize) {
        assert!(!self.stopped, "a process that has stopped is still there");
        let now = self.now;
        if let Some(process) = &mut self.hosts[host].process {
            process.gap = now.saturating_sub(process.ran);
            process.ran = now;
        }
        self.with_node(host, |node, now| node.handle_timeout(now));
        // What time alone brought is judged by what was known before this input.
        self.stopped |= self.take_events(host);
    }

    pub(crate) fn with_node(
        &mut self,
        host: usize,
        f: impl FnOnce(&mut wgha_proto::Node, wgha_proto::Time),
    ) {
        let h = &mut self.hosts[host];
        let now = h.clock.local(self.now);
        if let Some(process) = &mut h.process {
            f(&mut process.node, now);
        }
    }

    /// Asks something of a node and remembers what must follow.
    pub(crate) fn command(&mut self, host: usize, command: Command) {
        self.feed(host, Input::Command(command));
    }

    fn command_now(&mut self, host: usize, command: Command) {
        let now = self.now;
        let local = self.hosts[host].clock.local(now);
        let was_master = self.hosts[host].is_master();
        let Some(process) = &mut self.hosts[host].process else { return };
        let result = process.node.handle_command(local, command.clone());
        self.note(|| format!("{} is told {command:?}: {result:?}", host_name(host)));
        let backup = !self.hosts[host].witness && !was_master;
        match (&command, &result) {
            (Command::Stop, Ok(())) if backup => self.stats.add(Situation::StopBackup),
            (Command::Stop, Ok(())) if was_master => self.stats.add(Situation::Stop),
            (
                Command::Handover { .. },
                Err(Refused::NoSuccessor(_) | Refused::NotASuccessor { .. }),
            ) => {
                self.stats.add(Situation::HandoverRefused);
            }
            (Command::Maintenance { on: true, .. }, Err(Refused::NoSuccessor(_))) => {
                self.stats.add(Situation::MaintenanceRefused);
            }
            (Command::Maintenance { on: true, .. }, Ok(())) if was_master => {
                self.stats.add(Situation::Maintenance);
            }
            _ => {}
        }
        self.audit.commanded(host, &command, result.is_ok(), was_master, now);
        self.drain(host, None);
    }

    fn receive(&mut self, host: usize, mut datagram: Datagram, origin: Origin) {
        if let Origin::Attack(attack) = origin {
            Attacker::delivered(self, host, datagram, attack);
            return;
        }
        if datagram.from >= self.o.members() {
            // What it does may hang on whether its namesake is heard at this moment.
            Audit::look_for_usurper(self);
        }
        let mut bytes = std::mem::take(&mut datagram.bytes);
        let claims = datagram.role == Role::Master || datagram.leaving;
        if self.mutation == Mutation::Damaged && self.rng.permille(20) {
            bytes[80] ^= 1;
        }
        let copy = bytes.clone();
        if self.wire {
            let (from, to) = (host_name(datagram.from), host_name(host));
            let age = datagram.echo.map(|(boot, sent)| (boot, (self.now - sent) as f64 / 1e6));
            self.note(|| {
                format!(
                    "  {from} to {to} path {} {:?} {} echo {age:?} sent {:.3}",
                    datagram.path,
                    datagram.role,
                    datagram.term,
                    datagram.sent as f64 / 1e6
                )
            });
        }
        // Not a word of the node: nothing is promised to it, and it is no sign of life.
        let expected = !datagram.obituary && Audit::delivered(self, host, &datagram, origin);
        let now = self.hosts[host].clock.local(self.now);
        let Some(process) = &mut self.hosts[host].process else { return };
        let result = if self.mutation == Mutation::ClaimsLost && claims {
            Ok(())
        } else {
            process.node.handle_datagram(now, &mut bytes)
        };
        if self.trace && result.is_err() {
            let from = host_name(datagram.from);
            self.note(|| format!("{} refuses {result:?} from {from}", host_name(host)));
        }
        self.audit.answered(host, self.now, expected, result);
        // One that was refused was not delivered: the attacker would only delay it.
        if result.is_ok() {
            if datagram.obituary {
                self.audit.buried(host, &datagram, self.now);
            } else {
                Audit::taken(self, host, &datagram);
            }
            self.attacker.record(host, &datagram, &copy, self.hosts[host].boots);
        }
        self.drain(host, Some((datagram.from, datagram.path, (datagram.from_boot, datagram.sent))));
    }

    /// Sends, publishes, tells: what follows every input.
    pub(crate) fn drain(&mut self, host: usize, back: Option<Back>) {
        let local = self.hosts[host].clock.local(self.now);
        self.take_level(host);
        self.messages += 1;
        if self.mutation != Mutation::HeartbeatsLate || !self.rng.permille(250) {
            let mut bytes = Vec::with_capacity(1500);
            loop {
                let Some(process) = &mut self.hosts[host].process else { return };
                let Some(destination) = process.node.poll_transmit(local, &mut bytes) else {
                    break;
                };
                self.send(host, destination, back, &bytes);
            }
        }
        let stopped = self.take_events(host) | std::mem::take(&mut self.stopped);
        if self.o.majority {
            self.set_gate(host);
        }
        Audit::drained(self, host);
        if stopped && self.mutation != Mutation::StaysStopped {
            self.stop(host);
            return;
        }
        if self.renew(host) {
            self.drain(host, None);
            return;
        }
        self.set_timer(host);
        self.probe_if_wanted(host);
        self.desk(host);
    }

    /// A new session in the same process, as the daemon's loop begins it: what a restart knows, beside a reconciler
    /// and a machine that go on.
    fn renew(&mut self, host: usize) -> bool {
        let now = self.now;
        let h = &mut self.hosts[host];
        let local = h.clock.local(now);
        let Some(process) = h.process.as_mut().filter(|process| process.node.wants_session())
        else {
            return false;
        };
        let effects = h.gateway.holds();
        let session = self.rng.bytes();
        process.node.renew(local, session, &self.rng.bytes());
        // Another session asks etcd in its own name.
        process.desk = process.desk.is_some().then(|| Desk::new(&h.config, session));
        process.probing = false;
        h.boots += 1;
        let boot = h.boots;
        self.note(|| format!("{} begins a new session", host_name(host)));
        self.stats.add(Situation::Renewed);
        self.leases_renew(host);
        self.audit.renewed(host, now);
        if effects.is_some() {
            self.audit.broken(Rule::LeftFirst, "a new session before `Left`".to_owned());
        }
        self.at(now, Happening::Health(host, boot));
        if self.o.evidence {
            self.at(now, Happening::Probe(host));
        }
        true
    }

    /// True if the node has stopped.
    fn take_events(&mut self, host: usize) -> bool {
        let mut stopped = false;
        loop {
            let Some(process) = &mut self.hosts[host].process else { return false };
            let Some(event) = process.node.poll_event() else { break };
            self.note(|| format!("{}: {event:?}", host_name(host)));
            stopped |= event == Event::Stopped;
            if self.mutation == Mutation::EventLost
                && matches!(event, Event::Role { .. })
                && self.rng.permille(333)
            {
                continue;
            }
            if self.mutation == Mutation::AnswersLost && matches!(event, Event::Handover { .. }) {
                continue;
            }
            Audit::event(self, host, &event);
        }
        stopped
    }

    fn take_level(&mut self, host: usize) {
        let now = self.now;
        let h = &mut self.hosts[host];
        let Some(process) = &mut h.process else { return };
        if process.level == *process.node.level() {
            return;
        }
        process.level.clone_from(process.node.level());
        if !h.witness {
            h.gateway.follow(now, &process.level, &mut self.rng);
            self.set_gateway(host);
        }
    }

    fn send(&mut self, host: usize, destination: Destination, back: Option<Back>, bytes: &[u8]) {
        let (to, path, answer) = match destination {
            Destination::Peer { peer, path } => {
                (member_of_peer(self.hosts[host].member, peer), path, None)
            }
            Destination::Sender => match back {
                Some((to, path, of)) => (to, path, Some(of)),
                None => return,
            },
        };
        if bytes.len() > 1200 || path >= self.o.paths {
            self.audit.broken(Rule::Form, format!("{} bytes on path {path}", bytes.len()));
            return;
        }
        let copies = if self.mutation == Mutation::Storm { 9 } else { 1 };
        for _ in 0..copies {
            let mut datagram = self.audit.sent(&self.hosts, host, to, path, self.now, bytes);
            datagram.echo = answer.or(datagram.echo);
            datagram.message = self.messages;
            if matches!(destination, Destination::Peer { .. }) {
                self.audit.cadence(host, to, path, self.now);
            }
            self.stats.datagrams += 1;
            let fate = self.network.fate(&mut self.rng, &self.o, &datagram);
            match fate.len() {
                0 => {
                    self.stats.add(Situation::Lost);
                    self.audit.lost(&datagram);
                }
                1 => {
                    // Not lost, but not there in time either.
                    if fate[0] > self.o.delay_most() + self.network.added(&datagram) {
                        self.audit.lost(&datagram);
                    }
                }
                _ => self.stats.add(Situation::Duplicated),
            }
            for (copy, delay) in fate.into_iter().enumerate() {
                let origin = Origin::Network { first: copy == 0 };
                self.at(self.now + delay, Happening::Deliver(datagram.clone(), origin));
            }
        }
    }

    /// The process ends by itself: the reconciler leaves before it exits.
    fn stop(&mut self, host: usize) {
        let leftovers = self.hosts[host].gateway.holds().is_some();
        if leftovers {
            self.audit.broken(Rule::LeftFirst, "stopped before `Left`".to_owned());
        }
        self.kill(host, true);
    }

    fn set_timer(&mut self, host: usize) {
        let latency = self.rng.within(1, self.o.latency());
        let h = &mut self.hosts[host];
        let Some(process) = &mut h.process else { return };
        let due = h.clock.world(process.node.poll_timeout()).max(self.now) + latency;
        if due != process.wake_at {
            process.wake_at = due;
            self.at(due, Happening::Wake(host));
        }
    }

    fn gateway(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        if h.gateway_at != self.now {
            // Another time was set since.
            return;
        }
        h.gateway_at = Nanos::MAX;
        if h.process.is_none() || h.gateway_paused > 0 || h.witness {
            return;
        }
        for report in h.gateway.step(self.now, &self.o, &mut self.rng) {
            self.feed(host, Input::Report(report));
        }
        self.set_gateway(host);
    }

    /// Wakes the reconciler when its next step is due.
    fn set_gateway(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        let due = h.gateway.due().max(self.now);
        if h.process.is_some() && !h.witness && h.gateway_at != due {
            h.gateway_at = due;
            self.at(due, Happening::Gateway(host));
        }
    }

    fn probe_if_wanted(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        let Some(process) = &mut h.process else { return };
        if self.o.evidence && !process.probing && process.node.wants_evidence() {
            process.probing = true;
            self.at(self.now, Happening::Probe(host));
        }
    }

    /// Asks the router, which answers at once, or not within an interval.
    fn probe(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        let Some(process) = &mut h.process else { return };
        if h.node_paused > 0 {
            process.probing = false;
            return;
        }
        process.probing = true;
        let probed = h.clock.local(self.now);
        let boot = h.boots;
        let reachable = h.router_cuts == 0 || self.mutation == Mutation::EvidenceIgnored;
        let (evidence, takes) = if reachable {
            (Evidence::Answered(probed), self.o.interval / 20)
        } else {
            (Evidence::Silent, self.o.interval / 2)
        };
        // Asked again at once while it is wanted; a tenth of an interval is the least pause.
        let takes = takes.max(self.o.interval / 10);
        self.at(self.now + takes, Happening::Answer(host, boot, evidence));
    }

    pub(crate) fn pause(&mut self, host: usize, node: bool, gateway: bool) {
        self.hosts[host].node_paused += u32::from(node);
        self.hosts[host].gateway_paused += u32::from(gateway);
        self.audit.disturbed(host, self.now);
    }

    /// Runs again: inputs first, then what the socket kept, as the daemon's loop prefers them.
    pub(crate) fn resume(&mut self, host: usize, node: bool, gateway: bool) {
        self.hosts[host].node_paused -= u32::from(node);
        self.hosts[host].gateway_paused -= u32::from(gateway);
        self.audit.disturbed(host, self.now);
        if gateway && self.hosts[host].gateway_paused == 0 {
            self.hosts[host].gateway_at = Nanos::MAX;
            self.set_gateway(host);
        }
        if node && self.hosts[host].running() {
            self.audit.resumed(host, self.now);
            let kept = std::mem::take(&mut self.hosts[host].inbox);
            let (datagrams, inputs): (Vec<_>, Vec<_>) =
                kept.into_iter().partition(|input| matches!(input, Input::Datagram(..)));
            let boot = self.hosts[host].boots;
            for mut input in inputs.into_iter().chain(datagrams) {
                if let Input::Datagram(_, Origin::Attack(attack @ Attack::Replay)) = &mut input
                    && self.hosts[host].boots > boot
                {
                    // What it had seen before it slept, its new session has not.
                    *attack = Attack::OldReceiver;
                }
                self.feed(host, input);
            }
            self.feed(host, Input::Timer);
            self.desk(host);
        }
    }

    pub(crate) fn reload(
        &mut self,
        host: usize,
        change: impl Fn(&mut NodeConfig),
        keys: Option<Keyring>,
    ) {
        change(&mut self.hosts[host].config);
        self.keep_longest(host);
        if let Some(keys) = keys {
            self.hosts[host].keys = if self.hosts[host].witness { keys.to_witness() } else { keys };
        }
        let (config, keys) = (self.hosts[host].config.clone(), self.hosts[host].keys.clone());
        self.feed(host, Input::Reload(Box::new(config), keys));
    }

    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>12.3} ms  {}", self.now as f64 / 1e6, text());
        }
    }

    /// The members' hosts that are gateways.
    pub(crate) fn gateways(&self) -> std::ops::Range<usize> {
        0..self.o.gateways
    }
}

/// A host in the trace; the one behind the members runs second processes.
pub(crate) fn host_name(host: usize) -> String {
    ["A", "B", "C", "D", "E", "F", "G", "H"][host].to_owned()
}
