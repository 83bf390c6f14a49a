//! Clients reach the gateways only through an address of a cloud: the hooks of dist/hooks as they are, before the fake cloud of
//! tests/hooks, which the router follows.

use std::time::Duration;

use netns_lab::{Cloud, ClusterOptions, Filter, Lab, Node, Whereabouts};
use serde_json::Value;

use crate::audit;
use crate::pair::{Pair, eventually, network, options};

/// An address that the cloud's edge translates; the gateways have no floating IP at all.
const TRANSLATED: &str = "aws-eip";
/// A floating IP that routes of the cloud lead to its owner.
const ROUTED: &str = "gcp-route";

/// From the claim to the first client, in milliseconds.
const CALLED_MS: f64 = 3_500.0;

struct Site {
    pair: Pair,
    cloud: Cloud,
}

impl Site {
    /// gw1 is master and has the address.
    fn start(hook: &str, cluster: ClusterOptions) -> Site {
        let extra = Cloud::claim(hook, "verify_every = \"1s\"\ntimeout = \"5s\"");
        let floating_v4 = hook != TRANSLATED;
        let cluster = ClusterOptions {
            extra,
            floating_v4,
            floating_v6: false,
            floating_inner: false,
            ..cluster
        };
        let lab = network(Lab::builder().nat(false).cluster(cluster));
        let cloud = Cloud::start(&lab, hook).expect("a cloud");
        let site = Site { pair: Pair::unsettled(lab), cloud };
        let pair = &site.pair;
        eventually("a master", || match pair.cluster.masters().as_slice() {
            [_] => Vec::new(),
            masters => vec![format!("{} masters", masters.len())],
        });
        let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
        if pair.cluster.masters().iter().any(|m| m.name() == gw2.name()) {
            pair.hand_over(&gw2, &gw1);
        }
        site.is_right(&gw1, "at the start");
        site
    }

    /// One master, the address is there and nowhere else, and the client has its tunnel; nobody helps it.
    fn is_right(&self, master: &Node, when: &str) {
        eventually(when, || self.wrong(master));
        audit::answers_soon(&self.pair.clients[0], when);
        // What is late has had its time.
        std::thread::sleep(crate::pair::heartbeat() * 4);
        eventually(when, || self.wrong(master));
    }

    fn wrong(&self, master: &Node) -> Vec<String> {
        let name = Some(master.name().to_owned());
        let mut wrong = Vec::new();
        let at = self.cloud.look().expect("the fake cloud");
        if at != (Whereabouts { owner: name.clone(), led: name }) {
            wrong.push(format!("{at:?}"));
        }
        for node in self.pair.running() {
            let status = self.pair.status(node);
            let is_master = node.name() == master.name();
            let (role, state) = if is_master { ("master", "held") } else { ("backup", "unknown") };
            let claim = &status["claims"][0];
            if status["role"] != role || claim["state"] != state {
                wrong.push(format!("{}: {}, {claim}", node.name(), status["role"]));
            }
            if audit::wg0_up(node) != is_master {
                wrong.push(format!("{}: wg0 up: {}", node.name(), !is_master));
            }
        }
        wrong
    }

    /// A link that is cut leads to no API either.
    fn cut(&self, node: &Node) {
        self.pair.lab.cut_link(node, true).expect("cut");
        self.cloud.unreachable(&[node.name()]).expect("cut");
    }

    fn restore(&self, node: &Node) {
        self.pair.lab.heal_link(node, true).expect("heal");
        self.cloud.heal().expect("heal");
    }

    /// The gateways' heartbeats do not reach each other.
    fn partition(&self) -> netns_lab::FaultId {
        let cut = vec![Filter::one_way("gw1", "gw2"), Filter::one_way("gw2", "gw1")];
        self.pair.lab.inject(cut).expect("cut")
    }

    /// The address has come to a gateway, whatever the gateways say.
    fn is_at(&self, node: &Node) {
        eventually(&format!("{} has the address", node.name()), || match self.owner() {
            Some(owner) if owner == node.name() => Vec::new(),
            owner => vec![format!("{owner:?}")],
        });
    }

    fn owner(&self) -> Option<String> {
        self.cloud.look().expect("the fake cloud").owner
    }
}

/// What the last takeover took, by the new master's own record, in milliseconds.
fn phases(pair: &Pair, node: &Node) -> Value {
    let events = pair.wgha(node, &["events", "--json"]);
    let last = events.lines().rfind(|line| line.contains("\"to\":\"master\"")).expect("an event");
    let event: Value = serde_json::from_str(last).expect("JSON");
    event["phases_ms"].clone()
}

