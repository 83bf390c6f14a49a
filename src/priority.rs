//! The protocol's thread goes before others when the cores are busy.

use std::io;

use nix::libc;

/// The highest that is not real-time.
const NICE: i32 = -20;

/// Gives the calling thread, and no other, the highest ordinary priority: a heartbeat costs
/// microseconds, and one that waits for a busy core looks like a dead master. Threads and programs that it
/// starts would inherit it, so it must start none.
///
/// # Errors
///
/// Neither CAP_SYS_NICE nor RLIMIT_NICE (systemd: `LimitNICE=`) allows it.
pub fn raise_this_thread() -> io::Result<()> {
    // On Linux, 0 is the calling thread (setpriority(2), "C library/kernel differences").
    // SAFETY: takes three numbers and touches no memory of ours.
    #[allow(unsafe_code)]
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // Behind the name, which may hold spaces: state is field 3, nice is field 19 (proc(5)).
        let fields = stat.rsplit(") ").next().unwrap();
        fields.split(' ').nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn this_thread_alone_is_raised_if_allowed() {
        let before = nice();
        let raised = std::thread::spawn(|| raise_this_thread().map(|()| nice())).join().unwrap();
        match raised {
            Ok(nice) => assert_eq!(nice, i64::from(NICE)),
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::PermissionDenied, "{e}"),
        }
        assert_eq!(nice(), before);
    }
}
