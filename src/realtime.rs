//! `[cluster] realtime`: the threads of protocol and gate go before everything that is not real-time, and no page of
//! the process is taken away once it was there.
//!
//! There is no `RLIMIT_RTTIME`: a thread under a flood of datagrams never blocks, and would be killed for it.
//! What keeps a real-time thread from taking a machine whole is the kernel's own limit
//! (`kernel.sched_rt_runtime_us`, 95 % of a core unless changed).

use std::fs;
use std::io;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use serde::{Deserialize, Serialize};

/// Low: interrupts' threads (50) and whatever the operator made real-time go first.
pub const PRIORITY: libc::c_int = 10;

const UNLIMITED: rlim_t = libc::RLIM_INFINITY;

/// What of it there is. Shown in status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Realtime {
    /// The threads of protocol and gate have the policy `SCHED_RR`.
    pub scheduling: bool,
    /// Pages stay in memory.
    pub memory: bool,
    /// What was refused, and what it takes.
    pub missing: Vec<String>,
}

impl Realtime {
    /// Makes the calling thread real-time, and locks the memory of the process. What is refused is only
    /// said: it must work without. Threads that this one starts are ordinary ones.
    #[must_use]
    pub fn claim() -> Realtime {
        let (scheduling, memory) = (schedule(), lock());
        Realtime {
            scheduling: scheduling.is_ok(),
            memory: memory.is_ok(),
            missing: [scheduling.err(), memory.err()].into_iter().flatten().collect(),
        }
    }
}

fn schedule() -> Result<(), String> {
    round_robin().map_err(|e| {
        format!("the threads of protocol and gate are not real-time ({e}): CAP_SYS_NICE or LimitRTPRIO={PRIORITY} is missing")
    })
}

/// Gives the calling thread, and none that it starts, the policy `SCHED_RR`.
///
/// # Errors
/// Neither CAP_SYS_NICE nor RLIMIT_RTPRIO allows it.
#[allow(unsafe_code)]
pub fn round_robin() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is the calling thread; the kernel only reads the parameters, which live until it returns.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    Errno::result(result).map(|_| ()).map_err(io::Error::from)
}

/// Only without a limit: with one, a later allocation beyond it would fail, which is worse than a page that
/// must be read again.
fn lock() -> Result<(), String> {
    let failed = |why: &dyn std::fmt::Display| {
        format!("memory is not locked ({why}): LimitMEMLOCK=infinity or CAP_IPC_LOCK is missing")
    };
    // Root outside a container may; whoever may not is told below.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, UNLIMITED, UNLIMITED);
    let (limit, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).map_err(|e| failed(&e))?;
    if limit != UNLIMITED && hard == UNLIMITED {
        setrlimit(Resource::RLIMIT_MEMLOCK, UNLIMITED, UNLIMITED).map_err(|e| failed(&e))?;
    } else if limit != UNLIMITED && !may_lock_without_limit() {
        return Err(failed(&format!("{} KiB may be", limit / 1024)));
    }
    lock_all().map_err(|e| failed(&e))
}

/// CAP_IPC_LOCK counts in the first user namespace alone.
fn may_lock_without_limit() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let ids = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let first = ids.split_whitespace().eq(["0", "0", "4294967295"]);
    first && effective.is_some_and(|bits| bits >> CAP_IPC_LOCK & 1 == 1)
}

/// On fault: what is never touched, such as the far end of a thread's stack, needs no memory.
#[allow(unsafe_code)]
fn lock_all() -> io::Result<()> {
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: takes a number; it changes where pages may be, not what is in them.
    let result = unsafe { libc::mlockall(flags) };
    Errno::result(result).map(|_| ()).map_err(io::Error::from)
}
