//! The faults, how they begin and how they end.

use std::fmt;

use anyhow::Result;
use netns_lab::{
    Cluster, FaultId, Filter, Lab, Node, flush_nft, remove_address, remove_interface, remove_rules,
};
use nix::sys::signal::{Signal, kill};

use super::clocks;

/// Seconds by which clocks are set wrong, ahead or behind.
const HOUR: i32 = 3600;

/// Whose death or sleep it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    Worker,
    Guard,
    Both,
}

/// What kind of fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Kill(Whom),
    Stop(Whom),
    Terminate,
    Handover,
    Maintenance,
    Reload,
    Address,
    Interface,
    Rules,
    Routes,
    Flush,
    Loss,
    HeartbeatLoss,
    Alone,
    Mute,
    Deaf,
    OneWay,
    Link,
    Clock,
}

/// One fault. Nodes by name.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
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
    /// By so many seconds.
    Clock(String, i32),
}

/// What ends a fault.
pub(crate) enum Undo {
    Nothing,
    Heal(FaultId),
    Link(String),
    Wake(Whom, String),
    Maintenance(String),
    Clock(String),
}

impl Kind {
    /// In a few words, for the count.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Kill(Whom::Worker) => "kill -9 of a worker",
            Kind::Kill(Whom::Guard) => "kill -9 of a guard",
            Kind::Kill(Whom::Both) => "kill -9 of worker and guard",
            Kind::Stop(Whom::Worker) => "SIGSTOP of a worker",
            Kind::Stop(Whom::Guard) => "SIGSTOP of a guard",
            Kind::Stop(Whom::Both) => "SIGSTOP of the whole tree",
            Kind::Terminate => "SIGTERM",
            Kind::Handover => "handover",
            Kind::Maintenance => "maintenance",
            Kind::Reload => "reload",
            Kind::Address => "floating IP removed",
            Kind::Interface => "wg0 deleted",
            Kind::Rules => "policy rules removed",
            Kind::Routes => "private routes removed",
            Kind::Flush => "nft flush ruleset",
            Kind::Loss => "loss",
            Kind::HeartbeatLoss => "loss of heartbeats",
            Kind::Alone => "partition",
            Kind::Mute => "mute",
            Kind::Deaf => "deaf",
            Kind::OneWay => "one way cut",
            Kind::Link => "link down",
            Kind::Clock => "clock step",
        }
    }
}

impl Fault {
    /// Whose daemon it ends, or may end: a guard kills a worker that hangs.
    pub(super) fn ends(&self) -> Option<&str> {
        match self {
            Fault::Kill(_, name) | Fault::Stop(_, name) | Fault::Terminate(name) => Some(name),
            _ => None,
        }
    }

    /// One of this kind, somewhere.
    pub(crate) fn of(kind: Kind, rng: &mut fastrand::Rng, lab: &Lab, master: &Node) -> Fault {
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
        let often_gateway =
            |rng: &mut fastrand::Rng| if rng.u8(0..4) == 0 { any(rng) } else { gateway(rng) };
        match kind {
            Kind::Kill(whom) => Fault::Kill(whom, often_gateway(rng)),
            Kind::Stop(whom) => Fault::Stop(whom, gateway(rng)),
            Kind::Terminate => Fault::Terminate(any(rng)),
            Kind::Handover => Fault::Handover,
            Kind::Maintenance => Fault::Maintenance(gateway(rng)),
            Kind::Reload => Fault::Reload(any(rng)),
            Kind::Address => Fault::Address(master.name().to_owned()),
            Kind::Interface => Fault::Interface(gateway(rng)),
            Kind::Rules => Fault::Rules(gateway(rng)),
            Kind::Routes => Fault::Routes(master.name().to_owned()),
            Kind::Flush => Fault::Flush(gateway(rng)),
            Kind::Loss => Fault::Loss(rng.u8(1..=60)),
            Kind::HeartbeatLoss => Fault::HeartbeatLoss(rng.u8(1..=60)),
            Kind::Alone => Fault::Alone(often_gateway(rng)),
            Kind::Mute => Fault::Mute(gateway(rng)),
            Kind::Deaf => Fault::Deaf(gateway(rng)),
            Kind::OneWay => {
                let from = any(rng);
                let others = lab.members().filter(|node| node.name() != from).collect();
                Fault::OneWay(from, pick(rng, others))
            }
            Kind::Link => Fault::Link(gateway(rng)),
            Kind::Clock => Fault::Clock(any(rng), [HOUR, -HOUR][rng.usize(0..2)]),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Fault::Kill(whom, _) => Kind::Kill(*whom),
            Fault::Stop(whom, _) => Kind::Stop(*whom),
            Fault::Terminate(_) => Kind::Terminate,
            Fault::Handover => Kind::Handover,
            Fault::Maintenance(_) => Kind::Maintenance,
            Fault::Reload(_) => Kind::Reload,
            Fault::Address(_) => Kind::Address,
            Fault::Interface(_) => Kind::Interface,
            Fault::Rules(_) => Kind::Rules,
            Fault::Routes(_) => Kind::Routes,
            Fault::Flush(_) => Kind::Flush,
            Fault::Loss(_) => Kind::Loss,
            Fault::HeartbeatLoss(_) => Kind::HeartbeatLoss,
            Fault::Alone(_) => Kind::Alone,
            Fault::Mute(_) => Kind::Mute,
            Fault::Deaf(_) => Kind::Deaf,
            Fault::OneWay(..) => Kind::OneWay,
            Fault::Link(_) => Kind::Link,
            Fault::Clock(..) => Kind::Clock,
        }
    }

    /// Begins it.
    pub(crate) fn begin(&self, lab: &Lab, cluster: &mut Cluster) -> Result<Undo> {
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
            // The daemon may be at the same ones: what it took off first is not there any more.
            Fault::Rules(name) => _ = remove_rules(&node(name)?),
            Fault::Routes(name) => _ = node(name)?.sh(PRIVATE_ROUTES),
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
            Fault::Clock(name, seconds) => {
                clocks::set(lab.dir(), name, *seconds)?;
                clocks::wait(cluster, &node(name)?, *seconds)?;
                return Ok(Undo::Clock(name.clone()));
            }
        }
        Ok(Undo::Nothing)
    }
}

impl Fault {
    /// What is left of it that no audit sees, in words.
    pub(crate) fn left(&self, lab: &Lab, cluster: &mut Cluster) -> Option<String> {
        let Fault::Clock(name, _) = self else { return None };
        let node = lab.members().find(|node| node.name() == name)?;
        clocks::wrong(cluster, node, 0)
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
    pub(crate) fn end(self, lab: &Lab, cluster: &mut Cluster) -> Result<()> {
        match self {
            Undo::Nothing => {}
            Undo::Heal(id) => lab.heal(id)?,
            Undo::Link(name) => {
                let node = lab.gateways().iter().find(|node| node.name() == name);
                node.map_or(Ok(()), |node| lab.heal_link(node, true))?;
            }
            Undo::Clock(name) => clocks::set(lab.dir(), &name, 0)?,
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

/// What a daemon refuses, or is not there to do, [`revive_once`](super::revive::revive_once) asks of it again.
pub(super) fn off(cluster: &Cluster, node: &Node) {
    let _ = cluster.command(node, &["maintenance", "off"]);
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().name())?;
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
            Fault::Clock(name, seconds) => write!(f, ", {name}, {seconds:+} s"),
            Fault::Handover => Ok(()),
        }
    }
}
