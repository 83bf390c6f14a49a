use super::value::put;
use proptest::prelude::*;

use super::*;

/// A body that says everything it can, but for leases.
pub(crate) fn full() -> Body {
    Body {
        number: 77,
        echo: Some(Echo { session: [2; 16], number: 41, age_us: 1234 }),
        role: Role::Master,
        term: 9,
        priority: 150,
        flags: Flags {
            healthy: true,
            maintenance: false,
            ready: true,
            leaving: true,
            settled: true,
        },
        interval_us: 200_000,
        misses: 3,
        fingerprint: [3; 16],
        wireguard: WireguardKind::Kernel,
        sent_ns: 1_000_000_007,
        wall_ns: -5,
        hears: Some(Hears { node: [4; 8], term: 9, age_ms: 0 }),
        evidence: EvidenceKind::Answered,
        evidence_age_ms: 50,
        obituary_hash: [5; 32],
        health_pass_ms: Some(900),
        highest_term: 9,
        release: Some(Release { term: 8, successor: [6; 8], remaining_ms: 600, sequence: 2 }),
        handover: Some(Handover::Request { term: 9, id: 4, force: true, manual: true }),
        yielded: Some((7, 30)),
        goodbye: true,
        duplicate_name: true,
        obituary: Some(Obituary { node: [7; 8], session: [8; 16], secret: [9; 32] }),
        loss: Some(3),
        paths_heard: 0b101,
        lease: LeaseFields::default(),
    }
}

/// The fields of leases, all of them.
pub(crate) fn lease() -> LeaseFields {
    LeaseFields {
        ask: Some(Ask { term: 10, transfer: Some(([10; 16], 9)) }),
        grant: Some(Grant { node: [11; 8], session: [12; 16], term: 9, duration_ms: 600, ask: 70 }),
        refuse: Some(Refuse { term: 11, remaining_ms: 250 }),
        withdraw: Some(8),
        held: Some(Held { term: 9, remaining_ms: 571 }),
        voters: Some([13; 16]),
        pending: Some([14; 16]),
    }
}

/// Every field there is.
fn all() -> Body {
    Body { lease: lease(), ..full() }
}

fn encoded(body: &Body) -> Vec<u8> {
    let mut out = Vec::new();
    body.encode(&mut out);
    out
}

/// The fields of an encoded body: (type, whole field).
fn fields(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while let [kind, len, ..] = *bytes {
        let (field, rest) = bytes.split_at(2 + usize::from(len));
        all.push((kind, field.to_vec()));
        bytes = rest;
    }
    all
}

#[test]
fn everything_fits_one_datagram_with_room_to_spare() {
    assert!(encoded(&all()).len() < 800, "{}", encoded(&all()).len());
    assert_eq!(Body::decode(&encoded(&all())), Some(all()));
}

#[test]
fn each_required_field_is_required_and_the_others_are_not() {
    let each = fields(&encoded(&all()));
    for skip in 0..each.len() {
        let kept = each.iter().enumerate().filter(|(i, _)| *i != skip);
        let bytes: Vec<u8> = kept.flat_map(|(_, (_, field))| field.clone()).collect();
        let required = field::REQUIRED.contains(&each[skip].0);
        assert_eq!(Body::decode(&bytes).is_none(), required, "field {}", each[skip].0);
    }
}

#[test]
fn a_field_that_comes_twice_is_malformed() {
    for (kind, field) in fields(&encoded(&all())) {
        let mut bytes = encoded(&all());
        bytes.extend_from_slice(&field);
        assert_eq!(Body::decode(&bytes), None, "field {kind}");
    }
}

#[test]
fn a_field_of_another_length_is_malformed() {
    for (kind, wrong) in fields(&encoded(&all())) {
        let others = fields(&encoded(&all())).into_iter().filter(|(k, _)| *k != kind);
        let others: Vec<u8> = others.flat_map(|(_, field)| field).collect();
        let mut longer = wrong.clone();
        longer[1] += 1;
        longer.push(0);
        assert_eq!(Body::decode(&[others.clone(), longer].concat()), None, "field {kind} longer");
        if wrong[1] > 0 {
            let mut shorter = wrong[..wrong.len() - 1].to_vec();
            shorter[1] -= 1;
            assert_eq!(Body::decode(&[others, shorter].concat()), None, "field {kind} shorter");
        }
    }
}

#[test]
fn every_truncation_is_malformed() {
    let bytes = encoded(&full());
    for len in 0..bytes.len() {
        assert_eq!(Body::decode(&bytes[..len]), None, "{len} bytes");
    }
    // The fields of leases come last and are not required: only within one is a cut seen.
    let bytes = encoded(&all());
    let mut ends = vec![encoded(&full()).len()];
    for (_, field) in fields(&bytes[ends[0]..]) {
        ends.push(ends[ends.len() - 1] + field.len());
    }
    for len in ends[0]..bytes.len() {
        assert_eq!(Body::decode(&bytes[..len]).is_none(), !ends.contains(&len), "{len} bytes");
    }
}

