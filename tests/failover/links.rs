//! The network fails.

use netns_lab::Filter;

use crate::audit;
use crate::pair::{Pair, heartbeat};

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
