//! Two gateways and an etcd: it decides who serves when they do not hear each other.

use std::fs;
use std::path::Path;

use netns_lab::{ClusterOptions, Filter, Lab, Process, Spec, topology};
use nix::sys::signal::Signal;

use crate::pair::{Pair, eventually, network, options};

/// Starts etcd in the router's namespace, which both gateways reach on their own.
fn start(lab: &Lab, data: &Path) -> Process {
    let router = lab.router();
    let address = topology::router().v4;
    let (client, peer) = (format!("http://{address}:2379"), "http://127.0.0.1:2380");
    let data = data.join("etcd").display().to_string();
    let argv = [
        "etcd",
        "--data-dir",
        &data,
        "--listen-client-urls",
        &client,
        "--advertise-client-urls",
        &client,
        "--listen-peer-urls",
        peer,
        "--initial-advertise-peer-urls",
        peer,
        "--initial-cluster",
        &format!("default={peer}"),
    ];
    router.spawn(Spec::new(argv)).expect("etcd (install etcd-server)")
}

/// A memory of having granted nothing, or nobody votes for half a minute.
fn remember(lab: &Lab) {
    let nothing = "00".repeat(16);
    let votes = format!(r#"{{"longest_ms":0,"term":0,"session":"{nothing}","voters":[]}}"#);
    for node in lab.members() {
        let dir = node.dir().join("state/wgha");
        fs::create_dir_all(&dir).expect("state");
        fs::write(dir.join("votes.json"), &votes).expect("state");
    }
}

fn votes(pair: &Pair, number: usize, expected: &[&str]) {
    let node = pair.gateway(number);
    eventually(&format!("{} has the votes {expected:?}", node.name()), || {
        let lease = pair.status(&node)["lease"].clone();
        if lease["votes"] == serde_json::json!(expected) {
            Vec::new()
        } else {
            vec![lease.to_string()]
        }
    });
}

#[test]
fn etcd_decides_between_gateways_that_do_not_hear_each_other() {
    let extra = format!("\n[arbiter]\netcd = [\"http://{}:2379\"]\n", topology::router().v4);
    let cluster = ClusterOptions { quorum: "auto".to_owned(), misses: 6, extra, ..options() };
    let lab = network(Lab::builder().cluster(cluster));
    remember(&lab);
    // etcd waits for its disk, and this machine has other things to write.
    let data = tempfile::tempdir_in("/dev/shm").expect("memory for files");
    let mut etcd = start(&lab, data.path());
    let mut pair = Pair::unsettled(lab);
    pair.settled("after the start");
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    pair.lead(&gw1);
    assert_eq!(pair.status(&gw1)["exclusive"], "yes (lease of 2 of 3 voters)");
    votes(&pair, 1, &["gw1", "gw2"]);

    // Neither hears the other: who has the role asks first, and keeps it.
    let cut = pair.lab.partition(&["gw1"], &["gw2"]).expect("cut");
    votes(&pair, 1, &["@etcd", "gw1"]);
    std::thread::sleep(crate::pair::heartbeat() * 10);
    assert_eq!(pair.status(&gw1)["role"], "master", "it has a majority");
    assert_ne!(pair.status(&gw2)["role"], "master", "etcd votes for gw1");

    // gw1 is cut off from etcd as well: gw2 has it as soon as etcd forgets.
    let off = pair.lab.inject(vec![Filter::mute("gw1"), Filter::deaf("gw1")]).expect("cut");
    pair.is_master(&gw2, "gw2 reaches etcd");
    assert_ne!(pair.status(&gw1)["role"], "master", "before gw2 could be master");
    votes(&pair, 2, &["@etcd", "gw2"]);
    pair.lab.heal(off).expect("heal");
    pair.lab.heal(cut).expect("heal");
    pair.settled_on(&gw2, "all hear each other again");
    // Not needed any more, it is left to expire, so that gw1 finds it free.
    votes(&pair, 2, &["gw1", "gw2"]);

    // Killed or stopped, it costs its vote and no more.
    etcd.signal(Signal::SIGSTOP).expect("a signal");
    pair.hand_over(&gw2, &gw1);
    pair.settled_on(&gw1, "etcd stands still");
    etcd.kill().expect("a kill");
    pair.settled_on(&gw1, "etcd is killed");
    eventually("etcd is not reachable", || {
        let arbiter = pair.status(&gw1)["arbiter"].clone();
        if arbiter["reachable"] == false { Vec::new() } else { vec![arbiter.to_string()] }
    });
    let etcd = start(&pair.lab, data.path());
    eventually("etcd answers again", || {
        let arbiter = pair.status(&gw2)["arbiter"].clone();
        if arbiter["reachable"] == true { Vec::new() } else { vec![arbiter.to_string()] }
    });

    // The master's machine is lost, guard and all.
    pair.kill(&gw1);
    pair.settled_on_silent(&gw2, "gw2 and etcd are a majority");
    votes(&pair, 2, &["@etcd", "gw2"]);
    pair.wgha(&gw1, &["release"]);
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 is back");
    pair.end();
    drop(etcd);
}
