//! One process that is the witness of two clusters.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::cluster::{Cluster, Daemon, QUICK, outcome, run, until, until_true};
use super::voters::{majority, remember};

const NODES: [&str; 3] = ["gw1", "gw2", "w1"];

/// Two gateways and a witness, none of which runs yet.
fn cluster(name: &'static str) -> Cluster {
    let mut cluster = Cluster::new(QUICK, &[("gw1", 150), ("gw2", 100)]);
    cluster.name = name;
    cluster.add("w1", 1, true);
    cluster.witness_key("w1");
    for node in NODES {
        remember(&cluster, node);
    }
    write(&cluster, "w1");
    cluster
}

fn write(cluster: &Cluster, node: &str) {
    let path = cluster.path(&format!("{node}.toml"));
    fs::write(path, majority(cluster, node, &NODES)).unwrap();
}

fn start(cluster: &Cluster, node: &'static str) -> Daemon {
    cluster.start_with(node, &majority(cluster, node, &NODES))
}

/// The witness of both, in one process.
fn witness(one: &Cluster, other: &Cluster) -> Daemon {
    let line = format!("exec \"$@\" --also {:?}", other.path("w1.toml"));
    one.start_under(&["sh", "-c", &line, "sh"], "w1", &majority(one, "w1", &NODES))
}

/// What the witness says of a cluster.
fn status(cluster: &Cluster) -> Option<Value> {
    let path = cluster.path("w1.toml");
    let output = run(["status", "--json", "--config", path.to_str().unwrap()]);
    output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
}

/// Its vote counts.
fn voted_for(gateway: &Daemon) {
    until_true("the witness votes", || {
        let votes = gateway.status()["lease"]["votes"].clone();
        votes.as_array().is_some_and(|votes| votes.contains(&"w1".into()))
    });
}

#[test]
fn each_cluster_has_its_witness_and_what_befalls_one_is_nothing_to_the_other() {
    let (edge, core) = (cluster("edge"), cluster("core"));
    let w1 = witness(&edge, &core);
    let masters = [&edge, &core].map(|cluster| start(cluster, "gw1"));
    for gw1 in &masters {
        gw1.becomes("master");
        voted_for(gw1);
    }
    for cluster in [&edge, &core] {
        let knows = || status(cluster).filter(|status| status["master"] == "gw1");
        let status = until("the witness knows the master", knows);
        assert_eq!((&status["cluster"], &status["node"]), (&cluster.name.into(), &"w1".into()));
    }
    println!("a witness of two clusters has {} KiB resident in its worker", w1.resident());

    // One config is broken, and everyone is told to read theirs again.
    fs::write(core.path("w1.toml"), "[cluster]\nname = 5\n").unwrap();
    w1.signal(Signal::SIGHUP);
    until_true("it says so", || w1.log().contains("not reloaded, the old config stays in force"));
    until_true("the other is reloaded", || w1.log().contains("reloaded"));
    masters.iter().for_each(voted_for);
    write(&core, "w1");
    let path = core.path("w1.toml");
    let (code, out, _) = outcome(&run(["reload", "--config", path.to_str().unwrap()]));
    assert_eq!((code, out.trim()), (0, "reloaded"));

    // A gateway of one of them fails: its witness is what elects the other.
    let [edge_gw1, core_gw1] = masters;
    let gw2 = start(&edge, "gw2");
    gw2.hears("gw1");
    gw2.hears("w1");
    edge_gw1.kill();
    gw2.becomes("master");
    until_true("the other cluster is served", || {
        let (status, events) = (core_gw1.status(), core_gw1.events());
        status["role"] == "master" && status["term"] == events.last().unwrap()["term"]
    });

    w1.signal(Signal::SIGTERM);
    assert_eq!(w1.wait().code(), Some(0));
}

#[test]
fn a_config_that_is_not_good_is_tried_again_beside_the_others() {
    let (edge, core) = (cluster("edge"), cluster("core"));
    fs::write(core.path("w1.toml"), "[cluster]\n").unwrap();
    let w1 = witness(&edge, &core);
    until("the one is served", || status(&edge));
    until_true("the other is tried again", || w1.log().contains("begun again after 1 s"));
    write(&core, "w1");
    w1.signal(Signal::SIGHUP);
    until("and now the other", || status(&core));
    w1.signal(Signal::SIGTERM);
    assert_eq!(w1.wait().code(), Some(0));
}

#[test]
fn one_that_is_a_gateway_or_has_the_same_port_is_refused() {
    let (edge, core) = (cluster("edge"), cluster("core"));
    let edges = edge.path("w1.toml");
    let gateway = core.path("gw2.toml");
    fs::write(&gateway, majority(&core, "gw2", &NODES)).unwrap();
    for (also, said) in [
        (edges.to_str().unwrap(), "each needs a port of its own"),
        (core.path("none.toml").to_str().unwrap(), "none.toml"),
    ] {
        let config = if said == "none.toml" { also } else { edges.to_str().unwrap() };
        let output = run(["run", "--node", "w1", "--config", config, "--also", also]);
        let (code, _, err) = outcome(&output);
        assert!(code == 2 && err.contains(said), "{code}: {err}");
    }
    let args = ["run", "--node", "gw2", "--config", edges.to_str().unwrap(), "--also"];
    let (code, _, err) = outcome(&run(args.into_iter().chain([gateway.to_str().unwrap()])));
    assert!(code == 2 && err.contains("gw2 is a gateway of core"), "{code}: {err}");
}
