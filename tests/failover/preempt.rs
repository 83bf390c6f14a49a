//! `preempt = true`: the better gateway gets the role back, by a handover, after `preempt_delay`, and not against
//! an operator's wish, another config, or a reason to refuse.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use netns_lab::{ClusterOptions, Echo, Filter, Lab, Node, Prober, etc, realtime_ns, topology};
use serde_json::Value;

use crate::pair::{BOUND, Pair, eventually, heartbeat, options};

/// How long gw1 must have been fit.
const DELAY: Duration = Duration::from_secs(3);

/// A client whose gateway moves is called at once. A call that is lost costs it 5 s, and no call 15 s.
const CALLED: Duration = Duration::from_secs(14);

/// Two log lines may be stamped so much closer together than they were said.
const STAMPS: Duration = Duration::from_millis(900);

/// A pair that preempts, gw1 as master; it has the higher priority.
fn pair(delay: Duration) -> Pair {
    let cluster = ClusterOptions { preempt: true, preempt_delay: delay, ..options() };
    Pair::with(Lab::builder().cluster(cluster))
}

/// gw1 dies, and is wiped as its unit would; gw2 serves.
fn lose_gw1(pair: &mut Pair) {
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    pair.kill(&gw1);
    pair.wgha(&gw1, &["release"]);
    pair.settled_on(&gw2, "gw1 was killed");
}

/// Waits until the master sees that `other` could take over.
fn sees_fit(pair: &Pair, master: &Node, other: &Node) {
    let (master_name, name) = (master.name(), other.name());
    eventually(&format!("{master_name} sees that {name} could serve"), || {
        let seen = seen(pair, master, other);
        let yes = ["alive", "healthy", "ready"].iter().all(|field| seen[field] == true);
        let fit = yes && seen["maintenance"] == false && seen["role"] == "backup";
        if fit { Vec::new() } else { vec![seen.to_string()] }
    });
}

/// What `node` says of `other`.
fn seen(pair: &Pair, node: &Node, other: &Node) -> Value {
    let nodes = pair.status(node)["nodes"].clone();
    let found = nodes.as_array().and_then(|all| all.iter().find(|n| n["name"] == other.name()));
    found.cloned().unwrap_or_default()
}

/// `master` stays what it is for twenty heartbeats; without a delay preemption takes one.
fn stays(pair: &Pair, master: &Node, when: &str) {
    pair.stay(&[(master, "master")], heartbeat() * 20, when);
}

fn last_reason(pair: &Pair, node: &Node) -> String {
    let events = pair.wgha(node, &["events", "--json"]);
    let last = events.lines().last().expect("an event");
    let event: Value = serde_json::from_str(last).expect("JSON");
    event["reason"].as_str().expect("a reason").to_owned()
}

#[test]
fn the_better_gateway_gets_the_role_back_by_a_handover_after_the_delay() {
    let mut pair = pair(DELAY);
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    lose_gw1(&mut pair);
    let _echo = Echo::start(pair.lab.host(), topology::ECHO_PORT).expect("the echo server");
    let to = SocketAddr::from((topology::host().v4, topology::ECHO_PORT));
    let prober = Prober::start(pair.lab.client_node(1), to, Duration::from_millis(5));
    let prober = prober.expect("the prober");

    pair.start_on(&gw1);
    sees_fit(&pair, &gw2, &gw1);
    // Whoever comes and goes waits anew.
    pair.kill(&gw1);
    let (again, from) = (Instant::now(), realtime_ns());
    pair.start_on(&gw1);
    pair.is_master(&gw1, "it has been fit for long enough");
    assert!(again.elapsed() >= DELAY, "after {:?}", again.elapsed());

    pair.settled_on(&gw1, "preempted");
    assert_eq!(last_reason(&pair, &gw1), "handover from gw2");
    assert_eq!(last_reason(&pair, &gw2), "handover to gw1");
    let until = realtime_ns();
    let outage = prober.stop().outage(from, until).expect("answers before");
    println!("the client's tunnel: {outage}");
    assert!(outage.outage.is_some_and(|outage| outage < CALLED), "{outage}");
    pair.end();
}

