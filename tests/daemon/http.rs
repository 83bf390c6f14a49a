//! `[http]` of live daemons: who says that it is master, what a hung or flooded one does, and that
//! the metrics are what a strict reader of OpenMetrics takes (package python3-prometheus-client).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::cluster::{CALM, Cluster, Daemon, QUICK, outcome, until_true};

/// Every wait for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A pair whose gateways answer where [`Cluster::address`] says, at `host` 101 and 102.
struct Pair {
    cluster: Cluster,
    gw1: Daemon,
    gw2: Daemon,
}

impl Pair {
    fn new(timing: (&'static str, u8)) -> Pair {
        let cluster = Cluster::new(timing, &[("gw1", 150), ("gw2", 100)]);
        let gw1 = cluster.start_with("gw1", &with_http(&cluster, "gw1", cluster.address(101)));
        gw1.becomes("master");
        let gw2 = cluster.start_with("gw2", &with_http(&cluster, "gw2", cluster.address(102)));
        gw2.becomes("backup");
        gw1.hears("gw2");
        gw2.hears("gw1");
        until_true("gw2 could take over", || gw1.node("gw2")["ready"] == true);
        Pair { cluster, gw1, gw2 }
    }

    /// The code of a path at gw1 and at gw2.
    fn codes(&self, path: &str) -> [u16; 2] {
        [101, 102].map(|host| get(self.cluster.address(host), path).map_or(0, |answer| answer.code))
    }
}

fn with_http(cluster: &Cluster, name: &str, listen: SocketAddr) -> String {
    cluster.config(name) + &format!("[http]\nlisten = \"{listen}\"\n")
}

struct Answer {
    code: u16,
    head: String,
    body: String,
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One answer; an error is no whole one in time.
fn get(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    let mut stream = connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: wgha\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let code = head.get(9..12).and_then(|code| code.parse().ok());
    let code = code.ok_or(std::io::ErrorKind::InvalidData)?;
    Ok(Answer { code, head: head.to_owned(), body: body.to_owned() })
}

#[test]
fn master_and_backup_and_after_a_handover() {
    let pair = Pair::new(QUICK);
    assert_eq!(pair.codes("/master"), [200, 503]);
    assert_eq!(pair.codes("/livez"), [200, 200]);
    assert_eq!(pair.codes("/readyz"), [200, 200]);
    pair.gw1.hands_over(&["handover"]);
    until_true("gw2 says so", || pair.codes("/master") == [503, 200]);
    assert_eq!(get(pair.cluster.address(101), "/master").unwrap().body, "backup\n");
    let metrics = || get(pair.cluster.address(102), "/metrics").unwrap().body;
    // They may be 0.1 s old.
    until_true("gw2's metrics are of now", || metrics().contains("wgha_term 2\n"));
    let metrics = metrics();
    for line in ["wgha_role{role=\"master\"} 1\n", "wgha_handovers_total{result=\"taken\"} 1\n"] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
    let given = || get(pair.cluster.address(101), "/metrics").unwrap().body;
    until_true("gw1 counts it", || given().contains("wgha_handovers_total{result=\"given\"} 1\n"));
}

#[test]
fn a_stopped_process_is_silent_and_not_believed_afterwards() {
    let pair = Pair::new(QUICK);
    pair.gw1.signal_all(Signal::SIGSTOP);
    until_true("gw2 says so", || get(pair.cluster.address(102), "/master").unwrap().code == 200);
    // The kernel accepts, and nobody answers.
    let mut stream = connect(pair.cluster.address(101)).unwrap();
    stream.write_all(b"GET /master HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut answer = Vec::new();
    assert!(stream.read_to_end(&mut answer).is_err() && answer.is_empty(), "{answer:?}");
    // It wakes, and what it published before it slept is not believed by anybody.
    pair.gw1.signal_all(Signal::SIGCONT);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&answer));
    pair.gw1.follows("gw2", 2);
    assert_eq!(pair.codes("/master"), [503, 200]);
}

#[test]
fn status_is_that_of_the_command() {
    let pair = Pair::new(CALM);
    let answer = get(pair.cluster.address(101), "/status").unwrap();
    let over_http: Value = serde_json::from_str(&answer.body).unwrap();
    let command = pair.gw1.status();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&over_http), keys(&command));
    for field in ["cluster", "node", "role", "term", "master", "changes"] {
        assert_eq!(over_http[field], command[field], "{field}");
    }
    assert_eq!(command["changes"]["takeovers"], 1);
    assert_eq!(command["changes"]["last_takeover"]["to"], "master");
    let page = get(pair.cluster.address(101), "/").unwrap();
    assert!(page.head.contains("text/html") && page.body.contains("edge / gw1: master"));
    // No key of the cluster in any of it.
    let key = std::fs::read_to_string(pair.cluster.path("cluster.key")).unwrap();
    let secret = key.split_whitespace().nth(2).unwrap();
    let metrics = get(pair.cluster.address(101), "/metrics").unwrap();
    for body in [&answer.body, &page.body, &metrics.body] {
        assert!(!body.contains(secret));
    }
}

