//! Routes, bounds, and sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use wgha_proto::{Reason, Role, RoleLevel, Time};

use super::connections::{Limits, serve};
use super::*;
use crate::clock;
use crate::control::Reply;
use crate::net::gate::Permit;
use crate::status::{Status, tests::sample};

fn level(role: Role) -> RoleLevel {
    RoleLevel { role, term: 7, reason: Reason::Started, master: None, errand: None }
}

/// A protocol's loop and a main thread, as a test wants them.
struct Bench {
    level: watch::Sender<RoleLevel>,
    turned_at: Arc<AtomicU64>,
    permit: Permit,
    /// Questions that the main thread was asked.
    asked: Arc<AtomicUsize>,
    router: Arc<Router>,
}

impl Bench {
    /// The main thread answers with `status`; never, if that is none.
    fn new(status: Option<Status>) -> Bench {
        let (level, seen) = watch::channel(level(Role::Backup));
        // As if it turned all the time.
        let turned = clock::now() + Duration::from_secs(600);
        let turned_at = Arc::new(AtomicU64::new(turned.as_nanos()));
        let permit = Permit::new().unwrap();
        permit.set(Some(clock::now() + Duration::from_secs(60)));
        let (calls, mut waiting) = mpsc::channel::<Call>(4);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some(call) = waiting.recv().await {
                count.fetch_add(1, Ordering::Relaxed);
                match &status {
                    Some(status) => {
                        let _ = call.reply.send(Reply::Status(Box::new(status.clone())));
                    }
                    None => unanswered.push(call),
                }
            }
        });
        let vital = Arc::new(Vital::of(seen, Arc::clone(&turned_at), permit.clone()));
        let counts = Arc::new(Counts::default());
        let router = Arc::new(Router { vital, looker: Looker::new(calls), counts });
        Bench { level, turned_at, permit, asked, router }
    }

    /// The loop last turned so long ago.
    fn turned(&self, ago: Duration) {
        let at: Time = clock::now() - ago;
        self.turned_at.store(at.as_nanos(), Ordering::Relaxed);
    }

    /// Listens with these limits.
    async fn listen(&self, limits: Limits) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Arc::clone(&self.router);
        tokio::spawn(async move { match serve(listener, router, limits).await {} });
        address
    }

    async fn get(&self, path: &str) -> u16 {
        self.router.answer(&hyper::Method::GET, path).await.status().as_u16()
    }
}

/// Writes `request` and reads until the other side closes.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    rest(stream).await
}

async fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // A connection that is cut off ends, too.
    let _ = timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

