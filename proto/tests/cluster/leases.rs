//! Leases on whole nodes: three voters, and what a majority permits.

use std::time::Duration;

use wgha_proto::{Command, Event, LEAST_REACTION, Quorum, Reason, Role, Snapshot, Time};

use crate::world::{INTERVAL, MS, World};

const D: Duration = Duration::from_millis(300);

/// Clusters of these nodes, all with leases, that have had a master for a while. `gw1` is the best.
fn cluster(all: &[(&str, u8)]) -> World {
    let mut world = World::with(all, majority);
    world.run(10 * D);
    world
}

fn majority(config: &mut wgha_proto::NodeConfig) {
    config.quorum = Quorum::Majority { reaction: LEAST_REACTION, arbiter: false };
}

fn pair_with_witness() -> World {
    let world = cluster(&[("gw1", 150), ("gw2", 100), ("w1", 1)]);
    assert_eq!(world.masters(), ["gw1"]);
    world
}

fn picture(world: &mut World, name: &str) -> Snapshot {
    let now = world.now;
    world.node(name).snapshot(now)
}

fn permitted(world: &mut World, name: &str) -> Option<Duration> {
    let now = world.now;
    world.node(name).permitted_until().map(|until: Time| until.since(now))
}

#[test]
fn a_lease_of_a_majority_makes_a_master() {
    let mut world = pair_with_witness();
    let lease = picture(&mut world, "gw1").lease.unwrap();
    assert!(lease.held && !lease.pending && lease.abstains.is_none());
    assert_eq!((lease.majority, lease.voters.len()), (2, 3));
    assert_eq!(lease.votes, ["gw1", "gw2", "w1"]);
    assert_eq!((lease.counts.won, lease.counts.lost), (1, 0));
    let other = picture(&mut world, "gw2").lease.unwrap();
    assert!(!other.held && other.counts.granted > 0 && other.counts.won == 0);
    // L less M, less what has passed since the last ask: at most an interval and a round trip.
    let left = permitted(&mut world, "gw1").unwrap();
    let margin = D / 40 + LEAST_REACTION;
    assert!(left <= D - margin && left >= D - margin - INTERVAL - 3 * MS, "{left:?}");
    assert_eq!(permitted(&mut world, "gw2"), None);
}

#[test]
fn without_a_majority_there_is_no_master() {
    let mut world = cluster(&[("gw1", 150), ("gw2", 100), ("w1", 1)]);
    world.kill("gw2");
    world.kill("w1");
    world.run(2 * D);
    assert_eq!(world.masters(), [""; 0]);
    assert_eq!(world.role("gw1"), Role::Backup);
    assert_eq!(world.reason("gw1"), Reason::LeaseLost);
    assert_eq!(picture(&mut world, "gw1").held_back, Some("no-majority"));
    world.start("w1", false);
    world.run(5 * D);
    assert_eq!(world.masters(), ["gw1"]);
    assert_eq!(world.two_acting, 0);
}

#[test]
fn a_crash_costs_a_detection_time_and_a_round_trip() {
    let mut world = pair_with_witness();
    let died = world.now;
    world.kill("gw1");
    let mut before = 0;
    while world.role("gw2") != Role::Master {
        before = world.node("gw2").level().term;
        world.run(MS / 4);
        assert!(world.now.since(died) < 2 * D, "nobody takes over");
    }
    let took = world.now.since(died);
    // A term that is asked for is nobody's: effects must not hear of it before it is won.
    assert!(world.node("gw2").level().term > before);
    // D + 1.5 intervals + two round trips.
    assert!(took <= D + INTERVAL * 3 / 2 + 4 * MS, "{took:?}");
    assert_eq!(world.reason("gw2"), Reason::MasterSilent("gw1".into()));
    assert_eq!(world.two_acting, 0);
}

#[test]
fn an_obituary_ends_the_lease_at_its_voters() {
    let mut world = pair_with_witness();
    let died = world.now;
    world.bury("gw1");
    world.run(10 * MS);
    assert_eq!(world.masters(), ["gw2"]);
    // One and a half round trips: the way of the obituary, of the ask, of the grant.
    assert_eq!(world.since("gw2", Role::Master), died + 3 * MS);
    assert_eq!(world.reason("gw2"), Reason::MasterObituary("gw1".into()));
    world.start("gw1", false);
    world.run(5 * D);
    assert_eq!((world.masters(), world.two_acting), (vec!["gw2"], 0));
}

