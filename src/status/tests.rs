use std::time::{Duration, UNIX_EPOCH};

use wgha_proto::{PathSnapshot, PeerSnapshot};

use super::*;

/// Every list filled, so that every field of the contract is there.
pub(crate) fn sample() -> Status {
    Status {
        cluster: "edge".into(),
        node: "gw1".into(),
        role: "master".into(),
        term: 7,
        since: "2026-11-22T00:00:00.000Z".into(),
        reason: "master gw2 is silent".into(),
        master: Some("gw1".into()),
        healthy: true,
        ready: true,
        exclusive: "no (two voters)".into(),
        fencing: "process only".into(),
        uptime_seconds: 90_061,
        nodes: sample_nodes(),
        floating_ips: vec![FloatingIp {
            address: "203.0.113.10/32".into(),
            interface: "eth0".into(),
            held: true,
        }],
        wireguard: vec![Wireguard {
            interface: "wg0".into(),
            backend: "kernel".into(),
            up: true,
            staged: true,
            peers: 250,
            recent_handshakes: 31,
            endpoints_known: 187,
            endpoints_age_ms: Some(512),
            source: vec!["203.0.113.10".into()],
        }],
        checks: vec![Check { name: "uplink".into(), ok: false, detail: "no answer".into() }],
        hooks: vec![Hook {
            run: vec!["/etc/wgha/notify.sh".into(), "--verbose".into()],
            on: "master".into(),
            exit: Some(0),
            duration_ms: 1250,
            at: "2026-11-22T00:00:01.000Z".into(),
            outcome: "exit 0".into(),
        }],
        claims: vec![Claim {
            run: vec!["aws-eip".into()],
            held: true,
            state: "held".into(),
            detail: "mine".into(),
            ..Claim::default()
        }],
        sync: vec![Sync {
            file: "/etc/wireguard/wg0.conf".into(),
            version: 3,
            in_sync: true,
            problem: Some("line 7, PublicKey: missing".into()),
        }],
        version: "0.1.0".into(),
        warnings: vec![
            "the clock of gw2-with-a-name-longer-than-most is off by more than a second".into(),
        ],
        refusals: BTreeMap::from([("replayed".into(), 3), ("forged".into(), 0)]),
        ..Status::default()
    }
}

fn sample_nodes() -> Vec<Node> {
    let path = |address: &str, alive| Path { address: address.into(), alive, ..Path::default() };
    let gw1 = Node {
        name: "gw1".into(),
        role: Some("master".into()),
        term: 7,
        priority: Some(150),
        alive: true,
        healthy: true,
        ready: true,
        config_match: Some(true),
        paths: vec![path("10.0.1.10:5112", true)],
        ..Node::default()
    };
    let gw2 = Node {
        name: "gw2-with-a-name-longer-than-most".into(),
        role: Some("backup".into()),
        term: 6,
        priority: Some(100),
        alive: true,
        last_heard_ms: Some(112),
        rtt_ms: Some(0.42),
        loss: Some(0.03),
        clock_offset_ms: Some(-2600.4),
        healthy: true,
        config_match: Some(false),
        paths: vec![path("10.0.2.10:5112", true), path("[2001:db8::2]:5112", false)],
        ..Node::default()
    };
    let w1 = Node { name: "w1".into(), witness: true, ..Node::default() };
    vec![gw1, gw2, w1]
}

#[test]
fn the_json_has_the_fields_of_the_contract() {
    let json = serde_json::to_value(sample()).unwrap();
    let expected: &[(&str, &[&str])] = &[
        (
            "",
            &[
                "cluster",
                "node",
                "role",
                "term",
                "since",
                "reason",
                "master",
                "healthy",
                "maintenance",
                "ready",
                "exclusive",
                "fencing",
                "uptime_seconds",
                "lease",
                "nodes",
                "floating_ips",
                "wireguard",
                "checks",
                "hooks",
                "claims",
                "sync",
            ],
        ),
        ("/lease", &["held", "expires_ms"]),
        (
            "/nodes/0",
            &[
                "name",
                "witness",
                "role",
                "term",
                "priority",
                "alive",
                "last_heard_ms",
                "rtt_ms",
                "loss",
                "clock_offset_ms",
                "healthy",
                "maintenance",
                "ready",
                "config_match",
                "paths",
            ],
        ),
        ("/nodes/0/paths/0", &["address", "alive"]),
        ("/floating_ips/0", &["address", "interface", "held"]),
        (
            "/wireguard/0",
            &[
                "interface",
                "backend",
                "up",
                "staged",
                "peers",
                "recent_handshakes",
                "endpoints_known",
                "source",
            ],
        ),
        ("/checks/0", &["name", "ok", "detail"]),
        ("/hooks/0", &["run", "on", "exit", "duration_ms", "at"]),
        ("/claims/0", &["run", "held", "checked_at"]),
        ("/sync/0", &["file", "version", "in_sync"]),
    ];
    for (place, fields) in expected {
        let object = json.pointer(place).unwrap().as_object().unwrap();
        for field in *fields {
            assert!(object.contains_key(*field), "{place}/{field} is missing");
        }
    }
}

