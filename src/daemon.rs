//! The loop that owns the node. It waits in one place, feeds one input, sends what the node wants
//! sent, and publishes role and events. Nothing here blocks, logs or touches a file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use wgha_proto::{Destination, Event, Node, Refusal, RoleLevel, Time};

use crate::arbiter;
use crate::clock::{self, Stamps};
use crate::config::Config;
use crate::guard::Line;
use crate::link::{self, Link, Route};
use crate::net::gate::Permit;
use crate::realtime::Realtime;
use crate::state::Applied;

mod handle;
mod session;
mod testament;

pub use handle::{Handle, Input, Memory, NewConfig, Picture};
pub use session::draw;
use testament::{Testament, will};

/// How many inputs may wait for the loop.
const INPUTS: usize = 64;

/// How many events may wait for whoever logs them. When full they are dropped and counted.
const EVENTS: usize = 1024;

/// Datagrams that are read at once when the loop comes too late, and how long for all of them.
const CATCH_UP: (usize, Duration) = (256, Duration::from_millis(2));

/// Refused datagrams that are read one after the other before the loop turns. What is refused changes nothing, so
/// under a flood most of a turn would be for nothing; but other sockets, operators and time must have theirs.
const REFUSED_AT_ONCE: usize = 64;

/// Addresses that could not be bound are tried again this often; the wall clock is read as often.
const SLOW: Duration = Duration::from_secs(1);

/// The loop.
pub struct Daemon {
    node: Node,
    link: Link,
    inputs: mpsc::Receiver<Input>,
    level: watch::Sender<RoleLevel>,
    wants_evidence: watch::Sender<bool>,
    arbiter: watch::Sender<arbiter::Level>,
    permit: Permit,
    events: mpsc::Sender<Event>,
    memory: watch::Sender<Memory>,
    events_dropped: u64,
    turns: Arc<AtomicU64>,
    out: Vec<u8>,
    slow_at: Time,
    stamps: Stamps,
    line: Arc<Line>,
    testament: Testament,
    /// [`Node::has_handed_on`] when the guard was told last.
    handed_on: bool,
    realtime: Option<Realtime>,
}

/// What ended the wait.
enum Woken {
    Time,
    Input(Option<Input>),
    /// And whether it was refused without an answer.
    Datagram(Route, bool),
}

impl Daemon {
    /// A loop around `node` and `link`, which says in `permit` how long the machine may act, and whose guard
    /// is at the other end of `line`, and to take off all that the config `puts_up`. Call inside the runtime that will [`run`](Daemon::run) it.
    #[must_use]
    pub fn new(
        config: &Config,
        puts_up: Applied,
        node: Node,
        link: Link,
        stamps: Stamps,
        permit: Permit,
        line: Arc<Line>,
    ) -> (Daemon, Handle) {
        let (input_tx, inputs) = mpsc::channel(INPUTS);
        let (event_tx, events) = mpsc::channel(EVENTS);
        let (level_tx, level) = watch::channel(node.level().clone());
        let (evidence_tx, wants_evidence) = watch::channel(false);
        let (arbiter_tx, arbiter) = watch::channel(arbiter::Level::default());
        let (memory_tx, memory) = watch::channel(Memory::default());
        let turns = Arc::new(AtomicU64::new(0));
        let mut node = node;
        node.set_floating(link::floating_count(config));
        let testament = Testament::new(Arc::clone(&line), will(config, puts_up, &node, &link));
        let unheard = testament.unheard();
        let daemon = Daemon {
            testament,
            line,
            node,
            link,
            inputs,
            level: level_tx,
            wants_evidence: evidence_tx,
            arbiter: arbiter_tx,
            permit,
            events: event_tx,
            memory: memory_tx,
            events_dropped: 0,
            turns: Arc::clone(&turns),
            out: Vec::with_capacity(1500),
            slow_at: Time::ZERO,
            handed_on: false,
            stamps,
            realtime: None,
        };
        let inputs = input_tx;
        (daemon, Handle { inputs, level, wants_evidence, arbiter, events, memory, turns, unheard })
    }

