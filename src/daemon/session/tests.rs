//! The loop, from the word that the machine was copied to the session that follows.

use std::path::Path;
use std::time::Duration;

use tokio::sync::oneshot;
use wgha_proto::{
    Ability, Boot, Event, Keyring, Node, NodeConfig, PeerConfig, Quorum, Reason, Report, Role,
    Time, WireguardKind,
};

use crate::clock::{self, Stamps};
use crate::config::{Config, System};
use crate::daemon::{Daemon, Handle, Input, draw};
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

fn node() -> Node {
    let config = NodeConfig {
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
    };
    let boot = Boot {
        session: *draw().unwrap(),
        obituary_secret: *draw().unwrap(),
        highest_term: 0,
        maintenance: false,
        votes: None,
    };
    Node::new(config, Keyring::generate(1, [7; 32]), boot, clock::now())
}

async fn role(handle: &mut Handle, wanted: Role) {
    let reached = handle.level.wait_for(|level| level.role == wanted);
    tokio::time::timeout(Duration::from_secs(10), reached).await.expect("in time").unwrap();
}

/// The gate shuts, effects go off, the guard has the new session's obituaries: in this order.
#[tokio::test]
async fn a_copied_master_begins_a_session_of_its_own() {
    let text = CONFIG.replace("127.0.0.1:0", &free());
    let config = Config::parse(&text, Path::new("/nowhere/x.toml"), Some("gw1"), &System).unwrap();
    let (worker, guard) = line();
    let permit = Permit::new().unwrap();
    let (daemon, mut handle) = Daemon::new(
        &config,
        Applied::default(),
        node(),
        Link::open(&config, Vec::new()),
        Stamps::default(),
        permit.clone(),
        worker,
    );
    let loops = tokio::spawn(daemon.run());
    let say = async |input| handle.inputs.send(input).await.unwrap();
    say(Input::Report(Report::Ability(Ability::Ready))).await;
    role(&mut handle, Role::Master).await;
    let old = read(&guard).expect("a will");
    assert!(permit.allows(clock::now()));

    handle.inputs.send(Input::Copied).await.unwrap();
    role(&mut handle, Role::Backup).await;
    assert_eq!(permit.until(), Time::ZERO, "shut before the level says so");
    let (answer, told) = oneshot::channel();
    handle.inputs.send(Input::Look(answer)).await.unwrap();
    assert_eq!(told.await.unwrap().node.level.reason, Reason::Copied);
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

fn free() -> String {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().to_string()
}
