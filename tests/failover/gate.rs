//! A daemon that cannot say a word any more: the gate shuts by itself, and nothing of its machine
//! speaks as master.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use netns_lab::{Node, mac, topology};
use nix::sys::signal::Signal;

use crate::audit::{answers_soon, run};
use crate::pair::{Pair, backend, detection, eventually};

/// Counts in the router what comes from one machine as only a master may send it.
pub(crate) struct Ear {
    router: Node,
    gateway: Node,
    host: Node,
    /// The gateway's own address in the net behind it.
    inner: Ipv4Addr,
}

impl Ear {
    pub(crate) fn new(pair: &Pair, gateway: &Node) -> Ear {
        let router = pair.lab.router().clone();
        let from = mac(gateway, "eth0").expect("a MAC");
        let vip = topology::floating();
        let port = topology::endpoint(false).port();
        // Netdev, as the router's own tables never see frames that are not for it.
        let rules = format!(
            "table netdev ear {{\n\
             counter c_wg {{}}\n counter c_arp {{}}\n counter c_na {{}}\n\
             chain in {{\n  type filter hook ingress device eth0 priority 0;\n\
             ether saddr {from} udp sport {port} counter name c_wg\n\
             ether saddr {from} arp saddr ip {} counter name c_arp\n\
             ether saddr {from} icmpv6 type nd-neighbor-advert @th,64,128 {:#x} counter name c_na\n\
             }}\n}}\n",
            vip.v4,
            u128::from(vip.v6),
        );
        router.nft(&rules).expect("nft");
        let number = pair.lab.gateways().iter().position(|node| node.name() == gateway.name());
        let number = u8::try_from(number.expect("one of them")).expect("few gateways");
        let host = pair.lab.host().clone();
        Ear { router, gateway: gateway.clone(), host, inner: topology::inner(11 + number).v4 }
    }

    /// (WireGuard, ARP, neighbour advertisements) since the last call.
    pub(crate) fn heard(&self) -> (u64, u64, u64) {
        let shown = run(&self.router, "nft -j reset counters table netdev ear");
        let all: serde_json::Value = serde_json::from_str(&shown).expect("JSON of nft");
        let count = |name: &str| {
            let list = all["nftables"].as_array().expect("a list");
            let found = list.iter().find(|o| o["counter"]["name"] == name);
            found.and_then(|o| o["counter"]["packets"].as_u64()).expect("a counter")
        };
        (count("c_wg"), count("c_arp"), count("c_na"))
    }

    /// The router asks everybody where the floating IPs are, and the host behind the gateways sends to the client by way of
    /// this one, whoever is master. Waits for no answer.
    fn provoke(&self) {
        let floating = topology::floating();
        let addresses = floating.both().map(|a| format!("ip neigh flush to {a}"));
        run(&self.router, &addresses.join(" && "));
        for address in floating.both() {
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            send(&self.router, any, SocketAddr::new(address, NOBODY));
        }
        send(&self.host, "0.0.0.0:0", SocketAddr::from((topology::wg_client(1).v4, NOBODY)));
        std::thread::sleep(Duration::from_millis(20));
    }

    /// The host's packets for the client go through this gateway, or again through the master.
    fn lead_host(&self, through: bool) {
        let to = topology::wg_client(1).v4;
        let verb = if through { "replace" } else { "del" };
        run(&self.host, &format!("ip route {verb} {to} via {}", self.inner));
    }

    /// What the machine's gate held back so far, of what it sends.
    fn held_back(&self) -> HeldBack {
        let shown = run(&self.gateway, "nft list ruleset");
        let count = |what: &str| {
            let rules = shown.lines().filter(|line| line.contains(what));
            let packets = rules.filter_map(|rule| {
                let count = rule.split_once("counter packets ")?.1;
                count.split(' ').next()?.parse::<u64>().ok()
            });
            packets.sum()
        };
        HeldBack {
            wg: count("udp sport"),
            arp: count("arp saddr ip"),
            na: count("nd-neighbor-advert"),
        }
    }
}

/// The discard port, where nobody listens.
const NOBODY: u16 = 9;

/// Packets that a gate dropped.
#[derive(Clone, Copy, Debug)]
struct HeldBack {
    wg: u64,
    arp: u64,
    na: u64,
}

/// One datagram. It may be refused: what is not there has no route.
fn send(from: &Node, any: &'static str, to: SocketAddr) {
    from.run(move || {
        let socket = UdpSocket::bind(any).expect("a socket");
        let _ = socket.send_to(b"?", to);
    });
}

fn gate(pair: &Pair, node: &Node) -> (String, bool) {
    let status = pair.status(node);
    let word = status["fencing"].as_str().unwrap_or_default().to_owned();
    (word, status["gate"]["open"] == true)
}

