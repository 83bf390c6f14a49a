//! A man in the middle: heartbeats between members pass through a program that delays, drips, drops, reorders, duplicates, cuts and damages
//! them, and keeps them to play them again. He has no key.
//!
//! He sits in the switch. It drops heartbeats ([`Filter`]); a packet socket gets each of them before that, and
//! sends what becomes of it out of the port of the member that it was for.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::fault::{FaultId, Filter};
use crate::lab::Lab;
use crate::topology::HEARTBEAT_PORT;

/// Ethernet, IPv4 without options, UDP.
const HEADERS: usize = 14 + 20 + 8;
/// Frames that wait; what comes beyond is lost.
const MOST_WAITING: usize = 10_000;
/// Frames that are kept.
const MOST_KEPT: usize = 10_000;
/// `sll_pkttype` of a frame that this machine sent.
const PACKET_OUTGOING: u8 = 4;

type Mac = [u8; 6];

/// What becomes of each heartbeat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Manner {
    /// It passes.
    Pass,
    /// It comes so much later.
    Delay(Duration),
    /// To each member only one comes in this time, in order; the others wait, and come later and later.
    Drip(Duration),
    /// So many of a hundred are lost.
    Drop(u8),
    /// Every second one comes so much later: others overtake it.
    Reorder(Duration),
    /// It comes once more, so much later.
    Duplicate(Duration),
    /// It comes behind a copy of which the end is missing.
    Truncate,
    /// It comes behind a copy of which one bit is another.
    Flip,
    /// Only a copy comes: one bit of it is another, or its end is missing, in turn.
    Spoil,
}

/// A heartbeat as it was sent.
#[derive(Debug, Clone)]
pub struct Frame(Vec<u8>);

impl Frame {
    fn to(&self) -> Mac {
        mac_at(&self.0, 0)
    }

    fn from(&self) -> Mac {
        mac_at(&self.0, 6)
    }
}

fn mac_at(frame: &[u8], at: usize) -> Mac {
    frame.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default()
}

struct State {
    manner: Manner,
    kept: Vec<Frame>,
    waiting: Vec<(Instant, Frame)>,
    meddled: u64,
    stop: bool,
}

/// Runs until it is stopped.
pub struct Eve {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<Result<()>>>,
    filter: FaultId,
}

impl Eve {
    /// From now on the heartbeats between all members pass through here, at first as they are. Not so what answers a heartbeat
    /// that went to a floating IP: it goes to another port than theirs, the filter drops it, and nobody brings it. On that path,
    /// one of several, each hears only what the other begins.
    ///
    /// # Errors
    /// Without the right to open a packet socket, or when `nft` refuses.
    pub fn start(lab: &Lab) -> Result<Eve> {
        let members = lab.members().map(|node| crate::capture::parse(&crate::mac(node, "eth0")?));
        let members: Vec<Mac> = members.collect::<Result<_>>()?;
        let names: Vec<String> = lab.members().map(|node| node.name().to_owned()).collect();
        let state = Arc::new(Mutex::new(State {
            manner: Manner::Pass,
            kept: Vec::new(),
            waiting: Vec::new(),
            meddled: 0,
            stop: false,
        }));
        let socket = lab.switch().run(open)?;
        let shared = Arc::clone(&state);
        let thread = lab.switch().thread(move || Wire::new(socket, members).forward(&shared));
        let between = Filter { from: names.clone(), to: names, ..Filter::loss(100).heartbeats() };
        let filter = lab.inject(vec![between])?;
        Ok(Eve { state, thread: Some(thread), filter })
    }

    /// What becomes of heartbeats from now on. What waits still comes when it is due.
    pub fn set(&self, manner: Manner) {
        lock(&self.state).manner = manner;
    }

    /// All heartbeats so far, the last 10,000 at most.
    pub fn kept(&self) -> Vec<Frame> {
        lock(&self.state).kept.clone()
    }

    /// Sends these once more, a thousand a second.
    pub fn replay(&self, frames: &[Frame]) {
        let mut state = lock(&self.state);
        let (now, step) = (Instant::now(), Duration::from_millis(1));
        for (at, frame) in frames.iter().enumerate() {
            state.wait(now + step * u32::try_from(at).unwrap_or(u32::MAX), frame.clone());
        }
    }

