//! The cluster key is changed while the daemons run.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use super::cluster::{CALM, Cluster, Daemon, outcome, run, until_true};
use super::proxy::{Proxy, To};

/// A line of a key file.
fn key(id: &str) -> String {
    let made = run(["keygen", "--id", id]);
    let (code, text, err) = outcome(&made);
    assert_eq!(code, 0, "{err}");
    text
}

/// Gives a node a key file with these lines.
fn write(cluster: &Cluster, name: &str, lines: &[&str]) {
    use std::os::unix::fs::PermissionsExt;
    let path = cluster.path(&format!("{name}.key"));
    fs::write(&path, lines.concat()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn reload(daemon: &Daemon) {
    assert_eq!(outcome(&daemon.wgha(&["reload"])), (0, "reloaded\n".into(), String::new()));
}

/// The ids of the keys that seal the next heartbeats that way.
fn sealed_with(proxy: &Proxy, to: To) -> Vec<u8> {
    proxy.next(to, 3).iter().map(|datagram| datagram[7]).collect()
}

#[test]
fn rotation_without_a_missed_heartbeat() {
    let mut cluster = Cluster::new(CALM, &[("gw1", 150), ("gw2", 100)]);
    let proxy = Proxy::between(&mut cluster);
    let (old, new) = (key("1"), key("2"));
    for name in ["gw1", "gw2"] {
        write(&cluster, name, &[&old]);
    }
    let (gw1, gw2) = cluster.pair();
    let before = [gw1.refusals(), gw2.refusals()];
    assert_eq!(sealed_with(&proxy, To::Gw2), [1, 1, 1]);
    for lines in [[&old, &new], [&new, &old], [&new, &String::new()]] {
        for daemon in [&gw1, &gw2] {
            write(&cluster, daemon.name, &lines.map(String::as_str));
            reload(daemon);
            // Each step stands for a while, as it does when an operator goes from node to node.
            proxy.next(To::Gw1, 3);
            for (daemon, other) in [(&gw1, "gw2"), (&gw2, "gw1")] {
                assert_eq!(daemon.node(other)["alive"], true);
            }
        }
    }
    assert_eq!(sealed_with(&proxy, To::Gw1), [2, 2, 2]);
    assert_eq!(sealed_with(&proxy, To::Gw2), [2, 2, 2]);
    assert_eq!([gw1.refusals(), gw2.refusals()], before, "no heartbeat was refused");
    for daemon in [&gw1, &gw2] {
        assert!(!daemon.log().contains("is silent"), "{}", daemon.log());
    }
    assert_eq!(gw1.status()["term"], 1);
}

#[test]
fn a_key_that_the_other_does_not_have_is_named_on_both_sides() {
    let mut cluster = Cluster::new(CALM, &[("gw1", 150), ("gw2", 100)]);
    let _proxy = Proxy::between(&mut cluster);
    let old = key("1");
    for name in ["gw1", "gw2"] {
        write(&cluster, name, &[&old]);
    }
    let (gw1, gw2) = cluster.pair();
    // Another secret under the same id, and a new id that gw2 has not got yet.
    for (line, word) in [(key("1"), "seal"), (key("2"), "key")] {
        write(&cluster, "gw1", &[&line]);
        reload(&gw1);
        until_true(&format!("gw2 refuses: {word}"), || gw2.refused(word) > 2);
        write(&cluster, "gw1", &[&old]);
        reload(&gw1);
        gw2.hears("gw1");
        gw1.hears("gw2");
    }
}

#[test]
fn a_key_file_that_others_can_read_is_not_taken_up() {
    use std::os::unix::fs::PermissionsExt;
    let cluster = Cluster::new(CALM, &[("gw1", 150), ("gw2", 100)]);
    let (gw1, gw2) = cluster.pair();
    let path = cluster.path("cluster.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, err) = outcome(&gw1.wgha(&["reload"]));
    assert_eq!((code, err.contains("can be read or written by others")), (1, true), "{err}");
    sleep(Duration::from_millis(500));
    assert_eq!(gw2.node("gw1")["alive"], true, "the old keys stay in force");
    assert_eq!(gw1.status()["role"], "master");
}
