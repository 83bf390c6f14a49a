//! A gateway that is cut off knows it by its router, which no longer answers, and takes nothing over.

use netns_lab::{Filter, Node, topology};
use serde_json::Value;

use crate::pair::{Pair, detection, eventually, heartbeat};

/// Waits until `node` has a router that usually answers.
fn knows_its_router(pair: &Pair, node: &Node) {
    eventually(&format!("{} knows its router", node.name()), || {
        let evidence = pair.status(node)["evidence"].clone();
        let sources = evidence["sources"].as_array().cloned().unwrap_or_default();
        let usual = |address: String| {
            sources.iter().any(|s| s["address"] == address.as_str() && s["usual"] == true)
        };
        let known = topology::router().both().map(|ip| ip.to_string()).into_iter().all(usual);
        if known && evidence["state"] == "answered" {
            Vec::new()
        } else {
            vec![evidence.to_string()]
        }
    });
}

/// Nobody's role changes, for several detection times.
fn nobody_moves(pair: &Pair, backup: &Node, master: &Node, when: &str) {
    pair.stay(&[(backup, "backup"), (master, "master")], detection() * 3, when);
}

/// What `node` says of its only path to the other gateway.
fn path(pair: &Pair, node: &Node) -> Value {
    let nodes = pair.status(node)["nodes"].clone();
    let other = nodes.as_array().and_then(|all| all.iter().find(|n| n["name"] != node.name()));
    other.map(|n| n["paths"][0].clone()).unwrap_or_default()
}

#[test]
fn a_deaf_backup_displaces_nobody() {
    let pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    knows_its_router(&pair, &gw2);
    let changes = pair.changes_of(&[&gw1, &gw2]);
    let deaf = pair.lab.inject(vec![Filter::deaf("gw2")]).expect("cut");
    pair.says(&gw2, "backup", "isolated");
    nobody_moves(&pair, &gw2, &gw1, "gw2 is deaf");
    assert_eq!(pair.status(&gw2)["evidence"]["state"], "silent");
    let table = pair.wgha(&gw2, &["status"]);
    assert!(table.contains("held back  isolated") && table.contains("NO ANSWER"), "{table}");
    // gw1 hears gw2, and hears from it that it does not hear gw1. Not on which path: gw2, which hears no master, sends to
    // the floating IPs as well, and of what is not timely the first copy alone counts.
    eventually("gw1 knows that gw2 is deaf", || {
        let seen = path(&pair, &gw1);
        let known = seen["sends"] == false && seen["broken"] == "send";
        if known { Vec::new() } else { vec![seen.to_string()] }
    });
    let table = pair.wgha(&gw1, &["status"]);
    assert!(table.contains("DEAF TO US") && table.contains("SENDS IN VAIN"), "{table}");
    let seen = path(&pair, &gw2);
    assert_eq!(seen["receives"], false, "{seen}");
    pair.lab.heal(deaf).expect("heal");
    pair.settled_on(&gw1, "gw2 hears again");
    eventually("the path is whole", || {
        let seen = path(&pair, &gw1);
        let whole = seen["alive"] == true && seen["broken"].is_null();
        if whole { Vec::new() } else { vec![seen.to_string()] }
    });
    pair.none_changed(&[&gw1, &gw2], changes, "a role changed");
    pair.end();
}

#[test]
fn a_backup_whose_link_is_cut_stays_backup() {
    let pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    knows_its_router(&pair, &gw2);
    // Frames, not the carrier: its loss would be a fault of an interface.
    let cut = pair.lab.inject(vec![Filter::deaf("gw2"), Filter::mute("gw2")]).expect("cut");
    pair.says(&gw2, "backup", "isolated");
    nobody_moves(&pair, &gw2, &gw1, "gw2 is cut off");
    pair.lab.heal(cut).expect("heal");
    pair.settled_on(&gw1, "gw2 is back");
    // The carrier goes, and with it whatever the machine drops.
    pair.lab.cut_link(&gw2, true).expect("cut");
    std::thread::sleep(heartbeat() * 12);
    assert_ne!(pair.status(&gw2)["role"], "master", "the cable of gw2 is out");
    assert_eq!(pair.status(&gw1)["role"], "master");
    pair.lab.heal_link(&gw2, true).expect("heal");
    pair.settled_on(&gw1, "the cable of gw2 is in again");
    pair.end();
}

#[test]
fn evidence_does_not_delay_a_takeover() {
    let pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let (mut on, mut off) = (pair.gateway(1), pair.gateway(2));
    for round in 1..=3 {
        knows_its_router(&pair, &off);
        pair.lab.cut_link(&on, true).expect("cut");
        pair.is_master(&off, "its link is cut");
        let events = pair.wgha(&off, &["events", "--json"]);
        let last: Value =
            serde_json::from_str(events.lines().last().expect("an event")).expect("JSON");
        let detect = last["phases_ms"]["detect"].as_f64().expect("a takeover");
        println!(
            "round {round}: detected after {detect:.1} ms, {} ms are due",
            heartbeat().as_millis() * 3
        );
        let status = pair.status(&off);
        assert_eq!(status["evidence"]["state"], "answered", "{}", status["evidence"]);
        pair.lab.heal_link(&on, true).expect("heal");
        pair.settled_on(&off, "the link is back: the incumbent stays");
        (on, off) = (off, on);
    }
    assert!([&gw1, &gw2].iter().all(|node| pair.status(node)["held_back"].is_null()));
    pair.end();
}

#[test]
fn only_heartbeats_are_lost_and_the_direction_is_named() {
    let pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    knows_its_router(&pair, &gw2);
    // The router answers gw2, so that it takes the master for dead: with two voters nobody can know better.
    let deaf = pair.lab.inject(vec![Filter::deaf("gw2").heartbeats()]).expect("cut");
    pair.is_master(&gw2, "gw2 hears no heartbeat");
    eventually("the direction is named", || {
        let seen = path(&pair, &gw1);
        if seen["broken"] == "send" { Vec::new() } else { vec![seen.to_string()] }
    });
    pair.lab.heal(deaf).expect("heal");
    pair.settled("they hear each other again: one yields");
    pair.end();
}
