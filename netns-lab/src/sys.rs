//! The two things that must happen between `fork` and `exec`, what a packet socket lost, and the clocks.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime, clock_settime};

/// Makes the kernel kill the child when the thread that starts it ends.
#[allow(unsafe_code)]
pub(crate) fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure makes one system call and allocates nothing, so it is safe after fork.
    unsafe {
        command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?));
    }
}

/// Gives the child a user, network and mount namespace in which the caller's user is root.
#[allow(unsafe_code)]
pub(crate) fn in_user_namespace(command: &mut Command) {
    let uid_map = format!("0 {} 1\n", nix::unistd::geteuid());
    let gid_map = format!("0 {} 1\n", nix::unistd::getegid());
    let write = |path: &str, text: &str| -> io::Result<()> {
        OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
    };
    // SAFETY: the child is single-threaded; unshare and short writes from strings made before
    // fork (paths fit the stack buffer of `open`, nothing is allocated).
    unsafe {
        command.pre_exec(move || {
            let all =
                CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
            unshare(all)?;
            write("/proc/self/setgroups", "deny")?;
            write("/proc/self/uid_map", &uid_map)?;
            write("/proc/self/gid_map", &gid_map)
        });
    }
}

/// Frames that a packet socket had no room for since it was opened, or since the last call.
///
/// # Errors
/// When it is no packet socket.
#[allow(unsafe_code)]
pub(crate) fn packets_dropped(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = libc::socklen_t::try_from(size_of_val(&stats)).map_err(io::Error::other)?;
    let (level, option) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
    // SAFETY: the descriptor is open while it is borrowed; the kernel writes at most `length` bytes, the size of
    // `stats`, which like `length` outlives the call.
    let failed = unsafe {
        let value = (&raw mut stats).cast();
        libc::getsockopt(socket.as_raw_fd(), level, option, value, &raw mut length)
    };
    if failed == 0 { Ok(stats.tp_drops) } else { Err(io::Error::last_os_error()) }
}

fn nanoseconds(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |t| {
        u64::try_from(t.tv_sec()).unwrap_or(0) * 1_000_000_000
            + u64::try_from(t.tv_nsec()).unwrap_or(0)
    })
}

/// CLOCK_REALTIME in nanoseconds: the clock of logs, events and packet time stamps.
pub fn realtime_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_REALTIME)
}

/// CLOCK_MONOTONIC in nanoseconds: the clock of the prober's schedule.
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// Time on a processor of the calling thread, in nanoseconds.
pub(crate) fn thread_cpu_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// Written by netns-lab/vm/run into its machine, and nowhere else.
const KERNEL_LAB: &str = "/vm/deadline";

/// CLOCK_REALTIME set back, for all namespaces: they share it. Dropping this puts it right again.
pub struct ClockStep(Duration);

impl ClockStep {
    /// Sets the clock back.
    ///
    /// # Errors
    /// Outside the kernel lab, where the clock is not ours; or when the kernel refuses.
    pub fn back(by: Duration) -> Result<ClockStep> {
        ensure!(Path::new(KERNEL_LAB).exists(), "only in the kernel lab: run tests/kernel-lab");
        let now = Duration::from(clock_gettime(ClockId::CLOCK_REALTIME)?);
        set_realtime(now.checked_sub(by).context("before 1970")?)?;
        Ok(ClockStep(by))
    }
}

impl Drop for ClockStep {
    fn drop(&mut self) {
        if let Ok(now) = clock_gettime(ClockId::CLOCK_REALTIME) {
            let _ = set_realtime(Duration::from(now) + self.0);
        }
    }
}

fn set_realtime(since_1970: Duration) -> Result<()> {
    clock_settime(ClockId::CLOCK_REALTIME, since_1970.into()).context("setting the clock")
}
