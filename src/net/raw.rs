//! Four things about sockets that nix and tokio have no safe form of: addresses of packet sockets,
//! filters, what the kernel dropped, and waiting.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{LinkAddr, SockaddrLike};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One instruction of a filter: classic BPF, as in linux/filter.h.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instruction {
    /// What it does.
    pub(crate) code: u16,
    /// How many instructions to skip if a comparison holds.
    pub(crate) jump_true: u8,
    /// How many to skip if not.
    pub(crate) jump_false: u8,
    /// Its operand.
    pub(crate) operand: u32,
}

/// Where a packet socket sends to: a hardware address on an interface. `None` for an index that is
/// none.
#[must_use]
#[allow(unsafe_code)]
pub(super) fn link_address(index: u32, ethertype: u16, mac: [u8; 6]) -> Option<LinkAddr> {
    let mut address = [0; 8];
    address[..6].copy_from_slice(&mac);
    let raw = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).ok()?,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: i32::try_from(index).ok()?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: address,
    };
    let length = libc::socklen_t::try_from(size_of_val(&raw)).ok()?;
    // SAFETY: `raw` is a whole address of that family and length, and lives until it is copied.
    unsafe { LinkAddr::from_raw(std::ptr::from_ref(&raw).cast(), Some(length)) }
}

/// Has the kernel drop what `program` does not let pass, before the socket sees it.
///
/// # Errors
/// The kernel refuses the program.
#[allow(unsafe_code)]
pub(crate) fn attach_filter(socket: &impl AsFd, program: &[Instruction]) -> io::Result<()> {
    let mut filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|i| libc::sock_filter {
            code: i.code,
            jt: i.jump_true,
            jf: i.jump_false,
            k: i.operand,
        })
        .collect();
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let value = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(invalid)?,
        filter: filter.as_mut_ptr(),
    };
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(invalid)?;
    // SAFETY: `value` has the type and length that the option takes, and points to as many
    // instructions as it says; the kernel copies them before it returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&value).cast(),
            length,
        )
    };
    Errno::result(result).map(|_| ()).map_err(io::Error::from)
}

/// How many packets the kernel dropped that were for this socket: taken by its filter, or come while it
/// was full. Counts round and round.
///
/// # Errors
/// A kernel before 4.12.
#[allow(unsafe_code)]
pub(crate) fn socket_drops(socket: &impl AsFd) -> io::Result<u32> {
    /// `SK_MEMINFO_DROPS` and `SK_MEMINFO_VARS` of linux/sock_diag.h.
    const DROPS: usize = 8;
    let mut values = [0_u32; DROPS + 1];
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut length = libc::socklen_t::try_from(size_of_val(&values)).map_err(invalid)?;
    // SAFETY: the kernel writes at most `length` bytes, which is what `values` has, all of them plain numbers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(values[DROPS])
}

/// A socket that can be waited for until something can be read, inside a tokio runtime.
///
/// # Errors
/// The runtime cannot watch it.
#[allow(unsafe_code)]
pub(super) fn readable(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` keeps its descriptor open and the same for as long as it lives.
    let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    watched.map_err(io::Error::from)
}
