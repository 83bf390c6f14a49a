//! A gateway that is not master sends nothing from WireGuard's port and has no socket on it, whatever
//! made it give the role up.
//!
//! How long clients are told "port unreachable" while the role moves is printed, not asserted: it depends on the
//! machine.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netns_lab::{Lab, Node, Spec, topology};

use crate::audit::run;
use crate::pair::{Pair, eventually, heartbeat, options};
use crate::uplink::Uplink;

/// Between two probes that ask whether the port is open.
const PROBE_EVERY: Duration = Duration::from_millis(1);
/// As long as this without a refusal is the end of a spell of them.
const SPELL_GAP: Duration = Duration::from_millis(50);

#[test]
fn silent_after_every_kind_of_transition() {
    let mut pair = Pair::with(Lab::builder().clients(2).cluster(options()));
    let uplink = Uplink::watch(&pair.lab);
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    for node in [&gw1, &gw2] {
        // Else the kernel refuses once a second and no more.
        for limit in ["net/ipv4/icmp_ratelimit", "net/ipv6/icmp/ratelimit"] {
            node.sysctl(limit, "0").expect("sysctl");
        }
    }
    // Clients that send all the while give a gateway something to answer.
    let gateway = topology::wg_gateway().v4.to_string();
    let ping = |c: &netns_lab::WgPeer| {
        c.node().spawn(Spec::new(["ping", "-q", "-i", "0.02", &gateway])).expect("ping")
    };
    let pings: Vec<_> = pair.clients.iter().map(ping).collect();
    assert!(listens(&gw1), "the master has a socket");
    silent(&uplink, &gw2, "after the start");

    let moved = |pair: &Pair, to: &Node, from: &Node, what: &str| {
        pair.is_master(to, what);
        eventually(&format!("{what}: {} is not master", from.name()), || {
            let masters = pair.cluster.masters();
            let one = masters.len() == 1 && masters[0].name() == to.name();
            if one { Vec::new() } else { vec![format!("{}", masters.len())] }
        });
        silent(&uplink, from, what);
        pair.settled_on(to, what);
        silent(&uplink, from, what);
        assert!(listens(to), "{what}: the master has a socket");
    };

    let refusals = Refusals::watch(pair.lab.router());
    pair.hand_over(&gw1, &gw2);
    moved(&pair, &gw2, &gw1, "handover");
    refusals.tell("handover");

    let refusals = Refusals::watch(pair.lab.router());
    pair.lab.cut_link(&gw2, true).expect("cut");
    pair.is_master(&gw1, "the link of gw2 is cut");
    pair.lab.heal_link(&gw2, true).expect("heal");
    moved(&pair, &gw1, &gw2, "link cut and healed");
    refusals.tell("link cut and healed");

    let refusals = Refusals::watch(pair.lab.router());
    pair.stop(&gw1);
    moved(&pair, &gw2, &gw1, "SIGTERM");
    refusals.tell("SIGTERM");
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 runs again");

    let refusals = Refusals::watch(pair.lab.router());
    pair.kill(&gw2);
    pair.wgha(&gw2, &["release"]);
    let tables = run(&gw2, "nft list tables");
    assert!(!tables.contains("wgha_"), "wgha release leaves {tables}");
    moved(&pair, &gw1, &gw2, "kill -9 and wgha release");
    refusals.tell("kill -9 and wgha release");
    pair.start_on(&gw2);
    pair.settled_on(&gw1, "gw2 runs again");

    let refusals = Refusals::watch(pair.lab.router());
    pair.in_the_end(&gw1, &["maintenance", "on"]);
    moved(&pair, &gw2, &gw1, "maintenance");
    refusals.tell("maintenance");
    pair.wgha(&gw1, &["maintenance", "off"]);

    let refusals = Refusals::watch(pair.lab.router());
    run(&gw2, "ip link set eth1 down");
    moved(&pair, &gw1, &gw2, "an interface of the master went down");
    refusals.tell("an interface of the master went down");
    run(&gw2, "ip link set eth1 up");
    pair.settled_on(&gw1, "the interface is up again");
    // No comparison with before: the interface that went down lost its IPv6 addresses, which are nobody's subject.
    println!("sent by gw1 and gw2: {:?}", [&gw1, &gw2].map(|n| uplink.sent(n)));
    drop(pings);
}

/// This gateway, which is not master, has no socket on WireGuard's port and sends nothing from it.
fn silent(uplink: &Uplink, node: &Node, when: &str) {
    let name = node.name();
    // Whoever has just given the role up may be at it.
    eventually(&format!("{when}: {name} has no socket on WireGuard's port"), || {
        if listens(node) { vec![name.to_owned()] } else { Vec::new() }
    });
    sends_nothing(uplink, node, when);
}

/// This gateway, which is not master, sends nothing from WireGuard's port.
pub(crate) fn sends_nothing(uplink: &Uplink, node: &Node, when: &str) {
    let name = node.name();
    let before = uplink.sent(node);
    std::thread::sleep(heartbeat() * 2);
    let after = uplink.sent(node);
    assert_eq!(after, before, "{when}: {name} sent, without being master");
}

/// A socket of any program, or of the kernel, is bound to WireGuard's port.
fn listens(node: &Node) -> bool {
    // As the kernel lists them: `ss` is not everywhere.
    let sockets = run(node, "cat /proc/net/udp /proc/net/udp6");
    let port = format!(":{:04X}", topology::WG_PORT);
    sockets.lines().filter_map(|l| l.split_whitespace().nth(1)).any(|local| local.ends_with(&port))
}

/// When the floating IPs answered that nobody listens on WireGuard's port.
struct Refusals {
    stop: Arc<AtomicBool>,
    probes: Vec<JoinHandle<Vec<Instant>>>,
}

impl Refusals {
    /// Asks each floating IP again and again from `node`.
    fn watch(node: &Node) -> Refusals {
        let stop = Arc::new(AtomicBool::new(false));
        let probe = |to: IpAddr| {
            let stop = Arc::clone(&stop);
            node.thread(move || probe(to, &stop).expect("a probe"))
        };
        let probes = topology::floating().both().map(probe).into_iter().collect();
        Refusals { stop, probes }
    }

    /// Ends, and prints what it saw.
    fn tell(self, what: &str) {
        self.stop.store(true, Ordering::Relaxed);
        for (probe, family) in self.probes.into_iter().zip(["IPv4", "IPv6"]) {
            let seen = probe.join().expect("a probe's thread");
            let spells: Vec<String> = seen
                .chunk_by(|one, next| next.duration_since(*one) < SPELL_GAP)
                .filter_map(|s| Some(s.last()?.duration_since(*s.first()?)))
                .map(|spell| format!("{:.1} ms", spell.as_secs_f64() * 1e3))
                .collect();
            println!(
                "{what}, {family}: port unreachable {} times, in spells of {spells:?}",
                seen.len()
            );
        }
    }
}

fn probe(to: IpAddr, stop: &AtomicBool) -> std::io::Result<Vec<Instant>> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(SocketAddr::new(to, topology::WG_PORT))?;
    socket.set_nonblocking(true)?;
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        // The answer to one probe is told by the next call, whichever it is.
        let told = [socket.recv(&mut [0; 8]), socket.send(b"anybody there?")];
        if told
            .iter()
            .flat_map(|t| t.as_ref().err())
            .any(|e| e.kind() == ErrorKind::ConnectionRefused)
        {
            seen.push(Instant::now());
        }
        std::thread::sleep(PROBE_EVERY);
    }
    Ok(seen)
}
