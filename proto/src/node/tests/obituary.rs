//! The end of a session by its secret: who may show it, to whom, and what it changes.

use super::*;
use crate::wire::body::Obituary;

/// The one datagram that ends the session of a node with one peer and one path.
fn last_word(node: &Node) -> Vec<u8> {
    let mut all = node.obituaries();
    assert_eq!(all.len(), 1);
    let (peer, path, bytes) = all.remove(0);
    assert_eq!((peer, path), (0, 0));
    bytes
}

/// A heartbeat of gw1 to `b` that shows a secret.
fn showing(b: &Node, number: u64, secret: [u8; 32]) -> Vec<u8> {
    let obituary = Some(Obituary { node: node_tag("edge", "gw1"), session: [1; 16], secret });
    forged(&Body { obituary, ..body(b, number) }, number)
}

#[test]
fn in_any_heartbeat() {
    let (_, mut b) = pair(1000);
    let mut wrong = showing(&b, 500, [8; 32]);
    assert_eq!(b.handle_datagram(at(1000), &mut wrong), Ok(()));
    assert_eq!(b.level().role, Role::Backup);
    let mut right = showing(&b, 501, [1; 32]);
    assert_eq!(b.handle_datagram(at(1000), &mut right), Ok(()));
    // The master is dead for certain: nothing to wait for, and no evidence to look for.
    assert_eq!(b.level().role, Role::Master);
    assert_eq!(b.level().reason, Reason::MasterObituary("gw1".into()));
    let ghost = forged(&body(&b, 502), 502);
    refused(&mut b, 1000, &ghost, Refusal::Ended);
}

#[test]
fn made_at_the_start_and_shown_much_later() {
    let (mut a, mut b) = (boot(config("gw1"), 1, at(0)), boot(config("gw2"), 2, at(0)));
    let mut shown = last_word(&a);
    // Far more heartbeats than a window of counters holds.
    for ms in (0..=60_000).step_by(20) {
        a.handle_timeout(at(ms));
        b.handle_timeout(at(ms));
        talk(&mut a, &mut b, at(ms));
    }
    assert_eq!((a.level().role, b.level().role), (Role::Master, Role::Backup));
    assert_eq!(last_word(&a), shown, "it does not age");
    let copy = shown.clone();
    assert_eq!(b.handle_datagram(at(60_000), &mut shown), Ok(()));
    assert_eq!((b.level().role, b.level().term), (Role::Master, 2));
    assert_eq!(b.level().reason, Reason::MasterObituary("gw1".into()));
    // Once and for ever: neither it nor anything else of that session counts again.
    refused(&mut b, 60_000, &copy, Refusal::Ended);
    let ghost = caught(&mut a, 60_100);
    refused(&mut b, 60_100, &ghost, Refusal::Ended);
    let mut restarted = boot(config("gw1"), 3, at(60_200));
    for ms in (60_200..61_000).step_by(20) {
        b.handle_timeout(at(ms));
        restarted.handle_timeout(at(ms));
        talk(&mut restarted, &mut b, at(ms));
    }
    assert_eq!((b.level().role, restarted.level().role), (Role::Master, Role::Backup));
    refused(&mut b, 61_000, &copy, Refusal::Ended);
}

#[test]
fn with_another_secret_it_says_nothing_and_moves_nothing() {
    let (_, mut b) = pair(1000);
    // It has the session and the keys, and not what the session committed itself to.
    let secret = Boot { obituary_secret: [9; 32], ..quiet_boot(1) };
    let impostor = Node::new(config("gw1"), ring(), secret, at(0));
    refused(&mut b, 1000, &last_word(&impostor), Refusal::Replayed);
    // Of a session that is not the established one.
    let earlier = Node::new(config("gw1"), ring(), quiet_boot(7), at(0));
    assert_eq!(b.handle_datagram(at(1000), &mut last_word(&earlier)), Err(Refusal::UnknownSession));
    assert_eq!(b.level().role, Role::Backup);
    assert!(b.peers[0].is_established(&[1; 16]));
}

fn quiet_boot(session: u8) -> Boot {
    Boot {
        session: [session; 16],
        obituary_secret: [session; 32],
        votes: None,
        highest_term: 0,
        maintenance: false,
    }
}

#[test]
fn one_for_each_path_of_each_peer() {
    let wide = |name: &str| {
        let mut config = config(name);
        config.peers[0].paths = 3;
        config.peers.push(PeerConfig { name: "w1".into(), witness: true, paths: 2 });
        config
    };
    let a = boot(wide("gw1"), 1, at(0));
    let all = a.obituaries();
    let places: Vec<_> = all.iter().map(|(peer, path, _)| (*peer, *path)).collect();
    assert_eq!(places, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]);
    for (peer, path, bytes) in &all {
        let header = Header::decode(bytes).unwrap();
        assert_eq!(header.path, *path);
        assert_eq!(header.receiver, node_tag("edge", ["gw2", "w1"][*peer]));
        assert!(bytes.len() <= crate::MAX_DATAGRAM);
        // Nobody learns the secret on the way.
        assert!(!bytes.windows(32).any(|window| window == [1; 32]));
    }
    // A witness has the vote key alone.
    let mut witness = config("gw2");
    (witness.name, witness.witness) = ("w1".into(), true);
    let mut w = Node::new(witness, ring().to_witness(), quiet_boot(4), at(0));
    let mut to_witness = all.last().unwrap().2.clone();
    assert_eq!(w.handle_datagram(at(0), &mut to_witness), Err(Refusal::UnknownSession));
}

#[test]
fn of_a_backup_it_leaves_the_master_alone() {
    let (mut a, b) = pair(1000);
    assert_eq!(a.handle_datagram(at(1000), &mut last_word(&b)), Ok(()));
    assert_eq!((a.level().role, a.level().term), (Role::Master, 1));
    assert!(!a.snapshot(at(1000)).peers[0].alive);
}

#[test]
fn a_candidate_that_is_held_back_stays_so() {
    let (a, mut b) = pair(1000);
    b.handle_command(at(1000), Command::Maintenance { on: true, force: false }).unwrap();
    assert_eq!(b.handle_datagram(at(1000), &mut last_word(&a)), Ok(()));
    assert_eq!(b.level().role, Role::Backup);
    assert_eq!(b.level().master, None);
    for ms in (1000..1500).step_by(20) {
        b.handle_timeout(at(ms));
    }
    b.handle_command(at(1500), Command::Maintenance { on: false, force: false }).unwrap();
    for ms in (1500..3000).step_by(20) {
        b.handle_timeout(at(ms));
    }
    assert_eq!(b.level().role, Role::Master);
    assert_eq!(b.level().reason, Reason::MasterObituary("gw1".into()));
}

#[test]
fn made_anew_with_the_key_in_force() {
    let (mut a, mut b) = pair(1000);
    let old = last_word(&a);
    let new = Keyring::parse(&Keyring::generate(8, [5; 32]).to_text()).unwrap();
    a.reconfigure(at(1000), config("gw1"), new.clone());
    b.reconfigure(at(1000), config("gw2"), new);
    assert_eq!(b.handle_datagram(at(1000), &mut old.clone()), Err(Refusal::Key));
    assert_eq!(b.level().role, Role::Backup);
    assert_eq!(b.handle_datagram(at(1000), &mut last_word(&a)), Ok(()));
    assert_eq!(b.level().role, Role::Master);
}
