//! As many UDP datagrams a second as a namespace can send, with any source address.

use std::io::IoSlice;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, SockaddrIn, recv,
    sendmmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::node::Node;
use crate::sys::monotonic_ns;

/// Datagrams in one system call, and between two looks at the clock.
const BATCH: usize = 64;

/// IPv4 and UDP header.
const HEADERS: usize = 28;

/// A flood that runs. It ends when this is dropped.
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Flood {
    /// Sends `payloads` round and round from `node`, as if from `from`, to `to`, `rate` datagrams a second or as many as
    /// one thread can.
    ///
    /// # Errors
    /// When there are none, one is longer than a packet, or a raw socket is refused.
    pub fn start(
        node: &Node,
        from: SocketAddrV4,
        to: SocketAddrV4,
        payloads: &[Vec<u8>],
        rate: u32,
    ) -> Result<Self> {
        let packets: Result<Vec<_>> = payloads.iter().map(|p| packet(from, to, p)).collect();
        let packets = packets?;
        if packets.is_empty() {
            bail!("a flood of nothing");
        }
        let raw = raw_socket(node, SockProtocol::Raw)?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let shared = (Arc::clone(&stop), Arc::clone(&sent));
        let to = SockaddrIn::from(SocketAddrV4::new(*to.ip(), 0));
        let thread = thread::spawn(move || pour(&raw, to, &packets, rate, &shared.0, &shared.1));
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    /// Datagrams sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it; how many were sent.
    ///
    /// # Errors
    /// When sending failed.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow::anyhow!("the flood's thread panicked"))??;
        }
        Ok(self.sent())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn raw_socket(node: &Node, protocol: SockProtocol) -> Result<OwnedFd> {
    let open = move || socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol);
    node.run(open).context("a raw socket")
}

fn pour(
    raw: &OwnedFd,
    to: SockaddrIn,
    packets: &[Vec<u8>],
    rate: u32,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> Result<()> {
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let mut ring = packets.iter().cycle();
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let batch: Vec<[IoSlice<'_>; 1]> =
            ring.by_ref().take(BATCH).map(|p| [IoSlice::new(p)]).collect();
        let to = [Some(to); BATCH];
        match sendmmsg(raw.as_raw_fd(), &mut headers, &batch, to, [], MsgFlags::empty()) {
            Ok(results) => {
                sent.fetch_add(results.count() as u64, Ordering::Relaxed);
            }
            // The queue of the cable is full.
            Err(Errno::ENOBUFS | Errno::EAGAIN) => thread::yield_now(),
            Err(e) => return Err(e).context("sendmmsg"),
        }
        let due = Duration::from_secs_f64(sent.load(Ordering::Relaxed) as f64 / f64::from(rate));
        let ahead = due.saturating_sub(start.elapsed());
        if ahead > Duration::from_millis(1) {
            thread::sleep(ahead);
        }
    }
    Ok(())
}

/// An IPv4 packet. The kernel fills in its checksum; a UDP checksum of zero is none.
fn packet(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Result<Vec<u8>> {
    let length = u16::try_from(HEADERS + payload.len()).context("longer than a packet")?;
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    // Number, fragment; 64 hops of UDP.
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    for port in [from.port(), to.port(), length - 20, 0] {
        packet.extend(port.to_be_bytes());
    }
    packet.extend(payload);
    Ok(packet)
}

/// A datagram that arrived at a node.
#[derive(Debug, Clone)]
pub struct Heard {
    /// `CLOCK_MONOTONIC` in nanoseconds, when it was read.
    pub at: u64,
    /// What is behind the UDP header.
    pub payload: Vec<u8>,
}

/// The datagrams from `from` that come to port `port` of a node within `time`.
///
/// # Errors
/// When a raw socket is refused.
pub fn listen(
    node: &Node,
    from: SocketAddrV4,
    port: u16,
    time: Duration,
) -> Result<JoinHandle<Result<Vec<Heard>>>> {
    let raw = raw_socket(node, SockProtocol::Udp)?;
    setsockopt(&raw, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000))?;
    Ok(thread::spawn(move || {
        let (end, mut buffer, mut heard) = (Instant::now() + time, [0; 2048], Vec::new());
        while Instant::now() < end {
            let length = match recv(raw.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                Err(e) => return Err(e).context("recv"),
            };
            let at = monotonic_ns();
            let Some(bytes) = buffer.get(..length).filter(|b| b.len() >= HEADERS) else { continue };
            let source = (bytes[12..16] == from.ip().octets(), [bytes[20], bytes[21]]);
            let ports = (source.1 == from.port().to_be_bytes(), [bytes[22], bytes[23]]);
            if source.0 && ports.0 && ports.1 == port.to_be_bytes() {
                heard.push(Heard { at, payload: bytes[HEADERS..].to_vec() });
            }
        }
        Ok(heard)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet() {
        let (from, to) = ("192.0.2.1:5112".parse().unwrap(), "192.0.2.2:5113".parse().unwrap());
        let packet = packet(from, to, b"WgHA").unwrap();
        assert_eq!(packet.len(), 32);
        assert_eq!(packet[..4], [0x45, 0, 0, 32]);
        assert_eq!(packet[12..20], [192, 0, 2, 1, 192, 0, 2, 2]);
        // 5112, 5113, length 12, no checksum.
        assert_eq!(packet[20..28], [0x13, 0xf8, 0x13, 0xf9, 0, 12, 0, 0]);
        assert_eq!(packet[28..], *b"WgHA");
    }
}
