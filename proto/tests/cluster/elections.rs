//! Who becomes master, when, and why. One test for each reason of a change of role.

use std::time::Duration;

use wgha_proto::{Ability, Command, Doubt, Event, Health, Preempt, Reason, Refused, Report, Role};

use crate::world::{INTERVAL, MS, NEIGHBOURS, World};

const PAIR: [(&str, u8); 2] = [("gw1", 150), ("gw2", 100)];
const DETECTION: Duration = Duration::from_millis(300);

/// A pair in which gw1 has been master for a while.
fn pair() -> World {
    let mut world = World::new(&PAIR);
    world.run(10 * INTERVAL);
    assert_eq!(world.masters(), ["gw1"]);
    world
}

fn handover(to: &str) -> Command {
    Command::Handover { to: Some(to.into()), force: false }
}

fn maintenance(on: bool, force: bool) -> Command {
    Command::Maintenance { on, force }
}

fn is_done(event: &Event) -> bool {
    matches!(event, Event::Handover { result: Ok(()), .. })
}

fn is_reassert(event: &Event) -> bool {
    matches!(event, Event::Reassert { .. })
}

#[test]
fn listened_and_no_master() {
    let world = pair();
    assert_eq!(world.role("gw2"), Role::Backup);
    assert_eq!(world.reasons("gw1"), [Reason::Listened, Reason::NoMaster]);
    assert_eq!(world.reasons("gw2"), [Reason::Listened]);
    // Both were heard at once, so nobody waited for the detection time.
    assert!(world.since("gw1", Role::Master) < world.now - 9 * INTERVAL);
    assert_eq!(world.two_acting, 0);
}

#[test]
fn equal_priorities_are_decided_by_name() {
    let mut world = World::new(&[("gw2", 100), ("gw1", 100)]);
    world.run(10 * INTERVAL);
    assert_eq!(world.masters(), ["gw1"]);
    assert_eq!((world.two_acting, world.reasons("gw2").len()), (0, 1));
}

#[test]
fn alone_a_node_listens_for_the_detection_time() {
    let mut world = World::new(&PAIR);
    world.kill("gw2");
    world.run(DETECTION - MS);
    assert_eq!(world.role("gw1"), Role::Init);
    world.run(2 * MS);
    assert_eq!(world.masters(), ["gw1"]);
}

#[test]
fn alone_and_isolated_it_stays_backup() {
    let mut world = World::new(&PAIR);
    world.members[0].outside = Some(false);
    world.kill("gw2");
    world.run(20 * INTERVAL);
    assert_eq!(world.role("gw1"), Role::Backup);
    let now = world.now;
    assert_eq!(world.node("gw1").snapshot(now).held_back, Some("isolated"));
    world.members[0].outside = Some(true);
    // The router answers before a master that was there all along can be heard.
    world.run(NEIGHBOURS + 2 * INTERVAL);
    assert_eq!(world.role("gw1"), Role::Backup);
    world.run(3 * INTERVAL);
    assert_eq!(world.masters(), ["gw1"]);
}

#[test]
fn an_ability_that_is_not_known_keeps_init() {
    let mut world = World::new(&PAIR);
    for index in 0..2 {
        world.report(index, Report::Ability(Ability::Unknown));
    }
    world.run(20 * INTERVAL);
    assert_eq!((world.role("gw1"), world.role("gw2")), (Role::Init, Role::Init));
}

#[test]
fn master_silent() {
    let mut world = pair();
    let killed = world.now;
    world.kill("gw1");
    world.run(4 * INTERVAL);
    assert_eq!(world.masters(), ["gw2"]);
    assert_eq!(world.reason("gw2"), Reason::MasterSilent("gw1".into()));
    let outage = world.since("gw2", Role::Master).since(killed);
    assert!(outage <= DETECTION + MS, "{outage:?}");
    let detect = world.members[1].events.iter().find_map(|(_, event)| match event {
        Event::Role { to: Role::Master, detect, .. } => Some(*detect),
        _ => None,
    });
    assert_eq!(detect, Some(DETECTION));
    world.start("gw1", false);
    world.run(20 * INTERVAL);
    assert_eq!(world.masters(), ["gw2"], "the incumbent stays");
    assert_eq!(world.two_acting, 0);
}

