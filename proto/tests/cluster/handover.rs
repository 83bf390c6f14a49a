//! What a handover does before, at and after the moment that the role moves.

use std::time::Duration;

use wgha_proto::{Command, Doubt, Event, Preempt, Role};

use crate::world::{MS, World};

const PAIR: [(&str, u8); 2] = [("gw1", 150), ("gw2", 100)];
const TIMEOUT: Duration = Duration::from_millis(500);

/// A pair in which gw1 has been master for a while.
fn pair() -> World {
    let mut world = World::new(&PAIR);
    world.run(Duration::from_secs(1));
    assert_eq!(world.masters(), ["gw1"]);
    world
}

fn hand_over(world: &mut World, force: bool) {
    world.command("gw1", Command::Handover { to: Some("gw2".into()), force }).unwrap();
}

/// Why the last handover of gw1 came to nothing; `None` if it did not.
fn outcome(world: &World) -> Option<String> {
    let events = &world.members[world.index("gw1")].events;
    let last = events.iter().rev().find_map(|(_, event)| match event {
        Event::Handover { result, .. } => Some(result.clone()),
        _ => None,
    });
    last.expect("an outcome").err()
}

#[test]
fn a_successor_looks_and_says_what_it_finds() {
    // (what it finds, the word, whether force passes over it)
    let table = [
        (Doubt::NotStaged, "not staged", false),
        (Doubt::PortTaken, "without WireGuard's port", false),
        (Doubt::NotInSync, "not connected to sync", true),
        (Doubt::StaleEndpoints, "behind in what it knows", true),
    ];
    for (doubt, word, passes) in table {
        let mut world = pair();
        world.members[1].doubt = Some(doubt);
        let term = world.node("gw1").level().term;
        hand_over(&mut world, false);
        world.run(20 * MS);
        assert!(outcome(&world).unwrap().contains(word), "{doubt:?}");
        assert_eq!(world.masters(), ["gw1"]);
        assert_eq!(world.node("gw1").level().term, term);
        hand_over(&mut world, true);
        world.run(20 * MS);
        let master = if passes { "gw2" } else { "gw1" };
        assert_eq!(world.masters(), [master], "{doubt:?} with force");
        assert_eq!(outcome(&world).is_none(), passes);
    }
}

#[test]
fn the_last_differences_go_before_the_master_leaves() {
    let mut world = pair();
    world.members[0].mute = true;
    hand_over(&mut world, false);
    world.run(50 * MS);
    assert_eq!(world.role("gw1"), Role::Master, "serves while it waits for the flush");
    assert!(world.node("gw1").level().errand.is_some());
    // What does not come is not waited for.
    world.run(70 * MS);
    assert_eq!(world.masters(), ["gw2"]);
    assert_eq!(world.members[0].flushes, 0);

    let mut world = pair();
    hand_over(&mut world, false);
    world.run(20 * MS);
    assert_eq!((world.members[0].flushes, world.masters()), (1, vec!["gw2"]));
    assert_eq!(world.node("gw1").level().errand, None);
}

#[test]
fn a_successor_that_never_says_ready_leaves_the_master_as_it_was() {
    let mut world = pair();
    world.members[1].mute = true;
    let term = world.node("gw1").level().term;
    hand_over(&mut world, false);
    world.run(TIMEOUT - 5 * MS);
    assert_eq!(world.saw("gw1", |e| matches!(e, Event::Handover { .. })), 0);
    world.run(10 * MS);
    assert_eq!(outcome(&world).unwrap(), "no answer in time");
    assert_eq!((world.role("gw1"), world.node("gw1").level().term), (Role::Master, term));
}

#[test]
fn the_successor_is_kept_ready_until_the_role_comes_or_does_not() {
    let mut world = pair();
    // Its ready is lost, again and again.
    world.cut.insert((1, 0));
    hand_over(&mut world, false);
    world.run(100 * MS);
    assert!(world.node("gw2").level().errand.is_some(), "looked, and waits");
    world.run(TIMEOUT * 2);
    assert_eq!(world.node("gw2").level().errand, None, "nothing came");
}

