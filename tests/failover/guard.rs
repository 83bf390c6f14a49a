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
use crate::pair::{BOUND, Pair, detection, eventually, heartbeat, network, options};

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

/// The worker of gw1, the backup, dies, and all is well again. Returns how long until gw2 knew.
fn backup_dies(pair: &mut Pair) -> Duration {
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    let hit = worker(pair, &gw1);
    let killed = Instant::now();
    kill(hit, Signal::SIGABRT).expect("a kill");
    eventually("gw2 knows it", || {
        let status = pair.status(&gw2);
        let alive = &status["nodes"][0]["alive"];
        if alive == false { Vec::new() } else { vec![format!("gw1 is alive: {alive}")] }
    });
    let known = killed.elapsed();
    assert_eq!(guard_ended(pair, &gw1), Some(6));
    clean(pair, &gw1, "the worker of the backup was killed");
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "the backup runs again");
    known
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
    let changes = pair.changes_of(&[&gw2]);
    // Sooner than silence tells. A machine that stands still looks later than that, so there is more than one try.
    assert!((0..5).any(|_| backup_dies(&mut pair) < detection() - heartbeat()), "without waiting");
    pair.none_changed(&[&gw2], changes, "the master changed its role");
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

/// For how long the kernel lets each floating IP live that the node has ("4sec", "forever").
fn lifetimes(pair: &Pair, node: &Node) -> Vec<String> {
    let shown = run(node, "ip -o addr");
    let floating = pair.lab.floating_ips();
    shown
        .lines()
        .filter(|line| floating.iter().any(|(address, _)| line.contains(&format!(" {address} "))))
        .filter_map(|line| line.split_whitespace().skip_while(|word| *word != "valid_lft").nth(1))
        .map(String::from)
        .collect()
}

#[test]
fn both_killed() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    // Each of the four ends soon by itself, while all is well; and nothing that dies makes it last longer.
    let short = |pair: &Pair| {
        let lifetimes = lifetimes(pair, &gw1);
        let allowed = ["0sec", "1sec", "2sec", "3sec", "4sec"];
        assert!(lifetimes.iter().all(|left| allowed.contains(&left.as_str())), "{lifetimes:?}");
        lifetimes.len()
    };
    assert_eq!(short(&pair), 4);
    // The whole process group.
    let killed = Instant::now();
    pair.kill(&gw1);
    short(&pair);
    pair.says(&gw2, "master", "master gw1 is silent");
    eventually("the kernel removes the floating IPs", || holds(&pair, &gw1));
    println!("the dead man's addresses were gone {:.1} s after", killed.elapsed().as_secs_f64());
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
    eventually("the event says why", || {
        let events = pair.wgha(&gw1, &["events", "--json"]);
        let why = |l: &str| l.contains("was not renewed in time") && l.contains("\"to\":\"fault\"");
        if events.lines().any(why) { Vec::new() } else { vec![events] }
    });
    pair.settled_on(&gw2, "gw1 goes on");
    pair.end();
}