#[test]
fn silence_needs_evidence_where_there_is_a_source() {
    for (answers, masters) in [(true, vec!["gw2"]), (false, vec![])] {
        let mut world = pair();
        world.members[1].outside = Some(answers);
        world.kill("gw1");
        world.run(10 * INTERVAL);
        assert_eq!(world.masters(), masters);
        if answers {
            let took = world.since("gw2", Role::Master);
            assert!(took <= world.now - 6 * INTERVAL, "evidence must not cost time");
        }
    }
}

#[test]
fn a_witness_that_hears_the_master_holds_a_deaf_backup_back() {
    let mut world = World::new(&[("gw1", 150), ("gw2", 100), ("w1", 1)]);
    world.run(10 * INTERVAL);
    world.link("gw1", "gw2", false);
    world.run(20 * INTERVAL);
    assert_eq!(world.masters(), ["gw1"]);
    let now = world.now;
    assert_eq!(world.node("gw2").snapshot(now).held_back, Some("master-heard-by-another"));
    world.kill("gw1");
    world.run(4 * INTERVAL);
    assert_eq!(world.masters(), ["gw2"]);
    assert_eq!(world.role("w1"), Role::Backup);
}

#[test]
fn master_restarted() {
    let mut world = pair();
    world.kill("gw1");
    world.run(INTERVAL);
    world.start("gw1", false);
    world.run(5 * INTERVAL);
    assert_eq!(world.masters(), ["gw2"]);
    let reason = world.reason("gw2");
    let expected = [Reason::MasterRestarted("gw1".into()), Reason::MasterSilent("gw1".into())];
    assert!(expected.contains(&reason), "{reason:?}");
    assert_eq!((world.two_acting, world.role("gw1")), (0, Role::Backup));
}

#[test]
fn a_restart_between_two_long_detection_times_is_noticed_at_once() {
    let mut world = World::with(&PAIR, |config| config.misses = 20);
    world.run(10 * INTERVAL);
    world.kill("gw1");
    let killed = world.now;
    world.start("gw1", false);
    world.run(10 * INTERVAL);
    assert_eq!(world.reasons("gw2").last(), Some(&Reason::MasterRestarted("gw1".into())));
    assert!(world.since("gw2", Role::Master).since(killed) <= 4 * INTERVAL);
    assert_eq!(world.masters(), ["gw2"]);
    assert_eq!(world.two_acting, 0);
}

#[test]
fn handover_to_and_from() {
    let mut world = pair();
    world.command("gw1", Command::Handover { to: None, force: false }).unwrap();
    world.run(20 * MS);
    assert_eq!(world.masters(), ["gw2"]);
    assert_eq!(world.reason("gw1"), Reason::HandoverTo("gw2".into()));
    assert_eq!(world.reason("gw2"), Reason::HandoverFrom("gw1".into()));
    world.run(Duration::from_secs(5));
    assert_eq!(world.saw("gw1", is_done), 1);
    assert_eq!(world.masters(), ["gw2"]);
    assert_eq!(world.two_acting, 0);
}

