//! A lab with running daemons and clients, and what every test does with it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use netns_lab::{Builder, Cluster, ClusterOptions, Lab, Node, Prober, WgPeer, topology};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::audit;

/// Bound of every wait. Far longer than anything takes: what is late is not wrong here.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// The daemon under test.
pub(crate) fn wgha() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_wgha"))
}

/// The backend under test.
pub(crate) fn backend() -> String {
    std::env::var("WGHA_TEST_BACKEND").unwrap_or_else(|_| "embedded".to_owned())
}

/// The heartbeat under test. An emulated machine spends much of its time on them, and stands still for a second
/// when the one around it is busy.
pub(crate) fn heartbeat() -> Duration {
    Duration::from_millis(if backend() == "kernel" { 500 } else { 200 })
}

/// Heartbeats missed before a takeover. On a busy machine a healthy daemon is sometimes late by half of that.
fn misses() -> u32 {
    if backend() == "kernel" { 4 } else { 5 }
}

/// The detection time under test, which is also how long a lease is.
pub(crate) fn detection() -> Duration {
    heartbeat() * misses()
}

/// Gateways (and a witness) with running daemons, and clients with a tunnel.
pub(crate) struct Pair {
    pub(crate) clients: Vec<WgPeer>,
    pub(crate) cluster: Cluster,
    /// Each gateway's addresses, rules and routes before any daemon ran.
    before: BTreeMap<String, Vec<String>>,
    /// Gateways whose daemon was stopped or killed.
    stopped: Vec<String>,
    pub(crate) lab: Lab,
}

/// What goes into the config unless a test wants something else.
pub(crate) fn options() -> ClusterOptions {
    ClusterOptions {
        heartbeat: heartbeat(),
        misses: misses(),
        backend: backend(),
        ..ClusterOptions::default()
    }
}

/// A network where nothing runs yet.
pub(crate) fn network(builder: Builder) -> Lab {
    netns_lab::enter_user_namespace().expect("namespaces");
    builder.build().expect("building the network")
}

impl Pair {
    /// Two gateways and a client, everything settled.
    pub(crate) fn start() -> Pair {
        Pair::with(Lab::builder().cluster(options()))
    }

    /// Another network, everything settled, gw1 as master.
    pub(crate) fn with(builder: Builder) -> Pair {
        let pair = Pair::unsettled(network(builder));
        pair.settled("after the start");
        pair.lead(&pair.gateway(1));
        pair
    }

    /// Starts daemons and clients, and waits for nothing.
    pub(crate) fn unsettled(lab: Lab) -> Pair {
        Pair::with_program(lab, wgha())
    }

    /// The same with another program as daemon.
    pub(crate) fn with_program(lab: Lab, program: &Path) -> Pair {
        let before = Pair::look(&lab);
        let cluster = Cluster::start(&lab, program).expect("starting the daemons");
        let clients = start_clients(&lab);
        Pair { clients, cluster, before, stopped: Vec::new(), lab }
    }

    /// Makes this gateway master: which one is after a start depends on who listens first.
    pub(crate) fn lead(&self, node: &Node) {
        for master in self.cluster.masters().iter().filter(|m| m.name() != node.name()) {
            self.hand_over(master, node);
        }
        self.settled_on(node, &format!("{} leads", node.name()));
    }

    /// Hands over; asks again while the successor says that it is not there yet (the sync channel, or
    /// the master's first look, may come a moment after a change). Returns what was said.
    pub(crate) fn hand_over(&self, from: &Node, to: &Node) -> String {
        let mut said = String::new();
        eventually(&format!("handover to {}", to.name()), || {
            match self.cluster.command(from, &["handover", "--to", to.name()]) {
                Ok(answer) => said = answer,
                Err(e) => {
                    let why = format!("{e:#}");
                    let is = |n: &Node| self.cluster.status(n).is_ok_and(|s| s["role"] == "master");
                    // The role was given up, and the answer came too late.
                    let late =
                        why.contains("did not take over in time") || why.contains("not master");
                    if !late || !is(to) || is(from) {
                        return vec![why];
                    }
                    said = format!("{} is master now", to.name());
                }
            }
            Vec::new()
        });
        said
    }

