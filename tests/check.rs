//! Proves that `wgha check` and `wgha keygen`, as they are installed, say what is wrong, where they
//! say it, and with which exit code.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

const WG_CONF: &str = "[Interface]\n\
    PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n\
    ListenPort = 51820\n\
    Address = 10.99.0.1/24\n";

fn wgha(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgha"));
    command.args(args).current_dir(dir).env_remove("WGHA_NODE").output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("ended by a signal")
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A directory with everything that gw1, on this machine's loopback, needs.
fn cluster() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path().display();
    let config = format!(
        r#"[cluster]
name = "edge"
key_file = "{d}/cluster.key"
[[node]]
name = "gw1"
addresses = ["127.0.0.1:5112"]
[[node]]
name = "gw2"
addresses = [{{ send = "198.51.100.5:5112", bind = "10.254.7.9:5112" }}]
[[node]]
name = "gw3"
addresses = ["198.51.100.6:5112"]
[[floating_ip]]
address = "203.0.113.10"
interface = "lo"
[[wireguard]]
interface = "cf-wg0"
config = "{d}/wg0.conf"
source = ["203.0.113.10"]
"#
    );
    fs::write(dir.path().join("edge.toml"), config).unwrap();
    fs::write(dir.path().join("wg0.conf"), WG_CONF).unwrap();
    let made = wgha(dir.path(), &["keygen", "--out", "cluster.key"]);
    assert_eq!((code(&made), out(&made), err(&made)), (0, "", ""));
    dir
}

#[test]
fn a_good_config_and_what_follows_from_it() {
    let dir = cluster();
    let check = wgha(dir.path(), &["check", "--config", "edge.toml"]);
    let text = out(&check);
    assert_eq!((code(&check), err(&check)), (0, ""), "{text}");
    for expected in [
        "cluster   edge\n",
        "node      gw1, a gateway (this machine has its address 127.0.0.1)\n",
        "floating  203.0.113.10/32 on lo\n",
        // Three gateways: 3 x 200 ms, one rank of 50 ms, a heartbeat and a half.
        "takes over: 950ms and two round trips\n",
        "600ms  3 heartbeats of 200ms missed\n",
        "50ms  wait of the gateway of rank 1",
        "UDP 127.0.0.1:5112 <-> 198.51.100.5:5112  (heartbeats gw1, gw2; 198.51.100.5:5112 is \
         10.254.7.9:5112 behind the NAT)\n",
        "UDP 127.0.0.1:5112 <-> 198.51.100.6:5112  (heartbeats gw1, gw3)\n",
        "UDP 198.51.100.5:5112 <-> 198.51.100.6:5112  (heartbeats gw2, gw3; ",
        "UDP all nodes -> 203.0.113.10:5112  (heartbeats, on the clients' way)\n",
        "UDP any <-> 203.0.113.10:51820  (cf-wg0)\n",
        "wg0.conf: can be read by others",
        "\n0 errors, ",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in\n{text}");
    }
}

#[test]
fn http_beyond_the_loopback_is_named() {
    let dir = cluster();
    let path = dir.path().join("edge.toml");
    let text = fs::read_to_string(&path).unwrap();
    for (listen, named) in [("127.0.0.1:9112", false), ("0.0.0.0:9112", true)] {
        fs::write(&path, format!("{text}[http]\nlisten = \"{listen}\"\n")).unwrap();
        let check = wgha(dir.path(), &["check", "--config", "edge.toml"]);
        let (code, out) = (code(&check), out(&check));
        assert_eq!(code, 0, "{out}");
        assert_eq!(out.contains("TCP monitors -> 0.0.0.0:9112  (http)\n"), named, "{out}");
        assert_eq!(out.contains("there is no password and no encryption"), named, "{out}");
    }
}

#[test]
fn other_ways_into_and_out_of_the_machine_are_named() {
    let dir = cluster();
    let path = dir.path().join("edge.toml");
    let text = fs::read_to_string(&path).unwrap();
    let more = "[probe]\nlisten = \"0.0.0.0:8080\"\n[arbiter]\netcd = [\"http://127.0.0.1\"]\n";
    fs::write(&path, text + more).unwrap();
    let check = wgha(dir.path(), &["check", "--config", "edge.toml"]);
    for expected in [
        "TCP monitors -> 0.0.0.0:8080  (probe)\n",
        "TCP gateways -> http://127.0.0.1:2379  (etcd)\n",
    ] {
        assert!(out(&check).contains(expected), "{expected:?} is missing in\n{}", out(&check));
    }
}

#[test]
fn the_node_can_be_named() {
    let dir = cluster();
    let check = wgha(dir.path(), &["check", "--config", "edge.toml", "--node", "gw2"]);
    let text = out(&check);
    assert!(text.contains("node      gw2, a gateway (--node names it)\n"), "{text}");
    assert!(text.contains("this machine has no address 10.254.7.9"), "{text}");
}