    /// What the loop's thread got of what `realtime` wants, for status.
    pub fn runs_as(&mut self, realtime: Option<Realtime>) {
        self.realtime = realtime;
    }

    /// Runs until every [`Handle::inputs`] is dropped, or the node says that it stopped.
    pub async fn run(mut self) {
        self.work().await;
        self.line.rest();
    }

    async fn work(&mut self) {
        loop {
            let now = clock::now();
            // First of all: after a pause the node must stop being master before it does anything
            // else, and a flood of inputs must not hold back a heartbeat.
            self.node.handle_timeout(now);
            if self.lapsed(now) {
                self.catch_up().await;
            }
            self.slow_work(now);
            if self.drain(now, None) || (self.renew(now) && self.drain(now, None)) {
                return;
            }
            // Release: who sees this turn also sees the level that it published.
            self.turns.store(now.as_nanos(), Ordering::Release);
            self.line.beat();
            if !self.wait_and_feed(now).await {
                return;
            }
        }
    }

    /// The permission ran out: the process did not run for a while, if not for so long that the node
    /// gave up the role. Whoever took over meanwhile has said so, and that is read before the role is
    /// claimed, and the gate opened, again.
    async fn catch_up(&mut self) {
        let deadline = tokio::time::Instant::now() + CATCH_UP.1;
        for _ in 0..CATCH_UP.0 {
            let received = tokio::time::timeout_at(deadline, self.link.receive()).await;
            let Ok(received) = received else { return };
            let Some(received) = received else { continue };
            // A refusal is counted by the node.
            let _ = self.node.handle_datagram(clock::now(), received.bytes);
        }
    }

    /// The one place that waits. False when nobody is left to serve.
    async fn wait_and_feed(&mut self, now: Time) -> bool {
        let until = self.node.poll_timeout().min(self.slow_at);
        let woken = tokio::select! {
            biased;
            input = self.inputs.recv() => Woken::Input(input),
            received = self.link.receive() => {
                let Some(received) = received else { return true };
                let back = received.back;
                let now = clock::now();
                self.node.handle_timeout(now);
                let result = self.node.handle_datagram(now, received.bytes);
                Woken::Datagram(back, is_idle(result))
            }
            () = tokio::time::sleep(until.since(now)) => Woken::Time,
        };
        match woken {
            Woken::Time => true,
            Woken::Input(None) => false,
            Woken::Input(Some(input)) => {
                let now = clock::now();
                self.node.handle_timeout(now);
                self.feed(now, input);
                true
            }
            // The rest of the socket comes first then.
            Woken::Datagram(..) if self.lapsed(clock::now()) => true,
            Woken::Datagram(back, refused) => {
                let back = if refused { self.skip_refused() } else { Some(back) };
                // One look at the clock: after a pause between two of them what is sent would be for a time that was not lived.
                let now = clock::now();
                let turn = back.is_none() || self.lapsed(now);
                turn || !self.drain(now, back)
            }
        }
    }

    /// Reads on after a refused datagram, until one changes something: its way back.
    fn skip_refused(&mut self) -> Option<Route> {
        for _ in 0..REFUSED_AT_ONCE {
            let received = self.link.receive_now()?;
            let back = received.back;
            if !is_idle(self.node.handle_datagram(clock::now(), received.bytes)) {
                return Some(back);
            }
        }
        None
    }

    /// Still master, but the permission to act has run out.
    fn lapsed(&self, now: Time) -> bool {
        self.node.permitted_until().is_some_and(|until| until <= now)
    }