    /// Runs a command of `wgha` until it succeeds, as on a busy machine the other gateway may not answer in time.
    /// When that try began, and what it said.
    pub(crate) fn in_the_end(&self, node: &Node, args: &[&str]) -> (Instant, String) {
        let mut done = (Instant::now(), String::new());
        eventually(&format!("{}: wgha {}", node.name(), args.join(" ")), || {
            let began = Instant::now();
            match self.cluster.command(node, args) {
                Ok(answer) => {
                    done = (began, answer);
                    Vec::new()
                }
                Err(e) => vec![format!("{e:#}")],
            }
        });
        done
    }

    /// What the gateways have now.
    pub(crate) fn look(lab: &Lab) -> BTreeMap<String, Vec<String>> {
        lab.gateways().iter().map(|n| (n.name().to_owned(), audit::network_of(n))).collect()
    }

    /// Gateway `number`, from 1. A clone, so that the pair can be changed while it is used.
    pub(crate) fn gateway(&self, number: usize) -> Node {
        self.lab.gateway(number).clone()
    }

    /// The gateways whose daemon should run.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Node> {
        self.lab.gateways().iter().filter(|n| !self.stopped.iter().any(|s| s == n.name()))
    }

    /// The gateways without a daemon.
    pub(crate) fn silent(&self) -> impl Iterator<Item = &Node> {
        self.lab.gateways().iter().filter(|n| self.stopped.iter().any(|s| s == n.name()))
    }

    /// Status of a node, as JSON.
    pub(crate) fn status(&self, node: &Node) -> Value {
        let mut found = Value::Null;
        eventually(&format!("status of {}", node.name()), || match self.cluster.status(node) {
            Ok(status) => {
                found = status;
                Vec::new()
            }
            Err(e) => vec![format!("{e:#}")],
        });
        found
    }

    /// Waits until the audit finds nothing wrong and every client's tunnel works; returns the master.
    pub(crate) fn settled(&self, when: &str) -> Node {
        eventually(when, || audit::gateways(self));
        // A fault is noticed by the daemons a little after the test made it, so look once more.
        std::thread::sleep(heartbeat() * 4);
        eventually(when, || audit::gateways(self));
        for client in &self.clients {
            audit::tunnel(self, client, when);
        }
        self.lab.warm_neighbours();
        self.master()
    }

    /// The one master. A role may be on its way at any moment.
    pub(crate) fn master(&self) -> Node {
        self.cluster.wait_master(BOUND).expect("one master")
    }

    /// As [`Pair::settled`], with this gateway as master.
    pub(crate) fn settled_on(&self, master: &Node, when: &str) {
        self.is_master(master, when);
        let found = self.settled(when);
        assert_eq!(found.name(), master.name(), "{when}");
    }

    /// As [`Pair::settled_on`], while what a killed daemon put up still stands on its gateway.
    pub(crate) fn settled_on_silent(&self, master: &Node, when: &str) {
        self.is_master(master, when);
        for client in &self.clients {
            audit::tunnel(self, client, when);
        }
    }

    /// Waits until this gateway says that it is master; others may say so, too.
    pub(crate) fn is_master(&self, node: &Node, when: &str) {
        eventually(when, || match self.cluster.status(node) {
            Ok(status) if status["role"] == "master" => Vec::new(),
            Ok(status) => {
                vec![format!("{}: {}, {}", node.name(), status["role"], status["reason"])]
            }
            Err(e) => vec![format!("{}: {e:#}", node.name())],
        });
    }

    /// Waits until this gateway can take over, or serves. A settled pair may have one that was in fault a moment ago.
    pub(crate) fn is_ready(&self, node: &Node) {
        eventually(&format!("{} is ready", node.name()), || match self.cluster.status(node) {
            Ok(status) if status["ready"] == true => Vec::new(),
            Ok(status) => vec![format!("{}, {}", status["role"], status["held_back"])],
            Err(e) => vec![format!("{e:#}")],
        });
    }

    /// Waits until the reason or what holds the node back contains `text`.
    pub(crate) fn says(&self, node: &Node, role: &str, text: &str) {
        eventually(&format!("{} is {role}: {text}", node.name()), || {
            let status = self.status(node);
            let said = format!("{} {}", status["reason"], status["held_back"]);
            if status["role"] == role && said.contains(text) {
                Vec::new()
            } else {
                vec![format!("{} says {}, {said}", node.name(), status["role"])]
            }
        });
    }

    /// Runs a command of `wgha` that must succeed.
    pub(crate) fn wgha(&self, node: &Node, args: &[&str]) -> String {
        self.cluster.command(node, args).unwrap_or_else(|e| panic!("{}: {e:#}", node.name()))
    }

    /// Runs a command of `wgha` that must fail; returns what it said.
    pub(crate) fn refused(&self, node: &Node, args: &[&str]) -> String {
        match self.cluster.command(node, args) {
            Ok(said) => panic!("wgha {args:?} on {} was not refused: {said}", node.name()),
            Err(e) => format!("{e:#}"),
        }
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(&mut self, node: &Node) {
        let clean = self.cluster.process(node.name()).stop(BOUND).expect("stopping");
        assert!(clean, "{} did not end on SIGTERM", node.name());
        self.stopped.push(node.name().to_owned());
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, node: &Node) {
        self.cluster.process(node.name()).kill().expect("killing");
        self.stopped.push(node.name().to_owned());
    }

    /// A daemon has ended by itself.
    pub(crate) fn gone(&mut self, node: &Node) {
        self.stopped.push(node.name().to_owned());
    }

    /// What a gateway had before any daemon ran.
    pub(crate) fn before(&self, node: &Node) -> &Vec<String> {
        &self.before[node.name()]
    }

    /// Starts a daemon that was stopped or killed.
    pub(crate) fn start_on(&mut self, node: &Node) {
        self.cluster.start_on(&self.lab, node.name()).expect("starting");
        self.stopped.retain(|s| s != node.name());
    }

    /// Sends a signal to a daemon.
    pub(crate) fn signal(&mut self, node: &Node, signal: Signal) {
        self.cluster.process(node.name()).signal(signal).expect("a signal");
    }

    /// Stops everything: afterwards each gateway has what it had before, and wg0 at most down.
    pub(crate) fn end(mut self) {
        let running: Vec<Node> = self.running().cloned().collect();
        for node in &running {
            self.stop(node);
        }
        for node in self.lab.gateways() {
            self.wgha(node, &["release"]);
            let (before, after) = (&self.before[node.name()], audit::network_of(node));
            assert_eq!(&after, before, "{}: left behind, or taken along", node.name());
            assert!(!audit::wg0_up(node), "{}: wg0 is up", node.name());
        }
    }
}

