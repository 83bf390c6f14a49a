use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::judge::{health, next_run};
use super::*;
use crate::config::{CheckKind, HttpCheck, Target};
use crate::process::tests::{lives, until, write_program};

const fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

#[test]
fn rise_and_fall_count_runs_in_a_row() {
    // (runs, verdict after each)
    for (runs, verdicts) in [
        ("+++", "+++"),
        ("--+--+", "++++++"),
        ("---", "++-"),
        ("---+-+", "++----"),
        ("---++-", "++--++"),
        ("-----++--", "++----+++"),
    ] {
        let mut judge = Judge::new(2, 3);
        let mut seen = String::new();
        for (i, run) in runs.chars().enumerate() {
            let before = judge.ok;
            let changed = judge.note(at(i as u64), run == '+');
            assert_eq!(changed, before != judge.ok, "{runs}");
            seen.push(if judge.ok { '+' } else { '-' });
        }
        assert_eq!(seen, verdicts, "{runs}");
    }
}

#[test]
fn one_is_enough_if_the_config_says_so() {
    let mut judge = Judge::new(1, 1);
    assert!(judge.note(at(1), false) && !judge.ok);
    assert!(judge.note(at(2), true) && judge.ok);
}

#[test]
fn health_is_as_old_as_the_oldest_pass() {
    let of = |all: &[Judge]| health(all.iter());
    assert_eq!(of(&[]), Health { ok: true, last_pass_began: None });
    let (mut a, mut b) = (Judge::new(2, 2), Judge::new(2, 2));
    a.note(at(100), true);
    assert_eq!(of(&[a, b]), Health { ok: true, last_pass_began: None }, "b never passed");
    b.note(at(300), true);
    a.note(at(500), true);
    assert_eq!(of(&[a, b]), Health { ok: true, last_pass_began: Some(at(300)) });
    b.note(at(600), false);
    a.note(at(700), true);
    assert_eq!(of(&[a, b]), Health { ok: true, last_pass_began: Some(at(300)) });
    b.note(at(900), false);
    assert!(!of(&[a, b]).ok);
    b.note(at(1000), true);
    assert!(!of(&[a, b]).ok, "one pass of two");
    b.note(at(1100), true);
    assert_eq!(of(&[a, b]), Health { ok: true, last_pass_began: Some(at(700)) });
}

#[test]
fn runs_that_take_long_leave_out_beats() {
    let interval = Duration::from_millis(100);
    for (ended, next) in [(1000, 1100), (1099, 1100), (1100, 1200), (1250, 1300)] {
        assert_eq!(next_run(at(1000), at(ended), interval), at(next), "ended at {ended}");
    }
}

/// A directory with scripts and what they wrote.
struct Lab(TempDir);