/// Without the dead man's switch they stand until somebody takes them off.
#[test]
fn dead_man_off() {
    let mut pair = Pair::unsettled(network(Lab::builder().cluster(options())));
    for number in [1, 2] {
        let node = pair.gateway(number);
        // It reads its config before that.
        pair.status(&node);
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

/// Waits for the hook, and for its child.
fn hook_pids(node: &Node) -> Vec<Pid> {
    let path = node.dir().join("state/hook.pids");
    eventually("the hook runs", || match fs::read_to_string(&path) {
        Ok(text) if text.ends_with('\n') => Vec::new(),
        other => vec![format!("{other:?}")],
    });
    let text = fs::read_to_string(&path).expect("ids");
    let pids: Vec<Pid> =
        text.split_whitespace().map(|p| Pid::from_raw(p.parse().expect("an id"))).collect();
    assert!(pids.len() == 2 && pids.iter().all(|pid| lives(*pid)), "{text}");
    pids
}

#[test]
fn hooks_die_with_the_worker() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    fs::write(etc(&gw1).join("notify.sh"), HOOK).expect("a hook");
    pair.hand_over(&gw1, &gw2);
    let pids = hook_pids(&gw1);
    eventually("one leaves the session", || {
        let left = leaves_the_session(pair.lab.dir());
        if left { Vec::new() } else { vec!["not yet".into()] }
    });
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

/// Somebody has the state directory: the guard knows nevertheless what acts, and says that nothing does. The rest waits for `wgha release`.
#[test]
fn state_dir_locked() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    // It waits for the lock, which the worker holds, and has it when that dies: before the guard looks, which is stopped.
    let lock = "/var/lib/wgha/wgha/lock";
    let holder = Spec::new(["flock", "--no-fork", lock, "sleep", "1000"]);
    let mut holder = gw1.spawn(holder).expect("flock");
    let locks = |state: &str| {
        let locks = fs::read_to_string("/proc/locks").expect("the kernel's locks");
        let of_holder = format!(" {} ", holder.pid());
        if locks.lines().any(|l| l.contains(state) && l.contains(&of_holder)) {
            Vec::new()
        } else {
            vec![locks]
        }
    };
    eventually("flock waits", || locks("-> FLOCK"));
    pair.cluster.process("gw1").signal_alone(Signal::SIGSTOP).expect("a stop");
    kill(worker(&mut pair, &gw1), Signal::SIGKILL).expect("a kill");
    eventually("flock has the lock", || locks(": FLOCK"));
    pair.cluster.process("gw1").signal_alone(Signal::SIGCONT).expect("it goes on");
    pair.says(&gw2, "master", "master gw1 died");
    assert_eq!(guard_ended(&mut pair, &gw1), Some(9));
    silent(&pair, &gw1, "the guard");
    let log = pair.cluster.process("gw1").log();
    assert!(log.contains("is to take off the rest") && log.contains("is in use by"), "{log}");
    holder.kill().expect("the end of flock");
    pair.wgha(&gw1, &["release"]);
    pair.settled_on(&gw2, "released by hand");
    pair.start_on(&gw1);
    pair.settled_on(&gw2, "gw1 runs again");
    pair.end();
}

/// The disk of a node's state directory is gone, or back.
fn lose_state(node: &Node, lost: bool) {
    let (place, aside) = (node.dir().join("state/wgha"), node.dir().join("state/aside"));
    if lost {
        fs::rename(&place, aside).expect("the directory");
        fs::write(place, "").expect("a file in its place");
    } else {
        fs::remove_file(&place).expect("the file");
        fs::rename(aside, place).expect("the directory");
    }
}

/// Nothing acts: what may still be there is the gate, shut, and the reservation of the port, which are on record alone.
fn silent(pair: &Pair, node: &Node, when: &str) {
    let port = topology::endpoint(false).port().to_string();
    let (before, now) = (pair.before(node), network_of(node));
    let by_record = |l: &str| l == port || l.starts_with("table ");
    let left: Vec<_> = now.iter().filter(|l| !before.contains(l) && !by_record(l)).collect();
    let gone: Vec<_> = before.iter().filter(|l| !now.contains(l)).collect();
    assert!(left.is_empty() && gone.is_empty(), "{when}: left {left:?}, taken along {gone:?}");
    assert!(!audit::wg0_up(node), "{when}: wg0 is up");
    let rules = run(node, "nft list ruleset");
    assert!(!rules.contains("elements"), "{when}: the gate is open: {rules}");
}

/// What acts is taken off by what the config names. What else may be on record is not known, so nobody is told.
#[test]
fn state_dir_lost() {
    let mut pair = Pair::start();
    let (gw1, gw2) = (pair.gateway(1), pair.gateway(2));
    fs::write(etc(&gw2).join("notify.sh"), HOOK).expect("a hook");
    pair.hand_over(&gw1, &gw2);
    let pids = hook_pids(&gw2);
    eventually("gw2 acts", || {
        let held = holds(&pair, &gw2);
        if held.len() == 4 { Vec::new() } else { held }
    });
    lose_state(&gw2, true);
    kill(worker(&mut pair, &gw2), Signal::SIGKILL).expect("a kill");
    assert_eq!(guard_ended(&mut pair, &gw2), Some(9));
    silent(&pair, &gw2, "the guard");
    assert!(!pids.iter().any(|pid| lives(*pid)), "the hook or its child lives");
    let log = pair.cluster.process("gw2").log();
    assert!(log.contains("so nobody is told"), "{log}");
    pair.says(&gw1, "master", "master gw2 is silent");
    // The same by hand, when the guard is dead as well.
    lose_state(&gw1, true);
    let refused = pair.refused(&gw1, &["release"]);
    assert!(refused.contains("the daemon runs"), "{refused}");
    pair.kill(&gw1);
    let said = pair.refused(&gw1, &["release"]);
    assert!(said.contains("only what the config names was taken off"), "{said}");
    silent(&pair, &gw1, "wgha release");
    lose_state(&gw1, false);
    lose_state(&gw2, false);
    pair.wgha(&gw1, &["release"]);
    pair.wgha(&gw2, &["release"]);
    clean(&pair, &gw1, "released");
    clean(&pair, &gw2, "released");
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
