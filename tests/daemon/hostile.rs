//! Datagrams from someone without the key, or from the past: each is refused by its name, and
//! nothing changes. What takes the key to get wrong is in tests/interop.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::cluster::{CALM, Cluster, Daemon, QUICK, until, until_true};
use super::proxy::{Proxy, To};

/// Datagrams that a socket surely holds while its daemon is busy.
const BURST: usize = 32;

/// gw1 as master, gw2 as backup, and someone in the middle.
struct Stage {
    cluster: Cluster,
    proxy: Proxy,
    gw1: Daemon,
    gw2: Daemon,
}

impl Stage {
    fn new() -> Stage {
        let mut cluster = Cluster::new(CALM, &[("gw1", 150), ("gw2", 100)]);
        let proxy = Proxy::between(&mut cluster);
        let (gw1, gw2) = cluster.pair();
        Stage { cluster, proxy, gw1, gw2 }
    }

    fn daemon(&self, to: To) -> &Daemon {
        match to {
            To::Gw1 => &self.gw1,
            To::Gw2 => &self.gw2,
        }
    }

    /// Sends all of `datagrams` to a node and waits until each is refused as said; none for
    /// another reason. Then both nodes must be as before.
    #[track_caller]
    fn refused(&self, to: To, datagrams: &[(Vec<u8>, &'static str)]) {
        let daemon = self.daemon(to);
        let before = self.roles();
        let mut expected: BTreeMap<String, u64> = daemon.refusals().into_iter().collect();
        for burst in datagrams.chunks(BURST) {
            for (datagram, word) in burst {
                *expected.entry((*word).to_owned()).or_default() += 1;
                self.proxy.inject(to, datagram);
            }
            let wanted: u64 = expected.values().sum();
            until_true(&format!("all are refused: {expected:?}, {:?}", daemon.refusals()), || {
                daemon.refusals().iter().map(|(_, count)| count).sum::<u64>() >= wanted
            });
        }
        assert_eq!(daemon.refusals().into_iter().collect::<BTreeMap<_, _>>(), expected);
        self.unmoved(before);
    }

    /// What must not change: roles, terms, and that each hears the other.
    fn roles(&self) -> [(String, u64, usize); 2] {
        [&self.gw1, &self.gw2].map(|daemon| {
            let status = daemon.status();
            let role = status["role"].as_str().unwrap().to_owned();
            (role, status["term"].as_u64().unwrap(), daemon.events().len())
        })
    }

    #[track_caller]
    fn unmoved(&self, before: [(String, u64, usize); 2]) {
        assert_eq!(self.roles(), before);
        for (daemon, other) in [(&self.gw1, "gw2"), (&self.gw2, "gw1")] {
            assert_eq!(daemon.node(other)["alive"], true);
            assert!(!daemon.log().contains("is silent"), "{}", daemon.log());
        }
    }
}

/// The refusal that is due when this byte of a datagram is flipped (docs/protocol.md §2 and §5); magic and
/// cluster are compared by the kernel, before the daemon sees it.
fn due(offset: usize) -> &'static str {
    match offset {
        0..4 | 8..16 => "dropped",
        4 => "version",
        5 => "path",
        6..8 => "key",
        16..24 => "sender",
        24..32 => "receiver",
        // Session, counter, nonce, body: all are sealed.
        _ => "seal",
    }
}

#[test]
fn every_byte_flipped() {
    let stage = Stage::new();
    for to in [To::Gw1, To::Gw2] {
        // It does not arrive, so that it is new, and only the flip is wrong with it.
        let original = stage.proxy.keep(to);
        let flipped: Vec<_> = (0..original.len())
            .map(|offset| {
                let mut datagram = original.clone();
                datagram[offset] ^= 0xff;
                (datagram, due(offset))
            })
            .collect();
        stage.refused(to, &flipped);
        // The original itself was not spoilt by any of them; a second time it is a replay.
        stage.proxy.inject(to, &original);
        stage.refused(to, &[(original, "replayed")]);
    }
}

/// A path that is not the one it was sent on is no other path: the header is sealed too.
#[test]
fn every_bit_of_the_header_flipped() {
    let stage = Stage::new();
    let original = stage.proxy.keep(To::Gw2);
    let flipped: Vec<_> = (0..68 * 8)
        .map(|bit| {
            let mut datagram = original.clone();
            datagram[bit / 8] ^= 1 << (bit % 8);
            // Numbers of paths go up to 7.
            let word = if bit / 8 == 5 && bit % 8 < 3 { "seal" } else { due(bit / 8) };
            (datagram, word)
        })
        .collect();
    stage.refused(To::Gw2, &flipped);
}

#[test]
fn truncated_and_over_long() {
    let stage = Stage::new();
    let original = stage.proxy.keep(To::Gw2);
    let cut = (0..original.len())
        .map(|length| (original[..length].to_vec(), if length < 84 { "dropped" } else { "seal" }));
    let long = [original.len() + 1, 1199, 1200, 1201, 1472, 1500, 1501, 9000].map(|length| {
        let mut datagram = original.clone();
        datagram.resize(length, 0);
        (datagram, if length > 1200 { "dropped" } else { "seal" })
    });
    let all: Vec<_> = cut.chain(long).collect();
    stage.refused(To::Gw2, &all);
    stage.refused(To::Gw1, &all[..80]);
}

#[test]
fn its_own_come_back_and_the_same_again() {
    let stage = Stage::new();
    for (to, back) in [(To::Gw1, To::Gw2), (To::Gw2, To::Gw1)] {
        let own: Vec<_> =
            stage.proxy.next(back, 5).into_iter().map(|d| (d, "reflection")).collect();
        stage.refused(to, &own);
        let again: Vec<_> = stage.proxy.seen(to).into_iter().collect();
        // Those before it was established were refused as an unknown session then.
        let again: Vec<_> =
            again[again.len() - 5..].iter().map(|d| (d.clone(), "replayed")).collect();
        stage.refused(to, &again);
    }
}

/// More than a window's worth later they are still replays, as are those of every message before.
#[test]
fn replays_from_before_the_window() {
    let mut cluster = Cluster::new(("20ms", 80), &[("gw1", 150), ("gw2", 100)]);
    let proxy = Proxy::between(&mut cluster);
    let (gw1, gw2) = cluster.pair();
    let stage = Stage { cluster, proxy, gw1, gw2 };
    let first = stage.proxy.next(To::Gw2, 4);
    stage.proxy.next(To::Gw2, 80);
    let old: Vec<_> = first.into_iter().map(|d| (d, "replayed")).collect();
    stage.refused(To::Gw2, &old);
}

/// A backup crashes and is back; what its last boot said must not make the real one look dead.
#[test]
fn replays_of_a_boot_that_crashed() {
    let Stage { cluster, proxy, gw1, gw2 } = Stage::new();
    let recorded = proxy.next(To::Gw1, 10);
    gw2.kill();
    until_true("gw2 is missed", || gw1.node("gw2")["alive"] == false);
    let log = cluster.path("gw1.log");
    let gw2 = cluster.settle("gw2", "backup");
    gw1.hears("gw2");
    gw2.follows("gw1", 1);
    // From here on nobody may be missed.
    std::fs::write(log, "").unwrap();
    let stage = Stage { cluster, proxy, gw1, gw2 };
    let old: Vec<_> = recorded.into_iter().map(|d| (d, "unknown-session")).collect();
    stage.refused(To::Gw1, &old);
    stage.refused(To::Gw1, &old);
    assert_eq!(stage.gw2.status()["reason"], "listened long enough after the start");
}

/// The old master's claims, after another took over and it came back as backup.
#[test]
fn replays_of_a_master_that_crashed() {
    let Stage { cluster, proxy, gw1, gw2 } = Stage::new();
    let recorded = proxy.next(To::Gw2, 10);
    gw1.kill();
    gw2.becomes("master");
    let log = cluster.path("gw2.log");
    let gw1 = cluster.start("gw1");
    gw1.follows("gw2", 2);
    gw2.hears("gw1");
    std::fs::write(log, "").unwrap();
    let stage = Stage { cluster, proxy, gw1, gw2 };
    let old: Vec<_> = recorded.into_iter().map(|d| (d, "unknown-session")).collect();
    stage.refused(To::Gw2, &old);
}

/// A release and a goodbye of the last boot: they ended that one, and end no other.
#[test]
fn replays_of_a_boot_that_said_goodbye() {
    let Stage { cluster, proxy, gw1, gw2 } = Stage::new();
    let before = proxy.seen(To::Gw2).len();
    assert!(gw1.terminate().success());
    gw2.becomes("master");
    let last: Vec<_> = proxy.seen(To::Gw2).split_off(before);
    let log = cluster.path("gw2.log");
    let gw1 = cluster.start("gw1");
    gw1.follows("gw2", 2);
    gw2.hears("gw1");
    std::fs::write(log, "").unwrap();
    let stage = Stage { cluster, proxy, gw1, gw2 };
    let old: Vec<_> = last.into_iter().map(|d| (d, "ended-session")).collect();
    assert!(old.len() >= 2, "a release and a goodbye at least");
    stage.refused(To::Gw2, &old);
}

/// Authentic datagrams that are not for this node, not of its cluster, or of someone it does not know.
#[test]
fn strangers() {
    let mut cluster = Cluster::new(CALM, &[("gw1", 150), ("gw2", 100), ("gw3", 50)]);
    let all = cluster.nodes.clone();
    cluster.nodes.truncate(2);
    let proxy = Proxy::between(&mut cluster);
    let (gw1, gw2) = cluster.pair();
    let stage = Stage { cluster, proxy, gw1, gw2 };
    // gw3 has the key and knows gw2 at its own address; gw2's config has no gw3.
    let mut wider = Cluster::new(CALM, &[]);
    wider.nodes = all;
    wider.nodes[0].send = wider.address(99);
    std::fs::copy(stage.cluster.path("cluster.key"), wider.path("gw3.key")).unwrap();
    let before = stage.roles();
    let gw3 = wider.start("gw3");
    until_true("gw3 is refused", || stage.gw2.refused("sender") > 2);
    stage.unmoved(before.clone());
    assert_eq!(gw3.node("gw2")["alive"], false);
    drop(gw3);
    // The same key and names in another cluster.
    wider.name = "other";
    let gw3 = wider.start("gw3");
    until_true("another cluster is refused", || stage.gw2.link("dropped") > 2);
    assert_eq!(stage.gw2.refused("cluster"), 0);
    stage.unmoved(before);
    drop(gw3);
}

#[test]
fn a_datagram_for_another_receiver() {
    let mut cluster = Cluster::new(CALM, &[("gw1", 150), ("gw2", 100), ("gw3", 50)]);
    // What gw1 says to gw3 is read here: gw3 does not run.
    let ear = UdpSocket::bind(cluster.spec("gw3").bind).unwrap();
    ear.set_nonblocking(true).unwrap();
    let proxy = Proxy::between(&mut cluster);
    let (gw1, gw2) = cluster.pair();
    let stage = Stage { cluster, proxy, gw1, gw2 };
    let mut buffer = [0; 2048];
    let said: Vec<_> = (0..5)
        .map(|_| {
            let length = until("gw1 speaks to gw3", || ear.recv(&mut buffer).ok());
            (buffer[..length].to_vec(), "receiver")
        })
        .collect();
    stage.refused(To::Gw2, &said);
}

/// Some thousands of datagrams of every length: noise, noise behind a good header, and good ones
/// again, from where the other node is and from a stranger.
#[test]
fn a_flood_changes_nothing() {
    let stage = Stage::new();
    let before = stage.roles();
    let good = stage.proxy.seen(To::Gw2).pop().unwrap();
    let stranger = UdpSocket::bind(stage.cluster.address(200)).unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        // xorshift64: the same noise in every run.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..200 {
        for _ in 0..20 {
            let length = usize::try_from(next() % 1500).unwrap();
            let mut noise: Vec<u8> = (0..length).map(|_| (next() >> 32) as u8).collect();
            let header = noise.len().min([0, 8, 32, 68][(next() % 4) as usize]);
            noise[..header].copy_from_slice(&good[..header]);
            stage.proxy.inject(To::Gw2, &noise);
            stage.proxy.inject(To::Gw1, &noise);
            stranger.send_to(&noise, stage.cluster.spec("gw2").bind).unwrap();
            stranger.send_to(&good, stage.cluster.spec("gw2").bind).unwrap();
        }
        // Moderate: a flood that fills the socket is the kernel's to drop.
        sleep(Duration::from_millis(if round % 10 == 0 { 50 } else { 5 }));
    }
    for word in ["seal", "replayed"] {
        until_true(word, || stage.gw2.refused(word) > 40);
    }
    // Each is refused once, by the first that may: the kernel, or the rate of strangers.
    assert!(stage.gw1.link("dropped") > 1000 && stage.gw2.link("dropped") > 1000);
    assert!(stage.gw2.link("strangers") > 1000);
    assert_eq!(stage.gw1.link("strangers"), 0);
    for word in ["length", "magic", "cluster"] {
        assert_eq!(stage.gw2.refused(word), 0, "{word}");
    }
    stage.unmoved(before);
    // What is behind the flood still arrives.
    let heard = || stage.gw2.node("gw1")["last_heard_ms"].as_u64().filter(|ms| *ms < 200);
    until("gw1 is heard", heard);
}

