use tokio::net::TcpListener;
use wgha_proto::Keyring;

use super::*;
use crate::config::Node;

fn node(name: &str) -> Node {
    Node { name: name.to_owned(), addresses: Vec::new(), priority: 100, witness: false }
}

/// Settings of `me` in a cluster of a, b and c.
fn settings(me: &str, keys: &Keyring) -> Settings {
    let peers = ["a", "b", "c"].iter().filter(|name| **name != me).map(|name| node(name));
    Settings {
        cluster: "edge".to_owned(),
        me: me.to_owned(),
        addresses: Vec::new(),
        peers: peers.collect(),
        secrets: keys.derive(PURPOSE),
    }
}

fn keys(id: u16, byte: u8) -> Keyring {
    Keyring::generate(id, [byte; 32])
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (one, listener.accept().await.unwrap().0)
}

/// Lets `initiator`, with its key of this number, connect to `responder`, as it takes it for `to`.
async fn meet(
    initiator: &Settings,
    to: &str,
    key: usize,
    responder: &Settings,
) -> (Result<Channel, Refusal>, Result<Channel, Refusal>) {
    let (one, other) = pair().await;
    tokio::join!(connect(one, initiator, to, key), accept(other, responder))
}

/// The word of the responder's refusal; the initiator must not believe in a connection either.
async fn refused(initiator: &Settings, to: &str, key: usize, responder: &Settings) -> String {
    let (one, other) = meet(initiator, to, key, responder).await;
    assert!(one.is_err(), "the initiator takes it for established");
    other.err().expect("a refusal").word().to_owned()
}

#[tokio::test]
async fn both_ends_speak_and_understand() {
    let (a, b) = (settings("a", &keys(1, 1)), settings("b", &keys(1, 1)));
    let (one, other) = meet(&a, "b", 0, &b).await;
    let (mut one, mut other) = (one.unwrap(), other.unwrap());
    assert_eq!((one.peer.as_str(), other.peer.as_str()), ("b", "a"));
    for _ in 0..3 {
        one.sender.send(&Message::Alive {}).await.unwrap();
        assert_eq!(other.receiver.receive().await.unwrap(), Message::Alive {});
        other.sender.send(&hello()).await.unwrap();
        assert_eq!(one.receiver.receive().await.unwrap(), hello());
    }
    drop(one);
    assert_eq!(other.receiver.receive().await.unwrap_err().word(), "sync_io");
}

#[tokio::test]
async fn who_has_not_the_key_is_refused() {
    let b = settings("b", &keys(1, 1));
    assert_eq!(refused(&settings("a", &keys(1, 2)), "b", 0, &b).await, "sync_handshake");
    assert_eq!(refused(&settings("a", &keys(2, 1)), "b", 0, &b).await, "sync_key_id");
    let other = Settings { cluster: "core".to_owned(), ..settings("a", &keys(1, 1)) };
    assert_eq!(refused(&other, "b", 0, &b).await, "sync_handshake", "another cluster");
    let for_c = refused(&settings("a", &keys(1, 1)), "c", 0, &b).await;
    assert_eq!(for_c, "sync_handshake", "meant for another");
}

#[tokio::test]
async fn a_witness_has_no_key_and_no_name_here() {
    let b = settings("b", &keys(1, 1));
    let witness = settings("a", &keys(1, 1).to_witness());
    let (one, other) = meet(&witness, "b", 0, &b).await;
    assert_eq!(one.err().unwrap().word(), "sync_handshake");
    assert_eq!(other.err().unwrap().word(), "sync_io");
    // Even with the key, whoever is no gateway by the config, or is to be connected to, is none.
    for name in ["w1", "c", "b", ""] {
        let stranger = settings(name, &keys(1, 1));
        assert_eq!(refused(&stranger, "b", 0, &b).await, "sync_name", "{name}");
    }
}

#[tokio::test]
async fn keys_rotate_in_any_order() {
    let text = |ids: &[u16]| {
        let line = |id: &u16| keys(*id, u8::try_from(*id).unwrap()).to_text().to_string();
        Keyring::parse(&ids.iter().map(line).collect::<String>()).unwrap()
    };
    let established = async |a: &[u16], attempt, b: &[u16]| {
        let (a, b) = (settings("a", &text(a)), settings("b", &text(b)));
        let (one, other) = meet(&a, "b", attempt, &b).await;
        one.is_ok() && other.is_ok()
    };
    assert!(established(&[1, 2], 0, &[1]).await);
    assert!(established(&[1, 2], 0, &[2, 1]).await);
    // The first is not known there yet: the next attempt takes the next one, then the first again.
    assert!(!established(&[2, 1], 0, &[1]).await);
    assert!(established(&[2, 1], 1, &[1]).await);
    assert!(established(&[2, 1], 2, &[2]).await);
}

