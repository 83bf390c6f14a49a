//! One gateway runs the kernel's WireGuard, the other the embedded one, which stamps 27 s ahead: told at once, and a
//! handover needs `--force`; nobody is kept from serving.
//!
//! Only where the kernel has WireGuard there are two to differ: tests/kernel-lab runs this.

use netns_lab::{ClusterOptions, Lab, Node, WgKind, topology};

use crate::audit;
use crate::clients::follows;
use crate::clock::{back, called_in_vain, warned};
use crate::pair::{Pair, network, options};

const ALARM: &str = "runs another WireGuard: clients refuse handshakes for 27 s";
const REFUSAL: &str = "its WireGuard implementation differs (force passes over that)";

/// gw1 with the kernel's, gw2 with the embedded one, gw1 as master.
fn pair() -> Pair {
    let backends = ["kernel", "embedded"].map(str::to_owned).to_vec();
    let lab = network(Lab::builder().cluster(ClusterOptions { backends, ..options() }));
    let client = WgKind::choose(lab.client_node(1)).expect("a WireGuard");
    assert_eq!(client, WgKind::Kernel, "needs the kernel's WireGuard: run tests/kernel-lab");
    let pair = Pair::unsettled(lab);
    if pair.settled("after the start").name() != "gw1" {
        pair.in_the_end(&pair.gateway(2), &["handover", "--force"]);
    }
    pair.settled_on(&pair.gateway(1), "gw1 leads");
    pair
}

fn told(pair: &Pair, node: &Node, other: &Node, backend: &str) {
    let text = format!("{} {ALARM}", other.name());
    warned(pair, node, &text);
    assert_eq!(pair.status(node)["wireguard"][0]["backend"], backend);
    let table = pair.wgha(node, &["status"]);
    assert!(table.contains(&format!("! {text}")), "{table}");
    let log = std::fs::read_to_string(node.dir().join("log/wgha.log")).expect("the log");
    assert_eq!(log.matches(&text).count(), 1, "{log}");
}

#[test]
#[ignore = "only in the kernel lab: tests/kernel-lab"]
fn another_wireguard_takes_part_and_is_handed_the_role_by_force_alone() {
    let pair = pair();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    told(&pair, &gw1, &gw2, "kernel");
    told(&pair, &gw2, &gw1, "embedded");

    let term = pair.status(&gw1)["term"].clone();
    let said = pair.refused(&gw1, &["handover", "--to", "gw2"]);
    assert!(said.contains(&format!("gw2 cannot take over: {REFUSAL}")), "{said}");
    let said = pair.refused(&gw1, &["handover"]);
    assert!(said.contains("no gateway can take over: ") && said.contains(REFUSAL), "{said}");
    let status = pair.status(&gw1);
    assert_eq!((&status["role"], &status["term"]), (&"master".into(), &term));

    // It takes part: when the master is gone, it serves. The client is to take its stamp, so it must be called.
    follows(&pair, &gw2);
    pair.lab.cut_link(&gw1, true).expect("cut");
    pair.is_master(&gw2, "the link of gw1 is cut");
    audit::answers_soon(&pair.clients[0], "called by gw2");
    pair.lab.heal_link(&gw1, true).expect("heal");
    pair.settled_on(&gw2, "the link of gw1 is back: the incumbent stays");

    // The client has a stamp of the embedded one, and takes none of the kernel's for 27 s: so the alarm is true.
    let (order, said) = pair.in_the_end(&gw2, &["handover", "--to", "gw1", "--force"]);
    assert!(said.contains("gw1 is master now"), "{said}");
    assert!(said.contains(&format!("warning: gw1 {ALARM}")), "{said}");
    called_in_vain(back(&pair, order));
    assert_eq!(pair.clients[0].endpoint().expect("an endpoint"), topology::endpoint(false));
    pair.settled_on(&gw1, "the client came by itself");
    pair.end();
}
