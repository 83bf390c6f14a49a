//! A WireGuard backend against real peers, in network namespaces: staged is silent, up serves from
//! the floating IP, down forgets nothing, and a difference disturbs no session.
//!
//! `WGHA_TEST_BACKEND=kernel` drives the kernel's WireGuard instead of the embedded one. Needs root,
//! `ip`, `ping`, `wg`, and for the clients the kernel's WireGuard or `wireguard-go`.

// A helper's failure is the test's, which clippy sees in functions marked `test` alone.
#![allow(clippy::unwrap_used)]

mod net;

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use net::{CLIENT, FLOATING, Keys, Net, PORT, choice, enter, kernel, within};
use wgha::wireguard::conf::WgConf;
use wgha::wireguard::{Backend, DeviceState, Kick, Source, WgError, open, port};

/// Inner addresses.
const INNER: &str = "10.99.0.1";
const ALICE: &str = "10.99.0.2";
const BOB: &str = "10.99.0.3";

/// Runs the test in the gateway's namespace.
fn in_gateway(net: &Net, test: impl AsyncFnOnce(Box<dyn Backend>) + Send) {
    let body = || {
        enter(&net.gateway);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut backend = open(choice(), &net.interface).await.unwrap();
            backend.set_source(Source { v4: Some(FLOATING.parse().unwrap()), v6: None });
            test(backend).await;
        });
    };
    std::thread::scope(|s| s.spawn(body).join()).unwrap_or_else(|e| std::panic::resume_unwind(e));
}

/// The gateway's file. Each peer is (key, AllowedIPs, other lines).
fn conf(net: &Net, keys: &Keys, peers: &[(&str, &str, &str)]) -> WgConf {
    let mut text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {PORT}\nAddress = {INNER}/24\n",
        keys.private
    );
    for (key, allowed, more) in peers {
        text += &format!("[Peer]\nPublicKey = {key}\nAllowedIPs = {allowed}\n{more}\n");
    }
    WgConf::parse(&net.interface, &text).unwrap().conf
}

const UP: DeviceState = DeviceState { exists: true, up: true, staged: true };
const STAGED: DeviceState = DeviceState { exists: true, up: false, staged: true };

/// All peers get their keepalive at once, which a device that just came up does not have.
async fn keepalives(wg: &mut Box<dyn Backend>) {
    wg.live().settle();
    wg.up().await.unwrap();
}

