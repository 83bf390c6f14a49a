//! ICMP echo without a program: a datagram ICMP socket, which the kernel fills in.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::node::Node;

/// Sends one echo request from `node` and returns the round trip time.
///
/// # Errors
/// When there is no route or no answer in time.
pub fn ping(node: &Node, to: IpAddr, timeout: Duration) -> Result<Duration> {
    let socket = node.run(move || open(to))?;
    socket.set_read_timeout(Some(timeout))?;
    let start = Instant::now();
    let request = if to.is_ipv4() { 8 } else { 128 };
    socket.send_to(&[request, 0, 0, 0, 0, 0, 0, 1, b'l', b'a', b'b'], SocketAddr::new(to, 0))?;
    let answer = if to.is_ipv4() { 0 } else { 129 };
    let mut buffer = [0; 64];
    while start.elapsed() < timeout {
        let n = socket.recv(&mut buffer)?;
        if n > 0 && buffer.first() == Some(&answer) {
            return Ok(start.elapsed());
        }
    }
    bail!("no answer from {to}")
}

/// Sends echo requests, one at a time and each waited for that long at most, until one is answered; returns how long that took.
/// One packet may be lost for reasons of its own.
///
/// # Errors
/// No answer `within` that time: why the last one failed.
pub fn reach(node: &Node, to: IpAddr, each: Duration, within: Duration) -> Result<Duration> {
    let start = Instant::now();
    loop {
        let asked = Instant::now();
        match ping(node, to, each) {
            Ok(_) => return Ok(start.elapsed()),
            Err(e) if start.elapsed() >= within => {
                return Err(e).with_context(|| format!("no answer from {to} within {within:?}"));
            }
            // Without a route it fails at once.
            Err(_) => thread::sleep(each.saturating_sub(asked.elapsed())),
        }
    }
}

fn open(to: IpAddr) -> io::Result<UdpSocket> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    Ok(UdpSocket::from(socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?))
}
