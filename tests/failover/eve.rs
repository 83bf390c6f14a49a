//! A man in the middle of all heartbeats, without a key: whatever he does to them there is no second master, what leaves the path
//! good enough changes nothing, and what he kept of earlier sessions wakes nobody.

use std::time::{Duration, Instant};

use netns_lab::{ClusterOptions, Eve, Frame, Lab, Manner, Node};
use serde_json::Value;

use crate::pair::{Pair, eventually, network, options};

/// A detection time of six heartbeats has room for one that waits for a while on both ways.
const HEARTBEAT: Duration = Duration::from_millis(100);
const DETECTION: Duration = Duration::from_millis(600);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Members that remember an empty past: without one nobody votes for half a minute.
fn remember(lab: &Lab) {
    let votes = r#"{"longest_ms":0,"term":0,"session":"00000000000000000000000000000000","voters":[],"before":[]}"#;
    for node in lab.members() {
        let dir = node.dir().join("state/wgha");
        std::fs::create_dir_all(&dir).expect("a state directory");
        std::fs::write(dir.join("votes.json"), votes).expect("votes");
    }
}

/// The term in which a node is master.
fn term(pair: &Pair, node: &Node) -> Option<Value> {
    let status = pair.cluster.status(node).ok()?;
    (status["role"] == "master").then(|| status["term"].clone())
}

/// Looks for so long. Who is master of one term before and after the other is master was so meanwhile.
fn never_two(pair: &Pair, time: Duration) {
    let (one, other, end) = (pair.gateway(1), pair.gateway(2), Instant::now() + time);
    while Instant::now() < end {
        for (a, b) in [(&one, &other), (&other, &one)] {
            let before = term(pair, a);
            let second = before.as_ref().and_then(|_| term(pair, b));
            let both = second.is_some() && term(pair, a) == before;
            assert!(!both, "{} and {} are masters", a.name(), b.name());
        }
        std::thread::sleep(ms(20));
    }
}

fn changes(pair: &Pair) -> usize {
    pair.running().map(|node| pair.changes(node)).sum()
}

/// What a node's socket refused of datagrams that came.
fn refused(pair: &Pair, node: &Node) -> u64 {
    let status = pair.status(node);
    let counts = status["refusals"].as_object().expect("counts").values();
    counts.filter_map(Value::as_u64).sum()
}

/// Nobody's role changes by this.
fn bears(pair: &Pair, eve: &Eve, manner: Manner) {
    unmoved(pair, &format!("{manner:?}"), || {
        let meddled = eve.meddled();
        eve.set(manner);
        never_two(pair, 2 * DETECTION);
        eve.set(Manner::Pass);
        assert!(eve.meddled() > meddled, "nothing was done: {manner:?}");
    });
}

/// Nobody's role changes meanwhile. A machine that stands still costs a term, so there is more than one try.
fn unmoved(pair: &Pair, what: &str, mut meddle: impl FnMut()) {
    let borne = (0..3).any(|_| {
        let changed = changes(pair);
        meddle();
        let same = changes(pair) == changed;
        if !same {
            pair.settled(what);
        }
        same
    });
    assert!(borne, "each time a role changed by {what}");
}

/// Roles may change by this, and all is well afterwards.
fn survives(pair: &Pair, eve: &Eve, manner: Manner) -> Node {
    eve.set(manner);
    never_two(pair, 3 * DETECTION);
    eve.set(Manner::Pass);
    never_two(pair, DETECTION);
    pair.settled(&format!("after {manner:?}"))
}

/// Nothing that comes is whole: it counts for nothing, so both gateways are silent to each other, and all is well afterwards.
fn deafens(pair: &Pair, eve: &Eve) {
    let (one, other) = (pair.gateway(1), pair.gateway(2));
    let pairs = [(&one, &other), (&other, &one)];
    let before = pairs.map(|(node, _)| refused(pair, node));
    eve.set(Manner::Spoil);
    eventually("what is damaged is no sign of life", || {
        let hears = pairs.iter().filter(|(node, other)| hears(pair, node, other.name()));
        hears.map(|(node, other)| format!("{} hears {}", node.name(), other.name())).collect()
    });
    never_two(pair, 3 * DETECTION);
    for ((node, other), before) in pairs.into_iter().zip(before) {
        assert!(!hears(pair, node, other.name()), "{} hears {}", node.name(), other.name());
        assert!(refused(pair, node) > before, "nothing came to {}", node.name());
    }
    eve.set(Manner::Pass);
    never_two(pair, DETECTION);
    pair.settled("after damage");
}

