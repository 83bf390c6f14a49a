//! The guard: the small process that outlives the worker, takes off what that left, and says so.
//!
//! `wgha run` forks before it does anything else. The parent is the guard, and what systemd sees; the
//! child is the worker, and does everything that is described elsewhere.
//!
//! ```text
//!   guard (parent) ----- signals that it gets: SIGTERM, SIGINT, SIGHUP, ... ----->  worker (child)
//!         ^  ^  ^                                                                      |  |  |
//!         |  |  +--- will.rs: state directory, patience, an obituary for each path ---+  |  |   socketpair
//!         |  |       and what systemd is to be told                                     |  |
//!         |  +------ progress: one count for each turn of the protocol's loop -----------+  |   eventfd
//!         +--------- pidfd of the worker; the worker has one of the guard ------------------+
//! ```
//!
//! When the worker dies, by whatever: WireGuard down, rules and floating IPs off, all of it looked at
//! again ([`release`](crate::release)); what its hooks started is killed; only then the obituaries go out,
//! which end its session for every node (docs/protocol.md §5). What cannot be verified is not said. A worker that hangs is
//! killed first. The guard has no keys: the obituaries come ready-made, and do not age.
//!
//! How it knows: the pidfd says so, or (tens of milliseconds earlier) each thread of the worker is on its way out inside the kernel. That
//! the worker's end of the socket is closed says nothing; it is only when the guard looks.
//!
//! When the guard dies the worker stops as on SIGTERM: alone it would be one that nobody buries.
//!
//! For an upgrade the worker says so, and ends as on SIGTERM; then the guard has the program that is now at its own path run in its
//! place, under the same process id, which forks another worker: a new session.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{ForkResult, Pid};

mod aftermath;
mod line;
mod orphans;
mod process;
mod pulse;
mod systemd;
mod watch;
pub mod will;

pub use line::Line;
use watch::Watch;

use crate::descriptors::lift;
use crate::user;

/// Passed on to the worker, but for SIGCHLD and SIGABRT (systemd's watchdog).
const SIGNALS: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGABRT,
    Signal::SIGCHLD,
];

/// Set to 1 in the environment: core dumps and debuggers of the same user may read the memory of both processes, the keys among it.
const DUMPABLE: &str = "WGHA_CORE_DUMPS";

/// The program that this process runs, also where another file has taken its path.
const RUNNING: &str = "/proc/self/exe";

/// Splits this process. `work` runs in the worker, with a line for each of `clusters`; both return here, and are to end with what is
/// returned: the guard with what the worker ended with. Call while there is one thread.
///
/// # Errors
/// The system has no process or descriptor for us, or (Linux before 5.3) no pidfd. And those of `work`.
pub fn run(
    clusters: usize,
    work: impl FnOnce(Vec<Arc<Line>>) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (inbox, socket) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .context("cannot make the guard's socket")?;
    let counter = || EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
    let progress = counter().context("cannot make the guard's counter")?;
    // The same open counter in both processes.
    let seen = File::from(
        std::os::fd::AsFd::as_fd(&progress).try_clone_to_owned().context("cannot copy it")?,
    );
    // Now: a file that is put in its place later does not change what this process runs, but it does change this answer.
    let program = std::env::current_exe().ok();
    let guard = process::pidfd(Pid::this()).context("no pidfd: Linux 5.3 or later is needed")?;
    // Keys are in the memory of the one, obituaries in that of both. Programs that the worker starts have their own setting
    // again. And a dump would be written before the kernel lets go of anything, so that the guard had to wait for it.
    // Said in both cases: a change of user sets it to what the system has for that.
    let dumpable = std::env::var_os(DUMPABLE).is_some_and(|value| value == "1");
    prctl::set_dumpable(dumpable).context("cannot turn core dumps off, or on")?;
    // What the worker's programs leave becomes the guard's, so that it can be found.
    prctl::set_child_subreaper(true).context("cannot adopt what the worker leaves")?;
    let before = block_signals().context("cannot block signals")?;
    match process::fork().context("cannot fork the worker")? {
        ForkResult::Child => {
            drop((inbox, seen));
            let socket = lift(socket);
            before.thread_set_mask().context("cannot unblock signals")?;
            let guard_id = std::os::unix::process::parent_id();
            work(Line::all(socket, progress, guard, guard_id, program, clusters))
        }
        ForkResult::Parent { child } => {
            drop((socket, progress, guard));
            // `ps -o comm` tells them apart. Only a name.
            let _ = prctl::set_name(c"wgha-guard");
            let pidfd = process::pidfd(child).context("cannot watch the worker")?;
            let mut watch = Watch::new(child, pidfd, inbox, seen, &signals())?;
            let status = watch.until_death().context("cannot watch the worker")?;
            aftermath::settle(child, status, watch.will(), &before);
            let end = watch.reap().context("cannot watch the worker")?;
            if status.is_none() {
                tracing::info!("the worker's end: {}", aftermath::text(end));
            }
            if watch.again() {
                begin_again(program, &before);
            }
            Ok(process::pass_on(end))
        }
    }
}

/// Starts the program that is now at this one's path, as this process; if that does not run, the one that did. Returns if neither does.
fn begin_again(program: Option<PathBuf>, before: &SigSet) {
    crate::log::start();
    // Whoever wanted an end meanwhile gets it now.
    let _ = before.thread_set_mask();
    let _lent = user::pass_on();
    for program in program.into_iter().chain([PathBuf::from(RUNNING)]) {
        tracing::info!("upgrade: starting {}", program.display());
        let Err(e) = process::become_program(&program);
        tracing::error!("{} cannot be started: {e}", program.display());
    }
}

fn signals() -> SigSet {
    SIGNALS.into_iter().collect()
}

/// Before the fork, so that none is lost in between.
fn block_signals() -> nix::Result<SigSet> {
    signals().thread_swap_mask(SigmaskHow::SIG_BLOCK)
}