impl Lab {
    fn new() -> Lab {
        Lab(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn script(&self, name: &str, body: &str) -> Check {
        let path = self.path(name);
        let text = format!("#!/bin/sh\ncd {}\n{body}\n", self.0.path().display());
        write_program(&path, &text, 0o755);
        check(name, CheckKind::Script(vec![path.to_str().unwrap().to_owned()]))
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn check(name: &str, kind: CheckKind) -> Check {
    Check {
        name: name.to_owned(),
        kind,
        interval: Duration::from_millis(100),
        timeout: Duration::from_secs(10),
        rise: 2,
        fall: 2,
    }
}

fn spawn(checks: Vec<Check>) -> Checks {
    Checks::spawn(context(), checks)
}

fn context() -> Context {
    Context { cluster: "edge".into(), node: "gw1".into(), endpoints: Endpoints::default() }
}

/// What a kind finds in one run.
async fn finds(kind: CheckKind) -> Found {
    let checks = spawn(vec![Check { fall: 1, rise: 1, ..check("one", kind) }]);
    until("a run", || checks.status()[0].detail != "not run yet").await;
    let status = checks.status().remove(0);
    if status.ok { Ok(status.detail) } else { Err(status.detail) }
}

#[tokio::test]
async fn a_script_fails_and_passes_again() {
    let lab = Lab::new();
    let check = lab.script(
        "uplink",
        "echo $WGHA_CHECK $WGHA_CLUSTER $WGHA_NODE >>who; [ ! -e bad ] || { echo no route; exit 7; }",
    );
    let checks = spawn(vec![check]);
    let health = checks.health();
    let started = crate::clock::now();
    assert_eq!(checks.status()[0].detail, "not run yet");
    assert!(checks.status()[0].ok, "nothing is known against it");
    until("a pass", || health.borrow().last_pass_began.is_some()).await;
    assert!(health.borrow().last_pass_began >= Some(started));
    assert_eq!(lab.lines("who")[0], "uplink edge gw1");
    assert_eq!(checks.status()[0].detail, "exit 0");
    fs::write(lab.path("bad"), "").unwrap();
    until("it fails", || !health.borrow().ok).await;
    assert_eq!(checks.status()[0].detail, "no route (exit 7)");
    let failed = crate::clock::now();
    fs::remove_file(lab.path("bad")).unwrap();
    until("it passes", || health.borrow().ok).await;
    assert!(health.borrow().last_pass_began > Some(failed));
}

#[tokio::test]
async fn what_hangs_fails_at_its_timeout_and_delays_nothing() {
    let lab = Lab::new();
    // Neither it nor its child ends on SIGTERM.
    let hangs = lab.script(
        "hangs",
        "trap '' TERM; echo $$ >>began; sleep 300 & echo $! >>pids; wait; wait; sleep 300",
    );
    let hangs = Check { timeout: Duration::from_secs(3), fall: 1, ..hangs };
    let quick = lab.script("quick", "echo x >>quicks");
    let checks = spawn(vec![hangs, quick]);
    until("the first has failed", || !checks.status()[0].ok).await;
    // SIGKILL comes only 2 s after SIGTERM.
    let began = lab.lines("began");
    assert!(lives(&began[0]), "it failed when it was killed, no sooner");
    assert_eq!(checks.status()[0].detail, "no answer within 3000 ms");
    until("the second runs on", || lab.lines("quicks").len() >= 5).await;
    let began = lab.lines("began");
    let alive = began.iter().filter(|pid| lives(pid)).count();
    assert!(alive <= 1, "never two at a time");
    assert!(checks.status()[1].ok);
    until("a second run of the first", || lab.lines("pids").len() == 2).await;
    let pids = lab.lines("pids");
    until("the first run's child is gone", || !lives(&pids[0])).await;
    drop(checks);
    until("nothing is left", || !lives(&pids[1])).await;
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_of_those_that_stay() {
    let lab = Lab::new();
    let bad = lab.script("bad", "echo broken; exit 1");
    let good = lab.script("good", "echo x >>goods");
    let mut checks = spawn(vec![bad.clone()]);
    let health = checks.health();
    until("it fails", || !health.borrow().ok).await;
    checks.reconfigure(vec![good.clone(), bad.clone()]);
    let status = checks.status();
    assert_eq!((status[0].ok, status[0].detail.as_str()), (true, "not run yet"));
    assert_eq!((status[1].ok, status[1].detail.as_str()), (false, "broken (exit 1)"));
    assert!(!health.borrow().ok);
    // Another fall is another check.
    checks.reconfigure(vec![good.clone(), Check { fall: 100, ..bad }]);
    assert!(health.borrow().ok && checks.status()[1].detail == "not run yet");
    checks.reconfigure(vec![good]);
    until("a pass", || health.borrow().last_pass_began.is_some()).await;
    checks.reconfigure(Vec::new());
    assert_eq!(*health.borrow(), Health { ok: true, last_pass_began: None });
    let count = lab.lines("goods").len();
    sleep(Duration::from_millis(300)).await;
    assert!(lab.lines("goods").len() <= count + 1, "it still runs");
}

#[tokio::test]
async fn the_protocol_is_told_as_long_as_it_is_there() {
    let (inputs, mut told) = mpsc::channel(4);
    let first = Health { ok: true, last_pass_began: None };
    let health = watch::Sender::new(first);
    let task = tokio::spawn(tell(health.subscribe(), inputs.downgrade()));
    let bad = Health { ok: false, last_pass_began: Some(at(5)) };
    health.send_replace(bad);
    match told.recv().await {
        Some(Input::Health(health)) => assert_eq!(health, bad),
        other => panic!("{other:?}"),
    }
    drop(inputs);
    assert!(told.recv().await.is_none(), "the teller keeps the protocol alive");
    health.send_replace(first);
    task.await.unwrap();
}

#[tokio::test]
async fn interfaces_and_pings() {
    let lo = |address: Option<&str>| {
        CheckKind::Interface("lo".into(), address.map(|a| a.parse().unwrap()))
    };
    assert_eq!(finds(lo(None)).await.unwrap(), "lo is up");
    assert_eq!(finds(lo(Some("127.0.0.1"))).await.unwrap(), "lo is up and has 127.0.0.1");
    assert_eq!(finds(lo(Some("203.0.113.9"))).await.unwrap_err(), "203.0.113.9 is not on lo");
    for kind in [
        CheckKind::Interface("wgha-none".into(), None),
        CheckKind::Wireguard("wgha-none".into(), None),
    ] {
        assert_eq!(finds(kind).await.unwrap_err(), "interface wgha-none does not exist");
    }
    let answer = finds(CheckKind::Ping("127.0.0.1".parse().unwrap())).await.unwrap();
    assert!(answer.starts_with("127.0.0.1 answered after "), "{answer}");
    // The kernel refuses to send to it, so nothing leaves the machine.
    assert!(finds(CheckKind::Ping("255.255.255.255".parse().unwrap())).await.is_err());
}

#[tokio::test]
async fn clients_that_are_silent_for_too_long() {
    let seconds = |n| Some(Duration::from_secs(n));
    let within = |age| Some((Duration::from_secs(180), age));
    for (silent, expected) in [
        (None, Ok("lo is there")),
        (within(None), Ok("lo is there")),
        (within(seconds(180)), Ok("lo is there, the last handshake 180 s ago")),
        (within(seconds(181)), Err("no client of lo has shaken hands for 181 s")),
    ] {
        let found = kinds::wireguard("lo", silent).await;
        assert_eq!(found.as_deref().map_err(String::as_str), expected);
    }
}

/// Answers every connection with `text`, in two pieces. Returns where.
async fn server(text: &'static str) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let (a, b) = text.split_at(text.len() / 2);
            let _ = stream.write_all(a.as_bytes()).await;
            sleep(Duration::from_millis(20)).await;
            let _ = stream.write_all(b.as_bytes()).await;
        }
    });
    Target { host: "127.0.0.1".into(), port }
}

#[tokio::test]
async fn tcp_by_address_and_by_name() {
    let target = server("").await;
    let port = target.port;
    assert_eq!(finds(CheckKind::Tcp(target)).await.unwrap(), format!("127.0.0.1:{port} accepts"));
    // ::1 refuses, 127.0.0.1 accepts.
    let name = Target { host: "localhost".into(), port };
    assert_eq!(finds(CheckKind::Tcp(name)).await.unwrap(), format!("127.0.0.1:{port} accepts"));
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let nobody = Target { host: "127.0.0.1".into(), port: free };
    let said = finds(CheckKind::Tcp(nobody)).await.unwrap_err();
    assert!(said.contains("refused"), "{said}");
}

#[tokio::test]
async fn http_status_and_body() {
    let get = |target: &Target, status, body: Option<&str>| {
        let (target, body) = (target.clone(), body.map(str::to_owned));
        finds(CheckKind::Http(HttpCheck { target, path: "/health".into(), status, body }))
    };
    let ok = server("HTTP/1.1 200 OK\r\nX: all is wrong\r\n\r\nall is well").await;
    assert!(get(&ok, None, None).await.unwrap().contains("status 200"));
    assert!(get(&ok, Some(200), Some("is well")).await.is_ok());
    let said = get(&ok, None, Some("all is wrong")).await.unwrap_err();
    assert!(said.contains("status 200, but no \"all is wrong\" in the body"), "{said}");
    assert!(get(&ok, Some(204), None).await.unwrap_err().contains("status 200 instead of 204"));
    let gone = server("HTTP/1.0 503 Service Unavailable\r\n\r\nall is well").await;
    assert!(get(&gone, None, Some("well")).await.unwrap_err().contains("status 503"));
    assert!(get(&gone, Some(503), None).await.is_ok());
    let other = server("SSH-2.0-OpenSSH_9.2\r\n").await;
    assert!(get(&other, None, None).await.unwrap_err().contains("no answer in HTTP"));
}