#[test]
fn handovers_are_refused_with_the_reason() {
    let mut world = pair();
    let refuse = |world: &mut World, command| world.command("gw1", command).unwrap_err();
    assert_eq!(refuse(&mut world, handover("gw3")), Refused::UnknownNode("gw3".into()));
    assert_eq!(refuse(&mut world, handover("gw1")), Refused::Myself("gw1".into()));
    assert_eq!(world.command("gw2", handover("gw1")), Err(Refused::NotMaster));
    let not_ready = Ability::NotReady("port taken".into());
    world.report(1, Report::Ability(not_ready));
    world.run(2 * MS);
    let why = |error| match error {
        Refused::NotASuccessor { why, .. } => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(refuse(&mut world, handover("gw2"))), "not ready");
    let any = Command::Handover { to: None, force: true };
    assert_eq!(refuse(&mut world, any), Refused::NoSuccessor("gw2 is not ready".into()));
    world.report(1, Report::Ability(Ability::Ready));
    world.kill("gw2");
    world.run(5 * INTERVAL);
    assert_eq!(why(refuse(&mut world, handover("gw2"))), "not reachable");
    assert_eq!(world.masters(), ["gw1"]);
}

#[test]
fn different_configs_talk_and_hand_over_only_by_force() {
    let mut world = World::with(&PAIR, |config| config.fingerprint = [config.priority; 16]);
    world.run(10 * INTERVAL);
    let now = world.now;
    let peer = &world.node("gw1").snapshot(now).peers[0];
    assert_eq!((peer.alive, peer.config_match), (true, Some(false)));
    assert!(world.command("gw1", handover("gw2")).is_err());
    world.command("gw1", Command::Handover { to: None, force: true }).unwrap();
    world.run(INTERVAL);
    assert_eq!(world.masters(), ["gw2"]);
}

#[test]
fn a_handover_that_nobody_answers_is_called_off() {
    let mut world = pair();
    world.link("gw1", "gw2", false);
    world.command("gw1", handover("gw2")).unwrap();
    assert_eq!(world.command("gw1", handover("gw2")), Err(Refused::HandoverUnderWay));
    world.run(400 * MS);
    world.link("gw1", "gw2", true);
    world.run(Duration::from_secs(2));
    let failed = |event: &Event| matches!(event, Event::Handover { result: Err(_), .. });
    assert_eq!(world.saw("gw1", failed) + world.saw("gw1", is_done), 1);
    assert_eq!(world.masters().len(), 1);
}

#[test]
fn stopping_hands_over_and_says_goodbye() {
    let mut world = pair();
    world.command("gw1", Command::Stop).unwrap();
    world.run(INTERVAL);
    assert_eq!(world.masters(), ["gw2"]);
    assert_eq!(world.reason("gw2"), Reason::HandoverFrom("gw1".into()));
    assert_eq!(world.saw("gw1", |event| *event == Event::Stopped), 1);
    let gone = |e: &Event| matches!(e, Event::Peer { alive: false, .. });
    assert_eq!(world.saw("gw2", gone), 1, "goodbye ends the session at once");
    assert_eq!(world.command("gw1", Command::Stop), Err(Refused::Stopping));
    assert_eq!(world.two_acting, 0);
}

#[test]
fn stopping_without_a_successor_releases() {
    let mut world = pair();
    world.report(1, Report::Ability(Ability::NotReady("slow".into())));
    world.run(2 * MS);
    world.command("gw1", Command::Stop).unwrap();
    world.run(INTERVAL);
    assert_eq!(world.reasons("gw1").last(), Some(&Reason::Stopping));
    assert_eq!(world.masters(), ["gw2"]);
    assert_eq!(world.reason("gw2"), Reason::MasterReleased("gw1".into()));
    assert_eq!(world.two_acting, 0);
}

#[test]
fn a_stop_with_nobody_there_ends_in_time() {
    let mut world = pair();
    world.kill("gw2");
    world.run(INTERVAL);
    world.command("gw1", Command::Stop).unwrap();
    world.run(500 * MS + DETECTION + 10 * MS);
    assert_eq!(world.saw("gw1", |event| *event == Event::Stopped), 1);
}

