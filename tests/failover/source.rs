//! WireGuard's packets leave from the floating IP or not at all, and so clients never send to another
//! address: after a random sequence of changes of role and of all that others do to addresses,
//! routes and rules. IPv4 and IPv6 at once, a client of each, both sending all the while.
//!
//! The embedded WireGuard binds the floating IP, so that alone would prove little of rules and nftables: beside it a
//! program on each gateway tries all the while to send from WireGuard's port of the gateway's own addresses.
//!
//! `WGHA_TEST_SEED` repeats a sequence, `WGHA_TEST_STEPS` makes it longer.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netns_lab::{Lab, Node, Process, Spec, WgConf, WgPeer, topology};
use nix::sys::signal::Signal;

use crate::audit::run;
use crate::pair::{Pair, backend, network, options};
use crate::uplink::{Sent, Uplink};

/// wgha's private table of WireGuard's port.
const TABLE: &str = "511251820";
/// The router's other address on the uplink net.
const OTHER_ROUTER: u8 = 2;
/// Between two attempts to send from another address.
const SPEAK_EVERY: Duration = Duration::from_millis(5);
/// Longest pause between taking something away and putting it back.
const PAUSE_MS: u64 = 400;

#[test]
fn a_packet_from_another_address_is_seen() {
    let lab = network(Lab::builder().clients(0));
    let uplink = Uplink::watch(&lab);
    let gw1 = lab.gateway(1).clone();
    let send = |from: IpAddr, to: IpAddr| {
        let socket = UdpSocket::bind((from, topology::WG_PORT)).expect("its own address");
        socket.send_to(b"stray", (to, 9)).expect("sent");
    };
    let (own, router) = (topology::gateway(1), topology::router());
    let inner = (topology::inner(11), topology::host());
    gw1.run(move || send(own.v4.into(), router.v4.into()));
    uplink.comes_to(&gw1, Sent { stray: 1, ..Sent::default() });
    gw1.run(move || send(own.v6.into(), router.v6.into()));
    gw1.run(move || send(inner.0.v4.into(), inner.1.v4.into()));
    uplink.comes_to(&gw1, Sent { stray: 3, ..Sent::default() });
    let shown = uplink.strays();
    assert!(shown.contains(&format!("{} . {}", own.v4, router.v4)), "{shown}");

    let floating = topology::floating();
    run(&gw1, &format!("ip addr add {}/32 dev eth0", floating.v4));
    run(&gw1, &format!("ip addr add {}/128 dev eth0 nodad", floating.v6));
    gw1.run(move || send(floating.v4.into(), router.v4.into()));
    gw1.run(move || send(floating.v6.into(), router.v6.into()));
    uplink.comes_to(&gw1, Sent { floating: 2, stray: 3, refusals: 0 });
    for to in floating.both() {
        // Nobody listens there.
        let ask = move || {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(SocketAddr::new(to, topology::WG_PORT))?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            socket.send(b"anybody there?")?;
            socket.recv(&mut [0; 8])
        };
        let refused = lab.router().run(ask).expect_err("refused");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    uplink.comes_to(&gw1, Sent { floating: 2, stray: 3, refusals: 2 });
    assert_eq!(uplink.sent(lab.gateway(2)), Sent::default());
}

#[test]
fn whatever_happens_packets_leave_from_the_floating_ip() {
    let seed = number("WGHA_TEST_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        u64::from(now.subsec_nanos())
    });
    let few = if backend() == "kernel" { 8 } else { 25 };
    let steps = number("WGHA_TEST_STEPS").unwrap_or(few);
    println!("WGHA_TEST_SEED={seed} WGHA_TEST_STEPS={steps}");
    let mut sequence = Sequence::start(Dice(seed));
    // Both serve, however few steps there are.
    let mut deck = vec![Step::Handover];
    for number in 1..=steps {
        // Each kind once before any comes again.
        if deck.is_empty() {
            deck = STEPS.to_vec();
        }
        let step = deck.swap_remove(sequence.dice.below(deck.len()));
        let what = sequence.take(step);
        println!("{number}: {what}");
        sequence.check(&format!("seed {seed}, step {number}: {what}"));
    }
    let Sequence { pair, uplink, pings, stray_speakers, .. } = sequence;
    drop(pings);
    for speaker in stray_speakers {
        let (tried, sent) = speaker.end();
        println!("from the own address: tried {tried} times, sent {sent}");
        assert!(tried > 0, "nothing was tried");
    }
    let all = [1, 2].map(|n| uplink.sent(&pair.gateway(n)));
    println!("sent by gw1 and gw2: {all:?}");
    assert!(all.iter().all(|sent| sent.floating > 0), "both served: {all:?}");
    // As the lab made them.
    for node in [pair.gateway(1), pair.gateway(2)] {
        for (family, via) in ["-4", "-6"].into_iter().zip(topology::router().both()) {
            remove_default_routes(&node, family);
            run(&node, &format!("ip {family} route add default via {via} dev eth0"));
        }
    }
    pair.settled("the default routes are as before");
    pair.end();
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % bound as u64).expect("below a usize")
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn pause(&mut self) {
        std::thread::sleep(Duration::from_millis(self.roll() % PAUSE_MS));
    }
}

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Step {
    Handover,
    LinkCut,
    Reload,
    DefaultRoute,
    OwnAddress,
    Rules,
    PrivateTable,
    FloatingIps,
    LikeNetworkd,
    NftFlush,
    TunnelDown,
    Restart,
    Kill,
}

