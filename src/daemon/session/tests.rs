//! The loop, from the word that the machine was copied to the session that follows.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use wgha_proto::{
    Ability, Boot, Command, Event, Keyring, LEAST_REACTION, Node, NodeConfig, PeerConfig, Quorum,
    Reason, Report, Role, Time, VoteRecord, WireguardKind,
};

use crate::clock::{self, Stamps};
use crate::config::{Config, System};
use crate::daemon::{Daemon, Handle, Input, Picture, draw};
use crate::guard::Line;
use crate::guard::will::tests::{line, read};
use crate::link::Link;
use crate::net::gate::Permit;
use crate::state::Applied;

/// Alone with a peer that never answers.
const CONFIG: &str = r#"
[cluster]
name = "copied"
key_file = "/nowhere/key"
state_dir = "/nowhere"
heartbeat = "100ms"
[[node]]
name = "gw1"
addresses = ["127.0.0.1:0"]
[[node]]
name = "gw2"
addresses = ["127.0.0.2:9"]
"#;

fn node_config() -> NodeConfig {
    NodeConfig {
        cluster: "copied".into(),
        name: "gw1".into(),
        witness: false,
        priority: 100,
        interval: Duration::from_millis(100),
        misses: 3,
        preempt: None,
        handover_timeout: Duration::from_millis(500),
        neighbour_retry: Duration::ZERO,
        fingerprint: [1; 16],
        wireguard: WireguardKind::Kernel,
        quorum: Quorum::None,
        peers: vec![PeerConfig { name: "gw2".into(), witness: false, paths: 1 }],
    }
}

fn node(config: NodeConfig, votes: Option<VoteRecord>) -> Node {
    let boot = Boot {
        session: *draw().unwrap(),
        obituary_secret: *draw().unwrap(),
        highest_term: 0,
        maintenance: false,
        votes,
    };
    Node::new(config, Keyring::generate(1, [7; 32]), boot, clock::now())
}

async fn role(handle: &mut Handle, wanted: Role) {
    let reached = handle.level.wait_for(|level| level.role == wanted);
    tokio::time::timeout(Duration::from_secs(10), reached).await.expect("in time").unwrap();
}

/// What it is of now.
async fn look(handle: &Handle) -> Picture {
    let (answer, told) = oneshot::channel();
    handle.inputs.send(Input::Look(answer)).await.unwrap();
    told.await.unwrap()
}

fn daemon(text: &str, node: Node, permit: &Permit, line: Arc<Line>) -> (Daemon, Handle) {
    let text = text.replace("127.0.0.1:0", &free());
    let config = Config::parse(&text, Path::new("/nowhere/x.toml"), Some("gw1"), &System).unwrap();
    let link = Link::open(&config, Vec::new());
    let (stamps, permit) = (Stamps::default(), permit.clone());
    Daemon::new(&config, Applied::default(), node, link, stamps, permit, line)
}

/// The gate shuts, effects go off, the guard has the new session's obituaries: in this order.
#[tokio::test]
async fn a_copied_master_begins_a_session_of_its_own() {
    let (worker, guard) = line();
    let permit = Permit::new().unwrap();
    let (daemon, mut handle) = daemon(CONFIG, node(node_config(), None), &permit, worker);
    let loops = tokio::spawn(daemon.run());
    let say = async |input| handle.inputs.send(input).await.unwrap();
    say(Input::Report(Report::Ability(Ability::Ready))).await;
    role(&mut handle, Role::Master).await;
    let old = read(&guard).expect("a will");
    assert!(permit.allows(clock::now()));

    handle.inputs.send(Input::Copied).await.unwrap();
    role(&mut handle, Role::Backup).await;
    assert_eq!(permit.until(), Time::ZERO, "shut before the level says so");
    assert_eq!(look(&handle).await.node.level.reason, Reason::Copied);
    assert!(read(&guard).is_none(), "the session ends when nothing of it acts");

    handle.inputs.send(Input::Report(Report::Left(1))).await.unwrap();
    role(&mut handle, Role::Init).await;
    let new = read(&guard).expect("another will");
    assert_eq!((old.letters.len(), new.letters.len()), (1, 1));
    assert!(old.letters != new.letters && old.patience == new.patience);
    // And is a node as any other: the other one is silent.
    role(&mut handle, Role::Master).await;
    let mut events = Vec::new();
    while let Ok(event) = handle.events.try_recv() {
        events.push(event);
    }
    assert!(events.contains(&Event::Renewed(Reason::Copied)), "{events:?}");
    drop(handle);
    loops.await.unwrap();
}

/// From the order to leave until the word that it is done; and no longer than there is no gate.
#[tokio::test]
async fn without_a_gate_the_margin_is_what_leaving_took() {
    let quorum = Quorum::Majority { reaction: LEAST_REACTION, arbiter: false };
    let alone = NodeConfig { quorum, peers: Vec::new(), ..node_config() };
    let nothing = VoteRecord::without_grant(Duration::ZERO);
    let (worker, _guard) = line();
    let permit = Permit::new().unwrap();
    let text = CONFIG.split("[[node]]\nname = \"gw2\"").next().unwrap();
    let (daemon, mut handle) = daemon(text, node(alone, Some(nothing)), &permit, worker);
    let loops = tokio::spawn(daemon.run());
    handle.inputs.send(Input::Report(Report::Ability(Ability::Ready))).await.unwrap();
    role(&mut handle, Role::Master).await;
    let of = |ms| wgha_proto::margin(Duration::from_millis(300), Duration::from_millis(ms));
    let margin = async |handle: &Handle| look(handle).await.node.lease.expect("leases").margin;
    assert_eq!(margin(&handle).await, of(20));

    let term = handle.level.borrow().term;
    let (answer, told) = oneshot::channel();
    let command = Command::Maintenance { on: true, force: true };
    handle.inputs.send(Input::Command(command, answer)).await.unwrap();
    told.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    handle.inputs.send(Input::Report(Report::Left(term))).await.unwrap();
    let seen = margin(&handle).await;
    assert!((of(60)..=of(75)).contains(&seen), "{seen:?}, term {term}");
    permit.set_gate(true);
    while margin(&handle).await != of(20) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(handle);
    loops.await.unwrap();
}

fn free() -> String {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().to_string()
}
