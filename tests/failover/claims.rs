//! What a master must have outside its machine follows it; the cloud here is a file that both gateways can write.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use netns_lab::{ClusterOptions, Filter, Lab, Node, etc};

use crate::pair::{Pair, eventually, network, options};

/// Says who has it, takes it, and hangs while a file says so.
const PROGRAM: &str = r#"#!/bin/sh
case $WGHA_VERB in
verify) [ "$(cat "$CLOUD/owner")" = "$WGHA_NODE" ] || { echo "$(cat "$CLOUD/owner") has it"; exit 3; } ;;
assert)
    echo "$WGHA_NODE" >>"$CLOUD/calls"
    while [ -e "$CLOUD/hangs" ]; do sleep 0.1; done
    [ "$(cat "$WGHA_TERM_FILE")" = "$WGHA_TERM $WGHA_NODE" ] || { echo "another is master"; exit 75; }
    echo "$WGHA_NODE" >"$CLOUD/owner" ;;
esac
"#;

struct Cloud(PathBuf);

impl Cloud {
    fn start() -> (Pair, Cloud) {
        let extra =
            "\n[[claim]]\nrun = [\"/etc/wgha/claim.sh\"]\nverify_every = \"1s\"\n".to_owned();
        let lab = network(Lab::builder().cluster(ClusterOptions { extra, ..options() }));
        let cloud = Cloud(lab.dir().join("cloud"));
        fs::create_dir(&cloud.0).expect("a directory");
        let program = PROGRAM.replace("$CLOUD", &cloud.0.display().to_string());
        for node in lab.gateways() {
            let path = etc(node).join("claim.sh");
            fs::write(&path, &program).expect("a program");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        let pair = Pair::unsettled(lab);
        pair.settled("after the start");
        pair.lead(&pair.gateway(1));
        (pair, cloud)
    }

    fn owner(&self) -> String {
        fs::read_to_string(self.0.join("owner")).unwrap_or_default().trim().to_owned()
    }

    fn is_at(&self, pair: &Pair, node: &Node, when: &str) {
        eventually(&format!("{when}: the claim is at {}", node.name()), || {
            let claim = &pair.status(node)["claims"][0];
            let good = self.owner() == node.name() && claim["held"] == true;
            if good { Vec::new() } else { vec![format!("at {:?}; {claim}", self.owner())] }
        });
    }

    fn set_hanging(&self, hangs: bool) {
        let file = self.0.join("hangs");
        if hangs { fs::write(file, "") } else { fs::remove_file(file) }.expect("a file");
    }

    fn was_asked_by(&self, node: &Node) -> bool {
        let calls = fs::read_to_string(self.0.join("calls")).unwrap_or_default();
        calls.lines().any(|line| line == node.name())
    }
}

#[test]
fn follows_the_master_and_comes_back_when_lost() {
    let (pair, cloud) = Cloud::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    cloud.is_at(&pair, &gw1, "at the start");
    assert_eq!(pair.status(&gw2)["claims"][0]["state"], "unknown", "a backup asks nobody");

    pair.hand_over(&gw1, &gw2);
    pair.settled_on(&gw2, "handed over");
    cloud.is_at(&pair, &gw2, "handed over");

    pair.lab.cut_link(&gw2, true).expect("cut");
    pair.is_master(&gw1, "gw2 is cut off");
    cloud.is_at(&pair, &gw1, "gw2 is cut off");
    pair.lab.heal_link(&gw2, true).expect("heal");
    pair.settled_on(&gw1, "gw2 is back");

    fs::write(cloud.0.join("owner"), "somebody\n").expect("a file");
    cloud.is_at(&pair, &gw1, "somebody took it");
    let said = pair.wgha(&gw1, &["claim", "verify"]);
    assert!(said.contains("/etc/wgha/claim.sh: held (exit 0"), "{said}");
    let said = pair.wgha(&gw1, &["claim", "assert"]);
    assert!(
        said.contains("/etc/wgha/claim.sh: held (exit 0"),
        "by a program that looks whose term it is: {said}"
    );
    let said = pair.refused(&gw2, &["claim", "assert"]);
    assert!(said.contains("this node is not master"), "{said}");
    let events = pair.wgha(&gw1, &["events", "--json"]);
    let last = events.lines().rfind(|line| line.contains("\"to\":\"master\"")).expect("an event");
    let event: serde_json::Value = serde_json::from_str(last).expect("JSON");
    assert!(event["phases_ms"]["claims"].as_f64().is_some_and(|ms| ms > 0.0), "{event}");
    pair.end();
}

#[test]
fn a_cloud_that_hangs_delays_neither_wireguard_nor_heartbeats() {
    let (pair, cloud) = Cloud::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    cloud.is_at(&pair, &gw1, "at the start");
    cloud.set_hanging(true);
    pair.hand_over(&gw1, &gw2);
    // The audit asks for the tunnel, and that both hear each other.
    pair.settled_on(&gw2, "the cloud hangs");
    eventually("gw2 asks", || {
        if cloud.was_asked_by(&gw2) { Vec::new() } else { vec!["not yet".to_owned()] }
    });
    assert_eq!(cloud.owner(), "gw1");
    // What hangs is ended by the next change of role, with nothing left of it.
    pair.hand_over(&gw2, &gw1);
    pair.settled_on(&gw1, "the cloud still hangs");
    cloud.set_hanging(false);
    cloud.is_at(&pair, &gw1, "the cloud answers");
    pair.end();
}

/// Both were master for a while (two voters, and the router answers both): the one that stays has it in the end.
#[test]
fn after_a_partition_it_is_at_the_master() {
    let (pair, cloud) = Cloud::start();
    let gw2 = pair.gateway(2);
    let cut = vec![Filter::one_way("gw1", "gw2"), Filter::one_way("gw2", "gw1")];
    let cut = pair.lab.inject(cut).expect("cut");
    pair.is_master(&gw2, "gw2 hears nobody");
    eventually(
        "gw2 has it",
        || {
            if cloud.owner() == "gw2" { Vec::new() } else { vec![cloud.owner()] }
        },
    );
    pair.lab.heal(cut).expect("heal");
    let master = pair.settled("both hear each other again");
    cloud.is_at(&pair, &master, "both hear each other again");
    // Not only for a moment.
    std::thread::sleep(std::time::Duration::from_secs(3));
    cloud.is_at(&pair, &master, "a while later");
    pair.end();
}