#[test]
fn a_fault_releases_and_recovers_after_the_hold_off() {
    let mut world = pair();
    let term = world.node("gw1").level().term;
    world.report(0, Report::Failed(term, "no such device".into()));
    world.run(INTERVAL);
    assert_eq!(world.role("gw1"), Role::Fault);
    assert_eq!(world.reason("gw1"), Reason::Fault("no such device".into()));
    assert_eq!(world.masters(), ["gw2"]);
    assert_eq!(world.reason("gw2"), Reason::MasterReleased("gw1".into()));
    world.run(800 * MS);
    assert_eq!(world.role("gw1"), Role::Fault);
    world.run(200 * MS);
    assert_eq!((world.role("gw1"), world.reason("gw1")), (Role::Backup, Reason::Recovered));
    assert_eq!(world.two_acting, 0);
}

#[test]
fn unable_is_a_fault_as_long_as_it_lasts() {
    let mut world = pair();
    world.report(0, Report::Ability(Ability::Unable("port taken".into())));
    world.run(INTERVAL);
    assert_eq!(world.reason("gw1"), Reason::Fault("port taken".into()));
    assert_eq!(world.masters(), ["gw2"]);
    world.report(0, Report::Ability(Ability::Ready));
    world.run(INTERVAL);
    assert_eq!(world.reason("gw1"), Reason::Recovered);
    assert_eq!(world.masters(), ["gw2"]);
}

#[test]
fn slept() {
    let mut world = pair();
    // Stopped for 5 s: no call, and what came is read afterwards.
    world.members[0].running = false;
    world.run(Duration::from_secs(5));
    assert_eq!(world.masters(), ["gw2"]);
    world.members[0].running = true;
    let sent = world.seen.len();
    world.run(10 * INTERVAL);
    assert_eq!(world.masters(), ["gw2"]);
    let reasons = world.reasons("gw1");
    let slept =
        |reason: &&Reason| matches!(reason, Reason::Slept(gap) if *gap > Duration::from_secs(4));
    assert_eq!(
        reasons.iter().filter(slept).count(),
        2,
        "no master, and then another session: {reasons:?}"
    );
    assert_eq!(reasons.last(), Some(&Reason::Listened));
    assert!(world.seen.len() > sent);
    assert_eq!(
        world.saw("gw2", is_reassert),
        2,
        "the survivor takes addresses back, once for each session that yields"
    );
}

#[test]
fn yielded() {
    let mut world = pair();
    world.link("gw1", "gw2", false);
    world.run(10 * INTERVAL);
    assert_eq!(world.masters(), ["gw1", "gw2"], "two voters cannot do better");
    world.link("gw1", "gw2", true);
    world.run(5 * INTERVAL);
    assert_eq!(world.masters(), ["gw2"], "the higher term stays");
    assert_eq!(world.reasons("gw1").last(), Some(&Reason::Yielded("gw2".into())));
    world.run(Duration::from_secs(3));
    assert_eq!(world.saw("gw2", is_reassert), 1);
    assert_eq!(world.masters(), ["gw2"]);
}

#[test]
fn evidence_decides_between_two_masters() {
    let mut world = pair();
    world.members[0].outside = Some(true);
    world.link("gw1", "gw2", false);
    world.run(10 * INTERVAL);
    assert_eq!(world.masters().len(), 2);
    world.link("gw1", "gw2", true);
    world.run(5 * INTERVAL);
    assert_eq!(world.masters(), ["gw1"], "it has evidence, gw2 has not");
}

#[test]
fn a_deaf_backup_displaces_nobody() {
    let mut world = pair();
    world.cut.insert((0, 1));
    world.run(20 * INTERVAL);
    assert!(world.masters().contains(&"gw1"));
    assert_eq!(world.reasons("gw1"), [Reason::Listened, Reason::NoMaster]);
}

#[test]
fn preemption_waits_for_its_delay() {
    let delay = Duration::from_secs(3);
    let mut world = World::with(&PAIR, |config| config.preempt = Some(Preempt { delay }));
    world.kill("gw1");
    world.run(10 * INTERVAL);
    assert_eq!(world.masters(), ["gw2"]);
    world.start("gw1", false);
    world.run(delay);
    assert_eq!(world.masters(), ["gw2"]);
    world.run(5 * INTERVAL);
    assert_eq!(world.masters(), ["gw1"]);
    assert_eq!(world.reason("gw1"), Reason::HandoverFrom("gw2".into()));
    assert_eq!(world.two_acting, 0);
}