fn closing(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn master_and_livez_follow_the_loop() {
    let bench = Bench::new(None);
    let paths = ["/livez", "/master"];
    let codes = async || [bench.get(paths[0]).await, bench.get(paths[1]).await];
    assert_eq!(codes().await, [200, 503], "a backup");
    for (role, master) in
        [(Role::Master, 200), (Role::Fault, 503), (Role::Init, 503), (Role::Master, 200)]
    {
        bench.level.send_replace(level(role));
        assert_eq!(codes().await, [200, master], "{role:?}");
    }
    bench.permit.set(Some(clock::now()));
    assert_eq!(codes().await, [200, 503], "others may be master from now on");
    bench.permit.set(None);
    assert_eq!(codes().await, [200, 503], "nor is it any more");
    bench.permit.set(Some(clock::now() + Duration::from_secs(60)));
    assert_eq!(codes().await, [200, 200], "nobody else can be master yet");
    bench.turned(Duration::from_secs(4));
    assert_eq!(codes().await, [503, 200], "it hangs, and nobody else can be master yet");
    bench.turned(Duration::ZERO);
    drop(bench.level);
    let router = &bench.router;
    for path in paths {
        let answer = router.answer(&hyper::Method::GET, path).await;
        assert_eq!(answer.status(), 503, "{path}: the loop has ended");
    }
    assert_eq!(bench.asked.load(Ordering::Relaxed), 0, "nobody was asked");
}

#[tokio::test]
async fn a_loop_that_hangs_is_not_asked() {
    let bench = Bench::new(Some(sample()));
    bench.turned(Duration::from_secs(4));
    for path in ["/", "/readyz", "/status", "/metrics"] {
        assert_eq!(bench.get(path).await, 503, "{path}");
    }
    assert_eq!(bench.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn readyz() {
    assert_eq!(Bench::new(Some(sample())).get("/readyz").await, 200);
    let held_back = Some("isolated".to_owned());
    let bench = Bench::new(Some(Status { ready: false, held_back, ..sample() }));
    let address = bench.listen(LIMITS).await;
    let answer = raw(address, &closing("GET", "/readyz")).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nnot ready: isolated\n"), "{answer}");
}

#[tokio::test]
async fn each_path_and_each_method() {
    let bench = Bench::new(Some(sample()));
    let address = bench.listen(LIMITS).await;
    for (method, path, code, kind) in [
        ("GET", "/", "200 OK", "text/html; charset=utf-8"),
        ("GET", "/status", "200 OK", "application/json"),
        ("GET", "/status?x=1", "200 OK", "application/json"),
        ("GET", "/metrics", "200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("GET", "/livez", "200 OK", "text/plain; charset=utf-8"),
        ("GET", "/master", "503 Service Unavailable", "text/plain; charset=utf-8"),
        ("GET", "/status/", "404 Not Found", "text/plain; charset=utf-8"),
        ("GET", "/../etc/passwd", "404 Not Found", "text/plain; charset=utf-8"),
        ("POST", "/nothing", "404 Not Found", "text/plain; charset=utf-8"),
        ("POST", "/status", "405 Method Not Allowed", "text/plain; charset=utf-8"),
        ("DELETE", "/", "405 Method Not Allowed", "text/plain; charset=utf-8"),
        ("OPTIONS", "/metrics", "405 Method Not Allowed", "text/plain; charset=utf-8"),
    ] {
        let answer = raw(address, &closing(method, path)).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with(&format!("http/1.1 {}", code.to_ascii_lowercase())), "{head}");
        assert!(head.contains(&format!("content-type: {kind}\r\n")), "{head}");
        assert!(head.contains("cache-control: no-store"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert_eq!(head.contains("allow: get, head"), code.starts_with("405"), "{head}");
        if method == "GET" {
            let answer = raw(address, &closing("HEAD", path)).await;
            let (its, none) = answer.split_once("\r\n\r\n").unwrap();
            assert_eq!((none, &its[..15]), ("", &answer[..15]), "HEAD {path}");
            let length = format!("content-length: {}", body.len());
            // The metrics count the requests.
            assert!(path == "/metrics" || its.to_ascii_lowercase().contains(&length), "{its}");
        }
    }
}

#[tokio::test]
async fn status_is_that_of_the_command() {
    let bench = Bench::new(Some(sample()));
    let address = bench.listen(LIMITS).await;
    let answer = raw(address, &closing("GET", "/status")).await;
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(serde_json::from_str::<Status>(body).unwrap(), sample());
}

#[test]
fn the_page_has_no_markup_from_elsewhere() {
    let evil = "<script>alert('1')</script>&\"";
    let status = Status { cluster: evil.into(), reason: evil.into(), ..sample() };
    let page = page::page(&status, std::time::UNIX_EPOCH);
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;"), "{page}");
    assert!(page.contains("&#39;1&#39;") && page.contains("&amp;&quot;"), "{page}");
    assert!(page.contains("203.0.113.10/32"), "{page}");
}

/// However many ask, the main thread is asked once, and again when that is old.
#[tokio::test]
async fn one_question_answers_all() {
    let bench = Bench::new(Some(sample()));
    let looks = (0..50).map(|_| bench.router.looker.look());
    for look in futures_util::future::join_all(looks).await {
        assert_eq!(*look.unwrap(), sample());
    }
    assert_eq!(bench.asked.load(Ordering::Relaxed), 1);
    sleep(Duration::from_millis(110)).await;
    bench.router.looker.look().await.unwrap();
    assert_eq!(bench.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_main_thread_that_does_not_answer_is_waited_for_once() {
    let bench = Bench::new(None);
    let before = tokio::time::Instant::now();
    let looks = (0..50).map(|_| bench.router.looker.look());
    for look in futures_util::future::join_all(looks).await {
        assert_eq!(look, Err("the daemon does not answer"));
    }
    assert_eq!(before.elapsed().as_secs(), 3);
    assert_eq!(bench.asked.load(Ordering::Relaxed), 1);
}

/// Those that hold connections open make room for those that come.
#[tokio::test]
async fn the_connection_that_is_idle_longest_makes_room() {
    let bench = Bench::new(Some(sample()));
    let limits = Limits { connections: 3, quiet: Duration::from_secs(60) };
    let address = bench.listen(limits).await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHo").await.unwrap();
        idle.push(stream);
        // They are accepted in this order.
        let expected = idle.len() as u64;
        while bench.router.counts.open.get() < expected {
            sleep(Duration::from_millis(1)).await;
        }
    }
    let answer = raw(address, &closing("GET", "/livez")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(bench.router.counts.displaced.get(), 1);
    assert_eq!(rest(idle.remove(0)).await, "", "the oldest was closed");
    for mut stream in idle {
        stream.write_all(b"st: x\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(rest(stream).await.starts_with("HTTP/1.1 200"), "the others go on");
    }
}

#[tokio::test]
async fn busy_connections_stay_and_the_newest_is_refused() {
    let bench = Bench::new(None);
    let limits = Limits { connections: 2, quiet: Duration::from_secs(60) };
    let address = bench.listen(limits).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(closing("GET", "/status").as_bytes()).await.unwrap();
        busy.push(stream);
    }
    while bench.asked.load(Ordering::Relaxed) == 0 || bench.router.counts.open.get() < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    sleep(Duration::from_millis(50)).await;
    assert_eq!(rest(TcpStream::connect(address).await.unwrap()).await, "");
    assert_eq!((bench.router.counts.refused.get(), bench.router.counts.displaced.get()), (1, 0));
    for stream in busy {
        let answer = rest(stream).await;
        assert!(answer.ends_with("the daemon does not answer\n"), "{answer}");
    }
}

/// Drop by drop, not at all, or only writing: after a while it is over.
#[tokio::test]
async fn quiet_connections_are_closed() {
    let bench = Bench::new(Some(sample()));
    let limits = Limits { connections: 64, quiet: Duration::from_millis(300) };
    let address = bench.listen(limits).await;
    let start = Instant::now();
    let silent = TcpStream::connect(address).await.unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    let mut kept = TcpStream::connect(address).await.unwrap();
    kept.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    while slow.write_all(b"G").await.is_ok() {
        sleep(Duration::from_millis(20)).await;
        assert!(start.elapsed() < Duration::from_secs(60), "it may send for ever");
    }
    assert_eq!(rest(silent).await, "");
    assert!(rest(kept).await.starts_with("HTTP/1.1 200"));
    assert!(start.elapsed() >= limits.quiet);
    assert_eq!(bench.router.counts.quiet.get(), 3);
    assert_eq!(bench.router.counts.open.get(), 0);
}

/// A client that asks again and again and reads nothing.
#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let bench = Bench::new(Some(sample()));
    let limits = Limits { connections: 64, quiet: Duration::from_millis(300) };
    let address = bench.listen(limits).await;
    let mut deaf = TcpStream::connect(address).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    let send = async { while deaf.write_all(request.as_bytes()).await.is_ok() {} };
    timeout(Duration::from_secs(20), send).await.expect("it may send for ever");
    assert_eq!(bench.router.counts.quiet.get(), 1);
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let bench = Bench::new(Some(sample()));
    let address = bench.listen(LIMITS).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut buffer = [0; 4096];
    for _ in 0..5 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(buffer[..n].starts_with(b"HTTP/1.1 200 OK"));
    }
    assert_eq!(bench.router.counts.open.get(), 1);
}

/// As `printf ... | nc` does.
#[tokio::test]
async fn a_client_that_has_nothing_more_to_say_gets_its_answer() {
    let bench = Bench::new(Some(sample()));
    let address = bench.listen(LIMITS).await;
    for path in ["/livez", "/status"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(rest(stream).await.starts_with("HTTP/1.0 200 OK"), "{path}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_long_or_no_http() {
    let bench = Bench::new(Some(sample()));
    let address = bench.listen(LIMITS).await;
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(9000));
    assert!(raw(address, &long).await.starts_with("HTTP/1.1 431 "));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: x\r\n".repeat(100));
    assert!(raw(address, &many).await.starts_with("HTTP/1.1 431 "));
    assert!(raw(address, "\x16\x03\x01 hello\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
}

fn free_port(ip: impl Into<IpAddr>) -> SocketAddr {
    std::net::TcpListener::bind((ip.into(), 0)).unwrap().local_addr().unwrap()
}

#[test]
fn addresses_of_every_kind_and_one_that_is_not_here() {
    let v6 = free_port(Ipv6Addr::LOCALHOST);
    let port = v6.port();
    bind(v6).unwrap();
    bind(SocketAddr::new("203.0.113.77".parse().unwrap(), port)).unwrap();
    bind(SocketAddr::new("2001:db8::77".parse().unwrap(), port)).unwrap();
    let all = bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).unwrap();
    std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("[::] is IPv4 as well");
    let taken = bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)).unwrap_err();
    let expected = format!("[http] listen: 127.0.0.1:{port} is in use by another process");
    assert_eq!(taken.to_string(), expected);
    drop(all);
}

/// As at a reload: to a new address, to one that overlaps, to one that is taken, off and on.
#[tokio::test(flavor = "multi_thread")]
async fn the_listener_follows_the_config() {
    let bench = Bench::new(Some(sample()));
    let mut http = Http { router: Arc::clone(&bench.router), server: None };
    let answers = async |address: SocketAddr| match TcpStream::connect(address).await {
        Err(_) => false,
        Ok(stream) => {
            drop(stream);
            raw(address, &closing("GET", "/livez")).await.starts_with("HTTP/1.1 200")
        }
    };
    let first = free_port(Ipv4Addr::LOCALHOST);
    http.follow(Some(first)).unwrap();
    http.follow(Some(first)).unwrap();
    assert!(answers(first).await);

    let all = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), first.port());
    http.follow(Some(all)).unwrap();
    let other_ip = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 2).into(), first.port());
    assert!(answers(first).await && answers(other_ip).await);

    let holder = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = holder.local_addr().unwrap();
    assert!(matches!(http.follow(Some(taken)), Err(StartError::InUse(_))));
    assert!(answers(first).await, "it listens where it did");

    let second = free_port(Ipv4Addr::LOCALHOST);
    http.follow(Some(second)).unwrap();
    assert!(answers(second).await && !answers(first).await);
    http.follow(None).unwrap();
    assert!(!answers(second).await);
    http.follow(Some(second)).unwrap();
    assert!(answers(second).await);
}

/// The port stays the same and somebody else has it on the new address: the old one is had again.
#[tokio::test(flavor = "multi_thread")]
async fn an_overlap_that_fails_leaves_the_old_address() {
    let bench = Bench::new(Some(sample()));
    let mut http = Http { router: Arc::clone(&bench.router), server: None };
    let first = free_port(Ipv4Addr::LOCALHOST);
    http.follow(Some(first)).unwrap();
    let in_the_way = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 3).into(), first.port());
    let _holder = std::net::TcpListener::bind(in_the_way).unwrap();
    let all = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), first.port());
    assert!(matches!(http.follow(Some(all)), Err(StartError::InUse(_))));
    assert!(raw(first, &closing("GET", "/livez")).await.starts_with("HTTP/1.1 200"));
}