#[test]
fn a_partition_leaves_the_side_with_the_witness() {
    let mut world = pair_with_witness();
    world.link("gw1", "gw2", false);
    world.link("gw1", "w1", false);
    // Not one instant with two: the old one's permission ends first.
    for _ in 0..1000 {
        world.run(MS);
        let both = permitted(&mut world, "gw1").is_some_and(|left| left > Duration::ZERO)
            && permitted(&mut world, "gw2").is_some();
        assert!(!both);
    }
    assert_eq!(world.masters(), ["gw2"]);
    assert_eq!(world.reason("gw1"), Reason::LeaseLost);
    assert_eq!(picture(&mut world, "gw1").lease.unwrap().counts.lost, 1);
    world.link("gw1", "gw2", true);
    world.link("gw1", "w1", true);
    world.run(5 * D);
    assert_eq!((world.masters(), world.two_acting), (vec!["gw2"], 0));
}

#[test]
fn a_link_between_the_gateways_changes_nothing() {
    let mut world = pair_with_witness();
    world.link("gw1", "gw2", false);
    world.run(10 * D);
    assert_eq!((world.masters(), world.two_acting), (vec!["gw1"], 0));
    assert_eq!(picture(&mut world, "gw1").lease.unwrap().votes, ["gw1", "w1"]);
}

#[test]
fn a_handover_takes_half_a_round_trip_more_than_leaving() {
    let mut world = pair_with_witness();
    world.command("gw1", Command::Handover { to: None, force: false }).unwrap();
    let asked = world.now;
    while world.role("gw2") != Role::Master {
        world.run(MS);
        assert!(world.now.since(asked) < D, "nobody takes over");
    }
    // Request, ready, 3 ms to leave, release.
    assert!(world.now.since(asked) <= 8 * MS, "{:?}", world.now.since(asked));
    assert_eq!(world.reason("gw2"), Reason::HandoverFrom("gw1".into()));
    // An inherited lease is permission at once, and its own votes follow.
    assert!(permitted(&mut world, "gw2").unwrap() > D / 2);
    world.run(5 * D);
    assert_eq!(picture(&mut world, "gw2").lease.unwrap().votes.len(), 3);
    assert_eq!((world.masters(), world.two_acting), (vec!["gw2"], 0));
}

#[test]
fn a_dead_successor_is_waited_for_no_longer_than_the_lease() {
    let mut world = pair_with_witness();
    world.effort = 30 * MS;
    world.command("gw1", Command::Handover { to: None, force: false }).unwrap();
    world.run(10 * MS);
    assert_eq!(world.role("gw1"), Role::Backup);
    world.kill("gw2");
    let died = world.now;
    while world.role("gw1") != Role::Master {
        world.run(MS);
        assert!(world.now.since(died) < 3 * D, "nobody takes over");
    }
    assert!(world.now.since(died) > D / 2, "before the lease that it handed on was over");
    assert_eq!(world.two_acting, 0);
}

#[test]
fn a_successor_that_nobody_hears_has_its_term_to_itself() {
    // Long before the detection time is over the old master is free to ask again.
    let quick = |config: &mut wgha_proto::NodeConfig| {
        majority(config);
        config.handover_timeout = 20 * MS;
    };
    let mut world = World::with(&[("gw1", 150), ("gw2", 100), ("w1", 1)], quick);
    world.run(10 * D);
    let term = world.node("gw1").level().term;
    world.command("gw1", Command::Handover { to: None, force: false }).unwrap();
    world.run(4 * MS);
    assert_eq!(world.role("gw1"), Role::Backup, "it leaves");
    world.cut.extend([(1, 0), (1, 2)]);
    let left = world.now;
    world.run(5 * MS);
    assert_eq!((world.role("gw2"), world.node("gw2").level().term), (Role::Master, term + 1));
    while world.role("gw1") != Role::Master {
        world.run(MS);
        assert!(world.now.since(left) < 2 * D, "nobody takes over");
    }
    // By new votes, after all of the lease that it handed on.
    assert!(world.now.since(left) > D / 2, "{:?}", world.now.since(left));
    assert!(world.node("gw1").level().term > term + 1);
    assert_eq!(world.reason("gw2"), Reason::LeaseLost);
    world.cut.clear();
    world.run(5 * D);
    assert_eq!((world.masters(), world.two_acting), (vec!["gw1"], 0));
}

