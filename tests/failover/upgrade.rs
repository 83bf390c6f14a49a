//! The program is replaced under daemons that run, and `wgha upgrade` has them go on with it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netns_lab::{CONFIG_PATH, Capture, Echo, Lab, Node, Prober, realtime_ns, topology};

use crate::pair::{BOUND, Pair, eventually, is_answered, network, options, wgha};

/// A client begins a handshake by itself 15 s after it sends in vain: who is back before that was called.
const BY_ITSELF: Duration = Duration::from_secs(14);

/// Asked with the program that is not replaced, as that may be a broken one.
fn upgrade(node: &Node, more: &[&str]) -> Result<String, String> {
    let program = wgha().display().to_string();
    let argv = [&[program.as_str(), "upgrade", "--config", CONFIG_PATH], more].concat();
    node.exec(&argv).map_err(|e| format!("{e:#}"))
}

/// Another file at this path, as a package manager puts it there.
fn put(program: &Path, content: &[u8]) {
    let new = program.with_extension("new");
    fs::write(&new, content).expect("written");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("a mode");
    fs::rename(&new, program).expect("renamed");
}

fn exe(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).expect("a program")
}

/// Guards keep their process ids, and run what is at the path now; workers are others.
#[test]
fn both_are_upgraded_one_after_the_other() {
    let lab = network(Lab::builder().cluster(options()));
    let program = lab.dir().join("wgha");
    let mut content = fs::read(wgha()).expect("the program");
    put(&program, &content);
    let mut pair = Pair::with_program(lab, &program);
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    pair.settled("after the start");
    pair.lead(&gw1);
    let ids = |pair: &mut Pair, node: &Node| {
        let process = pair.cluster.process(node.name());
        (process.pid(), process.worker().expect("a worker"))
    };
    let before = [ids(&mut pair, &gw1), ids(&mut pair, &gw2)];

    let _echo = Echo::start(pair.lab.host(), topology::ECHO_PORT).expect("the echo server");
    let to = SocketAddr::from((topology::host().v4, topology::ECHO_PORT));
    let prober = Prober::start(pair.lab.client_node(1), to, Duration::from_millis(5));
    let prober = prober.expect("the prober");
    is_answered(&prober);
    let capture = Capture::start(&pair.lab).expect("the capture");
    let start = realtime_ns();

    // A newer one that does not like the config: nothing happens.
    let picky =
        "#!/bin/sh\n[ \"$1\" = check ] || exec echo wgha 9.9\necho 'line 3: unknown key'\nexit 1\n";
    put(&program, picky.as_bytes());
    let why = upgrade(&gw1, &[]).expect_err("it refuses the config");
    assert!(why.contains("wgha 9.9") && why.contains("line 3: unknown key"), "{why}");
    assert_eq!([ids(&mut pair, &gw1), ids(&mut pair, &gw2)], before);

    // What follows the program's end in its file is nobody's business, and makes it another file.
    content.extend(b"newer");
    put(&program, &content);
    for (node, (guard, worker)) in [&gw2, &gw1].into_iter().zip([before[1], before[0]]) {
        assert!(exe(guard).ends_with("wgha (deleted)"), "{:?}", exe(guard));
        let mut said = String::new();
        // The successor of a moment ago may not have settled: that is refused by name, so asked again.
        eventually("an upgrade", || match upgrade(node, &[]) {
            Ok(text) => {
                said = text;
                Vec::new()
            }
            Err(e) => vec![e],
        });
        assert!(said.contains(" accepts the config\n"), "{said}");
        let ends = format!("{} runs version ", node.name());
        assert!(said.lines().last().is_some_and(|last| last.starts_with(&ends)), "{said}");
        let (guard_now, worker_now) = ids(&mut pair, node);
        assert_eq!((guard_now, exe(guard)), (guard, program.clone()));
        assert_ne!(worker_now, worker);
        pair.is_ready(node);
    }
    pair.settled_on(&gw2, "both are upgraded");
    let end = realtime_ns();
    let heard = capture.stop().expect("frames");
    let mut masters: Vec<usize> = heard.iter().map(|frame| frame.gateway).collect();
    masters.dedup();
    assert_eq!(masters, [0, 1], "never two, and the role moved once");
    let outage = prober.stop().outage(start, end).and_then(|outage| outage.outage);
    println!("the client's tunnel was down for {outage:?}");
    assert!(outage.is_some_and(|outage| outage < BY_ITSELF), "{outage:?}");
    // By an order, not because one was silent while it was upgraded.
    let reason = pair.status(&gw2)["reason"].to_string();
    assert!(!reason.contains("silent"), "{reason}");

    // One that is gone when the guard wants it: what ran goes on.
    let mark = program.with_extension("mark");
    let flighty = format!(
        "#!/bin/sh\n[ \"$1\" = check ] || exec echo wgha 9.9\n[ -e {m} ] && rm -f \"$0\"\ntouch {m}\n",
        m = mark.display()
    );
    put(&program, flighty.as_bytes());
    let said = upgrade(&gw1, &[]).expect("an upgrade");
    assert!(said.contains("gw1 runs version "), "{said}");
    let said = pair.cluster.process("gw1").wait_log("wgha cannot be started: ", BOUND);
    said.expect("it says so");
    assert_eq!(pair.cluster.process("gw1").pid(), before[0].0);
    put(&program, &content);
    pair.settled_on(&gw2, "gw1 goes on with what it had");

    // A master without a successor: only by force, and then nobody serves for a moment.
    pair.stop(&gw1);
    let why = upgrade(&gw2, &[]).expect_err("nobody is there");
    assert!(why.contains("no gateway can take over"), "{why}");
    let said = upgrade(&gw2, &["--force"]).expect("an upgrade");
    assert!(said.contains("upgraded without a successor: "), "{said}");
    assert_eq!(pair.cluster.process("gw2").pid(), before[1].0);
    pair.start_on(&gw1);
    pair.settled("all run again");
    pair.end();
}
