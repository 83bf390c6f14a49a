//! Until when a master may act without a word from its node.

use super::*;
use crate::{LEAST_REACTION, Quorum};

/// Milliseconds: three intervals.
const DETECTION: u64 = 300;
/// Half an interval before the detection time, which is three intervals here.
const PERMISSION: Duration = Duration::from_millis(250);

#[test]
fn a_master_may_act_until_shortly_before_another_takes_over() {
    let (mut a, mut b) = pair(1000);
    assert_eq!(b.permitted_until(), None, "a backup may not act");
    a.handle_timeout(at(1100));
    let before = a.permitted_until().unwrap();
    for mut bytes in drain(&mut a, at(1100)) {
        b.handle_datagram(at(1100), &mut bytes).unwrap();
    }
    let until = a.permitted_until().unwrap();
    assert_eq!(until, at(1100) + PERMISSION);
    assert!(before < until, "what was sent extends it, not the wish to send");
    // Nothing more is heard of gw1: gw2 becomes master when gw1 may no longer act.
    let took_over = (1100..2000).find(|ms| {
        b.handle_timeout(at(*ms));
        b.level().role == Role::Master
    });
    assert!(at(took_over.unwrap()) > until, "{took_over:?}");
    assert_eq!(b.permitted_until(), Some(at(took_over.unwrap()) + PERMISSION), "at once");
}

#[test]
fn what_is_not_sent_extends_nothing() {
    let (mut a, _) = pair(1000);
    let until = a.permitted_until().unwrap();
    // Called in time, but nobody drains it.
    for ms in (1000..1200).step_by(20) {
        a.handle_timeout(at(ms));
    }
    assert_eq!(a.permitted_until(), Some(until));
}

#[test]
fn the_gateway_that_was_told_last_counts_and_a_witness_does_not() {
    let peer = |name: &str, witness| PeerConfig { name: name.into(), witness, paths: 1 };
    let peers = vec![peer("gw2", false), peer("gw3", false), peer("w1", true)];
    let mut node = boot(NodeConfig { peers, ..config("gw1") }, 1, at(0));
    // Nobody answers, so it wins after the detection time.
    for ms in (0..=400).step_by(20) {
        node.handle_timeout(at(ms));
        drain(&mut node, at(ms));
    }
    assert_eq!(node.level().role, Role::Master);
    node.handle_timeout(at(500));
    let (before, mut out) = (node.permitted_until(), Vec::new());
    let told = |node: &mut Node, out: &mut Vec<u8>| match node.poll_transmit(at(500), out) {
        Some(Destination::Peer { peer, .. }) => peer,
        other => panic!("{other:?}"),
    };
    assert_eq!(told(&mut node, &mut out), 0);
    assert_eq!(node.permitted_until(), before, "gw3 has not been told");
    assert_eq!(told(&mut node, &mut out), 1);
    assert_eq!(node.permitted_until(), Some(at(500) + PERMISSION), "the witness may wait");
}

#[test]
fn it_ends_at_once_when_the_node_leaves() {
    let (mut a, _) = pair(1000);
    assert!(a.permitted_until().is_some());
    let stop = a.handle_command(at(1010), Command::Stop);
    assert_eq!(stop, Ok(()));
    a.handle_timeout(at(1010));
    // The handover is prepared first; the reconciler's failure ends mastership without delay.
    let term = a.level().term;
    a.handle_report(at(1020), Report::Failed(term, "a test".into()));
    assert_eq!(a.permitted_until(), None);
}

#[test]
fn one_that_slept_has_none() {
    let (mut a, _) = pair(1000);
    a.handle_timeout(at(5000));
    assert_eq!(a.permitted_until(), None);
}

#[test]
fn a_gateway_that_is_new_in_the_config_takes_nothing_away() {
    let (mut a, _) = pair(1000);
    let before = a.permitted_until().unwrap();
    let mut new = config("gw1");
    new.peers.push(PeerConfig { name: "gw3".into(), witness: false, paths: 1 });
    a.reconfigure(at(1010), new, ring());
    assert_eq!(a.permitted_until(), Some(before));
}

/// Until the kernel does it by itself again.
#[test]
fn without_a_gate_a_lease_ends_sooner_by_what_leaving_has_taken() {
    let mut alone = config("gw1");
    alone.peers.clear();
    alone.quorum = Quorum::Majority { reaction: LEAST_REACTION, arbiter: false };
    let mut node = boot(alone.clone(), 1, at(0));
    let mut now = 0;
    let mut leave = |node: &mut Node, took: u64| {
        for on in [false, true] {
            node.handle_command(at(now), Command::Maintenance { on, force: true }).unwrap();
            for _ in 0..2000 {
                if (node.state == State::Serving) != on {
                    break;
                }
                now += 20;
                node.handle_timeout(at(now));
                drain(node, at(now));
            }
        }
        assert!(node.state.is_leaving(), "{:?}", node.state);
        now += took;
        node.handle_report(at(now), Report::Left(node.term));
        assert!(!node.state.is_leaving());
    };
    let margin = |node: &Node| node.snapshot(node.now).lease.expect("leases").margin;
    let of = |ms| crate::margin(Duration::from_millis(DETECTION), Duration::from_millis(ms));
    leave(&mut node, 30);
    assert_eq!(margin(&node), of(20), "the gate shuts whatever takes how long");
    node.set_gate(false);
    assert_eq!(margin(&node), of(30));
    leave(&mut node, 10);
    assert_eq!(margin(&node), of(30), "the longest counts");
    leave(&mut node, 50);
    assert_eq!(margin(&node), of(50));
    node.reconfigure(node.now, alone, ring());
    assert_eq!(margin(&node), of(50), "another config changes nothing about it");
    leave(&mut node, 10_000);
    assert_eq!(margin(&node), of(DETECTION / 4), "it can still hold a lease");
    node.set_gate(true);
    assert_eq!(margin(&node), of(20));
}
