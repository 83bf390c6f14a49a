//! The end of a session in a process that goes on: after a sleep, and on a machine that was copied.

use super::*;
use crate::{LEAST_REACTION, Quorum};

const D: u64 = 300;

/// What the daemon does.
fn renew(node: &mut Node, ms: u64, session: u8) {
    assert!(node.wants_session());
    drain(node, at(ms));
    node.renew(at(ms), [session; 16], &[session; 32]);
    assert!(!node.wants_session());
    assert_eq!((node.session, node.level().role), ([session; 16], Role::Init));
}

fn events(node: &mut Node) -> Vec<Event> {
    std::iter::from_fn(|| node.poll_event()).collect()
}

fn both(a: &mut Node, b: &mut Node, from: u64, to: u64) {
    for ms in (from..=to).step_by(20) {
        a.handle_timeout(at(ms));
        b.handle_timeout(at(ms));
        talk(a, b, at(ms));
    }
}

#[test]
fn a_gap_of_a_lease_is_none_and_a_longer_one_is() {
    let (_, mut b) = pair(1000);
    b.handle_timeout(at(1000 + D));
    assert!(!b.wants_session());
    b.handle_timeout(at(1000 + 2 * D + 1));
    assert!(b.wants_session());
}

/// Whatever comes first after the gap.
#[test]
fn a_backup_that_slept_listens_and_is_one_again() {
    let (mut a, mut b) = pair(1000);
    alone(&mut a, 1020, 1500);
    events(&mut b);
    let heartbeat = caught(&mut a, 1600);
    // In the old session, so it would be timely enough for a claim otherwise.
    let _ = b.handle_datagram(at(1600), &mut heartbeat.clone());
    assert_eq!(b.level().role, Role::Backup);
    let old = b.obituaries();
    renew(&mut b, 1600, 12);
    assert_ne!(b.obituaries(), old, "the guard gets others");
    let gap = Duration::from_millis(600);
    assert_eq!(
        events(&mut b),
        [
            Event::Peer { name: "gw1".into(), alive: false },
            Event::Renewed(Reason::Slept(gap)),
            Event::Role {
                from: Role::Backup,
                to: Role::Init,
                term: 1,
                reason: Reason::Slept(gap),
                detect: gap
            },
        ]
    );
    both(&mut a, &mut b, 1600, 1700);
    assert_eq!((a.level().role, b.level().role), (Role::Master, Role::Backup));
    assert!(b.snapshot(at(1700)).ready, "what the machine said still stands");
    // What was sent to the session before says nothing any more.
    refused(&mut b, 1710, &heartbeat, Refusal::Replayed);
}

/// The other one is patient, so that it hears all of it.
#[test]
fn a_master_that_slept_leaves_in_its_old_session_and_says_goodbye() {
    let patient = NodeConfig { misses: 10, ..config("gw2") };
    let (mut a, mut b) = (boot(config("gw1"), 1, at(0)), boot(patient, 2, at(0)));
    both(&mut a, &mut b, 0, 1000);
    alone(&mut b, 1020, 1340);
    a.handle_timeout(at(1350));
    assert_eq!((a.level().role, a.permitted_until()), (Role::Backup, None));
    assert!(!a.wants_session(), "its effects stand");
    both(&mut a, &mut b, 1350, 1450);
    let said = b.peers[0].said.as_ref().map(|(said, _)| (said.role, said.flags.leaving));
    assert_eq!(said, Some((Role::Master, true)));
    assert_eq!(b.level().role, Role::Backup, "until they are off");
    a.handle_report(at(1460), Report::Left(1));
    assert!(a.wants_session());
    b.handle_timeout(at(1460));
    talk(&mut a, &mut b, at(1460));
    assert_eq!(b.level().reason, Reason::MasterReleased("gw1".into()));
    assert_eq!(b.level().role, Role::Master, "it need not wait");
    assert_eq!(b.peers[0].ended.len(), 1);
    renew(&mut a, 1460, 11);
    both(&mut a, &mut b, 1460, 1700);
    assert_eq!((a.level().role, b.level().role), (Role::Backup, Role::Master));
    assert!(a.peers[0].alive && b.peers[0].alive);
}

