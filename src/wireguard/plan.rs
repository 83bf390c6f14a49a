//! What to change on a device: a pure function of what it is and what the file says.
//!
//! The difference is minimal because everything else disturbs live sessions: setting `FwMark` or
//! `ListenPort`, even to the same value, makes the kernel forget the source address of every peer,
//! and replacing peers forgets sessions, endpoints and the time stamps that stop replays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::SystemTime;

use ipnet::IpNet;

use super::PeerState;
use super::conf::{Peer, WgConf};
use super::key::{KEY_LEN, PublicKey, SecretKey};

/// A device as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    /// `None`: no private key is set.
    pub(super) public_key: Option<PublicKey>,
    pub(super) listen_port: u16,
    pub(super) fwmark: u32,
    pub(super) peers: Vec<DevicePeer>,
}

/// A peer of a device as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DevicePeer {
    pub(super) public_key: PublicKey,
    pub(super) preshared_key: Option<SecretKey>,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) keepalive: u16,
    pub(super) allowed_ips: BTreeSet<IpNet>,
    pub(super) last_handshake: Option<SystemTime>,
    pub(super) received: u64,
}

/// What others are told of peers.
pub(super) fn peer_states(peers: Vec<DevicePeer>) -> Vec<PeerState> {
    let state = |p: DevicePeer| PeerState {
        public_key: p.public_key.0,
        endpoint: p.endpoint,
        last_handshake: p.last_handshake,
        received: p.received,
    };
    peers.into_iter().map(state).collect()
}

/// What to change. `None` is: leave as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) private_key: Option<SecretKey>,
    pub(super) listen_port: Option<u16>,
    pub(super) fwmark: Option<u32>,
    /// In this order.
    pub(super) peers: Vec<PeerChange>,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What to change of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerChange {
    pub(super) public_key: PublicKey,
    pub(super) action: Action,
}

/// The kinds of change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It is not in the file.
    Remove,
    /// It is not on the device.
    Add(Fields),
    /// It is on both.
    Update(Fields),
}

/// Fields of a peer to set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    /// `Some(None)` takes the key away.
    pub(super) preshared_key: Option<Option<SecretKey>>,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) keepalive: Option<u16>,
    /// Drop all prefixes first; `allowed_ips` is then the whole list.
    pub(super) replace_allowed_ips: bool,
    /// Prefixes to give to the peer; the device takes them from whoever has them.
    pub(super) allowed_ips: Vec<IpNet>,
}

/// Whether the peers' keepalives are in force. A staged device has none: at link-up the kernel
/// would otherwise speak to all of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keepalives {
    Off,
    AsConfigured,
    /// As they are: the kick gives them back one after the other.
    AsFound,
}

/// How a device treats a prefix that is given to another peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moves {
    /// It is taken from the one that had it (the kernel).
    Taken,
    /// The one that had it takes it back at its next change (gotatun): it has to be told first.
    TakenBack,
}

/// The changes that make `device` what `conf` says.
pub(super) fn plan(device: &Device, conf: &WgConf, keepalives: Keepalives, moves: Moves) -> Change {
    Change {
        private_key: (device.public_key != Some(conf.public_key)).then(|| conf.private_key.clone()),
        listen_port: (device.listen_port != conf.listen_port).then_some(conf.listen_port),
        fwmark: (device.fwmark != conf.fwmark).then_some(conf.fwmark),
        peers: peers(device, conf, keepalives, moves),
    }
}