fn start_clients(lab: &Lab) -> Vec<WgPeer> {
    let numbers = 1..=u8::try_from(lab.client_nodes().len()).expect("few clients");
    numbers.map(|n| lab.start_client(n).expect("a client")).collect()
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        // The hooks of a daemon that was killed live on: under systemd their unit's end is theirs, here this is.
        for pid in netns_lab::processes_of(self.lab.dir()).unwrap_or_default() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Pair {
    /// Everything that helps to understand a failure.
    fn tell(&self) {
        for node in self.lab.members() {
            let name = node.name();
            let status = self.cluster.command(node, &["status"]);
            eprintln!("--- {name}: {}", status.unwrap_or_else(|e| format!("{e:#}\n")));
            if let Ok(status) = self.cluster.status(node) {
                eprintln!("held back: {}, hooks: {}", status["held_back"], status["hooks"]);
            }
            for args in ["-br addr", "-4 rule", "-6 rule"] {
                eprintln!("{}", node.sh(&format!("ip {args}")).unwrap_or_default().trim_end());
            }
            for log in ["state/notify.log", "log/wgha.log"] {
                let text = std::fs::read_to_string(node.dir().join(log)).unwrap_or_default();
                let from = text.lines().count().saturating_sub(40);
                eprintln!("--- {name}: the end of {log}");
                text.lines().skip(from).for_each(|line| eprintln!("{line}"));
            }
        }
        for client in &self.clients {
            let name = client.node().name();
            eprintln!("--- {name}: {}", client.node().sh("wg show 2>&1").unwrap_or_default());
        }
        let neighbours = self.lab.router().sh("ip neigh").unwrap_or_default();
        eprintln!("--- router: floating IP {}\n{neighbours}", topology::floating().v4);
    }
}

/// Waits until one of its probes is answered.
pub(crate) fn is_answered(prober: &Prober) {
    eventually("a probe is answered", || {
        let answered = prober.probes().probes.iter().any(|probe| probe.received.is_some());
        if answered { Vec::new() } else { vec!["none yet".to_owned()] }
    });
}

/// Looks again and again until nothing is wrong.
pub(crate) fn eventually(when: &str, mut wrong: impl FnMut() -> Vec<String>) {
    let end = Instant::now() + BOUND;
    loop {
        let found = wrong();
        if found.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{when}: still after {BOUND:?}:\n  {}", found.join("\n  "));
        std::thread::sleep(Duration::from_millis(100));
    }
}
