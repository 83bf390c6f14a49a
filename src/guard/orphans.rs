//! What the programs of a dead worker left running.
//!
//! This process is their reaper, so all of them become its children; until the kernel is done with the worker they are that one's. A hook and what it started
//! share a process group in the session of the worker, which is this one's. What left the session on
//! purpose (`setsid`) is a daemon that somebody wanted; under systemd it goes with the unit.

use std::fs;
use std::io;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpgid, getpgrp, getsid};

/// Each round takes those that the last one orphaned; the kernel needs a moment for each.
const ROUNDS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(1);

/// The process groups of hooks and scripts that a worker left.
pub(super) struct Orphans {
    worker: Pid,
    killed: Vec<Pid>,
}

impl Orphans {
    pub(super) fn of(worker: Pid) -> Orphans {
        Orphans { worker, killed: Vec::new() }
    }

    /// Kills all of them, and waits for their end. Returns what still runs after that, in words: it may not be killed, or waits
    /// for a disk; or that it cannot be known.
    pub(super) fn kill(&mut self) -> Vec<String> {
        let mut left = Ok(Vec::new());
        for _ in 0..ROUNDS {
            left = self.strike();
            if !matches!(left.as_deref(), Ok([_, ..])) {
                break;
            }
            sleep(PAUSE);
        }
        match left {
            Ok(groups) => groups.iter().map(|g| format!("process group {g}")).collect(),
            Err(e) => vec![format!("what the worker started: {e}")],
        }
    }

    /// Kills all that run, and waits for nothing. True if none does, which is certain.
    pub(super) fn none(&mut self) -> bool {
        self.strike().is_ok_and(|groups| groups.is_empty())
    }

    /// Returns what ran.
    fn strike(&mut self) -> io::Result<Vec<Pid>> {
        reap(self.worker);
        let groups = groups(self.worker)?;
        for group in &groups {
            // One that is gone meanwhile is what was wanted.
            let _ = killpg(*group, Signal::SIGKILL);
            if !self.killed.contains(group) {
                self.killed.push(*group);
            }
        }
        Ok(groups)
    }

    /// How many were killed.
    pub(super) fn killed(&self) -> usize {
        self.killed.len()
    }
}

/// All but the worker, whose end is to be passed on.
fn reap(worker: Pid) {
    for child in children().unwrap_or_default().into_iter().filter(|child| *child != worker) {
        // It may run.
        let _ = waitpid(child, Some(WaitPidFlag::WNOHANG));
    }
}

/// The groups of the worker's children and this process's, in its session, but for its own.
fn groups(worker: Pid) -> io::Result<Vec<Pid>> {
    let (session, own) = (getsid(None)?, getpgrp());
    // In this order: they go from the one to the other.
    let mut all = children_of(worker)?;
    all.extend(children()?);
    let mut groups: Vec<Pid> = all
        .into_iter()
        .filter(|child| *child != worker)
        .filter(|child| getsid(Some(*child)) == Ok(session) && !is_dead(*child))
        .filter_map(|child| getpgid(Some(child)).ok())
        .filter(|group| *group != own)
        .collect();
    groups.sort_unstable_by_key(|group| group.as_raw());
    groups.dedup();
    Ok(groups)
}

fn children() -> io::Result<Vec<Pid>> {
    children_of(Pid::this())
}

fn children_of(process: Pid) -> io::Result<Vec<Pid>> {
    // One list for each thread.
    let threads = match fs::read_dir(format!("/proc/{process}/task")) {
        // It is gone, and its children are this process's. This one is there, or nothing can be seen.
        Err(e) if e.kind() == io::ErrorKind::NotFound && process != Pid::this() => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    let list = |thread: io::Result<fs::DirEntry>| {
        thread.and_then(|thread| fs::read_to_string(thread.path().join("children")))
    };
    match threads.map(list).collect::<Result<Vec<String>, _>>() {
        Ok(lists) => {
            Ok(lists.iter().flat_map(|list| list.split_whitespace().filter_map(pid)).collect())
        }
        // A thread that is gone, or a kernel without CONFIG_PROC_CHILDREN.
        Err(_) => children_by_parent(process),
    }
}

fn children_by_parent(process: Pid) -> io::Result<Vec<Pid>> {
    let all = fs::read_dir("/proc")?.flatten();
    let pids = all.filter_map(|entry| pid(entry.file_name().to_str()?));
    let child = |one: &Pid| field(*one, 1).and_then(|parent| pid(&parent)) == Some(process);
    Ok(pids.filter(child).collect())
}

/// Whether nothing of a process runs any more. One that is there and cannot be looked at is alive.
fn is_dead(process: Pid) -> bool {
    match field(process, 0) {
        // The leader's end says nothing of other threads, which are counted in field 20 with it.
        Some(state) => matches!(state.as_str(), "Z" | "X") && threads(process) <= 1,
        None => kill(process, None) == Err(Errno::ESRCH),
    }
}

fn threads(process: Pid) -> u32 {
    field(process, 17).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// A field of proc(5)'s `stat`, from the state on, which is field 3 there.
fn field(of: Pid, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{of}/stat")).ok()?;
    // The name before it may hold spaces and brackets.
    stat.rsplit(") ").next()?.split(' ').nth(number).map(str::to_owned)
}

fn pid(text: &str) -> Option<Pid> {
    text.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A hook that anybody may trace, and what holds it when it is about to die (`PTRACE_SEIZE`, `PTRACE_O_TRACEEXIT`).
    const HOOK: &str = "import ctypes, time
ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(-1))
print(end='.', flush=True)
time.sleep(1000)";
    const HOLDER: &str = "import ctypes, sys
trace = ctypes.CDLL(None).ptrace
trace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
if trace(0x4206, int(sys.argv[1]), None, 0x40): sys.exit('ptrace')
print(end='.', flush=True)
sys.stdin.read()";

    fn python(command: &mut Command) -> Child {
        use std::io::Read as _;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // It says when it is ready.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        child
    }

    /// Like one that waits for a disk. In a process of its own: it kills what other tests have started.
    #[test]
    fn what_does_not_end_is_told() {
        const TEST: &str = "guard::orphans::tests::what_does_not_end_is_told";
        const INSIDE: &str = "WGHA_TEST_ORPHANS";
        if std::env::var_os(INSIDE).is_none() {
            let mut inside = Command::new(std::env::current_exe().unwrap());
            inside.args(["--exact", TEST, "--nocapture"]).env(INSIDE, "1");
            let output = inside.output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
            return;
        }
        let mut hook = python(Command::new("python3").args(["-c", HOOK]).process_group(0));
        let group = hook.id().to_string();
        // In a session of its own, so it is no hook.
        let mut setsid = Command::new("setsid");
        let mut holder = python(setsid.args(["python3", "-c", HOLDER, &group]));
        // A worker that is gone.
        let mut orphans = Orphans::of(Pid::from_raw(i32::MAX));
        assert_eq!(orphans.kill(), [format!("process group {group}")]);
        drop(holder.stdin.take());
        assert_eq!(orphans.kill(), Vec::<String>::new());
        assert_eq!(orphans.killed(), 1);
        // They may have been reaped.
        let _ = (hook.wait(), holder.wait());
    }

    #[test]
    fn both_ways_to_find_children_agree() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let wanted = pid(&child.id().to_string()).unwrap();
        // Other tests have children, too.
        assert!(children_by_parent(Pid::this()).unwrap().contains(&wanted));
        assert!(children().unwrap().contains(&wanted));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
