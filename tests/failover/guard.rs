//! The worker is killed or hangs and its guard cleans up; the guard is killed and the worker leaves; both are killed.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use netns_lab::{Lab, Node, Spec, etc, topology};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::audit::{self, network_of, run};
use crate::pair::{BOUND, Pair, eventually, network, options};

fn worker(pair: &mut Pair, node: &Node) -> Pid {
    pair.cluster.process(node.name()).worker().expect("a worker")
}

/// Waits for the end of the guard; returns the signal that it passed on from its worker.
fn guard_ended(pair: &mut Pair, node: &Node) -> Option<i32> {
    let status = pair.cluster.process(node.name()).wait(BOUND).expect("the guard ends");
    pair.gone(node);
    status.signal()
}

fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    // A zombie is dead, once its last thread is (field 20 of proc(5); the state is field 3).
    let fields: Vec<&str> = rest.split(' ').collect();
    fields[0] != "Z" || !matches!(fields[17], "0" | "1")
}

/// Nothing of wgha's is left, although nobody ran `wgha release`.
fn clean(pair: &Pair, node: &Node, when: &str) {
    assert_eq!(&network_of(node), pair.before(node), "{when}: left behind, or taken along");
    assert!(!audit::wg0_up(node), "{when}: wg0 is up");
    let tables = run(node, "nft list tables");
    assert!(!tables.contains("wgha_"), "{when}: {tables}");
}

#[test]
fn worker_killed() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    kill(worker(&mut pair, &gw1), Signal::SIGKILL).expect("a kill");
    pair.is_master(&gw2, "the worker of gw1 was killed");
    // The obituary, not the silence.
    pair.says(&gw2, "master", "master gw1 died");
    assert_eq!(guard_ended(&mut pair, &gw1), Some(9), "the worker's end is passed on");
    clean(&pair, &gw1, "the worker was killed");
    pair.settled_on(&gw2, "the worker of gw1 was killed");
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 runs again");
    // Of a backup it changes nothing but that it is known.
    let changes = pair.changes(&gw2);
    kill(worker(&mut pair, &gw1), Signal::SIGABRT).expect("a kill");
    assert_eq!(guard_ended(&mut pair, &gw1), Some(6));
    assert_eq!(pair.status(&gw2)["nodes"][0]["alive"], false, "without waiting for silence");
    clean(&pair, &gw1, "the worker of the backup was killed");
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "the backup runs again");
    assert_eq!(pair.changes(&gw2), changes, "the master changed its role");
    pair.end();
}

#[test]
fn guard_killed() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let left = worker(&mut pair, &gw1);
    pair.cluster.process("gw1").signal_alone(Signal::SIGKILL).expect("a kill");
    pair.says(&gw2, "master", "handover from gw1");
    eventually("the worker ends", || if lives(left) { vec!["it runs".into()] } else { Vec::new() });
    pair.gone(&gw1);
    let log = fs::read_to_string(gw1.dir().join("log/wgha.log")).expect("a log");
    assert!(log.contains("the guard is dead") && log.contains("stopped"), "{log}");
    pair.settled_on(&gw2, "the guard of gw1 was killed");
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 runs again");
    pair.end();
}

/// Whether a gateway has any of the floating IPs.
fn holds(pair: &Pair, node: &Node) -> Vec<String> {
    let shown = run(node, "ip -o addr");
    let all = pair.lab.floating_ips().into_iter();
    all.map(|(address, _)| address).filter(|a| shown.contains(&format!(" {a} "))).collect()
}

#[test]
fn both_killed() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    assert_eq!(holds(&pair, &gw1).len(), 4);
    // The whole process group.
    let killed = Instant::now();
    pair.kill(&gw1);
    assert_eq!(holds(&pair, &gw1).len(), 4, "nobody took them off");
    pair.says(&gw2, "master", "master gw1 is silent");
    eventually("the kernel removes the floating IPs", || holds(&pair, &gw1));
    let took = killed.elapsed();
    println!("the dead man's addresses were gone {:.1} s after", took.as_secs_f64());
    // The kernel counts, whatever the machine is busy with: 4 s from the last renewal on, and up to 0.5 s.
    assert!(took <= Duration::from_secs(5), "{took:?}");
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 runs again");
    pair.end();
}