    fn feed(&mut self, now: Time, input: Input) {
        match input {
            Input::Report(report) => self.node.handle_report(now, report),
            Input::Health(health) => self.node.handle_health(now, health),
            Input::Evidence(evidence) => self.node.handle_evidence(now, evidence),
            Input::Arbiter(word) => self.node.handle_arbiter(now, word),
            Input::Command(command, answer) => {
                // Whoever asked may have gone away.
                let _ = answer.send(self.node.handle_command(now, command));
            }
            Input::Look(answer) => {
                let node = self.node.snapshot(now);
                let floating = |peer| self.node.floating_paths(peer, now);
                let _ = answer.send(Picture {
                    now,
                    floating: (0..node.peers.len()).map(floating).collect(),
                    node,
                    link: self.link.counters(),
                    unbound: self.link.unbound(),
                    events_dropped: self.events_dropped,
                    realtime: self.realtime.clone(),
                });
            }
            Input::Reconfigure(new) => {
                self.link.reconfigure(&new.config, new.puts_up.listen_ports());
                self.node.reconfigure(now, new.node, new.keys);
                self.node.set_floating(link::floating_count(&new.config));
                self.testament.change(will(&new.config, new.puts_up, &self.node, &self.link));
            }
            Input::ForceVoters => self.node.force_voters(now),
            Input::Copied => self.node.handle_copied(now),
        }
    }

    /// Says until when the machine may act, publishes the level, on which it waits; then sends, then
    /// tells. True when the node has stopped.
    fn drain(&mut self, now: Time, back: Option<Route>) -> bool {
        // First of all: who is no longer master must not act, whatever sending takes; whoever has won may,
        // so that the machine finds the gate opening when it hears of the role.
        self.permit.set(self.node.permitted_until());
        let level = self.node.level();
        self.level.send_if_modified(|old| {
            let changed = old != level;
            if changed {
                old.clone_from(level);
            }
            changed
        });
        // Before a release leaves: its obituary would then be a lie.
        if self.handed_on != self.node.has_handed_on() {
            self.handed_on = self.node.has_handed_on();
            self.testament.renew(&self.node, &self.link);
        }
        while let Some(destination) = self.node.poll_transmit(now, &mut self.out) {
            let route = match destination {
                Destination::Peer { peer, path } => self.link.route(peer, path),
                Destination::Sender => back,
            };
            if let Some(route) = route {
                self.link.send(route, &self.out);
            }
        }
        // What was sent extends it.
        self.permit.set(self.node.permitted_until());
        let wanted = self.node.wants_evidence();
        self.wants_evidence.send_if_modified(|old| std::mem::replace(old, wanted) != wanted);
        self.tell_arbiter();
        let mut stopped = false;
        while let Some(event) = self.node.poll_event() {
            stopped |= event == Event::Stopped;
            self.memory.send_if_modified(|memory| memory.take(&event));
            if self.events.try_send(event).is_err() {
                self.events_dropped += 1;
            }
        }
        stopped
    }

    /// After the permission, which may hang on what is given back here.
    fn tell_arbiter(&self) {
        let (voter, wish) = (self.node.arbiter_voter(), self.node.arbiter_wish());
        let session = Some(self.node.session());
        self.arbiter.send_if_modified(|old| {
            let changed =
                old.voter.as_deref() != voter || old.wish != wish || old.session != session;
            if changed {
                *old = arbiter::Level { session, voter: voter.map(str::to_owned), wish };
            }
            changed
        });
    }

    fn slow_work(&mut self, now: Time) {
        if now < self.slow_at {
            return;
        }
        self.slow_at = now + SLOW;
        self.testament.say();
        self.link.bind_missing();
        self.link.count_drops();
        self.node.set_wall_offset(self.stamps.offset_ns());
        self.node.set_gate(self.permit.has_gate());
    }
}

/// Whether a datagram left nothing to do. A session that is not known may get an answer, and mine may be over.
fn is_idle(result: Result<(), Refusal>) -> bool {
    result.is_err_and(|r| !matches!(r, Refusal::UnknownSession | Refusal::NeverSent))
}
