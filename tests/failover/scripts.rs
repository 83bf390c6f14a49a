//! PostUp and PostDown, and hooks that misbehave.

use std::os::unix::fs::PermissionsExt;

use netns_lab::{ClusterOptions, Lab, Node, etc};

use crate::pair::{Pair, eventually, network, options};

/// What the script lines of wg0.conf have written on a node.
fn lines(node: &Node) -> Vec<String> {
    let text = std::fs::read_to_string(node.dir().join("state/lines.log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn wait_lines(node: &Node, wanted: &[&str], when: &str) {
    eventually(&format!("{when}: lines on {}", node.name()), || {
        let found = lines(node);
        if found == wanted { Vec::new() } else { vec![format!("{found:?} instead of {wanted:?}")] }
    });
}

#[test]
fn post_up_and_post_down_once_a_takeover() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let log = ">> /var/lib/wgha/lines.log";
    let scripts = format!(
        "[Interface]\nPostUp = echo up %i {log}\nPreDown = echo pre %i {log}\nPostDown = echo down %i {log}\n"
    );
    let conf = pair.lab.wg0_conf().to_text().replace("[Interface]\n", &scripts);
    // Whoever serves already has no PostUp to run for this term: the files change on both, then the role goes round.
    for node in [&gw1, &gw2] {
        std::fs::write(node.dir().join("etc-wireguard/wg0.conf"), &conf).expect("wg0.conf");
        pair.wgha(node, &["reload"]);
    }
    pair.hand_over(&gw1, &gw2);
    pair.settled_on(&gw2, "the first takeover with scripts");
    wait_lines(&gw2, &["up wg0"], "gw2 took over");
    pair.hand_over(&gw2, &gw1);
    pair.settled_on(&gw1, "and back");
    wait_lines(&gw2, &["up wg0", "pre wg0", "down wg0"], "gw2 gave up");
    let before = lines(&gw1);
    assert_eq!(before.last().map(String::as_str), Some("up wg0"), "{before:?}");
    assert_eq!(before.iter().filter(|l| *l == "up wg0").count(), 1, "{before:?}");
    // A reload is no takeover.
    pair.wgha(&gw1, &["reload"]);
    pair.settled_on(&gw1, "reloaded");
    assert_eq!(lines(&gw1), before, "after a reload");
    // After kill -9 `wgha release` runs what is due, once.
    pair.kill(&gw1);
    pair.wgha(&gw1, &["release"]);
    let due = [before, vec!["pre wg0".to_owned(), "down wg0".to_owned()]].concat();
    assert_eq!(lines(&gw1), due, "after release");
    pair.wgha(&gw1, &["release"]);
    assert_eq!(lines(&gw1), due, "after a second release");
    pair.settled_on(&gw2, "gw1 was killed and released");
    wait_lines(&gw2, &["up wg0", "pre wg0", "down wg0", "up wg0"], "gw2 took over again");
    // A restart after kill -9 does the same.
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 is back");
    pair.kill(&gw2);
    pair.settled_on_silent(&gw1, "gw2 was killed");
    pair.start_on(&gw2);
    pair.settled_on(&gw1, "gw2 was restarted");
    let all = ["up wg0", "pre wg0", "down wg0", "up wg0", "pre wg0", "down wg0"];
    wait_lines(&gw2, &all, "gw2 was killed and restarted");
    pair.end();
}

#[test]
fn misbehaving_hooks_delay_nothing() {
    let hook = |name: &str| {
        format!(
            "\n[[hook]]\non = [\"master\", \"backup\"]\nrun = [\"/etc/wgha/{name}\"]\ntimeout = \"5m\"\n"
        )
    };
    let extra = hook("noisy.sh") + &hook("hanging.sh");
    let lab = network(Lab::builder().cluster(ClusterOptions { extra, ..options() }));
    for node in lab.gateways() {
        for (name, text) in [
            (
                "noisy.sh",
                "#!/bin/sh\nhead -c 5000000 /dev/zero | tr '\\0' 'x'\nyes out | head -n 100000\nyes error | head -n 100000 >&2\nexit 7\n",
            ),
            ("hanging.sh", "#!/bin/sh\ntrap '' TERM\nsleep 1000 &\nwhile :; do sleep 1; done\n"),
        ] {
            let path = etc(node).join(name);
            std::fs::write(&path, text).expect("a hook");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, mode).expect("its mode");
        }
    }
    let mut pair = Pair::unsettled(lab);
    pair.settled("hooks hang");
    let hangs = |pair: &Pair, node: &Node| {
        eventually("the hanging hook runs", || {
            let status = pair.status(node);
            let hooks = status["hooks"].as_array().cloned().unwrap_or_default();
            let hanging = hooks.iter().find(|h| h["run"].to_string().contains("hanging.sh"));
            if hanging.is_some_and(|h| h["outcome"] == "running") {
                return Vec::new();
            }
            vec![status["hooks"].to_string()]
        });
    };
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    pair.lead(&gw1);
    hangs(&pair, &gw1);
    hangs(&pair, &gw2);
    pair.kill(&gw1);
    pair.wgha(&gw1, &["release"]);
    pair.settled_on(&gw2, "taken over while a hook hung");
    hangs(&pair, &gw2);
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 is back");
    let log = pair.cluster.process("gw2").log();
    assert!(log.len() < 2_000_000, "megabytes of a hook's output in the log: {}", log.len());
    pair.end();
}
