//! The outage of active clients: link cuts and handovers.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use netns_lab::{Lab, Node, Outage, Prober, WgKind, realtime_ns, topology};

use super::Options;
use super::stage::{Client, Stage};
use super::table::{Row, Table, Target};

/// The noise is looked for in as much time before the fault as is looked at after it.
const QUIET: Duration = Duration::from_millis(2_500);
/// Answers must come steadily for so long before a round is over.
const SETTLE: Duration = Duration::from_millis(700);
/// A client that nobody calls begins by itself after 15 s, and each lost try costs it 5 s.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Before a refused handover is asked for again.
const AGAIN: Duration = Duration::from_millis(200);

/// The client that is not behind NAT; those before it are, one of each kind.
const DIRECT: u8 = 4;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Cut,
    Handover,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Cut => "link cut",
            Self::Handover => "handover",
        }
    }

    fn target(self, heartbeat: Duration) -> Option<Target> {
        match (self, heartbeat.as_millis()) {
            (Self::Cut, 50) => Some(Target { median_ms: 300.0, worst_ms: Some(500.0) }),
            (Self::Cut, 20) => Some(Target { median_ms: 150.0, worst_ms: None }),
            (Self::Handover, _) => Some(Target { median_ms: 20.0, worst_ms: None }),
            _ => None,
        }
    }

    fn happen(self, stage: &Stage, master: &Node) -> Result<()> {
        match self {
            Self::Cut => stage.lab.cut_link(master, true),
            Self::Handover => hand_over(stage, master),
        }
    }
}

/// A successor that is not there yet, or does not answer in time on a busy machine, gets nothing: nobody notices, and it is
/// asked again.
fn hand_over(stage: &Stage, master: &Node) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match stage.cluster.command(master, &["handover"]) {
            Ok(_) => return Ok(()),
            Err(e) if Instant::now() > end => return Err(e),
            Err(e) => eprintln!("refused, asked again: {e:#}"),
        }
        thread::sleep(AGAIN);
    }
}

/// All faults, with all clients at once.
pub(super) fn run(
    options: &Options,
    heartbeat: Duration,
    faults: &[Fault],
    table: &mut Table,
) -> Result<()> {
    let network = Lab::builder().clients(DIRECT).direct(&[DIRECT]);
    let stage = Stage::start(options, heartbeat, network)?;
    let clients = clients(options, &stage.lab)?;
    for client in &clients {
        stage.explain(client.reaches_host(), "before the first round")?;
    }
    for &fault in faults {
        let what = format!("{}, {} x {} ms", fault.name(), options.misses, heartbeat.as_millis());
        let what = if fault == Fault::Cut { what } else { fault.name().to_owned() };
        let mut rows: Vec<Row> = clients
            .iter()
            .map(|c| Row::new(format!("{what}: {}", c.label), fault.target(heartbeat)))
            .collect();
        for number in 1..=options.rounds {
            let when = format!("{what}, round {number}");
            let outages = stage.explain(round(&stage, &clients, fault), &when)?;
            table.endpoints_right(clients.len());
            for (row, outage) in rows.iter_mut().zip(outages) {
                row.add_outage(&outage)?;
            }
        }
        rows.into_iter().for_each(|row| table.add(row));
    }
    Ok(())
}

/// Behind NAT one of each kind; without it one that roams, if there is a kind that can.
fn clients(options: &Options, lab: &Lab) -> Result<Vec<Client>> {
    let kinds = options.kinds(lab)?;
    let mut clients = Vec::new();
    for (number, &kind) in (1..DIRECT).zip(&kinds) {
        let client = Client::start(lab, number, kind, 0)?;
        clients.push(Client { label: format!("{kind}, NAT"), ..client });
    }
    if !options.nat {
        // wireguard-go clings to its old address for 15 s.
        let roamer = kinds.iter().copied().find(|&k| k != WgKind::WireguardGo);
        let kind = roamer.unwrap_or(WgKind::WireguardGo);
        let label = format!("{kind}, no NAT{}", if roamer.is_some() { ", roaming" } else { "" });
        let client = Client::start(lab, DIRECT, kind, 0)?;
        clients.push(Client { label, roams: roamer.is_some(), ..client });
    }
    Ok(clients)
}

fn round(stage: &Stage, clients: &[Client], fault: Fault) -> Result<Vec<Outage>> {
    let master = stage.master()?;
    for client in clients.iter().filter(|c| c.roams) {
        stage.lab.roam(client.number)?;
    }
    for client in clients {
        client.reaches_host()?;
    }
    stage.wait_told(&master, clients.len() as u64)?;
    stage.lab.warm_neighbours();
    let outages = probe(clients, || fault.happen(stage, &master))?;
    for client in clients {
        client.check_endpoint()?;
    }
    stage.heal()?;
    Ok(outages)
}

/// Probes the host from all clients at once, around what `fault` does.
pub(super) fn probe(clients: &[Client], fault: impl FnOnce() -> Result<()>) -> Result<Vec<Outage>> {
    let to = SocketAddr::from((topology::host().v4, topology::ECHO_PORT));
    let start = |c: &Client| Prober::start(c.peer.node(), to, Duration::from_millis(1));
    let probers: Vec<Prober> = clients.iter().map(start).collect::<Result<_>>()?;
    thread::sleep(QUIET);
    let at = realtime_ns();
    fault()?;
    let since = realtime_ns();
    for (client, prober) in clients.iter().zip(&probers) {
        let back = prober.wait_steady(since, SETTLE, PATIENCE);
        back.with_context(|| format!("{} ({})", client.name(), client.label))?;
    }
    let until = realtime_ns();
    let stopped: Vec<_> = thread::scope(|scope| {
        let stops: Vec<_> = probers.into_iter().map(|p| scope.spawn(|| p.stop())).collect();
        stops.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let outage = |(client, probes): (&Client, thread::Result<netns_lab::Probes>)| {
        let probes = probes.ok().context("a prober panicked")?;
        let outage = probes.outage(at, until);
        outage.with_context(|| format!("{}: no answer before the fault", client.name()))
    };
    clients.iter().zip(stopped).map(outage).collect()
}