const STEPS: [Step; 13] = [
    Step::Handover,
    Step::LinkCut,
    Step::Reload,
    Step::DefaultRoute,
    Step::OwnAddress,
    Step::Rules,
    Step::PrivateTable,
    Step::FloatingIps,
    Step::LikeNetworkd,
    Step::NftFlush,
    Step::TunnelDown,
    Step::Restart,
    Step::Kill,
];

struct Sequence {
    dice: Dice,
    /// One for each client, so that there is always something to send.
    pings: Vec<Process>,
    pair: Pair,
    uplink: Uplink,
    /// wg0.conf has a peer that nobody is.
    more_peers: bool,
    /// On each gateway; not with the kernel's WireGuard, to which every socket on the port is in the way.
    stray_speakers: Vec<Speaker>,
    /// How often the default route was set.
    default_routes: u8,
}

impl Sequence {
    fn start(dice: Dice) -> Sequence {
        let mut pair = Pair::with(Lab::builder().clients(2).cluster(options()));
        let uplink = Uplink::watch(&pair.lab);
        let other = topology::uplink(OTHER_ROUTER);
        let router = pair.lab.router();
        run(router, &format!("ip addr add {}/24 dev eth0", other.v4));
        run(router, &format!("ip addr add {}/64 dev eth0 nodad", other.v6));
        // The second client comes over IPv6.
        let client = pair.clients.remove(1);
        let kind = client.kind();
        client.stop().expect("client2 ends");
        let conf = pair.lab.client_conf(2, true, 0);
        let client = WgPeer::start(pair.lab.client_node(2), kind, &conf).expect("client2");
        pair.clients.push(client);
        pair.settled("client2 comes over IPv6");
        let gateway = topology::wg_gateway().v4.to_string();
        let ping = |c: &WgPeer| c.node().spawn(Spec::new(["ping", "-q", "-i", "0.05", &gateway]));
        let pings = pair.clients.iter().map(|c| ping(c).expect("ping")).collect();
        let foreign = backend() != "kernel";
        let stray_speakers = if foreign {
            (1..=2).map(|n| Speaker::start(&pair.lab, n)).collect()
        } else {
            Vec::new()
        };
        Sequence { dice, pings, pair, uplink, more_peers: false, stray_speakers, default_routes: 0 }
    }

