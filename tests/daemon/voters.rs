//! Who votes, when a voter is lost for good.

use std::fs;

use super::cluster::{Cluster, Daemon, QUICK, outcome, until_true};

/// A memory of having granted nothing, or the node would not vote for half a minute.
fn remember(cluster: &Cluster, name: &str) {
    let state = cluster.path(&format!("{name}.state"));
    fs::create_dir_all(&state).unwrap();
    let nothing = "00".repeat(16);
    let votes = format!(r#"{{"longest_ms":0,"term":0,"session":"{nothing}","voters":[]}}"#);
    fs::write(state.join("votes.json"), votes).unwrap();
}

/// A config of these nodes, in which a majority is needed.
fn majority(cluster: &Cluster, name: &str, nodes: &[&str]) -> String {
    let text = cluster.config(name).replace("quorum = \"none\"", "quorum = \"majority\"");
    let mut parts = text.split("[[node]]");
    let head = parts.next().unwrap().to_owned();
    let named = |part: &&str| nodes.iter().any(|node| part.contains(&format!("\"{node}\"")));
    head + &parts.filter(named).map(|part| format!("[[node]]{part}")).collect::<String>()
}

fn voters(daemon: &Daemon) -> Vec<String> {
    let status = daemon.status();
    let voters = status["lease"]["voters"].as_array().unwrap().iter();
    voters.map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_voter_that_is_lost_for_good_is_replaced_by_force() {
    let mut cluster = Cluster::new(QUICK, &[("gw1", 150), ("gw2", 100)]);
    cluster.add("w1", 1, true);
    cluster.add("w2", 1, true);
    let mut keys = vec!["keygen".to_owned(), "--out".to_owned()];
    keys.push(cluster.path("w1.key").display().to_string());
    keys.extend(["--witness-from".to_owned(), cluster.path("cluster.key").display().to_string()]);
    let made = super::cluster::run(keys.iter().map(String::as_str));
    assert!(made.status.success(), "{made:?}");
    let old = ["gw1", "gw2", "w1"];
    let [gw1, gw2, w1] = old.map(|name| {
        remember(&cluster, name);
        cluster.start_with(name, &majority(&cluster, name, &old))
    });
    gw1.becomes("master");
    until_true("both others vote for it", || {
        gw1.status()["lease"]["votes"].as_array().unwrap().len() == 3
    });
    // Here is nothing that a gate could shut; a witness has nothing to shut either way.
    let lease = "yes (lease of 2 of 3 voters)";
    assert_eq!(gw1.status()["exclusive"], format!("{lease} while its process runs"));
    assert_eq!(w1.status()["exclusive"], lease);
    w1.kill();

    let new = ["gw1", "gw2", "w2"];
    for daemon in [&gw1, &gw2] {
        fs::write(&daemon.config, majority(&cluster, daemon.name, &new)).unwrap();
        let (code, out, _) = outcome(&daemon.wgha(&["reload"]));
        assert!(code == 0 && out.contains("the voters stay gw1, gw2, w1"), "{out}");
        let lease = daemon.status()["lease"].clone();
        assert_eq!(
            (voters(daemon), &lease["pending"]),
            (old.map(String::from).into(), &true.into())
        );
        let warnings = daemon.status()["warnings"].to_string();
        assert!(warnings.contains("the config's voters wait in vain"), "{warnings}");
    }
    for daemon in [&gw1, &gw2] {
        let (code, out, err) = outcome(&daemon.wgha(&["reload", "--force-voters"]));
        assert_eq!((code, err.as_str()), (0, ""));
        assert_eq!(out, "reloaded; the voters are now gw1, gw2, w2\n");
        let lease = daemon.status()["lease"].clone();
        assert_eq!(
            (voters(daemon), &lease["pending"]),
            (new.map(String::from).into(), &false.into())
        );
        assert_eq!(daemon.status()["warnings"], serde_json::json!([]));
    }
    assert!(gw1.log().contains("forced by the operator: the voters are now gw1, gw2, w2"));
    // Of the new three two are there.
    gw1.becomes("master");
    until_true("kept for the next start", || {
        let votes = fs::read_to_string(cluster.path("gw1.state/votes.json")).unwrap();
        let votes: serde_json::Value = serde_json::from_str(&votes).unwrap();
        votes["voters"] == serde_json::json!(new) && votes["before"] == serde_json::json!([])
    });
}

#[test]
fn without_leases_there_are_no_voters_to_force() {
    let cluster = Cluster::new(QUICK, &[("gw1", 150), ("gw2", 100)]);
    let gw1 = cluster.settle("gw1", "master");
    let (code, _, err) = outcome(&gw1.wgha(&["reload", "--force-voters"]));
    assert_eq!(code, 1);
    assert!(err.contains("no voters are forced: with this config no majority is needed"), "{err}");
}