    /// How many datagrams did not pass as they were sent, or were sent again.
    pub fn meddled(&self) -> u64 {
        lock(&self.state).meddled
    }

    /// Lets heartbeats pass by the switch again.
    ///
    /// # Errors
    /// When `nft` refuses, or forwarding failed.
    pub fn stop(mut self, lab: &Lab) -> Result<()> {
        lab.heal(self.filter)?;
        self.end().map_or(Ok(()), |ended| ended.map_err(|_| anyhow::anyhow!("eve panicked"))?)
    }

    fn end(&mut self) -> Option<std::thread::Result<Result<()>>> {
        lock(&self.state).stop = true;
        self.thread.take().map(JoinHandle::join)
    }
}

impl Drop for Eve {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn wait(&mut self, due: Instant, frame: Frame) {
        self.meddled += 1;
        if self.waiting.len() < MOST_WAITING {
            self.waiting.push((due, frame));
        }
    }

    /// What is to be sent now, in the order in which it is due.
    fn due(&mut self, now: Instant) -> Vec<Frame> {
        let mut due: Vec<_> = self.waiting.extract_if(.., |(at, _)| *at <= now).collect();
        due.sort_by_key(|(at, _)| *at);
        due.into_iter().map(|(_, frame)| frame).collect()
    }
}

/// The thread's own.
struct Wire {
    socket: OwnedFd,
    members: Vec<Mac>,
    /// The switch's port of each member, known from what it sends.
    ports: BTreeMap<Mac, LinkAddr>,
    /// When the next drop drips to each member.
    drips: BTreeMap<Mac, Instant>,
    count: u64,
}

impl Wire {
    fn new(socket: OwnedFd, members: Vec<Mac>) -> Wire {
        Wire { socket, members, ports: BTreeMap::new(), drips: BTreeMap::new(), count: 0 }
    }

    fn forward(mut self, shared: &Mutex<State>) -> Result<()> {
        let mut buffer = [0; 2048];
        loop {
            let came = self.receive(&mut buffer);
            let mut state = lock(shared);
            if state.stop {
                return Ok(());
            }
            let mut out = state.due(Instant::now());
            if let Some(frame) = came {
                if state.kept.len() == MOST_KEPT {
                    state.kept.remove(0);
                }
                state.kept.push(frame.clone());
                out.extend(self.deal_with(&mut state, frame));
            }
            drop(state);
            out.iter().for_each(|frame| self.send(frame));
        }
    }

    /// A heartbeat of a member for another.
    fn receive(&mut self, buffer: &mut [u8]) -> Option<Frame> {
        let mut iov = [IoSliceMut::new(buffer)];
        let descriptor = self.socket.as_raw_fd();
        let message = recvmsg::<LinkAddr>(descriptor, &mut iov, None, MsgFlags::empty()).ok()?;
        let (length, address) = (message.bytes, message.address?);
        let frame = Frame(buffer.get(..length)?.to_vec());
        let ours = |mac: &Mac| self.members.contains(mac);
        if address.pkttype() == PACKET_OUTGOING || !ours(&frame.from()) {
            return None;
        }
        self.ports.insert(frame.from(), address);
        (is_heartbeat(&frame.0) && ours(&frame.to())).then_some(frame)
    }

    /// What is sent of it at once; the rest waits.
    fn deal_with(&mut self, state: &mut State, frame: Frame) -> Vec<Frame> {
        self.count += 1;
        let now = Instant::now();
        match state.manner {
            Manner::Pass => return vec![frame],
            Manner::Delay(by) => state.wait(now + by, frame),
            Manner::Drip(gap) => {
                let last = self.drips.get(&frame.to()).map_or(now, |at| *at + gap);
                self.drips.insert(frame.to(), last.max(now));
                state.wait(last.max(now), frame);
            }
            Manner::Drop(percent) if fastrand::u8(0..100) < percent => state.meddled += 1,
            Manner::Drop(_) => return vec![frame],
            Manner::Reorder(by) if self.count.is_multiple_of(2) => state.wait(now + by, frame),
            Manner::Reorder(_) => return vec![frame],
            Manner::Duplicate(by) => {
                state.wait(now + by, frame.clone());
                return vec![frame];
            }
            Manner::Truncate => {
                state.meddled += 1;
                return vec![truncated(&frame), frame];
            }
            Manner::Flip => {
                state.meddled += 1;
                return vec![flipped(&frame), frame];
            }
            Manner::Spoil => {
                state.meddled += 1;
                let spoil = if self.count.is_multiple_of(2) { flipped } else { truncated };
                return vec![spoil(&frame)];
            }
        }
        Vec::new()
    }

