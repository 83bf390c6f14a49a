//! What goes wrong between daemon, hook and cloud.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use netns_lab::{Cloud, Cluster, Filter, Lab, Node, running_hooks};
use nix::sys::signal::{Signal, killpg};
use serde_json::json;

use crate::soak::fault::{Fault, Undo, Whom};
use crate::soak::revive::revive;

/// How long a hook that is to be killed is awaited: it is called each second, and runs for some tenths of one.
const HOOK: Duration = Duration::from_millis(1_500);

/// Bound of an answer of a daemon that was just started.
const ANSWER: Duration = Duration::from_secs(10);

/// One trouble. Nodes by name.
pub(super) enum Trouble {
    /// So many calls of a kind fail in a way of tests/hooks/fake/cloud.py.
    Answers {
        kind: &'static str,
        times: u32,
        only: &'static str,
    },
    /// So many reads after each change see what was before.
    Stale(u8),
    /// Changes take their time, and some fail at the end of it.
    Operations {
        millis: u32,
        fail: u8,
    },
    Credentials,
    Metadata,
    /// These gateways do not reach the API.
    Unreachable(Vec<String>),
    /// Somebody gives the address to a gateway, to something else, or to nobody.
    Taken(Option<String>),
    /// The hook that runs on this gateway is killed, with all that it started.
    Hook(String),
    /// The gateways do not hear each other: two masters, while each has the router.
    TwoMasters,
    /// Of the daemons and their network.
    Daemon(Fault),
}

/// How the fake answers, other than it should; what is permanent is [`Trouble::Credentials`].
const KINDS: [&str; 8] = ["busy", "locked", "error", "garbage", "cut", "drop", "hang", "slow"];

impl Trouble {
    /// One, two or three at once.
    pub(super) fn choose(rng: &mut fastrand::Rng, lab: &Lab, master: &Node) -> Vec<Trouble> {
        let mut all = Vec::new();
        for _ in 0..rng.u8(0..=2) {
            all.push(Trouble::of_cloud(rng, lab, master));
        }
        // Without a change of role a hook has little to do.
        if all.is_empty() || rng.u8(0..4) != 0 {
            all.push(Trouble::of_daemon(rng, lab, master));
        }
        all
    }

    fn of_cloud(rng: &mut fastrand::Rng, lab: &Lab, master: &Node) -> Trouble {
        let any = gateway(rng, lab, master);
        match rng.u8(0..16) {
            0..=6 => Trouble::Answers {
                kind: KINDS[rng.usize(0..KINDS.len())],
                times: rng.u32(1..=4),
                only: ["any", "read", "change"][rng.usize(0..3)],
            },
            7 | 8 => Trouble::Stale(rng.u8(1..=6)),
            9 | 10 => Trouble::Operations { millis: rng.u32(100..=2_000), fail: rng.u8(0..=2) },
            11 => Trouble::Credentials,
            12 => Trouble::Metadata,
            13 if rng.bool() => {
                Trouble::Unreachable(lab.gateways().iter().map(|n| n.name().to_owned()).collect())
            }
            13 => Trouble::Unreachable(vec![any]),
            14 => Trouble::Taken([None, Some("x".to_owned()), Some(any)][rng.usize(0..3)].clone()),
            _ => Trouble::Hook(any),
        }
    }

    fn of_daemon(rng: &mut fastrand::Rng, lab: &Lab, master: &Node) -> Trouble {
        let node = gateway(rng, lab, master);
        let whom = [Whom::Worker, Whom::Guard, Whom::Both][rng.usize(0..3)];
        Trouble::Daemon(match rng.u8(0..16) {
            0..=4 => Fault::Handover,
            5 | 6 => Fault::Kill(whom, node),
            7 => Fault::Stop(whom, node),
            8 | 9 => Fault::Terminate(node),
            10 | 11 => Fault::Link(node),
            12 => Fault::Reload(node),
            13 => Fault::Maintenance(node),
            _ => return Trouble::TwoMasters,
        })
    }

    /// In a few words, for the count.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Trouble::Answers { kind: "busy", .. } => "the API says: too many calls",
            Trouble::Answers { kind: "locked", .. } => "the API says: locked, or conflict",
            Trouble::Answers { kind: "error", .. } => "the API says: error",
            Trouble::Answers { kind: "garbage", .. } => "the API says nonsense",
            Trouble::Answers { kind: "cut", .. } => "an answer is cut off",
            Trouble::Answers { kind: "drop", .. } => "connections are dropped",
            Trouble::Answers { kind: "hang", .. } => "calls hang",
            Trouble::Answers { .. } => "slow answers",
            Trouble::Stale(_) => "stale reads",
            Trouble::Operations { fail: 0, .. } => "slow operations",
            Trouble::Operations { .. } => "slow operations that fail",
            Trouble::Credentials => "wrong credentials",
            Trouble::Metadata => "no metadata service",
            Trouble::Unreachable(_) => "the API cannot be reached",
            Trouble::Taken(_) => "the address is given away",
            Trouble::Hook(_) => "kill -9 of a hook",
            Trouble::TwoMasters => "two masters",
            Trouble::Daemon(fault) => fault.kind().name(),
        }
    }
}

