use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::table::extend;
use super::*;
use crate::sync::message::{Message, Part};

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn known(port: u16, handshake_ns: i64) -> Known {
    Known { endpoint: Some(([192, 0, 2, 1], port).into()), handshake_ns }
}

fn state(n: u8, port: u16, handshake_ns: u64) -> PeerState {
    PeerState {
        public_key: [n; 32],
        endpoint: Some(([192, 0, 2, 1], port).into()),
        last_handshake: (handshake_ns != 0)
            .then(|| UNIX_EPOCH + Duration::from_nanos(handshake_ns)),
        received: 0,
    }
}

fn update(term: Term, part: Part, peers: &[(PublicKey, Known)]) -> Update {
    let peers = peers.iter().copied().collect();
    Update { interface: "wg0".to_owned(), term, part, peers, gone: Vec::new() }
}

const WHOLE: Part = Part::Snapshot { first: true, last: true };

#[test]
fn what_was_kept_loses_against_everything_newer() {
    let endpoints = Endpoints::default();
    endpoints.restore("wg0", [(key(1), known(1, 1))].into());
    let table = endpoints.look("wg0");
    assert_eq!((table.origin, table.age(), table.peers.len()), (Origin::Kept, None, 1));
    assert!(endpoints.accept(update(1, WHOLE, &[(key(2), known(2, 2))])));
    endpoints.restore("wg0", [(key(1), known(1, 1))].into());
    assert_eq!(endpoints.look("wg0").peers, [(key(2), known(2, 2))].into());
}

#[test]
fn a_master_knows_better_than_all_others() {
    let endpoints = Endpoints::default();
    endpoints.publish("wg0", 1, &[state(1, 1, 1)]);
    assert!(endpoints.look("wg0").peers.is_empty(), "not master");
    endpoints.begin("wg0", 3);
    assert_eq!(endpoints.acting("wg0"), Some(3));
    assert!(!endpoints.accept(update(9, WHOLE, &[(key(2), known(2, 2))])));
    endpoints.publish("wg0", 2, &[state(1, 1, 1)]);
    assert!(endpoints.look("wg0").peers.is_empty(), "of another term");
    endpoints.publish("wg0", 3, &[state(1, 1, 1)]);
    assert_eq!(endpoints.look("wg0").peers, [(key(1), known(1, 1))].into());
    assert_eq!(endpoints.look("wg0").origin, Origin::Own);
    endpoints.end("wg0");
    assert_eq!(endpoints.acting("wg0"), None);
    assert!(endpoints.accept(update(4, WHOLE, &[(key(2), known(2, 2))])));
    assert_eq!(endpoints.look("wg0").origin, Origin::Master);
}

#[test]
fn an_older_master_is_not_heard_while_the_newer_one_is() {
    let endpoints = Endpoints::default();
    assert!(endpoints.accept(update(5, WHOLE, &[(key(1), known(1, 1))])));
    assert!(!endpoints.accept(update(4, WHOLE, &[])));
    assert!(endpoints.accept(update(5, Part::Difference, &[(key(2), known(2, 2))])));
    assert_eq!(endpoints.look("wg0").peers.len(), 2);
}

#[test]
fn a_handshake_with_an_older_master_is_not_forgotten() {
    let endpoints = Endpoints::default();
    assert!(endpoints.accept(update(1, WHOLE, &[(key(1), known(1, 500)), (key(2), known(2, 9))])));
    endpoints.begin("wg0", 2);
    // The device has the endpoint from here, and no handshake yet; of the other one it knows more.
    let silent = PeerState { endpoint: None, ..state(1, 0, 0) };
    endpoints.publish("wg0", 2, &[silent, state(2, 7, 10)]);
    let expected = [(key(1), known(1, 500)), (key(2), known(7, 10))];
    assert_eq!(endpoints.look("wg0").peers, expected.into());
}

#[test]
fn a_snapshot_counts_when_it_is_whole() {
    let endpoints = Endpoints::default();
    assert!(endpoints.accept(update(1, WHOLE, &[(key(9), known(9, 9))])));
    let part = |first, last| Part::Snapshot { first, last };
    // The end of one whose beginning was lost with the connection that carried it.
    assert!(endpoints.accept(update(1, part(true, false), &[(key(1), known(1, 1))])));
    assert_eq!(endpoints.look("wg0").peers, [(key(9), known(9, 9))].into());
    assert!(endpoints.accept(update(1, part(true, false), &[(key(2), known(2, 2))])));
    assert!(endpoints.accept(update(1, part(false, true), &[(key(3), known(3, 3))])));
    let whole = [(key(2), known(2, 2)), (key(3), known(3, 3))];
    assert_eq!(endpoints.look("wg0").peers, whole.into());
}

#[test]
fn a_difference_alone_makes_no_complete_picture() {
    let endpoints = Endpoints::default();
    assert!(endpoints.accept(update(1, Part::Difference, &[(key(1), known(1, 1))])));
    assert_eq!(endpoints.complete_at("wg0"), None);
    assert!(endpoints.accept(update(1, WHOLE, &[])));
    assert!(endpoints.complete_at("wg0").is_some());
}