#[tokio::test]
async fn a_recorded_connection_is_worth_nothing() {
    let (a, b) = (settings("a", &keys(1, 1)), settings("b", &keys(1, 1)));
    // A proxy that records all that the initiator says.
    let (near, far) = (pair().await, pair().await);
    let (client, mut proxy_near) = near;
    let (proxy_far, server) = far;
    let (mut far_read, mut far_write) = proxy_far.into_split();
    let recorded = async {
        let mut all = Vec::new();
        let (mut near_read, mut near_write) = proxy_near.split();
        let back = tokio::io::copy(&mut far_read, &mut near_write);
        let forth = async {
            let mut bytes = [0; 4096];
            loop {
                let count = near_read.read(&mut bytes).await.unwrap();
                if count == 0 {
                    return;
                }
                all.extend_from_slice(&bytes[..count]);
                far_write.write_all(&bytes[..count]).await.unwrap();
            }
        };
        tokio::select! { _ = back => {}, () = forth => {} }
        all
    };
    let talk = async {
        let (one, other) = tokio::join!(connect(client, &a, "b", 0), accept(server, &b));
        assert!(one.is_ok() && other.is_ok(), "the proxy is transparent");
    };
    let (recorded, ()) = tokio::join!(recorded, talk);
    let (mut replay, server) = pair().await;
    replay.write_all(&recorded).await.unwrap();
    assert_eq!(accept(server, &b).await.err().unwrap().word(), "sync_handshake");
}

#[tokio::test]
async fn what_does_not_begin_as_it_should_is_refused() {
    let b = settings("b", &keys(1, 1));
    let good = greeting(1, "a");
    let framed = |bytes: &[u8]| {
        let mut frame = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        frame.extend_from_slice(bytes);
        frame
    };
    let mut other_version = good.clone();
    other_version[MAGIC.len()] = 9;
    let mut longer = good.clone();
    longer.push(b'x');
    let mut handshake = framed(&good);
    handshake.extend(framed(&[0; 48]));
    for (bytes, word) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "sync_greeting"),
        (framed(b""), "sync_greeting"),
        (framed(&good[..good.len() - 1]), "sync_greeting"),
        (framed(&longer), "sync_greeting"),
        (framed(&other_version), "sync_version"),
        (framed(&[b'w'; 513]), "sync_greeting"),
        (framed(&greeting(7, "a")), "sync_key_id"),
        (handshake, "sync_handshake"),
        (vec![0], "sync_io"),
    ] {
        let (mut one, other) = pair().await;
        one.write_all(&bytes).await.unwrap();
        one.shutdown().await.unwrap();
        assert_eq!(accept(other, &b).await.err().unwrap().word(), word, "{bytes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_sent_away() {
    let (one, other) = pair().await;
    let b = settings("b", &keys(1, 1));
    assert_eq!(accept(other, &b).await.err().unwrap().word(), "sync_timeout");
    drop(one);
}

#[tokio::test]
async fn a_changed_byte_ends_it() {
    let (a, b) = (settings("a", &keys(1, 1)), settings("b", &keys(1, 1)));
    let (one, other) = meet(&a, "b", 0, &b).await;
    let (mut one, mut other) = (one.unwrap(), other.unwrap());
    let bytes = Message::Alive {}.to_bytes();
    let mut sealed = vec![0; bytes.len() + TAG];
    one.sender.noise.write_message(one.sender.count, &bytes, &mut sealed).unwrap();
    sealed[3] ^= 1;
    write_frame(&mut one.sender.stream, &sealed).await.unwrap();
    assert_eq!(other.receiver.receive().await.unwrap_err().word(), "sync_handshake");
}

#[tokio::test]
async fn messages_are_bounded_and_must_be_messages() {
    let (a, b) = (settings("a", &keys(1, 1)), settings("b", &keys(1, 1)));
    let (one, other) = meet(&a, "b", 0, &b).await;
    let (mut one, mut other) = (one.unwrap(), other.unwrap());
    let of_size = |bytes: usize| {
        let empty = Message::Hello { version: String::new() }.to_bytes().len();
        Message::Hello { version: "x".repeat(bytes - empty) }
    };
    assert_eq!(
        one.sender.send(&of_size(MAX_MESSAGE + 1)).await.unwrap_err().word(),
        "sync_message"
    );
    let largest = of_size(MAX_MESSAGE);
    let (sent, received) = tokio::join!(one.sender.send(&largest), other.receiver.receive());
    sent.unwrap();
    assert_eq!(received.unwrap(), largest);
    let mut sealed = vec![0; 5 + TAG];
    one.sender.noise.write_message(one.sender.count, b"hello", &mut sealed).unwrap();
    write_frame(&mut one.sender.stream, &sealed).await.unwrap();
    assert_eq!(other.receiver.receive().await.unwrap_err().word(), "sync_message");
}
