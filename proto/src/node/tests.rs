//! What datagrams may and may not do to a node. Here because forging needs the node's own tools.

use std::time::Duration;

use super::*;
use crate::api::{Broken, PeerConfig, PeerSnapshot, Role, WireguardKind};
use crate::election::Input;
use crate::seal::SealKeys;
use crate::wire::body::{Body, Echo};
use crate::wire::{HEADER_LEN, Header, TAG_LEN};
use crate::{Boot, cluster_tag, node_tag};

const I: Duration = Duration::from_millis(100);

fn at(ms: u64) -> Time {
    Time::from_nanos((1_000_000 + ms) * 1_000_000)
}

fn config(name: &str) -> NodeConfig {
    let peer = if name == "gw1" { "gw2" } else { "gw1" };
    NodeConfig {
        cluster: "edge".into(),
        name: name.into(),
        witness: false,
        priority: if name == "gw1" { 150 } else { 100 },
        interval: I,
        misses: 3,
        preempt: None,
        handover_timeout: 5 * I,
        neighbour_retry: Duration::ZERO,
        fingerprint: [1; 16],
        wireguard: WireguardKind::Kernel,
        quorum: crate::Quorum::None,
        peers: vec![PeerConfig { name: peer.into(), witness: false, paths: 1 }],
    }
}

fn ring() -> Keyring {
    Keyring::generate(7, [9; 32])
}

fn boot(config: NodeConfig, session: u8, now: Time) -> Node {
    let boot = Boot {
        session: [session; 16],
        obituary_secret: [session; 32],
        highest_term: 0,
        maintenance: false,
        votes: None,
    };
    let mut node = Node::new(config, ring(), boot, now);
    node.handle_report(now, Report::Ability(Ability::Ready));
    node
}

/// All datagrams that a node wants to send now.
fn drain(node: &mut Node, now: Time) -> Vec<Vec<u8>> {
    let (mut all, mut out) = (Vec::new(), Vec::new());
    while node.poll_transmit(now, &mut out).is_some() {
        all.push(out.clone());
    }
    all
}

/// Lets two nodes talk until nothing more is said.
fn talk(a: &mut Node, b: &mut Node, now: Time) {
    loop {
        let (from_a, from_b) = (drain(a, now), drain(b, now));
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        for mut bytes in from_a {
            let _ = b.handle_datagram(now, &mut bytes);
        }
        for mut bytes in from_b {
            let _ = a.handle_datagram(now, &mut bytes);
        }
    }
}

/// Two nodes that talked from 0 ms to `until` ms, each interval. gw1 is master.
fn pair(until: u64) -> (Node, Node) {
    let (mut a, mut b) = (boot(config("gw1"), 1, at(0)), boot(config("gw2"), 2, at(0)));
    for ms in (0..=until).step_by(20) {
        a.handle_timeout(at(ms));
        b.handle_timeout(at(ms));
        talk(&mut a, &mut b, at(ms));
    }
    assert_eq!((a.level().role, b.level().role), (Role::Master, Role::Backup));
    (a, b)
}

/// The next heartbeat of a node, caught.
fn caught(node: &mut Node, ms: u64) -> Vec<u8> {
    node.handle_timeout(at(ms));
    drain(node, at(ms)).remove(0)
}

/// What must not change when a datagram is refused.
fn trace(node: &Node, now: Time) -> String {
    let mut picture = node.snapshot(now);
    picture.refusals.clear();
    format!("{picture:?} {:?} {}", node.poll_timeout(), node.peers[0].pending)
}

/// Hands a datagram to the node, which must refuse it for this reason, unmoved.
#[track_caller]
fn refused(node: &mut Node, ms: u64, bytes: &[u8], reason: Refusal) {
    node.handle_timeout(at(ms));
    drain(node, at(ms));
    while node.poll_event().is_some() {}
    let before = trace(node, at(ms));
    assert_eq!(node.handle_datagram(at(ms), &mut bytes.to_vec()), Err(reason));
    assert_eq!(trace(node, at(ms)), before, "{reason:?}");
    assert_eq!(node.poll_event(), None);
}

