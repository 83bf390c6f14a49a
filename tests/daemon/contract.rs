//! What scripts rely on: exit codes, fields and their types, events, the control socket.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::cluster::{Cluster, QUICK, mode, outcome, run, until_true};

/// The type of a field: a JSON type, `?` for one that may be null, or what each of a list is.
fn fits(value: &Value, kind: &str) -> bool {
    match kind {
        "string?" | "number?" | "bool?" => {
            value.is_null() || fits(value, kind.trim_end_matches('?'))
        }
        "string" => value.is_string(),
        "whole" => value.is_u64(),
        "number" => value.is_number(),
        "bool" => value.is_boolean(),
        "list" => value.is_array(),
        "strings" => value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
        "object" => value.is_object(),
        _ => panic!("no such kind: {kind}"),
    }
}

/// Every field is there and of its kind.
#[track_caller]
fn has(object: &Value, fields: &[(&str, &str)]) {
    for (name, kind) in fields {
        let value = object.get(name).unwrap_or_else(|| panic!("no {name} in {object}"));
        assert!(fits(value, kind), "{name} is {value}, not {kind}");
    }
}

fn rfc3339(value: &Value) -> bool {
    value.as_str().is_some_and(|text| humantime::parse_rfc3339(text).is_ok())
}

const STATUS: &[(&str, &str)] = &[
    ("cluster", "string"),
    ("node", "string"),
    ("role", "string"),
    ("term", "whole"),
    ("since", "string"),
    ("reason", "string"),
    ("master", "string?"),
    ("healthy", "bool"),
    ("maintenance", "bool"),
    ("ready", "bool"),
    ("exclusive", "string"),
    ("fencing", "string"),
    ("uptime_seconds", "whole"),
    ("lease", "object"),
    ("nodes", "list"),
    ("floating_ips", "list"),
    ("wireguard", "list"),
    ("checks", "list"),
    ("hooks", "list"),
    ("claims", "list"),
    ("sync", "list"),
    ("warnings", "strings"),
    ("refusals", "object"),
    ("link", "object"),
    ("changes", "object"),
];

const NODE: &[(&str, &str)] = &[
    ("name", "string"),
    ("witness", "bool"),
    ("role", "string?"),
    ("term", "whole"),
    ("priority", "number?"),
    ("alive", "bool"),
    ("last_heard_ms", "number?"),
    ("rtt_ms", "number?"),
    ("loss", "number?"),
    ("clock_offset_ms", "number?"),
    ("healthy", "bool"),
    ("maintenance", "bool"),
    ("ready", "bool"),
    ("config_match", "bool?"),
    ("paths", "list"),
];

const HOOK: &[(&str, &str)] = &[
    ("run", "strings"),
    ("on", "string"),
    ("exit", "number?"),
    ("duration_ms", "whole"),
    ("at", "string"),
];

#[test]
fn status_has_every_field_of_the_contract() {
    let mut cluster = Cluster::new(QUICK, &[("gw1", 150), ("gw2", 100)]);
    cluster.more = "[[hook]]\non = [\"master\"]\nrun = [\"/bin/true\"]\n".into();
    let (gw1, gw2) = cluster.pair();
    until_true("the hook ran", || gw1.status()["hooks"][0]["exit"] == 0);
    until_true("gw2 is measured", || gw1.node("gw2")["rtt_ms"].is_number());
    for daemon in [&gw1, &gw2] {
        let status = daemon.status();
        has(&status, STATUS);
        has(&status["lease"], &[("held", "bool"), ("expires_ms", "number?")]);
        let nodes = status["nodes"].as_array().unwrap();
        assert_eq!(nodes.iter().map(|n| &n["name"]).collect::<Vec<_>>(), ["gw1", "gw2"]);
        for node in nodes {
            has(node, NODE);
            for path in node["paths"].as_array().unwrap() {
                has(path, &[("address", "string"), ("alive", "bool")]);
            }
        }
        for hook in status["hooks"].as_array().unwrap() {
            has(hook, HOOK);
            assert_eq!(hook["run"], serde_json::json!(["/bin/true"]));
        }
        assert!(rfc3339(&status["since"]), "{status}");
        assert_eq!((&status["cluster"], &status["node"]), (&"edge".into(), &daemon.name.into()));
        assert_eq!(status["exclusive"], "no (two voters)");
        assert_eq!((status["master"].as_str(), &status["term"]), (Some("gw1"), &1.into()));
    }
    let hook = &gw1.status()["hooks"][0];
    assert_eq!((&hook["on"], rfc3339(&hook["at"])), (&"master".into(), true), "{hook}");
    let gw2 = gw1.node("gw2");
    let address = cluster.spec("gw2").send.to_string();
    let path = serde_json::json!({
        "address": address, "alive": true, "receives": true, "sends": true, "broken": null,
        "floating": false
    });
    assert_eq!(gw2["paths"], serde_json::json!([path]));
    assert_eq!((&gw2["priority"], &gw2["config_match"]), (&100.into(), &true.into()));
}