#[test]
fn the_json_reads_back_and_extensions_are_optional() {
    let mut json = serde_json::to_value(sample()).unwrap();
    assert_eq!(serde_json::from_value::<Status>(json.clone()).unwrap(), sample());
    for extension in ["version", "held_back", "refusals", "link", "evidence", "arbiter", "changes"]
    {
        json.as_object_mut().unwrap().remove(extension).unwrap();
    }
    assert!(serde_json::from_value::<Status>(json).is_ok());
}

#[test]
fn the_table_reads_at_a_glance() {
    let now = humantime::parse_rfc3339("2026-11-22T00:04:07Z").unwrap();
    let expected = "\
edge / gw1: master, term 7, for 4m 07s
  why        master gw2 is silent
  master     gw1
  state      ready
  exclusive  no (two voters)
  fencing    process only
  running    for 1d 01h, wgha 0.1.0

NODE              ROLE     STATE        TERM  PRIO  HEARD  RTT    LOSS  CLOCK
gw1 *             master   ready        7     150   -      -      -     -
gw2-with-a-name…  backup   NOT READY    6     100   112ms  0.4ms  3%    -2600ms
w1                witness  never heard  0     -     -      -      -     -
! the config of gw2-with-a-name-longer-than-most differs from that of gw1
! the clock of gw2-with-a-name-longer-than-most is off by more than a second

PATH TO                   STATE   ADDRESS
gw2-with-a-name-longer-…  alive   10.0.2.10:5112
gw2-with-a-name-longer-…  silent  [2001:db8::2]:5112

FLOATING IP      INTERFACE  HELD
203.0.113.10/32  eth0       here

WIREGUARD  BACKEND  STATE  PEERS  ACTIVE  KNOWN  SOURCE
wg0        kernel   up     250    31      187    203.0.113.10

SYNC     VERSION  FILE
in sync  3        /etc/wireguard/wg0.conf
! /etc/wireguard/wg0.conf: line 7, PublicKey: missing

CHECK   RESULT  DETAIL
uplink  FAILS   no answer

HOOK ON  AGO     TOOK  RESULT  PROGRAM
master   4m 06s  1.2s  exit 0  /etc/wgha/notify.sh --verbose

CLAIM  VERIFIED  DETAIL  PROGRAM
held   never     mine    aws-eip

REFUSED   COUNT
replayed  3
";
    assert_eq!(table(&sample(), now), expected);
}

#[test]
fn nothing_is_wider_than_80_columns_and_nothing_moves_the_cursor() {
    let mut status = sample();
    let long = "x\x1b[2J\r\n".repeat(60);
    status.reason = long.clone();
    status.cluster = long.clone();
    status.held_back = Some(long.clone());
    status.nodes[0].name = long.clone();
    status.hooks[0].outcome = long.clone();
    status.checks[0].name = long.clone();
    status.wireguard[0].source = vec![long.clone(), long];
    let text = table(&status, UNIX_EPOCH + Duration::from_secs(1));
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
}

