//! Elections, failover, handover, stop, maintenance, restarts.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::cluster::{CALM, Cluster, Daemon, QUICK, outcome, until_true};

fn two() -> Cluster {
    Cluster::new(QUICK, &[("gw1", 150), ("gw2", 100)])
}

/// The reason of a daemon's last change of role.
fn reason(daemon: &Daemon) -> String {
    daemon.status()["reason"].as_str().unwrap().to_owned()
}

#[test]
fn the_higher_priority_wins_when_both_start() {
    // The worse candidate waits a quarter of the interval, and not longer: a second is enough for
    // the better one to start on a busy machine. That they are heard at once takes no interval.
    let cluster = Cluster::new(("4s", 2), &[("gw1", 100), ("gw2", 150)]);
    let (gw1, gw2) = (cluster.start("gw1"), cluster.start("gw2"));
    gw2.becomes("master");
    gw1.follows("gw2", 1);
    assert_eq!(reason(&gw2), "no master");
    let roles: Vec<_> = gw1.events().iter().map(|event| event["to"].clone()).collect();
    assert_eq!(roles, ["backup"], "gw1 was never master");
}

#[test]
fn a_gateway_alone_serves() {
    let cluster = two();
    let gw2 = cluster.settle("gw2", "master");
    assert_eq!(gw2.node("gw1")["alive"], false);
}

#[test]
fn a_master_that_is_killed_is_replaced_and_follows_when_it_is_back() {
    let cluster = two();
    let (gw1, gw2) = cluster.pair();
    gw1.kill();
    gw2.becomes("master");
    assert_eq!((reason(&gw2), &gw2.status()["term"]), ("master gw1 is silent".into(), &2.into()));
    let gw1 = cluster.start("gw1");
    gw1.follows("gw2", 2);
    gw2.hears("gw1");
    assert_eq!(gw2.status()["role"], "master", "the incumbent stays");
}

/// Its guard says at once that it is dead, and does not hide how it ended.
#[test]
fn a_worker_that_is_killed_is_buried() {
    let cluster = two();
    let (gw1, gw2) = cluster.pair();
    gw1.signal_worker(Signal::SIGKILL);
    gw2.becomes("master");
    assert_eq!((reason(&gw2), &gw2.status()["term"]), ("master gw1 died".into(), &2.into()));
    let log = cluster.path("gw1.log");
    assert_eq!(gw1.wait().signal(), Some(9));
    // It knew that before it knew how.
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("the worker is dead: taking off"), "{log}");
    assert!(log.contains("the worker's end: killed by SIGKILL"), "{log}");
    let gw1 = cluster.start("gw1");
    gw1.follows("gw2", 2);
    // A reload changes what the guard holds; a backup's end is known as quickly.
    assert!(gw1.wgha(&["reload"]).status.success());
    gw1.signal_worker(Signal::SIGKILL);
    until_true("gw1 is gone", || gw2.node("gw1")["alive"] == false);
    assert!(gw2.log().contains("gw1 is silent"), "{}", gw2.log());
    assert_eq!(gw2.status()["role"], "master");
}

/// Starts `wgha run`, without the right to read what may not be read, and says whether worker and guard may be.
const READ_MEMORY: &str = "import ctypes, os, subprocess, sys, time
PR_CAPBSET_DROP, CAP_SYS_PTRACE = 24, 19
if 'DROPPED' not in os.environ:
    # Fails where there is no such right anyway.
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_PTRACE, 0, 0, 0)
    os.environ['DROPPED'] = '1'
    os.execv(sys.executable, [sys.executable] + sys.argv)
guard = subprocess.Popen(sys.argv[1:], stderr=subprocess.DEVNULL)
end = time.time() + 30
workers = []
while not workers and time.time() < end:
    workers = open(f'/proc/{guard.pid}/task/{guard.pid}/children').read().split()
def readable(pid):
    # Not `maps`, which newer kernels show to CAP_PERFMON.
    try: return open(f'/proc/{pid}/mem', 'rb').readable()
    except PermissionError: return False
print(readable(workers[0]), readable(guard.pid))
guard.terminate()
guard.wait()
";

