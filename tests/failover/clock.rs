//! A gateway whose clock is behind: clients refuse its handshakes, as they must, and everyone was told
//! before.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use netns_lab::{Lab, Node, topology};

use crate::pair::{Pair, eventually, network, options, wgha};

/// By how much the clock of gw2 is behind.
const BEHIND_S: u64 = 12;

/// A client begins a handshake by itself 15 s after it sends in vain; and some.
const BY_ITSELF: Duration = Duration::from_secs(19);

/// Without the warning's reason it would be back long before this.
const CALLED_IN_VAIN: Duration = Duration::from_secs(4);

/// The library that fakes clocks.
fn libfaketime() -> PathBuf {
    let places = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let file = |place| PathBuf::from(format!("/usr/lib/{place}/faketime/libfaketime.so.1"));
    let found = places.map(file).into_iter().find(|path| path.exists());
    found.expect("libfaketime is missing: apt-get install faketime")
}

/// A program that is wgha, but that on gw2 the daemon's wall clock is behind.
fn late_on_gw2(dir: &Path) -> PathBuf {
    let script = format!(
        "#!/bin/sh\n\
         case \"$1 $*\" in \"run \"*\" --node gw2\")\n\
         export LD_PRELOAD={} FAKETIME=-{BEHIND_S}s FAKETIME_DONT_FAKE_MONOTONIC=1\n\
         esac\n\
         exec {} \"$@\"\n",
        libfaketime().display(),
        wgha().display()
    );
    let path = dir.join("late-wgha");
    std::fs::write(&path, script).expect("writing the script");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("its mode");
    path
}

/// The warnings in a node's status.
fn warnings(pair: &Pair, node: &Node) -> Vec<String> {
    let status = pair.status(node);
    let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
    warnings.iter().filter_map(|w| w.as_str().map(str::to_owned)).collect()
}

fn warned(pair: &Pair, node: &Node, words: &str) {
    eventually(&format!("{} warns", node.name()), || {
        let all = warnings(pair, node);
        if all.iter().any(|w| w.contains(words)) { Vec::new() } else { vec![format!("{all:?}")] }
    });
}

/// How long the client's pings go unanswered.
fn back(pair: &Pair, since: Instant) -> Duration {
    let client = pair.clients[0].node();
    let to = topology::wg_gateway().v4.into();
    while netns_lab::ping(client, to, Duration::from_millis(200)).is_err() {
        assert!(since.elapsed() < BY_ITSELF, "the client is not back by its own rule");
    }
    since.elapsed()
}

#[test]
fn a_clock_behind_is_told_before_and_costs_no_more_than_the_clients_own_rule() {
    let lab = network(Lab::builder().cluster(options()));
    let program = late_on_gw2(lab.dir());
    let pair = Pair::with_program(lab, &program);
    pair.settled("after the start");
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    pair.lead(&gw1);

    // Told in status, in the table, and once in the log, on both sides.
    warned(&pair, &gw1, "the clock of gw2 is 12.0 s behind");
    warned(&pair, &gw2, "the clock of gw1 is 12.0 s ahead");
    let status = pair.status(&gw1);
    let offset = status["nodes"][1]["clock_offset_ms"].as_f64().expect("an offset");
    assert!((offset + 12_000.0).abs() < 300.0, "{offset}");
    assert!(pair.wgha(&gw1, &["status"]).contains("! the clock of gw2 is 12.0 s behind"));
    let log = std::fs::read_to_string(gw1.dir().join("log/wgha.log")).expect("the log");
    assert_eq!(log.matches("the clock of gw2 is").count(), 1, "{log}");

    // And in the answer to a handover, which is not refused for it.
    let said = pair.hand_over(&gw1, &gw2);
    assert!(said.contains("gw2 is master now") && said.contains("12.0 s behind"), "{said}");
    pair.settled_on(&gw2, "the gateway behind serves");

    // gw1 calls the client, with a stamp of now; so the client takes none of gw2's for 12 s.
    pair.hand_over(&gw2, &gw1);
    pair.settled_on(&gw1, "back");
    let again = Instant::now();
    pair.hand_over(&gw1, &gw2);
    let took = back(&pair, again);
    println!("the client is back after {took:?}");
    assert!(took > CALLED_IN_VAIN, "{took:?}: gw2's clock is not behind, this proves nothing");
    pair.settled_on(&gw2, "the client came by itself");
    pair.end();
}
