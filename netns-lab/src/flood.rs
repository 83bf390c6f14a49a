//! As many UDP datagrams a second as one thread can send, with any source address.

use std::io::IoSlice;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind,
    connect, recv, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::lab::Lab;
use crate::node::Node;
use crate::sys::monotonic_ns;

/// Datagrams in one system call, and between two looks at the clock. Linux before 6.9 takes no more (`UDP_MAX_SEGMENTS`).
const BURST: usize = 64;

/// Bytes in one system call: an IPv4 packet of 65,535 less its headers.
const BURST_BYTES: usize = 65_535 - HEADERS;

/// IPv4 and UDP header.
const HEADERS: usize = 28;

/// A flood that runs. It ends when this is dropped.
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Flood {
    /// Sends `payloads` round and round from the router, as if from `from`, to `to` at `target`, `rate` datagrams a second
    /// or as many as one thread can. Those of one length go one after the other.
    ///
    /// One core cannot send 200,000 a second and receive them for `target` too, so the kernel is given many at a time
    /// (`UDP_SEGMENT`). The switch takes them apart: `target` gets each alone, as from any network.
    ///
    /// # Errors
    /// When there are none, one is empty or longer than a packet, or the kernel refuses the address of somebody else.
    pub fn start(
        lab: &Lab,
        target: &Node,
        (from, to): (SocketAddrV4, SocketAddrV4),
        payloads: &[Vec<u8>],
        rate: u32,
    ) -> Result<Self> {
        let bursts = bursts(payloads)?;
        lab.switch().ip_batch(&format!("link set dev {} gso_max_segs 1\n", target.name()))?;
        let socket = lab.router().run(move || as_if_from(from, to))?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let shared = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = thread::spawn(move || pour(&socket, &bursts, rate, &shared.0, &shared.1));
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

/// A connected socket whose own address is another node's.
fn as_if_from(from: SocketAddrV4, to: SocketAddrV4) -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::IpTransparent, &true).context("IP_TRANSPARENT")?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(from)).with_context(|| format!("bind {from}"))?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(to)).with_context(|| format!("connect {to}"))?;
    Ok(socket)
}

/// Datagrams of one length, one after the other.
struct Burst {
    bytes: Vec<u8>,
    length: u16,
}

impl Burst {
    fn datagrams(&self) -> u64 {
        self.bytes.len() as u64 / u64::from(self.length)
    }
}

/// Every payload is in them, some twice: each burst is as long as it may be.
fn bursts(payloads: &[Vec<u8>]) -> Result<Vec<Burst>> {
    ensure!(!payloads.is_empty(), "a flood of nothing");
    let mut sorted: Vec<&Vec<u8>> = payloads.iter().collect();
    sorted.sort_by_key(|payload| payload.len());
    let mut bursts = Vec::new();
    for same in sorted.chunk_by(|a, b| a.len() == b.len()) {
        let length = same.first().map_or(0, |payload| payload.len());
        ensure!((1..=BURST_BYTES).contains(&length), "a payload of {length} bytes");
        let datagrams = BURST.min(BURST_BYTES / length);
        let mut round = same.iter().copied().cycle();
        for _ in 0..same.len().div_ceil(datagrams) {
            let bytes = round.by_ref().take(datagrams).flatten().copied().collect();
            bursts.push(Burst { bytes, length: u16::try_from(length)? });
        }
    }
    Ok(bursts)
}

fn pour(
    socket: &OwnedFd,
    bursts: &[Burst],
    rate: u32,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> Result<()> {
    let start = Instant::now();
    for burst in bursts.iter().cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
        match send(socket, burst) {
            Ok(()) => {
                sent.fetch_add(burst.datagrams(), Ordering::Relaxed);
            }
            // The queue of the cable is full.
            Err(Errno::ENOBUFS | Errno::EAGAIN) => thread::yield_now(),
            Err(e) => return Err(e).context("sending a flood"),
        }
        let due = Duration::from_secs_f64(sent.load(Ordering::Relaxed) as f64 / f64::from(rate));
        let ahead = due.saturating_sub(start.elapsed());
        if ahead > Duration::from_millis(1) {
            thread::sleep(ahead);
        }
    }
    Ok(())
}

fn send(socket: &OwnedFd, burst: &Burst) -> nix::Result<()> {
    let apart = [ControlMessage::UdpGsoSegments(&burst.length)];
    let bytes = [IoSlice::new(&burst.bytes)];
    sendmsg::<()>(socket.as_raw_fd(), &bytes, &apart, MsgFlags::empty(), None).map(drop)
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
    let open =
        || socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Udp);
    let raw = node.run(open).context("a raw socket")?;
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

    fn lengths(bursts: &[Burst]) -> Vec<(usize, u16, u64)> {
        bursts.iter().map(|b| (b.bytes.len(), b.length, b.datagrams())).collect()
    }

    #[test]
    fn bursts_hold_every_payload_and_one_length_each() {
        let two = bursts(&[vec![1; 300], vec![2; 100], vec![3; 100]]).unwrap();
        assert_eq!(lengths(&two), [(6400, 100, 64), (19_200, 300, 64)]);
        let (first, rest) = two[0].bytes.split_at(100);
        assert_eq!((first, &rest[..100]), (&[2; 100][..], &[3; 100][..]));

        let many: Vec<_> = (0..65).map(|n| vec![n; 100]).collect();
        let many = bursts(&many).unwrap();
        assert_eq!(lengths(&many), [(6400, 100, 64), (6400, 100, 64)]);
        assert_eq!(many[1].bytes[..100], [64; 100]);
    }

    #[test]
    fn a_burst_is_no_longer_than_a_packet() {
        assert_eq!(lengths(&bursts(&[vec![0; 1400]]).unwrap()), [(64_400, 1400, 46)]);
        assert!(bursts(&[]).is_err());
        assert!(bursts(&[vec![]]).is_err());
        assert!(bursts(&[vec![0; 65_508]]).is_err());
    }
}
