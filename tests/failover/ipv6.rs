//! IPv6 alone outside.

use netns_lab::{ClusterOptions, Lab, topology};

use crate::audit;
use crate::pair::{Pair, options};

#[test]
fn ipv6_outside() {
    let cluster = ClusterOptions { floating_v4: false, ..options() };
    let mut pair = Pair::with(Lab::builder().cluster(cluster));
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    assert_eq!(pair.clients[0].endpoint().expect("an endpoint"), topology::endpoint(true));
    pair.lab.cut_link(&gw1, true).expect("cut");
    pair.is_master(&gw2, "the link of gw1 is cut");
    pair.lab.heal_link(&gw1, true).expect("heal");
    pair.settled_on(&gw2, "link cut and healed, IPv6 outside");
    // The old holder keeps its address and answers for it: duplicate detection must not stop the new one.
    pair.kill(&gw2);
    let address = format!("{}/128", topology::floating().v6);
    assert!(audit::run(&gw2, "ip -6 -o addr").contains(&address), "kill -9 leaves the address");
    pair.is_master(&gw1, "gw2 was killed");
    let shown = audit::run(&gw1, &format!("ip -6 -o addr show to {}", topology::floating().v6));
    assert!(!shown.contains("tentative") && !shown.contains("dadfailed"), "{shown}");
    audit::answers_soon(&pair.clients[0], "while the dead gateway still has the address");
    pair.wgha(&gw2, &["release"]);
    pair.start_on(&gw2);
    pair.settled_on(&gw1, "gw2 is back");
    pair.end();
}