#[test]
fn a_node_that_comes_and_goes_waits_anew() {
    let delay = Duration::from_secs(3);
    let mut world = World::with(&PAIR, |config| config.preempt = Some(Preempt { delay }));
    world.kill("gw1");
    world.run(10 * INTERVAL);
    for _ in 0..4 {
        world.start("gw1", false);
        world.run(delay * 2 / 3);
        assert_eq!(world.masters(), ["gw2"]);
        world.kill("gw1");
        world.run(5 * INTERVAL);
    }
}

#[test]
fn refused_preemption_backs_off_from_1_s_to_60_s() {
    let preempt = Some(Preempt { delay: Duration::ZERO });
    let mut world = World::with(&PAIR, |config| config.preempt = preempt);
    world.kill("gw1");
    world.run(10 * INTERVAL);
    world.members[0].doubt = Some(Doubt::NotInSync);
    world.start("gw1", false);
    world.run(Duration::from_secs(200));
    let refused = |(at, event): &(_, Event)| {
        matches!(event, Event::Handover { result: Err(_), .. }).then_some(*at)
    };
    let all: Vec<_> = world.members[1].events.iter().filter_map(refused).collect();
    // It acts with its timers, an interval later at most: whole seconds.
    let waits = all.array_windows().map(|[one, next]| next.since(*one).as_secs());
    let waits: Vec<u64> = waits.collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!((world.masters(), world.two_acting), (vec!["gw2"], 0));
    world.members[0].doubt = None;
    world.run(Duration::from_secs(60));
    assert_eq!(world.masters(), ["gw1"]);
}

#[test]
fn preemption_respects_an_operators_handover() {
    let preempt = Some(Preempt { delay: Duration::ZERO });
    let mut world = World::with(&PAIR, |config| config.preempt = preempt);
    world.run(10 * INTERVAL);
    world.command("gw1", handover("gw2")).unwrap();
    world.run(Duration::from_secs(10));
    assert_eq!(world.masters(), ["gw2"]);
    world.kill("gw1");
    world.run(10 * INTERVAL);
    world.start("gw1", false);
    world.run(20 * INTERVAL);
    assert_eq!(world.masters(), ["gw1"], "the node that gave up restarted");
    world.command("gw1", maintenance(true, false)).unwrap();
    world.run(Duration::from_secs(10));
    assert_eq!(world.masters(), ["gw2"]);
    world.command("gw1", maintenance(false, false)).unwrap();
    world.run(5 * INTERVAL);
    assert_eq!(world.masters(), ["gw1"], "it left maintenance");
}

#[test]
fn preemption_waits_while_configs_differ() {
    let preempt = Some(Preempt { delay: Duration::ZERO });
    let mut world = World::with(&PAIR, |config| {
        config.preempt = preempt;
        config.fingerprint = [config.priority; 16];
    });
    world.kill("gw1");
    world.run(10 * INTERVAL);
    world.start("gw1", false);
    world.run(Duration::from_secs(10));
    assert_eq!(world.masters(), ["gw2"]);
}

fn health(world: &mut World, index: usize, ok: bool) {
    let now = world.now;
    let last_pass_began = ok.then_some(now);
    world.members[index].node.handle_health(now, Health { ok, last_pass_began });
    world.settle(index, None);
}

#[test]
fn an_unhealthy_master_hands_over_to_one_that_passed_later() {
    let mut world = pair();
    health(&mut world, 1, true);
    world.run(2 * INTERVAL);
    health(&mut world, 0, false);
    world.run(5 * INTERVAL);
    assert_eq!(world.masters(), ["gw1"], "gw2's last pass is older than the failure");
    health(&mut world, 1, true);
    world.run(2 * INTERVAL);
    assert_eq!(world.masters(), ["gw2"]);
    health(&mut world, 1, false);
    world.run(5 * INTERVAL);
    assert_eq!(world.masters(), ["gw2"], "nobody is better");
}

