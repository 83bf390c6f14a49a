//! The config changes while the daemon runs.

use std::time::Duration;

use netns_lab::{ClusterOptions, Lab, Node, etc, topology};
use nix::sys::signal::Signal;

use crate::audit::{self, run};
use crate::pair::{Pair, backend, eventually, options};

/// How many reloads. An emulated machine does fewer, unless `WGHA_TEST_RELOADS` says how many.
fn reloads() -> usize {
    let wanted = std::env::var("WGHA_TEST_RELOADS").ok();
    let few = if backend() == "kernel" { 40 } else { 1_000 };
    wanted.map_or(few, |n| n.parse().expect("WGHA_TEST_RELOADS is a number"))
}

fn write_toml(node: &Node, text: &str) {
    std::fs::write(etc(node).join("wgha.toml"), text).expect("writing the config");
}

fn write_wg0(node: &Node, text: &str) {
    std::fs::write(node.dir().join("etc-wireguard/wg0.conf"), text).expect("writing wg0.conf");
}

/// How often the daemon on a node said `text`.
fn said(pair: &mut Pair, node: &Node, text: &str) -> usize {
    pair.cluster.process(node.name()).log().matches(text).count()
}

#[test]
fn many_reloads_change_no_role() {
    let heartbeat =
        if backend() == "kernel" { crate::pair::heartbeat() } else { Duration::from_millis(100) };
    let cluster = ClusterOptions { heartbeat, ..options() };
    let mut pair = Pair::with(Lab::builder().cluster(cluster));
    let nodes = [pair.gateway(1), pair.gateway(2)];
    let look =
        |pair: &Pair| nodes.each_ref().map(|n| (pair.status(n)["role"].clone(), pair.changes(n)));
    // A machine that stands still for three heartbeats costs a term, so there is more than one try.
    let unmoved = (0..3).any(|_| {
        pair.settled("before the reloads");
        let before = look(&pair);
        reload_many(&mut pair, &nodes);
        look(&pair) == before
    });
    assert!(unmoved, "each time a role changed");
    for node in &nodes {
        eventually("SIGHUP was noticed", || {
            let times = said(&mut pair, node, "reloaded");
            if times > 0 { Vec::new() } else { vec!["not once".to_owned()] }
        });
    }
    pair.settled("many reloads");
    pair.end();
}

fn reload_many(pair: &mut Pair, nodes: &[Node; 2]) {
    for number in 0..reloads() {
        let node = &nodes[number % 2];
        assert!(pair.wgha(node, &["reload"]).contains("reloaded"));
        // And by the other way, two close to each other.
        if number % 10 < 2 {
            pair.signal(node, Signal::SIGHUP);
            pair.signal(node, Signal::SIGHUP);
        }
    }
}

#[test]
fn peers_come_and_go() {
    let mut pair = Pair::with(Lab::builder().clients(2).cluster(options()));
    let nodes = [pair.gateway(1), pair.gateway(2)];
    let all = pair.lab.wg0_conf().to_text();
    let mut fewer = pair.lab.wg0_conf();
    let key = pair.lab.keys().clients[1].public_base64();
    fewer.peers.retain(|p| p.public_key != key);
    let handshake = pair.clients[0].latest_handshake().expect("the client's device");
    assert!(handshake.is_some(), "client1 has a session");

    for node in &nodes {
        write_wg0(node, &fewer.to_text());
        pair.wgha(node, &["reload"]);
    }
    eventually("client2 is no peer any more", || {
        if audit::answers(&pair.clients[1]) { vec!["answered".to_owned()] } else { Vec::new() }
    });
    audit::answers_soon(&pair.clients[0], "client1 keeps its tunnel");

    for node in &nodes {
        write_wg0(node, &all);
        pair.signal(node, Signal::SIGHUP);
    }
    pair.settled_on(&nodes[0], "client2 is a peer again");
    // One session all the while: nothing made client1 shake hands again.
    let later = pair.clients[0].latest_handshake().expect("the client's device");
    assert_eq!(later, handshake, "client1 lost its session");
    pair.end();
}

#[test]
fn floating_ips_come_and_go() {
    let pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let changes = pair.changes_of(&[&gw1, &gw2]);
    let added = topology::uplink(101);
    // With two floating IPs on one side the config has to say which one is WireGuard's.
    let (floating, file) = (topology::floating(), "config = \"/etc/wireguard/wg0.conf\"\n");
    let source = format!("{file}source = [\"{}\", \"{}\"]\n", floating.v4, floating.v6);
    let toml = pair.lab.wgha_toml().replace(file, &source);
    assert_ne!(toml, pair.lab.wgha_toml());
    let more = format!(
        "{toml}\n[[floating_ip]]\naddress = \"{}/32\"\ninterface = \"eth0\"\n\n[[floating_ip]]\naddress = \"{}/128\"\ninterface = \"eth0\"\n",
        added.v4, added.v6
    );
    let holds = |node: &Node| {
        let shown = run(node, "ip -o addr");
        added.both().map(|a| shown.contains(&format!(" {a}/")))
    };
    for (text, held, what) in [(&more, true, "added"), (&toml, false, "removed")] {
        for node in [&gw1, &gw2] {
            write_toml(node, text);
            pair.wgha(node, &["reload"]);
        }
        eventually(&format!("floating IPs {what}"), || {
            let found = (holds(&gw1), holds(&gw2));
            let answers = added.both().map(|a| pair.lab.router().ping(a));
            if found == ([held; 2], [false; 2]) && answers == [held; 2] {
                return Vec::new();
            }
            vec![format!("held by (gw1, gw2): {found:?}, answer: {answers:?}")]
        });
        pair.settled_on(&gw1, what);
    }
    pair.none_changed(&[&gw1, &gw2], changes, "a role changed");
    pair.end();
}

#[test]
fn a_broken_config_changes_nothing() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let toml = pair.lab.wgha_toml();
    let wg0 = pair.lab.wg0_conf().to_text();
    let changes = pair.changes_of(&[&gw1, &gw2]);
    for (node, broken, why) in [
        (&gw1, toml.replace("[cluster]\n", "[cluster]\nmissses = 4\n"), "missses"),
        (&gw2, "[cluster\n".to_owned(), "wgha.toml:1: "),
        (&gw1, toml.replace("name = \"lab\"", "name = \"other\""), "cluster name"),
    ] {
        write_toml(node, &broken);
        let refusal = pair.refused(node, &["reload"]);
        assert!(refusal.contains("not reloaded") && refusal.contains(why), "{refusal}");
        write_toml(node, &toml);
    }
    write_wg0(&gw1, &wg0.replace("[Peer]", "[Pear]"));
    let refusal = pair.refused(&gw1, &["reload"]);
    assert!(refusal.contains("wg0.conf") && refusal.contains("Pear"), "{refusal}");
    pair.signal(&gw1, Signal::SIGHUP);
    let old = "the old config stays in force";
    let noticed = pair.cluster.process("gw1").wait_log(old, crate::pair::BOUND);
    noticed.expect("SIGHUP with a broken file is logged");
    pair.settled_on(&gw1, "with a broken file on the disk");
    write_wg0(&gw1, &wg0);
    pair.wgha(&gw1, &["reload"]);
    pair.settled_on(&gw1, "the file is whole again");
    pair.none_changed(&[&gw1, &gw2], changes, "a role changed");
    pair.end();
}
