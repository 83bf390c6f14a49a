//! From a change to messages that the kernel takes whole.

use ipnet::IpNet;
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute,
    WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};

use super::super::key::KEY_LEN;
use super::super::plan::{Action, Change, Fields, PeerChange};

/// Attributes of one message, in bytes. The kernel takes what `wg` sends: a page times four.
const MESSAGE: usize = 15_000;

/// What an attribute's header and padding may add, and the largest of each part (see
/// `netlink_packet_wireguard`), in bytes.
const PEER_COST: usize = 160;
const PREFIX_COST: usize = 44;

/// A change as attributes of messages that the kernel takes whole.
pub(super) fn messages(interface: &str, change: &Change) -> Vec<Vec<WireguardAttribute>> {
    if change.is_empty() {
        return Vec::new();
    }
    let name = || WireguardAttribute::IfName(interface.to_owned());
    let mut first = vec![name()];
    first.extend(change.private_key.as_ref().map(|k| WireguardAttribute::PrivateKey(*k.expose())));
    first.extend(change.listen_port.map(WireguardAttribute::ListenPort));
    first.extend(change.fwmark.map(WireguardAttribute::Fwmark));

    let mut messages = Vec::new();
    let mut peers = Vec::new();
    let mut size = 0;
    for (cost, part) in change.peers.iter().flat_map(peer_parts) {
        if size + cost > MESSAGE && !peers.is_empty() {
            let mut message = std::mem::replace(&mut first, vec![name()]);
            message.push(WireguardAttribute::Peers(std::mem::take(&mut peers)));
            messages.push(message);
            size = 0;
        }
        size += cost;
        peers.push(part);
    }
    if !peers.is_empty() {
        first.push(WireguardAttribute::Peers(peers));
    }
    // Nothing but the name: all went out with the messages before.
    if first.len() > 1 {
        messages.push(first);
    }
    messages
}

/// One peer's change as parts that each fit into a message, with their cost in bytes.
pub(super) fn peer_parts(change: &PeerChange) -> Vec<(usize, WireguardPeer)> {
    let key = || WireguardPeerAttribute::PublicKey(change.public_key.0);
    let (flags, fields) = match &change.action {
        Action::Remove => {
            // A peer that vanished meanwhile must not be created in order to be removed.
            let flags = WireguardPeerFlags::RemoveMe | WireguardPeerFlags::UpdateOnly;
            let part = WireguardPeer(vec![key(), WireguardPeerAttribute::Flags(flags)]);
            return vec![(PEER_COST, part)];
        }
        Action::Add(fields) => (WireguardPeerFlags::empty(), fields),
        Action::Update(fields) => (WireguardPeerFlags::UpdateOnly, fields),
    };
    let room = (MESSAGE - PEER_COST) / PREFIX_COST;
    let mut chunks = fields.allowed_ips.chunks(room);
    let head = chunks.next().unwrap_or_default();
    let mut parts = vec![(cost(head), head_part(key(), flags, fields, head))];
    for chunk in chunks {
        // Never REPLACE_ALLOWEDIPS here: it would drop what the parts before have given.
        let flags = WireguardPeerAttribute::Flags(WireguardPeerFlags::UpdateOnly);
        parts.push((cost(chunk), WireguardPeer(vec![key(), flags, allowed(chunk)])));
    }
    parts
}

fn head_part(
    key: WireguardPeerAttribute,
    mut flags: WireguardPeerFlags,
    fields: &Fields,
    prefixes: &[IpNet],
) -> WireguardPeer {
    let mut attributes = vec![key];
    if fields.replace_allowed_ips {
        flags |= WireguardPeerFlags::ReplaceAllowedIps;
    }
    if !flags.is_empty() {
        attributes.push(WireguardPeerAttribute::Flags(flags));
    }
    if let Some(psk) = &fields.preshared_key {
        let bytes = psk.as_ref().map_or([0; KEY_LEN], |key| *key.expose());
        attributes.push(WireguardPeerAttribute::PresharedKey(bytes));
    }
    attributes.extend(fields.endpoint.map(WireguardPeerAttribute::Endpoint));
    attributes.extend(fields.keepalive.map(WireguardPeerAttribute::PersistentKeepalive));
    if !prefixes.is_empty() {
        attributes.push(allowed(prefixes));
    }
    WireguardPeer(attributes)
}

const fn cost(prefixes: &[IpNet]) -> usize {
    PEER_COST + prefixes.len() * PREFIX_COST
}

fn allowed(prefixes: &[IpNet]) -> WireguardPeerAttribute {
    let one = |net: &IpNet| {
        let family = match net {
            IpNet::V4(_) => WireguardAddressFamily::Ipv4,
            IpNet::V6(_) => WireguardAddressFamily::Ipv6,
        };
        WireguardAllowedIp(vec![
            WireguardAllowedIpAttr::Family(family),
            WireguardAllowedIpAttr::IpAddr(net.addr()),
            WireguardAllowedIpAttr::Cidr(net.prefix_len()),
        ])
    };
    WireguardPeerAttribute::AllowedIps(prefixes.iter().map(one).collect())
}