    /// To a port that is not known, or whose queue is full, nothing is sent.
    fn send(&self, frame: &Frame) {
        if let Some(port) = self.ports.get(&frame.to()) {
            let bytes = without_checksum(&frame.0);
            let _ = sendto(self.socket.as_raw_fd(), &bytes, port, MsgFlags::empty());
        }
    }
}

fn open() -> Result<OwnedFd> {
    let (family, all) = (AddressFamily::Packet, SockProtocol::EthAll);
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, all).context("eve")?;
    setsockopt(&socket, sockopt::RcvBuf, &(4 << 20))?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 2_000))?;
    Ok(socket)
}

/// IPv4 without options, UDP to the heartbeat's port.
fn is_heartbeat(frame: &[u8]) -> bool {
    frame.get(12..15) == Some(&[8, 0, 0x45])
        && frame.get(23) == Some(&17)
        && frame.get(36..38) == Some(&HEARTBEAT_PORT.to_be_bytes()[..])
        && frame.len() > HEADERS
}

/// The kernel leaves UDP's checksum to hardware that is not there; zero is none.
fn without_checksum(frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    if let Some(checksum) = bytes.get_mut(40..42) {
        checksum.fill(0);
    }
    bytes
}

/// A part of the datagram, whole as a packet.
fn truncated(frame: &Frame) -> Frame {
    let payload = frame.0.len() - HEADERS;
    let mut bytes = frame.0.clone();
    bytes.truncate(HEADERS + fastrand::usize(0..payload));
    let length = u16::try_from(bytes.len() - 14).unwrap_or(u16::MAX);
    bytes[16..18].copy_from_slice(&length.to_be_bytes());
    bytes[38..40].copy_from_slice(&(length - 20).to_be_bytes());
    bytes[24..26].fill(0);
    let sum = checksum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    Frame(bytes)
}

fn flipped(frame: &Frame) -> Frame {
    let mut bytes = frame.0.clone();
    let at = fastrand::usize(HEADERS..bytes.len());
    bytes[at] ^= 1 << fastrand::u8(0..8);
    Frame(bytes)
}

/// Of an IPv4 header.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat() -> Frame {
        let mut bytes = vec![1; HEADERS + 100];
        bytes[12..14].copy_from_slice(&[8, 0]);
        bytes[14..34].copy_from_slice(&[
            0x45, 0, 0, 128, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ]);
        bytes[36..38].copy_from_slice(&HEARTBEAT_PORT.to_be_bytes());
        Frame(bytes)
    }

    #[test]
    fn a_truncated_packet_is_a_whole_one_of_less() {
        for _ in 0..100 {
            let frame = truncated(&heartbeat());
            let length = u16::from_be_bytes([frame.0[16], frame.0[17]]);
            assert_eq!(usize::from(length), frame.0.len() - 14);
            assert_eq!(u16::from_be_bytes([frame.0[38], frame.0[39]]), length - 20);
            assert_eq!(checksum(&frame.0[14..34]), 0, "a sum with its checksum is zero");
            assert!(frame.0.len() < heartbeat().0.len());
        }
    }

    #[test]
    fn one_bit_behind_the_headers_is_another() {
        let (was, is) = (heartbeat(), flipped(&heartbeat()));
        let bits: u32 = was.0.iter().zip(&is.0).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!((bits, &was.0[..HEADERS]), (1, &is.0[..HEADERS]));
    }

    #[test]
    fn only_heartbeats_are_dealt_with() {
        let mut frame = heartbeat().0;
        assert!(is_heartbeat(&frame));
        frame[37] ^= 1;
        assert!(!is_heartbeat(&frame));
        assert!(!is_heartbeat(&frame[..HEADERS]));
    }
}
