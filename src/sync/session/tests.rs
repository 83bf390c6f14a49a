use std::time::UNIX_EPOCH;

use super::super::message::{Part, Update};
use super::*;
use crate::wireguard::PeerState;

fn state(n: u8, port: u16) -> PeerState {
    PeerState {
        public_key: [n; 32],
        endpoint: Some(([192, 0, 2, 1], port).into()),
        last_handshake: Some(UNIX_EPOCH + Duration::from_secs(1)),
        received: 0,
    }
}

fn updates(messages: Vec<Message>) -> Vec<Update> {
    let update = |message| match message {
        Message::Endpoints(message) => message.understand().unwrap(),
        other => panic!("{other:?}"),
    };
    messages.into_iter().map(update).collect()
}

const WHOLE: Part = Part::Snapshot { first: true, last: true };

#[test]
fn a_master_sends_everything_once_then_differences() {
    let endpoints = Endpoints::default();
    let mut sent = Sent::default();
    let now = Instant::now();
    let mut send = |at| updates(sent.messages(endpoints.look_all(), at));
    assert_eq!(send(now), []);
    endpoints.begin("wg0", 2);
    assert_eq!(send(now), [], "it has not looked yet");
    endpoints.publish("wg0", 2, &[state(1, 1), state(2, 2)]);
    let first = send(now);
    assert_eq!((first.len(), first[0].part, first[0].peers.len()), (1, WHOLE, 2));
    assert_eq!(send(now), [], "nothing is new");
    endpoints.publish("wg0", 2, &[state(1, 1), state(2, 3)]);
    let second = send(now);
    assert_eq!((second[0].part, second[0].peers.len(), second[0].term), (Part::Difference, 1, 2));
    endpoints.publish("wg0", 2, &[state(1, 1), state(2, 3)]);
    assert_eq!(send(now)[0].peers.len(), 0, "it looked again: nobody moved");
    endpoints.publish("wg0", 2, &[state(1, 1)]);
    assert_eq!(send(now + SNAPSHOT)[0].part, WHOLE, "everything, now and then");
    // The last look of a master that leaves goes out although it is no master any more.
    endpoints.publish("wg0", 2, &[state(1, 9)]);
    endpoints.end("wg0");
    assert_eq!(send(now + SNAPSHOT)[0].peers.len(), 1);
    endpoints.begin("wg0", 4);
    endpoints.publish("wg0", 4, &[state(1, 9)]);
    assert_eq!(send(now + SNAPSHOT)[0].part, WHOLE, "a new term begins anew");
}

#[test]
fn what_came_from_the_master_is_not_passed_on() {
    let endpoints = Endpoints::default();
    let update = Update {
        interface: "wg0".to_owned(),
        term: 1,
        part: WHOLE,
        peers: Peers::new(),
        gone: Vec::new(),
    };
    assert!(endpoints.accept(update));
    assert_eq!(Sent::default().messages(endpoints.look_all(), Instant::now()), []);
}