/// What nobody may read is not in a core dump either; and not before the operator asks for it.
#[test]
fn memory_is_nobody_elses() {
    let cluster = two();
    let (script, config) = (cluster.path("read.py"), cluster.path("gw1.toml"));
    std::fs::write(&script, READ_MEMORY).unwrap();
    std::fs::write(&config, cluster.config("gw1")).unwrap();
    let look = |dumps: &str| {
        let mut command = std::process::Command::new("python3");
        command.arg(&script).arg(env!("CARGO_BIN_EXE_wgha"));
        command.args(["run", "--node", "gw1", "--config"]).arg(&config);
        let output = command.env("WGHA_CORE_DUMPS", dumps).output().expect("install python3");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(look("0"), "False False\n");
    assert_eq!(look("1"), "True True\n");
}

#[test]
fn a_worker_whose_guard_is_killed_stops() {
    let cluster = two();
    let (gw1, gw2) = cluster.pair();
    let worker = gw1.worker();
    gw1.signal(Signal::SIGKILL);
    gw2.becomes("master");
    assert_eq!(reason(&gw2), "handover from gw1");
    until_true("the worker ends", || super::cluster::is_dead(worker));
    let log = gw1.log();
    assert!(log.contains("the guard is dead") && log.contains("stopped"), "{log}");
}

#[test]
fn a_worker_that_hangs_is_killed_and_buried() {
    let cluster = two();
    let (gw1, gw2) = cluster.pair();
    gw1.signal_worker(Signal::SIGSTOP);
    gw2.becomes("master");
    until_true("the guard sees it", || gw1.log().contains("the worker makes no progress"));
    assert_eq!(gw1.wait().signal(), Some(9));
    until_true("gw2 is told", || {
        gw2.refused("ended-session") > 0 && gw2.node("gw1")["alive"] == false
    });
}

#[test]
fn a_clean_stop_hands_over() {
    let cluster = two();
    let (gw1, gw2) = cluster.pair();
    assert_eq!(gw1.terminate().code(), Some(0));
    gw2.becomes("master");
    assert_eq!((reason(&gw2), &gw2.status()["term"]), ("handover from gw1".into(), &2.into()));
    let log = std::fs::read_to_string(cluster.path("gw1.log")).unwrap();
    assert!(log.contains("stopped") && !log.contains("ERROR"), "{log}");
}

#[test]
fn a_clean_stop_of_the_backup_and_of_the_last() {
    let cluster = two();
    let (gw1, gw2) = cluster.pair();
    assert_eq!(gw2.terminate().code(), Some(0));
    until_true("gw2 is gone", || gw1.node("gw2")["alive"] == false);
    assert_eq!(gw1.status()["role"], "master");
    gw1.signal(Signal::SIGINT);
    assert_eq!(gw1.wait().code(), Some(0));
    for name in ["gw1", "gw2"] {
        let log = std::fs::read_to_string(cluster.path(&format!("{name}.log"))).unwrap();
        assert!(log.contains("stopped") && !log.contains("ERROR"), "{log}");
        assert!(!cluster.path(&format!("{name}.sock")).exists(), "the socket goes with it");
    }
}

#[test]
fn handover_to_the_named_one_and_to_the_best() {
    let cluster = two();
    let (gw1, gw2) = cluster.pair();
    assert_eq!(gw1.hands_over(&["handover", "--to", "gw2"]), "gw2 is master now\n");
    gw1.follows("gw2", 2);
    assert_eq!(gw2.status()["role"], "master");
    assert_eq!(gw2.hands_over(&["handover"]), "gw1 is master now\n");
    gw2.follows("gw1", 3);
}

#[test]
fn handovers_that_are_refused_say_why() {
    let cluster = two();
    let (gw1, gw2) = cluster.pair();
    let refused = |daemon: &Daemon, args: &[&str], why: &str| {
        let (code, out, err) = outcome(&daemon.wgha(args));
        assert_eq!((code, out.as_str()), (1, ""), "{args:?}: {err}");
        assert!(err.contains(why), "{args:?}: {err}");
    };
    refused(&gw2, &["handover"], "not master");
    refused(&gw1, &["handover", "--to", "gw9"], "gw9");
    refused(&gw1, &["handover", "--to", "gw1"], "gw1");
    assert!(gw2.wgha(&["maintenance", "on"]).status.success());
    until_true("gw1 knows", || gw1.node("gw2")["maintenance"] == true);
    refused(&gw1, &["handover", "--to", "gw2"], "maintenance");
    gw2.kill();
    until_true("gw2 is missed", || gw1.node("gw2")["alive"] == false);
    refused(&gw1, &["handover", "--to", "gw2"], "gw2");
    assert_eq!((gw1.status()["role"].as_str(), gw1.events().len()), (Some("master"), 2));
}

#[test]
fn maintenance_hands_over_and_survives_a_restart() {
    let cluster = two();
    let (gw1, gw2) = cluster.pair();
    let done = gw1.wgha(&["maintenance", "on"]);
    assert_eq!(outcome(&done), (0, "maintenance on\n".into(), String::new()));
    gw2.becomes("master");
    gw1.follows("gw2", 2);
    until_true("it is on disk", || {
        std::fs::read_to_string(cluster.path("gw1.state/maintenance")).is_ok_and(|t| t == "true\n")
    });
    gw1.kill();
    let gw1 = cluster.start("gw1");
    gw1.follows("gw2", 2);
    assert_eq!(gw1.status()["maintenance"], true);
    gw2.kill();
    until_true("gw1 misses gw2", || gw1.status()["master"].is_null());
    assert_ne!(gw1.status()["role"], "master", "in maintenance it takes nothing over");
    assert!(gw1.wgha(&["maintenance", "off"]).status.success());
    gw1.becomes("master");
    assert_eq!(gw1.status()["maintenance"], false);
}

#[test]
fn three_gateways_and_a_witness() {
    let mut cluster = Cluster::new(QUICK, &[("gw1", 150), ("gw2", 100), ("gw3", 50)]);
    cluster.add("w1", 100, true);
    let witness =
        ["--witness-from", cluster.path("cluster.key").to_str().unwrap()].map(str::to_owned);
    let keys = super::cluster::run([
        "keygen",
        &witness[0],
        &witness[1],
        "--out",
        cluster.path("w1.key").to_str().unwrap(),
    ]);
    assert!(keys.status.success(), "{keys:?}");
    let w1 = cluster.settle("w1", "backup");
    let (gw1, gw2) = cluster.pair();
    let gw3 = cluster.settle("gw3", "backup");
    w1.hears("gw3");
    assert_eq!(
        (&gw1.node("w1")["witness"], &gw1.node("w1")["alive"]),
        (&true.into(), &true.into())
    );
    for daemon in [&gw2, &gw3, &w1] {
        daemon.follows("gw1", 1);
        assert_eq!(daemon.node("gw1")["config_match"], true, "{}", daemon.name);
    }
    gw2.hears("gw3");
    gw1.kill();
    gw2.becomes("master");
    gw3.follows("gw2", 2);
    w1.follows("gw2", 2);
    gw2.kill();
    gw3.becomes("master");
    w1.follows("gw3", 3);
    gw3.kill();
    until_true("nobody is left", || w1.status()["master"].is_null());
    assert_eq!(w1.status()["role"], "backup");
}

#[test]
fn a_frozen_master_yields_when_it_wakes() {
    let cluster = two();
    let (gw1, gw2) = cluster.pair();
    gw1.signal_all(Signal::SIGSTOP);
    gw2.becomes("master");
    gw1.signal_all(Signal::SIGCONT);
    gw1.follows("gw2", 2);
    assert_eq!(gw2.status()["role"], "master");
}

#[test]
fn two_masters_after_a_partition_become_one() {
    // Each was alone: started while the other's address was bound by nobody it hears.
    let cluster = two();
    let gw1 = cluster.settle("gw1", "master");
    gw1.signal_all(Signal::SIGSTOP);
    let gw2 = cluster.settle("gw2", "master");
    gw1.signal_all(Signal::SIGCONT);
    until_true("one of them yields", || {
        let roles = [gw1.status()["role"].clone(), gw2.status()["role"].clone()];
        roles.iter().filter(|role| *role == "master").count() == 1
            && roles.iter().filter(|role| *role == "backup").count() == 1
    });
}

/// The whole process tree stood still for longer than a lease, as in a machine that slept: master and backup.
#[test]
fn whoever_slept_begins_a_new_session_in_the_same_process() {
    let cluster = two();
    let (gw1, gw2) = cluster.pair();
    let worker = gw1.worker();
    // Longer than a lease for certain: the other one counts from the last that it heard.
    let sleep = || std::thread::sleep(Duration::from_millis(1_200));
    gw1.signal_all(Signal::SIGSTOP);
    gw2.becomes("master");
    sleep();
    gw1.signal_all(Signal::SIGCONT);
    let sessions =
        |daemon: &Daemon| daemon.log().matches("a new session: did not run for ").count();
    until_true("another session", || sessions(&gw1) >= 1);
    gw1.becomes("backup");
    assert_eq!(gw2.status()["role"], "master");
    let was = |event: &serde_json::Value| (event["to"].clone(), event["reason"].clone());
    let roles: Vec<_> = gw1.events().iter().map(was).collect();
    let slept = |to: &str| {
        roles.iter().position(|(role, why)| {
            role == to && why.as_str().is_some_and(|why| why.starts_with("did not run for "))
        })
    };
    assert!(slept("backup").is_some() && slept("backup") < slept("init"), "{roles:?}");

    let (master, slept) = (gw2.events().len(), sessions(&gw1));
    gw1.signal_all(Signal::SIGSTOP);
    sleep();
    gw1.signal_all(Signal::SIGCONT);
    until_true("another session", || sessions(&gw1) > slept);
    gw1.becomes("backup");
    until_true("both hear each other", || {
        gw2.node("gw1")["alive"] == true && gw1.node("gw2")["alive"] == true
    });
    assert_eq!((gw2.events().len(), gw1.worker()), (master, worker));

    // The guard has the last session's obituaries.
    until_true("it takes the role", || gw2.wgha(&["handover"]).status.success());
    gw1.becomes("master");
    gw1.signal_worker(Signal::SIGKILL);
    gw2.becomes("master");
    assert_eq!(reason(&gw2), "master gw1 died");
}

/// A machine was copied: the same node runs elsewhere, with the same key.
#[test]
fn a_second_process_of_one_name_elsewhere_goes_to_fault() {
    let cluster = Cluster::new(CALM, &[("gw1", 150), ("gw2", 100)]);
    let (gw1, gw2) = cluster.pair();
    let (here, elsewhere) = (cluster.spec("gw2").bind, cluster.address(50));
    let config = cluster
        .config("gw2")
        .replace(&format!("bind = \"{here}\""), &format!("bind = \"{elsewhere}\""))
        .replace("gw2.s", "copy.s");
    let copy = cluster.start_as("copy", "gw2", &config);
    copy.becomes("fault");
    assert_eq!(reason(&copy), "fault: duplicate name");
    for (daemon, other) in [(&gw1, "gw2"), (&gw2, "gw1")] {
        assert_eq!(daemon.node(other)["alive"], true);
        assert!(!daemon.log().contains("is silent"), "{}", daemon.log());
    }
    assert_eq!((&gw1.status()["role"], gw2.events().len()), (&"master".into(), 1));
}

/// The same config twice on one machine.
#[test]
fn a_second_process_of_one_node_is_refused() {
    let cluster = two();
    let gw1 = cluster.settle("gw1", "master");
    let config = gw1.config.to_str().unwrap();
    let second = super::cluster::run(["run", "--node", "gw1", "--config", config]);
    let (code, _, err) = outcome(&second);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("gw1.state is in use by another wgha (process "), "{err}");
    assert_eq!(gw1.status()["role"], "master");
}