/// Without anyone in the middle: the noise of a stranger from its first moment on.
#[test]
fn an_election_under_noise() {
    let cluster = Cluster::new(QUICK, &[("gw1", 150), ("gw2", 100)]);
    let stranger = UdpSocket::bind(cluster.address(200)).unwrap();
    let (gw1, gw2) = (cluster.start("gw1"), cluster.start("gw2"));
    until_true("gw1 is master, gw2 follows, and both heard the noise", || {
        for name in ["gw1", "gw2"] {
            // Until it listens, the kernel refuses.
            let _ = stranger.send_to(&[0x57; 300], cluster.spec(name).bind);
        }
        let one = gw1.status()["role"] == "master" && gw2.status()["master"] == "gw1";
        one && [&gw1, &gw2].iter().all(|daemon| daemon.link("dropped") > 0)
    });
}

/// Good headers from addresses that the config does not name, at every socket and after a reload as before:
/// they share a small rate, and the peer's heartbeats do not.
#[test]
fn strangers_share_a_small_rate() {
    let stage = Stage::new();
    let mut forged = stage.proxy.seen(To::Gw2).pop().unwrap();
    *forged.last_mut().unwrap() ^= 1;
    let strangers: Vec<_> =
        (200..204).map(|host| UdpSocket::bind(stage.cluster.address(host)).unwrap()).collect();
    let config = stage.cluster.config("gw2");
    for heartbeat in ["200ms", "201ms"] {
        let config = config.replace("\"200ms\"", &format!("{heartbeat:?}"));
        std::fs::write(stage.cluster.path("gw2.toml"), config).unwrap();
        let (before, roles) = (stage.gw2.refused("seal"), stage.roles());
        assert!(stage.gw2.wgha(&["reload"]).status.success());
        let (strange, dropped) = (stage.gw2.link("strangers"), stage.gw2.link("dropped"));
        let start = Instant::now();
        for _ in 0..200 {
            for stranger in &strangers {
                for datagram in [&forged[..], &[0x57; 300]] {
                    stranger.send_to(datagram, stage.cluster.spec("gw2").bind).unwrap();
                }
            }
            sleep(Duration::from_millis(2));
        }
        until_true("all are seen", || {
            let opened = stage.gw2.refused("seal") - before;
            opened + stage.gw2.link("strangers") - strange == 800
        });
        // A burst of a second's worth, and 50 a second.
        let most = 50 + 50 * (start.elapsed().as_secs() + 1);
        let opened = stage.gw2.refused("seal") - before;
        assert!((50..=most).contains(&opened), "{opened} of 800 were opened, {most} may be");
        assert_eq!(stage.gw2.link("dropped") - dropped, 800, "the filter");
        stage.unmoved(roles);
    }
}