/// A datagram from gw1 to gw2 of session 1, with any body, sealed as it should be.
fn forged(body: &Body, counter: u64) -> Vec<u8> {
    let mut datagram = plain(counter);
    body.encode(&mut datagram);
    seal(&mut datagram);
    datagram
}

fn plain(counter: u64) -> Vec<u8> {
    let header = Header {
        path: 0,
        key: 7,
        cluster: cluster_tag("edge"),
        sender: node_tag("edge", "gw1"),
        receiver: node_tag("edge", "gw2"),
        session: [1; 16],
        counter,
    };
    let mut datagram = Vec::new();
    header.encode(&mut datagram);
    datagram
}

fn seal(datagram: &mut Vec<u8>) {
    let ring = ring();
    let prk = ring.find(7, false).unwrap();
    SealKeys::derive(prk, "edge", &[1; 16], "gw1", "gw2").seal(datagram).unwrap();
}

/// A body as gw1, the master, would send it, echoing what gw2 sent last.
fn body(b: &Node, number: u64) -> Body {
    let mut a = boot(config("gw1"), 1, at(0));
    a.queue_all();
    let number_of_b = b.peers[0].log.clone().next(at(0)) - 1;
    Body {
        echo: Some(Echo { session: [2; 16], number: number_of_b, age_us: 0 }),
        role: Role::Master,
        term: 1,
        highest_term: 1,
        ..a.body(0, number).unwrap()
    }
}

#[test]
fn every_changed_byte_is_refused_and_changes_nothing() {
    let (mut a, mut b) = pair(1000);
    let good = caught(&mut a, 1100);
    for at_byte in 0..good.len() {
        for bit in [1, 0x80] {
            let mut bad = good.clone();
            bad[at_byte] ^= bit;
            b.handle_timeout(at(1100));
            drain(&mut b, at(1100));
            let before = trace(&b, at(1100));
            assert!(b.handle_datagram(at(1100), &mut bad).is_err(), "byte {at_byte}");
            assert_eq!(trace(&b, at(1100)), before, "byte {at_byte}");
        }
    }
    assert_eq!(b.handle_datagram(at(1100), &mut good.clone()), Ok(()));
}

#[test]
fn truncated_and_over_long() {
    let (mut a, mut b) = pair(1000);
    let good = caught(&mut a, 1100);
    for len in 0..good.len() {
        let reason = if len < HEADER_LEN + TAG_LEN { Refusal::Length } else { Refusal::Seal };
        refused(&mut b, 1100, &good[..len], reason);
    }
    for len in [good.len() + 1, 1200, 1201, 65_535] {
        let mut long = good.clone();
        long.resize(len, 0);
        let reason = if len > 1200 { Refusal::Length } else { Refusal::Seal };
        refused(&mut b, 1100, &long, reason);
    }
}

#[test]
fn each_part_of_the_header_is_refused_by_its_name() {
    let (mut a, mut b) = pair(1000);
    let good = caught(&mut a, 1100);
    let other = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let table = [
        (other(0, b"WGHA"), Refusal::Magic),
        (other(4, &[0]), Refusal::Version),
        (other(4, &[2]), Refusal::Version),
        (other(5, &[8]), Refusal::Path),
        (other(6, &8_u16.to_be_bytes()), Refusal::Key),
        (other(8, &cluster_tag("other")), Refusal::Cluster),
        (other(16, &node_tag("edge", "gw3")), Refusal::Sender),
        (other(16, &node_tag("edge", "gw2")), Refusal::Reflection),
        (other(24, &node_tag("edge", "gw3")), Refusal::Receiver),
        (other(32, &[3]), Refusal::Seal),
    ];
    for (bytes, reason) in table {
        refused(&mut b, 1100, &bytes, reason);
    }
    // My own datagram, come back.
    refused(&mut a, 1100, &good, Refusal::Reflection);
    let counts = b.snapshot(at(1100)).refusals;
    assert!(counts.contains(&("version", 2)), "{counts:?}");
}

