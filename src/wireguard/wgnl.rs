//! The kernel's WireGuard over generic netlink: reading a device, setting differences.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::StreamExt as _;
use genetlink::{GenetlinkError, GenetlinkHandle};
use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_generic::GenlMessage;
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute,
    WireguardCmd, WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
    WireguardTimeSpec,
};

use super::key::{KEY_LEN, PublicKey, SecretKey};
use super::plan::{Action, Change, Device, DevicePeer, Fields, PeerChange};

/// Longest wait for one answer, and for a whole dump.
const ANSWER: Duration = Duration::from_secs(10);

/// A dump during which the device changed is read again, at most this often.
const DUMPS: usize = 10;

/// Attributes of one message, in bytes. The kernel takes what `wg` sends: a page times four.
const MESSAGE: usize = 15_000;

/// What an attribute's header and padding may add, and the largest of each part (see
/// `netlink_packet_wireguard`), in bytes.
const PEER_COST: usize = 160;
const PREFIX_COST: usize = 44;

/// A generic netlink socket.
pub(super) struct Wgnl {
    handle: GenetlinkHandle,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Wgnl {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Wgnl {
    /// Opens a socket in the network namespace of this thread.
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _) = genetlink::new_connection()?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// Whether the kernel knows WireGuard; the question loads the module.
    pub(super) async fn available(&self) -> bool {
        let family = self.handle.resolve_family::<WireguardMessage>();
        matches!(tokio::time::timeout(ANSWER, family).await, Ok(Ok(_)))
    }

    /// The device as it is.
    pub(super) async fn get(&self, interface: &str) -> io::Result<Device> {
        for _ in 0..DUMPS {
            if let Some(device) = bounded(self.dump(interface)).await? {
                return Ok(device);
            }
        }
        Err(io::Error::other("the device kept changing while it was read"))
    }

    /// Applies a change, in as many messages as it needs.
    pub(super) async fn set(&self, interface: &str, change: &Change) -> io::Result<()> {
        for message in messages(interface, change) {
            bounded(self.send(message)).await?;
        }
        Ok(())
    }

    /// `None` if the device changed meanwhile.
    async fn dump(&self, interface: &str) -> io::Result<Option<Device>> {
        let attributes = vec![WireguardAttribute::IfName(interface.to_owned())];
        let request = message(WireguardCmd::GetDevice, attributes, NLM_F_DUMP);
        let mut handle = self.handle.clone();
        let mut answers = handle.request(request).await.map_err(failed)?;
        let mut device = Device::default();
        let mut interrupted = false;
        while let Some(answer) = answers.next().await {
            let answer = answer.map_err(io::Error::other)?;
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(part) => absorb(&mut device, part.payload),
                NetlinkPayload::Error(e) if e.code.is_some() => return Err(e.to_io()),
                _ => {}
            }
        }
        Ok((!interrupted).then_some(device))
    }

    async fn send(&self, attributes: Vec<WireguardAttribute>) -> io::Result<()> {
        let request = message(WireguardCmd::SetDevice, attributes, NLM_F_ACK);
        let mut handle = self.handle.clone();
        let mut answers = handle.request(request).await.map_err(failed)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(e) = answer.map_err(io::Error::other)?.payload
                && e.code.is_some()
            {
                return Err(e.to_io());
            }
        }
        Ok(())
    }
}

fn message(
    cmd: WireguardCmd,
    attributes: Vec<WireguardAttribute>,
    flags: u16,
) -> NetlinkMessage<GenlMessage<WireguardMessage>> {
    let inner = GenlMessage::from_payload(WireguardMessage { cmd, attributes });
    let mut message = NetlinkMessage::from(inner);
    message.header.flags = NLM_F_REQUEST | flags;
    message
}

fn failed(e: GenetlinkError) -> io::Error {
    match e {
        GenetlinkError::NetlinkError(e) => e,
        other => io::Error::other(other),
    }
}

async fn bounded<T>(answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Takes one message of a dump in.
fn absorb(device: &mut Device, part: WireguardMessage) {
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
            WireguardPeerAttribute::AllowedIps(list) => {
                peer.allowed_ips.extend(list.iter().filter_map(prefix));
            }
            _ => {}
        }
    }
}

/// Zero is never.
fn wall_time(time: WireguardTimeSpec) -> Option<std::time::SystemTime> {
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

/// A change as attributes of messages that the kernel takes whole.
fn messages(interface: &str, change: &Change) -> Vec<Vec<WireguardAttribute>> {
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
fn peer_parts(change: &PeerChange) -> Vec<(usize, WireguardPeer)> {
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

#[cfg(test)]
mod tests;