/// Nothing is heard of the gateway that was silenced at `since`, from its deadline on, for two seconds: neither when it is
/// asked where the floating IPs are, nor when it has packets for the client. Only the gate can be why, for it counts.
pub(crate) fn silent(ear: &Ear, since: Instant) {
    ear.lead_host(true);
    // Permission ends D - I/2 after the last heartbeat at the latest, or with a lease, which is D from the last ask, less its margin.
    std::thread::sleep((since + detection()).saturating_duration_since(Instant::now()));
    let before = ear.held_back();
    ear.heard();
    let end = Instant::now() + Duration::from_secs(2);
    let floating = format!(" {}/", topology::floating().v4);
    let mut there = false;
    while Instant::now() < end {
        ear.provoke();
        there |= run(&ear.gateway, "ip -o addr").contains(&floating);
    }
    assert_eq!(ear.heard(), (0, 0, 0), "WireGuard, ARP, NA after the deadline");
    let after = ear.held_back();
    ear.lead_host(false);
    let nothing = "so this shows nothing";
    // The embedded WireGuard stands still, or is dead, with the daemon. Where the kernel's runs, in an emulated machine, the
    // dead man's floating IPs may be gone by the deadline, so that nobody answers for them; and in any that stands still for seconds.
    if backend() == "kernel" {
        assert!(
            after.wg > before.wg,
            "no WireGuard to hold back, {nothing}: {before:?}, {after:?}"
        );
    } else if there {
        assert!(after.arp > before.arp, "no ARP to hold back, {nothing}: {before:?}, {after:?}");
        assert!(after.na > before.na, "no NA to hold back, {nothing}: {before:?}, {after:?}");
    }
}

/// The tables of the gate, which are named after the lab's cluster.
fn tables(node: &Node) -> usize {
    run(node, "nft list tables").lines().filter(|l| l.ends_with(" wgha_lab")).count()
}

#[test]
fn stopped_as_a_whole() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    assert_eq!(
        (gate(&pair, &gw1), gate(&pair, &gw2)),
        (("gate".into(), true), ("gate".into(), false))
    );
    let ear = Ear::new(&pair, &gw1);
    ear.lead_host(true);
    let mut all = (0, 0, 0);
    eventually("the ear hears gw1, which serves", || {
        ear.provoke();
        let (wg, arp, na) = ear.heard();
        all = (all.0 + wg, all.1 + arp, all.2 + na);
        if all.0 > 0 && all.1 > 0 && all.2 > 0 { Vec::new() } else { vec![format!("{all:?}")] }
    });
    ear.lead_host(false);

    pair.signal(&gw1, Signal::SIGSTOP);
    silent(&ear, Instant::now());
    pair.settled_on_silent(&gw2, "gw1 is stopped");
    assert_eq!(ear.heard(), (0, 0, 0), "while gw2 serves");
    pair.signal(&gw1, Signal::SIGCONT);
    pair.settled_on(&gw2, "gw1 goes on");
    assert_eq!(gate(&pair, &gw1), ("gate".into(), false));
    pair.end();
}

#[test]
fn killed_and_never_released() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let ear = Ear::new(&pair, &gw1);
    pair.kill(&gw1);
    silent(&ear, Instant::now());
    pair.settled_on_silent(&gw2, "gw1 was killed");
    // It stands, shut, until somebody takes off what it guards.
    assert_eq!(tables(&gw1), 2);
    pair.wgha(&gw1, &["release"]);
    assert_eq!(tables(&gw1), 0);
    pair.settled_on(&gw2, "gw1 was released");
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 runs again");
    assert_eq!(gate(&pair, &gw1), ("gate".into(), false));
    pair.end();
}

#[test]
fn flushed_by_a_firewalls_restart() {
    let pair = Pair::start();
    for node in [pair.gateway(1), pair.gateway(2)] {
        let before = pair.status(&node)["gate"]["restored"].as_u64();
        netns_lab::flush_nft(&node).expect("nft");
        let began = Instant::now();
        eventually("the gate is back", || match tables(&node) {
            2 => Vec::new(),
            n => vec![format!("{n} tables")],
        });
        println!("{}: back {:?} after the flush", node.name(), began.elapsed());
        eventually("it is counted", || {
            let now = pair.status(&node)["gate"]["restored"].as_u64();
            if now > before { Vec::new() } else { vec![format!("{before:?}, {now:?}")] }
        });
        answers_soon(&pair.clients[0], "flushed");
        pair.settled_on(&pair.gateway(1), &format!("nft flush ruleset on {}", node.name()));
    }
    pair.end();
}