#[test]
fn another_cluster_with_the_same_tag_does_not_open() {
    let (mut a, mut b) = pair(1000);
    let good = caught(&mut a, 1100);
    b.config.cluster = "other".into();
    b.peers[0].rx = None;
    refused(&mut b, 1100, &good, Refusal::Seal);
}

#[test]
fn a_nonce_that_is_not_synthetic() {
    use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
    let (_, mut b) = pair(1000);
    let mut datagram = plain(500);
    datagram[56..68].copy_from_slice(&[5; 12]);
    let mut sealed = Vec::new();
    body(&b, 500).encode(&mut sealed);
    let ring = ring();
    let mut okm = [0; 64];
    let info: [&[u8]; 8] =
        [b"heartbeat", &[0, 4], b"edge", &[1; 16], &[0, 3], b"gw1", &[0, 3], b"gw2"];
    crate::keys::expand(ring.find(7, false).unwrap(), &info, &mut okm);
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &okm[..32]).unwrap());
    let nonce = Nonce::assume_unique_for_key([5; 12]);
    key.seal_in_place_append_tag(nonce, Aad::from(&datagram), &mut sealed).unwrap();
    datagram.extend(sealed);
    refused(&mut b, 1000, &datagram, Refusal::Nonce);
}

/// Which datagrams are opened after a flood in gw1's name. The next of its session always; another session again when time has passed.
#[test]
fn a_flood_in_a_peers_name_hides_nothing_of_its_session() {
    let (mut a, mut b) = pair(10_000);
    let good = caught(&mut a, 10_100);
    let counter = u64::from_be_bytes(good[48..56].try_into().unwrap());
    let made = |session: [u8; 16], counter: u64| {
        let mut datagram = good.clone();
        datagram[32..48].copy_from_slice(&session);
        datagram[48..56].copy_from_slice(&counter.to_be_bytes());
        datagram
    };
    let told = |b: &mut Node, mut datagram: Vec<u8>| b.handle_datagram(at(10_100), &mut datagram);
    for n in 0..2000 {
        assert_eq!(told(&mut b, made([3; 16], n)), Err(Refusal::Seal));
    }
    let ours = [1; 16];
    for (datagram, expected) in [
        (made([3; 16], 7), Err(Refusal::Flooded)),
        // One that was seen, which is authentic, and what nobody can have lost so many before.
        (made(ours, counter - 1), Err(Refusal::Flooded)),
        (made(ours, counter - 64), Err(Refusal::Flooded)),
        (made(ours, counter + 1025), Err(Refusal::Flooded)),
        (made(ours, u64::MAX), Err(Refusal::Flooded)),
        // What could be the next is opened, and is none.
        (made(ours, counter + 1), Err(Refusal::Seal)),
        (made(ours, counter + 1023), Err(Refusal::Seal)),
        (good.clone(), Ok(())),
    ] {
        assert_eq!(told(&mut b, datagram), expected);
    }
    // What is the next costs nothing of it, however often it is wrong.
    for n in 0..5000 {
        assert_eq!(told(&mut b, made(ours, counter + 1 + n % 1000)), Err(Refusal::Seal));
    }
    let mut later = made([3; 16], 8);
    assert_eq!(b.handle_datagram(at(10_101), &mut later.clone()), Err(Refusal::Seal));
    // What is refused unopened costs nothing either: 20 more within this millisecond, and no more.
    let more = (0..100).filter(|_| b.handle_datagram(at(10_101), &mut later) == Err(Refusal::Seal));
    assert_eq!(more.count(), 19);
}

/// A node that was away, or started again, while somebody floods in its name at ten times the rate.
#[test]
fn a_new_session_gets_through_a_flood() {
    let (_, mut b) = pair(1000);
    let mut a = boot(config("gw1"), 9, at(1500));
    let mut noise = forged(&body(&b, 1), 1);
    noise[32..48].copy_from_slice(&[3; 16]);
    let established = (1500..60_000).step_by(20).find(|ms| {
        let now = at(*ms);
        // Its own come somewhere among 4000 in 20 ms.
        for n in 0..4000 {
            let _ = b.handle_datagram(now, &mut noise.clone());
            if n == (ms * 7919) % 4000 {
                a.handle_timeout(now);
                b.handle_timeout(now);
                talk(&mut a, &mut b, now);
            }
        }
        b.snapshot(now).peers[0].alive
    });
    assert!(established.is_some_and(|ms| ms < 30_000), "{established:?}");
}

