//! Tunnels to stand-in gateways (WireGuard started by hand, floating IP moved by hand), the prober, and cleaning up.
#![allow(clippy::unwrap_used)] // helpers of tests, too

use std::net::SocketAddr;
use std::time::Duration;

use netns_lab::{
    Echo, Lab, Node, Prober, Spec, Timeline, Watch, WgKind, WgPeer, realtime_ns, topology,
};

/// A lost echo is sent again after this.
const EACH: Duration = Duration::from_millis(500);

fn lab(builder: netns_lab::Builder) -> Lab {
    netns_lab::enter_user_namespace().unwrap();
    builder.build().unwrap()
}

fn echo_address() -> SocketAddr {
    (topology::wg_gateway().v4, topology::ECHO_PORT).into()
}

/// Makes `node` the gateway: floating addresses, announced, then WireGuard.
fn promote(lab: &Lab, node: &Node, kind: WgKind) -> WgPeer {
    let lines: String = lab
        .floating_ips()
        .iter()
        .map(|(a, dev)| format!("addr add {a} dev {dev} nodad\n"))
        .collect();
    node.ip_batch(
        &lines
            .replace("/32 dev eth0 nodad", "/32 dev eth0")
            .replace("/32 dev eth1 nodad", "/32 dev eth1"),
    )
    .unwrap();
    // The router hears of it by its own request, as a gratuitous ARP would do.
    lab.router().ip_batch("neigh flush dev eth0\n").unwrap();
    WgPeer::start(node, kind, &lab.wg0_conf()).unwrap()
}

fn connects(kind: WgKind, over_v6: bool) {
    let lab = lab(Lab::builder());
    let gateway = promote(&lab, lab.gateway(1), WgKind::WireguardGo);
    let client = WgPeer::start(lab.client_node(1), kind, &lab.client_conf(1, over_v6, 0)).unwrap();
    assert_eq!(client.latest_handshake().unwrap(), None);
    for address in topology::wg_gateway().both() {
        let reached = netns_lab::reach(lab.client_node(1), address, EACH, Duration::from_secs(30));
        assert!(reached.is_ok(), "{kind} client, {address}: {reached:?}");
    }
    assert!(lab.client_node(1).ping(topology::host().v4.into()), "the host behind");
    assert_eq!(client.endpoint().unwrap(), topology::endpoint(over_v6));
    let handshake = client.latest_handshake().unwrap().expect("a handshake");
    assert!(realtime_ns() / 1_000_000_000 - handshake < 30);
    // The gateway sees the router's address, which hides the client.
    let peers = gateway.peers().unwrap();
    assert_eq!(peers[0].endpoint.unwrap().ip(), topology::router().both()[usize::from(over_v6)]);
    client.stop().unwrap();
    assert!(!lab.client_node(1).exec(&["ip", "link"]).unwrap().contains("wg0"));
}

#[test]
fn wireguard_go_client_connects() {
    assert!(netns_lab::find_program("wireguard-go").is_some(), "install wireguard-go");
    connects(WgKind::WireguardGo, false);
}

#[test]
fn embedded_client_connects() {
    connects(WgKind::Embedded, false);
}

#[test]
fn embedded_client_connects_over_ipv6() {
    connects(WgKind::Embedded, true);
}

#[test]
fn prober_measures_a_cut() {
    let lab = lab(Lab::builder());
    let gw1 = lab.gateway(1);
    let _echo = Echo::start(gw1, topology::ECHO_PORT).unwrap();
    let to = SocketAddr::from((topology::gateway(1).v4, topology::ECHO_PORT));
    lab.warm_neighbours();
    // A processor that stood still looks like a cut, too.
    let wrong: Vec<String> = (0..6).map_while(|_| measure_a_cut(&lab, to)).collect();
    assert!(wrong.len() < 6, "{wrong:#?}");
}

/// What is wrong with the measurement of a cut of 200 ms.
fn measure_a_cut(lab: &Lab, to: SocketAddr) -> Option<String> {
    let prober = Prober::start(lab.client_node(1), to, Duration::from_millis(1)).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let fault = realtime_ns();
    let cut = lab.inject(vec![netns_lab::Filter::deaf("gw1")]).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    lab.heal(cut).unwrap();
    prober.wait_steady(realtime_ns(), Duration::from_millis(500), Duration::from_secs(60)).unwrap();
    let until = realtime_ns();
    let probes = prober.stop();
    let outage = probes.outage(fault, until).unwrap();
    let length = outage.outage.expect("it came back");
    let (late, round_trips) = (probes.lateness().unwrap(), probes.round_trips().unwrap());
    let good = length >= Duration::from_millis(150)
        && length < Duration::from_millis(800)
        && outage.noise.is_some_and(|noise| noise < length)
        && outage.lost >= 100
        && late.median < 20_000_000
        && round_trips.median < 50_000_000;
    (!good).then(|| {
        format!("{outage}; late by {}, round trips {} ns", late.median, round_trips.median)
    })
}

