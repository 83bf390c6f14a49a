//! The vectors in `proto/vectors/` are what this code makes, byte for byte.
//!
//! To write them again after a change of the protocol: `WGHA_WRITE_VECTORS=1 cargo test -p wgha-proto vectors`.

use std::path::Path;

use ring::digest;
use serde_json::{Value, json};

use crate::keys::{Keyring, expand};
use crate::lease::set::VoterSet;
use crate::node::obituary;
use crate::seal::SealKeys;
use crate::wire::body::{Ask, Body, Handover, LeaseFields, Obituary};
use crate::wire::{HEADER_LEN, Header, cluster_tag, node_tag};

const SECRET: [u8; 32] = *b"0123456789abcdefghijklmnopqrstuv";
const SESSION: [u8; 16] = *b"session of gw1 !";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares a file of vectors with what it should hold.
fn check(name: &str, expected: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
    if std::env::var_os("WGHA_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(expected).unwrap();
        std::fs::write(&path, text + "\n").unwrap();
    }
    let text = std::fs::read_to_string(&path).expect("proto/vectors holds the file");
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(&found, expected, "{name}");
}

#[test]
fn vectors_of_keys() {
    let ring = Keyring::generate(7, SECRET);
    let mut okm = [0; 64];
    let info: [&[u8]; 8] =
        [b"heartbeat", &[0, 4], b"edge", &SESSION, &[0, 3], b"gw1", &[0, 3], b"gw2"];
    expand(ring.find(7, false).unwrap(), &info, &mut okm);
    let expected = json!({
        "gateway_file": *ring.to_text(),
        "witness_file": *ring.to_witness().to_text(),
        "cluster": "edge",
        "cluster_tag": hex(&cluster_tag("edge")),
        "node_tags": { "gw1": hex(&node_tag("edge", "gw1")), "gw2": hex(&node_tag("edge", "gw2")) },
        "heartbeat": {
            "key": 7, "secret": hex(&SECRET), "session": hex(&SESSION),
            "sender": "gw1", "receiver": "gw2",
            "body_key": hex(&okm[..32]), "nonce_key": hex(&okm[32..]),
        },
    });
    check("keys.json", &expected);
}

/// One datagram with all that it is made of.
fn heartbeat(case: &str, ring: &Keyring, receiver: &str, vote: bool, body: &Body) -> Value {
    counted(258, case, ring, receiver, vote, body)
}

/// The same with another counter.
fn counted(
    counter: u64,
    case: &str,
    ring: &Keyring,
    receiver: &str,
    vote: bool,
    body: &Body,
) -> Value {
    let header = Header {
        path: 1,
        key: 7,
        cluster: cluster_tag("edge"),
        sender: node_tag("edge", "gw1"),
        receiver: node_tag("edge", receiver),
        session: SESSION,
        counter,
    };
    let mut datagram = Vec::new();
    header.encode(&mut datagram);
    body.encode(&mut datagram);
    let plain = datagram[HEADER_LEN..].to_vec();
    let prk = ring.find(7, vote).unwrap();
    SealKeys::derive(prk, "edge", &SESSION, "gw1", receiver).seal(&mut datagram).unwrap();
    // A second look from the receiver's side, whose keys are its own.
    let theirs = if vote { ring.to_witness() } else { ring.clone() };
    let keys = SealKeys::derive(theirs.find(7, vote).unwrap(), "edge", &SESSION, "gw1", receiver);
    let mut copy = datagram.clone();
    assert_eq!(keys.open(&mut copy).unwrap(), plain);
    assert_eq!(Body::decode(&plain).as_ref(), Some(body));
    assert_eq!(Header::decode(&datagram), Some(header));
    json!({
        "case": case, "cluster": "edge", "sender": "gw1", "receiver": receiver,
        "witness_key": vote, "key_file": *ring.to_text(),
        "header": { "path": 1, "key": 7, "session": hex(&SESSION), "counter": counter },
        "body": describe(body), "plaintext": hex(&plain), "datagram": hex(&datagram),
    })
}