#[test]
fn a_release_is_repeated_each_5_ms_until_it_is_heard() {
    let mut world = pair();
    world.effort = 10 * MS;
    hand_over(&mut world, false);
    // Asked, ready, and being taken off.
    world.run(5 * MS);
    assert_eq!((world.role("gw1"), world.role("gw2")), (Role::Backup, Role::Backup));
    world.cut.insert((0, 1));
    world.run(20 * MS);
    assert_eq!(world.role("gw2"), Role::Backup, "the release is lost");
    let said = world.seen.len();
    world.run(20 * MS);
    let repeats = world.seen[said..].iter().filter(|packet| packet.from == 0).count();
    assert!((3..=6).contains(&repeats), "{repeats} in 20 ms");
    world.cut.clear();
    world.run(7 * MS);
    assert_eq!(world.masters(), ["gw2"]);
    let said = world.seen.len();
    world.run(40 * MS);
    let after = world.seen[said..].iter().filter(|packet| packet.from == 0).count();
    assert!(after <= 3, "{after} more although it was acknowledged");
    assert_eq!(world.two_acting, 0);
}

#[test]
fn a_successor_that_does_not_act_gives_the_role_back_within_the_timeout() {
    // With a detection time of 3 s nobody would serve for so long.
    let interval = Duration::from_secs(1);
    let mut world = World::with(&PAIR, |config| config.interval = interval);
    world.run(Duration::from_secs(10));
    let term = world.node("gw1").level().term;
    hand_over(&mut world, false);
    world.run(4 * MS);
    assert_eq!(world.role("gw1"), Role::Backup, "it leaves");
    world.cut.insert((0, 1));
    world.run(TIMEOUT + 300 * MS);
    assert_eq!(world.masters(), ["gw1"]);
    assert!(world.node("gw1").level().term > term, "a new election");
    assert!(outcome(&world).is_some());
    world.cut.clear();
    world.run(Duration::from_secs(10));
    assert_eq!((world.masters(), world.two_acting), (vec!["gw1"], 0));
}

#[test]
fn stop_maintenance_preemption_and_failing_checks_go_the_same_way() {
    let health = |ok, at| wgha_proto::Health { ok, last_pass_began: ok.then_some(at) };
    type Cause = fn(&mut World, fn(bool, wgha_proto::Time) -> wgha_proto::Health);
    let causes: [(&str, Cause); 4] = [
        ("stop", |world, _| world.command("gw1", Command::Stop).unwrap()),
        ("maintenance", |world, _| {
            world.command("gw1", Command::Maintenance { on: true, force: false }).unwrap();
        }),
        ("unhealthy", |world, health| {
            let now = world.now;
            world.node("gw1").handle_health(now, health(false, now));
            world.run(50 * MS);
            let now = world.now;
            world.node("gw2").handle_health(now, health(true, now));
        }),
        ("preempt", |world, _| {
            let mut config = world.members[1].config.clone();
            config.priority = 200;
            let (now, keys) = (world.now, world.keys.clone());
            world.node("gw2").reconfigure(now, config, keys);
        }),
    ];
    for (name, cause) in causes {
        let mut world = World::with(&PAIR, |config| {
            config.preempt = Some(Preempt { delay: Duration::ZERO });
        });
        world.run(Duration::from_secs(1));
        assert_eq!(world.masters(), ["gw1"]);
        cause(&mut world, health);
        world.run(Duration::from_millis(400));
        assert_eq!(world.masters(), ["gw2"], "{name}");
        assert_eq!(world.members[0].flushes, 1, "{name}: without the last differences");
        assert_eq!(outcome(&world), None, "{name}");
        assert_eq!(world.two_acting, 0, "{name}");
    }
}
