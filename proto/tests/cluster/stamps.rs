//! What makes clients refuse a gateway's handshakes: told once for each change, and it keeps nobody out.

use wgha_proto::{Alarm, Command, Event, Refused, WireguardKind};

use crate::world::{INTERVAL, World};

const PAIR: [(&str, u8); 2] = [("gw1", 150), ("gw2", 100)];

/// The alarms that a node told, in order, without figures.
fn told(world: &World, name: &str) -> Vec<(&'static str, bool)> {
    let events = &world.members[world.index(name)].events;
    let told = events.iter().filter_map(|(_, event)| match event {
        Event::Alarm { alarm: Alarm::Clock { .. }, on, .. } => Some(("clock", *on)),
        Event::Alarm { alarm: Alarm::Wireguard, on, .. } => Some(("wireguard", *on)),
        _ => None,
    });
    told.collect()
}

fn alarms(world: &mut World, name: &str) -> Vec<Alarm> {
    let now = world.now;
    world.node(name).snapshot(now).peers[0].alarms.clone()
}

#[test]
fn clocks_apart_are_told_once_and_until_they_agree() {
    let mut world = World::new(&PAIR);
    world.run(20 * INTERVAL);
    assert_eq!(told(&world, "gw1"), []);
    world.node("gw2").set_wall_offset(-12_000_000_000);
    world.run(20 * INTERVAL);
    assert_eq!(told(&world, "gw1"), [("clock", true)]);
    assert_eq!(told(&world, "gw2"), [("clock", true)]);
    assert_eq!(alarms(&mut world, "gw1"), [Alarm::Clock { offset_ns: -12_000_000_000 }]);
    assert_eq!(alarms(&mut world, "gw2"), [Alarm::Clock { offset_ns: 12_000_000_000 }]);
    // Not a word more, and no vote less.
    world.kill("gw1");
    world.run(10 * INTERVAL);
    assert_eq!(world.masters(), ["gw2"]);
    world.start("gw1", false);
    world.run(20 * INTERVAL);
    assert_eq!(told(&world, "gw2"), [("clock", true)], "a restart is no news of the clock");
    world.node("gw2").set_wall_offset(0);
    world.run(20 * INTERVAL);
    assert_eq!(told(&world, "gw2"), [("clock", true), ("clock", false)]);
    assert_eq!(alarms(&mut world, "gw2"), []);
}

#[test]
fn another_wireguard_takes_part_and_gets_the_role_by_force_alone() {
    let mut world = World::with(&PAIR, |config| {
        if config.name == "gw2" {
            config.wireguard = WireguardKind::Embedded;
        }
    });
    world.run(20 * INTERVAL);
    assert_eq!(told(&world, "gw1"), [("wireguard", true)]);
    assert_eq!(alarms(&mut world, "gw2"), [Alarm::Wireguard]);
    let handover = |force| Command::Handover { to: Some("gw2".into()), force };
    match world.command("gw1", handover(false)) {
        Err(Refused::NotASuccessor { why, .. }) => assert!(why.contains("WireGuard"), "{why}"),
        other => panic!("{other:?}"),
    }
    world.command("gw1", handover(true)).unwrap();
    world.run(INTERVAL);
    assert_eq!(world.masters(), ["gw2"]);
    // It takes over as any other does.
    world.kill("gw2");
    world.run(10 * INTERVAL);
    assert_eq!(world.masters(), ["gw1"]);
}

#[test]
fn a_witness_has_no_stamps_to_compare() {
    let mut world = World::new(&[("gw1", 150), ("w1", 100)]);
    world.node("w1").set_wall_offset(-12_000_000_000);
    world.run(20 * INTERVAL);
    assert_eq!((told(&world, "gw1"), told(&world, "w1")), (vec![], vec![]));
}