#[test]
fn a_config_that_differs_is_shown_and_not_dropped() {
    let cluster = Cluster::new(QUICK, &[("gw1", 150), ("gw2", 100)]);
    let gw1 = cluster.settle("gw1", "master");
    let config = cluster.config("gw2").replace("misses = 8", "misses = 9");
    let gw2 = cluster.start_with("gw2", &config);
    gw2.follows("gw1", 1);
    gw1.hears("gw2");
    until_true("both say so", || {
        [gw1.node("gw2"), gw2.node("gw1")].iter().all(|node| node["config_match"] == false)
    });
    let (code, table, _) = outcome(&gw1.wgha(&["status"]));
    assert_eq!(code, 0);
    assert!(table.lines().any(|l| l.starts_with('!') && l.contains("gw2")), "{table}");
    let (code, _, err) = outcome(&gw1.wgha(&["handover", "--to", "gw2"]));
    assert_eq!((code, err.contains("config differs")), (1, true), "{err}");
    let forced = gw1.hands_over(&["handover", "--to", "gw2", "--force"]);
    assert_eq!(forced, "gw2 is master now\n");
}

const EVENT: &[(&str, &str)] = &[
    ("at", "string"),
    ("from", "string"),
    ("to", "string"),
    ("term", "whole"),
    ("reason", "string"),
    ("phases_ms", "object"),
];

const PHASES: &[(&str, &str)] = &[
    ("detect", "number?"),
    ("address", "number?"),
    ("announce", "number?"),
    ("wireguard", "number?"),
    ("first_handshake", "number?"),
    ("hooks", "number?"),
];

#[test]
fn events_are_listed_followed_and_kept() {
    let cluster = Cluster::new(QUICK, &[("gw1", 150), ("gw2", 100)]);
    let (gw1, gw2) = cluster.pair();
    let config = gw2.config.to_str().unwrap();
    let mut follower = Command::new(env!("CARGO_BIN_EXE_wgha"))
        .args(["events", "--json", "--follow", "--config", config])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let first = next();
    assert_eq!((&first["from"], &first["to"]), (&"init".into(), &"backup".into()));
    gw1.kill();
    let taken = next();
    assert_eq!((&taken["from"], &taken["to"]), (&"backup".into(), &"master".into()));
    assert_eq!((&taken["term"], &taken["reason"]), (&2.into(), &"master gw1 is silent".into()));
    follower.kill().unwrap();
    follower.wait().unwrap();

    until_true("how long it took is known", || {
        gw2.events().iter().any(|event| event["phases_ms"]["detect"].is_number())
    });
    let events = gw2.events();
    for event in &events {
        has(event, EVENT);
        has(&event["phases_ms"], PHASES);
        assert!(rfc3339(&event["at"]), "{event}");
    }
    gw2.kill();
    let gw2 = cluster.settle("gw2", "master");
    let after = gw2.events();
    assert_eq!(after[..events.len()], events[..], "kept over the restart");
    assert!(after.len() > events.len());
}