/// Whoever missed the release asks for votes, and the old master's end must not free them: its successor acts.
#[test]
fn votes_that_were_handed_on_outlive_the_session_that_handed_them_on() {
    let ends: [fn(&mut World); 2] =
        [|world| world.command("gw1", Command::Stop).unwrap(), |world| world.bury("gw1")];
    for end in ends {
        let all = [("gw1", 150), ("gw2", 120), ("gw3", 100), ("w1", 1), ("w2", 1)];
        let mut world = cluster(&all);
        world.link("gw1", "gw3", false);
        world.run(D + D / 2);
        assert_eq!(world.masters(), ["gw1"]);
        for other in ["gw3", "w1", "w2"] {
            world.link("gw2", other, false);
        }
        let to = Some("gw2".to_owned());
        world.command("gw1", Command::Handover { to, force: true }).unwrap();
        while world.role("gw2") != Role::Master {
            world.run(MS / 2);
            assert_eq!(world.two_acting, 0);
        }
        assert_eq!(world.reason("gw2"), Reason::HandoverFrom("gw1".into()));
        assert!(world.node("gw1").has_handed_on() && world.node("gw1").obituaries().is_empty());
        let inherited = world.now;
        end(&mut world);
        while world.role("gw3") != Role::Master {
            world.run(MS);
            assert_eq!(world.two_acting, 0);
            assert!(world.now.since(inherited) < 5 * D, "nobody takes over");
        }
        assert_eq!(world.two_acting, 0);
        assert!(world.now.since(inherited) > D / 2, "before the lease that was handed on is over");
    }
}

#[test]
fn a_lone_gateway_with_two_witnesses() {
    let mut world = cluster(&[("gw1", 150), ("w1", 1), ("w2", 1)]);
    assert_eq!(world.masters(), ["gw1"]);
    world.kill("w1");
    world.run(5 * D);
    assert_eq!(world.masters(), ["gw1"]);
    world.kill("w2");
    world.run(2 * D);
    assert_eq!(world.masters(), [""; 0]);
}

#[test]
fn two_voters_that_need_a_majority_need_each_other() {
    let mut world = cluster(&[("gw1", 150), ("gw2", 100)]);
    assert_eq!(world.masters(), ["gw1"]);
    world.kill("gw2");
    world.run(2 * D);
    assert_eq!(world.masters(), [""; 0]);
}

#[test]
fn a_voter_that_restarts_abstains() {
    let mut world = pair_with_witness();
    world.kill("w1");
    world.start("w1", false);
    world.run(D / 2);
    let lease = picture(&mut world, "w1").lease.unwrap();
    assert!(lease.abstains.is_some(), "{lease:?}");
    assert!(lease.counts.refused > 0 && lease.counts.granted == 0, "{lease:?}");
    world.run(D);
    assert_eq!(picture(&mut world, "w1").lease.unwrap().abstains, None);
    assert_eq!(world.masters(), ["gw1"]);
}

#[test]
fn a_voter_without_memory_abstains_for_the_longest_lease_there_is() {
    let mut world = pair_with_witness();
    world.kill("w1");
    world.forget("w1");
    world.start("w1", false);
    world.run(Duration::from_secs(30));
    assert!(picture(&mut world, "w1").lease.unwrap().abstains.is_some());
    world.run(Duration::from_secs(1));
    assert!(picture(&mut world, "w1").lease.unwrap().abstains.is_none());
}

#[test]
fn a_master_that_slept_through_its_lease_says_nothing_as_master() {
    let mut world = pair_with_witness();
    world.members[0].running = false;
    world.run(3 * D);
    assert_eq!(world.role("gw2"), Role::Master);
    let index = world.index("gw1");
    world.members[index].running = true;
    let now = world.now;
    let node = world.node("gw1");
    assert_eq!(node.level().role, Role::Master, "it has not run yet");
    let mut out = Vec::new();
    assert_eq!(node.poll_transmit(now, &mut out), None, "nothing leaves before it looked");
    node.handle_timeout(now);
    assert_eq!((node.level().role, node.permitted_until()), (Role::Backup, None));
    world.run(5 * D);
    assert_eq!(world.masters(), ["gw2"]);
}