#[test]
fn replays_of_this_session() {
    let (mut a, mut b) = pair(1000);
    let good = caught(&mut a, 1100);
    assert_eq!(b.handle_datagram(at(1100), &mut good.clone()), Ok(()));
    refused(&mut b, 1100, &good, Refusal::Replayed);
    // Replays do not keep a silent peer alive.
    for ms in (1120..2000).step_by(20) {
        refused(&mut b, ms, &good, Refusal::Replayed);
    }
    assert!(!b.snapshot(at(2000)).peers[0].alive);
}

#[test]
fn replays_of_an_earlier_boot_do_not_make_the_peer_look_dead() {
    let (mut old, mut b) = pair(1000);
    let recorded = caught(&mut old, 1100);
    for ms in (1000..1500).step_by(20) {
        b.handle_timeout(at(ms));
        drain(&mut b, at(ms));
    }
    // gw1 starts again and becomes known.
    let mut a = boot(config("gw1"), 3, at(1500));
    for ms in (1500..3000).step_by(20) {
        a.handle_timeout(at(ms));
        b.handle_timeout(at(ms));
        talk(&mut a, &mut b, at(ms));
    }
    while b.poll_event().is_some() {}
    assert!(b.peers[0].is_established(&[3; 16]));
    for ms in (3000..5000).step_by(20) {
        a.handle_timeout(at(ms));
        b.handle_timeout(at(ms));
        talk(&mut a, &mut b, at(ms));
        let result = b.handle_datagram(at(ms), &mut recorded.clone());
        assert_eq!(result, Err(Refusal::UnknownSession));
        drain(&mut b, at(ms));
        assert!(b.snapshot(at(ms)).peers[0].alive);
    }
    assert!(b.peers[0].is_established(&[3; 16]));
    assert!(b.poll_event().is_none());
    assert_eq!(a.level().role, Role::Backup);
}

#[test]
fn an_unknown_session_gets_a_bounded_number_of_answers() {
    let (mut a, _) = pair(1000);
    let mut b = boot(config("gw2"), 5, at(1100));
    drain(&mut b, at(1100));
    let recorded = caught(&mut a, 1100);
    let mut answers = 0;
    for ms in 1100..2100 {
        assert_eq!(b.handle_datagram(at(ms), &mut recorded.clone()), Err(Refusal::UnknownSession));
        let mut out = Vec::new();
        while let Some(destination) = b.poll_transmit(at(ms), &mut out) {
            answers += usize::from(destination == Destination::Sender);
        }
    }
    assert!((10..=14).contains(&answers), "{answers} in ten intervals");
    assert!(b.peers[0].session.is_none(), "a replay alone never becomes a session");
}

#[test]
fn an_echo_of_what_was_never_sent() {
    let (_, mut b) = pair(1000);
    let mut lie = body(&b, 500);
    lie.echo = Some(Echo { session: [2; 16], number: 1_000_000, age_us: 0 });
    // It is refused, and says nothing of its sender; but that b was copied, or set back, is true whoever learns it.
    let heard = b.peers[0].last_heard;
    assert_eq!(b.handle_datagram(at(1000), &mut forged(&lie, 500)), Err(Refusal::NeverSent));
    assert_eq!(b.peers[0].last_heard, heard);
    assert!(
        b.wants_session() && drain(&mut b, at(1000)).is_empty(),
        "another has this session too"
    );
    // And it never takes over in it, though gw1 is silent now.
    for ms in (1020..20_000).step_by(20) {
        b.handle_timeout(at(ms));
        assert!(drain(&mut b, at(ms)).is_empty());
        assert_ne!(b.level().role, Role::Master);
    }
}

