//! Datagrams, sealed here by docs/protocol.md alone: what a peer with the key could send, and what a stranger
//! makes of it.

use std::time::Duration;

use ring::{aead, hkdf, hmac};
use wgha_proto::{
    Ability, Boot, Keyring, Node, NodeConfig, PeerConfig, Quorum, Report, Time, WireguardKind,
    cluster_tag, node_tag,
};

const CLUSTER: &str = "edge";
const KEY_ID: u16 = 7;
const SECRET: [u8; 32] = *b"0123456789abcdefghijklmnopqrstuv";
const SESSION: [u8; 16] = *b"session of gw1 !";
/// Header, as docs/protocol.md draws it: the nonce is its end.
const NONCE_AT: usize = 56;
const HEADER_LEN: usize = 68;

/// gw2, which listens for gw1.
fn receiver() -> Node {
    let config = NodeConfig {
        cluster: CLUSTER.to_owned(),
        name: "gw2".to_owned(),
        witness: false,
        priority: 100,
        interval: Duration::from_millis(100),
        misses: 3,
        preempt: None,
        handover_timeout: Duration::from_millis(500),
        neighbour_retry: Duration::ZERO,
        fingerprint: [0; 16],
        wireguard: WireguardKind::Kernel,
        quorum: Quorum::None,
        peers: vec![PeerConfig { name: "gw1".to_owned(), witness: false, paths: 1 }],
    };
    let boot = Boot {
        session: [2; 16],
        obituary_secret: [3; 32],
        highest_term: 0,
        maintenance: false,
        votes: None,
    };
    let mut node = Node::new(config, Keyring::generate(KEY_ID, SECRET), boot, Time::from_nanos(1));
    node.handle_report(Time::from_nanos(1), Report::Ability(Ability::Ready));
    node
}

/// The sealed datagram of a plaintext from gw1 to gw2.
fn sealed(counter: u64, plain: &[u8]) -> Vec<u8> {
    let mut datagram = b"WgHA\x01\x00".to_vec();
    datagram.extend_from_slice(&KEY_ID.to_be_bytes());
    datagram.extend_from_slice(&cluster_tag(CLUSTER));
    datagram.extend_from_slice(&node_tag(CLUSTER, "gw1"));
    datagram.extend_from_slice(&node_tag(CLUSTER, "gw2"));
    datagram.extend_from_slice(&SESSION);
    datagram.extend_from_slice(&counter.to_be_bytes());
    let (key, nonce_key) = keys();
    let mut context = hmac::Context::with_key(&nonce_key);
    context.update(&datagram);
    context.update(plain);
    let mut nonce = [0; HEADER_LEN - NONCE_AT];
    nonce.copy_from_slice(&context.sign().as_ref()[..HEADER_LEN - NONCE_AT]);
    datagram.extend_from_slice(&nonce);
    let mut body = plain.to_vec();
    let nonce = aead::Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, aead::Aad::from(&datagram), &mut body).expect("it fits");
    datagram.extend_from_slice(&body);
    datagram
}

fn keys() -> (aead::LessSafeKey, hmac::Key) {
    let mut info = b"heartbeat".to_vec();
    let name = |info: &mut Vec<u8>, name: &str| {
        info.extend_from_slice(&(name.len() as u16).to_be_bytes());
        info.extend_from_slice(name.as_bytes());
    };
    name(&mut info, CLUSTER);
    info.extend_from_slice(&SESSION);
    name(&mut info, "gw1");
    name(&mut info, "gw2");
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"wgha 1").extract(&SECRET);
    let mut okm = [0; 64];
    let info = [info.as_slice()];
    prk.expand(&info, Okm).and_then(|o| o.fill(&mut okm)).expect("64 bytes can be had");
    let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, &okm[..32]).expect("32 bytes");
    (aead::LessSafeKey::new(key), hmac::Key::new(hmac::HMAC_SHA256, &okm[32..]))
}

struct Okm;

impl hkdf::KeyType for Okm {
    fn len(&self) -> usize {
        64
    }
}

/// Drains a node, which is bounded.
pub(crate) fn drain(
    node: &mut Node,
    now: Time,
    mut each: impl FnMut(wgha_proto::Destination, &[u8]),
) {
    let mut out = Vec::new();
    let mut sent = 0;
    while let Some(to) = node.poll_transmit(now, &mut out) {
        assert!(out.len() <= wgha_proto::MAX_DATAGRAM, "a datagram of {} bytes", out.len());
        each(to, &out);
        sent += 1;
        assert!(sent < 1_000, "a node sends without end");
    }
    let mut events = 0;
    while node.poll_event().is_some() {
        events += 1;
        assert!(events < 1_000, "a node has events without end");
    }
}

/// The wire format: bodies, each with its length before it (two bytes), as gw1 could send them with the key.
/// Whatever they say, gw2 goes on, and is not master because of them while gw1 is there.
pub(crate) fn wire(data: &[u8]) {
    let mut node = receiver();
    let mut rest = data;
    let mut now = 1_000_000;
    // The first one makes an unknown session known only if it echoes what gw2 sent.
    for counter in 1..=16 {
        let Some((len, tail)) = rest.split_first_chunk::<2>() else { break };
        let len = usize::from(u16::from_be_bytes(*len)).min(tail.len()).min(1_100);
        let (plain, tail) = tail.split_at(len);
        rest = tail;
        now += 10_000_000;
        let time = Time::from_nanos(now);
        let mut datagram = sealed(counter, plain);
        let taken = node.handle_datagram(time, &mut datagram);
        drain(&mut node, time, |_, _| {});
        // What was said once is refused the second time, or was refused at once.
        let mut again = sealed(counter, plain);
        let second = node.handle_datagram(time, &mut again);
        assert!(taken.is_err() || second.is_err(), "a replay was taken");
        drain(&mut node, time, |_, _| {});
        assert!(node.poll_timeout() >= time, "a timeout in the past");
    }
    // The raw bytes, too: a stranger's.
    let mut raw = data.to_vec();
    let time = Time::from_nanos(now);
    let refused = node.handle_datagram(time, &mut raw);
    assert!(refused.is_err(), "a stranger's datagram was taken");
    drain(&mut node, time, |_, _| {});
}

/// Opening: a sealed datagram of gw1's is changed (position, value), cut or made longer, and must then be refused,
/// whatever was changed.
pub(crate) fn opening(data: &[u8]) {
    let Some((&[cut, plain_len, steps, _], rest)) = data.split_first_chunk::<4>() else { return };
    let (plain, rest) = rest.split_at(usize::from(plain_len).min(rest.len()));
    let original = sealed(1, plain);
    let mut changed = original.clone();
    for pair in rest.chunks_exact(3).take(usize::from(steps)) {
        let at = usize::from(u16::from_be_bytes([pair[0], pair[1]])) % changed.len();
        changed[at] ^= pair[2];
    }
    if cut < 128 {
        changed.truncate(changed.len() - usize::from(cut).min(changed.len()));
    } else {
        changed.resize(changed.len() + usize::from(cut - 128), cut);
    }
    if changed == original {
        return;
    }
    let mut node = receiver();
    let now = Time::from_nanos(2_000_000);
    // Its own first heartbeat.
    drain(&mut node, now, |_, _| {});
    let before = node.level().clone();
    assert!(node.handle_datagram(now, &mut changed).is_err(), "a changed datagram was opened");
    assert_eq!(*node.level(), before);
    drain(&mut node, now, |_, _| panic!("an answer to what could not be opened"));
}
