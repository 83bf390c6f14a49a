//! The permission to act, as one number that every thread can read.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};
use wgha_proto::Time;

/// Until when this machine may act as master. The protocol's loop writes it, after every send and first
/// of all when it stops being master; the gate's keeper, the embedded WireGuard and the announcements
/// read it. Clones share it.
///
/// The instant is absolute and made before the datagrams that it rests on were sent, so whoever
/// reads it late acts for a shorter time, never for a longer one.
#[derive(Clone, Debug)]
pub struct Permit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Nanoseconds of `CLOCK_BOOTTIME`; 0: not at all.
    until: AtomicU64,
    /// The kernel's gate shuts then.
    gate: AtomicBool,
    changed: EventFd,
}

impl Permit {
    /// No permission yet.
    ///
    /// # Errors
    /// The system has no file descriptor left.
    pub fn new() -> io::Result<Permit> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let changed = EventFd::from_flags(flags)?;
        Ok(Permit(Arc::new(Shared {
            until: AtomicU64::new(0),
            gate: AtomicBool::new(false),
            changed,
        })))
    }

    /// Grants until then, or takes the permission away. Never blocks.
    pub fn set(&self, until: Option<Time>) {
        let new = until.map_or(0, Time::as_nanos);
        if self.0.until.swap(new, Ordering::SeqCst) != new {
            self.wake();
        }
    }

    /// Until when; [`Time::ZERO`]: not at all.
    #[must_use]
    pub fn until(&self) -> Time {
        Time::from_nanos(self.0.until.load(Ordering::SeqCst))
    }

    /// Whether whoever acts at `now` has permission.
    #[must_use]
    pub fn allows(&self, now: Time) -> bool {
        now < self.until()
    }

    /// Whether the kernel's gate shuts when the permission ends; if not, it takes whoever acts to stop.
    #[must_use]
    pub fn has_gate(&self) -> bool {
        self.0.gate.load(Ordering::Relaxed)
    }

    pub(crate) fn set_gate(&self, there: bool) {
        self.0.gate.store(there, Ordering::Relaxed);
    }

    /// Has the keeper look, at what else has changed.
    pub(super) fn wake(&self) {
        // It fails only when the counter is full, and then the keeper has long been woken.
        let _ = self.0.changed.write(1);
    }

    /// Readable when something changed since [`Permit::seen`].
    pub(super) fn changed(&self) -> BorrowedFd<'_> {
        self.0.changed.as_fd()
    }

    /// The change is being looked at.
    pub(super) fn seen(&self) {
        // Fails if there was none.
        let _ = self.0.changed.read();
    }
}
