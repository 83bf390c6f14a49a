//! Clients come back because the new gateway speaks first, to where the old one saw them.

use std::io::Write as _;
use std::time::{Duration, Instant};

use netns_lab::{Node, topology};
use serde_json::Value;

use crate::pair::{Pair, eventually, options};

/// A client begins a handshake by itself 15 s after it sends in vain: who is back before that was
/// called.
const BY_ITSELF: Duration = Duration::from_secs(14);

/// The file in a gateway's state directory.
const KEPT: &str = "wgha/endpoints.json";

/// Waits until `node` knows where all clients are, by what the master sent.
pub(crate) fn follows(pair: &Pair, node: &Node) {
    let name = node.name();
    eventually(&format!("{name} knows the endpoints"), || {
        // It may be starting.
        let Ok(status) = pair.cluster.status(node) else { return vec!["no daemon".to_owned()] };
        let wireguard = &status["wireguard"][0];
        let known = wireguard["endpoints_known"].as_u64() >= Some(pair.clients.len() as u64);
        let fresh = wireguard["endpoints_age_ms"].as_u64().is_some_and(|ms| ms < 15_000);
        if known && fresh { Vec::new() } else { vec![format!("{name}: {wireguard}")] }
    });
}

/// The last event of a gateway.
fn last_event(pair: &Pair, node: &Node) -> Value {
    let events = pair.wgha(node, &["events", "--json"]);
    let last = events.lines().last().expect("an event");
    serde_json::from_str(last).expect("JSON")
}

/// Pings until every client is back; fails if that is later than it could be called.
pub(crate) fn back_before_the_clients_own_time(pair: &Pair, since: Instant) {
    for client in &pair.clients {
        let to = topology::wg_gateway().v4.into();
        let left = BY_ITSELF.saturating_sub(since.elapsed());
        let back = netns_lab::reach(client.node(), to, Duration::from_millis(200), left);
        let name = client.node().name();
        assert!(back.is_ok(), "{name} is not back, so nobody called it: {back:?}");
    }
    let took = since.elapsed();
    assert!(took < BY_ITSELF, "{took:?}");
    println!("clients are back {took:?} after the fault");
}

#[test]
fn called_back_after_a_link_cut_and_after_a_handover() {
    let pair = Pair::with(netns_lab::Lab::builder().clients(3).cluster(options()));
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    follows(&pair, &gw2);
    let fault = Instant::now();
    pair.lab.cut_link(&gw1, true).expect("cut");
    back_before_the_clients_own_time(&pair, fault);
    pair.is_master(&gw2, "the link of gw1 is cut");
    eventually("the event has the handshakes", || {
        let phases = last_event(&pair, &gw2)["phases_ms"].clone();
        let there = |name: &str| phases[name].as_f64().is_some_and(|ms| ms > 0.0);
        let complete = there("first_handshake") && there("handshakes_90_percent");
        if complete { Vec::new() } else { vec![phases.to_string()] }
    });
    pair.lab.heal_link(&gw1, true).expect("heal");
    pair.settled_on(&gw2, "the link of gw1 is back");
    for client in &pair.clients {
        assert_eq!(client.endpoint().expect("an endpoint"), topology::endpoint(false));
    }

    follows(&pair, &gw1);
    pair.is_ready(&gw1);
    let order = Instant::now();
    pair.hand_over(&gw2, &gw1);
    back_before_the_clients_own_time(&pair, order);
    pair.settled_on(&gw1, "after the handover");
    for client in &pair.clients {
        assert_eq!(client.endpoint().expect("an endpoint"), topology::endpoint(false));
    }
    pair.end();
}

#[test]
fn a_backup_that_lost_everything_is_told_again() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    follows(&pair, &gw2);
    pair.kill(&gw2);
    std::fs::remove_file(gw2.dir().join("state").join(KEPT)).expect("it was kept");
    pair.start_on(&gw2);
    follows(&pair, &gw2);
    pair.settled_on(&gw1, "gw2 is back");
    let fault = Instant::now();
    pair.lab.cut_link(&gw1, true).expect("cut");
    back_before_the_clients_own_time(&pair, fault);
    pair.lab.heal_link(&gw1, true).expect("heal");
    pair.settled_on(&gw2, "the link of gw1 is back");
    pair.end();
}

#[test]
fn a_pair_that_restarts_still_knows_where_its_clients_are() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let endpoint = format!("\"{}:", topology::router().v4);
    eventually("it is kept on both", || {
        let kept = |node: &Node| {
            let text = std::fs::read_to_string(node.dir().join("state").join(KEPT));
            text.is_ok_and(|text| text.contains(&endpoint))
        };
        [&gw1, &gw2].into_iter().filter(|n| !kept(n)).map(|n| n.name().to_owned()).collect()
    });
    for node in [&gw1, &gw2] {
        pair.kill(node);
    }
    let restart = Instant::now();
    for node in [&gw1, &gw2] {
        pair.start_on(node);
    }
    back_before_the_clients_own_time(&pair, restart);
    pair.settled("after the restart of both");
    pair.end();
}

#[test]
fn a_witness_is_no_part_of_it_and_cannot_join() {
    let pair = Pair::with(netns_lab::Lab::builder().witness().cluster(options()));
    let witness = pair.lab.witness().expect("a witness").clone();
    let open = witness.sh("ss -Hltn").expect("ss");
    assert!(!open.contains(&topology::HEARTBEAT_PORT.to_string()), "the witness listens: {open}");
    assert!(!witness.dir().join("state").join(KEPT).exists());
    let gw2 = pair.gateway(2);
    let refused = |word: &str| pair.status(&gw2)["refusals"][word].as_u64().unwrap_or(0);
    assert_eq!(refused("sync_greeting"), 0);
    let address = (topology::gateway(2).v4, topology::HEARTBEAT_PORT);
    witness
        .run(move || std::net::TcpStream::connect(address)?.write_all(b"\0\x05hello"))
        .expect("the port answers");
    eventually("gw2 refuses it", || match refused("sync_greeting") {
        0 => vec![pair.status(&gw2)["refusals"].to_string()],
        _ => Vec::new(),
    });
    follows(&pair, &gw2);
    let nodes = pair.status(&gw2)["nodes"].clone();
    let sync: Vec<&Value> =
        nodes.as_array().expect("nodes").iter().map(|node| &node["sync"]).collect();
    assert_eq!(sync, [&Value::Bool(true), &Value::Null, &Value::Null], "{nodes}");
    pair.end();
}
