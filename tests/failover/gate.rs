//! A daemon that cannot say a word any more: the gate shuts by itself, and nothing of its machine
//! speaks as master.

use std::time::{Duration, Instant};

use netns_lab::{Node, mac, topology};
use nix::sys::signal::Signal;

use crate::audit::{answers_soon, run};
use crate::pair::{Pair, eventually, heartbeat};

/// Counts in the router what comes from one machine as only a master may send it.
pub(crate) struct Ear {
    router: Node,
    gateway: Node,
}

impl Ear {
    pub(crate) fn new(pair: &Pair, gateway: &Node) -> Ear {
        let router = pair.lab.router().clone();
        let from = mac(gateway, "eth0").expect("a MAC");
        let vip = topology::floating();
        let port = topology::endpoint(false).port();
        // Netdev, as the router's own tables never see frames that are not for it.
        let rules = format!(
            "table netdev ear {{\n\
             counter c_wg {{}}\n counter c_arp {{}}\n counter c_na {{}}\n\
             chain in {{\n  type filter hook ingress device eth0 priority 0;\n\
             ether saddr {from} udp sport {port} counter name c_wg\n\
             ether saddr {from} arp saddr ip {} counter name c_arp\n\
             ether saddr {from} icmpv6 type nd-neighbor-advert @th,64,128 {:#x} counter name c_na\n\
             }}\n}}\n",
            vip.v4,
            u128::from(vip.v6),
        );
        router.nft(&rules).expect("nft");
        Ear { router, gateway: gateway.clone() }
    }

    /// (WireGuard, ARP, neighbour advertisements) since the last call.
    pub(crate) fn heard(&self) -> (u64, u64, u64) {
        let shown = run(&self.router, "nft -j reset counters table netdev ear");
        let all: serde_json::Value = serde_json::from_str(&shown).expect("JSON of nft");
        let count = |name: &str| {
            let list = all["nftables"].as_array().expect("a list");
            let found = list.iter().find(|o| o["counter"]["name"] == name);
            found.and_then(|o| o["counter"]["packets"].as_u64()).expect("a counter")
        };
        (count("c_wg"), count("c_arp"), count("c_na"))
    }

    /// The router asks everybody where the floating IPs are.
    fn ask(&self) {
        for address in topology::floating().both() {
            run(&self.router, &format!("ip neigh flush to {address}"));
            self.router.ping(address);
        }
    }

    /// What the machine's gate held back: (WireGuard and neighbour advertisements, ARP).
    fn held_back(&self) -> u64 {
        let shown = run(&self.gateway, "nft -j list ruleset");
        let all: serde_json::Value = serde_json::from_str(&shown).expect("JSON of nft");
        let rules = all["nftables"].as_array().expect("a list");
        let exprs = rules.iter().filter(|o| o["rule"]["family"] == "arp");
        let counters =
            exprs.flat_map(|o| o["rule"]["expr"].as_array().cloned().unwrap_or_default());
        counters.filter_map(|e| e["counter"]["packets"].as_u64()).sum()
    }
}

fn gate(pair: &Pair, node: &Node) -> (String, bool) {
    let status = pair.status(node);
    let word = status["fencing"].as_str().unwrap_or_default().to_owned();
    (word, status["gate"]["open"] == true)
}

/// Nothing is heard of the gateway that was silenced at `since`, from its deadline on, for two seconds.
pub(crate) fn silent(ear: &Ear, since: Instant) {
    // D - I/2 after the last heartbeat at the latest, or a lease less its margin after the last ask; this is D.
    std::thread::sleep((since + heartbeat() * 3).saturating_duration_since(Instant::now()));
    ear.heard();
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        ear.ask();
    }
    assert_eq!(ear.heard(), (0, 0, 0), "WireGuard, ARP, NA after the deadline");
    assert!(ear.held_back() > 0, "the gate had nothing to hold back, so this shows nothing");
}

/// The tables of the gate, which are named after the lab's cluster.
fn tables(node: &Node) -> usize {
    run(node, "nft list tables").lines().filter(|l| l.ends_with(" wgha_lab")).count()
}

#[test]
fn stopped_as_a_whole() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    assert_eq!(
        (gate(&pair, &gw1), gate(&pair, &gw2)),
        (("gate".into(), true), ("gate".into(), false))
    );
    let ear = Ear::new(&pair, &gw1);
    ear.ask();
    answers_soon(&pair.clients[0], "gw1 serves");
    let (wg, arp, na) = ear.heard();
    assert!(wg > 0 && arp > 0 && na > 0, "the ear is deaf: {wg}, {arp}, {na}");

    pair.signal(&gw1, Signal::SIGSTOP);
    silent(&ear, Instant::now());
    pair.settled_on_silent(&gw2, "gw1 is stopped");
    assert_eq!(ear.heard(), (0, 0, 0), "while gw2 serves");
    pair.signal(&gw1, Signal::SIGCONT);
    pair.settled_on(&gw2, "gw1 goes on");
    assert_eq!(gate(&pair, &gw1), ("gate".into(), false));
    pair.end();
}

#[test]
fn killed_and_never_released() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let ear = Ear::new(&pair, &gw1);
    pair.kill(&gw1);
    silent(&ear, Instant::now());
    pair.settled_on_silent(&gw2, "gw1 was killed");
    // It stands, shut, until somebody takes off what it guards.
    assert_eq!(tables(&gw1), 2);
    pair.wgha(&gw1, &["release"]);
    assert_eq!(tables(&gw1), 0);
    pair.settled_on(&gw2, "gw1 was released");
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 runs again");
    assert_eq!(gate(&pair, &gw1), ("gate".into(), false));
    pair.end();
}

#[test]
fn flushed_by_a_firewalls_restart() {
    let pair = Pair::start();
    for node in [pair.gateway(1), pair.gateway(2)] {
        let before = pair.status(&node)["gate"]["restored"].as_u64();
        netns_lab::flush_nft(&node).expect("nft");
        let began = Instant::now();
        eventually("the gate is back", || match tables(&node) {
            2 => Vec::new(),
            n => vec![format!("{n} tables")],
        });
        println!("{}: back {:?} after the flush", node.name(), began.elapsed());
        eventually("it is counted", || {
            let now = pair.status(&node)["gate"]["restored"].as_u64();
            if now > before { Vec::new() } else { vec![format!("{before:?}, {now:?}")] }
        });
        answers_soon(&pair.clients[0], "flushed");
        pair.settled_on(&pair.gateway(1), &format!("nft flush ruleset on {}", node.name()));
    }
    pair.end();
}
