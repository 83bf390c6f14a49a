//! The calls of the guard that have no safe wrapper, and how it ends.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::wait::WaitStatus;
use nix::unistd::{ForkResult, Pid, execv};

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

/// Whether no thread of a process runs any of its code any more, and none ever will. True long before the pidfd says so, which waits
/// until the kernel has taken the process's descriptors apart: 20 to 50 ms where a TUN device and packet sockets are among them.
///
/// A thread on its way out has `PF_EXITING` (`exit_signals`, at the beginning of `do_exit`), and no way leads back from there to the process's
/// code. That the leader has it is not enough: SIGKILL reaches each of the other threads when it next leaves the kernel, or
/// by an interrupt of its processor. So all must have it, the leader first. The main thread of a worker ends only with its
/// process (nothing of ours calls `pthread_exit`), and to a process that ends the kernel adds no thread (`copy_process` refuses where SIGKILL is
/// pending): so the list that is read after that look is complete. What cannot be read counts as alive.
pub(super) fn is_exiting(process: Pid) -> bool {
    // A kernel that means something else by this bit would show it of a thread that runs, as this one does.
    let told = exits(Pid::this(), Pid::this()) == Some(false);
    if !told || exits(process, process) != Some(true) {
        return false;
    }
    let Ok(mut threads) = fs::read_dir(format!("/proc/{process}/task")) else { return false };
    threads.all(|thread| {
        let id = thread.ok().and_then(|entry| entry.file_name().to_str()?.parse().ok());
        id.is_some_and(|id| exits(process, Pid::from_raw(id)).unwrap_or(true))
    })
}

/// Whether a thread is on its way out; `None`: it is gone. One that cannot be read is not.
fn exits(process: Pid, thread: Pid) -> Option<bool> {
    /// `PF_EXITING` of the kernel's flags, field 9 of proc(5); the state is field 3.
    const EXITING: u32 = 4;
    match fs::read_to_string(format!("/proc/{process}/task/{thread}/stat")) {
        Ok(stat) => {
            // The name before it may hold spaces and brackets.
            let fields = stat.rsplit(") ").next();
            let flags = fields.and_then(|f| f.split(' ').nth(6)?.parse::<u32>().ok());
            Some(flags.is_some_and(|flags| flags & EXITING != 0))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        // It went between opening and reading.
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => None,
        Err(_) => Some(false),
    }
}

/// Waits until the process of this descriptor is dead.
pub(super) fn wait_death(pidfd: &OwnedFd) {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    while !matches!(poll(&mut fds, PollTimeout::NONE), Ok(ready) if ready > 0) {}
}

/// Has another program run as this process, with its arguments and environment. Returns only if that fails.
pub(super) fn become_program(program: &Path) -> io::Result<Infallible> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::other);
    let args =
        std::env::args_os().map(|arg| text(arg.as_bytes())).collect::<io::Result<Vec<_>>>()?;
    Ok(execv(&text(program.as_os_str().as_bytes())?, &args)?)
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
    // If the worker's memory was of interest, that is kept; the guard's is not.
    let _ = prctl::set_dumpable(false);
    let _ = SigSet::empty().thread_set_mask();
    // Twice: the standard library's own handler of SIGSEGV takes the first and steps aside.
    let _ = raise(signal);
    let _ = raise(signal);
    // As a shell has it.
    ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use nix::sys::signal::kill;

    use super::*;

    fn python(code: &str) -> (Child, Pid) {
        use std::io::Read as _;
        let mut command = Command::new("python3");
        let mut child = command.args(["-c", code]).stdout(Stdio::piped()).spawn().unwrap();
        // It says when it is ready.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        (child, pid)
    }

    fn soon(what: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !what() {
            assert!(Instant::now() < end, "not within 60 s");
        }
    }

    #[test]
    fn the_living_are_not_exiting_and_the_killed_are() {
        assert!(!is_exiting(Pid::this()));
        let threads = "import threading, time
for _ in range(20): threading.Thread(target=time.sleep, args=(1000,)).start()
print(end='.', flush=True)
time.sleep(1000)";
        let (mut child, pid) = python(threads);
        assert!(!is_exiting(pid));
        kill(pid, Signal::SIGSTOP).unwrap();
        assert!(!is_exiting(pid), "a process that is stopped may go on");
        kill(pid, Signal::SIGKILL).unwrap();
        // Nobody has reaped it, so its number is nobody else's.
        soon(|| is_exiting(pid));
        child.wait().unwrap();
        assert!(!is_exiting(pid), "nothing is known of what is not there");
    }

    /// The leader is gone, and another thread runs: `PF_EXITING` of the leader alone says nothing.
    #[test]
    fn all_threads_count() {
        let leader_ends = "import ctypes, os, threading, time
def rest():
    while open(f'/proc/self/stat').read().rsplit(') ')[-1][0] != 'Z': pass
    print(end='.', flush=True)
    time.sleep(1000)
threading.Thread(target=rest).start()
EXIT = {'x86_64': 60, 'aarch64': 93}[os.uname().machine]
ctypes.CDLL(None).syscall(EXIT, 0)";
        let (mut child, pid) = python(leader_ends);
        assert_eq!(exits(pid, pid), Some(true), "its leader has not ended");
        assert!(!is_exiting(pid));
        kill(pid, Signal::SIGKILL).unwrap();
        soon(|| is_exiting(pid));
        child.wait().unwrap();
    }
}
