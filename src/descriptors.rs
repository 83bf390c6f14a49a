//! The order in which the kernel takes a dead process's descriptors apart.
//!
//! It does so one after the other, the highest number first, before it says that the process is dead; and some take it long: a packet
//! socket or a TUN device waits for grace periods, a tenth of a second together. What others wait for is
//! lifted above them. Nothing depends on the order but how soon they know.

use std::os::fd::{FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, fcntl};

/// Above all that a daemon opens by itself, below the usual limit of 1024.
const HIGH: i32 = 900;

/// Gives a descriptor a high number; what is lifted later goes first. As it was, if the system's limit is low.
#[allow(unsafe_code)]
pub(crate) fn lift(fd: OwnedFd) -> OwnedFd {
    match fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(HIGH)) {
        // SAFETY: the kernel has just opened it for us, and nobody else knows of it.
        Ok(high) => unsafe { OwnedFd::from_raw_fd(high) },
        Err(_) => fd,
    }
}
