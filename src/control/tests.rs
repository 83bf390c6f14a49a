use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::PathBuf;
use std::time::Instant;

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::client::{Client, ClientError};
use super::server::{BindError, bind, serve};
use super::*;
use crate::events::{EventLog, Phases};

/// A daemon with a control socket and nothing behind it.
pub(crate) struct Daemon {
    dir: TempDir,
    pub(crate) events: EventLog,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Daemon {
    pub(crate) fn start() -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let events = EventLog::open(dir.path());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (calls, mut queue) = mpsc::channel::<Call>(4);
        let socket = dir.path().join("run/wgha.sock");
        let listener = runtime.block_on(async { bind(&socket) }).unwrap();
        runtime.spawn(serve(listener, calls));
        let log = events.clone();
        runtime.spawn(async move {
            while let Some(call) = queue.recv().await {
                // A client that left does not want its answer.
                let _ = call.reply.send(answer(&log, call.request));
            }
        });
        Daemon { dir, events, runtime: Some(runtime) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run/wgha.sock")
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        stream
    }

    fn ask(&self, request: &Request) -> Result<Response, ClientError> {
        Client::connect(&self.socket())?.ask(request)
    }

    fn is_well(&self) -> bool {
        self.ask(&Request::Status {}).is_ok_and(|r| r.status.unwrap().node == "gw1")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn answer(log: &EventLog, request: Request) -> Reply {
    match request {
        Request::Status {} => {
            Reply::Status(Box::new(Status { node: "gw1".into(), ..Status::default() }))
        }
        Request::Handover { to, force } => Reply::Done(format!("{to:?} {force}")),
        Request::Maintenance { on: true, .. } => Reply::Refused("nobody else".into()),
        Request::Maintenance { on: false, .. } => Reply::Done("maintenance off".into()),
        Request::Events { follow } => {
            let (past, later) = log.follow(1000);
            Reply::Events { past, follow: follow.then_some(later) }
        }
        Request::Reload { force_voters: false } => Reply::Done("reloaded".into()),
        Request::Reload { force_voters: true } => Reply::Done("reloaded and forced".into()),
        Request::Upgrade { look, force } => Reply::Done(format!("upgrade {look} {force}")),
    }
}

pub(crate) fn event(term: u64) -> Event {
    Event {
        at: "2026-11-22T00:30:00.123Z".into(),
        from: "backup".into(),
        to: "master".into(),
        term,
        reason: "no master".into(),
        phases_ms: Phases::default(),
    }
}

fn read_line(stream: &UnixStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

fn read_rest(mut stream: &UnixStream) -> String {
    let mut text = String::new();
    // A reset counts as the end.
    let _ = stream.read_to_string(&mut text);
    text
}

#[test]
fn requests_are_read_as_documented() {
    let cases = [
        (r#"{"command":"status"}"#, Request::Status {}),
        (r#"{"command":"reload"}"#, Request::Reload { force_voters: false }),
        (r#"{"command":"upgrade"}"#, Request::Upgrade { look: false, force: false }),
        (r#"{"command":"upgrade","look":true}"#, Request::Upgrade { look: true, force: false }),
        (r#"{"command":"reload","force_voters":true}"#, Request::Reload { force_voters: true }),
        (r#"{"command":"handover"}"#, Request::Handover { to: None, force: false }),
        (
            r#"{"command":"handover","to":"gw2","force":true}"#,
            Request::Handover { to: Some("gw2".into()), force: true },
        ),
        (r#"{"command":"maintenance","on":true}"#, Request::Maintenance { on: true, force: false }),
        (r#"{"command":"events","follow":true}"#, Request::Events { follow: true }),
        (r#" { "command" : "events" } "#, Request::Events { follow: false }),
    ];
    for (line, request) in cases {
        assert_eq!(Request::parse(line.as_bytes()).unwrap(), request, "{line}");
    }
}

#[test]
fn what_is_no_request_is_refused() {
    let cases = [
        "",
        "status",
        "{}",
        "[]",
        "null",
        r#"{"command":"reboot"}"#,
        r#"{"command":"status","x":1}"#,
        r#"{"command":"maintenance"}"#,
        r#"{"command":"maintenance","on":"yes"}"#,
        r#"{"command":"handover","to":5}"#,
        r#"{"command":"status"} {"command":"status"}"#,
    ];
    for line in cases {
        assert!(Request::parse(line.as_bytes()).is_err(), "{line}");
    }
}

fn any_request() -> impl Strategy<Value = Request> {
    prop_oneof![
        Just(Request::Status {}),
        any::<bool>().prop_map(|force_voters| Request::Reload { force_voters }),
        any::<(bool, bool)>().prop_map(|(look, force)| Request::Upgrade { look, force }),
        any::<bool>().prop_map(|follow| Request::Events { follow }),
        any::<(bool, bool)>().prop_map(|(on, force)| Request::Maintenance { on, force }),
        any::<(Option<String>, bool)>().prop_map(|(to, force)| Request::Handover { to, force }),
    ]
}

proptest! {
    #[test]
    fn every_request_reads_back(request in any_request()) {
        let line = serde_json::to_vec(&request).unwrap();
        prop_assert!(!line.contains(&b'\n'), "one line for each request");
        prop_assert_eq!(Request::parse(&line).unwrap(), request);
    }

    #[test]
    fn no_bytes_make_parsing_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Request::parse(&line);
    }

    #[test]
    fn a_damaged_request_is_refused_or_another_request(
        request in any_request(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut line = serde_json::to_vec(&request).unwrap();
        let place = at.index(line.len());
        line[place] = byte;
        let _ = Request::parse(&line);
        line.truncate(place);
        prop_assert!(Request::parse(&line).is_err(), "half a request is none");
    }
}

#[test]
fn every_command_gets_its_answer() {
    let daemon = Daemon::start();
    assert!(daemon.is_well());
    let asked = daemon.ask(&Request::Handover { to: Some("gw2".into()), force: true }).unwrap();
    assert_eq!(asked.message.unwrap(), r#"Some("gw2") true"#);
    let reload = |force_voters| daemon.ask(&Request::Reload { force_voters }).unwrap().message;
    assert_eq!(reload(false).unwrap(), "reloaded");
    assert_eq!(reload(true).unwrap(), "reloaded and forced");
    let refused = daemon.ask(&Request::Maintenance { on: true, force: false }).unwrap_err();
    assert!(matches!(refused, ClientError::Refused(why) if why == "nobody else"));
}

#[test]
fn the_lines_are_those_of_the_contract() {
    let daemon = Daemon::start();
    let mut stream = daemon.raw();
    stream.write_all(b"{\"command\":\"reload\"}\n").unwrap();
    assert_eq!(read_line(&stream), "{\"ok\":true,\"message\":\"reloaded\"}\n");
    stream.write_all(b"{\"command\":\"maintenance\",\"on\":true}\n").unwrap();
    assert_eq!(read_line(&stream), "{\"ok\":false,\"error\":\"nobody else\"}\n");
    stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
    let status: serde_json::Value = serde_json::from_str(&read_line(&stream)).unwrap();
    assert_eq!(status["ok"], true);
    assert_eq!(status["status"]["node"], "gw1");
}

#[test]
fn events_come_in_order_and_end() {
    let daemon = Daemon::start();
    for term in 1..=1000 {
        daemon.events.push(event(term));
    }
    let mut client = Client::connect(&daemon.socket()).unwrap();
    let mut answer = client.ask(&Request::Events { follow: false }).unwrap();
    let mut terms = Vec::new();
    while let Some(event) = answer.event {
        terms.push(event.term);
        answer = client.next(false).unwrap();
    }
    assert_eq!(answer.end, Some(true));
    assert_eq!(terms, (1..=1000).collect::<Vec<_>>());
}

#[test]
fn a_follower_sees_events_as_they_happen() {
    let daemon = Daemon::start();
    daemon.events.push(event(1));
    let mut client = Client::connect(&daemon.socket()).unwrap();
    assert_eq!(client.ask(&Request::Events { follow: true }).unwrap().event.unwrap().term, 1);
    for term in 2..20 {
        daemon.events.push(event(term));
        assert_eq!(client.next(true).unwrap().event.unwrap().term, term);
    }
}

#[test]
fn only_the_owner_may_connect() {
    let daemon = Daemon::start();
    let mode = fs::metadata(daemon.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let names: Vec<_> = fs::read_dir(daemon.socket().parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "no temporary name is left");
}

#[tokio::test]
async fn a_dead_daemons_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wgha.sock");
    drop(StdListener::bind(&path).unwrap());
    assert!(path.exists(), "what a killed daemon leaves");
    let first = bind(&path).unwrap();
    let refused = bind(&path).unwrap_err();
    assert_eq!(refused.to_string(), format!("another daemon answers on {}", path.display()));
    drop(first);
    assert!(!path.exists());
    fs::write(&path, "precious").unwrap();
    assert!(matches!(bind(&path), Err(BindError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let long = dir.path().join("x".repeat(200));
    assert!(bind(&long).unwrap_err().to_string().contains(&"x".repeat(200)));
}

#[tokio::test]
async fn a_daemon_that_hangs_with_a_full_queue_is_alive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wgha.sock");
    let _listener = StdListener::bind(&path).unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = super::client::connect_now(&path) {
        waiting.push(stream);
        assert!(waiting.len() < 100_000);
    }
    assert!(matches!(bind(&path), Err(BindError::InUse(_))));
}

#[tokio::test]
async fn dropping_a_listener_leaves_the_file_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wgha.sock");
    let first = bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let _second = bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
}

#[test]
fn without_a_daemon_the_client_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wgha.sock");
    let text = Client::connect(&path).unwrap_err().to_string();
    let start = format!("no daemon answers on {} (No such file", path.display());
    assert!(text.starts_with(&start), "{text}");
    drop(StdListener::bind(&path).unwrap());
    assert!(matches!(Client::connect(&path), Err(ClientError::NoDaemon { .. })));
}

#[test]
fn a_daemon_that_closes_or_talks_nonsense_is_named() {
    for (answer, no_daemon) in [("", true), ("{\"ok\":tr", true), ("hello\n", false)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wgha.sock");
        let listener = StdListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            read_line(&stream);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let error = Client::connect(&path).unwrap().ask(&Request::Status {}).unwrap_err();
        assert_eq!(matches!(error, ClientError::NoDaemon { .. }), no_daemon, "{error}");
        assert_eq!(matches!(error, ClientError::Nonsense(_)), !no_daemon, "{error}");
        server.join().unwrap();
    }
}

#[test]
fn garbage_is_answered_with_an_error_and_the_connection_goes_on() {
    let daemon = Daemon::start();
    let mut stream = daemon.raw();
    for garbage in ["\n", "hello\n", "{\"command\":\"status\"\n", "\u{0}\u{1}\n"] {
        stream.write_all(garbage.as_bytes()).unwrap();
        assert!(read_line(&stream).starts_with("{\"ok\":false,\"error\":\"not a request: "));
    }
    stream.write_all(b"{\"command\":\"reload\"}\n").unwrap();
    assert!(read_line(&stream).starts_with("{\"ok\":true"));
}

#[test]
fn the_longest_request_is_read_and_a_longer_one_ends_the_connection() {
    let daemon = Daemon::start();
    let mut stream = daemon.raw();
    let mut line = br#"{"command":"reload"}"#.to_vec();
    line.resize(MAX_REQUEST, b' ');
    line.push(b'\n');
    stream.write_all(&line).unwrap();
    assert!(read_line(&stream).starts_with("{\"ok\":true"));
    // The daemon stops reading, so that the write may fail half-way.
    let _ = stream.write_all(&vec![b'x'; 10 << 20]);
    let rest = read_rest(&stream);
    assert!(rest.is_empty() || rest.contains("at most 4096 bytes"), "{rest}");
    assert!(daemon.is_well());
}

#[test]
fn a_hundred_silent_connections_leave_no_room_until_they_are_dropped() {
    let daemon = Daemon::start();
    let started = Instant::now();
    let crowd: Vec<_> = (0..100).map(|_| daemon.raw()).collect();
    let refused = daemon.ask(&Request::Status {}).unwrap_err();
    assert!(matches!(refused, ClientError::Refused(why) if why == "too many connections"));
    let turned_away = crowd.iter().skip(MAX_CONNECTIONS);
    for stream in turned_away {
        assert_eq!(read_rest(stream), "{\"ok\":false,\"error\":\"too many connections\"}\n");
    }
    for silent in crowd.iter().take(MAX_CONNECTIONS) {
        assert_eq!(read_rest(silent), "");
    }
    assert!(started.elapsed() >= CLIENT_TIME, "dropped after {:?}", started.elapsed());
    assert!(daemon.is_well());
}

#[test]
fn a_client_that_sends_byte_by_byte_is_dropped_in_time() {
    let daemon = Daemon::start();
    let mut stream = daemon.raw();
    let started = Instant::now();
    while stream.write_all(b"x").is_ok() {
        assert!(started.elapsed() < CLIENT_TIME * 6, "each byte gives it time anew");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(started.elapsed() >= CLIENT_TIME - Duration::from_secs(1));
}

#[test]
fn a_client_that_does_not_read_is_dropped_and_hinders_nobody() {
    let daemon = Daemon::start();
    for term in 0..1000 {
        daemon.events.push(event(term));
    }
    let mut stream = daemon.raw();
    let ask = b"{\"command\":\"events\"}\n".repeat(20);
    stream.write_all(&ask).unwrap();
    std::thread::sleep(CLIENT_TIME / 2);
    assert!(daemon.is_well());
    std::thread::sleep(CLIENT_TIME / 2 + Duration::from_secs(2));
    let lines = read_rest(&stream).lines().count();
    assert!(lines < 10_000, "cut off after what the socket holds, not after all: {lines}");
}

#[test]
fn a_follower_that_does_not_read_is_dropped() {
    let daemon = Daemon::start();
    daemon.events.push(event(0));
    let mut stream = daemon.raw();
    stream.write_all(b"{\"command\":\"events\",\"follow\":true}\n").unwrap();
    // From now on it follows.
    assert!(read_line(&stream).contains("\"event\""));
    for term in 1..5000 {
        daemon.events.push(event(term));
    }
    let last = read_rest(&stream).lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("too slow: "), "{last}");
    assert!(daemon.is_well());
}

#[test]
fn followers_leave_room_for_commands() {
    let daemon = Daemon::start();
    let follow = b"{\"command\":\"events\",\"follow\":true}\n";
    daemon.events.push(event(1));
    let mut crowd: Vec<_> = (0..MAX_FOLLOWERS).map(|_| daemon.raw()).collect();
    for stream in &mut crowd {
        stream.write_all(follow).unwrap();
        assert!(read_line(stream).contains("\"event\""));
    }
    let mut more = daemon.raw();
    more.write_all(follow).unwrap();
    assert_eq!(read_line(&more), "{\"ok\":false,\"error\":\"too many followers\"}\n");
    assert!(daemon.is_well());
    // One that leaves makes room.
    crowd.pop();
    let mut client = Client::connect(&daemon.socket()).unwrap();
    let begun = Instant::now();
    while client.ask(&Request::Events { follow: true }).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_end_of_the_daemon_ends_its_clients() {
    let daemon = Daemon::start();
    let mut client = Client::connect(&daemon.socket()).unwrap();
    daemon.events.push(event(1));
    client.ask(&Request::Events { follow: true }).unwrap();
    drop(daemon);
    assert!(matches!(client.next(true), Err(ClientError::NoDaemon { .. })));
}

#[tokio::test]
async fn a_handler_that_is_busy_or_gone_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wgha.sock");
    let (calls, mut queue) = mpsc::channel(1);
    tokio::spawn(serve(bind(&path).unwrap(), calls));
    let ask = |path: PathBuf| {
        tokio::task::spawn_blocking(move || {
            Client::connect(&path)
                .unwrap()
                .ask(&Request::Reload { force_voters: false })
                .unwrap_err()
                .to_string()
        })
    };
    let first = ask(path.clone());
    while queue.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ask(path.clone()).await.unwrap(), "busy");
    drop(queue.recv().await);
    assert_eq!(first.await.unwrap(), "the daemon is stopping");
}
