//! Handovers without loss: many in a row, and each way into one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use netns_lab::{Echo, Lab, Prober, realtime_ns, topology};

use crate::pair::{Pair, eventually, is_answered, options};

/// A client begins a handshake by itself 15 s after it sends in vain: who is back before that was
/// called.
const BY_ITSELF: Duration = Duration::from_secs(14);

/// Handovers in a row.
const ROUNDS: usize = 100;

/// Between handovers, so that each has a beginning and an end.
const PAUSE: Duration = Duration::from_millis(300);

/// How long a client's tunnel was down in each handover, in milliseconds, sorted: until the next one began.
fn outages(prober: Prober, starts: &[u64]) -> Vec<f64> {
    let end = realtime_ns();
    let probes = prober.stop();
    let mut outages: Vec<f64> = Vec::new();
    for (at, next) in starts.iter().zip(starts.iter().skip(1).chain([&end])) {
        let outage = probes.outage(*at, *next).expect("answers before");
        let outage = outage.outage.expect("an answer before the next handover");
        outages.push(outage.as_secs_f64() * 1e3);
    }
    outages.sort_by(f64::total_cmp);
    outages
}

#[test]
fn a_hundred_handovers_lose_no_client() {
    let pair = Pair::with(Lab::builder().clients(3).cluster(options()));
    let _echo = Echo::start(pair.lab.host(), topology::ECHO_PORT).expect("the echo server");
    let to = SocketAddr::from((topology::host().v4, topology::ECHO_PORT));
    let prober = Prober::start(pair.lab.client_node(1), to, Duration::from_millis(1));
    let prober = prober.expect("the prober");
    is_answered(&prober);
    let mut nodes = [pair.gateway(1), pair.gateway(2)];
    let mut starts = Vec::with_capacity(ROUNDS);
    let mut refused = 0;
    for round in 1..=ROUNDS {
        // The successor of a moment ago may not have settled: that is refused by name, so asked again.
        eventually(&format!("handover {round}"), || {
            // On a machine without time for it the role may have moved by itself.
            if pair.cluster.masters().iter().any(|m| m.name() != nodes[0].name()) {
                nodes.swap(0, 1);
            }
            let [from, next] = &nodes;
            let at = realtime_ns();
            match pair.cluster.command(from, &["handover", "--to", next.name()]) {
                Ok(_) => starts.push(at),
                Err(e) => {
                    refused += 1;
                    return vec![format!("{e:#}")];
                }
            }
            Vec::new()
        });
        let moved = Instant::now();
        for client in &pair.clients {
            let to = topology::wg_gateway().v4.into();
            let left = BY_ITSELF.saturating_sub(moved.elapsed());
            let back = netns_lab::reach(client.node(), to, Duration::from_millis(200), left);
            let name = client.node().name();
            assert!(back.is_ok(), "round {round}: {name} is not back: {back:?}");
        }
        std::thread::sleep(PAUSE.saturating_sub(moved.elapsed()));
    }
    let outages = outages(prober, &starts);
    let (median, worst) = (outages[outages.len() / 2], outages[outages.len() - 1]);
    println!("{ROUNDS} handovers, {refused} refused and asked again");
    println!("outage of client1: median {median:.1} ms, worst {worst:.1} ms");
    println!("all: {outages:.1?}");
    for client in &pair.clients {
        assert_eq!(client.endpoint().expect("an endpoint"), topology::endpoint(false));
    }
    assert_eq!(starts.len(), ROUNDS);
    pair.settled("a hundred handovers back and forth");
    pair.end();
}
