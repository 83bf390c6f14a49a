//! The second line holds where no policy rule does, shown by sending.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

use wgha::net::Netlink;
use wgha::net::barrier;
use wgha::net::source::{self, SourcePlan};

use crate::namespace::{Ns, as_root, nft as nft_here};

const PORT: u16 = 51820;
const OWN: [&str; 2] = ["10.0.0.2", "fd00::2"];
const VIP: [&str; 2] = ["10.0.0.10", "fd00::10"];
const NEAR: [&str; 2] = ["10.0.0.1", "fd00::1"];

/// A machine with its own addresses and the floating IPs, and a neighbour.
fn machine() -> (Ns, Ns) {
    let (machine, neighbour) = (Ns::new(), Ns::new());
    machine.cable("eth0", &neighbour, "n0");
    for (ns, name, address) in [
        (&machine, "eth0", "10.0.0.2/24"),
        (&machine, "eth0", "fd00::2/64"),
        (&machine, "eth0", "10.0.0.10/32"),
        (&machine, "eth0", "fd00::10/128"),
        (&neighbour, "n0", "10.0.0.1/24"),
        (&neighbour, "n0", "fd00::1/64"),
    ] {
        ns.address(name, address);
    }
    (machine, neighbour)
}

fn plan(v4: bool, v6: bool) -> SourcePlan {
    let on = |wanted: bool| wanted.then(|| "eth0".to_owned());
    SourcePlan {
        port: PORT,
        v4: on(v4).map(|name| (VIP[0].parse().unwrap(), name)),
        v6: on(v6).map(|name| (VIP[1].parse().unwrap(), name)),
    }
}

fn install(ns: &Ns, plan: SourcePlan) -> bool {
    ns.run(move || barrier::install(&plan))
}

fn remove(ns: &Ns) -> bool {
    ns.run(|| barrier::remove(PORT))
}

fn nft(ns: &Ns, arguments: &'static str) -> String {
    ns.run(|| nft_here(arguments))
}

/// Which of these leave: from own address and floating IP, IPv4 and IPv6.
fn leave(ns: &Ns, port: u16) -> [bool; 4] {
    [(OWN, 0), (VIP, 0), (OWN, 1), (VIP, 1)].map(|(from, family)| {
        ns.run(move || {
            let from = SocketAddr::new(from[family].parse().unwrap(), port);
            let to = SocketAddr::new(NEAR[family].parse().unwrap(), 9);
            match UdpSocket::bind(from).unwrap().send_to(b"hello", to) {
                Ok(_) => true,
                Err(e) if e.kind() == ErrorKind::PermissionDenied => false,
                Err(e) => panic!("{from}: {e}"),
            }
        })
    })
}

#[test]
fn only_the_floating_ip_speaks() {
    as_root("barrier::only_the_floating_ip_speaks", || {
        let (machine, _neighbour) = machine();
        assert_eq!(leave(&machine, PORT), [true; 4], "nothing stands yet");
        assert!(install(&machine, plan(true, true)));
        assert_eq!(leave(&machine, PORT), [false, true, false, true]);
        assert_eq!(leave(&machine, PORT + 1), [true; 4], "another port");
        // A family without floating IP is shut.
        assert!(install(&machine, plan(true, false)), "another plan");
        assert_eq!(leave(&machine, PORT), [false, true, false, false]);
        assert!(install(&machine, plan(false, true)), "another plan");
        assert_eq!(leave(&machine, PORT), [false, false, false, true]);
        let shown = nft(&machine, "list table inet wgha_51820");
        assert!(shown.contains("udp sport 51820 ip6 saddr != fd00::10"), "{shown}");
        assert!(shown.contains("comment \"wgha: from fd00::10 only\""), "{shown}");
        assert!(remove(&machine));
        assert_eq!(leave(&machine, PORT), [true; 4], "it is gone");
    });
}

#[test]
fn what_others_change_is_put_right() {
    as_root("barrier::what_others_change_is_put_right", || {
        let (machine, _neighbour) = machine();
        nft(&machine, "add table inet own");
        assert!(!remove(&machine), "there is nothing to remove");
        assert!(install(&machine, plan(true, true)));
        assert!(!install(&machine, plan(true, true)), "all is as it should be");
        for change in [
            "flush ruleset",
            "delete table inet wgha_51820",
            "flush chain inet wgha_51820 output",
            "insert rule inet wgha_51820 output accept",
        ] {
            nft(&machine, change);
            assert!(install(&machine, plan(true, true)), "{change}");
            assert_eq!(leave(&machine, PORT), [false, true, false, true], "{change}");
            assert!(!install(&machine, plan(true, true)), "{change}");
        }
        nft(&machine, "add table inet own");
        assert!(remove(&machine));
        assert!(!remove(&machine));
        assert_eq!(nft(&machine, "list tables").trim(), "table inet own");
    });
}

#[test]
fn the_rules_bring_it_and_take_it_along() {
    as_root("barrier::the_rules_bring_it_and_take_it_along", || {
        let (machine, _neighbour) = machine();
        machine.run_async(|| async {
            let netlink = Netlink::open().unwrap();
            assert!(source::guard(&netlink, &plan(true, true)).await.unwrap());
        });
        // Rules gone, as after a restart of networkd: this is what it is for.
        machine.ip("-4 rule del pref 109");
        machine.ip("-6 rule del pref 109");
        assert_eq!(leave(&machine, PORT), [false, true, false, true]);
        machine.run_async(|| async {
            let netlink = Netlink::open().unwrap();
            assert!(source::guard(&netlink, &plan(true, true)).await.unwrap());
            nft_here("delete table inet wgha_51820");
            assert!(source::guard(&netlink, &plan(true, true)).await.unwrap(), "put back");
            assert!(source::purge(&netlink, PORT).await.unwrap());
        });
        assert_eq!(nft(&machine, "list tables"), "");
        assert_eq!(leave(&machine, PORT), [true; 4]);
    });
}