#[test]
fn all_mistakes_of_a_config_at_once() {
    let dir = cluster();
    let path = dir.path().join("edge.toml");
    let text = fs::read_to_string(&path).unwrap();
    let text =
        text.replace("name = \"edge\"", "nam = \"edge\"").replace("[[wireguard]]", "[[wiregard]]");
    fs::write(&path, text).unwrap();
    let check = wgha(dir.path(), &["check", "--config", "edge.toml"]);
    assert_eq!((code(&check), out(&check)), (1, ""));
    assert_eq!(
        err(&check),
        "edge.toml:1: [cluster] name: missing; expected the cluster's name\n\
         edge.toml:2: [cluster] nam: unknown key \"nam\"; did you mean \"name\"?\n\
         edge.toml:16: unknown table or key \"wiregard\"; did you mean \"wireguard\"?\n"
    );
}

#[test]
fn all_mistakes_of_the_machine_at_once() {
    let dir = cluster();
    fs::set_permissions(dir.path().join("cluster.key"), PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(dir.path().join("wg0.conf"), WG_CONF.replace("51820", "port")).unwrap();
    let path = dir.path().join("edge.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("interface = \"lo\"", "interface = \"cf-missing\"")).unwrap();
    let check = wgha(dir.path(), &["check", "--config", "edge.toml"]);
    let lines: Vec<&str> = err(&check).lines().collect();
    assert_eq!((code(&check), lines.len()), (1, 3), "{lines:#?}");
    assert!(lines[0].ends_with("can be read or written by others (mode 0644); expected mode 0600"));
    assert!(lines[1].contains("wg0.conf: line 3, ListenPort: "), "{lines:#?}");
    assert_eq!(lines[2], "error: floating IP 203.0.113.10: there is no interface cf-missing");
    assert!(out(&check).contains("\n3 errors, "));
}

/// What needs root is named, and is no error.
#[test]
fn without_root() {
    assert!(nix::unistd::geteuid().is_root(), "this test becomes another user: run it as root");
    let dir = cluster();
    // The directory of a temporary file is closed; what is in it shall be reached.
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(dir.path().join("wg0.conf"), PermissionsExt::from_mode(0o600)).unwrap();
    let program = dir.path().join("wgha");
    // By another process: a child that a test beside this one forks would have the file open for writing until it executes.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_wgha")).arg(&program).status().unwrap();
    assert!(copied.success());
    let check = std::os::unix::process::CommandExt::uid(&mut Command::new(&program), 65534)
        .args(["check", "--config", "edge.toml"])
        .current_dir(dir.path())
        .env_remove("WGHA_NODE")
        .output()
        .unwrap();
    let text = out(&check);
    assert_eq!((code(&check), err(&check)), (0, ""), "{text}");
    let unseen = text.split("Not looked at\n").nth(1).expect("something was not looked at");
    assert!(unseen.contains("cluster.key: cannot be read: Permission denied"), "{text}");
    assert!(unseen.contains("wg0.conf: cannot be read: Permission denied"), "{text}");
}

#[test]
fn keys() {
    let dir = cluster();
    let key = fs::read_to_string(dir.path().join("cluster.key")).unwrap();
    assert!(key.starts_with("gateway 1 "), "{key}");

    let again = wgha(dir.path(), &["keygen", "--out", "cluster.key"]);
    assert_eq!(code(&again), 1);
    assert_eq!(err(&again), "wgha: cluster.key: exists already; keys are never overwritten\n");
    assert_eq!(fs::read_to_string(dir.path().join("cluster.key")).unwrap(), key);

    let derive = |args: &[&str]| wgha(dir.path(), &[&["keygen", "--witness-from"], args].concat());
    let witness = derive(&["cluster.key", "--out", "witness.key"]);
    assert_eq!(code(&witness), 0, "{}", err(&witness));
    let text = fs::read_to_string(dir.path().join("witness.key")).unwrap();
    assert!(text.starts_with("witness 1 "), "{text}");
    // Derived, not drawn: whoever has the gateway's key can make it again.
    assert_eq!(out(&derive(&["cluster.key"])), text);
    let twice = derive(&["witness.key"]);
    assert_eq!(code(&twice), 1);
    assert!(err(&twice).contains("holds witness keys already"), "{}", err(&twice));

    let second = wgha(dir.path(), &["keygen", "--id", "7"]);
    assert!(out(&second).starts_with("gateway 7 "));
}

#[test]
fn exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    for (args, expected) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["check", "--config", "missing.toml"], 1),
        (&[], 2),
        (&["frob"], 2),
        (&["keygen", "--id", "x"], 2),
        (&["status", "--config", "no-such-instance.toml"], 3),
        (&["handover", "--config", "no-such-instance.toml"], 3),
    ] {
        let output = wgha(dir.path(), args);
        assert_eq!(code(&output), expected, "{args:?}: {}", err(&output));
    }
}
