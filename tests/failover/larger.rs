//! More than two nodes.

use netns_lab::{ClusterOptions, Lab};

use crate::pair::{Pair, options};

#[test]
fn three_gateways() {
    let cluster = ClusterOptions { priorities: vec![150, 100, 50], ..options() };
    let mut pair = Pair::with(Lab::builder().gateways(3).clients(2).cluster(cluster));
    let (gw1, gw2, gw3) = (pair.gateway(1), pair.gateway(2), pair.gateway(3));
    pair.kill(&gw1);
    pair.wgha(&gw1, &["release"]);
    pair.settled_on(&gw2, "gw1 is gone: the next rank");
    pair.lab.cut_link(&gw2, true).expect("cut");
    pair.is_master(&gw3, "gw2 is cut off, too: the last one");
    pair.lab.heal_link(&gw2, true).expect("heal");
    pair.start_on(&gw1);
    pair.settled_on(&gw3, "all are back: the incumbent stays");
    pair.is_ready(&gw2);
    pair.hand_over(&gw3, &gw2);
    pair.settled_on(&gw2, "handover to the one that was named");
    pair.end();
}

#[test]
fn with_a_witness() {
    let mut pair = Pair::with(Lab::builder().witness().cluster(options()));
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let witness = pair.lab.witness().expect("w1").clone();
    let status = pair.status(&witness);
    assert_eq!(status["wireguard"].as_array().map(Vec::len), Some(0), "a witness only votes");
    pair.kill(&gw1);
    pair.wgha(&gw1, &["release"]);
    pair.settled_on(&gw2, "gw1 is gone, gw2 has the witness");
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 is back");
    // The witness hears both gateways, which do not hear each other: the incumbent stays the only one.
    let cut = pair.lab.partition(&["gw1"], &["gw2"]).expect("cut");
    std::thread::sleep(crate::pair::heartbeat() * 12);
    assert_ne!(pair.status(&gw1)["role"], "master", "the witness says that gw2 is heard");
    pair.lab.heal(cut).expect("heal");
    pair.settled_on(&gw2, "the gateways hear each other again");
    pair.end();
}