/// One time as good as another for a clock that jumped: whatever comes first after the gap, the permission is gone before.
#[test]
fn a_gap_of_the_clock_ends_the_permission_before_anything_else() {
    for input in 0..4 {
        let (mut a, mut b) = pair(1000);
        assert!(a.permitted_until().is_some());
        let late = caught(&mut b, 1100);
        let now = at(1500);
        match input {
            0 => a.handle_timeout(now),
            1 => drop(a.handle_datagram(now, &mut late.clone())),
            2 => a.handle_report(now, Report::Entered(1)),
            _ => drop(a.handle_command(now, Command::Maintenance { on: false, force: false })),
        }
        assert_eq!(a.permitted_until(), None, "input {input}");
        assert_eq!(a.level().role, Role::Backup);
        assert!(matches!(a.level().reason, Reason::Slept(_)), "{:?}", a.level().reason);
    }
}

#[test]
fn an_authentic_body_that_makes_no_sense() {
    let (_, mut b) = pair(1000);
    for junk in [&[][..], &[1, 8], &[255; 40]] {
        let mut datagram = plain(500);
        datagram.extend_from_slice(junk);
        seal(&mut datagram);
        refused(&mut b, 1000, &datagram, Refusal::Malformed);
    }
}

#[test]
fn an_older_message_is_only_a_sign_of_life() {
    let (_, mut b) = pair(1000);
    let newer = Body { flags: Default::default(), ..body(&b, 502) };
    let older = Body { priority: 7, ..body(&b, 501) };
    assert_eq!(b.handle_datagram(at(1000), &mut forged(&newer, 502)), Ok(()));
    assert_eq!(b.handle_datagram(at(1010), &mut forged(&older, 501)), Ok(()));
    let peer = &b.snapshot(at(1010)).peers[0];
    assert_eq!((peer.priority, peer.last_heard), (Some(newer.priority), Some(Duration::ZERO)));
}

#[test]
fn a_late_message_tells_a_term_but_no_claim() {
    let (_, mut b) = pair(1000);
    let mut late = Body { term: 40, highest_term: 41, ..body(&b, 500) };
    late.echo = Some(Echo { session: [2; 16], number: 1, age_us: 0 });
    let before = b.peers[0].claim;
    assert_eq!(b.handle_datagram(at(1000), &mut forged(&late, 500)), Ok(()));
    assert_eq!(b.highest, 41);
    assert_eq!(b.peers[0].claim, before);
    assert_eq!(b.peers[0].last_timely, Some(at(1000)), "of the pair, not of this one");
}

#[test]
fn a_release_is_honoured_once_and_below_no_higher_term() {
    use crate::wire::body::Release;
    let (_, mut b) = pair(1000);
    let release = Release { term: 1, successor: b.tag, remaining_ms: 300, sequence: 1 };
    let released = Body { role: Role::Backup, term: 0, release: Some(release), ..body(&b, 500) };
    b.highest = 5;
    assert_eq!(b.handle_datagram(at(1000), &mut forged(&released, 500)), Ok(()));
    assert_eq!(b.level().role, Role::Backup, "a higher term is known: its master may live");
    b.handle_timeout(at(1200));
    assert_eq!(b.level().role, Role::Backup);
    b.handle_timeout(at(1301));
    let reason = Reason::MasterReleased("gw1".into());
    assert_eq!(b.level().reason, reason, "it does not");
    let (_, mut b) = pair(1000);
    assert_eq!(b.handle_datagram(at(1000), &mut forged(&released, 500)), Ok(()));
    assert_eq!((b.level().role, b.level().term), (Role::Master, 2));
    assert_eq!(b.level().reason, Reason::HandoverFrom("gw1".into()));
    b.maintenance = true;
    b.step(Input::Leave, Reason::Maintenance);
    b.left(2);
    let again = Body { number: 501, ..released };
    assert_eq!(b.handle_datagram(at(1000), &mut forged(&again, 501)), Ok(()));
    assert_eq!(b.level().role, Role::Backup);
}

