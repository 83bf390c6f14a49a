//! Two and three gateways on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use wgha_proto::Keyring;

use super::*;
use crate::wireguard::PeerState;
use crate::wireguard::key::PublicKey;

/// A port of this loopback address that nobody has.
fn address(ip: [u8; 4]) -> SocketAddr {
    let listener = std::net::TcpListener::bind(SocketAddr::from((ip, 0))).unwrap();
    listener.local_addr().unwrap()
}

fn node(name: &str, address: SocketAddr) -> config::Node {
    let addresses = vec![config::NodeAddress { send: address, bind: address }];
    config::Node { name: name.to_owned(), addresses, priority: 100, witness: false }
}

fn settings(nodes: &[config::Node], me: usize, key: u8) -> Settings {
    Settings {
        cluster: "edge".to_owned(),
        me: nodes[me].name.clone(),
        addresses: nodes[me].addresses.clone(),
        peers: nodes.iter().filter(|n| n.name != nodes[me].name).cloned().collect(),
        secrets: Keyring::generate(1, [key; 32]).derive(channel::PURPOSE),
    }
}

struct Gateway {
    handle: Handle,
    endpoints: Endpoints,
    _dir: tempfile::TempDir,
}

fn gateway(settings: Settings) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::default();
    let state = Arc::new(StateDir::open(dir.path()).unwrap());
    let hub = files::Hub::unattended();
    let handle = start(settings, endpoints.clone(), hub, state).unwrap();
    Gateway { handle, endpoints, _dir: dir }
}

fn publish(gateway: &Gateway, term: u64, port: u16) {
    let peer = PeerState {
        public_key: [1; 32],
        endpoint: Some(([192, 0, 2, 1], port).into()),
        last_handshake: None,
        received: 0,
    };
    gateway.endpoints.begin("wg0", term);
    gateway.endpoints.publish("wg0", term, &[peer]);
}

fn knows(gateway: &Gateway, port: u16) -> bool {
    let table = gateway.endpoints.look("wg0");
    let known = table.peers.get(&PublicKey([1; 32])).and_then(|known| known.endpoint);
    known == Some(([192, 0, 2, 1], port).into()) && table.age().is_some()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

#[test]
fn what_the_master_knows_reaches_the_other_in_both_directions() {
    let nodes = [node("a", address([127, 0, 61, 1])), node("b", address([127, 0, 61, 2]))];
    let (a, b) = (gateway(settings(&nodes, 0, 1)), gateway(settings(&nodes, 1, 1)));
    publish(&a, 1, 7);
    eventually("b follows", || knows(&b, 7));
    publish(&a, 1, 8);
    eventually("b follows a difference", || knows(&b, 8));
    assert_eq!(a.handle.view().connected.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(b.handle.view().connected.keys().collect::<Vec<_>>(), ["a"]);
    a.endpoints.end("wg0");
    publish(&b, 2, 9);
    eventually("a follows", || knows(&a, 9));
}

#[test]
fn who_was_master_when_it_was_told_is_told_again() {
    let nodes = [node("a", address([127, 0, 61, 9])), node("b", address([127, 0, 61, 10]))];
    let (a, b) = (gateway(settings(&nodes, 0, 1)), gateway(settings(&nodes, 1, 1)));
    eventually("connected", || b.handle.view().connected.contains_key("a"));
    publish(&b, 1, 5);
    publish(&a, 2, 7);
    // Time for b to hear it, and to know better.
    std::thread::sleep(Duration::from_millis(200));
    b.endpoints.end("wg0");
    publish(&a, 2, 8);
    eventually("b has the whole", || b.endpoints.look("wg0").origin == endpoints::Origin::Master);
    // The whole may be that of the moment before.
    eventually("b follows", || knows(&b, 8));
}

#[test]
fn a_gateway_that_was_away_gets_everything_again() {
    let nodes = [node("a", address([127, 0, 61, 3])), node("b", address([127, 0, 61, 4]))];
    let a = gateway(settings(&nodes, 0, 1));
    publish(&a, 1, 7);
    for port in [7, 8] {
        publish(&a, 1, port);
        let b = gateway(settings(&nodes, 1, 1));
        eventually("b follows", || knows(&b, port));
        drop(b);
        eventually("a sees that b is gone", || a.handle.view().connected.is_empty());
    }
}

#[test]
fn other_keys_and_new_settings() {
    let nodes = [node("a", address([127, 0, 61, 5])), node("b", address([127, 0, 61, 6]))];
    let (a, b) = (gateway(settings(&nodes, 0, 1)), gateway(settings(&nodes, 1, 2)));
    publish(&a, 1, 7);
    let refused = |g: &Gateway| g.handle.view().refusals.get("sync_handshake").copied();
    eventually("b refuses", || refused(&b).is_some());
    assert!(!knows(&b, 7) && b.handle.view().connected.is_empty());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(b.handle.reconfigure(settings(&nodes, 1, 1)));
    eventually("b follows", || knows(&b, 7));
}

#[test]
fn a_new_connection_of_a_gateway_replaces_its_old_one() {
    let nodes = [node("a", address([127, 0, 61, 7])), node("b", address([127, 0, 61, 8]))];
    let b = gateway(settings(&nodes, 1, 1));
    let old = gateway(settings(&nodes, 0, 1));
    eventually("connected", || b.handle.view().connected.contains_key("a"));
    // The old one still stands when the new one comes, as after a cut that nobody noticed.
    let new = gateway(settings(&nodes, 0, 1));
    publish(&new, 5, 7);
    eventually("b follows the new one", || knows(&b, 7));
    drop(old);
    publish(&new, 5, 8);
    eventually("b still follows it", || knows(&b, 8));
}

#[test]
fn strangers_are_bounded() {
    let sessions = listen::Sessions::default();
    let address = |n: u8| std::net::IpAddr::from([192, 0, 2, n]);
    let mut admitted: Vec<_> = (0..4).map(|_| sessions.admit(address(1)).unwrap()).collect();
    assert!(sessions.admit(address(1)).is_none(), "one address");
    for n in 2..5 {
        admitted.extend((0..4).map(|_| sessions.admit(address(n)).unwrap()));
    }
    assert!(sessions.admit(address(9)).is_none(), "all together");
    admitted.pop();
    assert!(sessions.admit(address(9)).is_some());
}