#[test]
fn the_control_socket_is_for_root_alone() {
    let cluster = Cluster::new(QUICK, &[("gw1", 150)]);
    let gw1 = cluster.settle("gw1", "master");
    assert_eq!(mode(&cluster.path("gw1.sock")), 0o600);
    assert_eq!(mode(&cluster.path("gw1.state")), 0o700);
    drop(gw1);
    // The socket of a daemon that was killed does not stand in the way of the next one.
    assert!(cluster.path("gw1.sock").exists());
    cluster.settle("gw1", "master");
}

#[test]
fn exit_codes() {
    let cluster = Cluster::new(QUICK, &[("gw1", 150), ("gw2", 100)]);
    let path = cluster.path("gw1.toml");
    std::fs::write(&path, cluster.config("gw1")).unwrap();
    let config = path.to_str().unwrap();
    let asks: [&[&str]; 8] = [
        &["status"],
        &["status", "--json"],
        &["handover"],
        &["maintenance", "on"],
        &["maintenance", "off"],
        &["events"],
        &["events", "--json", "--follow"],
        &["reload"],
    ];
    for args in asks {
        let (code, out, err) = outcome(&run(args.iter().copied().chain(["--config", config])));
        assert_eq!((code, out.as_str()), (3, ""), "{args:?}: {err}");
        assert!(err.contains("no daemon answers on") && err.contains("gw1.sock"), "{err}");
    }
    for args in [&["statsu"][..], &["maintenance"], &["status", "--jsno"], &[]] {
        let (code, out, err) = outcome(&run(args.iter().copied()));
        assert_eq!((code, out.as_str(), err.is_empty()), (2, "", false), "{args:?}: {err}");
    }
    std::fs::write(&path, cluster.config("gw1").replace("misses", "mises")).unwrap();
    for (command, expected) in [("check", 1), ("run", 2)] {
        let (code, _, err) = outcome(&run([command, "--node", "gw1", "--config", config]));
        assert_eq!((code, err.contains("unknown key \"mises\"")), (expected, true), "{err}");
    }
}

#[test]
fn reload_takes_up_what_may_change_and_refuses_the_rest() {
    let cluster = Cluster::new(QUICK, &[("gw1", 150), ("gw2", 100)]);
    let (gw1, gw2) = cluster.pair();
    let before = gw1.events();
    let write = |text: &str| std::fs::write(&gw1.config, text).unwrap();
    let good = cluster.config("gw1");
    write(&good.replace("priority = 150", "priority = 40"));
    assert_eq!(outcome(&gw1.wgha(&["reload"])), (0, "reloaded\n".into(), String::new()));
    until_true("gw2 hears of it", || gw2.node("gw1")["priority"] == 40);
    for (from, to, why) in [
        ("name = \"edge\"", "name = \"other\"", "needs a restart"),
        ("gw1.state", "gw1.other", "needs a restart"),
        ("misses = 8", "misses = three", "gw1.toml:5"),
        ("gw1.sock", "gw1.other", ""),
    ] {
        write(&good.replace(from, to));
        let done = if why.is_empty() {
            // The command itself goes by the file: a signal is the way.
            gw1.signal(nix::sys::signal::Signal::SIGHUP);
            until_true("it is refused", || gw1.log().contains("the control socket changed"));
            continue;
        } else {
            gw1.wgha(&["reload"])
        };
        let (code, _, err) = outcome(&done);
        assert_eq!(
            (code, err.contains("not reloaded"), err.contains(why)),
            (1, true, true),
            "{err}"
        );
    }
    write(&good);
    assert!(gw1.wgha(&["reload"]).status.success());
    until_true("gw2 hears of it", || gw2.node("gw1")["priority"] == 150);
    assert_eq!(gw1.events(), before, "the role was not touched");
}
