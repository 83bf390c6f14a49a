//! Who becomes master, when, and why.

use std::time::Duration;

use wgha_proto::{Command, Event, Reason, Role};

use crate::world::{INTERVAL, MS, World};

const PAIR: [(&str, u8); 2] = [("gw1", 150), ("gw2", 100)];

/// A pair in which gw1 has been master for a while.
fn pair() -> World {
    let mut world = World::new(&PAIR);
    world.run(10 * INTERVAL);
    assert_eq!(world.masters(), ["gw1"]);
    world
}

#[test]
fn the_higher_priority_starts_as_master() {
    let world = pair();
    assert_eq!(world.role("gw2"), Role::Backup);
    assert_eq!(world.reasons("gw1"), [Reason::Listened, Reason::NoMaster]);
    assert_eq!(world.reasons("gw2"), [Reason::Listened]);
    // Both were heard at once, so nobody waited for the detection time.
    assert!(world.since("gw1", Role::Master) < world.now - 9 * INTERVAL);
    assert_eq!(world.two_acting, 0);
}

#[test]
fn a_silent_master_is_replaced_within_the_detection_time() {
    let mut world = pair();
    let killed = world.now;
    world.kill("gw1");
    world.run(4 * INTERVAL);
    assert_eq!(world.masters(), ["gw2"]);
    assert_eq!(world.reason("gw2"), Reason::MasterSilent("gw1".into()));
    let outage = world.since("gw2", Role::Master).since(killed);
    assert!(outage <= 3 * INTERVAL + MS, "{outage:?}");
    world.start("gw1", false);
    world.run(20 * INTERVAL);
    assert_eq!(world.masters(), ["gw2"], "the incumbent stays");
    assert_eq!(world.two_acting, 0);
}

#[test]
fn a_handover_goes_through_left_and_is_quick() {
    let mut world = pair();
    world.command("gw1", Command::Handover { to: None, force: false }).unwrap();
    world.run(20 * MS);
    assert_eq!(world.masters(), ["gw2"]);
    assert_eq!(world.reason("gw1"), Reason::HandoverTo("gw2".into()));
    assert_eq!(world.reason("gw2"), Reason::HandoverFrom("gw1".into()));
    assert_eq!(world.two_acting, 0);
    world.run(5 * INTERVAL);
    let done =
        |event: &Event| matches!(event, Event::Handover { to, result: Ok(()) } if to == "gw2");
    assert_eq!(world.saw("gw1", done), 1);
    world.run(Duration::from_secs(5));
    assert_eq!(world.masters(), ["gw2"]);
}
