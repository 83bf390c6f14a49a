//! Orders of an operator.

use netns_lab::Lab;
use serde_json::Value;

use crate::audit;
use crate::pair::{Pair, eventually};

#[test]
fn handover_by_command() {
    let pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let said = pair.hand_over(&gw1, &gw2);
    assert!(said.contains("gw2 is master now"), "{said}");
    // One that may take WireGuard's own time: the client pings on and finds the new gateway by itself.
    audit::answers_soon(&pair.clients[0], "after a handover");
    pair.settled_on(&gw2, "handover");
    pair.hand_over(&gw2, &gw1);
    pair.settled_on(&gw1, "handover back");
    // The other tests look over the control socket; this is what an operator sees.
    for node in [&gw1, &gw2] {
        let told: Value =
            serde_json::from_str(&pair.wgha(node, &["status", "--json"])).expect("JSON");
        let asked = pair.status(node);
        for field in ["node", "role", "term", "reason", "master", "floating_ips"] {
            assert_eq!(told[field], asked[field], "{field} of {}", node.name());
        }
    }
    pair.end();
}

#[test]
fn refusals_of_handover_are_named() {
    let mut pair = Pair::with(Lab::builder().witness().cluster(crate::pair::options()));
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let witness = pair.lab.witness().expect("w1").clone();
    for (node, args, why) in [
        (&gw2, &["handover"][..], "this node is not master"),
        (&gw1, &["handover", "--to", "gw9"], "no gateway named \"gw9\""),
        (&gw1, &["handover", "--to", "w1"], "\"w1\" is a witness"),
        (&gw1, &["handover", "--to", "gw1"], "\"gw1\" is this node"),
        (&witness, &["handover"], "a witness cannot do that"),
        (&witness, &["maintenance", "on"], "a witness cannot do that"),
    ] {
        let said = pair.refused(node, args);
        assert!(said.contains(why), "{args:?} on {}: {said}", node.name());
    }
    pair.wgha(&gw2, &["maintenance", "on"]);
    let said = pair.refused(&gw1, &["handover", "--to", "gw2"]);
    assert!(said.contains("gw2 cannot take over: ") && said.contains("maintenance"), "{said}");
    let said = pair.refused(&gw1, &["handover"]);
    assert!(said.contains("no gateway can take over: ") && said.contains("maintenance"), "{said}");
    // Nobody else could serve, so the last one stays.
    let said = pair.refused(&gw1, &["maintenance", "on"]);
    assert!(said.contains("no gateway can take over"), "{said}");
    pair.wgha(&gw2, &["maintenance", "off"]);
    pair.stop(&gw2);
    let said = pair.refused(&gw1, &["handover", "--to", "gw2"]);
    assert!(said.contains("gw2 cannot take over: "), "{said}");
    let nobody = pair.cluster.command(&gw2, &["status"]);
    assert!(nobody.is_err(), "no daemon answers there");
    pair.settled_on(&gw1, "refusals changed nothing");
    pair.end();
}

#[test]
fn maintenance_survives_a_restart() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    pair.in_the_end(&gw1, &["maintenance", "on"]);
    pair.settled_on(&gw2, "maintenance hands over");
    pair.stop(&gw1);
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 runs again, in maintenance");
    assert_eq!(pair.status(&gw1)["maintenance"], true, "forgotten by a stop");
    pair.kill(&gw1);
    pair.start_on(&gw1);
    eventually("gw1 answers", || {
        pair.cluster.status(&gw1).err().map(|e| e.to_string()).into_iter().collect()
    });
    assert_eq!(pair.status(&gw1)["maintenance"], true, "forgotten by a kill");
    // The other one goes: a node in maintenance does not take over.
    pair.stop(&gw2);
    std::thread::sleep(crate::pair::heartbeat() * 10);
    assert_ne!(pair.status(&gw1)["role"], "master", "took over in maintenance");
    pair.wgha(&gw1, &["maintenance", "off"]);
    pair.settled_on(&gw1, "maintenance is over, and nobody else is there");
    pair.end();
}

#[test]
fn twenty_handovers() {
    let pair = Pair::start();
    let mut nodes = [pair.gateway(1), pair.gateway(2)];
    for _ in 0..20 {
        let [from, to] = &nodes;
        // The successor of a moment ago may not have settled: that is refused by name, so asked again.
        pair.hand_over(from, to);
        nodes.swap(0, 1);
    }
    pair.settled_on(&pair.gateway(1), "twenty handovers back and forth");
    pair.end();
}