/// Nobody dies, and nobody renews: stopped for longer than the floating IPs live.
#[test]
fn both_stopped() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    pair.signal(&gw1, Signal::SIGSTOP);
    pair.is_master(&gw2, "gw1 is stopped");
    eventually("the kernel removes the floating IPs", || holds(&pair, &gw1));
    pair.signal(&gw1, Signal::SIGCONT);
    pair.settled_on(&gw2, "gw1 goes on");
    pair.end();
}

/// Holds one thread of a process, by its name, for six seconds.
const HOLD_THREAD: &str = "import ctypes, glob, os, sys, time
for comm in glob.glob(f'/proc/{sys.argv[1]}/task/*/comm'):
    if open(comm).read() == 'gateway\\n':
        thread = int(comm.split('/')[4])
PTRACE_ATTACH, WALL = 16, 0x40000000
if ctypes.CDLL(None).ptrace(PTRACE_ATTACH, thread, 0, 0): sys.exit('ptrace')
os.waitpid(thread, WALL)
time.sleep(6)
";

/// The reconciler hangs, and nothing else: what it does not renew is lost, and that is a fault.
#[test]
fn lost_while_master() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let worker = worker(&mut pair, &gw1).to_string();
    let status = Command::new("python3").args(["-c", HOLD_THREAD, &worker]).status();
    assert!(status.expect("install python3").success(), "the thread could not be held");
    pair.is_master(&gw2, "gw1 lost its floating IPs");
    let events = pair.wgha(&gw1, &["events", "--json"]);
    let lost = events.lines().find(|line| line.contains("was not renewed in time")).expect("why");
    assert!(lost.contains("\"to\":\"fault\""), "{lost}");
    pair.settled_on(&gw2, "gw1 goes on");
    pair.end();
}

/// Without the dead man's switch they stand until somebody takes them off.
#[test]
fn dead_man_off() {
    let mut pair = Pair::unsettled(network(Lab::builder().cluster(options())));
    for number in [1, 2] {
        let node = pair.gateway(number);
        let path = etc(&node).join("wgha.toml");
        let text = fs::read_to_string(&path).expect("a config");
        let text = text.replace("[cluster]\n", "[cluster]\ndead_man = \"off\"\n");
        fs::write(&path, text).expect("a config");
        pair.wgha(&node, &["reload"]);
    }
    pair.settled("dead_man is off");
    pair.lead(&pair.gateway(1));
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let shown = run(&gw1, "ip -o addr show to 203.0.113.100");
    assert!(shown.contains("valid_lft forever"), "{shown}");
    pair.kill(&gw1);
    pair.is_master(&gw2, "gw1 was killed");
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(holds(&pair, &gw1).len(), 4);
    pair.wgha(&gw1, &["release"]);
    pair.settled_on(&gw2, "gw1 was killed and released");
    pair.end();
}

#[test]
fn worker_hangs() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let hung = worker(&mut pair, &gw1);
    kill(hung, Signal::SIGSTOP).expect("a stop");
    pair.is_master(&gw2, "the worker of gw1 hangs");
    assert_eq!(guard_ended(&mut pair, &gw1), Some(9), "its guard killed it");
    let log = pair.cluster.process("gw1").log();
    assert!(log.contains("the worker makes no progress"), "{log}");
    clean(&pair, &gw1, "the worker hung");
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 runs again");
    // A guard that is stopped as well does not take its own sleep for the worker's.
    let (guard, worker) = (pair.cluster.process("gw2").pid(), worker(&mut pair, &gw2));
    pair.signal(&gw2, Signal::SIGSTOP);
    pair.is_master(&gw1, "gw2 sleeps");
    std::thread::sleep(Duration::from_secs(3));
    pair.signal(&gw2, Signal::SIGCONT);
    pair.settled_on(&gw1, "gw2 woke up");
    assert_eq!(pair.cluster.process("gw2").pid(), guard);
    assert_eq!(pair.cluster.process("gw2").worker().expect("the same worker"), worker);
    pair.end();
}

/// A hook that leaves its id and that of a child in its group, and of one in a session of its own.
const HOOK: &str =
    "#!/bin/sh\nsleep 1000 &\necho $$ $! >/var/lib/wgha/hook.pids\nsetsid sleep 1001 &\nwait\n";