#[test]
fn a_peer_is_shown_as_the_protocol_sees_it() {
    let peer = PeerSnapshot {
        name: "gw2".into(),
        witness: false,
        role: Some(wgha_proto::Role::Backup),
        term: 6,
        priority: Some(100),
        alive: true,
        last_heard: Some(Duration::from_micros(112_900)),
        rtt: Some(Duration::from_nanos(421_777)),
        loss: 1.0 / 64.0,
        clock_offset_ns: Some(-2_600_449),
        alarms: Vec::new(),
        healthy: true,
        maintenance: false,
        ready: true,
        config_match: Some(true),
        wireguard: wgha_proto::WireguardKind::Kernel,
        paths: vec![PathSnapshot { alive: true, ..PathSnapshot::default() }],
    };
    let node = Node::from_peer(&peer, &["10.0.2.10:5112".into(), "[2001:db8::2]:5112".into()]);
    assert_eq!((node.role.as_deref(), node.last_heard_ms), (Some("backup"), Some(112)));
    assert_eq!((node.rtt_ms, node.loss), (Some(0.422), Some(0.016)));
    assert_eq!(node.clock_offset_ms, Some(-2.6));
    let alive: Vec<bool> = node.paths.iter().map(|p| p.alive).collect();
    assert_eq!(alive, [true, false], "a path that the protocol does not know is not alive");
    let silent = PeerSnapshot { last_heard: None, ..peer };
    assert_eq!(Node::from_peer(&silent, &[]).loss, None, "nothing was sent to us to be lost");
}

#[test]
fn the_table_says_what_etcd_does() {
    let mut status = sample();
    assert!(!table(&status, UNIX_EPOCH).contains("  etcd "));
    let asked = Arbiter { endpoint: "https://e:2379".into(), ..Arbiter::default() };
    let up = Arbiter { reachable: Some(true), ..asked.clone() };
    for (arbiter, expected) in [
        (Arbiter::default(), "votes; gateways ask it"),
        (asked.clone(), "https://e:2379 not asked yet"),
        (up.clone(), "https://e:2379 answers, its vote is not needed"),
        (Arbiter { wanted: true, ..up.clone() }, "https://e:2379 answers, its vote is asked for"),
        (Arbiter { held: true, ..up.clone() }, "https://e:2379 answers, its vote is held"),
        (
            Arbiter { reachable: Some(false), last_error: Some("no".into()), ..asked },
            "DOES NOT VOTE: no",
        ),
    ] {
        status.arbiter = Some(arbiter);
        let text = table(&status, UNIX_EPOCH);
        assert!(text.contains(&format!("\n  etcd       {expected}\n")), "{text}");
    }
}

#[test]
fn the_table_says_who_is_isolated_and_which_direction_is_broken() {
    let mut status = sample();
    let source = |address: &str, usual| EvidenceSource {
        address: address.into(),
        usual,
        ..EvidenceSource::default()
    };
    for (state, sources, trouble, expected) in [
        (
            "answered",
            vec![source("10.0.1.1", true), source("fe80::1", true)],
            None,
            "10.0.1.1, fe80::1 answers",
        ),
        ("answered", vec![source("10.0.1.1", false)], None, "clients are heard"),
        (
            "silent",
            vec![source("10.0.1.1", true), source("fe80::1", false)],
            None,
            "NO ANSWER from 10.0.1.1",
        ),
        ("no-source", vec![source("10.0.1.1", false)], None, "none: no router answers"),
        ("no-source", vec![], Some("not allowed"), "none: not allowed"),
        ("off", vec![], None, "off"),
    ] {
        let trouble = trouble.map(str::to_owned);
        status.evidence = Evidence { state: state.into(), sources, trouble, ..Evidence::default() };
        let text = table(&status, UNIX_EPOCH);
        assert!(text.contains(&format!("\n  evidence   {expected}\n")), "{state}: {text}");
    }
    let broken = |broken: &str| Path {
        address: "10.0.2.10:5112".into(),
        broken: Some(broken.into()),
        ..Path::default()
    };
    for (word, alive, state) in [
        ("send", true, "SENDS IN VAIN"),
        ("receive", true, "RECEIVES NOTHING"),
        ("send", false, "DEAF TO US"),
    ] {
        status.nodes[1] = Node { alive, paths: vec![broken(word)], ..status.nodes[1].clone() };
        let text = table(&status, UNIX_EPOCH);
        assert!(text.contains(state), "{word}: {text}");
    }
    status.nodes[1] = Node { alive: false, paths: vec![broken("both")], ..status.nodes[1].clone() };
    let text = table(&status, UNIX_EPOCH);
    assert!(text.contains("SILENT") && !text.contains("PATH TO"), "{text}");
}