    /// Does it, and says what it did.
    fn take(&mut self, step: Step) -> String {
        let (master, backup) = self.roles();
        let either = self.dice.one(&[&master, &backup]).to_owned().clone();
        let (node, more) = match step {
            Step::Handover => {
                self.pair.hand_over(&master, &backup);
                (&master, String::new())
            }
            Step::LinkCut => {
                self.pair.lab.cut_link(&master, true).expect("cut");
                self.pair.is_master(&backup, "its link is cut");
                self.dice.pause();
                self.pair.lab.heal_link(&master, true).expect("heal");
                (&master, String::new())
            }
            Step::Reload => {
                self.reload();
                (&either, format!("of both, more peers: {}", self.more_peers))
            }
            Step::DefaultRoute => {
                let how = self.default_route(&either);
                (&either, how)
            }
            Step::OwnAddress => (&either, self.own_address(&either)),
            Step::Rules => {
                netns_lab::remove_rules(&either).expect("removing rules");
                (&either, String::new())
            }
            Step::PrivateTable => {
                flush_private_table(&master);
                (&master, String::new())
            }
            Step::FloatingIps => (&master, self.remove_floating(&master)),
            Step::LikeNetworkd => {
                self.like_networkd(&either);
                (&either, String::new())
            }
            Step::NftFlush => {
                for node in [&master, &backup] {
                    netns_lab::flush_nft(node).expect("nft");
                }
                (&master, "and on the other".to_owned())
            }
            Step::TunnelDown => {
                run(&master, "ip link set wg0 down");
                (&master, String::new())
            }
            Step::Restart => {
                self.pair.stop(&either);
                self.pair.start_on(&either);
                (&either, String::new())
            }
            Step::Kill => {
                self.pair.kill(&either);
                self.dice.pause();
                self.pair.start_on(&either);
                (&either, String::new())
            }
        };
        format!("{step:?} on {} (master was {}) {more}", node.name(), master.name())
    }

    fn roles(&self) -> (Node, Node) {
        let (gw1, gw2) = (self.pair.gateway(1), self.pair.gateway(2));
        let master = self.pair.master();
        if master.name() == gw1.name() { (gw1, gw2) } else { (gw2, gw1) }
    }

    /// SIGHUP to both, with a peer more or a peer less in wg0.conf.
    fn reload(&mut self) {
        self.more_peers = !self.more_peers;
        let mut conf = self.pair.lab.wg0_conf();
        if self.more_peers {
            conf.peers.push(nobody(&conf));
        }
        for number in [1, 2] {
            let node = self.pair.gateway(number);
            let path = node.dir().join("etc-wireguard/wg0.conf");
            std::fs::write(path, conf.to_text()).expect("wg0.conf");
            self.pair.signal(&node, Signal::SIGHUP);
        }
    }

    /// Another default route, in one step or with a pause between old and new.
    fn default_route(&mut self, node: &Node) -> String {
        // Tells the new one from those before.
        self.default_routes = (self.default_routes + 1) % 50;
        let mark = format!("proto {}", 100 + self.default_routes);
        let families = *self.dice.one(&[&["-4"][..], &["-6"], &["-4", "-6"]]);
        let host = *self.dice.one(&[1, OTHER_ROUTER]);
        let more = *self.dice.one(&["", "metric 50", "metric 3000", "onlink"]);
        let pause = self.dice.below(2) == 0;
        let router = topology::uplink(host);
        for &family in families {
            let via: IpAddr = if family == "-4" { router.v4.into() } else { router.v6.into() };
            let new = format!("default via {via} dev eth0 {mark} {more}");
            if pause {
                remove_default_routes(node, family);
                self.dice.pause();
                run(node, &format!("ip {family} route add {new}"));
            } else {
                // A second one with a metric beside the first, then only the new one.
                run(node, &format!("ip {family} route replace {new}"));
                for line in defaults(node, family).filter(|line| !line.contains(&mark)) {
                    run(node, &format!("ip {family} route del {line}"));
                }
            }
        }
        format!("{families:?}, via .{host} {more}, pause: {pause}")
    }

    /// As a DHCP lease that ends and is there again.
    fn own_address(&mut self, node: &Node) -> String {
        let number = if node.name() == "gw1" { 1 } else { 2 };
        let own = topology::gateway(number).v4;
        let kept: Vec<String> = defaults(node, "-4").collect();
        run(node, &format!("ip addr del {own}/24 dev eth0"));
        self.dice.pause();
        run(node, &format!("ip addr add {own}/24 brd + dev eth0"));
        for route in kept {
            run(node, &format!("ip route replace {}", route.replace("linkdown", "")));
        }
        own.to_string()
    }

