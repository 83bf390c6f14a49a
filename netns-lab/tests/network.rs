//! The lab's network is what topology.rs draws, and every fault does what it says and heals.
#![allow(clippy::unwrap_used)] // helpers of tests, too

use std::net::IpAddr;
use std::time::{Duration, Instant};

use netns_lab::{Address, Filter, Lab, Node, topology};

fn lab(builder: netns_lab::Builder) -> Lab {
    netns_lab::enter_user_namespace().unwrap();
    builder.build().unwrap()
}

fn reaches(node: &Node, addresses: [IpAddr; 2]) -> [bool; 2] {
    addresses.map(|a| node.ping(a))
}

/// After a heal the first tries may still find the neighbour marked as failed.
fn reaches_again(node: &Node, addresses: [IpAddr; 2]) {
    let end = Instant::now() + Duration::from_secs(60);
    while reaches(node, addresses) != [true; 2] {
        assert!(
            Instant::now() < end,
            "{} does not reach {addresses:?} after the heal",
            node.name()
        );
    }
}

/// How many of `n` pings are answered, each waited for so long.
fn answered(node: &Node, to: IpAddr, n: usize, wait: Duration) -> usize {
    (0..n).filter(|_| netns_lab::ping(node, to, wait).is_ok()).count()
}

#[test]
fn everybody_reaches_who_they_should() {
    let lab = lab(Lab::builder().gateways(3).clients(2).witness());
    let client = lab.client_node(2);
    for n in 1..=3 {
        assert_eq!(reaches(client, topology::gateway(n).both()), [true; 2], "client2 to gw{n}");
        assert_eq!(reaches(lab.host(), topology::inner(10 + n).both()), [true; 2], "host to gw{n}");
    }
    assert_eq!(reaches(client, topology::witness().both()), [true; 2]);
    assert_eq!(reaches(lab.gateway(1), topology::gateway(2).both()), [true; 2]);
    // Nobody has the floating addresses yet.
    assert_eq!(reaches(client, topology::floating().both()), [false; 2]);
}

/// The source address that `gw1` sees of a datagram from client1.
fn source_seen(lab: &Lab) -> IpAddr {
    let server = lab.gateway(1).run(|| std::net::UdpSocket::bind("0.0.0.0:9")).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let client = lab.client_node(1).run(|| std::net::UdpSocket::bind("0.0.0.0:0")).unwrap();
    client.send_to(b"x", (topology::gateway(1).v4, 9)).unwrap();
    server.recv_from(&mut [0; 8]).unwrap().1.ip()
}

#[test]
fn nat_hides_clients_and_can_be_left_out() {
    assert_eq!(source_seen(&lab(Lab::builder())), IpAddr::V4(topology::router().v4));
    assert_eq!(
        source_seen(&lab(Lab::builder().nat(false))),
        IpAddr::V4(topology::client_net(1, 2).v4)
    );
}

#[test]
fn nodes_have_their_own_directories() {
    let lab = lab(Lab::builder());
    lab.gateway(1)
        .sh("echo one > /run/x; echo one > /etc/wgha/x; echo one > /var/lib/wgha/x")
        .unwrap();
    assert!(lab.gateway(2).sh("cat /run/x /etc/wgha/x /var/lib/wgha/x").is_err());
    assert_eq!(
        lab.gateway(1).sh("cat /run/x /etc/wgha/x /var/lib/wgha/x").unwrap(),
        "one\none\none\n"
    );
    assert_eq!(std::fs::read_to_string(netns_lab::etc(lab.gateway(1)).join("x")).unwrap(), "one\n");
    assert!(!std::path::Path::new("/etc/wgha/x").exists());
    lab.gateway(1).sh("test -e /etc/passwd").unwrap();
}