fn gateway(rng: &mut fastrand::Rng, lab: &Lab, master: &Node) -> String {
    let all = lab.gateways();
    let any = if rng.bool() { master } else { &all[rng.usize(0..all.len())] };
    any.name().to_owned()
}

/// The troubles of one round.
pub(super) struct Round<'a> {
    lab: &'a Lab,
    cloud: &'a Cloud,
    undo: Vec<Undo>,
    /// Without a way to the API.
    cut_off: Vec<String>,
    /// Somebody must look, as the log says.
    reload: bool,
    /// After these daemons may have ended, or may not have heard that maintenance is over.
    revive: Vec<Fault>,
}

impl<'a> Round<'a> {
    pub(super) fn new(lab: &'a Lab, cloud: &'a Cloud) -> Round<'a> {
        let (undo, cut_off, revive) = (Vec::new(), Vec::new(), Vec::new());
        Round { lab, cloud, undo, cut_off, reload: false, revive }
    }

    /// Begins one.
    pub(super) fn begin(&mut self, trouble: &Trouble, cluster: &mut Cluster) -> Result<()> {
        let cloud = self.cloud;
        match trouble {
            Trouble::Answers { kind, times, only } => cloud.fault(kind, *times, only),
            Trouble::Stale(reads) => cloud.set(&json!({"stale_after_change": reads})),
            Trouble::Operations { millis, fail } => {
                let seconds = f64::from(*millis) / 1_000.0;
                cloud.set(&json!({"operation_seconds": seconds, "operation_fails": fail}))
            }
            Trouble::Credentials => {
                self.reload = true;
                cloud.set(&json!({"credentials_good": false}))
            }
            Trouble::Metadata => cloud.set(&json!({"metadata_works": false})),
            Trouble::Unreachable(gateways) => self.cut_off(gateways),
            Trouble::Taken(to) => cloud.give(to.as_deref()),
            Trouble::Hook(name) => kill_hook(self.node(name)?),
            Trouble::TwoMasters => {
                let cut = vec![Filter::one_way("gw1", "gw2"), Filter::one_way("gw2", "gw1")];
                self.undo.push(Undo::Heal(self.lab.inject(cut)?));
                Ok(())
            }
            Trouble::Daemon(fault) => {
                if let Fault::Link(name) = fault {
                    self.cut_off(std::slice::from_ref(name))?;
                }
                let ends = matches!(
                    fault,
                    Fault::Kill(..) | Fault::Stop(..) | Fault::Terminate(_) | Fault::Maintenance(_)
                );
                self.revive.extend(ends.then(|| fault.clone()));
                self.undo.push(fault.begin(self.lab, cluster)?);
                Ok(())
            }
        }
    }

    /// Ends all of them; daemons that are gone are started again.
    pub(super) fn end(self, cluster: &mut Cluster, rng: &mut fastrand::Rng) -> Result<()> {
        self.undo.into_iter().try_for_each(|undo| undo.end(self.lab, cluster))?;
        self.cloud.heal()?;
        if !self.revive.is_empty() {
            revive(self.lab, cluster, &self.revive, rng)?;
        }
        if self.reload {
            self.lab.gateways().iter().try_for_each(|node| reload(cluster, node))?;
        }
        Ok(())
    }

    fn cut_off(&mut self, gateways: &[String]) -> Result<()> {
        self.cut_off.extend_from_slice(gateways);
        let all: Vec<&str> = self.cut_off.iter().map(String::as_str).collect();
        self.cloud.unreachable(&all)
    }

    fn node(&self, name: &str) -> Result<&'a Node> {
        let node = self.lab.gateways().iter().find(|node| node.name() == name);
        node.with_context(|| format!("no gateway {name}"))
    }
}

/// A daemon that was just started answers a moment later.
fn reload(cluster: &Cluster, node: &Node) -> Result<()> {
    let end = Instant::now() + ANSWER;
    loop {
        match cluster.command(node, &["reload"]) {
            Err(_) if Instant::now() < end => std::thread::sleep(ANSWER / 50),
            other => return other.map(drop),
        }
    }
}

/// The next that runs; a backup has none.
fn kill_hook(node: &Node) -> Result<()> {
    let end = Instant::now() + HOOK;
    while Instant::now() < end {
        let running = running_hooks(node)?;
        // One that has just ended by itself is as dead.
        running.iter().for_each(|group| _ = killpg(*group, Signal::SIGKILL));
        if !running.is_empty() {
            break;
        }
    }
    Ok(())
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Daemon(fault) => return write!(f, "{fault}"),
            _ => f.write_str(self.kind())?,
        }
        match self {
            Trouble::Answers { times, only: "any", .. } => write!(f, " {times} times"),
            Trouble::Answers { times, only, .. } => write!(f, " to {times} {only}s"),
            Trouble::Stale(reads) => write!(f, ", {reads} after each change"),
            Trouble::Operations { millis, fail: 0 } => write!(f, ", {millis} ms"),
            Trouble::Operations { millis, fail } => write!(f, ", {millis} ms, {fail} of them"),
            Trouble::Unreachable(gateways) => write!(f, " from {}", gateways.join(" and ")),
            Trouble::Taken(to) => write!(f, " to {}", to.as_deref().unwrap_or("nobody")),
            Trouble::Hook(name) => write!(f, " on {name}"),
            _ => Ok(()),
        }
    }
}