#[test]
fn two_processes_of_one_name() {
    let (mut a, mut b) = pair(1000);
    let mut copy = boot(config("gw1"), 9, at(1100));
    let round = |copy: &mut Node, a: Option<&mut Node>, b: &mut Node, ms| {
        b.handle_timeout(at(ms));
        if let Some(a) = a {
            a.handle_timeout(at(ms));
            talk(a, b, at(ms));
        }
        copy.handle_timeout(at(ms));
        if b.peers[0].is_established(&[9; 16]) {
            return talk(copy, b, at(ms));
        }
        let mut out = Vec::new();
        for mut bytes in drain(copy, at(ms)) {
            let _ = b.handle_datagram(at(ms), &mut bytes);
            if b.poll_transmit(at(ms), &mut out) == Some(Destination::Sender) {
                let _ = copy.handle_datagram(at(ms), &mut out);
            }
        }
    };
    for ms in (1100..2500).step_by(20) {
        round(&mut copy, Some(&mut a), &mut b, ms);
        assert_ne!(copy.level().role, Role::Master);
    }
    assert_eq!(copy.level().reason, Reason::DuplicateName);
    assert_eq!((a.level().role, copy.level().role), (Role::Master, Role::Fault));
    assert!(b.peers[0].is_established(&[1; 16]), "the established one stays");
    assert_eq!(b.level().role, Role::Backup);
    // The established one goes away: the other recovers.
    for ms in (2500..6000).step_by(20) {
        round(&mut copy, None, &mut b, ms);
    }
    assert!(b.peers[0].is_established(&[9; 16]));
    assert_eq!(copy.level().reason, Reason::Recovered);
}

#[test]
fn keys_rotate_without_a_missed_heartbeat() {
    let (mut a, mut b) = pair(1000);
    while a.poll_event().or_else(|| b.poll_event()).is_some() {}
    let new = Keyring::generate(8, [5; 32]);
    let (old, new) = (ring().to_text().to_string(), new.to_text().to_string());
    let steps = [
        (format!("{old}{new}"), old.clone()),
        (format!("{old}{new}"), format!("{old}{new}")),
        (format!("{new}{old}"), format!("{old}{new}")),
        (format!("{new}{old}"), format!("{new}{old}")),
        (new.clone(), format!("{new}{old}")),
        (new.clone(), new.clone()),
    ];
    let mut ms = 1020;
    for (of_a, of_b) in steps {
        a.reconfigure(at(ms), config("gw1"), Keyring::parse(&of_a).unwrap());
        b.reconfigure(at(ms), config("gw2"), Keyring::parse(&of_b).unwrap());
        for _ in 0..20 {
            a.handle_timeout(at(ms));
            b.handle_timeout(at(ms));
            talk(&mut a, &mut b, at(ms));
            ms += 20;
        }
        assert!(a.snapshot(at(ms)).peers[0].last_heard.unwrap() <= I, "step that ends at {ms}");
        assert!(b.snapshot(at(ms)).peers[0].last_heard.unwrap() <= I, "step that ends at {ms}");
    }
    assert!(a.poll_event().is_none() && b.poll_event().is_none());
    let refusals = b.snapshot(at(ms)).refusals;
    assert!(refusals.iter().all(|(word, n)| *n == 0 || *word == "unknown-session"), "{refusals:?}");
}

#[test]
fn a_thousand_reloads_change_no_role() {
    let (mut a, mut b) = pair(1000);
    while a.poll_event().or_else(|| b.poll_event()).is_some() {}
    for n in 0..1000 {
        let ms = 1020 + n * 3;
        a.reconfigure(at(ms), config("gw1"), ring());
        b.reconfigure(at(ms), config("gw2"), ring());
        talk(&mut a, &mut b, at(ms));
    }
    assert_eq!((a.level().role, b.level().role), (Role::Master, Role::Backup));
    assert!(a.poll_event().is_none() && b.poll_event().is_none());
}

#[test]
fn a_peer_that_leaves_the_config_is_a_stranger() {
    let (mut a, mut b) = pair(1000);
    b.reconfigure(at(1000), NodeConfig { peers: Vec::new(), ..config("gw2") }, ring());
    let good = caught(&mut a, 1100);
    assert_eq!(b.handle_datagram(at(1100), &mut good.clone()), Err(Refusal::Sender));
}