fn hears(pair: &Pair, node: &Node, name: &str) -> bool {
    let status = pair.status(node);
    let nodes = status["nodes"].as_array().expect("nodes");
    nodes.iter().any(|n| n["name"] == name && n["alive"] == true)
}

/// Everything that was kept is played, while `dead` does not run: nobody takes it for alive.
fn stays_dead(pair: &Pair, eve: &Eve, frames: &[Frame], dead: &Node) {
    let others: Vec<Node> =
        pair.lab.members().filter(|node| node.name() != dead.name()).cloned().collect();
    eventually(&format!("{} is silent", dead.name()), || {
        let hear = others.iter().filter(|node| hears(pair, node, dead.name()));
        hear.map(|node| format!("{} hears it", node.name())).collect()
    });
    let before: Vec<u64> = others.iter().map(|node| refused(pair, node)).collect();
    eve.replay(frames);
    let end = Instant::now() + ms(frames.len() as u64) + DETECTION;
    while Instant::now() < end {
        for node in &others {
            assert!(!hears(pair, node, dead.name()), "{} wakes at {}", dead.name(), node.name());
        }
        std::thread::sleep(ms(10));
    }
    for (node, before) in others.iter().zip(before) {
        assert!(refused(pair, node) > before + 50, "{} got no replay", node.name());
    }
}

/// The last two seconds of this: more than anyone remembers of counters.
fn last(mut frames: Vec<Frame>) -> Vec<Frame> {
    frames.split_off(frames.len().saturating_sub(1_000))
}

#[test]
fn a_man_in_the_middle_makes_no_second_master_and_wakes_no_dead_one() {
    let cluster =
        ClusterOptions { quorum: "auto".to_owned(), heartbeat: HEARTBEAT, misses: 6, ..options() };
    let lab = network(Lab::builder().witness().cluster(cluster));
    remember(&lab);
    let mut pair = Pair::unsettled(lab);
    pair.settled("after the start");
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    pair.lead(&gw1);
    let eve = Eve::start(&pair.lab).expect("eve");

    for manner in [
        Manner::Delay(ms(60)),
        Manner::Reorder(ms(150)),
        Manner::Duplicate(ms(30)),
        Manner::Truncate,
        Manner::Flip,
    ] {
        bears(&pair, &eve, manner);
    }
    for manner in
        [Manner::Drop(50), Manner::Drop(100), Manner::Delay(3 * DETECTION), Manner::Drip(DETECTION)]
    {
        survives(&pair, &eve, manner);
    }
    deafens(&pair, &eve);
    // What drips is of a time long past by now.
    pair.lead(&gw1);

    let first = last(eve.kept());
    unmoved(&pair, "what was said before", || {
        eve.replay(&first);
        never_two(&pair, ms(1_200));
    });
    pair.lead(&gw1);

    pair.stop(&gw2);
    stays_dead(&pair, &eve, &first, &gw2);
    pair.start_on(&gw2);
    pair.settled_on(&gw1, "gw2 is back");
    let second = last(eve.kept());
    pair.kill(&gw1);
    pair.wgha(&gw1, &["release"]);
    pair.is_master(&gw2, "gw1 was killed");
    stays_dead(&pair, &eve, &second, &gw1);
    stays_dead(&pair, &eve, &first, &gw1);
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 is back");

    // Both are of another session now than all that he has.
    unmoved(&pair, "earlier sessions", || {
        for frames in [&first, &second] {
            eve.replay(frames);
            never_two(&pair, ms(1_200));
        }
    });
    pair.lead(&gw2);
    assert_eq!(term(&pair, &gw1), None);
    eve.stop(&pair.lab).expect("eve ends");
    pair.settled_on(&gw2, "without him");
    pair.end();
}
