//! Clocks that can be set, one for each member: daemons run under libfaketime, as the machine's own clock belongs to everything that
//! runs on it. Only the time of day is faked. The kernel counts its own timeouts by another clock, so what a step could
//! reach is in the daemons.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netns_lab::{Cluster, Node, parse_rfc3339};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a clock may differ by and still be right, in seconds: far more than a log takes, far less than a step.
const RIGHT: f64 = 60.0;
/// How long a daemon may take to notice.
const SEEN: Duration = Duration::from_secs(60);

/// The library, as Debian has it.
fn library() -> Result<PathBuf> {
    let places = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let file = |place| PathBuf::from(format!("/usr/lib/{place}/faketime/libfaketimeMT.so.1"));
    let found = places.map(file).into_iter().find(|path| path.exists());
    found.context("libfaketime is missing: apt-get install faketime")
}

fn file(dir: &Path, member: &str) -> PathBuf {
    dir.join(format!("clock-{member}"))
}

/// A program in `dir` that is `wgha`, but that each daemon's time of day is what [`set`] says of its member.
///
/// # Errors
/// When libfaketime is missing, or the program cannot be written.
pub(super) fn program(dir: &Path, wgha: &Path) -> Result<PathBuf> {
    let script = format!(
        "#!/bin/sh\n\
         for last; do :; done\n\
         [ \"$1\" != run ] || export LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_CACHE_DURATION=1 \
         FAKETIME_DONT_FAKE_MONOTONIC=1\n\
         exec {} \"$@\"\n",
        library()?.display(),
        file(dir, "$last").display(),
        wgha.display()
    );
    let path = dir.join("wgha-with-clock");
    std::fs::write(&path, script)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// From now on, and for daemons that start later, the time of day on this member is the machine's and so many seconds.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn set(dir: &Path, member: &str, seconds: i32) -> Result<()> {
    // Never half a file.
    let (path, new) = (file(dir, member), dir.join("clock.new"));
    std::fs::write(&new, format!("{seconds:+}\n"))?;
    std::fs::rename(new, path).context("setting a clock")
}

/// How far a daemon's time of day is ahead of the machine's, in seconds, as its log shows: its own time beside the lab's. A hangup
/// makes it say something. Others cannot tell: of a clock they hear what stamps handshakes, and a master's does not follow a step.
fn ahead(cluster: &mut Cluster, node: &Node) -> Option<f64> {
    let process = cluster.process(node.name());
    kill(process.worker().ok()?, Signal::SIGHUP).ok()?;
    process.log().lines().rfind(|line| line.ends_with(" reloaded")).and_then(difference)
}

/// Of a line that begins with the lab's seconds since 1970 and the daemon's RFC 3339.
fn difference(line: &str) -> Option<f64> {
    let mut words = line.split_whitespace();
    let (machine, own) = (words.next()?.parse::<f64>().ok()?, parse_rfc3339(words.next()?)?);
    Some(Duration::from_nanos(own).as_secs_f64() - machine)
}

/// What a daemon's time of day is instead of the machine's and so many seconds, in words; `None` if it is that.
pub(super) fn wrong(cluster: &mut Cluster, node: &Node, seconds: i32) -> Option<String> {
    let ahead = ahead(cluster, node);
    let right = ahead.is_some_and(|ahead| (ahead - f64::from(seconds)).abs() < RIGHT);
    (!right).then(|| format!("{}: its clock is {ahead:?} s ahead, not {seconds}", node.name()))
}

/// Waits until the daemon has noticed: a library that did nothing would pass as a daemon that bears everything.
///
/// # Errors
/// When it does not in time.
pub(super) fn wait(cluster: &mut Cluster, node: &Node, seconds: i32) -> Result<()> {
    let end = Instant::now() + SEEN;
    while let Some(wrong) = wrong(cluster, node, seconds) {
        ensure!(Instant::now() < end, "no step: {wrong}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Removes what libfaketime leaves of a process that is killed.
pub(super) fn clean() {
    let Ok(entries) = std::fs::read_dir("/dev/shm") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| {
            let faked =
                name.strip_prefix("faketime_shm_").or(name.strip_prefix("sem.faketime_sem_"));
            faked?.parse().ok()
        });
        if pid.is_some_and(|pid| kill(Pid::from_raw(pid), None).is_err()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_log_shows_two_clocks() {
        let line = "1795305600.500000 2026-11-22T01:00:00.500000Z  INFO reloaded";
        assert_eq!(super::difference(line), Some(3600.0));
        assert_eq!(super::difference("1795305600.5 INFO reloaded"), None);
    }
}
