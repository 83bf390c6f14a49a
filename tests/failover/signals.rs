//! The daemon is stopped, killed, or made to sleep.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::pair::Pair;

#[test]
fn stopped_and_started_again() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    pair.stop(&gw1);
    pair.settled_on(&gw2, "gw1 was stopped");
    let log = std::fs::read_to_string(gw1.dir().join("state/notify.log")).expect("hooks ran");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains(" STOP "), "the last hook of a stopped node: {last}");
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 runs again: the incumbent stays");
    // A backup goes and comes; nobody notices.
    let changes = pair.changes_of(&[&gw2]);
    pair.stop(&gw1);
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "the backup was stopped and started");
    pair.none_changed(&[&gw2], changes, "the master changed its role");
    pair.end();
}

#[test]
fn killed_and_restarted_at_once() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    pair.kill(&gw1);
    pair.start_on(&gw1);
    pair.settled("the master was killed and restarted at once");
    pair.kill(&gw2);
    pair.start_on(&gw2);
    pair.settled("the other one was killed and restarted at once");
    pair.end();
}

#[test]
fn killed_and_released() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    pair.kill(&gw1);
    // What systemd does after every end (ExecStopPost).
    pair.wgha(&gw1, &["release"]);
    pair.settled_on(&gw2, "gw1 was killed and released");
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 runs again");
    pair.end();
}

#[test]
fn killed_and_restarted_later() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    pair.kill(&gw1);
    // The dead daemon's addresses still stand on gw1: only the announcements of gw2 decide.
    pair.is_master(&gw2, "gw1 was killed");
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 is restarted and takes off what stood");
    pair.end();
}

#[test]
fn asleep_for_five_seconds() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    pair.signal(&gw1, Signal::SIGSTOP);
    pair.is_master(&gw2, "gw1 sleeps");
    std::thread::sleep(Duration::from_secs(5));
    pair.signal(&gw1, Signal::SIGCONT);
    pair.settled_on(&gw2, "gw1 woke up");
    // A backup that slept has no reason to think that the master was silent.
    pair.signal(&gw1, Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(5));
    pair.signal(&gw1, Signal::SIGCONT);
    pair.settled_on(&gw2, "the backup woke up");
    pair.end();
}
