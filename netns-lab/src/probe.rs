//! The prober: UDP echoes on an absolute schedule, with the kernel's receive stamps.

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};

use crate::node::Node;
use crate::report::{Probe, Probes};
use crate::sys::{monotonic_ns, realtime_ns};

/// A probe: sequence number and padding.
const PROBE_LEN: usize = 16;
/// An hour of 1 ms probes; the sender stops there.
const MAX_PROBES: usize = 3_600_000;
/// Later than this after the end an answer is lost.
const LATE: Duration = Duration::from_secs(5);

/// Sends every datagram back to where it came from. Ends when dropped.
pub struct Echo {
    _worker: Worker,
}

impl Echo {
    /// Serves `port` on all addresses of `node`, IPv4 and IPv6.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(node: &Node, port: u16) -> Result<Self> {
        let socket = node.run(move || UdpSocket::bind(("::", port))).context("echo server")?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let worker = Worker::start(node, move |stop| {
            let mut buffer = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((n, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(buffer.get(..n).unwrap_or_default(), from);
                }
            }
        });
        Ok(Self { _worker: worker })
    }
}

/// A running prober: one thread sends, one receives, both in the node's namespaces.
pub struct Prober {
    probes: Arc<Mutex<Vec<Probe>>>,
    sender: Worker,
    receiver: Worker,
}

/// A thread and the flag that ends it.
struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(node: &Node, work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        Self { stop, thread: Some(node.thread(move || work(&flag))) }
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

impl Prober {
    /// Sends a probe to the echo server `to` each `interval` (1 ms is meant) until stopped.
    ///
    /// # Errors
    /// When there is no route to `to`.
    pub fn start(node: &Node, to: SocketAddr, interval: Duration) -> Result<Self> {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = node.run(move || {
            let socket = UdpSocket::bind(any)?;
            socket.connect(to).map(|()| socket)
        })?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let answers = socket.try_clone()?;
        let probes = Arc::new(Mutex::new(Vec::with_capacity(60_000)));
        let (sent, received) = (Arc::clone(&probes), Arc::clone(&probes));
        Ok(Self {
            probes,
            sender: Worker::start(node, move |stop| send(&socket, interval, stop, &sent)),
            receiver: Worker::start(node, move |stop| receive(&answers, stop, &received)),
        })
    }

    /// The probes so far.
    pub fn probes(&self) -> Probes {
        Probes { probes: lock(&self.probes).clone() }
    }

    /// Waits until the tunnel is steadily back: of the probes sent for `settle` after `since` (CLOCK_REALTIME, ns) or
    /// later, 49 of 50 are answered. `settle` must outlast the time that a fault needs to bite.
    ///
    /// # Errors
    /// When that does not come to be in time.
    pub fn wait_steady(&self, since: u64, settle: Duration, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        let settle = u64::try_from(settle.as_nanos()).unwrap_or(u64::MAX);
        while Instant::now() < end {
            // Answers to younger probes may still be on their way.
            let until = realtime_ns().saturating_sub(300_000_000);
            let from = until.saturating_sub(settle);
            if from >= since && is_steady(&lock(&self.probes), from, until) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("the probes were not steadily answered within {timeout:?}")
    }

    /// Waits half a second for late answers and returns all probes.
    pub fn stop(mut self) -> Probes {
        self.sender.end();
        let end = Instant::now() + LATE;
        thread::sleep(Duration::from_millis(500));
        let waits = |probes: &[Probe]| probes.last().is_some_and(|probe| probe.received.is_none());
        while Instant::now() < end && waits(&lock(&self.probes)) {
            thread::sleep(Duration::from_millis(20));
        }
        self.receiver.end();
        Probes { probes: std::mem::take(&mut *lock(&self.probes)) }
    }
}

fn is_steady(probes: &[Probe], from: u64, until: u64) -> bool {
    let window = probes.iter().rev().skip_while(|p| p.sent > until).take_while(|p| p.sent >= from);
    let (mut sent, mut lost) = (0, 0);
    for probe in window {
        sent += 1;
        lost += usize::from(probe.received.is_none());
    }
    sent > 0 && lost * 50 <= sent
}

fn lock(probes: &Mutex<Vec<Probe>>) -> std::sync::MutexGuard<'_, Vec<Probe>> {
    probes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The schedule is absolute: a late wake-up does not shift the probes after it, and its lateness is recorded.
fn send(socket: &UdpSocket, interval: Duration, stop: &AtomicBool, probes: &Mutex<Vec<Probe>>) {
    let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(100_000);
    let start = monotonic_ns() + interval;
    for number in 0..MAX_PROBES as u64 {
        let due = start + number * interval;
        let at = TimeSpec::from_duration(Duration::from_nanos(due));
        while clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &at)
            .is_err()
        {}
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut packet = [0; PROBE_LEN];
        packet[..8].copy_from_slice(&number.to_be_bytes());
        let lateness_ns = monotonic_ns().saturating_sub(due);
        // In the list before it is sent: the answer may come first.
        lock(probes).push(Probe { sent: realtime_ns(), lateness_ns, received: None });
        // A refused send (no route, interface down, queue full) is a lost probe.
        let _ = nix::sys::socket::send(socket.as_raw_fd(), &packet, MsgFlags::MSG_DONTWAIT);
    }
}

fn receive(socket: &UdpSocket, stop: &AtomicBool, probes: &Mutex<Vec<Probe>>) {
    let mut space = nix::cmsg_space!(TimeSpec);
    let mut packet = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        let mut iov = [IoSliceMut::new(&mut packet)];
        let message = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut iov,
            Some(&mut space),
            MsgFlags::empty(),
        );
        let Ok(message) = message else { continue };
        let stamp = message.cmsgs().ok().and_then(|mut all| {
            all.find_map(|c| match c {
                ControlMessageOwned::ScmTimestampns(t) => {
                    u64::try_from(Duration::from(t).as_nanos()).ok()
                }
                _ => None,
            })
        });
        let number = packet.first_chunk::<8>().map_or(u64::MAX, |b| u64::from_be_bytes(*b));
        let mut probes = lock(probes);
        if let Some(probe) = usize::try_from(number).ok().and_then(|n| probes.get_mut(n)) {
            // The first answer counts; a duplicate is later.
            probe.received = probe.received.or(stamp).or_else(|| Some(realtime_ns()));
        }
    }
}