#[test]
fn two_voters_have_permission_while_others_count_them_as_alive() {
    let mut world = World::new(&[("gw1", 150), ("gw2", 100)]);
    world.run(10 * D);
    assert_eq!(picture(&mut world, "gw1").lease, None);
    // The last full send is at most an interval ago.
    let left = permitted(&mut world, "gw1").unwrap();
    assert!(left <= D - INTERVAL / 2 && left >= D - INTERVAL * 3 / 2 - 2 * MS, "{left:?}");
}

#[test]
fn a_witness_joins_a_pair_that_runs() {
    let all = [("gw1", 150), ("gw2", 100), ("w1", 1)];
    let mut world = World::with(&all, |config| {
        if config.name == "w1" {
            majority(config);
        } else {
            config.peers.retain(|peer| !peer.witness);
        }
    });
    world.kill("w1");
    world.run(10 * D);
    assert_eq!(world.masters(), ["gw1"]);
    for name in ["gw1", "gw2"] {
        let mut config = crate::world::config(&all, name);
        majority(&mut config);
        world.reload(name, config);
        world.run(D);
        let lease = picture(&mut world, name).lease;
        assert_eq!(lease, None, "not before every member announces it");
    }
    world.start("w1", false);
    world.run(5 * D);
    for name in ["gw1", "gw2", "w1"] {
        let lease = picture(&mut world, name).lease.unwrap();
        assert_eq!((lease.voters.len(), lease.pending), (3, false), "{name}");
    }
    assert_eq!((world.masters(), world.two_acting), (vec!["gw1"], 0));
    // It never left the role: its lease came while it served.
    assert_eq!(world.reasons("gw1").iter().filter(|r| matches!(r, Reason::LeaseLost)).count(), 0);
    let kept = world.members[0].events.iter().any(|(_, event)| matches!(event, Event::Votes(_)));
    assert!(kept, "the voters in force are kept");
}

#[test]
fn a_witness_more_comes_into_force_under_the_holder() {
    let all = [("gw1", 150), ("gw2", 100), ("w1", 1), ("w2", 1)];
    let mut world = World::with(&all, |config| {
        majority(config);
        if config.name != "w2" {
            config.peers.retain(|peer| peer.name != "w2");
        }
    });
    world.kill("w2");
    world.run(10 * D);
    assert_eq!(world.masters(), ["gw1"]);
    for name in ["gw1", "gw2", "w1"] {
        let mut config = crate::world::config(&all, name);
        majority(&mut config);
        world.reload(name, config);
        world.run(2 * D);
        let lease = picture(&mut world, name).lease.unwrap();
        assert_eq!((lease.voters.len(), lease.pending), (3, true), "{name}");
    }
    world.start("w2", false);
    world.run(5 * D);
    for name in ["gw1", "gw2", "w1", "w2"] {
        let lease = picture(&mut world, name).lease.unwrap();
        assert_eq!((lease.voters.len(), lease.pending), (4, false), "{name}");
    }
    assert_eq!((world.masters(), world.two_acting), (vec!["gw1"], 0));
}

#[test]
fn a_longer_detection_time_makes_no_earlier_grant_longer() {
    let mut world = pair_with_witness();
    // It hears the others, but its asks no longer come.
    world.cut.extend([(0, 1), (0, 2)]);
    world.run(5 * MS);
    let end = world.now + permitted(&mut world, "gw1").unwrap();
    for name in ["gw1", "gw2", "w1"] {
        let mut config = crate::world::config(&[("gw1", 150), ("gw2", 100), ("w1", 1)], name);
        majority(&mut config);
        config.misses = 6;
        world.reload(name, config);
    }
    while let Some(left) = permitted(&mut world, "gw1") {
        assert!(
            world.now + left <= end,
            "its voters say now what they would grant, not what they did"
        );
        world.run(MS);
    }
    assert_eq!(world.reason("gw1"), Reason::LeaseLost);
    world.run(3 * D);
    assert_eq!((world.masters(), world.two_acting), (vec!["gw2"], 0));
}

