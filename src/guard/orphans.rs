//! What the programs of a dead worker left running.
//!
//! This process is their reaper, so all of them have become its children. A hook and what it started
//! share a process group in the session of the worker, which is this one's. What left the session on
//! purpose (`setsid`) is a daemon that somebody wanted; under systemd it goes with the unit.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgid, getpgrp, getsid};

/// Each round takes those that the last one orphaned; the kernel needs a moment for each.
const ROUNDS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(1);

/// Kills every process group of hooks and scripts. Returns how many.
pub(super) fn kill_groups() -> usize {
    let mut killed = Vec::new();
    for _ in 0..ROUNDS {
        reap();
        let groups = groups();
        if groups.is_empty() {
            break;
        }
        for group in groups {
            // One that is gone meanwhile is what was wanted.
            let _ = killpg(group, Signal::SIGKILL);
            if !killed.contains(&group) {
                killed.push(group);
            }
        }
        sleep(PAUSE);
    }
    killed.len()
}

fn reap() {
    let any = || waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG));
    while !matches!(any(), Ok(WaitStatus::StillAlive) | Err(_)) {}
}

/// The groups of this process's children, in its session, but for its own.
fn groups() -> Vec<Pid> {
    let (Ok(session), own) = (getsid(None), getpgrp()) else { return Vec::new() };
    let mut groups: Vec<Pid> = children()
        .into_iter()
        .filter(|child| getsid(Some(*child)) == Ok(session))
        .filter_map(|child| getpgid(Some(child)).ok())
        .filter(|group| *group != own)
        .collect();
    groups.sort_unstable_by_key(|group| group.as_raw());
    groups.dedup();
    groups
}

fn children() -> Vec<Pid> {
    // One thread, so one list.
    match fs::read_to_string("/proc/thread-self/children") {
        Ok(list) => list.split_whitespace().filter_map(pid).collect(),
        // A kernel without CONFIG_PROC_CHILDREN.
        Err(_) => children_by_parent(),
    }
}

fn children_by_parent() -> Vec<Pid> {
    let me = Pid::this();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| pid(entry.file_name().to_str()?));
    pids.filter(|one| parent(*one) == Some(me)).collect()
}

fn parent(of: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{of}/stat")).ok()?;
    // The name may hold spaces and brackets; after it come the state and the parent (proc(5)).
    pid(stat.rsplit(") ").next()?.split(' ').nth(1)?)
}

fn pid(text: &str) -> Option<Pid> {
    text.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_find_children_agree() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let wanted = pid(&child.id().to_string()).unwrap();
        // Other tests have children, too.
        assert!(children_by_parent().contains(&wanted));
        let list = fs::read_to_string("/proc/thread-self/children");
        assert!(list.is_err() || children().contains(&wanted));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
