//! The lab's clients: without NAT, changing their address, and simulated ones, with a stand-in gateway.
#![allow(clippy::unwrap_used)] // helpers of tests, too

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netns_lab::{Echo, Lab, WgKind, WgPeer, topology};

/// A lab whose gw1 serves, and its WireGuard.
fn served(builder: netns_lab::Builder) -> (Lab, WgPeer) {
    netns_lab::enter_user_namespace().unwrap();
    assert!(netns_lab::find_program("wireguard-go").is_some(), "install wireguard-go");
    let lab = builder.build().unwrap();
    let gw1 = lab.gateway(1);
    for (address, dev) in lab.floating_ips().iter().filter(|(a, _)| !a.contains(':')) {
        gw1.ip_batch(&format!("addr add {address} dev {dev}\n")).unwrap();
    }
    let gateway = WgPeer::start(gw1, WgKind::WireguardGo, &lab.wg0_conf()).unwrap();
    (lab, gateway)
}

/// Asks again and again: the first packet after a change of address may leave from the old one.
fn reaches_host(lab: &Lab, client: usize) {
    let to = topology::host().v4.into();
    let each = Duration::from_millis(500);
    netns_lab::reach(lab.client_node(client), to, each, Duration::from_secs(20)).unwrap();
}

/// Where the gateway sees client `number`.
fn seen(lab: &Lab, gateway: &WgPeer, number: usize) -> SocketAddr {
    let peers = gateway.peers().unwrap();
    let key = lab.keys().clients[number - 1].public_hex();
    peers.iter().find(|p| p.public_key == key).unwrap().endpoint.unwrap()
}

#[test]
fn a_client_roams_and_one_is_not_behind_the_nat() {
    let (lab, gateway) = served(Lab::builder().clients(2).direct(&[2]));
    // wireguard-go clings to its old address for 15 s.
    let _clients = [1, 2].map(|n| {
        let conf = lab.client_conf(n, false, 0);
        WgPeer::start(lab.client_node(n.into()), WgKind::Embedded, &conf).unwrap()
    });
    reaches_host(&lab, 1);
    reaches_host(&lab, 2);
    assert_eq!(seen(&lab, &gateway, 1).ip(), IpAddr::from(topology::router().v4));
    assert_eq!(seen(&lab, &gateway, 2).ip(), IpAddr::from(topology::client_net(2, 2).v4));
    for host in [3, 2] {
        lab.roam(2).unwrap();
        reaches_host(&lab, 2);
        assert_eq!(seen(&lab, &gateway, 2).ip(), IpAddr::from(topology::client_net(2, host).v4));
    }
}

#[test]
fn simulated_clients_have_addresses_of_their_own() {
    let (lab, gateway) = served(Lab::builder().nat(false).swarm(30));
    let _echo = Echo::start(lab.host(), topology::ECHO_PORT).unwrap();
    let mut swarm = lab.start_swarm(false, 100).unwrap();
    swarm.wait_all(Duration::from_secs(90)).unwrap();
    let sources: HashSet<IpAddr> =
        gateway.peers().unwrap().iter().filter_map(|p| Some(p.endpoint?.ip())).collect();
    assert_eq!(sources, (0..30).map(|n| topology::swarm_outer(n).into()).collect());
    let floating = Some(topology::endpoint(false));
    assert!(swarm.backs().iter().all(|b| b.endpoint == floating && b.handshake <= b.answered));

    // Nothing counts that was before.
    swarm.mark();
    assert!(swarm.wait_all(Duration::from_millis(300)).is_err());
    assert!(swarm.backs().iter().all(|b| b.answered.is_none() && b.endpoint == floating));
}

#[test]
fn simulated_clients_share_the_address_of_a_nat() {
    let (lab, gateway) = served(Lab::builder().swarm(30));
    let mut swarm = lab.start_swarm(true, 100).unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(60);
    let error = loop {
        let error = swarm.wait_all(Duration::from_secs(3)).unwrap_err().to_string();
        // A handshake that was lost is tried again after 5 s.
        if error.contains("(30 had") || std::time::Instant::now() > end {
            break error;
        }
    };
    assert!(error.contains("30 of 30 simulated clients are not back (30 had"), "{error}");
    // Now there is somebody who answers.
    let _echo = Echo::start(lab.host(), topology::ECHO_PORT).unwrap();
    swarm.wait_all(Duration::from_secs(90)).unwrap();
    let peers = gateway.peers().unwrap();
    let endpoints: HashSet<SocketAddr> = peers.iter().filter_map(|p| p.endpoint).collect();
    assert_eq!(endpoints.len(), 30, "a port each");
    assert!(endpoints.iter().all(|e| e.ip() == IpAddr::from(topology::router().v4)));
}
