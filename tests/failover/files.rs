//! `[sync] files`: wg0.conf is edited on either gateway, and applied on both, while clients' traffic
//! goes on.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use netns_lab::{ClusterOptions, Echo, KeyPair, Lab, Node, Prober, WgConf, WgPeer, topology};
use serde_json::Value;

use crate::audit;
use crate::pair::{BOUND, Pair, eventually, options};

const SYNC: &str = "\n[sync]\nfiles = [\"/etc/wireguard/wg0.conf\"]\n";

fn start(clients: u8) -> Pair {
    let cluster = ClusterOptions { extra: SYNC.to_owned(), ..options() };
    let pair = Pair::with(Lab::builder().clients(clients).cluster(cluster));
    let text = pair.lab.wg0_conf().to_text();
    in_sync(&pair, &text);
    pair
}

fn path(node: &Node) -> PathBuf {
    node.dir().join("etc-wireguard/wg0.conf")
}

/// As an editor that makes a new file, and renames.
fn rename(node: &Node, text: &str) {
    let new = node.dir().join("etc-wireguard/.wg0.conf.new");
    fs::write(&new, text).expect("a new file");
    fs::set_permissions(&new, Permissions::from_mode(0o600)).expect("its mode");
    fs::rename(new, path(node)).expect("in place of the old one");
}

/// As an editor that writes into the file.
fn overwrite(node: &Node, text: &str) {
    fs::write(path(node), text).expect("wg0.conf");
}

fn row(pair: &Pair, node: &Node) -> Value {
    pair.cluster.status(node).map_or(Value::Null, |status| status["sync"][0].clone())
}

/// Waits until both gateways have this file, and say so.
fn in_sync(pair: &Pair, text: &str) {
    eventually("wg0.conf is the same on both", || {
        let mut wrong = Vec::new();
        for node in pair.lab.gateways() {
            let same = fs::read_to_string(path(node)).is_ok_and(|there| there == text);
            let said = row(pair, node);
            if !same || said["in_sync"] != true {
                wrong.push(format!("{}: same: {same}, {said}", node.name()));
            }
        }
        wrong
    });
    let rows: Vec<Value> = pair.lab.gateways().iter().map(|node| row(pair, node)).collect();
    assert_eq!(rows[0]["version"], rows[1]["version"], "{rows:?}");
}

fn says(pair: &Pair, node: &Node, text: &str) {
    eventually(&format!("{} says {text:?}", node.name()), || {
        let said = row(pair, node);
        let problem = said["problem"].as_str().unwrap_or_default();
        if problem.contains(text) { Vec::new() } else { vec![said.to_string()] }
    });
}

fn applied(pair: &mut Pair, node: &Node) -> usize {
    pair.cluster.process(node.name()).log().matches("WireGuard files are applied").count()
}

/// Waits until `node` has applied a file once more than `before`.
fn wait_applied(pair: &mut Pair, node: &Node, before: usize) {
    eventually(&format!("{} applies it", node.name()), || {
        let now = applied(pair, node);
        if now > before { Vec::new() } else { vec![format!("{now} times")] }
    });
}

/// The file without this client.
fn without(pair: &Pair, client: usize) -> WgConf {
    let mut conf = pair.lab.wg0_conf();
    let key = pair.lab.keys().clients[client].public_base64();
    conf.peers.retain(|peer| peer.public_key != key);
    conf
}

fn reaches(client: &WgPeer, expected: bool, when: &str) {
    eventually(when, || {
        if audit::answers(client) == expected { Vec::new() } else { vec![format!("{}", !expected)] }
    });
}

