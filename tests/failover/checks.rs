//! Health checks move the role to who is healthy, and `[probe]` tells load balancers who has it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use netns_lab::{ClusterOptions, Lab, Node, etc, topology};

use crate::pair::{Pair, eventually, network, options};

const SCRIPT: &str = "#!/bin/sh
[ ! -e /etc/wgha/hangs ] || { trap '' TERM; while :; do sleep 1; done; }
[ ! -e /etc/wgha/fails ] || { echo \"$WGHA_NODE is broken\"; exit 1; }
";

const CHECKS: &str = r#"
[[check]]
name = "backend"
script = ["/etc/wgha/check.sh"]
interval = "200ms"
timeout = "2s"
rise = 2
fall = 2
[[check]]
name = "uplink"
interface = "eth0"
interval = "200ms"
"#;

/// A pair with more in its config.
fn start(extra: &str) -> Pair {
    let extra = extra.to_owned();
    let lab = network(Lab::builder().cluster(ClusterOptions { extra, ..options() }));
    for node in lab.gateways() {
        let path = etc(node).join("check.sh");
        fs::write(&path, SCRIPT).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let pair = Pair::unsettled(lab);
    pair.settled("after the start");
    pair.lead(&pair.gateway(1));
    pair
}

/// Makes a gateway's script fail or hang, or not any more.
fn set(node: &Node, what: &str, on: bool) {
    let file = etc(node).join(what);
    if on { fs::write(file, "") } else { fs::remove_file(file) }.expect("a file");
}

/// Waits until a gateway's script passes or fails, with this text.
fn says(pair: &Pair, node: &Node, ok: bool, detail: &str) {
    eventually(&format!("{}: {ok}, {detail}", node.name()), || {
        let status = pair.status(node);
        let check = &status["checks"][0];
        let said = check["detail"].as_str().is_some_and(|said| said.contains(detail));
        if check["ok"] == ok && status["healthy"] == ok && said {
            Vec::new()
        } else {
            vec![format!("{check}, healthy: {}", status["healthy"])]
        }
    });
}

#[test]
fn the_role_goes_to_who_is_healthy() {
    let pair = start(CHECKS);
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    says(&pair, &gw1, true, "exit 0");

    set(&gw1, "fails", true);
    pair.settled_on(&gw2, "gw1's check fails");
    says(&pair, &gw1, false, "gw1 is broken (exit 1)");
    let checks = &pair.status(&gw1)["checks"];
    assert_eq!((&checks[0]["name"], &checks[1]["name"]), (&"backend".into(), &"uplink".into()));
    assert_eq!((&checks[1]["ok"], &checks[1]["detail"]), (&true.into(), &"eth0 is up".into()));

    // Both fail: the master serves on.
    let changes = pair.changes_of(&[&gw2]);
    set(&gw2, "fails", true);
    says(&pair, &gw2, false, "gw2 is broken");
    std::thread::sleep(Duration::from_secs(2));
    pair.settled_on(&gw2, "both fail");
    pair.none_changed(&[&gw2], changes, "the role went to and fro");

    set(&gw1, "fails", false);
    pair.settled_on(&gw1, "gw1 is healthy again, and gw2 is not");
    // The role stays where it is when the other becomes healthy.
    let changes = pair.changes_of(&[&gw1]);
    set(&gw2, "fails", false);
    says(&pair, &gw2, true, "exit 0");
    std::thread::sleep(Duration::from_secs(1));
    pair.settled_on(&gw1, "both are healthy");
    pair.none_changed(&[&gw1], changes, "the role went to and fro");

    // A script that does not even end on SIGTERM. The audit asks for heartbeats and the tunnel meanwhile.
    set(&gw1, "hangs", true);
    pair.settled_on(&gw2, "gw1's check hangs");
    says(&pair, &gw1, false, "no answer within 2000 ms");
    assert_eq!(pair.status(&gw1)["checks"][1]["ok"], true, "the other check waits for nobody");
    set(&gw1, "hangs", false);
    says(&pair, &gw1, true, "exit 0");
    pair.end();
}

#[test]
fn the_probe_answers_on_the_master_alone() {
    let port = 9113;
    let pair = start(&format!("\n[probe]\nlisten = \"0.0.0.0:{port}\"\n"));
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    // On the loopback, so that nothing but the responder decides.
    let connects = |node: &Node, to: &str| {
        let line =
            format!("timeout 10 bash -c '</dev/tcp/{to}/{port}' 2>&1 && echo accepted; true");
        node.sh(&line).expect("a shell")
    };
    let is_at = |master: &Node, backup: &Node| {
        let (yes, no) = (connects(master, "127.0.0.1"), connects(backup, "127.0.0.1"));
        assert_eq!(yes.trim(), "accepted", "{} is master", master.name());
        assert!(no.contains("Connection refused"), "{} is backup: {no}", backup.name());
        let floating = topology::floating().v4.to_string();
        let outside = connects(pair.lab.router(), &floating);
        assert_eq!(outside.trim(), "accepted", "at the floating IP");
    };
    is_at(&gw1, &gw2);
    pair.hand_over(&gw1, &gw2);
    pair.settled_on(&gw2, "handed over");
    is_at(&gw2, &gw1);

    pair.lab.cut_link(&gw2, true).expect("cut");
    pair.is_master(&gw1, "gw2 is cut off");
    pair.lab.heal_link(&gw2, true).expect("heal");
    pair.settled_on(&gw1, "gw2 is back");
    is_at(&gw1, &gw2);
    pair.end();
}