/// The reference parser of the Prometheus project finds nothing wrong.
#[test]
fn a_strict_reader_takes_the_metrics() {
    let pair = Pair::new(CALM);
    let answer = get(pair.cluster.address(102), "/metrics").unwrap();
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(answer.head.to_ascii_lowercase().contains(kind), "{}", answer.head);
    let script = "import sys\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
        print(sum(1 for family in parse(sys.stdin.read()) if family.documentation))\n";
    // Debian's own, which has Debian's packages.
    let mut reader = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("install python3 and python3-prometheus-client");
    reader.stdin.take().unwrap().write_all(answer.body.as_bytes()).unwrap();
    let output = reader.wait_with_output().unwrap();
    let (code, out, err) = outcome(&output);
    assert_eq!(code, 0, "install python3-prometheus-client, or: {err}\n{}", answer.body);
    let families = answer.body.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert_eq!(out.trim().parse::<usize>().unwrap(), families);
    assert!(families > 30, "{families}");
}

/// Neither a thousand quick connections nor those that are held open cost a heartbeat, or keep
/// anybody out.
#[test]
fn a_flood_disturbs_nobody() {
    let pair = Pair::new(CALM);
    let address = pair.cluster.address(101);
    let before = [pair.gw1.events(), pair.gw2.events()];
    let held: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = connect(address).unwrap();
            // It may have been closed for the next ones already.
            let _ = stream.write_all(b"GET /master HTTP/1.1\r\nX-Slow: ");
            stream
        })
        .collect();
    let paths = ["/master", "/status", "/metrics", "/"];
    for round in 0..1000 {
        let answer = get(address, paths[round % paths.len()]);
        assert_eq!(answer.map(|answer| answer.code).ok(), Some(200), "round {round}");
    }
    let metrics = get(address, "/metrics").unwrap().body;
    let count = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()
    };
    assert!(count("wgha_http_connections ") <= 64, "{metrics}");
    assert!(count("wgha_http_connections_dropped_total{reason=\"displaced\"}") >= 137, "{metrics}");
    assert_eq!(count("wgha_http_requests_total{path=\"/master\",code=\"200\"}"), 250);
    drop(held);
    assert!(!pair.gw2.log().contains("is silent"), "{}", pair.gw2.log());
    assert_eq!([pair.gw1.events(), pair.gw2.events()], before);
}

#[test]
fn a_reload_moves_it_and_a_taken_port_is_named() {
    let pair = Pair::new(CALM);
    let (gw1, old) = (&pair.gw1, pair.cluster.address(101));
    let before = gw1.events();
    let write = |text: &str| std::fs::write(&gw1.config, text).unwrap();
    let reload = || outcome(&gw1.wgha(&["reload"]));
    write(&with_http(&pair.cluster, "gw1", pair.cluster.address(102)));
    let (code, _, err) = reload();
    let taken = format!("{} is in use by another process", pair.cluster.address(102));
    assert!(code == 1 && err.contains(&taken), "{err}");
    assert_eq!(get(old, "/master").unwrap().code, 200);

    let new = pair.cluster.address(103);
    write(&with_http(&pair.cluster, "gw1", new));
    assert_eq!(reload(), (0, "reloaded\n".into(), String::new()));
    assert_eq!(get(new, "/master").unwrap().code, 200);
    assert!(connect(old).is_err(), "the old one is closed");
    write(&pair.cluster.config("gw1"));
    assert_eq!(reload(), (0, "reloaded\n".into(), String::new()));
    assert!(connect(new).is_err(), "all are closed");
    assert_eq!(gw1.events(), before, "the role is where it was");

    // At the start nothing begins.
    let config = with_http(&pair.cluster, "gw1", pair.cluster.address(102));
    let other = pair.cluster.path("other.toml");
    std::fs::write(&other, config.replace("gw1.s", "other.s")).unwrap();
    let second = super::cluster::run(["run", "--node", "gw1", "--config", other.to_str().unwrap()]);
    let (code, _, err) = outcome(&second);
    assert!(code == 1 && err.contains(&taken), "{err}");
}
