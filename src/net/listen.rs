//! TCP sockets to listen on, at addresses that this machine need not have yet.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// A TCP socket that is bound, and does not listen yet. The address may be a floating IP, which comes later.
///
/// # Errors
/// Somebody listens there already (`AddrInUse`), or the system refuses.
pub fn bound(listen: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    match listen {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(address) => {
            // `[::]` is every address, IPv4 ones too, whatever the system's default is.
            socket.set_only_v6(!address.ip().is_unspecified())?;
            socket.set_freebind_v6(true)?;
        }
    }
    socket.bind(&listen.into())?;
    Ok(socket)
}
