//! What only the whole file shows: missing keys, duplicates, contradictions.

use std::collections::HashMap;

use ipnet::IpNet;

use super::parse::{RawPeer, Reader};
use super::{ConfError, DEFAULT_MTU, Peer, Table, WgConf};
use crate::wireguard::key::{PublicKey, SecretKey};

/// Longest interface name of Linux, in bytes.
const MAX_NAME_LEN: usize = 15;

/// The least MTU that IPv6 works with.
const MIN_MTU_IPV6: u32 = 1280;

/// The file as a whole, if nothing essential is missing; adds to the reader's errors.
pub(super) fn check(reader: &mut Reader) -> Option<WgConf> {
    name(reader);
    if reader.interface.line.is_none() {
        let (key, what) = ("[Interface]".to_owned(), "is missing".to_owned());
        reader.errors.push(ConfError { line: None, key, what });
        return None;
    }
    let private_key = private_key(reader);
    let listen_port = listen_port(reader);
    mtu(reader);
    addresses(reader);
    duplicate_peers(reader);
    duplicate_prefixes(reader);
    default_routes(reader);
    let public_key = private_key.as_ref().map(SecretKey::public);
    let peers = peers(reader, public_key);

    let i = &mut reader.interface;
    let [pre_up, post_up, pre_down, post_down] = std::mem::take(&mut i.hooks);
    Some(WgConf {
        private_key: private_key?,
        public_key: public_key?,
        listen_port: listen_port?,
        fwmark: i.fwmark.map_or(0, |(_, mark)| mark),
        addresses: i.addresses.iter().map(|(_, net)| *net).collect(),
        mtu: i.mtu.map_or(DEFAULT_MTU, |(_, mtu)| mtu),
        table: i.table.map_or(Table::Auto, |(_, table)| table),
        pre_up,
        post_up,
        pre_down,
        post_down,
        peers,
    })
}

fn name(reader: &mut Reader) {
    let name = &reader.name;
    let valid = !name.is_empty()
        && name.len() <= MAX_NAME_LEN
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_=+.-".contains(&b));
    if !valid {
        let what = format!("is no interface name (1 to {MAX_NAME_LEN} of A-Z a-z 0-9 _ = + . -)");
        let key = name.chars().filter(|c| !c.is_control()).take(32).collect();
        reader.errors.push(ConfError { line: None, key, what });
    }
}

fn private_key(reader: &mut Reader) -> Option<SecretKey> {
    match reader.interface.private_key.take() {
        Some((line, key)) if key.is_zero() => {
            reader.error(line, "PrivateKey", "is all zero, which is no key");
            None
        }
        Some((_, key)) => Some(key),
        None => {
            missing(reader, "PrivateKey", "is missing: both nodes need the same one");
            None
        }
    }
}

fn listen_port(reader: &mut Reader) -> Option<u16> {
    match reader.interface.listen_port {
        Some((line, 0)) => {
            reader.error(line, "ListenPort", "must not be 0: clients must find the same port");
            None
        }
        Some((_, port)) => Some(port),
        None => {
            missing(reader, "ListenPort", "is missing: clients must find the same port");
            None
        }
    }
}

/// Reports a key that [Interface] lacks, unless it was there with a bad value.
fn missing(reader: &mut Reader, key: &str, what: &str) {
    if reader.errors.iter().any(|e| e.key == key) {
        return;
    }
    let line = reader.interface.line;
    reader.errors.push(ConfError { line, key: key.to_owned(), what: what.to_owned() });
}

fn mtu(reader: &mut Reader) {
    let ipv6 = reader.interface.addresses.iter().any(|(_, net)| matches!(net, IpNet::V6(_)));
    if let Some((line, mtu)) = reader.interface.mtu
        && ipv6
        && mtu < MIN_MTU_IPV6
    {
        reader.error(line, "MTU", format!("an IPv6 Address needs {MIN_MTU_IPV6} or more"));
    }
}

fn addresses(reader: &mut Reader) {
    let mut seen = HashMap::new();
    let mut twice = Vec::new();
    for (line, net) in &reader.interface.addresses {
        if let Some(before) = seen.insert(net.addr(), *line) {
            twice.push((*line, format!("{} is already given on line {before}", net.addr())));
        }
    }
    for (line, what) in twice {
        reader.error(line, "Address", what);
    }
    if reader.interface.addresses.is_empty()
        && !reader.errors.iter().any(|e| e.key == "Address")
        && let Some(line) = reader.interface.line
    {
        reader.warn(line, "Address", "none given: the gateway has no address in the tunnel");
    }
}

fn duplicate_peers(reader: &mut Reader) {
    let mut seen: HashMap<PublicKey, usize> = HashMap::new();
    let mut twice = Vec::new();
    for peer in &reader.peers {
        if let Some((line, key)) = peer.public_key
            && let Some(before) = seen.insert(key, line)
        {
            twice.push((line, format!("the peer {key} is already on line {before}")));
        }
    }
    for (line, what) in twice {
        reader.error(line, "PublicKey", what);
    }
}

fn duplicate_prefixes(reader: &mut Reader) {
    let mut seen: HashMap<IpNet, usize> = HashMap::new();
    let mut twice = Vec::new();
    for (net, line) in reader.peers.iter().flat_map(|p| &p.allowed_ips) {
        if let Some(before) = seen.insert(*net, *line) {
            twice.push((*line, format!("{net} already belongs to the peer on line {before}")));
        }
    }
    for (line, what) in twice {
        reader.error(line, "AllowedIPs", what);
    }
}

/// wg-quick turns a default route into policy rules that would catch the gateway's own traffic.
fn default_routes(reader: &mut Reader) {
    if !matches!(reader.interface.table, None | Some((_, Table::Auto))) {
        return;
    }
    let all = reader.peers.iter().flat_map(|p| &p.allowed_ips);
    let found: Vec<_> =
        all.filter(|(net, _)| net.prefix_len() == 0).map(|(net, line)| (*net, *line)).collect();
    for (net, line) in found {
        let what = format!(
            "{net} would send all of the gateway's traffic into the tunnel: set Table to off or \
             to a number"
        );
        reader.error(line, "AllowedIPs", what);
    }
}

fn peers(reader: &mut Reader, mine: Option<PublicKey>) -> Vec<Peer> {
    let raw = std::mem::take(&mut reader.peers);
    raw.into_iter().filter_map(|peer| self::peer(reader, peer, mine)).collect()
}

fn peer(reader: &mut Reader, raw: RawPeer, mine: Option<PublicKey>) -> Option<Peer> {
    let Some((line, public_key)) = raw.public_key else {
        if !raw.key_given {
            reader.error(raw.line, "PublicKey", "is missing in this [Peer]");
        }
        return None;
    };
    if Some(public_key) == mine {
        reader.error(line, "PublicKey", "is this gateway's own key");
    }
    if raw.allowed_ips.is_empty() {
        reader.warn(raw.line, "AllowedIPs", "none given: nothing can be sent to this peer");
    }
    Some(Peer {
        public_key,
        preshared_key: raw.preshared_key.map(|(_, key)| key).filter(|key| !key.is_zero()),
        allowed_ips: raw.allowed_ips.into_keys().collect(),
        endpoint: raw.endpoint.and_then(|(_, endpoint)| endpoint),
        keepalive: raw.keepalive.map_or(0, |(_, seconds)| seconds),
    })
}