/// The usual case: the other one took over long ago.
#[test]
fn a_master_that_was_replaced_while_it_slept() {
    let (mut a, mut b) = pair(1000);
    alone(&mut b, 1020, 1440);
    assert_eq!(b.level().role, Role::Master);
    a.handle_timeout(at(1450));
    a.handle_report(at(1450), Report::Left(1));
    renew(&mut a, 1450, 11);
    both(&mut a, &mut b, 1450, 1600);
    assert_eq!((a.level().role, b.level().role), (Role::Backup, Role::Master));
    assert!(a.peers[0].alive && b.peers[0].alive);
    assert_eq!(b.peers[0].yielded, 1, "what it announced while it slept is announced over");
}

fn alone(b: &mut Node, from: u64, to: u64) {
    for ms in (from..=to).step_by(20) {
        b.handle_timeout(at(ms));
        drain(b, at(ms));
    }
}

#[test]
fn a_copy_is_mute_until_it_has_a_session_of_its_own() {
    let (mut a, mut b) = pair(1000);
    a.handle_copied(at(1010));
    assert_eq!((a.level().role, a.permitted_until()), (Role::Backup, None));
    assert_eq!(a.level().reason, Reason::Copied);
    assert!(!a.wants_session() && drain(&mut a, at(1010)).is_empty());
    // Nor does anything else make it speak, or take the reason from it.
    a.handle_timeout(at(1700));
    assert!(drain(&mut a, at(1700)).is_empty());
    assert_eq!(a.over, Some(Reason::Copied));
    a.handle_report(at(1710), Report::Left(1));
    assert!(drain(&mut a, at(1710)).is_empty());
    renew(&mut a, 1710, 11);
    assert!(events(&mut a).contains(&Event::Renewed(Reason::Copied)));
    alone(&mut b, 1020, 1700);
    both(&mut a, &mut b, 1710, 1900);
    assert_eq!((a.level().role, b.level().role), (Role::Backup, Role::Master));
}

#[test]
fn one_that_is_told_to_stop_ends_in_the_session_that_it_has() {
    let (mut a, _) = pair(1000);
    assert_eq!(a.handle_command(at(1010), Command::Stop), Ok(()));
    a.handle_timeout(at(1500));
    a.handle_report(at(1500), Report::Left(1));
    assert!(!a.wants_session());
    assert!(events(&mut a).contains(&Event::Stopped));
    assert_eq!(drain(&mut a, at(1500)).len(), 1, "goodbye");
}

/// It may have granted a lease that it knows nothing of.
#[test]
fn with_leases_it_abstains_like_a_restart() {
    let mut with = config("gw2");
    with.quorum = Quorum::Majority { reaction: LEAST_REACTION, arbiter: false };
    let votes = crate::VoteRecord::without_grant(Duration::ZERO);
    let boot = Boot {
        session: [2; 16],
        obituary_secret: [2; 32],
        highest_term: 5,
        maintenance: true,
        votes: Some(votes),
    };
    let mut node = Node::new(with, ring(), boot, at(0));
    for ms in (0..1000).step_by(20) {
        node.handle_timeout(at(ms));
        drain(&mut node, at(ms));
    }
    let abstains = |node: &Node, ms| node.snapshot(at(ms)).lease.expect("leases").abstains;
    assert_eq!(abstains(&node, 1000), None);
    node.handle_timeout(at(1400));
    renew(&mut node, 1400, 3);
    assert_eq!(abstains(&node, 1400), Some(Duration::from_millis(D * 102 / 100)));
    assert_eq!((node.highest, node.maintenance), (5, true));
}