/// Removals first, then those that lose a prefix, then the others: a prefix is free before it is
/// given away.
fn peers(device: &Device, conf: &WgConf, keepalives: Keepalives, moves: Moves) -> Vec<PeerChange> {
    let now: BTreeMap<PublicKey, &DevicePeer> =
        device.peers.iter().map(|p| (p.public_key, p)).collect();
    let wanted: BTreeSet<PublicKey> = conf.peers.iter().map(|p| p.public_key).collect();
    let owner: BTreeMap<IpNet, PublicKey> = conf
        .peers
        .iter()
        .flat_map(|p| p.allowed_ips.iter().map(|net| (*net, p.public_key)))
        .collect();

    let gone = now.keys().filter(|key| !wanted.contains(*key));
    let mut changes: Vec<PeerChange> =
        gone.map(|key| PeerChange { public_key: *key, action: Action::Remove }).collect();
    let mut later = Vec::new();
    for peer in &conf.peers {
        let public_key = peer.public_key;
        let before = now.get(&public_key);
        let keepalive = match (keepalives, before) {
            (Keepalives::Off, _) => 0,
            (Keepalives::AsConfigured, _) | (Keepalives::AsFound, None) => peer.keepalive,
            (Keepalives::AsFound, Some(before)) => before.keepalive,
        };
        let Some(before) = before else {
            later.push(PeerChange { public_key, action: Action::Add(added(peer, keepalive)) });
            continue;
        };
        let fields = updated(before, peer, keepalive, |net| {
            moves == Moves::Taken && owner.contains_key(net)
        });
        if fields == Fields::default() {
            continue;
        }
        let list = if fields.replace_allowed_ips { &mut changes } else { &mut later };
        list.push(PeerChange { public_key, action: Action::Update(fields) });
    }
    changes.append(&mut later);
    changes
}

/// The changes that tell `device` where its peers are. Peers that it does not have are left out.
pub(super) fn endpoints(device: &Device, known: &[([u8; KEY_LEN], SocketAddr)]) -> Change {
    let known: BTreeMap<_, _> = known.iter().copied().collect();
    let moved = |peer: &DevicePeer| {
        let endpoint = *known.get(&peer.public_key.0)?;
        let fields = Fields { endpoint: Some(endpoint), ..Fields::default() };
        let action = Action::Update(fields);
        (peer.endpoint != Some(endpoint))
            .then_some(PeerChange { public_key: peer.public_key, action })
    };
    Change { peers: device.peers.iter().filter_map(moved).collect(), ..Change::default() }
}

/// The changes that give peers a keepalive, in the order given.
pub(super) fn keepalives(peers: impl Iterator<Item = ([u8; KEY_LEN], u16)>) -> Change {
    let set = |(key, seconds)| PeerChange {
        public_key: PublicKey(key),
        action: Action::Update(Fields { keepalive: Some(seconds), ..Fields::default() }),
    };
    Change { peers: peers.map(set).collect(), ..Change::default() }
}

fn added(peer: &Peer, keepalive: u16) -> Fields {
    Fields {
        preshared_key: peer.preshared_key.clone().map(Some),
        endpoint: peer.endpoint,
        keepalive: (keepalive != 0).then_some(keepalive),
        replace_allowed_ips: false,
        allowed_ips: peer.allowed_ips.iter().copied().collect(),
    }
}

/// `taken` says of a prefix that the peer loses whether another one's gain takes it away.
fn updated(
    before: &DevicePeer,
    peer: &Peer,
    keepalive: u16,
    taken: impl Fn(&IpNet) -> bool,
) -> Fields {
    let mut lost = before.allowed_ips.difference(&peer.allowed_ips);
    // Kernels before 6.16 cannot take one prefix away.
    let replace = !lost.all(taken);
    let allowed_ips = if replace {
        peer.allowed_ips.iter().copied().collect()
    } else {
        peer.allowed_ips.difference(&before.allowed_ips).copied().collect()
    };
    Fields {
        preshared_key: (before.preshared_key != peer.preshared_key)
            .then(|| peer.preshared_key.clone()),
        // Where a peer was heard from counts for more than what the file says.
        endpoint: peer.endpoint.filter(|_| before.endpoint.is_none()),
        keepalive: (before.keepalive != keepalive).then_some(keepalive),
        replace_allowed_ips: replace,
        allowed_ips,
    }
}

#[cfg(test)]
mod tests;
