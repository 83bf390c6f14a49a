//! The calls of the guard that have no safe wrapper, and how it ends.

use std::fs;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::wait::WaitStatus;
use nix::unistd::{ForkResult, Pid};

/// Forks this process, which has one thread.
#[allow(unsafe_code)]
pub(super) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: there is no other thread that could hold a lock or change memory meanwhile; main calls this
    // before anything starts one.
    unsafe { nix::unistd::fork() }
}

/// A descriptor of a process that is readable when the process is dead. Close-on-exec.
#[allow(unsafe_code)]
pub(super) fn pidfd(process: Pid) -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers and touches no memory; the descriptor that it returns is nobody else's.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: open, and owned by nobody yet.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether nothing of a process's code runs any more, and nothing will: each of its threads is on its way out, in the kernel.
pub(super) fn is_exiting(process: Pid) -> bool {
    // `PF_EXITING` of the kernel's flags, field 9 of proc(5); the state is field 3.
    const EXITING: u32 = 4;
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return false };
    let exits = |thread: fs::DirEntry| match fs::read_to_string(thread.path().join("stat")) {
        Ok(stat) => {
            let fields = stat.rsplit(") ").next();
            let flags = fields.and_then(|f| f.split(' ').nth(6)?.parse::<u32>().ok());
            flags.is_some_and(|flags| flags & EXITING != 0)
        }
        // Gone meanwhile.
        Err(_) => true,
    };
    threads.flatten().all(exits)
}

/// Waits until the process of this descriptor is dead.
pub(super) fn wait_death(pidfd: &OwnedFd) {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    while !matches!(poll(&mut fds, PollTimeout::NONE), Ok(ready) if ready > 0) {}
}

/// Ends as the worker ended, so that whoever started `wgha run` sees its end: a signal that killed it
/// kills the caller as well.
pub(super) fn pass_on(status: WaitStatus) -> ExitCode {
    match status {
        WaitStatus::Exited(_, code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        WaitStatus::Signaled(_, signal, _) => die_of(signal),
        // Not an end; `waitpid` was not asked for these.
        _ => ExitCode::FAILURE,
    }
}

fn die_of(signal: Signal) -> ExitCode {
    // The worker's memory may be of interest, the guard's is not.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = SigSet::empty().thread_set_mask();
    // Twice: the standard library's own handler of SIGSEGV takes the first and steps aside.
    let _ = raise(signal);
    let _ = raise(signal);
    // As a shell has it.
    ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX))
}
