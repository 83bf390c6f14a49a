//! The floating IP as one more path to the master.

use super::*;
use crate::{MAX_FLOATING, floating_path};

/// All datagrams that a node wants to send now, and where.
fn sent(node: &mut Node, ms: u64) -> Vec<(Destination, Vec<u8>)> {
    let (mut all, mut out) = (Vec::new(), Vec::new());
    while let Some(to) = node.poll_transmit(at(ms), &mut out) {
        all.push((to, out.clone()));
    }
    all
}

const FLOATING: PathIndex = 7;

/// Both run on, and nothing but what goes over the floating IP of gw1 arrives. Returns how much that was.
fn over_floating(a: &mut Node, b: &mut Node, from: u64, to: u64) -> usize {
    let mut passed = 0;
    for ms in (from..=to).step_by(20) {
        a.handle_timeout(at(ms));
        sent(a, ms);
        b.handle_timeout(at(ms));
        for (destination, mut bytes) in sent(b, ms) {
            if destination != (Destination::Peer { peer: 0, path: FLOATING }) {
                continue;
            }
            passed += 1;
            let _ = a.handle_datagram(at(ms), &mut bytes);
            for (back, mut bytes) in sent(a, ms) {
                if back == Destination::Sender {
                    passed += 1;
                    let _ = b.handle_datagram(at(ms), &mut bytes);
                    let answers = sent(b, ms);
                    assert!(answers.iter().all(|(to, _)| *to != Destination::Sender), "for ever");
                }
            }
        }
    }
    passed
}

#[test]
fn numbers_are_counted_from_the_end() {
    assert_eq!((0..MAX_FLOATING).map(floating_path).collect::<Vec<_>>(), [7, 6]);
}

#[test]
fn a_backup_whose_direct_path_is_cut_hears_the_master_on_it() {
    let (mut a, mut b) = pair(1000);
    a.set_floating(1);
    b.set_floating(1);
    let passed = over_floating(&mut a, &mut b, 1020, 5000);
    // One each way in each interval, and a few for what changed.
    assert!((75..100).contains(&passed), "{passed}");
    assert_eq!((a.level().role, b.level().role), (Role::Master, Role::Backup));
    assert!(a.snapshot(at(5000)).peers[0].alive && b.snapshot(at(5000)).peers[0].alive);
    let paths = b.floating_paths(0, at(5000));
    assert_eq!(
        paths.iter().map(|(path, known)| (*path, known.alive)).collect::<Vec<_>>(),
        [(7, true)]
    );
    assert!(!b.snapshot(at(5000)).peers[0].paths[0].alive, "the direct one is dead");
    // The master dies: then nothing comes on this path either.
    for ms in (5020..=5600).step_by(20) {
        b.handle_timeout(at(ms));
        sent(&mut b, ms);
    }
    assert_eq!(b.level().role, Role::Master);
}

/// A new session, on either side, is established over it as over any path.
#[test]
fn a_backup_that_restarts_finds_the_master_on_it() {
    let (mut a, _) = pair(1000);
    let mut b = boot(config("gw2"), 9, at(1300));
    a.set_floating(1);
    b.set_floating(1);
    over_floating(&mut a, &mut b, 1300, 3000);
    assert_eq!((a.level().role, b.level().role), (Role::Master, Role::Backup));
    assert_eq!(b.level().master.as_deref(), Some("gw1"));
}

#[test]
fn without_one_nothing_is_sent_to_it() {
    let (mut a, mut b) = pair(1000);
    b.set_floating(1);
    a.set_floating(0);
    b.handle_timeout(at(1100));
    let mut to_floating = None;
    for (destination, bytes) in sent(&mut b, 1100) {
        if destination == (Destination::Peer { peer: 0, path: FLOATING }) {
            to_floating = Some(bytes);
        }
    }
    // What has no such path hears it, and answers as always.
    a.handle_timeout(at(1100));
    sent(&mut a, 1100);
    assert_eq!(a.handle_datagram(at(1100), &mut to_floating.expect("the master is asked")), Ok(()));
    assert!(sent(&mut a, 1100).iter().all(|(to, _)| *to != Destination::Sender));
    // A master asks nobody: the address is its own.
    a.set_floating(1);
    a.handle_timeout(at(1200));
    let own = Destination::Peer { peer: 0, path: 0 };
    assert!(sent(&mut a, 1200).iter().all(|(to, _)| *to == own));
}

/// Another who answers there is none: what it says must be of the master's session.
#[test]
fn two_masters_do_not_answer_each_other_on_it() {
    let (mut a, mut b) = pair(1000);
    a.set_floating(1);
    b.set_floating(1);
    for ms in (1020..=1500).step_by(20) {
        a.handle_timeout(at(ms));
        b.handle_timeout(at(ms));
        sent(&mut a, ms);
        sent(&mut b, ms);
    }
    assert_eq!((a.level().role, b.level().role), (Role::Master, Role::Master));
    for node in [&mut a, &mut b] {
        node.handle_timeout(at(1600));
        assert!(
            sent(node, 1600).iter().all(|(to, _)| *to == Destination::Peer { peer: 0, path: 0 })
        );
    }
}