#[test]
fn a_client_added_on_the_backup_connects_and_no_other_loses_a_packet() {
    let mut pair = start(2);
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let (all, fewer) = (pair.lab.wg0_conf().to_text(), without(&pair, 1).to_text());

    // Removed on the master: gone at once, and from the backup too.
    overwrite(&gw1, &fewer);
    reaches(&pair.clients[1], false, "client2 is no peer any more");
    in_sync(&pair, &fewer);
    pair.clients.pop().expect("client2").stop().expect("stopping");

    let echo = Echo::start(pair.lab.host(), 7).expect("an echo server");
    let to = SocketAddr::from((topology::host().v4, 7));
    let client1 = pair.clients[0].node().clone();
    let prober = Prober::start(&client1, to, Duration::from_millis(20)).expect("a prober");
    std::thread::sleep(Duration::from_secs(1));
    let handshake = pair.clients[0].latest_handshake().expect("the client's device");
    let before = applied(&mut pair, &gw1);

    let edited = Instant::now();
    rename(&gw2, &all);
    wait_applied(&mut pair, &gw1, before);
    let at_master = edited.elapsed();
    let mut client2 = pair.lab.start_client(2).expect("client2");
    while !audit::answers(&client2) {
        assert!(edited.elapsed() < BOUND, "client2 never connects");
        // A handshake that came a moment too early is tried again 5 s later: another client.
        client2.stop().expect("stopping");
        client2 = pair.lab.start_client(2).expect("client2");
    }
    let connected = edited.elapsed();
    println!("at the master after {at_master:?}, connected after {connected:?}");
    std::thread::sleep(Duration::from_secs(1));
    let probes = prober.stop();
    assert!(probes.probes.len() > 50, "{}", probes.probes.len());
    assert_eq!(probes.lost(), 0, "of {}", probes.probes.len());
    let later = pair.clients[0].latest_handshake().expect("the client's device");
    assert_eq!(later, handshake, "client1 lost its session");
    drop(echo);
    pair.clients.push(client2);
    in_sync(&pair, &all);
    // Staged on the backup, too.
    pair.hand_over(&gw1, &gw2);
    pair.settled_on(&gw2, "after the handover");
    pair.end();
}

#[test]
fn an_edit_counts_wherever_and_however_it_is_made() {
    let mut pair = start(2);
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let all = pair.lab.wg0_conf();
    fs::set_permissions(path(&gw1), Permissions::from_mode(0o640)).expect("a mode");
    chown(path(&gw1), Some(7), Some(8)).expect("an owner");
    let handshake = pair.clients[0].latest_handshake().expect("the client's device");

    // A prefix moves from one peer to another, and back.
    let mut moved = all.clone();
    let taken = std::mem::take(&mut moved.peers[1].allowed_ips);
    moved.peers[0].allowed_ips.extend(taken);
    overwrite(&gw2, &moved.to_text());
    reaches(&pair.clients[1], false, "client2's address belongs to client1");
    in_sync(&pair, &moved.to_text());
    audit::answers_soon(&pair.clients[0], "client1 keeps its tunnel");
    rename(&gw1, &all.to_text());
    reaches(&pair.clients[1], true, "client2 has its address again");
    in_sync(&pair, &all.to_text());
    let later = pair.clients[0].latest_handshake().expect("the client's device");
    assert_eq!(later, handshake, "client1 lost its session");

    // Who owns the file keeps it, on each node.
    chown(path(&gw1), Some(7), Some(8)).expect("an owner");
    fs::set_permissions(path(&gw1), Permissions::from_mode(0o640)).expect("a mode");
    let fewer = without(&pair, 1).to_text();
    rename(&gw2, &fewer);
    in_sync(&pair, &fewer);
    let meta = fs::metadata(path(&gw1)).expect("wg0.conf");
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (7, 8, 0o640));
    let meta = fs::metadata(path(&gw2)).expect("wg0.conf");
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (0, 0o600));

    // What is broken stays where it is.
    let broken = all.to_text().replacen("[Peer]\nPublicKey = ", "[Peer]\nPublicKey = broken", 1);
    let line = 1 + broken.lines().position(|l| l.contains("broken")).expect("a line");
    rename(&gw2, &broken);
    says(&pair, &gw2, &format!("line {line}, PublicKey"));
    let secret = pair.lab.keys().gateway.private_base64();
    let logged = format!("wg0.conf: line {line}, PublicKey");
    pair.cluster.process("gw2").wait_log(&logged, BOUND).expect("it is logged");
    let log = pair.cluster.process("gw2").log();
    assert!(!log.contains(&secret) && !row(&pair, &gw2).to_string().contains(&secret));
    assert_eq!(fs::read_to_string(path(&gw1)).expect("wg0.conf"), fewer, "it travelled");
    assert!(pair.wgha(&gw2, &["status"]).contains("! /etc/wireguard/wg0.conf: line"));

    // A symbolic link is neither followed nor replaced.
    fs::rename(path(&gw2), gw2.dir().join("etc-wireguard/real.conf")).expect("renaming");
    symlink("real.conf", path(&gw2)).expect("a link");
    says(&pair, &gw2, "is a symbolic link");
    let check = pair.refused(&gw2, &["check"]);
    assert!(check.contains("symbolic link"), "{check}");
    rename(&gw1, &all.to_text());
    std::thread::sleep(Duration::from_secs(1));
    assert!(fs::symlink_metadata(path(&gw2)).expect("the link").is_symlink());
    fs::remove_file(path(&gw2)).expect("removing the link");
    in_sync(&pair, &all.to_text());
    pair.settled_on(&gw1, "after all edits");
    pair.end();
}

