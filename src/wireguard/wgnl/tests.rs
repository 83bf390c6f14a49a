use std::time::UNIX_EPOCH;

use ipnet::IpNet;
use netlink_packet_core::Emitable as _;
use netlink_packet_wireguard::{
    WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags, WireguardTimeSpec,
};

use super::super::key::{PublicKey, SecretKey};
use super::super::plan::{Action, Fields, PeerChange};
use super::absorb::wall_time;
use super::messages::peer_parts;
use super::*;

fn fields(prefixes: usize) -> Fields {
    let net = |n: usize| IpNet::new(std::net::Ipv6Addr::from(n as u128).into(), 128).unwrap();
    Fields {
        preshared_key: Some(Some(SecretKey::new([5; 32]))),
        endpoint: Some("[2001:db8::1]:51820".parse().unwrap()),
        keepalive: Some(25),
        replace_allowed_ips: true,
        allowed_ips: (0..prefixes).map(net).collect(),
    }
}

fn change(peers: usize, prefixes: usize) -> Change {
    let key = |n: usize| {
        let mut key = [1; 32];
        key[..8].copy_from_slice(&(n as u64).to_be_bytes());
        PublicKey(key)
    };
    let peer = |n| PeerChange { public_key: key(n), action: Action::Update(fields(prefixes)) };
    Change {
        private_key: Some(SecretKey::new([2; 32])),
        listen_port: Some(51820),
        fwmark: Some(1),
        peers: (0..peers).map(peer).collect(),
    }
}

fn peers(message: &[WireguardAttribute]) -> Vec<WireguardPeer> {
    let lists = message.iter().filter_map(|a| match a {
        WireguardAttribute::Peers(peers) => Some(peers.clone()),
        _ => None,
    });
    lists.flatten().collect()
}

fn flags(peer: &WireguardPeer) -> WireguardPeerFlags {
    let flags = peer.0.iter().find_map(|a| match a {
        WireguardPeerAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    flags.unwrap_or(WireguardPeerFlags::empty())
}

#[test]
fn every_message_is_small_and_names_the_device() {
    for (n, prefixes) in [(1, 0), (3, 900), (500, 1), (2000, 2)] {
        let messages = messages("wg0", &change(n, prefixes));
        for message in &messages {
            let size = message.as_slice().buffer_len();
            assert!(size < 16 * 1024, "{size} bytes");
            assert_eq!(message[0], WireguardAttribute::IfName("wg0".to_owned()));
        }
        assert!(n < 500 || messages.len() > 4);
    }
}

#[test]
fn key_port_and_mark_go_once_and_first() {
    let messages = messages("wg0", &change(500, 1));
    let has =
        |m: &[WireguardAttribute]| m.iter().any(|a| matches!(a, WireguardAttribute::PrivateKey(_)));
    assert!(has(&messages[0]) && !messages[1..].iter().any(|m| has(m)));
}

#[test]
fn peers_are_never_replaced() {
    for message in messages("wg0", &change(500, 3)) {
        assert!(!message.iter().any(|a| matches!(a, WireguardAttribute::Flags(_))));
    }
}

#[test]
fn a_peer_over_several_messages_drops_its_prefixes_once() {
    let messages = messages("wg0", &change(1, 1000));
    let parts: Vec<_> = messages.iter().flat_map(|m| peers(m)).collect();
    assert!(parts.len() > 2);
    let replaces = |p: &WireguardPeer| flags(p).contains(WireguardPeerFlags::ReplaceAllowedIps);
    assert!(replaces(&parts[0]) && !parts[1..].iter().any(replaces));
    assert!(parts.iter().all(|p| flags(p).contains(WireguardPeerFlags::UpdateOnly)));

    // Read back as the kernel would say it.
    let mut device = Device::default();
    for message in messages {
        let cmd = WireguardCmd::GetDevice;
        absorb(&mut device, WireguardMessage { cmd, attributes: message });
    }
    let [peer] = &device.peers[..] else { panic!("one peer") };
    assert_eq!(peer.allowed_ips.len(), 1000);
    assert_eq!((peer.keepalive, peer.endpoint), (25, fields(0).endpoint));
    assert_eq!(peer.preshared_key, Some(SecretKey::new([5; 32])));
    assert_eq!((device.listen_port, device.fwmark), (51820, 1));
}

#[test]
fn actions_by_their_flags() {
    let of = |action| {
        let change = PeerChange { public_key: PublicKey([3; 32]), action };
        flags(&peer_parts(&change)[0].1)
    };
    let update = WireguardPeerFlags::UpdateOnly;
    assert_eq!(of(Action::Remove), WireguardPeerFlags::RemoveMe | update);
    assert_eq!(of(Action::Add(Fields::default())), WireguardPeerFlags::empty());
    assert_eq!(of(Action::Update(Fields::default())), update);
}

#[test]
fn a_key_taken_away_is_sent_as_zeros() {
    let fields = Fields { preshared_key: Some(None), ..Fields::default() };
    let change = PeerChange { public_key: PublicKey([3; 32]), action: Action::Update(fields) };
    let part = &peer_parts(&change)[0].1;
    assert!(part.0.contains(&WireguardPeerAttribute::PresharedKey([0; 32])));
}

#[test]
fn nothing_to_change_is_no_message() {
    assert!(messages("wg0", &Change::default()).is_empty());
}

#[test]
fn no_handshake_is_not_1970() {
    assert_eq!(wall_time(WireguardTimeSpec { seconds: 0, nano_seconds: 0 }), None);
    let at = wall_time(WireguardTimeSpec { seconds: 1, nano_seconds: 5 });
    assert_eq!(at, Some(UNIX_EPOCH + Duration::new(1, 5)));
}