#[test]
fn links_are_cut_and_healed() {
    let lab = lab(Lab::builder());
    let (gw1, to) = (lab.gateway(1), topology::gateway(1).both());
    lab.cut_link(gw1, false).unwrap();
    assert_eq!(reaches(lab.router(), to), [false; 2]);
    assert!(gw1.exec(&["ip", "link", "show", "eth0"]).unwrap().contains("NO-CARRIER"));
    assert_eq!(reaches(lab.host(), topology::inner(11).both()), [true; 2]);
    lab.heal_link(gw1, false).unwrap();
    reaches_again(lab.router(), to);
    lab.cut_link(gw1, true).unwrap();
    assert_eq!(reaches(lab.host(), topology::inner(11).both()), [false; 2]);
    lab.heal_all().unwrap();
    reaches_again(lab.host(), topology::inner(11).both());
}

#[test]
fn partitions_and_one_way_cuts() {
    let lab = lab(Lab::builder().witness());
    let cut = lab.partition(&["gw1"], &["gw2", "w1"]).unwrap();
    assert_eq!(reaches(lab.gateway(1), topology::gateway(2).both()), [false; 2]);
    assert_eq!(reaches(lab.gateway(1), topology::router().both()), [true; 2]);
    assert_eq!(reaches(lab.gateway(2), topology::witness().both()), [true; 2]);
    lab.heal(cut).unwrap();
    reaches_again(lab.gateway(1), topology::gateway(2).both());

    // Datagrams pass the one way and not the other.
    let hears = |from: usize, to: usize| {
        let socket = lab.gateway(to).run(|| std::net::UdpSocket::bind("0.0.0.0:5112")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let sender = lab.gateway(from).run(|| std::net::UdpSocket::bind("0.0.0.0:0")).unwrap();
        let to = topology::gateway(u8::try_from(to).unwrap()).v4;
        sender.send_to(b"x", (to, 5112)).unwrap();
        socket.recv(&mut [0; 8]).is_ok()
    };
    let cut = lab.inject(vec![Filter::one_way("gw1", "gw2").heartbeats()]).unwrap();
    assert!(!hears(1, 2) && hears(2, 1));
    assert_eq!(reaches(lab.gateway(1), topology::gateway(2).both()), [true; 2], "only heartbeats");
    lab.heal(cut).unwrap();
    assert!(hears(1, 2) && hears(2, 1));
    let cut = lab.inject(vec![Filter::mute("gw2")]).unwrap();
    assert!(hears(1, 2) && !hears(2, 1));
    lab.heal(cut).unwrap();
    let cut = lab.inject(vec![Filter::deaf("gw2")]).unwrap();
    assert!(!hears(1, 2) && hears(2, 1));
    lab.heal(cut).unwrap();
}

#[test]
fn loss_is_random_and_heals() {
    let lab = lab(Lab::builder());
    let to = IpAddr::V4(topology::gateway(2).v4);
    assert_eq!(answered(lab.gateway(1), to, 60, Duration::from_secs(5)), 60);
    // Half of the requests, then half of the answers: 15 of 60 expected, standard deviation 3.4.
    let loss = lab.inject(vec![Filter::loss(50)]).unwrap();
    let got = answered(lab.gateway(1), to, 60, Duration::from_millis(50));
    assert!((1..=35).contains(&got), "{got} of 60 came through");
    lab.heal(loss).unwrap();
    assert_eq!(answered(lab.gateway(1), to, 60, Duration::from_secs(5)), 60);
}

#[test]
fn addresses_rules_interfaces_and_nft_are_removed() {
    let lab = lab(Lab::builder());
    let gw1 = lab.gateway(1);
    gw1.ip_batch("addr add 203.0.113.100/32 dev eth0\nrule add pref 100 from 203.0.113.100 lookup 77\nlink add wg0 type veth peer name x\n").unwrap();
    gw1.exec(&["ip", "-6", "rule", "add", "pref", "100", "blackhole"]).unwrap();
    gw1.nft("table inet t {\n}\n").unwrap();
    let show = |what: &[&str]| gw1.exec(what).unwrap();

    netns_lab::remove_address(gw1, "203.0.113.100/32", "eth0").unwrap();
    assert!(!show(&["ip", "addr"]).contains("203.0.113.100"));
    assert_eq!(netns_lab::remove_rules(gw1).unwrap(), 2);
    assert_eq!(show(&["ip", "rule"]).lines().count(), 3);
    netns_lab::remove_interface(gw1, "wg0").unwrap();
    assert!(!show(&["ip", "link"]).contains("wg0"));
    netns_lab::flush_nft(gw1).unwrap();
    assert_eq!(show(&["nft", "list", "ruleset"]), "");
    assert!(
        netns_lab::remove_address(gw1, "203.0.113.100/32", "eth0").is_err(),
        "it is gone already"
    );
}

#[test]
fn holdings_are_what_ip_shows() {
    let lab = lab(Lab::builder());
    let gw1 = lab.gateway(1);
    gw1.ip_batch(
        "addr add 203.0.113.100/32 dev eth0\nrule add pref 100 lookup 70077 protocol 151\nroute add default via 203.0.113.1 table 70077\nlink add x type veth peer name y\n",
    )
    .unwrap();
    gw1.exec(&["ip", "-6", "rule", "add", "pref", "109", "protocol", "151", "blackhole"]).unwrap();
    let held = gw1.holdings().unwrap();
    let shown = |args: &str| gw1.sh(&format!("ip {args}")).unwrap();

    let addresses = shown("-o addr");
    assert_eq!(held.addresses.len(), addresses.lines().count(), "{addresses}");
    for Address { address, prefix_len, interface } in &held.addresses {
        let one = |l: &str| {
            let words: Vec<&str> = l.split_whitespace().collect();
            words[1] == interface && words[3] == format!("{address}/{prefix_len}")
        };
        assert!(addresses.lines().any(one), "{address} on {interface} is not in {addresses}");
    }
    let link = |name: &str| held.links.iter().find(|l| l.name == name).unwrap();
    assert!(link("eth0").up && !link("x").up);
    assert!(shown("link show eth0").contains(link("eth0").mac.as_ref().unwrap()));

    let rules = |v6| held.rules.iter().filter(move |r| r.v6 == v6);
    for (v6, family) in [(false, "-4"), (true, "-6")] {
        let priorities: String = rules(v6).map(|r| format!("{}\n", r.priority)).collect();
        assert_eq!(shown(&format!("{family} rule | cut -d: -f1")), priorities);
    }
    let lookup = rules(false).find(|r| r.priority == 100).unwrap();
    assert_eq!((lookup.lookup, lookup.protocol, lookup.blackhole), (Some(70_077), 151, false));
    let last = rules(true).find(|r| r.priority == 109).unwrap();
    assert_eq!((last.lookup, last.protocol, last.blackhole), (None, 151, true));

    for (v6, family) in [(false, "-4"), (true, "-6")] {
        let routes = shown(&format!("{family} route show table all"));
        let found = held.routes.iter().filter(|r| r.v6 == v6).count();
        assert_eq!(found, routes.lines().count(), "{routes}");
    }
    let private: Vec<_> = held.routes.iter().filter(|r| r.table == 70_077).collect();
    assert_eq!(private.len(), 1);
    assert!(private[0].prefix_len == 0 && private[0].gateway && !private[0].v6);

    assert!(gw1.ping(topology::router().v4.into()));
    let router = gw1.neighbours().unwrap();
    let router = router.iter().find(|n| n.address == topology::router().v4).unwrap();
    assert_eq!(router.mac, netns_lab::mac(lab.router(), "eth0").unwrap());
}

#[test]
fn labs_live_side_by_side_and_neighbours_are_warm() {
    let one = lab(Lab::builder());
    let two = lab(Lab::builder());
    two.cut_link(two.gateway(1), false).unwrap();
    assert!(one.router().ping(topology::gateway(1).v4.into()));
    one.warm_neighbours();
    let neighbours = one.gateway(2).exec(&["ip", "neigh"]).unwrap();
    for address in topology::router().both() {
        assert!(
            neighbours
                .lines()
                .any(|l| l.starts_with(&format!("{address} ")) && l.contains("lladdr")),
            "{neighbours}"
        );
    }
}
