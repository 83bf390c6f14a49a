//! The faults, how they begin and how they end.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use netns_lab::{
    Cluster, FaultId, Filter, Lab, Node, flush_nft, remove_address, remove_interface, remove_rules,
};
use nix::sys::signal::{Signal, kill};

/// Whose death or sleep it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    Worker,
    Guard,
    Both,
}

/// One fault. Nodes by name.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Kill(Whom, String),
    Stop(Whom, String),
    Terminate(String),
    Handover,
    Maintenance(String),
    Reload(String),
    Address(String),
    Interface(String),
    Rules(String),
    Routes(String),
    Flush(String),
    Loss(u8),
    HeartbeatLoss(u8),
    Alone(String),
    Mute(String),
    Deaf(String),
    OneWay(String, String),
    Link(String),
}

/// What ends a fault.
pub(super) enum Undo {
    Nothing,
    Heal(FaultId),
    Link(String),
    Wake(Whom, String),
    Maintenance(String),
}

impl Fault {
    /// One, or two at once.
    pub(super) fn choose(rng: &mut fastrand::Rng, lab: &Lab, master: &Node) -> Vec<Fault> {
        let count = if rng.u8(0..4) == 0 { 2 } else { 1 };
        (0..count).map(|_| Fault::one(rng, lab, master)).collect()
    }

    fn one(rng: &mut fastrand::Rng, lab: &Lab, master: &Node) -> Fault {
        let pick =
            |rng: &mut fastrand::Rng, of: Vec<&Node>| of[rng.usize(0..of.len())].name().to_owned();
        let any = |rng: &mut fastrand::Rng| pick(rng, lab.members().collect());
        // The master has more to lose.
        let gateway = |rng: &mut fastrand::Rng| {
            if rng.bool() {
                master.name().to_owned()
            } else {
                pick(rng, lab.gateways().iter().collect())
            }
        };
        let whom =
            |rng: &mut fastrand::Rng| [Whom::Worker, Whom::Guard, Whom::Both][rng.usize(0..3)];
        match rng.u8(0..24) {
            0..=2 => Fault::Kill(whom(rng), gateway(rng)),
            3 => Fault::Kill(whom(rng), any(rng)),
            4..=6 => Fault::Stop(whom(rng), gateway(rng)),
            7 => Fault::Terminate(any(rng)),
            8 => Fault::Handover,
            9 => Fault::Maintenance(gateway(rng)),
            10 => Fault::Reload(any(rng)),
            11 => Fault::Address(master.name().to_owned()),
            12 => Fault::Interface(gateway(rng)),
            13 => Fault::Rules(gateway(rng)),
            14 => Fault::Routes(master.name().to_owned()),
            15 => Fault::Flush(gateway(rng)),
            16 => Fault::Loss(rng.u8(1..=60)),
            17 => Fault::HeartbeatLoss(rng.u8(1..=60)),
            18 => Fault::Alone(gateway(rng)),
            19 => Fault::Alone(any(rng)),
            20 => Fault::Mute(gateway(rng)),
            21 => Fault::Deaf(gateway(rng)),
            22 => {
                let from = any(rng);
                let others = lab.members().filter(|node| node.name() != from).collect();
                Fault::OneWay(from, pick(rng, others))
            }
            _ => Fault::Link(gateway(rng)),
        }
    }