/// The reloads of three nodes, which then have `nodes` in their configs.
fn reload_all(world: &mut World, nodes: &[(&str, u8)]) {
    for name in ["gw1", "gw2", "w1"] {
        let mut config = crate::world::config(nodes, name);
        majority(&mut config);
        world.reload(name, config);
    }
}

/// gw1, gw2 and w1 vote; the others do not run yet.
fn three_of(all: &[(&str, u8)]) -> World {
    let mut world = World::with(all, |config| {
        majority(config);
        if ["gw1", "gw2", "w1"].contains(&config.name.as_str()) {
            config.peers.retain(|peer| ["gw1", "gw2", "w1"].contains(&peer.name.as_str()));
        }
    });
    for (name, _) in &all[3..] {
        world.kill(name);
    }
    world.run(10 * D);
    assert_eq!(world.masters(), ["gw1"]);
    world
}

#[test]
fn sets_whose_majorities_may_have_nobody_in_common_do_not_follow_each_other() {
    let all = [("gw1", 150), ("gw2", 100), ("w1", 1), ("w2", 1), ("w3", 1)];
    let mut world = three_of(&all);
    reload_all(&mut world, &all);
    world.start("w2", false);
    world.start("w3", false);
    world.run(5 * D);
    for name in ["gw1", "gw2", "w1"] {
        let lease = picture(&mut world, name).lease.unwrap();
        assert_eq!((lease.voters.len(), lease.pending, lease.blocked), (3, true, true), "{name}");
    }
    // An operator who knows better may.
    for name in ["gw1", "gw2", "w1"] {
        let now = world.now;
        world.node(name).force_voters(now);
    }
    world.run(5 * D);
    let lease = picture(&mut world, "gw1").lease.unwrap();
    assert_eq!((lease.voters.len(), lease.pending, lease.blocked), (5, false, false));
    assert_eq!((world.masters(), world.two_acting), (vec!["gw1"], 0));
}

#[test]
fn a_witness_that_is_left_out_is_not_waited_for() {
    let all = [("gw1", 150), ("gw2", 100), ("w1", 1), ("w2", 1)];
    let mut world = cluster(&all);
    world.kill("w2");
    world.run(D);
    reload_all(&mut world, &all[..3]);
    world.run(2 * D);
    for name in ["gw1", "gw2", "w1"] {
        let lease = picture(&mut world, name).lease.unwrap();
        assert_eq!((lease.voters.len(), lease.pending), (3, false), "{name}");
    }
    assert_eq!((world.masters(), world.two_acting), (vec!["gw1"], 0));
}

#[test]
fn a_change_that_stopped_half_way_goes_on() {
    let all = [("gw1", 150), ("gw2", 100), ("w1", 1), ("w2", 1)];
    let mut world = three_of(&all);
    reload_all(&mut world, &all);
    // gw2 does not hear that the new set is in force.
    let (gw1, gw2, w1) = (world.index("gw1"), world.index("gw2"), world.index("w1"));
    world.start("w2", false);
    while picture(&mut world, "gw1").lease.unwrap().voters.len() == 3 {
        world.run(MS / 2);
    }
    world.cut.insert((gw1, gw2));
    while picture(&mut world, "w1").lease.unwrap().voters.len() == 3 {
        world.run(MS / 2);
    }
    world.cut.insert((w1, gw2));
    world.kill("gw1");
    assert_eq!(picture(&mut world, "gw2").lease.unwrap().voters.len(), 3);
    world.cut.clear();
    // gw2 asks by the old set, w1 has the new one in force, gw1 does not come back.
    world.run(10 * D);
    assert_eq!(world.masters(), ["gw2"]);
    world.start("gw1", false);
    world.run(10 * D);
    for name in ["gw1", "gw2", "w1", "w2"] {
        let lease = picture(&mut world, name).lease.unwrap();
        assert_eq!((lease.voters.len(), lease.pending), (4, false), "{name}");
    }
    assert_eq!((world.masters(), world.two_acting), (vec!["gw2"], 0));
}