/// Brings it up. A program that another test starts holds our closed sockets until it runs.
async fn up(wg: &mut Box<dyn Backend>) {
    let end = Instant::now() + Duration::from_secs(20);
    while let Err(e) = wg.up().await {
        assert!(matches!(e, WgError::PortTaken(_)) && Instant::now() < end, "{e}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Sockets on WireGuard's port in the namespace of this thread.
fn port_is_free() -> bool {
    port::is_free(PORT, Source::default()).unwrap()
}

/// Whether nothing arrives for this long, after what is there already.
fn quiet(socket: &UdpSocket, time: Duration) -> bool {
    socket.set_nonblocking(true).unwrap();
    while socket.recv(&mut [0; 2048]).is_ok() {}
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(time)).unwrap();
    match socket.recv(&mut [0; 2048]) {
        Ok(_) => false,
        Err(e) => matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn staged_is_silent_and_up_speaks_from_the_floating_ip() {
    let net = Net::new();
    net.add_floating();
    let socket = net.client_socket(4000);
    let keys = Keys::new();
    let more = format!("Endpoint = {CLIENT}:4000\nPersistentKeepalive = 1");
    let conf = conf(&net, &keys, &[(&Keys::new().public, "10.99.0.2/32, 10.98.0.0/16", &more)]);
    in_gateway(&net, async |mut wg| {
        assert!(!wg.state().await.unwrap().exists);
        wg.stage(&conf).await.unwrap();
        assert_eq!(wg.state().await.unwrap(), STAGED);
        assert!(port_is_free());
        assert!(quiet(&socket, Duration::from_millis(2500)), "a packet while staged");
        let link = net.ip(&net.gateway, &format!("address show dev {}", net.interface));
        assert!(!link.contains(INNER), "{link}");

        wg.up().await.unwrap();
        assert_eq!(wg.state().await.unwrap(), UP);
        assert!(!port_is_free());
        keepalives(&mut wg).await;
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut packet = [0; 2048];
        let (len, from) = socket.recv_from(&mut packet).expect("a handshake initiation");
        assert_eq!((len, packet[0]), (148, 1));
        assert_eq!(from.to_string(), format!("{FLOATING}:{PORT}"));
        let routes = net.ip(&net.gateway, "route show");
        assert!(routes.contains(&format!("10.98.0.0/16 dev {}", net.interface)), "{routes}");
        assert!(!routes.contains("10.99.0.2"), "covered by the address: {routes}");
        wg.up().await.unwrap();

        if !kernel() {
            let other = "10.77.0.11";
            net.ip(&net.gateway, &format!("address add {other}/32 dev gw0"));
            wg.set_source(Source { v4: Some(other.parse().unwrap()), v6: None });
            wg.up().await.unwrap();
            let from_other = || socket.recv_from(&mut packet).unwrap().1.ip().to_string() == other;
            assert!(within(Duration::from_secs(30), from_other));
        }

        wg.down().await.unwrap();
        assert_eq!(wg.state().await.unwrap(), STAGED);
        assert!(within(Duration::from_secs(20), port_is_free));
        assert!(quiet(&socket, Duration::from_millis(2500)), "a packet while down");
        assert!(!net.ip(&net.gateway, "route show").contains("10.98"));
        wg.down().await.unwrap();
        wg.delete().await.unwrap();
        assert!(!wg.state().await.unwrap().exists);
        assert!(!net.ip(&net.gateway, "link show").contains(&net.interface));
    });
}

#[test]
fn a_client_is_served_and_remembered() {
    let mut net = Net::new();
    net.add_floating();
    let (keys, alice) = (Keys::new(), Keys::new());
    let conf = conf(&net, &keys, &[(&alice.public, "10.99.0.2/32", "")]);
    let client = net.add_client(&alice, &keys.public, &[ALICE], 4001);
    in_gateway(&net, async |mut wg| {
        wg.stage(&conf).await.unwrap();
        assert!(!net.ping(&net.client, ALICE, INNER, 1));
        wg.up().await.unwrap();
        assert!(within(Duration::from_secs(20), || net.ping(&net.client, ALICE, INNER, 1)));
        let seen = wg.peers().await.unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].endpoint, Some(format!("{CLIENT}:4001").parse().unwrap()));
        let ago = seen[0].last_handshake.unwrap().elapsed().unwrap();
        assert!(ago < Duration::from_secs(25), "{ago:?}");
        let endpoint = net.wg(&net.client, &["show", &client, "endpoints"]);
        assert!(endpoint.ends_with(&format!("{FLOATING}:{PORT}")), "{endpoint}");

        for _ in 0..3 {
            wg.down().await.unwrap();
            assert_eq!(wg.state().await.unwrap(), STAGED);
            let kept = wg.peers().await.unwrap();
            assert_eq!(kept[0].endpoint, seen[0].endpoint);
            assert!(kept[0].last_handshake.is_some());
            up(&mut wg).await;
            // The gateway speaks first: it knows where the client is.
            assert!(within(Duration::from_secs(30), || net.ping(&net.gateway, INNER, ALICE, 1)));
        }
        assert!(within(Duration::from_secs(20), || net.ping(&net.client, ALICE, INNER, 1)));
    });
}

/// What the kick does: endpoints on the silent device, then handshakes with or without keepalive.
#[test]
fn a_kick_speaks_to_where_the_peer_was() {
    let net = Net::new();
    net.add_floating();
    let (with, without) = (net.client_socket(4001), net.client_socket(4002));
    let (keys, alice, bob) = (Keys::new(), Keys::new().public, Keys::new().public);
    let moved = format!("Endpoint = {CLIENT}:4000\nPersistentKeepalive = 25");
    let conf = conf(&net, &keys, &[(&alice, "10.99.0.2/32", &moved), (&bob, "10.99.0.3/32", "")]);
    let [alice, bob] = [0, 1].map(|n: usize| conf.peers[n].public_key.0);
    let at = |port: u16| (CLIENT.parse::<std::net::IpAddr>().unwrap(), port).into();
    let known = [(alice, at(4001)), (bob, at(4002)), ([7; 32], at(4003))];
    in_gateway(&net, async |mut wg| {
        assert!(wg.set_endpoints(&known).await.is_err(), "nothing is staged");
        wg.stage(&conf).await.unwrap();
        assert_eq!(wg.set_endpoints(&known).await.unwrap(), 2);
        assert_eq!(wg.set_endpoints(&known).await.unwrap(), 0, "they are there");
        assert_eq!(wg.state().await.unwrap(), STAGED);
        wg.up().await.unwrap();
        assert!(matches!(wg.set_endpoints(&known).await, Err(WgError::Up)));
        assert!(quiet(&with, Duration::from_secs(1)) && quiet(&without, Duration::from_millis(1)));
        let kick = |public_key, keepalive| Kick { public_key, keepalive, handshake: true };
        // The second time as if the first had been lost, long before WireGuard would try again by itself.
        for _ in 0..2 {
            wg.live().kick(&[kick(alice, 25), kick(bob, 0), kick([7; 32], 0)]).await.unwrap();
            for socket in [&with, &without] {
                socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
                let mut packet = [0; 2048];
                let (len, from) = socket.recv_from(&mut packet).expect("a handshake initiation");
                assert_eq!((len, packet[0]), (148, 1));
                assert_eq!(from.to_string(), format!("{FLOATING}:{PORT}"));
            }
            wg.live().settle();
            assert_eq!(wg.state().await.unwrap(), UP, "each has its keepalive");
            wg.forget_unanswered().await.unwrap();
            assert_eq!(wg.state().await.unwrap(), UP, "with its key");
        }
        wg.down().await.unwrap();
        wg.live().kick(&[kick(alice, 0), kick(bob, 0)]).await.unwrap();
        assert!(quiet(&with, Duration::from_secs(1)), "a kick that comes late is none");
        wg.stage(&conf).await.unwrap();
        assert_eq!(wg.state().await.unwrap(), STAGED);
        let endpoint = wg.peers().await.unwrap().into_iter().find(|p| p.public_key == alice);
        assert_eq!(endpoint.unwrap().endpoint, Some(at(4001)), "kept over down and stage");
    });
}

#[test]
fn wg_show_works() {
    let net = Net::new();
    net.add_floating();
    let (keys, alice) = (Keys::new(), Keys::new());
    let conf = conf(&net, &keys, &[(&alice.public, "10.99.0.2/32", "PersistentKeepalive = 25")]);
    in_gateway(&net, async |mut wg| {
        wg.stage(&conf).await.unwrap();
        let name = &net.interface;
        let shown = net.wg(&net.gateway, &["show", name]);
        assert!(shown.contains(&keys.public) && shown.contains(&alice.public), "{shown}");
        assert!(shown.contains("10.99.0.2/32") && shown.contains("51820"), "{shown}");
        assert!(!shown.contains("keepalive"), "staged peers have none: {shown}");
        wg.up().await.unwrap();
        let shown = net.wg(&net.gateway, &["show", name]);
        assert!(!shown.contains("keepalive"), "they come one by one: {shown}");
        assert_eq!(wg.state().await.unwrap(), UP);
        keepalives(&mut wg).await;
        let shown = net.wg(&net.gateway, &["show", name]);
        assert!(shown.contains("persistent keepalive: every 25 seconds"), "{shown}");
        if !kernel() {
            let set = ["wg", "set", name, "listen-port", "1"];
            let (ok, text) = net.exec(&net.gateway, &set);
            assert!(!ok && text.contains("Unable to modify"), "{text}");
            assert_eq!(wg.state().await.unwrap(), UP);
        }
        wg.delete().await.unwrap();
        assert!(!net.exec(&net.gateway, &["wg", "show", name]).0);
        assert!(!std::path::Path::new(&format!("/var/run/wireguard/{name}.sock")).exists());
    });
}

#[test]
fn a_difference_leaves_other_sessions_alone() {
    let mut net = Net::new();
    net.add_floating();
    let (keys, alice, bob, carol) = (Keys::new(), Keys::new(), Keys::new(), Keys::new());
    let moving = "10.99.0.9";
    let a = net.add_client(&alice, &keys.public, &[ALICE, moving], 4001);
    let b = net.add_client(&bob, &keys.public, &[BOB], 4002);
    let both = conf(
        &net,
        &keys,
        &[(&alice.public, "10.99.0.2/32", ""), (&bob.public, "10.99.0.3/32, 10.99.0.9/32", "")],
    );
    in_gateway(&net, async |mut wg| {
        wg.stage(&both).await.unwrap();
        wg.up().await.unwrap();
        let once = |to: &str| net.ping(&net.gateway, INNER, to, 1);
        let ping = |to: &str| within(Duration::from_secs(20), || once(to));
        assert!(within(Duration::from_secs(20), || net.ping(&net.client, ALICE, INNER, 1)));
        assert!(within(Duration::from_secs(20), || net.ping(&net.client, BOB, INNER, 1)));
        let handshake = |name: &str| net.wg(&net.client, &["show", name, "latest-handshakes"]);
        let before = (handshake(&a), handshake(&b));

        // One more peer, and a prefix that moves.
        let moved = conf(
            &net,
            &keys,
            &[
                (&bob.public, "10.99.0.3/32", ""),
                (&alice.public, "10.99.0.2/32, 10.99.0.9/32", ""),
                (&carol.public, "10.97.0.0/16", ""),
            ],
        );
        wg.stage(&moved).await.unwrap();
        assert_eq!(wg.state().await.unwrap(), UP);
        assert!(ping(ALICE) && ping(BOB), "a session was lost");
        assert!(ping(moving), "the prefix did not move");
        assert!(net.ip(&net.gateway, "route show").contains("10.97.0.0/16"));
        assert_eq!((handshake(&a), handshake(&b)), before);

        // The former owner changes once more: it must not take the prefix back.
        let changed = conf(
            &net,
            &keys,
            &[
                (&bob.public, "10.99.0.3/32, 10.99.0.4/32", ""),
                (&alice.public, "10.99.0.2/32, 10.99.0.9/32", ""),
            ],
        );
        wg.stage(&changed).await.unwrap();
        assert!(ping(moving) && ping(BOB));
        assert!(!net.ip(&net.gateway, "route show").contains("10.97.0.0/16"));
        assert_eq!(wg.peers().await.unwrap().len(), 2);

        // One peer goes, the other does not notice.
        let one = conf(&net, &keys, &[(&alice.public, "10.99.0.2/32, 10.99.0.9/32", "")]);
        wg.stage(&one).await.unwrap();
        assert!(ping(ALICE) && !once(BOB));
        assert_eq!(handshake(&a), before.0);
        assert_eq!(wg.state().await.unwrap(), UP);
    });
}

#[test]
fn peers_added_to_an_empty_device_that_is_up() {
    let mut net = Net::new();
    net.add_floating();
    let (keys, alice) = (Keys::new(), Keys::new());
    net.add_client(&alice, &keys.public, &[ALICE], 4001);
    in_gateway(&net, async |mut wg| {
        wg.stage(&conf(&net, &keys, &[])).await.unwrap();
        wg.up().await.unwrap();
        wg.stage(&conf(&net, &keys, &[(&alice.public, "10.99.0.2/32", "")])).await.unwrap();
        assert_eq!(wg.state().await.unwrap(), UP);
        assert!(within(Duration::from_secs(20), || net.ping(&net.client, ALICE, INNER, 1)));
    });
}

#[test]
fn a_new_key_and_port_on_a_device_that_is_up() {
    let net = Net::new();
    net.add_floating();
    let (keys, other, alice) = (Keys::new(), Keys::new(), Keys::new());
    in_gateway(&net, async |mut wg| {
        let before = conf(&net, &keys, &[(&alice.public, "10.99.0.2/32", "")]);
        wg.stage(&before).await.unwrap();
        wg.up().await.unwrap();
        let mut after = conf(&net, &other, &[(&alice.public, "10.99.0.2/32", "")]);
        after.listen_port = PORT + 1;
        after.fwmark = 7;
        after.mtu = 1380;
        wg.stage(&after).await.unwrap();
        assert_eq!(wg.state().await.unwrap(), UP);
        assert!(!port::is_free(PORT + 1, Source::default()).unwrap());
        // The embedded engine's tasks let go of their old sockets in their own time.
        assert!(within(Duration::from_secs(20), port_is_free));
        let shown = net.wg(&net.gateway, &["show", &net.interface]);
        assert!(shown.contains(&other.public) && shown.contains("51821"), "{shown}");
        assert!(shown.contains("fwmark: 0x7"), "{shown}");
        let link = net.ip(&net.gateway, &format!("link show {}", net.interface));
        assert!(link.contains("mtu 1380"), "{link}");
    });
}

#[test]
fn a_taken_port_is_named() {
    let net = Net::new();
    net.add_floating();
    let keys = Keys::new();
    let conf = conf(&net, &keys, &[(&Keys::new().public, "10.99.0.2/32", "")]);
    in_gateway(&net, async |mut wg| {
        wg.stage(&conf).await.unwrap();
        let other = UdpSocket::bind((FLOATING, PORT)).unwrap();
        assert!(!port_is_free());
        let e = wg.up().await.unwrap_err();
        assert!(matches!(e, WgError::PortTaken(PORT)), "{e}");
        assert_eq!(wg.state().await.unwrap(), STAGED);
        drop(other);
        up(&mut wg).await;
        assert_eq!(wg.state().await.unwrap(), UP);
    });
}

#[test]
fn a_port_is_reserved_beside_others() {
    let net = Net::new();
    in_gateway(&net, async |_| {
        let path = "/proc/sys/net/ipv4/ip_local_reserved_ports";
        std::fs::write(path, "8080,9000-9010").unwrap();
        port::reserve(PORT).unwrap();
        port::reserve(9005).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap().trim(), "8080,9000-9010,51820");
        // Instances that start and end together: each list is written whole, from what was read before.
        std::fs::write(path, "\n").unwrap();
        let turns = move |port| {
            for turn in 0..500 {
                port::reserve(port).unwrap();
                for _ in 0..3 {
                    let list = std::fs::read_to_string(path).unwrap();
                    let is = port::is_reserved(list.trim(), port);
                    assert!(is, "turn {turn}: {port} is not in {list}");
                }
                port::unreserve(port).unwrap();
            }
        };
        let instances = [1001, 1003, 1005].map(|port| std::thread::spawn(move || turns(port)));
        instances.into_iter().for_each(|instance| instance.join().unwrap());
    });
}

#[test]
fn a_device_of_another_kind_is_left_alone() {
    let net = Net::new();
    let keys = Keys::new();
    net.ip(&net.gateway, &format!("link add {} type bridge", net.interface));
    net.ip(&net.gateway, &format!("link set {} up", net.interface));
    in_gateway(&net, async |mut wg| {
        let e = wg.stage(&conf(&net, &keys, &[])).await.unwrap_err();
        assert!(matches!(e, WgError::WrongKind { .. }), "{e}");
        assert!(e.to_string().contains("bridge"), "{e}");
        assert!(wg.up().await.is_err());
        // Nothing of ours speaks through it, so a gateway that gives the role up is done with it.
        wg.down().await.unwrap();
    });
    assert!(net.ip(&net.gateway, "link show up type bridge").contains(&net.interface));
}

#[test]
fn a_route_that_goes_elsewhere_is_named() {
    let net = Net::new();
    net.add_floating();
    net.ip(&net.gateway, "route add 10.98.0.0/16 dev gw0 scope link");
    let keys = Keys::new();
    let conf = conf(&net, &keys, &[(&Keys::new().public, "10.98.0.0/16", "")]);
    in_gateway(&net, async |mut wg| {
        wg.stage(&conf).await.unwrap();
        let e = wg.up().await.unwrap_err();
        assert!(matches!(e, WgError::RouteTaken(_)), "{e}");
        wg.down().await.unwrap();
        assert_eq!(wg.state().await.unwrap(), STAGED);
    });
    assert!(net.ip(&net.gateway, "route show").contains("10.98.0.0/16 dev gw0"));
}

#[test]
fn what_others_remove_is_put_back() {
    let net = Net::new();
    net.add_floating();
    let keys = Keys::new();
    let conf = conf(&net, &keys, &[(&Keys::new().public, "10.98.0.0/16", "")]);
    in_gateway(&net, async |mut wg| {
        wg.stage(&conf).await.unwrap();
        wg.up().await.unwrap();
        let name = &net.interface;
        net.ip(&net.gateway, &format!("route del 10.98.0.0/16 dev {name}"));
        net.ip(&net.gateway, &format!("address del {INNER}/24 dev {name}"));
        wg.up().await.unwrap();
        assert!(net.ip(&net.gateway, "route show").contains("10.98.0.0/16"));
        assert!(net.ip(&net.gateway, "address show").contains(INNER));
        net.ip(&net.gateway, &format!("link set {name} down"));
        wg.up().await.unwrap();
        assert_eq!(wg.state().await.unwrap(), UP);
        assert!(net.ip(&net.gateway, "route show").contains("10.98.0.0/16"));

        net.ip(&net.gateway, &format!("link del {name}"));
        if !kernel() {
            let mut failure = wg.failure();
            let failed = failure.wait_for(Option::is_some);
            tokio::time::timeout(Duration::from_secs(60), failed)
                .await
                .expect("a failure")
                .unwrap();
        }
        assert!(!wg.state().await.unwrap().exists);
        assert!(matches!(wg.peers().await, Err(WgError::NotStaged)), "no device knows of no peer");
        assert!(matches!(wg.up().await, Err(WgError::NotStaged)));
        wg.stage(&conf).await.unwrap();
        assert_eq!(wg.state().await.unwrap(), STAGED);
        assert_eq!(*wg.failure().borrow(), None);
        wg.up().await.unwrap();
        assert_eq!(wg.state().await.unwrap(), UP);
    });
}

/// An earlier run of the kernel backend ended without a word: its device is taken over.
#[test]
fn a_device_left_over() {
    let net = Net::new();
    net.add_floating();
    let (keys, alice) = (Keys::new(), Keys::new());
    let conf = conf(&net, &keys, &[(&alice.public, "10.99.0.2/32", "Endpoint = 10.77.0.99:9")]);
    let learned = format!("{CLIENT}:4321");
    in_gateway(&net, async |mut first| {
        first.stage(&conf).await.unwrap();
        first.up().await.unwrap();
        let mut second = open(choice(), &net.interface).await.unwrap();
        if kernel() {
            let set = ["set", &net.interface, "peer", &alice.public, "endpoint", &learned];
            net.wg(&net.gateway, &set);
            drop(first);
            second.stage(&conf).await.unwrap();
            assert_eq!(second.state().await.unwrap(), STAGED);
            let peers = second.peers().await.unwrap();
            assert_eq!(peers[0].endpoint, Some(learned.parse().unwrap()));
        } else {
            // A TUN device ends with its program; while that lives, nobody else has it.
            let e = second.stage(&conf).await.unwrap_err();
            assert!(e.to_string().contains("busy"), "{e}");
            drop(first);
            let staged = async || second.stage(&conf).await.is_ok();
            let mut staged = staged;
            for _ in 0..300 {
                if staged().await {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(second.state().await.unwrap(), STAGED);
        }
    });
}

#[test]
fn both_families_from_their_floating_ips() {
    let net = Net::new();
    net.add_floating();
    let (own, floating, client) = ("fd77::2", "fd77::10", "fd77::100");
    net.ip(&net.gateway, &format!("address add {own}/64 dev gw0 nodad"));
    net.ip(&net.gateway, &format!("address add {floating}/128 dev gw0 nodad preferred_lft 0"));
    net.ip(&net.client, &format!("address add {client}/64 dev cl0 nodad"));
    if kernel() {
        net.ip(&net.gateway, &format!("route add {client} dev gw0 src {floating}"));
    }
    let v4 = net.client_socket(4000);
    let v6 = net.socket(&net.client, client, 4000);
    let (v4_end, v6_end) = (
        format!("Endpoint = {CLIENT}:4000\nPersistentKeepalive = 1"),
        format!("Endpoint = [{client}]:4000\nPersistentKeepalive = 1"),
    );
    let (keys, one, other) = (Keys::new(), Keys::new().public, Keys::new().public);
    let conf =
        conf(&net, &keys, &[(&one, "10.99.0.2/32", &v4_end), (&other, "fd99::2/128", &v6_end)]);
    in_gateway(&net, async |mut wg| {
        let (v4_source, v6_source) = (FLOATING.parse().unwrap(), floating.parse().unwrap());
        wg.set_source([v4_source, v6_source].into_iter().collect());
        wg.stage(&conf).await.unwrap();
        wg.up().await.unwrap();
        keepalives(&mut wg).await;
        for (socket, address) in [(&v4, FLOATING), (&v6, floating)] {
            socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let (len, from) = socket.recv_from(&mut [0; 2048]).expect(address);
            assert_eq!((len, from.ip().to_string(), from.port()), (148, address.to_owned(), PORT));
        }
        let routes = net.ip(&net.gateway, "-6 route show");
        assert!(routes.contains(&format!("fd99::2 dev {}", net.interface)), "{routes}");
        wg.up().await.unwrap();
    });
}

/// More than one message holds, either way, and a peer that spans several.
#[test]
fn many_peers() {
    let net = Net::new();
    net.add_floating();
    let keys = Keys::new();
    // The kernel's has no limit; the lab's emulated machine does.
    let count: u32 = if kernel() { 1_500 } else { 1_000 };
    let mut conf = conf(&net, &keys, &[]);
    for n in 0..count {
        let mut public_key = [9; 32];
        public_key[..4].copy_from_slice(&n.to_be_bytes());
        let prefix = |n: u32| ipnet::Ipv4Net::new(n.into(), 32).unwrap().into();
        let first = 0x0a63_0000 + n;
        let more = if n == 7 { 0x0a70_0000..0x0a70_0000 + 900 } else { 0..0 };
        conf.peers.push(wgha::wireguard::conf::Peer {
            public_key: wgha::wireguard::key::PublicKey(public_key),
            preshared_key: None,
            allowed_ips: std::iter::once(first).chain(more).map(prefix).collect(),
            endpoint: None,
            // Each starts a handshake, whose arithmetic an emulated machine feels.
            keepalive: if n % 50 == 0 { 25 } else { 0 },
        });
    }
    in_gateway(&net, async |mut wg| {
        let mut start = std::time::Instant::now();
        let mut lap = |what: &str| {
            println!("{count} peers: {what} took {} ms", start.elapsed().as_millis());
            start = std::time::Instant::now();
        };
        wg.stage(&conf).await.unwrap();
        lap("stage");
        assert_eq!(wg.state().await.unwrap(), STAGED);
        assert_eq!(wg.peers().await.unwrap().len(), usize::try_from(count).unwrap());
        lap("read");
        wg.up().await.unwrap();
        lap("up");
        wg.up().await.unwrap();
        lap("up again");
        assert_eq!(wg.state().await.unwrap(), UP);
        conf.peers.truncate(10);
        lap("read");
        wg.stage(&conf).await.unwrap();
        lap("stage 10 of them");
        assert_eq!(wg.state().await.unwrap(), UP);
        wg.down().await.unwrap();
        assert_eq!(wg.state().await.unwrap(), STAGED);
        lap("down");
    });
}