/// Two configs that differ in their places alone: without its address it would hear nobody.
#[test]
fn an_address_that_is_taken_is_named() {
    let cluster = two();
    let gw1 = cluster.settle("gw1", "master");
    let other = cluster.path("other.toml");
    std::fs::write(&other, cluster.config("gw1").replace("gw1.s", "other.s")).unwrap();
    let second = super::cluster::run(["run", "--node", "gw1", "--config", other.to_str().unwrap()]);
    let (code, _, err) = outcome(&second);
    assert_eq!(code, 1, "{err}");
    let address = cluster.spec("gw1").bind;
    assert!(err.contains(&format!("{address} is in use by another process")), "{err}");
    assert_eq!(gw1.status()["role"], "master");
}

/// Two configs with one control socket.
#[test]
fn a_control_socket_that_is_taken_is_named() {
    let cluster = two();
    let gw1 = cluster.settle("gw1", "master");
    let other = cluster.path("other.toml");
    let text = cluster.config("gw1").replace("gw1.state", "other.state");
    std::fs::write(&other, text).unwrap();
    let second = super::cluster::run(["run", "--node", "gw1", "--config", other.to_str().unwrap()]);
    let (code, _, err) = outcome(&second);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("another daemon answers on") && err.contains("gw1.sock"), "{err}");
    assert_eq!(gw1.status()["role"], "master");
}
