//! What the programs of a dead worker left running.
//!
//! This process is their reaper, so all of them become its children; until the kernel is done with the worker they are that one's. A hook and what it started
//! share a process group in the session of the worker, which is this one's. What left the session on
//! purpose (`setsid`) is a daemon that somebody wanted; under systemd it goes with the unit.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpgid, getpgrp, getsid};

/// Each round takes those that the last one orphaned; the kernel needs a moment for each.
const ROUNDS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(1);

/// Kills every process group of hooks and scripts. Returns how many.
pub(super) fn kill_groups(worker: Pid) -> usize {
    let mut killed = Vec::new();
    for _ in 0..ROUNDS {
        reap(worker);
        let groups = groups(worker);
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

/// All but the worker, whose end is to be passed on.
fn reap(worker: Pid) {
    for child in children().into_iter().filter(|child| *child != worker) {
        // It may run.
        let _ = waitpid(child, Some(WaitPidFlag::WNOHANG));
    }
}

/// The groups of the worker's children and this process's, in its session, but for its own.
fn groups(worker: Pid) -> Vec<Pid> {
    let (Ok(session), own) = (getsid(None), getpgrp()) else { return Vec::new() };
    // In this order: they go from the one to the other.
    let mut all = children_of(worker);
    all.extend(children());
    let mut groups: Vec<Pid> = all
        .into_iter()
        .filter(|child| getsid(Some(*child)) == Ok(session) && !is_zombie(*child))
        .filter_map(|child| getpgid(Some(child)).ok())
        .filter(|group| *group != own)
        .collect();
    groups.sort_unstable_by_key(|group| group.as_raw());
    groups.dedup();
    groups
}

fn children() -> Vec<Pid> {
    children_of(Pid::this())
}

fn children_of(process: Pid) -> Vec<Pid> {
    // One list for each thread.
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists: Result<Vec<String>, _> =
        threads.map(|thread| fs::read_to_string(thread.path().join("children"))).collect();
    match lists {
        Ok(lists) => {
            lists.iter().flat_map(|list| list.split_whitespace().filter_map(pid)).collect()
        }
        // A thread that is gone, or a kernel without CONFIG_PROC_CHILDREN.
        Err(_) => children_by_parent(process),
    }
}

fn children_by_parent(process: Pid) -> Vec<Pid> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| pid(entry.file_name().to_str()?));
    pids.filter(|one| field(*one, 1).and_then(|parent| pid(&parent)) == Some(process)).collect()
}

fn is_zombie(process: Pid) -> bool {
    field(process, 0).is_none_or(|state| state == "Z")
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
    use super::*;

    #[test]
    fn both_ways_to_find_children_agree() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let wanted = pid(&child.id().to_string()).unwrap();
        // Other tests have children, too.
        assert!(children_by_parent(Pid::this()).contains(&wanted));
        assert!(children().contains(&wanted));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
