//! A gateway that cannot serve says why, and the other one serves.

use std::net::UdpSocket;
use std::time::Instant;

use netns_lab::{CONFIG_PATH, Lab, Node, Spec, etc, topology};

use crate::audit::{network_of, run};
use crate::clients::{back_before_the_clients_own_time, follows};
use crate::pair::{BOUND, Pair, backend, eventually, network, options, wgha};

#[test]
fn port_of_wireguard_taken() {
    let pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let take = || UdpSocket::bind(("0.0.0.0", topology::WG_PORT));
    let taken = gw2.run(take).expect("the port is free on a standby");
    pair.says(&gw2, "fault", "51820");
    assert_eq!(pair.status(&gw2)["ready"], false);
    let refused = pair.refused(&gw1, &["handover"]);
    assert!(refused.contains("gw2"), "{refused}");
    pair.settled_on(&gw1, "the port is taken on gw2");
    drop(taken);
    pair.says(&gw2, "backup", "");
    pair.hand_over(&gw1, &gw2);
    pair.settled_on(&gw2, "the port is free again");
    pair.end();
}

#[test]
fn device_of_another_kind() {
    let pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    follows(&pair, &gw2);
    let fault = Instant::now();
    eventually("a bridge named wg0", || {
        // The daemon may be faster with its own.
        let done = gw1.sh("ip link del wg0 2>/dev/null; ip link add wg0 type bridge");
        done.err().map(|e| format!("{e:#}")).into_iter().collect()
    });
    // A device that is gone knows of no clients; whoever was told of them before still does.
    back_before_the_clients_own_time(&pair, fault);
    pair.says(&gw1, "fault", "wg0");
    pair.settled_on(&gw2, "wg0 is a bridge on gw1");
    run(&gw1, "ip link del wg0");
    pair.says(&gw1, "backup", "");
    pair.hand_over(&gw2, &gw1);
    pair.settled_on(&gw1, "the bridge is gone");
    pair.end();
}

#[test]
fn broken_files_at_the_start() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let path = gw2.dir().join("etc-wireguard/wg0.conf");
    let good = std::fs::read_to_string(&path).expect("wg0.conf");
    pair.stop(&gw2);
    std::fs::write(&path, good.replace("ListenPort", "ListenPrt")).expect("wg0.conf");
    pair.start_on(&gw2);
    let process = pair.cluster.process("gw2");
    let status = process.wait(BOUND).expect("a broken wg0.conf ends it");
    assert_eq!(status.code(), Some(2), "systemd must not try again");
    let log = process.log();
    assert!(log.contains("wg0.conf") && log.contains("ListenPrt"), "{log}");
    std::fs::write(&path, good).expect("wg0.conf");
    pair.start_on(&gw2);
    pair.settled_on(&gw1, "the file is whole again");
    pair.end();
}

/// `wgha run` on gw1, where something else has brought wg0 up.
fn run_with(node: &Node, args: &[&str]) -> netns_lab::Process {
    let program = wgha().display().to_string();
    let base = [program.as_str(), "run", "--config", CONFIG_PATH, "--node", node.name()];
    node.spawn(Spec::new([&base[..], args].concat()).named("wgha")).expect("starting")
}

#[test]
fn foreign_tunnel_at_the_first_start() {
    let lab = network(Lab::builder().gateways(1).cluster(options()));
    lab.write_config(wgha()).expect("config");
    let gw1 = lab.gateway(1).clone();
    let make = match backend().as_str() {
        "kernel" => "ip link add wg0 type wireguard",
        _ => "ip tuntap add wg0 mode tun",
    };
    run(&gw1, &format!("{make} && ip link set wg0 up"));
    let mut process = run_with(&gw1, &[]);
    let status = process.wait(BOUND).expect("it refuses");
    assert_eq!(status.code(), Some(1));
    let log = process.log();
    assert!(log.contains("wg0 is up already") && log.contains("--take-over"), "{log}");
    assert!(crate::audit::wg0_up(&gw1), "a refused start touches nothing");
    // What the message says works, and only once: then the device is ours.
    for args in [&["--take-over"][..], &[]] {
        let mut process = run_with(&gw1, args);
        process.wait_log("are up after", BOUND).expect("it serves");
        process.kill().expect("killing");
    }
    run(&gw1, &format!("{} release --config {CONFIG_PATH}", wgha().display()));
    assert!(!crate::audit::wg0_up(&gw1));
}

#[test]
fn two_processes_of_one_name() {
    let pair = Pair::start();
    let (gw1, gw2, host) = (pair.gateway(1), pair.gateway(2), pair.lab.host().clone());
    // The host behind the gateways is a clone of gw1, with its own address.
    for (from, name) in [("etc-wgha", "cluster.key"), ("etc-wireguard", "wg0.conf")] {
        let from = gw1.dir().join(from).join(name);
        let to = host.dir().join(from.strip_prefix(gw1.dir()).expect("below it"));
        std::fs::copy(&from, &to).expect("a copy");
    }
    let (address, bind) = (topology::gateway(1).v4, topology::host().v4);
    let translated = format!("{{ send = \"{address}:5112\", bind = \"{bind}:5112\" }}");
    let toml = pair.lab.wgha_toml().replace(&format!("\"{address}:5112\""), &translated);
    let toml = toml.split("\n[[hook]]").next().expect("text").to_owned();
    std::fs::write(etc(&host).join("wgha.toml"), toml).expect("config");
    run(&host, "ip link add eth1 type veth peer name eth1peer && ip link set eth1 up");

    let changes = pair.changes_of(&[&gw1, &gw2]);
    let before = network_of(&host);
    let program = wgha().display().to_string();
    let argv = [program.as_str(), "run", "--config", CONFIG_PATH, "--node", "gw1"];
    let mut process = host.spawn(Spec::new(argv)).expect("starting the clone");
    process.wait_log("gateway, heartbeat", BOUND).expect("it runs");
    pair.says(&host, "fault", "duplicate name");
    pair.settled_on(&gw1, "a newcomer of the same name");
    pair.none_changed(&[&gw1, &gw2], changes, "a role changed");
    process.stop(BOUND).expect("stopping");
    pair.settled_on(&gw1, "the newcomer is gone");
    pair.wgha(&host, &["release"]);
    assert_eq!(network_of(&host), before, "left behind by the newcomer");
    pair.end();
}

#[test]
fn configs_that_differ() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let other = pair.lab.wgha_toml().replace("misses = 5", "misses = 6");
    std::fs::write(etc(&gw2).join("wgha.toml"), other).expect("config");
    pair.wgha(&gw2, &["reload"]);
    for (node, peer) in [(&gw1, 1), (&gw2, 0)] {
        eventually("status names the difference", || {
            let said = pair.status(node)["nodes"][peer]["config_match"].clone();
            if said == false { Vec::new() } else { vec![format!("config_match {said}")] }
        });
        assert!(pair.wgha(node, &["status"]).contains("! "), "the table, too");
    }
    // It works nevertheless, but nobody hands over to a node that would serve otherwise.
    let refused = pair.refused(&gw1, &["handover", "--to", "gw2"]);
    assert!(refused.contains("config differs"), "{refused}");
    pair.in_the_end(&gw1, &["handover", "--to", "gw2", "--force"]);
    pair.settled_on(&gw2, "handover with --force");
    pair.kill(&gw2);
    pair.wgha(&gw2, &["release"]);
    pair.settled_on(&gw1, "taken over by silence, whatever the config");
    pair.start_on(&gw2);
    pair.settled_on(&gw1, "gw2 is back");
    pair.end();
}
