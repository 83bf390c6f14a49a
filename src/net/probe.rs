//! Asks a neighbour whether it is there: ARP requests and neighbour solicitations, and their answers.
//!
//! The kernel's own neighbour table is no help here: it asks when it has something to send, and
//! keeps an answer for minutes. Filters in the kernel pass answers alone, so traffic costs nothing.
//!
//! ```text
//!  0    2    4  5  6    8        14    18        24    28
//! +----+----+--+--+----+--------+-----+---------+-----+
//! |0001|0800|06|04|op  |my MAC  |my IP|00:00... |whom |    request: op 1, broadcast
//! +----+----+--+--+----+--------+-----+---------+-----+
//! |0001|0800|06|04|op  |its MAC |it   |my MAC   |my IP|    reply: op 2
//! +----+----+--+--+----+--------+-----+---------+-----+
//! ```
//! IPv6: a solicitation to the solicited-node address (RFC 4861 §4.3) with hop limit 255 and my
//! link-layer address; the answer is an advertisement with the solicited flag, and hop limit 255.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    ControlMessage, LinkAddr, MsgFlags, SockaddrIn6, recvfrom, sendmsg, sendto,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::raw::{Instruction, attach_filter, link_address, readable};

/// Whom to ask, from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The kernel's number of the interface.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// An address of this machine on it, of the family of `whom`: the sender.
    pub from: IpAddr,
    /// Whose answer is wanted.
    pub whom: IpAddr,
}

/// An answer that somebody gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where it came in; `None` if the kernel does not say.
    pub index: Option<u32>,
    /// Who answers, as it says itself.
    pub who: IpAddr,
    /// Its Ethernet address, if it says so.
    pub mac: Option<[u8; 6]>,
    /// Whom it answers: the sender of the request, in ARP.
    pub to: Option<IpAddr>,
}

impl Answer {
    /// Whether this answers that question. `own`: Ethernet addresses of this machine, whose answers
    /// prove nothing.
    #[must_use]
    pub fn answers(&self, question: &Question, own: &[[u8; 6]]) -> bool {
        self.who == question.whom
            && self.index.is_none_or(|index| index == question.index)
            && self.to.is_none_or(|to| to == question.from)
            && self.mac.is_none_or(|mac| !own.contains(&mac))
    }
}

/// The sockets that ask and hear answers. They belong to the network namespace of the thread that
/// opened them.
#[derive(Debug)]
pub struct Sockets {
    arp: AsyncFd<OwnedFd>,
    /// `None` where the kernel has no IPv6.
    icmp: Option<AsyncFd<OwnedFd>>,
}

impl Sockets {
    /// Opens them, inside a tokio runtime.
    ///
    /// # Errors
    /// The process may not (`CAP_NET_RAW`), or the kernel has no packet sockets.
    pub fn open() -> io::Result<Sockets> {
        let icmp = match open_icmp() {
            Ok(socket) => Some(readable(socket)?),
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(e) => return Err(e),
        };
        Ok(Sockets { arp: readable(open_arp()?)?, icmp })
    }

    /// Asks at once, or not at all.
    ///
    /// # Errors
    /// The frame was not sent: the interface is down or gone, its queue is full, or the address is
    /// not there any more.
    pub fn ask(&self, question: &Question) -> io::Result<()> {
        match (question.from, question.whom) {
            (IpAddr::V4(from), IpAddr::V4(whom)) => {
                let to = link_address(question.index, ETH_ARP, BROADCAST);
                let to = to.ok_or(io::ErrorKind::InvalidInput)?;
                let request = arp_request(question.mac, from, whom);
                let flags = MsgFlags::MSG_DONTWAIT;
                sendto(self.arp.get_ref().as_raw_fd(), &request, &to, flags)?;
                Ok(())
            }
            (IpAddr::V6(from), IpAddr::V6(whom)) => self.solicit(question, from, whom),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn solicit(&self, question: &Question, from: Ipv6Addr, whom: Ipv6Addr) -> io::Result<()> {
        let icmp = self.icmp.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let to = SocketAddrV6::new(solicited_node(whom), 0, 0, question.index);
        let source = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
            ipi6_ifindex: question.index,
        };
        sendmsg(
            icmp.get_ref().as_raw_fd(),
            &[IoSlice::new(&solicitation(question.mac, whom))],
            &[ControlMessage::Ipv6PacketInfo(&source)],
            MsgFlags::MSG_DONTWAIT,
            Some(&SockaddrIn6::from(to)),
        )?;
        Ok(())
    }

    /// The next answer, to whatever question. Safe to cancel.
    ///
    /// # Errors
    /// A socket failed; it may work again.
    pub async fn answer(&self) -> io::Result<Answer> {
        tokio::select! {
            answer = read(&self.arp, read_arp) => answer,
            answer = async {
                match &self.icmp {
                    Some(icmp) => read(icmp, read_icmp).await,
                    None => std::future::pending().await,
                }
            } => answer,
        }
    }
}

/// Reads until something is an answer.
async fn read(
    socket: &AsyncFd<OwnedFd>,
    one: fn(&OwnedFd) -> io::Result<Option<Answer>>,
) -> io::Result<Answer> {
    loop {
        let mut ready = socket.readable().await?;
        match ready.try_io(|socket| one(socket.get_ref())) {
            Ok(Ok(Some(answer))) => return Ok(answer),
            Ok(Ok(None)) | Err(_) => {}
            Ok(Err(e)) => return Err(e),
        }
        // A flood of them must not keep other tasks from running.
        tokio::task::yield_now().await;
    }
}

fn read_arp(socket: &OwnedFd) -> io::Result<Option<Answer>> {
    let mut bytes = [0; 64];
    let (length, from) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut bytes)?;
    let index = from.and_then(|from| u32::try_from(from.ifindex()).ok());
    Ok(bytes.get(..length).and_then(parse_arp).map(|answer| Answer { index, ..answer }))
}

