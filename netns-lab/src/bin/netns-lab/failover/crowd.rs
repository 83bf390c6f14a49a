//! Many simulated clients: how long until they are back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_lab::{HandshakeRate, Lab, Node, Swarm, realtime_ns, topology};
use serde_json::Value;

use super::Options;
use super::stage::Stage;
use super::table::{Row, Table};

/// New clients a second at the start, by what gateways take from one address.
const START_EACH: u32 = 200;
const START_NAT: u32 = 60;

/// The slowest ones have lost several tries.
const PATIENCE: Duration = Duration::from_secs(90);

/// What is said of each round, in milliseconds since the link cut, or since the role changed.
const FIGURES: [&str; 5] = [
    "first back",
    "90 % back",
    "all back",
    "first, as the daemon says",
    "90 %, as the daemon says",
];

pub(super) fn run(options: &Options, peers: u16, nat: bool, table: &mut Table) -> Result<()> {
    let stage = Stage::start(options, options.heartbeat(), Lab::builder().nat(nat).swarm(peers))?;
    let mut swarm = stage.lab.start_swarm(nat, if nat { START_NAT } else { START_EACH })?;
    stage.explain(swarm.wait_all(PATIENCE), "before the first round")?;
    let place = if nat { "behind one NAT" } else { "own addresses" };
    let mut rows = FIGURES.map(|name| Row::new(format!("{peers} clients, {place}: {name}"), None));
    for number in 1..=options.peers_rounds {
        let when = format!("{peers} clients, round {number}");
        let times = stage.explain(round(&stage, &mut swarm, peers), &when)?;
        table.endpoints_right(peers.into());
        rows.iter_mut().zip(times).for_each(|(row, time)| row.add(time));
    }
    drop(swarm);
    rows.into_iter().for_each(|row| table.add(row));
    let rate = HandshakeRate::measure(Duration::from_millis(500))?;
    table.note(format!(
        "  the limit: one core does {:.0} handshakes a second (gateway's side; {:.0} with the client's): 90 % of {peers} in {:.0} ms",
        rate.gateway,
        rate.both,
        f64::from(peers) * 900.0 / rate.gateway,
    ));
    Ok(())
}

fn round(stage: &Stage, swarm: &mut Swarm, peers: u16) -> Result<[Duration; 5]> {
    let master = stage.master()?;
    stage.wait_told(&master, peers.into())?;
    stage.lab.warm_neighbours();
    swarm.mark();
    let fault = realtime_ns();
    stage.lab.cut_link(&master, true)?;
    swarm.wait_all(PATIENCE)?;
    let backs = swarm.backs();
    let right = Some(topology::endpoint(false));
    let wrong = backs.iter().filter(|b| b.endpoint != right).count();
    ensure!(wrong == 0, "{wrong} clients have another endpoint than the floating IP");
    let mut times: Vec<u64> = backs.iter().filter_map(|b| b.answered).collect();
    times.sort_unstable();
    let nth = |n: usize| {
        let at = times.get(n.saturating_sub(1)).context("no client")?;
        anyhow::Ok(Duration::from_nanos(at.saturating_sub(fault)))
    };
    let (first, ninety, all) = (nth(1)?, nth((times.len() * 9).div_ceil(10))?, nth(times.len())?);
    let said = said_by(stage, stage.heir(&master)?)?;
    stage.heal()?;
    Ok([first, ninety, all, said[0], said[1]])
}

/// The handshakes of the last role change, as the new master tells them. It looks a while longer than the clients need.
fn said_by(stage: &Stage, master: &Node) -> Result<[Duration; 2]> {
    for _ in 0..100 {
        let events = stage.cluster.command(master, &["events", "--json"])?;
        let last: Value = serde_json::from_str(events.lines().last().unwrap_or_default())?;
        let phase = |name: &str| {
            last["phases_ms"][name].as_f64().map(|ms| Duration::from_secs_f64(ms / 1e3))
        };
        if let (Some(first), Some(ninety)) =
            (phase("first_handshake"), phase("handshakes_90_percent"))
        {
            return Ok([first, ninety]);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    anyhow::bail!("{} does not tell when its clients were back", master.name())
}
