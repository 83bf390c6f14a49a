//! Clients that send nothing themselves, seen from behind the gateways.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use netns_lab::{Echo, Lab, Prober, realtime_ns, topology};

use super::Options;
use super::outage::PATIENCE;
use super::stage::{Client, Stage};
use super::table::{Row, Table, Target};

/// The client without keepalive is left alone for so long after the fault.
const ALONE: Duration = Duration::from_secs(2);

/// In seconds.
const KEEPALIVE: u16 = 25;

pub(super) fn run(options: &Options, table: &mut Table) -> Result<()> {
    let network = Lab::builder().clients(2).direct(&[2]);
    let stage = Stage::start(options, options.heartbeat(), network)?;
    let mut kinds = options.kinds(&stage.lab)?;
    kinds.truncate(1);
    let kind = kinds[0];
    let clients =
        [Client::start(&stage.lab, 1, kind, KEEPALIVE)?, Client::start(&stage.lab, 2, kind, 0)?];
    let _echoes = [1, 2].map(|n| Echo::start(stage.lab.client_node(n), topology::ECHO_PORT));
    let target = Some(Target { median_ms: 1_000.0, worst_ms: Some(1_000.0) });
    let mut rows = [
        Row::new(format!("idle, keepalive {KEEPALIVE}, NAT: reached, since link cut"), target),
        Row::new("idle, no keepalive, no NAT: since first packet to it", target),
    ];
    for number in 1..=options.rounds {
        let when = format!("idle clients, round {number}");
        let idle = Duration::from_secs(options.idle_seconds);
        let times = stage.explain(round(&stage, &clients, idle), &when)?;
        table.endpoints_right(clients.len());
        rows.iter_mut().zip(times).for_each(|(row, time)| row.add(time));
    }
    rows.into_iter().for_each(|row| table.add(row));
    Ok(())
}

fn round(stage: &Stage, clients: &[Client; 2], idle: Duration) -> Result<[Duration; 2]> {
    let master = stage.master()?;
    for client in clients {
        client.reaches_host()?;
    }
    stage.wait_told(&master, 2)?;
    stage.lab.warm_neighbours();
    thread::sleep(idle);
    let fault = realtime_ns();
    stage.lab.cut_link(&master, true)?;
    let with = first_answer(stage, clients[0].number)?;
    let with = Duration::from_nanos(with.sent.saturating_sub(fault));
    let gone = Duration::from_nanos(realtime_ns().saturating_sub(fault));
    thread::sleep(ALONE.saturating_sub(gone));
    let without = first_answer(stage, clients[1].number)?.after;
    for client in clients {
        client.check_endpoint()?;
    }
    stage.heal()?;
    Ok([with, without])
}

/// The first probe that was answered.
struct Answer {
    /// CLOCK_REALTIME, in nanoseconds.
    sent: u64,
    /// From the first probe sent to this one's answer.
    after: Duration,
}

/// Probes a client from the host behind the gateways until it answers.
fn first_answer(stage: &Stage, number: u8) -> Result<Answer> {
    let to = SocketAddr::from((topology::wg_client(number).v4, topology::ECHO_PORT));
    let prober = Prober::start(stage.lab.host(), to, Duration::from_millis(1))?;
    let end = Instant::now() + PATIENCE;
    loop {
        let all = prober.probes().probes;
        let first = all.iter().find_map(|p| Some((p.sent, p.received?)));
        if let (Some(begin), Some((sent, received))) = (all.first(), first) {
            return Ok(Answer { sent, after: Duration::from_nanos(received - begin.sent) });
        }
        ensure!(Instant::now() < end, "client{number} does not answer");
        thread::sleep(Duration::from_millis(20));
    }
}