#[test]
fn edits_while_a_gateway_is_away_and_two_at_once() {
    let mut pair = start(2);
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let (all, fewer) = (pair.lab.wg0_conf().to_text(), without(&pair, 1).to_text());
    // The backup is away.
    pair.stop(&gw2);
    rename(&gw1, &fewer);
    reaches(&pair.clients[1], false, "client2 is no peer any more");
    pair.start_on(&gw2);
    in_sync(&pair, &fewer);
    // The old master is away.
    pair.kill(&gw1);
    pair.wgha(&gw1, &["release"]);
    pair.is_master(&gw2, "gw1 is away");
    overwrite(&gw2, &all);
    pair.start_on(&gw1);
    in_sync(&pair, &all);
    pair.settled_on(&gw2, "gw1 is back");
    // Both edit the same version: the master's wins, the other one is kept.
    pair.stop(&gw1);
    let (of_master, of_backup) = (format!("# master\n{all}"), format!("# backup\n{all}"));
    rename(&gw2, &of_master);
    rename(&gw1, &of_backup);
    pair.start_on(&gw1);
    in_sync(&pair, &of_master);
    says(&pair, &gw1, "wg0.conf.conflict-gw1-2");
    let kept: Vec<PathBuf> = fs::read_dir(gw1.dir().join("etc-wireguard"))
        .expect("the directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().contains(".conflict-"))
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(fs::read_to_string(&kept[0]).expect("it is kept"), of_backup);
    assert_eq!(fs::metadata(&kept[0]).expect("it is kept").mode() & 0o777, 0o600);
    pair.settled_on(&gw2, "after the conflict");
    // A node that lost everything gets the file before it can serve.
    pair.stop(&gw1);
    fs::remove_file(path(&gw1)).expect("wg0.conf");
    fs::remove_file(gw1.dir().join("state/wgha/files.json")).expect("versions");
    pair.start_on(&gw1);
    in_sync(&pair, &of_master);
    pair.settled_on(&gw2, "gw1 fetched its file");
    pair.hand_over(&gw2, &gw1);
    pair.settled_on(&gw1, "and serves with it");
    pair.end();
}

#[test]
fn another_private_key_restarts_the_interface() {
    let mut pair = start(1);
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let key = KeyPair::generate().expect("a key");
    let conf = WgConf { private_key: key.private_base64(), ..pair.lab.wg0_conf() };
    let before = pair.changes(&gw1);
    rename(&gw2, &conf.to_text());
    reaches(&pair.clients[0], false, "client1 has the old key");
    in_sync(&pair, &conf.to_text());
    let said = "wg0 restarted: its private key changed";
    pair.cluster.process("gw1").wait_log(said, BOUND).expect("it is logged");
    let events = pair.wgha(&gw1, &["events", "--json"]);
    assert!(events.lines().count() == before + 1 && events.contains(said), "{events}");
    let client = pair.clients.remove(0);
    let (node, kind) = (client.node().clone(), client.kind());
    client.stop().expect("stopping");
    let mut conf = pair.lab.client_conf(1, false, 0);
    conf.peers[0].public_key = key.public_base64();
    let client = WgPeer::start(&node, kind, &conf).expect("the client");
    reaches(&client, true, "client1 has the new key");
    pair.clients.push(client);
    pair.hand_over(&gw1, &gw2);
    pair.settled_on(&gw2, "after the handover");
    pair.end();
}