/// The fields of a body under the names of docs/protocol.md.
fn describe(body: &Body) -> Value {
    let handover = match body.handover {
        None => Value::Null,
        Some(Handover::Request { term, id, force, manual }) => {
            json!({ "request": { "term": term, "id": id, "force": force, "manual": manual } })
        }
        Some(Handover::Ready { id }) => json!({ "ready": { "id": id } }),
        Some(Handover::Refuse { id, reason }) => {
            json!({ "refuse": { "id": id, "reason": reason } })
        }
    };
    let f = body.flags;
    let mut all = json!({
        "number": body.number,
        "echo": body.echo.map(|e| json!({ "session": hex(&e.session), "number": e.number, "age_us": e.age_us })),
        "role": body.role.word(), "term": body.term, "priority": body.priority,
        "flags": { "healthy": f.healthy, "maintenance": f.maintenance, "ready": f.ready, "leaving": f.leaving, "settled": f.settled },
        "interval_us": body.interval_us, "misses": body.misses,
        "fingerprint": hex(&body.fingerprint),
        "wireguard": format!("{:?}", body.wireguard).to_lowercase(),
        "clock": { "sent_ns": body.sent_ns, "wall_ns": body.wall_ns },
        "hears": body.hears.map(|h| json!({ "node": hex(&h.node), "term": h.term, "age_ms": h.age_ms })),
        "evidence": { "kind": format!("{:?}", body.evidence).to_lowercase(), "age_ms": body.evidence_age_ms },
        "obituary_hash": hex(&body.obituary_hash),
        "health_pass_ms": body.health_pass_ms, "highest_term": body.highest_term,
        "release": body.release.map(|r| json!({ "term": r.term, "successor": hex(&r.successor), "remaining_ms": r.remaining_ms, "sequence": r.sequence })),
        "handover": handover,
        "yielded": body.yielded.map(|(term, ago_ms)| json!({ "term": term, "ago_ms": ago_ms })),
        "goodbye": body.goodbye, "duplicate_name": body.duplicate_name,
        "obituary": body.obituary.map(|o| json!({ "node": hex(&o.node), "session": hex(&o.session), "secret": hex(&o.secret) })),
        "loss": body.loss, "paths_heard": body.paths_heard,
    });
    if body.lease != LeaseFields::default() {
        all["lease"] = describe_lease(&body.lease);
    }
    all
}

fn describe_lease(l: &LeaseFields) -> Value {
    let transfer = |t: ([u8; 16], u64)| json!({ "session": hex(&t.0), "term": t.1 });
    json!({
        "ask": l.ask.map(|a| json!({ "term": a.term, "transfer": a.transfer.map(transfer) })),
        "grant": l.grant.map(|g| json!({ "node": hex(&g.node), "session": hex(&g.session), "term": g.term, "duration_ms": g.duration_ms, "ask": g.ask })),
        "refuse": l.refuse.map(|r| json!({ "term": r.term, "remaining_ms": r.remaining_ms })),
        "withdraw": l.withdraw,
        "held": l.held.map(|h| json!({ "term": h.term, "remaining_ms": h.remaining_ms })),
        "voters": l.voters.map(|hash| hex(&hash)),
        "pending": l.pending.map(|hash| hex(&hash)),
    })
}

#[test]
fn vectors_of_heartbeats() {
    let ring = Keyring::generate(7, SECRET);
    let full = crate::wire::body::tests::full();
    let first = Body {
        number: 1,
        interval_us: 200_000,
        misses: 3,
        priority: 100,
        wall_ns: 1_790_000_000_000_000_000,
        ..Body::blank()
    };
    let refuse = Body { handover: Some(Handover::Refuse { id: 4, reason: 6 }), ..first.clone() };
    let ready = Body { handover: Some(Handover::Ready { id: 4 }), ..first.clone() };
    let secret = *b"the secret of gw1's obituary !!!";
    let mut obituary_hash = [0; 32];
    obituary_hash.copy_from_slice(digest::digest(&digest::SHA256, &secret).as_ref());
    let last = Body {
        number: obituary::NUMBER,
        interval_us: 200_000,
        misses: 3,
        obituary_hash,
        obituary: Some(Obituary { node: node_tag("edge", "gw1"), session: SESSION, secret }),
        ..Body::blank()
    };
    let expected = json!([
        heartbeat("the first heartbeat of a gateway", &ring, "gw2", false, &first),
        heartbeat("every field", &ring, "gw2", false, &full),
        heartbeat("to a witness", &ring, "w1", true, &first),
        heartbeat("ready to take over", &ring, "gw2", false, &ready),
        heartbeat("refuses to take over", &ring, "gw2", false, &refuse),
        counted(obituary::COUNTER, "the obituary of its sender", &ring, "gw2", false, &last),
    ]);
    check("heartbeat.json", &expected);
}

#[test]
fn vectors_of_leases() {
    let ring = Keyring::generate(7, SECRET);
    let full = crate::wire::body::tests::full();
    let all = crate::wire::body::tests::lease();
    let first = Body {
        number: 3,
        interval_us: 200_000,
        misses: 3,
        priority: 100,
        highest_term: 9,
        wall_ns: 1_790_000_000_000_000_000,
        ..Body::blank()
    };
    let voters = Some(VoterSet::new("edge", ["gw1", "gw2", "w1"].into_iter()).hash());
    let said = |lease| Body { lease: LeaseFields { voters, ..lease }, ..first.clone() };
    let ask =
        said(LeaseFields { ask: Some(Ask { term: 10, transfer: None }), ..LeaseFields::default() });
    let withdraw = said(LeaseFields { withdraw: Some(10), ..LeaseFields::default() });
    let expected = json!([
        heartbeat("a candidate asks a witness", &ring, "w1", true, &ask),
        heartbeat("a candidate withdraws", &ring, "w1", true, &withdraw),
        heartbeat("every field", &ring, "gw2", false, &Body { lease: all, ..full }),
    ]);
    check("lease.json", &expected);
}
