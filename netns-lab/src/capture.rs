//! Hears at the switch, on one clock, what each gateway sends that only a master may send.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType,
    recvmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal};

use crate::lab::Lab;
use crate::topology::{self, WG_PORT};

/// A frame of WireGuard, or one that says who has a floating IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MasterFrame {
    /// When the switch got it: CLOCK_REALTIME, nanoseconds.
    pub at: u64,
    /// Which gateway sent it, from 0.
    pub gateway: usize,
}

/// Listens until it is stopped.
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<MasterFrame>>>,
}

impl Capture {
    /// Starts listening.
    ///
    /// # Errors
    /// Without the right to open a packet socket.
    pub fn start(lab: &Lab) -> Result<Capture> {
        let macs = lab.gateways().iter().map(|gateway| parse(&crate::mac(gateway, "eth0")?));
        let macs: Vec<[u8; 6]> = macs.collect::<Result<_>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        // Open before this returns: nothing that is done next is missed.
        let socket = lab.switch().run(open)?;
        let thread = lab.switch().thread(move || listen(&socket, &macs, &stopped));
        Ok(Capture { stop, thread })
    }

    /// Stops, and returns everything in the order of time. A frame may be in it several times: once for each port of the
    /// switch that it passes.
    ///
    /// # Errors
    /// When a frame came without its time, or the kernel had no room for one: what it was nobody knows.
    pub fn stop(self) -> Result<Vec<MasterFrame>> {
        self.stop.store(true, Ordering::Relaxed);
        let heard = self.thread.join().map_err(|_| anyhow::anyhow!("the listener panicked"))?;
        let mut heard = heard?;
        heard.sort_by_key(|h| h.at);
        Ok(heard)
    }
}

pub(crate) fn parse(mac: &str) -> Result<[u8; 6]> {
    let bytes = mac.split(':').map(|b| u8::from_str_radix(b, 16));
    let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().with_context(|| mac.to_owned())?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("{mac} is no MAC"))
}

fn open() -> Result<OwnedFd> {
    let (family, all) = (AddressFamily::Packet, SockProtocol::EthAll);
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, all)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    // Beyond rmem_max, where root is no user namespace's.
    if setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20)).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &(8 << 20))?;
    }
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000))?;
    Ok(socket)
}

fn listen(socket: &OwnedFd, macs: &[[u8; 6]], stop: &AtomicBool) -> Result<Vec<MasterFrame>> {
    let mut heard = Vec::new();
    let mut space = nix::cmsg_space!(TimeSpec);
    let mut frame = [0; 128];
    while !stop.load(Ordering::Relaxed) {
        let mut iov = [IoSliceMut::new(&mut frame)];
        let (descriptor, flags) = (socket.as_raw_fd(), MsgFlags::empty());
        let Ok(message) = recvmsg::<LinkAddr>(descriptor, &mut iov, Some(&mut space), flags) else {
            continue;
        };
        let stamp = message.cmsgs()?.find_map(|c| match c {
            ControlMessageOwned::ScmTimestampns(t) => {
                u64::try_from(Duration::from(t).as_nanos()).ok()
            }
            _ => None,
        });
        let len = message.bytes.min(frame.len());
        let frame = &frame[..len];
        let Some(gateway) = macs.iter().position(|mac| frame.get(6..12) == Some(mac)) else {
            continue;
        };
        if is_masters(frame) {
            heard.push(MasterFrame { at: stamp.context("a frame without its time")?, gateway });
        }
    }
    nothing_lost(socket)?;
    Ok(heard)
}

fn nothing_lost(socket: &OwnedFd) -> Result<()> {
    let lost = crate::sys::packets_dropped(socket.as_fd())?;
    ensure!(lost == 0, "the capture missed {lost} frames, and a second master's may be among them");
    Ok(())
}

/// WireGuard's packets; ARP and neighbour advertisements of a floating IP. Ethernet II, no VLAN, no IPv6 extension headers:
/// nothing else is sent in the lab.
fn is_masters(frame: &[u8]) -> bool {
    let vip = topology::floating();
    let from = |at: usize| frame.get(at..at + 2) == Some(&WG_PORT.to_be_bytes()[..]);
    let Some((&kind, packet)) = frame.get(12..).and_then(|rest| rest.split_first_chunk::<2>())
    else {
        return false;
    };
    match (kind, packet.first()) {
        ([0x08, 0x06], _) => packet.get(14..18) == Some(&vip.v4.octets()[..]),
        ([0x08, 0x00], Some(first)) => {
            packet.get(9) == Some(&17) && from(14 + usize::from(first & 15) * 4)
        }
        ([0x86, 0xdd], Some(_)) => {
            let advertises =
                packet.get(40) == Some(&136) && packet.get(48..64) == Some(&vip.v6.octets()[..]);
            match packet.get(6) {
                Some(17) => from(14 + 40),
                Some(58) => advertises,
                _ => false,
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_without_room_is_noticed() {
        crate::enter_user_namespace().unwrap();
        let lab = Lab::builder().build().unwrap();
        let lost = lab.switch().run(|| {
            let socket = open().unwrap();
            setsockopt(&socket, sockopt::RcvBuf, &0).unwrap();
            nothing_lost(&socket).unwrap();
            let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            for _ in 0..100 {
                sender.send_to(&[0; 1000], "127.0.0.1:9").unwrap();
            }
            nothing_lost(&socket).unwrap_err().to_string()
        });
        assert!(lost.starts_with("the capture missed "), "{lost}");
    }

    #[test]
    fn what_only_a_master_sends() {
        let (mac, vip) = ([2; 12], topology::floating());
        let arp = |sender: [u8; 4]| [&mac[..], &[8, 6], &[0; 14], &sender, &[0; 10]].concat();
        assert!(is_masters(&arp(vip.v4.octets())));
        assert!(!is_masters(&arp([10, 0, 0, 1])));
        let udp = |port: u16| {
            let mut packet = [0; 28];
            (packet[0], packet[9]) = (0x45, 17);
            packet[20..22].copy_from_slice(&port.to_be_bytes());
            [&mac[..], &[8, 0], &packet].concat()
        };
        assert!(is_masters(&udp(WG_PORT)));
        assert!(!is_masters(&udp(5112)));
        let advert = |target: [u8; 16]| {
            let mut packet = [0; 64];
            (packet[0], packet[6], packet[40]) = (0x60, 58, 136);
            packet[48..].copy_from_slice(&target);
            [&mac[..], &[0x86, 0xdd], &packet].concat()
        };
        assert!(is_masters(&advert(vip.v6.octets())));
        assert!(!is_masters(&advert([1; 16])));
        assert!(!is_masters(&[0; 13]));
    }
}