/// Neither is a candidate; then both are, the second one by this much later.
fn both_come_back(first: usize, gap: Duration, by: &str) -> World {
    let mut world = pair();
    let names = ["gw1", "gw2"];
    let change = |world: &mut World, index: usize, fit: bool| match by {
        "maintenance" => world.command(names[index], maintenance(!fit, true)).unwrap(),
        _ if fit => world.report(index, Report::Ability(Ability::Ready)),
        _ => world.report(index, Report::Ability(Ability::Unable("port taken".into()))),
    };
    change(&mut world, 1, false);
    world.run(INTERVAL);
    change(&mut world, 0, false);
    world.run(10 * INTERVAL);
    assert!(world.masters().is_empty());
    change(&mut world, first, true);
    world.run(gap);
    change(&mut world, 1 - first, true);
    world
}

#[test]
fn two_that_come_back_together_are_not_master_both() {
    for (first, by) in [(0, "fault"), (1, "fault"), (0, "maintenance"), (1, "maintenance")] {
        for gap in 0..=INTERVAL.as_millis() {
            let gap = Duration::from_millis(u64::try_from(gap).unwrap());
            let mut world = both_come_back(first, gap, by);
            world.run(INTERVAL);
            assert_eq!(world.masters().len(), 1, "{first} first, {gap:?}, {by}");
            assert_eq!(world.two_acting, 0, "{first} first, {gap:?}, {by}");
            let yields = |name| {
                world.saw(name, |event| {
                    matches!(event, Event::Role { reason: Reason::Yielded(_), .. })
                })
            };
            assert_eq!((yields("gw1"), yields("gw2")), (0, 0), "{first} first, {gap:?}, {by}");
        }
    }
}

#[test]
fn a_goodbye_accounts_for_one_detection_time() {
    for (silence, masters) in [(DETECTION / 2, 1), (DETECTION * 3 / 2, 0)] {
        let mut world = pair();
        world.command("gw1", maintenance(true, false)).unwrap();
        world.run(2 * INTERVAL);
        world.members[0].outside = Some(false);
        world.command("gw2", Command::Stop).unwrap();
        world.run(INTERVAL / 5 + silence);
        assert_eq!(world.role("gw2"), Role::Backup);
        world.command("gw1", maintenance(false, false)).unwrap();
        world.run(INTERVAL);
        // Cut off: it may have started anew where I do not hear it.
        assert_eq!(world.masters().len(), masters, "after {silence:?}");
    }
}

#[test]
fn an_unhealthy_candidate_only_waits_longer() {
    let mut world = pair();
    health(&mut world, 1, false);
    world.run(2 * INTERVAL);
    world.kill("gw1");
    world.run(5 * INTERVAL);
    assert_eq!(world.masters(), ["gw2"]);
}

#[test]
fn maintenance_hands_over_and_keeps_out() {
    let mut world = pair();
    world.command("gw1", maintenance(true, false)).unwrap();
    world.run(2 * INTERVAL);
    assert_eq!(world.masters(), ["gw2"]);
    assert_eq!(world.saw("gw1", |event| *event == Event::Maintenance(true)), 1);
    assert!(matches!(world.command("gw2", maintenance(true, false)), Err(Refused::NoSuccessor(_))));
    world.kill("gw2");
    world.run(10 * INTERVAL);
    assert!(world.masters().is_empty());
    // It survives a restart.
    world.kill("gw1");
    world.start("gw1", true);
    world.run(10 * INTERVAL);
    assert!(world.masters().is_empty());
    let now = world.now;
    assert_eq!(world.node("gw1").snapshot(now).held_back, Some("maintenance"));
    world.command("gw1", maintenance(false, false)).unwrap();
    world.run(10 * INTERVAL);
    assert_eq!(world.masters(), ["gw1"]);
}

