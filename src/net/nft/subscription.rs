//! The netlink socket that listens.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// Notifications read at once; what they say does not matter.
const NOTIFICATIONS: usize = 4096;
const CUT: usize = 64;

/// Listens for changes of the ruleset, by whomever.
pub(in crate::net) struct Subscription(Socket);

impl Subscription {
    /// # Errors
    /// The kernel refuses.
    pub(in crate::net) fn open() -> io::Result<Subscription> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        socket.add_membership(GROUP)?;
        Ok(Subscription(socket))
    }

    /// Readable when something changed.
    pub(in crate::net) fn changed(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes off what was told. True if there was anything, or something was lost.
    pub(in crate::net) fn drain(&self) -> io::Result<bool> {
        let mut any = false;
        let mut buffer = Vec::with_capacity(CUT);
        for _ in 0..NOTIFICATIONS {
            buffer.clear();
            match self.0.recv(&mut buffer, 0) {
                Ok(_) => any = true,
                Err(e) if e.raw_os_error() == Some(Errno::ENOBUFS as i32) => any = true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}
