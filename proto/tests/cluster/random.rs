//! Random sequences of operations: nothing panics, and what must hold holds.

use std::time::Duration;

use proptest::prelude::*;
use wgha_proto::{Ability, Command, Event, Health, Report, Role};

use crate::world::{INTERVAL, MS, Packet, World};

/// One thing that happens to a cluster.
#[derive(Clone, Debug)]
enum Op {
    Run(u64),
    Kill(usize),
    Start(usize),
    Pause(usize, u64),
    Cut(usize, usize),
    Heal,
    Delay(u64),
    Effort(u64),
    Ability(usize, u8),
    Health(usize, bool),
    Outside(usize, Option<bool>),
    Handover(usize, bool),
    Maintenance(usize, bool),
    Fail(usize),
    Reload(usize),
    /// Sends again what was sent before, perhaps damaged, to anyone.
    Replay {
        which: usize,
        to: usize,
        flip: Option<usize>,
    },
    Garbage(usize, Vec<u8>),
}

fn op() -> impl Strategy<Value = Op> {
    let node = 0_usize..3;
    prop_oneof![
        6 => (1_u64..2000).prop_map(Op::Run),
        1 => node.clone().prop_map(Op::Kill),
        2 => node.clone().prop_map(Op::Start),
        1 => (node.clone(), 1_u64..3000).prop_map(|(n, ms)| Op::Pause(n, ms)),
        1 => (node.clone(), node.clone()).prop_map(|(a, b)| Op::Cut(a, b)),
        2 => Just(Op::Heal),
        1 => (0_u64..80).prop_map(Op::Delay),
        1 => (0_u64..400).prop_map(Op::Effort),
        1 => (node.clone(), 0_u8..4).prop_map(|(n, a)| Op::Ability(n, a)),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, ok)| Op::Health(n, ok)),
        1 => (node.clone(), any::<Option<bool>>()).prop_map(|(n, o)| Op::Outside(n, o)),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, f)| Op::Handover(n, f)),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, on)| Op::Maintenance(n, on)),
        1 => node.clone().prop_map(Op::Fail),
        1 => node.clone().prop_map(Op::Reload),
        2 => (any::<usize>(), node.clone(), any::<Option<usize>>())
            .prop_map(|(which, to, flip)| Op::Replay { which, to, flip }),
        1 => (node, proptest::collection::vec(any::<u8>(), 0..200)).prop_map(|(n, b)| Op::Garbage(n, b)),
    ]
}

fn apply(world: &mut World, op: Op) {
    let now = world.now;
    match op {
        Op::Run(ms) => world.run(Duration::from_millis(ms)),
        Op::Kill(n) => world.kill(["gw1", "gw2", "w1"][n]),
        Op::Start(n) => {
            if !world.members[n].running {
                world.start(["gw1", "gw2", "w1"][n], false);
            }
        }
        Op::Pause(n, ms) if world.members[n].running => {
            world.members[n].running = false;
            world.run(Duration::from_millis(ms));
            world.members[n].running = true;
        }
        Op::Pause(..) => {}
        Op::Cut(a, b) => {
            world.cut.insert((a, b));
        }
        Op::Heal => world.cut.clear(),
        Op::Delay(ms) => world.delay = Duration::from_millis(ms),
        Op::Effort(ms) => world.effort = Duration::from_millis(ms),
        Op::Ability(n, which) => {
            let ability = match which {
                0 => Ability::Unknown,
                1 => Ability::NotReady("slow".into()),
                2 => Ability::Unable("gone".into()),
                _ => Ability::Ready,
            };
            world.report(n, Report::Ability(ability));
        }
        Op::Health(n, ok) => {
            let health = Health { ok, last_pass_began: ok.then_some(now) };
            world.members[n].node.handle_health(now, health);
            world.settle(n, None);
        }
        Op::Outside(n, outside) => world.members[n].outside = outside,
        Op::Handover(n, force) => {
            let _ = world.command(["gw1", "gw2", "w1"][n], Command::Handover { to: None, force });
        }
        Op::Maintenance(n, on) => {
            let command = Command::Maintenance { on, force: on };
            let _ = world.command(["gw1", "gw2", "w1"][n], command);
        }
        Op::Fail(n) => {
            let term = world.members[n].node.level().term;
            world.report(n, Report::Failed(term, "broken".into()));
        }
        Op::Reload(n) => {
            let config = world.members[n].config.clone();
            let keys = if config.witness { world.keys.to_witness() } else { world.keys.clone() };
            world.members[n].node.reconfigure(now, config, keys);
            world.settle(n, None);
        }
        Op::Replay { which, to, flip } => replay(world, which, to, flip),
        Op::Garbage(to, bytes) => {
            world.deliver(Packet { at: now, from: (to + 1) % 3, to, bytes });
        }
    }
}

fn replay(world: &mut World, which: usize, to: usize, flip: Option<usize>) {
    if world.seen.is_empty() {
        return;
    }
    let mut packet = world.seen[which % world.seen.len()].clone();
    packet.to = to;
    if let Some(at) = flip {
        let len = packet.bytes.len();
        packet.bytes[at % len] ^= 1;
    }
    world.deliver(packet);
}

/// As many as `PROPTEST_CASES` says, else few enough for a quick run.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_healed_cluster_has_one_master(ops in proptest::collection::vec(op(), 1..40)) {
        let mut world = World::new(&[("gw1", 150), ("gw2", 100), ("w1", 1)]);
        for op in ops {
            apply(&mut world, op);
            prop_assert!(world.members[2].node.level().role != Role::Master, "a witness is master");
        }
        for (n, name) in ["gw1", "gw2", "w1"].into_iter().enumerate() {
            apply(&mut world, Op::Start(n));
            apply(&mut world, Op::Outside(n, None));
            apply(&mut world, Op::Ability(n, 3));
            apply(&mut world, Op::Health(n, true));
            let _ = world.command(name, Command::Maintenance { on: false, force: false });
        }
        (world.delay, world.effort) = (MS, 3 * MS);
        world.cut.clear();
        // The longest hold-off after a failure, and twice the detection time.
        world.run(Duration::from_secs(61) + 6 * INTERVAL);
        prop_assert_eq!(world.masters().len(), 1);
        let before = world.two_acting;
        let changes = |world: &World| ["gw1", "gw2"].map(|name| world.reasons(name).len());
        let settled = changes(&world);
        world.run(Duration::from_secs(2));
        prop_assert_eq!(changes(&world), settled, "nothing changes any more");
        prop_assert_eq!(world.two_acting, before);
        check_events(&world)?;
    }
}

/// Role events form a chain, and terms of one node's masterships grow.
fn check_events(world: &World) -> Result<(), TestCaseError> {
    for member in &world.members {
        let mut last_term = 0;
        let mut role = None;
        for (_, event) in &member.events {
            let Event::Role { from, to, term, .. } = event else { continue };
            // A restart begins a new chain.
            prop_assert!(role.is_none_or(|role| role == *from) || *from == Role::Init);
            prop_assert!(from != to);
            role = Some(*to);
            if *to == Role::Master {
                prop_assert!(*term > last_term, "{} term {term} after {last_term}", member.name);
                last_term = *term;
            }
        }
    }
    Ok(())
}
