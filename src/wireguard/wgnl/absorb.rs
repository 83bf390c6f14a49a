//! From messages of a dump to a device.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use ipnet::IpNet;
use netlink_packet_wireguard::{
    WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardMessage,
    WireguardPeer, WireguardPeerAttribute, WireguardTimeSpec,
};

use super::super::key::{PublicKey, SecretKey};
use super::super::plan::{Device, DevicePeer};

/// Takes one message of a dump in.
pub(super) fn absorb(device: &mut Device, part: WireguardMessage) {
    for attribute in part.attributes {
        match attribute {
            WireguardAttribute::PublicKey(key) => device.public_key = Some(PublicKey(key)),
            WireguardAttribute::ListenPort(port) => device.listen_port = port,
            WireguardAttribute::Fwmark(mark) => device.fwmark = mark,
            WireguardAttribute::Peers(peers) => {
                for peer in peers {
                    absorb_peer(&mut device.peers, peer);
                }
            }
            _ => {}
        }
    }
}

/// A peer with many prefixes spans messages: each has its key and some of its prefixes.
fn absorb_peer(peers: &mut Vec<DevicePeer>, part: WireguardPeer) {
    let key = part.0.iter().find_map(|attribute| match attribute {
        WireguardPeerAttribute::PublicKey(key) => Some(PublicKey(*key)),
        _ => None,
    });
    let Some(public_key) = key else { return };
    if peers.last().is_none_or(|last| last.public_key != public_key) {
        peers.push(DevicePeer {
            public_key,
            preshared_key: None,
            endpoint: None,
            keepalive: 0,
            allowed_ips: BTreeSet::new(),
            last_handshake: None,
            received: 0,
        });
    }
    let Some(peer) = peers.last_mut() else { return };
    for attribute in part.0 {
        match attribute {
            WireguardPeerAttribute::PresharedKey(key) => {
                let key = SecretKey::new(key);
                peer.preshared_key = (!key.is_zero()).then_some(key);
            }
            WireguardPeerAttribute::Endpoint(endpoint) => peer.endpoint = Some(endpoint),
            WireguardPeerAttribute::PersistentKeepalive(seconds) => peer.keepalive = seconds,
            WireguardPeerAttribute::LastHandshake(time) => peer.last_handshake = wall_time(time),
            WireguardPeerAttribute::RxBytes(bytes) => peer.received = bytes,
            WireguardPeerAttribute::AllowedIps(list) => {
                peer.allowed_ips.extend(list.iter().filter_map(prefix));
            }
            _ => {}
        }
    }
}

/// Zero is never.
pub(super) fn wall_time(time: WireguardTimeSpec) -> Option<std::time::SystemTime> {
    let seconds = u64::try_from(time.seconds).ok()?;
    let nanos = u32::try_from(time.nano_seconds).ok()?;
    if seconds == 0 && nanos == 0 {
        return None;
    }
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

fn prefix(allowed: &WireguardAllowedIp) -> Option<IpNet> {
    let mut address = None;
    let mut length = None;
    for attribute in &allowed.0 {
        match attribute {
            WireguardAllowedIpAttr::IpAddr(ip) => address = Some(*ip),
            WireguardAllowedIpAttr::Cidr(bits) => length = Some(*bits),
            _ => {}
        }
    }
    IpNet::new(address?, length?).ok()
}
