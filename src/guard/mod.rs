//! The guard: the small process that outlives the worker, takes off what that left, and says so.
//!
//! `wgha run` forks before it does anything else. The parent is the guard, and what systemd sees; the
//! child is the worker, and does everything that is described elsewhere.
//!
//! ```text
//!   guard (parent) ----- signals that it gets: SIGTERM, SIGINT, SIGHUP, ... ----->  worker (child)
//!         ^  ^  ^                                                                      |  |  |
//!         |  |  +--- will.rs: state directory, patience, an obituary for each path ---+  |  |   socketpair
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

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use nix::unistd::{ForkResult, Pid};
use tokio::sync::oneshot;

mod aftermath;
mod orphans;
mod process;
mod pulse;
mod watch;
pub mod will;

use watch::Watch;
use will::Will;

use crate::descriptors::lift;

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

/// The worker's end.
#[derive(Debug)]
pub struct Line {
    socket: OwnedFd,
    progress: EventFd,
    guard: OwnedFd,
    guard_id: u32,
}

impl Line {
    fn new(socket: OwnedFd, progress: EventFd, guard: OwnedFd, guard_id: u32) -> Line {
        Line { socket, progress, guard, guard_id }
    }

    /// Tells the guard what to do after this process; replaces what it was told before. Never waits.
    ///
    /// # Errors
    /// The guard is gone, or does not read, or it is more than it would read.
    pub fn hand_over(&self, will: &Will) -> io::Result<()> {
        let message = will.encode();
        if message.len() > will::MOST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} bytes, and at most {} can be", message.len(), will::MOST),
            ));
        }
        self.send(&message)
    }

    /// The loop ends on purpose: no progress is expected any more.
    pub fn rest(&self) {
        // A guard that is gone expects nothing either.
        let _ = self.send(&will::REST);
    }

    /// The protocol's loop has turned. Never waits.
    pub fn beat(&self) {
        // Full after 2^64 turns that nobody looked at.
        let _ = self.progress.write(1);
    }

    /// Tells when the guard is dead, from a thread that does nothing else.
    ///
    /// # Errors
    /// The system has no descriptor or thread for us.
    pub fn guard_died(&self) -> io::Result<oneshot::Receiver<()>> {
        let (tell, told) = oneshot::channel();
        let guard = self.guard.try_clone()?;
        thread::Builder::new().name("guard".to_owned()).spawn(move || {
            process::wait_death(&guard);
            // The process may be ending anyway.
            let _ = tell.send(());
        })?;
        Ok(told)
    }

    /// The guard's process id: what systemd takes for this daemon's.
    #[must_use]
    pub fn guard_id(&self) -> u32 {
        self.guard_id
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        send(self.socket.as_raw_fd(), message, flags)?;
        Ok(())
    }
}

/// Splits this process. `work` runs in the worker; both return here, and are to end with what is
/// returned: the guard with what the worker ended with. Call while there is one thread.
///
/// # Errors
/// The system has no process or descriptor for us, or (Linux before 5.3) no pidfd. And those of `work`.
pub fn run(work: impl FnOnce(Arc<Line>) -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (inbox, socket) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .context("cannot make the guard's socket")?;
    let counter = || EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
    let progress = counter().context("cannot make the guard's counter")?;
    // The same open counter in both processes.
    let seen = File::from(
        std::os::fd::AsFd::as_fd(&progress).try_clone_to_owned().context("cannot copy it")?,
    );
    let guard = process::pidfd(Pid::this()).context("no pidfd: Linux 5.3 or later is needed")?;
    // Keys are in the memory of the one, obituaries in that of both. Programs that the worker starts have their own setting
    // again. And a dump would be written before the kernel lets go of anything, so that the guard had to wait for it.
    if std::env::var_os(DUMPABLE).is_none_or(|value| value != "1") {
        prctl::set_dumpable(false).context("cannot turn core dumps off")?;
    }
    // What the worker's programs leave becomes the guard's, so that it can be found.
    prctl::set_child_subreaper(true).context("cannot adopt what the worker leaves")?;
    let before = block_signals().context("cannot block signals")?;
    match process::fork().context("cannot fork the worker")? {
        ForkResult::Child => {
            drop((inbox, seen));
            let socket = lift(socket);
            before.thread_set_mask().context("cannot unblock signals")?;
            let guard_id = std::os::unix::process::parent_id();
            work(Arc::new(Line::new(socket, progress, guard, guard_id)))
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
            Ok(process::pass_on(end))
        }
    }
}

fn signals() -> SigSet {
    SIGNALS.into_iter().collect()
}

/// Before the fork, so that none is lost in between.
fn block_signals() -> nix::Result<SigSet> {
    signals().thread_swap_mask(SigmaskHow::SIG_BLOCK)
}