#[test]
fn a_fake_failover_is_seen_in_the_time_line() {
    let lab = lab(Lab::builder());
    let watch = Watch::start(&lab).unwrap();
    let _echoes = [1, 2].map(|n| Echo::start(lab.gateway(n), topology::ECHO_PORT).unwrap());
    let first = promote(&lab, lab.gateway(1), WgKind::WireguardGo);
    let client = lab.start_client(1).unwrap();
    let to = topology::wg_gateway().v4.into();
    netns_lab::reach(lab.client_node(1), to, EACH, Duration::from_secs(30)).unwrap();
    lab.warm_neighbours();
    let prober =
        Prober::start(lab.client_node(1), echo_address(), Duration::from_millis(2)).unwrap();
    std::thread::sleep(Duration::from_millis(300));

    let fault = realtime_ns();
    lab.cut_link(lab.gateway(1), true).unwrap();
    let second = promote(&lab, lab.gateway(2), WgKind::WireguardGo);
    // The client waits WireGuard's own 15 s before it shakes hands with the new gateway.
    prober.wait_steady(fault, Duration::from_millis(500), Duration::from_secs(90)).unwrap();
    let until = realtime_ns();
    let outage = prober.stop().outage(fault, until).unwrap();
    assert!(outage.outage.unwrap() > Duration::from_secs(1), "{outage}");
    assert_eq!(client.endpoint().unwrap(), topology::endpoint(false));

    let mut line = Timeline::default();
    line.add(watch.events());
    let text = line.text(fault, fault, until);
    for what in [
        "gw1      eth0 lost its carrier",
        "gw2      203.0.113.100 added",
        "gw2      wg0 up",
        "router   203.0.113.100 is at gw2",
    ] {
        assert!(text.contains(what), "{what} is missing in\n{text}");
    }
    assert!(watch.first(fault, "router", "203.0.113.100 is at gw2").is_some());
    drop((first, second));
}

#[test]
fn nothing_is_left() {
    let lab = lab(Lab::builder());
    let dir = lab.dir().to_owned();
    // A process group with a grandchild, and a mount that only the node sees.
    let mut sleeper =
        lab.gateway(1).spawn(Spec::new(["sh", "-c", "sleep 1000 & echo started; wait"])).unwrap();
    sleeper.wait_log("started", Duration::from_secs(60)).unwrap();
    let pid = sleeper.pid();
    let namespace = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(namespace, std::fs::read_link("/proc/self/ns/net").unwrap());
    assert_eq!(netns_lab::processes_of(&dir).unwrap().len(), 2);
    // Its number stays its own.
    let _held = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    drop(sleeper);
    drop(lab);
    assert!(!dir.exists());
    assert_eq!(netns_lab::processes_of(&dir).unwrap(), Vec::<i32>::new());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("netns-lab-"), "{mounts}");
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let there = std::fs::read_link(entry.path().join("ns/net"));
        assert!(
            there.ok().as_ref() != Some(&namespace),
            "{} is still in the namespace",
            entry.path().display()
        );
    }
}

#[test]
fn a_panic_cleans_up_too() {
    netns_lab::enter_user_namespace().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let result = std::thread::spawn(move || {
        let lab = Lab::builder().clients(0).build().unwrap();
        let _sleeper = lab.gateway(1).spawn(Spec::new(["sleep", "1000"])).unwrap();
        tell.send(lab.dir().to_owned()).unwrap();
        panic!("on purpose");
    })
    .join();
    assert!(result.is_err());
    let dir = told.recv().unwrap();
    assert!(!dir.exists());
    assert_eq!(netns_lab::processes_of(&dir).unwrap(), Vec::<i32>::new());
}

#[test]
fn what_a_killed_lab_left_is_removed() {
    netns_lab::enter_user_namespace().unwrap();
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let dir = std::env::temp_dir().join(format!("netns-lab-{}-test", gone.id()));
    std::fs::create_dir(&dir).unwrap();
    let mut left = std::process::Command::new("sleep");
    let mut left = left.arg("1000").env("NETNS_LAB_DIR", &dir).spawn().unwrap();
    let alive = Lab::builder().clients(0).build().unwrap();
    let mut kept = alive.gateway(1).spawn(Spec::new(["sleep", "1000"])).unwrap();

    let cleaned = netns_lab::clean().unwrap();
    assert!(cleaned.processes.contains(&i32::try_from(left.id()).unwrap()), "{cleaned:?}");
    assert!(cleaned.dirs.contains(&dir), "{cleaned:?}");
    left.wait().unwrap();
    assert!(!dir.exists());
    assert!(alive.dir().exists() && kept.is_running(), "a living lab is left alone");
}

#[test]
fn signals_stop_and_kill() {
    let lab = lab(Lab::builder().clients(0));
    let start = |script: &str| {
        let mut process = lab.gateway(1).spawn(Spec::new(["sh", "-c", script])).unwrap();
        process.wait_log("ready", Duration::from_secs(60)).unwrap();
        process
    };
    assert!(start("echo ready; exec sleep 1000").stop(Duration::from_secs(5)).unwrap());
    assert!(
        !start("trap '' TERM; echo ready; while :; do sleep 1; done")
            .stop(Duration::from_millis(300))
            .unwrap()
    );
    let mut process = start("echo ready; exec sleep 1000");
    assert!(process.is_running());
    process.kill().unwrap();
    assert!(!process.is_running());
    assert!(
        process
            .log()
            .lines()
            .all(|l| l.split_once('.').is_some_and(|(s, _)| s.parse::<u64>().is_ok()))
    );
}