    fn remove_floating(&mut self, node: &Node) -> String {
        let all = self.pair.lab.floating_ips();
        let mut gone = Vec::new();
        for (address, interface) in &all {
            if self.dice.below(3) > 0 {
                // The daemon may be putting others back just now, never this one.
                netns_lab::remove_address(node, address, interface).expect("removing");
                gone.push(address.clone());
            }
        }
        gone.join(" ")
    }

    /// What a restart does: foreign addresses, rules and routes go in one sweep.
    fn like_networkd(&mut self, node: &Node) {
        netns_lab::remove_rules(node).expect("removing rules");
        flush_private_table(node);
        for (address, interface) in self.pair.lab.floating_ips() {
            // A backup has none.
            let _ = netns_lab::remove_address(node, &address, interface);
        }
    }

    /// All is well, and was so all the time.
    fn check(&self, when: &str) {
        let master = self.pair.settled(when);
        for (client, v6) in self.pair.clients.iter().zip([false, true]) {
            let endpoint = client.endpoint().expect("an endpoint");
            let name = client.node().name();
            assert_eq!(endpoint, topology::endpoint(v6), "{when}: {name} sends elsewhere");
        }
        for gateway in self.pair.lab.gateways() {
            let sent = self.uplink.sent(gateway);
            let name = gateway.name();
            assert_eq!(sent.stray, 0, "{when}: {name} {sent:?}\n{}", self.uplink.strays());
        }
        let backup = self.pair.running().find(|n| n.name() != master.name()).expect("a backup");
        crate::silence::sends_nothing(&self.uplink, backup, when);
    }
}

/// Tries to send from WireGuard's port of a gateway's own addresses.
struct Speaker {
    stop: Arc<AtomicBool>,
    /// Tried, and sent.
    threads: Vec<JoinHandle<(u64, u64)>>,
}

impl Speaker {
    fn start(lab: &Lab, number: u8) -> Speaker {
        let stop = Arc::new(AtomicBool::new(false));
        let node = lab.gateway(number.into());
        let pairs = topology::gateway(number).both().into_iter().zip(topology::router().both());
        let threads = pairs.map(|(from, to)| {
            let stop = Arc::clone(&stop);
            let socket = node.run(move || UdpSocket::bind((from, topology::WG_PORT)));
            let socket = socket.expect("the own address");
            node.thread(move || {
                let (mut tried, mut sent) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    tried += 1;
                    sent += u64::from(socket.send_to(b"stray", (to, 9)).is_ok());
                    std::thread::sleep(SPEAK_EVERY);
                }
                (tried, sent)
            })
        });
        Speaker { threads: threads.collect(), stop }
    }

    /// How often it tried, and how often the kernel took it.
    fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let all = self.threads.into_iter().map(|t| t.join().expect("a speaker"));
        all.fold((0, 0), |sum, (tried, sent)| (sum.0 + tried, sum.1 + sent))
    }
}

/// A peer that nobody is: a key of zeroes but for one bit is as good as any.
fn nobody(conf: &WgConf) -> netns_lab::PeerConf {
    let mut peer = conf.peers.first().expect("a peer").clone();
    peer.public_key = format!("Q{}=", "A".repeat(42));
    peer.allowed_ips = vec!["10.9.0.99/32".to_owned()];
    peer
}

fn flush_private_table(node: &Node) {
    for family in ["-4", "-6"] {
        // A table without routes may not exist, which `ip` calls an error.
        run(node, &format!("ip {family} route flush table {TABLE} 2>/dev/null || true"));
    }
}

/// The default routes of the main table as `ip` shows them, which it takes as arguments, too.
fn defaults(node: &Node, family: &str) -> impl Iterator<Item = String> {
    let shown = run(node, &format!("ip {family} route show default"));
    let lines: Vec<String> = shown.lines().map(|l| l.trim().to_owned()).collect();
    lines.into_iter().map(|line| line.split(" pref ").next().unwrap_or_default().to_owned())
}

fn remove_default_routes(node: &Node, family: &str) {
    for line in defaults(node, family) {
        run(node, &format!("ip {family} route del {line}"));
    }
}