    /// In a few words, for the count.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Fault::Kill(Whom::Worker, _) => "kill -9 of a worker",
            Fault::Kill(Whom::Guard, _) => "kill -9 of a guard",
            Fault::Kill(Whom::Both, _) => "kill -9 of worker and guard",
            Fault::Stop(Whom::Worker, _) => "SIGSTOP of a worker",
            Fault::Stop(Whom::Guard, _) => "SIGSTOP of a guard",
            Fault::Stop(Whom::Both, _) => "SIGSTOP of the whole tree",
            Fault::Terminate(_) => "SIGTERM",
            Fault::Handover => "handover",
            Fault::Maintenance(_) => "maintenance",
            Fault::Reload(_) => "reload",
            Fault::Address(_) => "floating IP removed",
            Fault::Interface(_) => "wg0 deleted",
            Fault::Rules(_) => "policy rules removed",
            Fault::Routes(_) => "private routes removed",
            Fault::Flush(_) => "nft flush ruleset",
            Fault::Loss(_) => "loss",
            Fault::HeartbeatLoss(_) => "loss of heartbeats",
            Fault::Alone(_) => "partition",
            Fault::Mute(_) => "mute",
            Fault::Deaf(_) => "deaf",
            Fault::OneWay(..) => "one way cut",
            Fault::Link(_) => "link down",
        }
    }

    /// Begins it.
    pub(super) fn begin(&self, lab: &Lab, cluster: &mut Cluster) -> Result<Undo> {
        let node = |name: &str| lab.members().find(|n| n.name() == name).cloned();
        let node = |name: &str| node(name).ok_or_else(|| anyhow::anyhow!("no member {name}"));
        let inject = |filter: Filter| Ok(Undo::Heal(lab.inject(vec![filter])?));
        match self {
            Fault::Kill(whom, name) => signal(cluster, name, *whom, Signal::SIGKILL),
            Fault::Stop(whom, name) => {
                signal(cluster, name, *whom, Signal::SIGSTOP);
                return Ok(Undo::Wake(*whom, name.clone()));
            }
            Fault::Terminate(name) => _ = cluster.process(name).signal_alone(Signal::SIGTERM),
            // What is refused, or finds no daemon, is a fault that did not happen: two may come together.
            Fault::Handover => {
                for master in cluster.masters() {
                    let _ = cluster.command(&master, &["handover"]);
                }
            }
            Fault::Maintenance(name) => {
                let _ = cluster.command(&node(name)?, &["maintenance", "on"]);
                return Ok(Undo::Maintenance(name.clone()));
            }
            Fault::Reload(name) => _ = cluster.command(&node(name)?, &["reload"]),
            Fault::Address(name) => {
                for (address, interface) in lab.floating_ips() {
                    let _ = remove_address(&node(name)?, &address, interface);
                }
            }
            Fault::Interface(name) => _ = remove_interface(&node(name)?, "wg0"),
            Fault::Rules(name) => _ = remove_rules(&node(name)?)?,
            Fault::Routes(name) => _ = node(name)?.sh(PRIVATE_ROUTES)?,
            Fault::Flush(name) => flush_nft(&node(name)?)?,
            Fault::Loss(percent) => return inject(Filter::loss(*percent)),
            Fault::HeartbeatLoss(percent) => return inject(Filter::loss(*percent).heartbeats()),
            Fault::Alone(name) => {
                let filters = vec![Filter::mute(name), Filter::deaf(name)];
                return Ok(Undo::Heal(lab.inject(filters)?));
            }
            Fault::Mute(name) => return inject(Filter::mute(name)),
            Fault::Deaf(name) => return inject(Filter::deaf(name)),
            Fault::OneWay(from, to) => return inject(Filter::one_way(from, to)),
            Fault::Link(name) => {
                let node = node(name)?;
                lab.cut_link(&node, true)?;
                return Ok(Undo::Link(name.clone()));
            }
        }
        Ok(Undo::Nothing)
    }
}

/// Every route of a private table.
const PRIVATE_ROUTES: &str = "for f in -4 -6; do ip $f rule | sed -n 's/.*lookup \\([0-9][0-9]*\\).*/\\1/p' | \
     sort -u | while read -r t; do ip $f route flush table $t; done; done";

/// To a process that is there; one that is gone already got what it should.
fn signal(cluster: &mut Cluster, name: &str, whom: Whom, signal: Signal) {
    let process = cluster.process(name);
    let worker = process.worker();
    if whom != Whom::Guard
        && let Ok(worker) = worker
    {
        let _ = kill(worker, signal);
    }
    if whom != Whom::Worker {
        let _ = process.signal_alone(signal);
    }
}

impl Undo {
    /// Ends the fault.
    pub(super) fn end(self, lab: &Lab, cluster: &mut Cluster) -> Result<()> {
        match self {
            Undo::Nothing => {}
            Undo::Heal(id) => lab.heal(id)?,
            Undo::Link(name) => {
                let node = lab.gateways().iter().find(|node| node.name() == name);
                node.map_or(Ok(()), |node| lab.heal_link(node, true))?;
            }
            Undo::Wake(whom, name) => signal(cluster, &name, whom, Signal::SIGCONT),
            Undo::Maintenance(name) => {
                if let Some(node) = lab.members().find(|node| node.name() == name) {
                    off(cluster, node);
                }
            }
        }
        Ok(())
    }
}

/// A daemon that just died is asked when it is back.
fn off(cluster: &Cluster, node: &Node) {
    for _ in 0..3 {
        if cluster.command(node, &["maintenance", "off"]).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Starts the daemons that ended, as systemd does, half of the time after the release of its `ExecStopPost`; and
/// ends what a dead daemon's maintenance left.
pub(super) fn revive(lab: &Lab, cluster: &mut Cluster, rng: &mut fastrand::Rng) -> Result<()> {
    // A guard that buries, and a daemon that stops, have this long.
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(50));
        for node in lab.members() {
            if cluster.process(node.name()).is_running() {
                continue;
            }
            if rng.bool() && lab.witness().is_none_or(|w| w.name() != node.name()) {
                let _ = cluster.command(node, &["release"]);
            }
            cluster.start_on(lab, node.name())?;
        }
    }
    for node in lab.members() {
        if cluster.status(node).is_ok_and(|status| status["maintenance"] == true) {
            off(cluster, node);
        }
    }
    Ok(())
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match self {
            Fault::Kill(_, name)
            | Fault::Stop(_, name)
            | Fault::Terminate(name)
            | Fault::Maintenance(name)
            | Fault::Reload(name)
            | Fault::Address(name)
            | Fault::Interface(name)
            | Fault::Rules(name)
            | Fault::Routes(name)
            | Fault::Flush(name)
            | Fault::Alone(name)
            | Fault::Mute(name)
            | Fault::Deaf(name)
            | Fault::Link(name) => write!(f, ", {name}"),
            Fault::Loss(percent) | Fault::HeartbeatLoss(percent) => write!(f, ", {percent} %"),
            Fault::OneWay(from, to) => write!(f, ", {from} to {to}"),
            Fault::Handover => Ok(()),
        }
    }
}
