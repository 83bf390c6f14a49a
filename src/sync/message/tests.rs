use std::collections::BTreeMap;

use super::*;
use crate::sync::channel::MAX_MESSAGE;

fn key(n: u16) -> PublicKey {
    let mut bytes = [0xff; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    PublicKey(bytes)
}

fn known(port: u16, handshake_ns: i64) -> Known {
    Known { endpoint: Some(([192, 0, 2, 1], port).into()), handshake_ns }
}

fn table(count: u16) -> Peers {
    (0..count).map(|n| (key(n), known(n, i64::from(n)))).collect()
}

fn understood(message: &Message) -> Update {
    match Message::parse(&message.to_bytes()).unwrap() {
        Message::Endpoints(message) => message.understand().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_words_on_the_wire() {
    let peers: Peers = [(PublicKey([0; 32]), known(7, 5))].into();
    let messages = Message::snapshot("wg0", 3, &peers);
    let text = String::from_utf8(messages[0].to_bytes()).unwrap();
    assert_eq!(
        text,
        "{\"kind\":\"endpoints\",\"interface\":\"wg0\",\"term\":3,\
         \"snapshot\":{\"first\":true,\"last\":true},\
         \"peers\":[{\"key\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\",\
         \"endpoint\":\"192.0.2.1:7\",\"handshake_ns\":5}]}"
    );
    assert_eq!(Message::Alive {}.to_bytes(), b"{\"kind\":\"alive\"}");
}

#[test]
fn unknown_kinds_and_fields_are_skipped_and_nonsense_is_none() {
    let parse = |text: &str| Message::parse(text.as_bytes());
    assert_eq!(parse("{\"kind\":\"folders\",\"list\":[1,2]}"), Some(Message::Unknown));
    assert_eq!(parse("{\"kind\":\"alive\",\"mood\":\"good\"}"), Some(Message::Alive {}));
    for nonsense in ["", "{", "[]", "{}", "{\"kind\":7}", "{\"kind\":\"endpoints\"}", "\u{0}"] {
        assert_eq!(parse(nonsense), None, "{nonsense}");
    }
    assert_eq!(Message::parse(&[0xff, 0xfe]), None);
}

#[test]
fn endpoints_that_cannot_be_understood_are_refused() {
    let good = "{\"kind\":\"endpoints\",\"interface\":\"wg0\",\"term\":1,\"peers\":[]}";
    let understand = |text: &str| match Message::parse(text.as_bytes()) {
        Some(Message::Endpoints(message)) => message.understand(),
        other => panic!("{other:?}"),
    };
    assert!(understand(good).is_some());
    for (from, to) in [
        ("wg0", ""),
        ("wg0", "sixteen-bytes-xx"),
        ("[]", "[{\"key\":\"AAAA\"}]"),
        ("}", ",\"gone\":[\"x\"]}"),
    ] {
        assert_eq!(understand(&good.replacen(from, to, 1)), None, "{to}");
    }
}

#[test]
fn a_snapshot_is_split_and_every_part_fits() {
    for (count, parts) in [(0, 1), (1, 1), (300, 1), (301, 2), (1_000, 4)] {
        let peers = table(count);
        let messages = Message::snapshot("wg0", 9, &peers);
        assert_eq!(messages.len(), parts);
        let mut all = BTreeMap::new();
        for (index, message) in messages.iter().enumerate() {
            assert!(message.to_bytes().len() <= MAX_MESSAGE);
            let update = understood(message);
            let (first, last) = (index == 0, index == parts - 1);
            assert_eq!(update.part, Part::Snapshot { first, last });
            assert_eq!((update.interface.as_str(), update.term), ("wg0", 9));
            all.extend(update.peers);
        }
        assert_eq!(all, peers);
    }
}

#[test]
fn the_largest_entries_fit() {
    let endpoint =
        Some("[2001:db8:1111:2222:3333:4444:5555:6666%4294967295]:65535".parse().unwrap());
    let known = Known { endpoint, handshake_ns: i64::MIN };
    let peers: Peers = (0..300).map(|n| (key(n), known)).collect();
    let messages = Message::snapshot("fifteen-bytes-x", u64::MAX, &peers);
    assert_eq!(messages.len(), 1);
    let bytes = messages[0].to_bytes().len();
    assert!(bytes <= MAX_MESSAGE, "{bytes}");
    let gone = Message::difference("fifteen-bytes-x", u64::MAX, &peers, &Peers::new());
    assert!(gone[0].to_bytes().len() <= MAX_MESSAGE);
}

#[test]
fn a_difference_says_what_changed() {
    let old = table(5);
    let mut new = old.clone();
    new.remove(&key(1));
    new.insert(key(2), known(9_999, 2));
    new.insert(key(7), Known::default());
    let messages = Message::difference("wg0", 4, &old, &new);
    assert_eq!(messages.len(), 1);
    let update = understood(&messages[0]);
    assert_eq!(update.part, Part::Difference);
    assert_eq!(update.gone, [key(1)]);
    let changed = [(key(2), known(9_999, 2)), (key(7), Known::default())];
    assert_eq!(update.peers, changed.into());
    // Nothing changed is worth saying, too: the picture is complete.
    assert_eq!(understood(&Message::difference("wg0", 4, &old, &old)[0]).peers, Peers::new());
    let parts = Message::difference("wg0", 4, &table(700), &Peers::new());
    assert_eq!(parts.iter().map(|m| understood(m).gone.len()).sum::<usize>(), 700);
}
