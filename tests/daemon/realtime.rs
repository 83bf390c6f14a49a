//! `[cluster] realtime`: what the daemon's threads get of it, and that it works where it is refused.

use std::fs;
use std::path::PathBuf;

use super::cluster::{CALM, Cluster, Daemon};

const REALTIME: &str = "realtime = true\n[control]";

/// `SCHED_RR` of sched(7).
const ROUND_ROBIN: u32 = 2;

/// A thread: its name, real-time priority and policy.
type Thread = (String, u32, u32);

/// The worker, and its threads.
fn worker(daemon: &Daemon) -> (PathBuf, Vec<Thread>) {
    let process = PathBuf::from(format!("/proc/{}", daemon.worker()));
    let threads = threads(&process);
    assert!(threads.iter().any(|(name, ..)| name == "protocol"), "{threads:?}");
    (process, threads)
}

fn threads(process: &std::path::Path) -> Vec<Thread> {
    let tasks = fs::read_dir(process.join("task")).unwrap();
    // A thread may end meanwhile.
    tasks
        .filter_map(|task| thread(&fs::read_to_string(task.ok()?.path().join("stat")).ok()?))
        .collect()
}

/// Fields 2, 40 and 41 of proc_pid_stat(5).
fn thread(stat: &str) -> Option<Thread> {
    let (head, fields) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = fields.split(' ').collect();
    Some((name, fields.get(37)?.parse().ok()?, fields.get(38)?.parse().ok()?))
}

fn locked_kib(process: &std::path::Path) -> u64 {
    let status = fs::read_to_string(process.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

fn config(cluster: &Cluster, realtime: bool) -> String {
    let config = cluster.config("gw1");
    if realtime { config.replace("[control]", REALTIME) } else { config }
}

fn alone() -> Cluster {
    Cluster::new(CALM, &[("gw1", 150), ("gw2", 100)])
}

#[test]
fn protocol_and_gate_are_real_time_and_memory_is_locked() {
    let cluster = alone();
    let gw1 = cluster.start_with("gw1", &config(&cluster, true));
    gw1.becomes("master");
    let status = gw1.status();
    let said = &status["realtime"];
    assert_eq!(
        (&said["scheduling"], &said["memory"]),
        (&true.into(), &true.into()),
        "run this as root outside a container: {said}"
    );
    let (process, threads) = worker(&gw1);
    assert!(threads.iter().any(|(name, ..)| name == "gate"), "{threads:?}");
    for (name, priority, policy) in threads {
        let urgent = ["protocol", "gate"].contains(&name.as_str());
        let expected = if urgent { (10, ROUND_ROBIN) } else { (0, 0) };
        assert_eq!((priority, policy), expected, "thread {name}");
    }
    assert!(locked_kib(&process) > 0);
}

#[test]
fn it_is_off_unless_wanted() {
    let cluster = alone();
    let gw1 = cluster.start_with("gw1", &config(&cluster, false));
    gw1.becomes("master");
    assert_eq!(gw1.status()["realtime"], serde_json::Value::Null);
    let (process, threads) = worker(&gw1);
    assert!(
        threads.iter().all(|(_, priority, policy)| (*priority, *policy) == (0, 0)),
        "{threads:?}"
    );
    assert_eq!(locked_kib(&process), 0);
    // The process would have to start anew for it.
    fs::write(cluster.path("gw1.toml"), config(&cluster, true)).unwrap();
    let reload = gw1.wgha(&["reload"]);
    let said = String::from_utf8(reload.stderr).unwrap();
    assert!(said.contains("the realtime changed: that needs a restart"), "{said}");
}

/// Without the capabilities and with small limits: warned of, shown, and served all the same.
#[test]
fn refused_it_serves_and_says_what_is_missing() {
    let cluster = alone();
    let weak = ["setpriv", "--bounding-set=-sys_nice,-ipc_lock,-sys_resource", "--inh-caps=-all"];
    let small = ["prlimit", "--rtprio=0:0", "--memlock=65536:65536"];
    let wrapper: Vec<&str> = small.into_iter().chain(weak).collect();
    let gw1 = cluster.start_under(&wrapper, "gw1", &config(&cluster, true));
    gw1.becomes("master");
    let said = gw1.status()["realtime"].clone();
    assert_eq!((&said["scheduling"], &said["memory"]), (&false.into(), &false.into()), "{said}");
    for words in ["CAP_SYS_NICE or LimitRTPRIO=10", "LimitMEMLOCK=infinity or CAP_IPC_LOCK"] {
        assert!(said["missing"].to_string().contains(words), "{said}");
        let log = gw1.log();
        assert!(log.lines().any(|l| l.contains("WARN") && l.contains(words)), "{log}");
    }
    let (process, threads) = worker(&gw1);
    assert!(
        threads.iter().all(|(_, priority, policy)| (*priority, *policy) == (0, 0)),
        "{threads:?}"
    );
    assert_eq!(locked_kib(&process), 0);
}