#[test]
fn heartbeats_keep_an_absolute_schedule() {
    let mut a = boot(config("gw1"), 1, at(0));
    drain(&mut a, at(0));
    let mut sent = Vec::new();
    for ms in 1..=1000 {
        // Called late by up to 30 ms, always.
        if ms % 31 == 0 {
            a.handle_timeout(at(ms));
            sent.extend(drain(&mut a, at(ms)).iter().map(|_| ms));
        }
    }
    // One for each interval, and one for the change from init.
    assert!((9..=11).contains(&sent.len()), "{sent:?}");
    // After a sleep: one, not one for each that was missed.
    a.handle_timeout(at(10_050));
    assert_eq!(drain(&mut a, at(10_050)).len(), 1);
    assert_eq!(a.next_heartbeat, at(10_100));
}

#[test]
fn a_now_that_goes_back_is_the_last_one_seen() {
    let (mut a, _) = pair(1000);
    a.handle_timeout(at(5));
    assert_eq!(a.now, at(1000));
    assert!(a.poll_timeout() > at(1000));
    assert_eq!(a.level().role, Role::Master);
}

#[test]
fn round_trip_and_clock_offset() {
    let (mut a, mut b) = (boot(config("gw1"), 1, at(0)), boot(config("gw2"), 2, at(0)));
    a.set_wall_offset(1_000_000_000);
    b.set_wall_offset(-2_000_000_000);
    // Each direction takes 10 ms; what is sent at one step arrives at the next.
    let mut flying: Vec<(bool, Vec<u8>)> = Vec::new();
    for ms in (0..3000).step_by(10) {
        for (to_b, mut bytes) in std::mem::take(&mut flying) {
            let node = if to_b { &mut b } else { &mut a };
            let _ = node.handle_datagram(at(ms), &mut bytes);
            flying.extend(drain(node, at(ms)).into_iter().map(|bytes| (!to_b, bytes)));
        }
        for (to_b, node) in [(true, &mut a), (false, &mut b)] {
            node.handle_timeout(at(ms));
            flying.extend(drain(node, at(ms)).into_iter().map(|bytes| (to_b, bytes)));
        }
    }
    let peer = &a.snapshot(at(3000)).peers[0];
    assert_eq!(peer.rtt, Some(Duration::from_millis(20)));
    assert_eq!(peer.clock_offset_ns, Some(-3_000_000_000));
    assert!(peer.loss.abs() < f64::EPSILON);
    assert_eq!(alive_paths(peer), [true]);
}

fn alive_paths(peer: &PeerSnapshot) -> Vec<bool> {
    peer.paths.iter().map(|path| path.alive).collect()
}

/// Two nodes with two paths, up to `end` ms; `passes` says which datagrams arrive: (to b, path, ms).
fn two_paths(end: u64, passes: impl Fn(bool, u8, u64) -> bool) -> (Node, Node) {
    let two = |name| {
        let mut config = config(name);
        config.peers[0].paths = 2;
        config
    };
    let (mut a, mut b) = (boot(two("gw1"), 1, at(0)), boot(two("gw2"), 2, at(0)));
    for ms in (0..=end).step_by(20) {
        a.handle_timeout(at(ms));
        b.handle_timeout(at(ms));
        let mut flying: VecDeque<(bool, Vec<u8>)> = VecDeque::new();
        flying.extend(drain(&mut a, at(ms)).into_iter().map(|bytes| (true, bytes)));
        flying.extend(drain(&mut b, at(ms)).into_iter().map(|bytes| (false, bytes)));
        while let Some((to_b, mut bytes)) = flying.pop_front() {
            if passes(to_b, bytes[5], ms) {
                let node = if to_b { &mut b } else { &mut a };
                let _ = node.handle_datagram(at(ms), &mut bytes);
                flying.extend(drain(node, at(ms)).into_iter().map(|bytes| (!to_b, bytes)));
            }
        }
    }
    (a, b)
}