#[test]
fn forced_maintenance_leaves_without_a_successor() {
    let mut world = pair();
    world.kill("gw2");
    world.run(5 * INTERVAL);
    world.command("gw1", maintenance(true, true)).unwrap();
    world.run(INTERVAL);
    assert!(world.masters().is_empty());
    assert_eq!(world.reasons("gw1").last(), Some(&Reason::Maintenance));
}

#[test]
fn three_gateways_go_by_rank() {
    let mut world = World::new(&[("gw1", 150), ("gw2", 100), ("gw3", 120)]);
    world.run(10 * INTERVAL);
    assert_eq!(world.masters(), ["gw1"]);
    world.kill("gw1");
    world.run(5 * INTERVAL);
    assert_eq!(world.masters(), ["gw3"]);
    world.command("gw3", handover("gw2")).unwrap();
    world.run(5 * INTERVAL);
    assert_eq!(world.masters(), ["gw2"]);
    world.kill("gw2");
    world.run(5 * INTERVAL);
    assert_eq!(world.masters(), ["gw3"]);
    assert_eq!(world.two_acting, 0);
}

#[test]
fn a_witness_is_never_master_and_gives_no_orders() {
    let mut world = World::new(&[("gw1", 150), ("w1", 255)]);
    world.run(10 * INTERVAL);
    assert_eq!(world.masters(), ["gw1"]);
    assert_eq!(world.role("w1"), Role::Backup);
    world.kill("gw1");
    world.run(20 * INTERVAL);
    assert!(world.masters().is_empty());
    assert_eq!(world.command("w1", handover("gw1")), Err(Refused::IAmWitness));
    assert_eq!(world.command("w1", maintenance(true, true)), Err(Refused::IAmWitness));
}

#[test]
fn an_obituary_is_not_waited_for_any_longer() {
    let mut world = pair();
    // Evidence says which of two is cut off from the other: who is told is not.
    world.members[1].outside = Some(false);
    world.bury("gw1");
    let died = world.now;
    world.run(2 * MS);
    assert_eq!(world.masters(), ["gw2"]);
    assert_eq!(world.since("gw2", Role::Master), died + MS, "the way that the obituary went");
    assert_eq!(world.reason("gw2"), Reason::MasterObituary("gw1".into()));
    world.start("gw1", false);
    world.run(5 * DETECTION);
    assert_eq!((world.masters(), world.two_acting), (vec!["gw2"], 0));
}

#[test]
fn after_an_obituary_the_best_of_several_takes_over_at_once() {
    let mut world = World::new(&[("gw1", 150), ("gw2", 100), ("gw3", 120), ("w1", 100)]);
    world.run(10 * INTERVAL);
    assert_eq!(world.masters(), ["gw1"]);
    world.bury("gw1");
    let died = world.now;
    world.run(DETECTION);
    assert_eq!((world.masters(), world.two_acting), (vec!["gw3"], 0));
    assert_eq!(world.since("gw3", Role::Master), died + MS);
    assert_eq!(world.reasons("gw2"), [Reason::Listened]);
    // That a backup died is no one's concern.
    world.bury("gw2");
    world.run(DETECTION);
    assert_eq!(world.masters(), ["gw3"]);
    assert!(
        world.saw("gw3", |e| matches!(e, Event::Peer { name, alive: false } if name == "gw2")) > 0
    );
}

#[test]
fn an_obituary_that_is_lost_costs_the_detection_time() {
    let mut world = pair();
    world.link("gw1", "gw2", false);
    world.bury("gw1");
    let died = world.now;
    world.run(DETECTION - INTERVAL);
    assert_eq!(world.role("gw2"), Role::Backup);
    world.run(2 * INTERVAL);
    assert_eq!(world.masters(), ["gw2"]);
    assert_eq!(world.reason("gw2"), Reason::MasterSilent("gw1".into()));
    assert!(world.since("gw2", Role::Master) >= died + (DETECTION - INTERVAL));
}
