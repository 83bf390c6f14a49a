//! The arbiter's vote on whole nodes: when it is wished for, and what its words are worth.

use std::time::Duration;

use wgha_proto::{LEAST_REACTION, Quorum, Reason, Role, Term, Time, Wish, Word, node_tag};

use crate::world::{INTERVAL, MS, World};

const D: Duration = Duration::from_millis(300);

/// Two gateways and an arbiter that nobody plays, with gw1 as master.
fn pair() -> World {
    let mut world = World::with(&[("gw1", 150), ("gw2", 100)], |config| {
        config.quorum = Quorum::Majority { reaction: LEAST_REACTION, arbiter: true };
    });
    world.run(10 * D);
    assert_eq!(world.masters(), ["gw1"]);
    world
}

fn wish(world: &mut World, name: &str) -> Wish {
    world.node(name).arbiter_wish()
}

fn asked(world: &mut World, name: &str) -> Option<Term> {
    match wish(world, name) {
        Wish::Ask { term, .. } => Some(term),
        Wish::Keep | Wish::Free { .. } => None,
    }
}

fn tell(world: &mut World, name: &str, word: Word) {
    let (now, index) = (world.now, world.index(name));
    world.node(name).handle_arbiter(now, word);
    world.settle(index, None);
}

fn granted(world: &mut World, name: &str, term: Term, until: Time) -> Word {
    let voter = world.node(name).arbiter_voter().unwrap().to_owned();
    Word::Granted { voter: node_tag("edge", &voter), term, until }
}

/// What a node that is asking asks for, within a detection time.
fn until_asked(world: &mut World, name: &str) -> Term {
    for _ in 0..2000 {
        if let Some(term) = asked(world, name) {
            return term;
        }
        world.run(MS / 2);
    }
    panic!("{name} does not ask");
}

#[test]
fn a_holder_asks_only_while_the_others_do_not_keep_its_lease() {
    let mut world = pair();
    assert_eq!(wish(&mut world, "gw1"), Wish::Keep, "what it asked for to win has expired");
    assert!(matches!(wish(&mut world, "gw2"), Wish::Free { .. }));
    let cut = world.now;
    world.link("gw1", "gw2", false);
    let term = until_asked(&mut world, "gw1");
    // Soon enough for an answer, late enough not to ask after each heartbeat.
    let after = world.now.since(cut);
    assert!(after >= INTERVAL / 3 && after <= INTERVAL * 3 / 2 + MS, "{after:?}");
    assert_eq!(term, world.node("gw1").level().term);
    let until = world.now + 2 * D;
    let word = granted(&mut world, "gw1", term, until);
    tell(&mut world, "gw1", word);
    world.run(D + INTERVAL);
    assert_eq!(world.masters(), ["gw1"]);
    let now = world.now;
    let lease = world.node("gw1").snapshot(now).lease.unwrap();
    assert!(lease.votes[0].starts_with("@etcd.") && lease.votes[1..] == ["gw1"], "{lease:?}");
    let arbiter = lease.arbiter.unwrap();
    assert!(arbiter.present && arbiter.wanted && arbiter.held);
    // It ends with that vote, less the margin.
    world.run(D);
    assert_eq!((world.masters(), world.reason("gw1")), (vec![], Reason::LeaseLost));
    assert!(world.since("gw1", Role::Backup) < until);
    assert_eq!(world.two_acting, 0);

    let mut world = pair();
    world.link("gw1", "gw2", false);
    until_asked(&mut world, "gw1");
    world.link("gw1", "gw2", true);
    world.run(2 * D);
    assert_eq!(wish(&mut world, "gw1"), Wish::Keep);
    assert_eq!(world.masters(), ["gw1"]);
}

#[test]
fn nothing_is_freed_before_the_effects_are_off() {
    let mut world = pair();
    world.link("gw1", "gw2", false);
    while world.role("gw1") == Role::Master {
        world.run(MS / 4);
    }
    assert_eq!(wish(&mut world, "gw1"), Wish::Keep, "its effects stand");
    world.run(D / 2);
    assert!(matches!(wish(&mut world, "gw1"), Wish::Free { .. }));
}

#[test]
fn a_candidate_needs_the_vote_for_its_own_term_in_its_own_set() {
    let mut world = pair();
    world.kill("gw1");
    tell(&mut world, "gw2", Word::Present);
    let term = until_asked(&mut world, "gw2");
    let until = world.now + 10 * D;
    let other = Word::Granted { voter: node_tag("edge", "@etcd.00000000"), term, until };
    let earlier = granted(&mut world, "gw2", term - 1, until);
    for word in [other, earlier, Word::Refused { term, taken: None }, Word::Present] {
        tell(&mut world, "gw2", word);
        assert_eq!(asked(&mut world, "gw2"), Some(term), "{word:?}");
        assert_eq!(world.masters(), [""; 0], "{word:?}");
    }
    // Another has had this term, so it is never mine.
    tell(&mut world, "gw2", Word::Refused { term, taken: Some(term + 10) });
    let next = asked(&mut world, "gw2").unwrap();
    assert!(next > term + 11, "{next}");
    let late = granted(&mut world, "gw2", term, until);
    tell(&mut world, "gw2", late);
    assert_eq!(world.masters(), [""; 0]);
    let word = granted(&mut world, "gw2", next, until);
    tell(&mut world, "gw2", word);
    assert_eq!(world.node("gw2").level().term, next);
    assert_eq!(world.masters(), ["gw2"]);
    // It forgot.
    tell(&mut world, "gw2", Word::Void);
    world.run(MS);
    assert_eq!(world.reason("gw2"), Reason::LeaseLost);
}

#[test]
fn an_arbiter_that_does_not_answer_is_no_reason_to_ask() {
    let mut world = pair();
    world.kill("gw1");
    tell(&mut world, "gw2", Word::Present);
    tell(&mut world, "gw2", Word::Lost);
    world.run(3 * D);
    assert_eq!(asked(&mut world, "gw2"), None);
    assert_eq!(world.masters(), [""; 0]);
    let now = world.now;
    assert_eq!(world.node("gw2").snapshot(now).held_back, Some("no-majority"));
    tell(&mut world, "gw2", Word::Present);
    until_asked(&mut world, "gw2");
}