#[test]
fn moves_count_places_and_not_handshakes() {
    let endpoints = Endpoints::default();
    endpoints.accept(update(1, WHOLE, &[(key(1), known(1, 1))]));
    let before = endpoints.moves("wg0");
    endpoints.accept(update(1, Part::Difference, &[(key(1), known(1, 2))]));
    assert_eq!(endpoints.moves("wg0"), before);
    endpoints.accept(update(1, Part::Difference, &[(key(1), known(5, 2))]));
    assert_eq!(endpoints.moves("wg0"), before + 1);
}

#[test]
fn peers_and_interfaces_are_bounded() {
    let mut into = Peers::new();
    let many = |n: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        (PublicKey(bytes), known(1, 1))
    };
    let limit = u32::try_from(MAX_PEERS).unwrap();
    extend(&mut into, (0..limit + 7).map(many).collect());
    assert_eq!(into.len(), MAX_PEERS);
    extend(&mut into, [(many(3).0, known(2, 2))].into());
    assert_eq!(into[&many(3).0], known(2, 2), "one that is there changes");
    let endpoints = Endpoints::default();
    for n in 0..MAX_INTERFACES + 5 {
        endpoints.restore(&format!("wg{n}"), Peers::new());
    }
    assert_eq!(endpoints.lock().len(), MAX_INTERFACES);
}

#[test]
fn times_of_handshakes() {
    assert_eq!(Known::default().last_handshake(), None);
    assert_eq!(known(1, -5).last_handshake(), None);
    assert_eq!(known(1, 7).last_handshake(), Some(UNIX_EPOCH + Duration::from_nanos(7)));
    assert_eq!(wall_ns(UNIX_EPOCH - Duration::from_secs(1)), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever a master's table goes through, whoever follows it by messages has the same.
    #[test]
    fn followers_have_what_the_master_has(
        tables in proptest::collection::vec(
            proptest::collection::btree_map(0u8..20, (0u16..4, 0i64..3), 0..20), 1..8),
    ) {
        let endpoints = Endpoints::default();
        let mut before: Option<Peers> = None;
        for table in tables {
            let now: Peers =
                table.into_iter().map(|(n, (port, at))| (key(n), known(port, at))).collect();
            let messages = match &before {
                None => Message::snapshot("wg0", 1, &now),
                Some(before) => Message::difference("wg0", 1, before, &now),
            };
            for message in messages {
                let Some(Message::Endpoints(message)) = Message::parse(&message.to_bytes()) else {
                    panic!("not read");
                };
                prop_assert!(endpoints.accept(message.understand().unwrap()));
            }
            prop_assert_eq!(&endpoints.look("wg0").peers, &now);
            before = Some(now);
        }
    }
}

#[test]
fn a_handshake_is_one_that_the_poll_before_had_not() {
    let endpoints = Endpoints::default();
    let age = |all: &[PeerState]| {
        endpoints.publish("wg0", 3, all);
        endpoints.since_handshake("wg0")
    };
    assert_eq!(age(&[state(1, 1, 5)]), None, "not master");
    endpoints.begin("wg0", 3);
    assert_eq!(age(&[state(1, 1, 5)]), None, "of an earlier term");
    assert_eq!(age(&[state(1, 1, 5)]), None, "the same");
    assert_eq!(age(&[state(1, 2, 5)]), None, "elsewhere is no handshake");
    assert!(age(&[state(1, 1, 9)]).is_some());
    std::thread::sleep(Duration::from_millis(200));
    let none_since = age(&[state(1, 1, 9)]);
    assert!(none_since >= Some(Duration::from_millis(200)));
    let back = age(&[state(1, 1, 3)]);
    assert!(back.is_some() && back < none_since, "the wall clock was set back: {back:?}");
    endpoints.end("wg0");
    assert_eq!(endpoints.since_handshake("wg0"), None);
}

#[test]
fn bytes_through_a_tunnel_are_told_with_the_time_of_the_poll_before() {
    let endpoints = Endpoints::default();
    let told = endpoints.received();
    let bytes = |n, received| PeerState { received, ..state(n, 1, 0) };
    let polled = |all: &[PeerState]| {
        let before = clock::now();
        endpoints.publish("wg0", 3, all);
        (before, *told.borrow(), clock::now())
    };
    polled(&[bytes(1, 500)]);
    assert_eq!(polled(&[bytes(1, 900)]).1, None, "not master");
    endpoints.begin("wg0", 3);
    let (first, at, first_end) = polled(&[bytes(1, 900), bytes(2, 10)]);
    assert_eq!(at, None, "nothing to compare with");
    assert_eq!(polled(&[bytes(1, 900), bytes(2, 10)]).1, None, "nothing came");
    let (second, ..) = polled(&[bytes(1, 900), bytes(2, 10)]);
    let at = polled(&[bytes(1, 900), bytes(2, 11)]).1.expect("a byte came");
    assert!(at >= second && at > first && at >= first_end);
    assert_eq!(polled(&[bytes(1, 900)]).1, Some(at), "a peer was removed");
    endpoints.end("wg0");
    assert_eq!(*told.borrow(), None, "not master any more");
    endpoints.begin("wg0", 4);
    endpoints.publish("wg0", 4, &[bytes(1, 5000)]);
    assert_eq!(*told.borrow(), None, "what an earlier term counted is no measure");
}