#[test]
fn hooks_die_with_the_worker() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    fs::write(etc(&gw1).join("notify.sh"), HOOK).expect("a hook");
    pair.hand_over(&gw1, &gw2);
    let path = gw1.dir().join("state/hook.pids");
    eventually("the hook runs", || match fs::read_to_string(&path) {
        Ok(text) if text.ends_with('\n') => Vec::new(),
        other => vec![format!("{other:?}")],
    });
    let text = fs::read_to_string(&path).expect("ids");
    let pids: Vec<Pid> =
        text.split_whitespace().map(|p| Pid::from_raw(p.parse().expect("an id"))).collect();
    assert!(pids.len() == 2 && pids.iter().all(|pid| lives(*pid)), "{text}");
    kill(worker(&mut pair, &gw1), Signal::SIGKILL).expect("a kill");
    assert_eq!(guard_ended(&mut pair, &gw1), Some(9));
    assert!(!pids.iter().any(|pid| lives(*pid)), "the hook or its child lives");
    assert!(leaves_the_session(pair.lab.dir()), "what left the session on purpose was killed");
    pair.settled_on(&gw2, "gw1 is gone");
}

fn leaves_the_session(lab: &Path) -> bool {
    let pids = netns_lab::processes_of(lab).expect("processes");
    let line = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.iter().any(|pid| line(pid) == [&b"sleep\0"[..], b"1001\0"].concat())
}

/// Somebody has the state directory, so the guard cannot know what there is to take off: then it says nothing.
#[test]
fn what_is_not_verified_is_not_said() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    // It waits for the lock, which the worker holds, and has it when that dies.
    let lock = "/var/lib/wgha/wgha/lock";
    let holder = Spec::new(["flock", "--no-fork", lock, "sleep", "1000"]);
    let mut holder = gw1.spawn(holder).expect("flock");
    let waits =
        |line: &str| line.contains("-> FLOCK") && line.contains(&format!(" {} ", holder.pid()));
    eventually("flock waits", || {
        let locks = fs::read_to_string("/proc/locks").expect("the kernel's locks");
        if locks.lines().any(waits) { Vec::new() } else { vec![locks] }
    });
    kill(worker(&mut pair, &gw1), Signal::SIGKILL).expect("a kill");
    pair.says(&gw2, "master", "master gw1 is silent");
    assert_eq!(guard_ended(&mut pair, &gw1), Some(9));
    let log = pair.cluster.process("gw1").log();
    assert!(log.contains("so nobody is told"), "{log}");
    holder.kill().expect("the end of flock");
    pair.wgha(&gw1, &["release"]);
    pair.settled_on(&gw2, "released by hand");
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 runs again");
    pair.end();
}

/// A record that cannot be read is not the record of a machine that has nothing: all that the config names is taken off.
#[test]
fn record_damaged() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let record = gw1.dir().join("state/wgha/applied.json");
    let nothing_left = |pair: &Pair, when: &str| {
        // Whose reservation of the port it is cannot be known.
        let port = topology::endpoint(false).port().to_string();
        let left: Vec<_> = audit::network_of(&gw1).into_iter().filter(|l| *l != port).collect();
        assert_eq!(&left, pair.before(&gw1), "{when}");
        assert!(!audit::wg0_up(&gw1), "{when}: wg0 is up");
    };
    fs::write(&record, "{").expect("a damaged record");
    kill(worker(&mut pair, &gw1), Signal::SIGKILL).expect("a kill");
    pair.says(&gw2, "master", "master gw1 died");
    assert_eq!(guard_ended(&mut pair, &gw1), Some(9));
    let log = pair.cluster.process("gw1").log();
    assert!(log.contains("everything that the config names counts as put up"), "{log}");
    nothing_left(&pair, "the guard");
    // The same by hand, when the guard is dead as well.
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 runs again");
    pair.hand_over(&gw2, &gw1);
    pair.settled_on(&gw1, "gw1 is master");
    fs::write(&record, "{").expect("a damaged record");
    pair.kill(&gw1);
    pair.wgha(&gw1, &["release"]);
    nothing_left(&pair, "wgha release");
    pair.settled_on(&gw2, "gw1 was killed and released");
    run(&gw1, "echo > /proc/sys/net/ipv4/ip_local_reserved_ports");
    pair.end();
}
