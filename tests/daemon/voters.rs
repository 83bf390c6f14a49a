//! Who votes, when a voter is lost for good.

use std::fs;

use nix::sys::signal::Signal;

use super::cluster::{CALM, Cluster, Daemon, QUICK, outcome, until_true};

/// A memory of having granted nothing, or the node would not vote for half a minute.
pub(crate) fn remember(cluster: &Cluster, name: &str) {
    let state = cluster.path(&format!("{name}.state"));
    fs::create_dir_all(&state).unwrap();
    let nothing = "00".repeat(16);
    let votes = format!(r#"{{"longest_ms":0,"term":0,"session":"{nothing}","voters":[]}}"#);
    fs::write(state.join("votes.json"), votes).unwrap();
}

/// A config of these nodes, in which a majority is needed.
pub(crate) fn majority(cluster: &Cluster, name: &str, nodes: &[&str]) -> String {
    let text = cluster.config(name).replace("quorum = \"none\"", "quorum = \"majority\"");
    let mut parts = text.split("[[node]]");
    let head = parts.next().unwrap().to_owned();
    let named = |part: &&str| nodes.iter().any(|node| part.contains(&format!("\"{node}\"")));
    head + &parts.filter(named).map(|part| format!("[[node]]{part}")).collect::<String>()
}

/// The vote key, in the file of this witness.
fn witness_key(cluster: &Cluster, name: &str) {
    let out = cluster.path(&format!("{name}.key")).display().to_string();
    let from = cluster.path("cluster.key").display().to_string();
    let made = super::cluster::run(["keygen", "--out", &out, "--witness-from", &from]);
    assert!(made.status.success(), "{made:?}");
}

fn voters(daemon: &Daemon) -> Vec<String> {
    let status = daemon.status();
    let voters = status["lease"]["voters"].as_array().unwrap().iter();
    voters.map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// What it granted before it slept it may have forgotten, as far as anybody knows: it does not vote for a lease.
#[test]
fn a_voter_that_slept_abstains_in_its_new_session() {
    let mut cluster = Cluster::new(CALM, &[("gw1", 150), ("gw2", 100)]);
    cluster.add("w1", 1, true);
    witness_key(&cluster, "w1");
    let names = ["gw1", "gw2", "w1"];
    let [gw1, _gw2, w1] = names.map(|name| {
        remember(&cluster, name);
        cluster.start_with(name, &majority(&cluster, name, &names))
    });
    gw1.becomes("master");
    let votes = || gw1.status()["lease"]["votes"].as_array().unwrap().len();
    until_true("both others vote for it", || votes() == 3);
    let term = gw1.status()["term"].clone();
    w1.signal_all(Signal::SIGSTOP);
    until_true("its vote is over", || votes() == 2);
    // It counted from up to two heartbeats before the stop.
    std::thread::sleep(std::time::Duration::from_millis(600));
    w1.signal_all(Signal::SIGCONT);
    until_true("it abstains", || {
        w1.status()["lease"]["abstains_ms"].as_u64().is_some_and(|ms| ms > 0)
    });
    until_true("it says why", || w1.log().contains("a new session: did not run for "));
    until_true("it votes again", || votes() == 3);
    assert_eq!((&gw1.status()["role"], &gw1.status()["term"]), (&"master".into(), &term));
}

#[test]
fn a_voter_that_is_lost_for_good_is_replaced_by_force() {
    let mut cluster = Cluster::new(QUICK, &[("gw1", 150), ("gw2", 100)]);
    cluster.add("w1", 1, true);
    cluster.add("w2", 1, true);
    cluster.witness_key("w1");
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
        until_true("no warning", || daemon.status()["warnings"] == serde_json::json!([]));
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
