//! One ICMP echo request and its answer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv, send};
use ring::rand::{SecureRandom, SystemRandom};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::raw;
use crate::clock;

/// What an answer must repeat: identifier, sequence number and content, all random.
const TOKEN: usize = 20;

/// The head of an echo message before the token: type, code, checksum.
const HEAD: usize = 4;

/// Sends one echo request and waits for its answer, for ever: drop it when it takes too long. Needs `CAP_NET_RAW`.
///
/// # Errors
/// No socket, no route, or somebody on the way says that it cannot be reached.
pub async fn echo(target: IpAddr) -> io::Result<Duration> {
    let socket = open(target)?;
    let mut token = [0; TOKEN];
    SystemRandom::new().fill(&mut token).map_err(|_| io::Error::other("no random numbers"))?;
    let began = clock::now();
    send(socket.as_raw_fd(), &request(target, token), MsgFlags::empty())?;
    let mut packet = [0; 2048];
    loop {
        let mut ready = socket.readable().await?;
        let read = ready.try_io(|socket| {
            recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()).map_err(io::Error::from)
        });
        // Not ready after all.
        let Ok(read) = read else { continue };
        if is_answer(target, packet.get(..read?).unwrap_or_default(), token) {
            return Ok(clock::now().since(began));
        }
    }
}

/// A raw socket that hears ICMP of the target alone.
fn open(target: IpAddr) -> io::Result<AsyncFd<OwnedFd>> {
    let (domain, protocol) = match target {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.connect(&SocketAddr::new(target, 0).into())?;
    raw::readable(socket.into())
}

fn request(target: IpAddr, token: [u8; TOKEN]) -> Vec<u8> {
    let kind = if target.is_ipv4() { 8 } else { 128 };
    let mut message = vec![kind, 0, 0, 0];
    message.extend_from_slice(&token);
    // The kernel itself does it for IPv6, whose checksum covers addresses.
    if target.is_ipv4() {
        let sum = checksum(&message);
        message.splice(2..4, sum.to_be_bytes());
    }
    message
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair.first().copied().unwrap_or(0), low]))
    };
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The kernel has compared the sender, as the socket is connected.
fn is_answer(target: IpAddr, packet: &[u8], token: [u8; TOKEN]) -> bool {
    // Raw IPv4 sockets are given the IP header, whose length it says in words of four bytes.
    let header = match (target, packet.first()) {
        (IpAddr::V4(_), Some(first)) => usize::from(first & 0x0f) * 4,
        _ => 0,
    };
    let kind = if target.is_ipv4() { 0 } else { 129 };
    packet.get(header..).is_some_and(|message| {
        message.first() == Some(&kind) && message.get(HEAD..) == Some(token.as_slice())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN_OF_TEST: [u8; TOKEN] = [7; TOKEN];

    #[test]
    fn checksums_are_those_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), 0x00ff);
        let message = request("10.0.0.1".parse().unwrap(), TOKEN_OF_TEST);
        assert_eq!(checksum(&message), 0, "a receiver adds it all up");
    }

    #[test]
    fn only_the_answer_to_this_request_counts() {
        let v4: IpAddr = "10.0.0.1".parse().unwrap();
        let v6: IpAddr = "fd00::1".parse().unwrap();
        let reply = |kind: u8| [&[kind, 0, 9, 9][..], &TOKEN_OF_TEST].concat();
        let ip = |message: Vec<u8>| [vec![0x45; 20], message].concat();
        assert!(is_answer(v4, &ip(reply(0)), TOKEN_OF_TEST));
        assert!(!is_answer(v4, &ip(reply(8)), TOKEN_OF_TEST), "my own request on the loopback");
        assert!(!is_answer(v4, &ip(reply(0)), [8; TOKEN]), "another's");
        assert!(is_answer(v6, &reply(129), TOKEN_OF_TEST));
        assert!(!is_answer(v6, &reply(128), TOKEN_OF_TEST));
        for short in 0..24 {
            assert!(!is_answer(v4, &ip(reply(0))[..short], TOKEN_OF_TEST));
            assert!(!is_answer(v6, &reply(129)[..short], TOKEN_OF_TEST));
        }
    }

    /// Needs `CAP_NET_RAW`.
    #[tokio::test]
    async fn the_loopback_answers_in_both_families() {
        for address in ["127.0.0.1", "::1"] {
            let answer =
                tokio::time::timeout(Duration::from_secs(10), echo(address.parse().unwrap()));
            answer.await.expect(address).expect("run as root, with IPv6 on the loopback");
        }
    }
}