#[test]
fn both_ends_name_the_broken_direction() {
    use Broken::{Both, Receive, Send};
    let broken = |node: &Node| -> Vec<Option<Broken>> {
        node.snapshot(at(3000)).peers[0].paths.iter().map(|path| path.broken).collect()
    };
    let (a, b) = two_paths(2980, |_, _, _| true);
    assert_eq!((broken(&a), broken(&b)), (vec![None; 2], vec![None; 2]));
    // From a to b the first path breaks.
    let (a, b) = two_paths(2980, |to_b, path, ms| ms < 1500 || !(to_b && path == 0));
    assert_eq!((broken(&a), broken(&b)), (vec![Some(Send), None], vec![Some(Receive), None]));
    // Both paths to b break: b cannot tell whether a lives.
    let (a, b) = two_paths(2980, |to_b, _, ms| ms < 1500 || !to_b);
    assert_eq!((broken(&a), broken(&b)), (vec![Some(Send); 2], vec![None; 2]));
    assert!(!a.snapshot(at(3000)).peers[0].alive, "who does not hear is not alive");
    // The first path breaks one way, the second the other way.
    let (a, b) = two_paths(2980, |to_b, path, ms| ms < 1500 || to_b == (path == 1));
    assert_eq!(broken(&a), [Some(Send), Some(Receive)]);
    assert_eq!(broken(&b), [Some(Receive), Some(Send)]);
    assert!(a.snapshot(at(3000)).peers[0].alive && b.snapshot(at(3000)).peers[0].alive);
    // Both ways of the second one.
    let (a, _) = two_paths(2980, |_, path, ms| ms < 1500 || path == 0);
    assert_eq!(broken(&a), [None, Some(Both)]);
    // The other one is gone.
    let (a, _) = two_paths(2980, |_, _, ms| ms < 1500);
    assert_eq!(broken(&a), [None; 2]);
}

#[test]
fn any_live_path_keeps_a_peer_alive() {
    let (a, _) = two_paths(1400, |_, _, _| true);
    assert_eq!(alive_paths(&a.snapshot(at(1400)).peers[0]), [true, true]);
    // After 1500 ms only the second path works.
    let (a, b) = two_paths(2980, |_, path, ms| ms < 1500 || path == 1);
    for node in [&a, &b] {
        let peer = &node.snapshot(at(3000)).peers[0];
        assert_eq!((peer.alive, &alive_paths(peer)[..]), (true, &[false, true][..]));
        assert_eq!(peer.paths[0].broken, Some(Broken::Both));
    }
    assert_eq!((a.level().role, b.level().role), (Role::Master, Role::Backup));
}

#[test]
fn a_repeated_release_moves_nothing() {
    use crate::wire::body::Release;
    let (_, mut b) = pair(1000);
    b.maintenance = true;
    let release = Release { term: 1, successor: [0; 8], remaining_ms: 300, sequence: 1 };
    let first = Body { role: Role::Backup, term: 0, release: Some(release), ..body(&b, 500) };
    let again = Body { number: 501, ..first.clone() };
    assert_eq!(b.handle_datagram(at(1000), &mut forged(&first, 500)), Ok(()));
    assert_eq!(b.handle_datagram(at(1050), &mut forged(&again, 501)), Ok(()));
    assert_eq!(b.vacancy.since, at(1000), "the repetition does not restart anyone's wait");
}

#[test]
fn a_master_that_is_leaving_displaces_nobody() {
    for (leaving, role) in [(true, Role::Master), (false, Role::Backup)] {
        let (_, mut b) = pair(1000);
        b.step(Input::Won, Reason::NoMaster);
        let mut claim = Body { term: 9, highest_term: 9, ..body(&b, 500) };
        claim.flags.leaving = leaving;
        assert_eq!(b.handle_datagram(at(1000), &mut forged(&claim, 500)), Ok(()));
        assert_eq!(b.level().role, role, "leaving: {leaving}");
    }
}

mod floating;
mod obituary;
mod permit;
mod session;