#[test]
fn not_while_configs_differ() {
    let mut pair = pair(Duration::ZERO);
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    lose_gw1(&mut pair);
    let same = pair.lab.wgha_toml();
    let another = same.replace("[cluster]\n", "[cluster]\nhandover_timeout = \"600ms\"\n");
    let write = |text: &str| std::fs::write(etc(&gw1).join("wgha.toml"), text).expect("wgha.toml");
    write(&another);
    pair.start_on(&gw1);
    sees_fit(&pair, &gw2, &gw1);
    assert_eq!(seen(&pair, &gw2, &gw1)["config_match"], false);
    stays(&pair, &gw2, "the configs differ");
    write(&same);
    pair.wgha(&gw1, &["reload"]);
    pair.settled_on(&gw1, "the configs are the same again");
    assert_eq!(last_reason(&pair, &gw1), "handover from gw2");
    pair.end();
}

#[test]
fn not_against_an_operators_wish() {
    let mut pair = pair(Duration::ZERO);
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    pair.hand_over(&gw1, &gw2);
    pair.settled_on(&gw2, "handover by command");
    sees_fit(&pair, &gw2, &gw1);
    stays(&pair, &gw2, "an operator wanted it so");
    pair.stop(&gw1);
    pair.start_on(&gw1);
    pair.settled_on(&gw1, "the node that gave up was started again");
    assert_eq!(last_reason(&pair, &gw1), "handover from gw2");

    pair.in_the_end(&gw1, &["maintenance", "on"]);
    pair.settled_on(&gw2, "maintenance");
    stays(&pair, &gw2, "gw1 is in maintenance");
    pair.wgha(&gw1, &["maintenance", "off"]);
    pair.settled_on(&gw1, "maintenance is over");
    pair.end();
}

/// When gw2 said that it was refused, by the log's clock.
fn refusals(pair: &mut Pair) -> Vec<Duration> {
    let log = pair.cluster.process("gw2").log();
    let refused = log.lines().filter(|line| line.contains("no handover to gw1: not connected to"));
    let at = |line: &str| line.split(' ').next()?.parse().ok().map(Duration::from_secs_f64);
    refused.filter_map(at).collect()
}

#[test]
fn refused_attempts_wait_longer_each_time_and_cost_nothing() {
    let mut pair = pair(Duration::ZERO);
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    lose_gw1(&mut pair);
    let term = pair.status(&gw2)["term"].clone();
    // gw1 is ready, as far as gw2 can see; only gw1 knows that it hears nothing of the clients.
    let cut = pair.lab.inject(vec![Filter::one_way("gw1", "gw2").sync()]).expect("cut");
    pair.start_on(&gw1);
    let end = Instant::now() + BOUND;
    let all = loop {
        let all = refusals(&mut pair);
        if all.len() >= 4 {
            break all;
        }
        assert!(Instant::now() < end, "{} refusals after {BOUND:?}", all.len());
        std::thread::sleep(Duration::from_millis(100));
    };
    let waits: Vec<Duration> = all.array_windows().map(|[one, next]| *next - *one).collect();
    println!("waits: {waits:?}");
    for (wait, least) in waits.iter().zip([1, 2, 4].map(Duration::from_secs)) {
        assert!(*wait + STAMPS >= least, "{waits:?}");
    }
    let status = pair.status(&gw2);
    assert_eq!((&status["role"], &status["term"]), (&Value::from("master"), &term));
    pair.lab.heal(cut).expect("heal");
    pair.settled_on(&gw1, "nothing stands against it any more");
    assert_eq!(last_reason(&pair, &gw1), "handover from gw2");
    pair.end();
}