#[test]
fn bad_values_are_malformed() {
    // (type, offset in the value, bytes put there)
    let table: [(u8, usize, &[u8]); 23] = [
        (field::NUMBER, 0, &[0; 8]),
        (field::ROLE, 0, &[4]),
        (field::ROLE, 0, &[1]),
        (field::ROLE, 1, &[0; 8]),
        (field::TIMING, 0, &9_999_u32.to_be_bytes()),
        (field::TIMING, 0, &10_000_001_u32.to_be_bytes()),
        (field::TIMING, 4, &[1]),
        (field::TIMING, 4, &[0]),
        (field::WIREGUARD, 0, &[3]),
        (field::EVIDENCE, 0, &[3]),
        (field::RELEASE, 0, &[0; 8]),
        (field::HANDOVER_REQUEST, 0, &[0; 8]),
        (field::YIELDED, 0, &[0; 8]),
        (field::LOSS, 0, &[65]),
        (field::LOSS, 0, &[255]),
        (field::ROLE, 0, &[255]),
        (field::ASK, 0, &[0; 8]),
        (field::ASK, 24, &[0; 8]),
        (field::GRANT, 24, &[0; 8]),
        (field::GRANT, 36, &[0; 8]),
        (field::REFUSE, 0, &[0; 8]),
        (field::WITHDRAW, 0, &[0; 8]),
        (field::LEASE, 0, &[0; 8]),
    ];
    for (kind, at, value) in table {
        let mut each = fields(&encoded(&all()));
        let field = &mut each.iter_mut().find(|(k, _)| *k == kind).unwrap().1;
        field[2 + at..2 + at + value.len()].copy_from_slice(value);
        let bytes: Vec<u8> = each.into_iter().flat_map(|(_, field)| field).collect();
        assert_eq!(Body::decode(&bytes), None, "field {kind} with {value:?} at {at}");
    }
}

#[test]
fn two_steps_of_a_handover_are_malformed() {
    let mut bytes = encoded(&all());
    put(&mut bytes, field::HANDOVER_READY, &[&[0; 4]]);
    assert_eq!(Body::decode(&bytes), None);
}

#[test]
fn unknown_fields_are_skipped_also_twice() {
    let mut bytes = Vec::new();
    for kind in [0, 25, 31, 63, 64, 200, 255, 255] {
        put(&mut bytes, kind, &[&[1, 2, 3]]);
    }
    bytes.extend(encoded(&all()));
    assert_eq!(Body::decode(&bytes), Some(all()));
}

proptest! {
    #[test]
    fn whatever_is_decoded_encodes_to_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Some(body) = Body::decode(&bytes) {
            prop_assert_eq!(Body::decode(&encoded(&body)), Some(body));
        }
    }

    #[test]
    fn a_changed_byte_never_panics_and_round_trips(at in 0_usize..400, value in any::<u8>()) {
        let mut bytes = encoded(&all());
        let len = bytes.len();
        bytes[at % len] = value;
        if let Some(body) = Body::decode(&bytes) {
            prop_assert_eq!(Body::decode(&encoded(&body)), Some(body));
        }
    }

    #[test]
    fn numbers_round_trip(
        number in 1_u64.., age in any::<u32>(), term in 1_u64.., wall in any::<i64>(),
        interval in 10_000_u32..=10_000_000, misses in 2_u8.., flags in 0_u8..32, paths in any::<u8>(),
    ) {
        let body = Body {
            number,
            term,
            wall_ns: wall,
            interval_us: interval,
            misses,
            flags: Flags::of(flags),
            paths_heard: paths,
            echo: Some(Echo { session: [1; 16], number, age_us: age }),
            handover: Some(Handover::Refuse { id: age, reason: misses }),
            ..all()
        };
        prop_assert_eq!(Body::decode(&encoded(&body)), Some(body));
    }
}

#[test]
fn an_ask_has_two_lengths() {
    let plain = LeaseFields { ask: Some(Ask { term: 10, transfer: None }), ..lease() };
    let body = Body { lease: plain, ..full() };
    assert_eq!(Body::decode(&encoded(&body)), Some(body));
}

#[test]
fn a_witness_agrees_with_gateways_of_its_cluster() {
    let gateway = [1; 16];
    let mut witness = [1; 16];
    witness[8..].fill(0);
    let mut other = [1; 16];
    other[15] = 2;
    let mut elsewhere = witness;
    elsewhere[0] = 2;
    assert!(same_config(&gateway, &gateway));
    assert!(same_config(&gateway, &witness) && same_config(&witness, &gateway));
    assert!(!same_config(&gateway, &other));
    assert!(!same_config(&gateway, &elsewhere) && !same_config(&witness, &elsewhere));
}
