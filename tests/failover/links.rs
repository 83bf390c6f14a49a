//! The network fails.

use netns_lab::Filter;

use crate::audit;
use crate::pair::{Pair, eventually, heartbeat};

#[test]
fn link_cut_and_healed() {
    let pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    pair.lab.cut_link(&gw1, true).expect("cut");
    pair.is_master(&gw2, "the link of gw1 is cut");
    // How soon it answers is the subject of clients.rs.
    audit::answers_soon(&pair.clients[0], "the link of gw1 is cut");
    pair.lab.heal_link(&gw1, true).expect("heal");
    pair.settled_on(&gw2, "the link of gw1 is back: the incumbent stays");
    pair.end();
}

#[test]
fn partition_and_healed() {
    let pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    // Both still reach the router: with two voters that gives two masters, which the config check says.
    let cut = pair.lab.partition(&["gw1"], &["gw2"]).expect("cut");
    pair.is_master(&gw2, "gw2 hears nothing of gw1");
    assert_eq!(pair.status(&gw1)["role"], "master", "gw1 still reaches its clients");
    pair.lab.heal(cut).expect("heal");
    pair.settled("the partition is over");
    pair.end();
}

/// The gateways' own addresses are cut off from each other, as where heartbeats have a network of their own. The floating IP still
/// leads from the backup to the master, as it does for clients.
#[test]
fn the_floating_ip_is_a_path_to_the_master() {
    let pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let path = |floating: bool| {
        let status = pair.status(&gw2);
        let nodes = status["nodes"].as_array().expect("nodes");
        let gw1 = nodes.iter().find(|node| node["name"] == "gw1").expect("gw1");
        let paths = gw1["paths"].as_array().expect("paths").iter();
        paths.filter(|p| p["floating"] == floating).any(|p| p["alive"] == true)
    };
    eventually("the floating path is alive", || {
        if path(true) { Vec::new() } else { vec!["it is not".to_owned()] }
    });
    let (terms, own) = (pair.changes(&gw2), |n| netns_lab::topology::gateway(n));
    let (one, two) = (own(1), own(2));
    // Each drops what the other sends straight to it.
    for (node, from, to) in [(&gw1, &two, &one), (&gw2, &one, &two)] {
        let cut = format!(
            "table inet cut {{\nchain in {{\ntype filter hook input priority -10\n\
             udp dport 5112 ip saddr {} ip daddr {} drop\nudp dport 5112 ip6 saddr {} ip6 daddr {} drop\n}}\n}}\n",
            from.v4, to.v4, from.v6, to.v6
        );
        node.nft(&cut).expect("cut");
    }
    eventually("the direct path is dead", || {
        if path(false) { vec!["it is alive".to_owned()] } else { Vec::new() }
    });
    // It would take over long before: its router answers.
    std::thread::sleep(heartbeat() * 12);
    assert!(path(true), "{}", pair.status(&gw2));
    assert_eq!((pair.status(&gw2)["role"].as_str(), pair.changes(&gw2)), (Some("backup"), terms));
    assert_eq!(pair.status(&gw1)["role"], "master");
    for node in [&gw1, &gw2] {
        node.nft("delete table inet cut").expect("healed");
    }
    pair.settled_on(&gw1, "all paths are back");
    pair.end();
}

#[test]
fn deaf_or_mute() {
    let pair = Pair::start();
    let gw2 = pair.gateway(2);
    // Nobody hears gw1: neither do its clients.
    let mute = pair.lab.inject(vec![Filter::mute("gw1")]).expect("cut");
    pair.is_master(&gw2, "gw1 is mute");
    pair.lab.heal(mute).expect("heal");
    pair.settled_on(&gw2, "gw1 is heard again: the incumbent stays");
    // No router answers it either: it knows that it is the isolated one.
    let deaf = pair.lab.inject(vec![Filter::deaf("gw1")]).expect("cut");
    std::thread::sleep(heartbeat() * 12);
    assert_eq!(pair.status(&gw2)["role"], "master", "a deaf backup displaces nobody");
    pair.says(&pair.gateway(1), "backup", "isolated");
    pair.lab.heal(deaf).expect("heal");
    pair.settled_on(&gw2, "gw1 hears again");
    pair.end();
}

#[test]
fn both_started_at_once() {
    // `Pair::start` starts both without waiting. Again from nothing, and with equal priorities.
    let mut cluster = crate::pair::options();
    cluster.priorities = vec![100, 100];
    let mut pair = Pair::with(netns_lab::Lab::builder().cluster(cluster));
    for round in 1..=2 {
        for node in [pair.gateway(1), pair.gateway(2)] {
            pair.kill(&node);
        }
        for node in [pair.gateway(2), pair.gateway(1)] {
            pair.start_on(&node);
        }
        pair.settled(&format!("both started, round {round}"));
    }
    pair.end();
}