/// Rounds until the client is called when the address is there: on a machine without time for it a call may be lost.
const ROUNDS: usize = 3;

fn link_cut_and_handed_back(hook: &str) {
    let site = Site::start(hook, options());
    let lost = |_| {
        let lost = link_cut(&site, hook);
        site.restore(&site.pair.gateway(1));
        site.is_right(&site.pair.gateway(2), "the link of gw1 is back");
        site.pair.hand_over(&site.pair.gateway(2), &site.pair.gateway(1));
        site.is_right(&site.pair.gateway(1), "handed back");
        lost
    };
    // WireGuard by itself tries again 5 s after the takeover, most of it after a claim that took tenths of a second.
    let called = (0..ROUNDS).map(lost).any(|lost| lost < CALLED_MS);
    assert!(called, "the client was not called when the address was there");
}

/// gw1 without its link, and gw2 serves. Returns how long after the address was there the first client was, in milliseconds.
fn link_cut(site: &Site, hook: &str) -> f64 {
    let pair = &site.pair;
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    site.cut(&gw1);
    // Nobody tells gw1: it may well go on as master.
    site.is_at(&gw2);
    audit::answers_soon(&pair.clients[0], "the link of gw1 is cut");
    eventually("the takeover is recorded", || {
        let phases = phases(pair, &gw2);
        let done = ["claims", "first_handshake"].iter().all(|phase| phases[phase].is_f64());
        if done { Vec::new() } else { vec![phases.to_string()] }
    });
    let took = phases(pair, &gw2);
    println!("{hook}: {took}");
    let [claims, first] = ["claims", "first_handshake"].map(|phase| took[phase].as_f64());
    first.expect("recorded") - claims.expect("recorded")
}

#[test]
fn an_elastic_address_and_no_floating_ip() {
    link_cut_and_handed_back(TRANSLATED);
}

#[test]
fn a_floating_ip_that_is_routed() {
    link_cut_and_handed_back(ROUTED);
}

/// As keepalived's issue 950 has it: the backup is master for a moment, takes the address, and yields.
#[test]
fn a_backup_that_was_master_for_a_moment_does_not_keep_the_address() {
    let site = Site::start(TRANSLATED, ClusterOptions { preempt: true, ..options() });
    let pair = &site.pair;
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let cut = site.partition();
    pair.is_master(&gw2, "gw2 hears nobody");
    site.is_at(&gw2);
    pair.lab.heal(cut).expect("heal");
    site.is_right(&gw1, "both hear each other again");
    // What is asked for comes true later, when another one is master already.
    site.cloud.fault("slow", 2, "change").expect("a fault");
    let cut = site.partition();
    pair.is_master(&gw2, "gw2 hears nobody again");
    pair.lab.heal(cut).expect("heal");
    site.is_right(&gw1, "gw2 was master for a moment");
}

#[test]
fn an_api_that_hangs_delays_neither_wireguard_nor_heartbeats() {
    let site = Site::start(ROUTED, options());
    let (pair, cloud) = (&site.pair, &site.cloud);
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    cloud.unreachable(&["gw1", "gw2"]).expect("a fault");
    pair.hand_over(&gw1, &gw2);
    eventually("gw2 calls the API", || {
        let waits = !netns_lab::running_hooks(&gw2).expect("/proc").is_empty();
        if waits { Vec::new() } else { vec!["not yet".to_owned()] }
    });
    let changes = pair.changes_of(&[&gw1, &gw2]);
    for _ in 0..10 {
        std::thread::sleep(crate::pair::heartbeat());
        assert!(audit::wg0_up(&gw2), "wg0 of gw2 is down");
        for (node, other) in [(&gw1, 1), (&gw2, 0)] {
            let heard = &pair.status(node)["nodes"][other];
            if heard["alive"] != true {
                // Its log comes a moment later.
                std::thread::sleep(Duration::from_secs(1));
                let stood_still = pair.changes_of(&[]).1 > changes.1;
                assert!(stood_still, "{}: {heard}", node.name());
            }
        }
    }
    assert_eq!(site.owner().as_deref(), Some("gw1"), "nobody can have moved it");
    pair.none_changed(&[&gw1, &gw2], changes, "a role has changed");
    cloud.heal().expect("an end of it");
    site.is_right(&gw2, "the API answers");
    assert_eq!(pair.status(&gw2)["claims"][0]["given_up"], false);
}