fn read_icmp(socket: &OwnedFd) -> io::Result<Option<Answer>> {
    let mut bytes = [0; 256];
    let (length, from) = recvfrom::<SockaddrIn6>(socket.as_raw_fd(), &mut bytes)?;
    // Given for link-local senders alone.
    let index = from.map(|from| from.scope_id()).filter(|index| *index != 0);
    let answer = bytes.get(..length).and_then(parse_advertisement);
    Ok(answer.map(|answer| Answer { index, ..answer }))
}

fn open_arp() -> io::Result<OwnedFd> {
    let protocol = Protocol::from(i32::from(ETH_ARP.to_be()));
    let socket =
        Socket::new(Domain::from(libc::AF_PACKET), Type::from(libc::SOCK_DGRAM), Some(protocol))?;
    // Replies alone.
    attach_filter(&socket, &[load_half(6), unless_equal(2, 1), PASS, DROP])?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn open_icmp() -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::IPV6, Type::from(libc::SOCK_RAW), Some(Protocol::ICMPV6))?;
    // Advertisements alone, and none that a router passed on.
    let program = [
        load_byte(0),
        unless_equal(u32::from(ADVERTISEMENT), 3),
        load_byte(NETWORK_HEADER + 7),
        unless_equal(255, 1),
        PASS,
        DROP,
    ];
    attach_filter(&socket, &program)?;
    socket.set_multicast_hops_v6(255)?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

const ETH_ARP: u16 = 0x0806;
const BROADCAST: [u8; 6] = [0xff; 6];

fn arp_request(mac: [u8; 6], from: Ipv4Addr, whom: Ipv4Addr) -> [u8; 28] {
    let mut request = [0; 28];
    request[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    request[8..14].copy_from_slice(&mac);
    request[14..18].copy_from_slice(&from.octets());
    request[24..].copy_from_slice(&whom.octets());
    request
}

/// A reply, for Ethernet and IPv4.
fn parse_arp(bytes: &[u8]) -> Option<Answer> {
    let bytes: &[u8; 28] = bytes.first_chunk()?;
    if bytes[..8] != [0, 1, 8, 0, 6, 4, 0, 2] {
        return None;
    }
    let ip = |at: usize| {
        let octets: Option<&[u8; 4]> = bytes.get(at..).and_then(<[u8]>::first_chunk);
        octets.map(|octets| IpAddr::from(*octets))
    };
    let mac = bytes.get(8..).and_then(<[u8]>::first_chunk).copied();
    Some(Answer { index: None, who: ip(14)?, mac, to: ip(24) })
}

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Options: the sender's, and the target's link-layer address.
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// Flag of an advertisement: it answers a solicitation.
const SOLICITED: u8 = 0x40;

/// Where a node listens for solicitations (RFC 4291 §2.7.1).
fn solicited_node(whom: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = whom.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

/// The kernel adds the checksum.
fn solicitation(mac: [u8; 6], whom: Ipv6Addr) -> [u8; 32] {
    let mut message = [0; 32];
    message[0] = SOLICITATION;
    message[8..24].copy_from_slice(&whom.octets());
    message[24..26].copy_from_slice(&[SOURCE_LINK_LAYER, 1]);
    message[26..].copy_from_slice(&mac);
    message
}

/// An advertisement that answers a solicitation; its checksum was the kernel's to check.
fn parse_advertisement(bytes: &[u8]) -> Option<Answer> {
    let (head, mut options): (&[u8; 24], _) = bytes.split_first_chunk()?;
    if head[0] != ADVERTISEMENT || head[4] & SOLICITED == 0 {
        return None;
    }
    let target: [u8; 16] = *head.last_chunk()?;
    let mut mac = None;
    // Options are in units of 8 bytes; one of none would never end.
    while let [kind, units, ..] = options
        && *units > 0
    {
        let (option, rest) = options.split_at_checked(usize::from(*units) * 8)?;
        if *kind == TARGET_LINK_LAYER {
            mac = option.get(2..).and_then(<[u8]>::first_chunk).copied();
        }
        options = rest;
    }
    Some(Answer { index: None, who: IpAddr::from(target), mac, to: None })
}

/// What a filter returns: all bytes of the packet, or none.
const PASS: Instruction =
    Instruction { code: 0x06, jump_true: 0, jump_false: 0, operand: u32::MAX };
const DROP: Instruction = Instruction { code: 0x06, jump_true: 0, jump_false: 0, operand: 0 };
/// Offsets from here on are into the IP header (`SKF_NET_OFF`).
const NETWORK_HEADER: u32 = 0xfff0_0000;

const fn load_byte(operand: u32) -> Instruction {
    Instruction { code: 0x30, jump_true: 0, jump_false: 0, operand }
}

const fn load_half(operand: u32) -> Instruction {
    Instruction { code: 0x28, jump_true: 0, jump_false: 0, operand }
}

/// Skips instructions unless what was loaded is this number.
const fn unless_equal(operand: u32, skip: u8) -> Instruction {
    Instruction { code: 0x15, jump_true: 0, jump_false: skip, operand }
}

#[cfg(test)]
mod tests;
