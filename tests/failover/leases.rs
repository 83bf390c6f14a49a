//! Three voters: mastership needs a majority.

use std::time::Instant;

use netns_lab::{ClusterOptions, Lab};
use nix::sys::signal::{Signal, kill};

use crate::gate::{Ear, silent};
use crate::pair::{BOUND, Pair, eventually, options};

#[test]
fn a_partition_leaves_the_master_that_has_a_majority() {
    let cluster = ClusterOptions { quorum: "auto".to_owned(), ..options() };
    // Nobody votes for 30 s after a first start: nobody knows that it is the first.
    let mut pair = Pair::with(Lab::builder().witness().cluster(cluster));
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let status = pair.status(&gw1);
    assert_eq!(status["exclusive"], "yes (lease of 2 of 3 voters)");
    assert_eq!(status["lease"]["held"], true);
    assert!(status["lease"]["expires_ms"].as_u64().is_some_and(|ms| ms > 0), "{status}");

    let cut = pair.lab.partition(&["gw1"], &["gw2", "w1"]).expect("cut");
    pair.is_master(&gw2, "gw2 has the witness");
    // Its daemon left by itself, before anyone else could win: nothing told it.
    let status = pair.status(&gw1);
    assert_eq!((&status["role"], &status["lease"]["held"]), (&"backup".into(), &false.into()));
    assert_eq!(status["reason"], "no majority renewed the lease");
    // The gate was shut by then; the rest follows.
    eventually("gw1 has taken all off", || {
        let status = pair.status(&gw1);
        let mut ips = status["floating_ips"].as_array().expect("addresses").iter();
        let acts = ips.any(|ip| ip["held"] == true) || status["wireguard"][0]["up"] != false;
        if acts { vec![status.to_string()] } else { Vec::new() }
    });

    pair.lab.heal(cut).expect("heal");
    pair.settled_on(&gw2, "all hear each other again");
    pair.hand_over(&gw2, &gw1);
    pair.settled_on(&gw1, "a handover passes the lease on");

    // Its guard frees the votes that it has: nobody waits for the lease to end.
    let worker = pair.cluster.process("gw1").worker().expect("a worker");
    kill(worker, Signal::SIGKILL).expect("a kill");
    pair.says(&gw2, "master", "master gw1 died");
    pair.cluster.process("gw1").wait(BOUND).expect("the guard ends");
    pair.gone(&gw1);
    pair.settled_on(&gw2, "the worker of gw1 was killed");
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 runs again");
    pair.hand_over(&gw2, &gw1);
    pair.settled_on(&gw1, "gw1 has the lease");

    // Nobody in it runs, and still it is silent before gw2 can win.
    let ear = Ear::new(&pair, &gw1);
    pair.signal(&gw1, Signal::SIGSTOP);
    silent(&ear, Instant::now());
    pair.settled_on_silent(&gw2, "gw2 and the witness are a majority");
    assert_eq!(ear.heard(), (0, 0, 0), "while gw2 serves");
    pair.signal(&gw1, Signal::SIGCONT);
    pair.settled_on(&gw2, "gw1 goes on");
    pair.kill(&gw2);
    pair.wgha(&gw2, &["release"]);
    pair.settled_on(&gw1, "gw1 and the witness are a majority");
    pair.end();
}
