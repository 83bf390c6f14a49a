//! Tells the network where a floating IP is now: ARP and neighbour advertisements.
//!
//! ARP in both forms, because some machines only learn from requests and some only from replies:
//!
//! ```text
//!  0        6        12    14   16   18 19 20  22       28       32       38       42
//! +--------+--------+-----+----+----+--+--+---+--------+--------+--------+--------+
//! |ff:ff.. |my MAC  |0806 |0001|0800|06|04|op |my MAC  |VIP     |target  |VIP     |
//! +--------+--------+-----+----+----+--+--+---+--------+--------+--------+--------+
//!   request: op 1, target 00:00..;  reply: op 2, target my MAC (RFC 5944 §4.6)
//! ```
//!
//! IPv6: an unsolicited neighbour advertisement to ff02::1 with the override flag and the target
//! link-layer address option (RFC 4861 §4.4, §7.2.6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use pnet::datalink::{
    self, Channel, ChannelType, Config, DataLinkSender, MacAddr, NetworkInterface,
};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::util::ipv6_checksum;
use tokio::sync::oneshot;

use super::{Link, NetError, Netlink};
use crate::config::FloatingIp;

/// Bound of one burst, all interfaces together.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Bound of one frame.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);

type Sender = Box<dyn DataLinkSender>;

/// Announces every floating IP once, all forms. Returns the number of frames sent.
///
/// Interfaces that are missing, down or without Ethernet address are skipped: nobody is there to
/// be told. The caller repeats it: after a second, then at a slow refresh.
///
/// # Errors
/// [`NetError::Announce`] for the first interface that failed (the others were served);
/// the kernel refused or did not answer.
pub async fn burst(netlink: &Netlink, ips: &[FloatingIp]) -> Result<usize, NetError> {
    let mut links: Vec<Link> = Vec::new();
    for ip in ips {
        if !links.iter().any(|link| link.name == ip.interface) {
            links.extend(netlink.link(&ip.interface).await?);
        }
    }
    burst_on(&links, ips).await
}

/// The same, where the interfaces were looked at before.
///
/// # Errors
/// As [`burst`].
pub async fn burst_on(links: &[Link], ips: &[FloatingIp]) -> Result<usize, NetError> {
    let mut work: Vec<(Link, Vec<Vec<u8>>)> = Vec::new();
    for ip in ips {
        let Some(link) = links.iter().find(|link| link.name == ip.interface) else { continue };
        let Some(mac) = link.mac.filter(|_| link.up) else { continue };
        let frames = frames(mac, ip.address.addr(), is_router(&ip.interface));
        match work.iter_mut().find(|(known, _)| known.index == link.index) {
            Some((_, list)) => list.extend(frames),
            None => work.push((link.clone(), frames)),
        }
    }
    if work.is_empty() {
        return Ok(0);
    }
    let (done, sent) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        // Opening a packet socket and writing to it block, if only for microseconds. Closing it
        // waits for a grace period of the kernel (packet_release calls synchronize_net), 10-20 ms
        // that a takeover does not have: the answer goes first.
        let mut open = Vec::new();
        // Whoever waited has given up.
        let _ = done.send(send_all(&work, &mut open));
    });
    match tokio::time::timeout(TIMEOUT, sent).await {
        Ok(Ok(result)) => result,
        _ => Err(NetError::NoAnswer("announce floating IPs".to_owned())),
    }
}

/// Whether this machine forwards IPv6 from there. Hosts drop a router that says it is none
/// (RFC 4861 §7.2.5), so announcements say what the kernel's own answers say.
fn is_router(interface: &str) -> bool {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/forwarding");
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() != "0")
}

/// The frames that announce `ip` at `mac`.
fn frames(mac: [u8; 6], ip: IpAddr, router: bool) -> Vec<Vec<u8>> {
    match ip {
        IpAddr::V4(ip) => vec![arp(mac, ip, ArpForm::Request), arp(mac, ip, ArpForm::Reply)],
        IpAddr::V6(ip) => vec![neighbour_advertisement(mac, ip, router)],
    }
}

/// The channels are left in `open`, for the caller to close.
fn send_all(work: &[(Link, Vec<Vec<u8>>)], open: &mut Vec<Sender>) -> Result<usize, NetError> {
    let (mut sent, mut first_error) = (0, None);
    for (link, frames) in work {
        match send(link, frames, open) {
            Ok(()) => sent += frames.len(),
            Err(source) => {
                let interface = link.name.clone();
                first_error.get_or_insert(NetError::Announce { interface, source });
            }
        }
    }
    first_error.map_or(Ok(sent), Err)
}

fn send(link: &Link, frames: &[Vec<u8>], open: &mut Vec<Sender>) -> std::io::Result<()> {
    let mut channel = open_channel(link)?;
    let result = frames.iter().try_for_each(|frame| send_frame(channel.as_mut(), frame));
    open.push(channel);
    result
}

fn send_frame(channel: &mut dyn DataLinkSender, frame: &[u8]) -> std::io::Result<()> {
    // `None`: the channel's buffer is smaller than the frame, which it is not.
    match channel.send_to(frame, None).unwrap_or(Ok(())) {
        // Frozen and thawed while waiting; the frame was not sent.
        Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {
            channel.send_to(frame, None).unwrap_or(Ok(()))
        }
        other => other,
    }
}

fn open_channel(link: &Link) -> std::io::Result<Sender> {
    let interface = NetworkInterface {
        name: link.name.clone(),
        description: String::new(),
        index: link.index,
        mac: link.mac.map(MacAddr::from),
        ips: Vec::new(),
        flags: 0,
    };
    let config = Config {
        // The default would put the interface into promiscuous mode for a moment.
        promiscuous: false,
        write_timeout: Some(WRITE_TIMEOUT),
        channel_type: ChannelType::Layer2,
        ..Config::default()
    };
    match datalink::channel(&interface, config)? {
        Channel::Ethernet(sender, _receiver) => Ok(sender),
        _ => Err(std::io::Error::other("not an Ethernet channel")),
    }
}

const BROADCAST: [u8; 6] = [0xff; 6];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ArpForm {
    Request,
    Reply,
}

fn arp(mac: [u8; 6], ip: Ipv4Addr, form: ArpForm) -> Vec<u8> {
    let (operation, target): (u8, [u8; 6]) = match form {
        ArpForm::Request => (1, [0; 6]),
        // Linux believes a gratuitous reply at once only if both hardware addresses agree.
        ArpForm::Reply => (2, mac),
    };
    let mut frame = Vec::with_capacity(42);
    frame.extend(BROADCAST);
    frame.extend(mac);
    frame.extend([0x08, 0x06]);
    // Ethernet, IPv4, their lengths, operation.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, operation]);
    frame.extend(mac);
    frame.extend(ip.octets());
    frame.extend(target);
    frame.extend(ip.octets());
    frame
}

/// ff02::1 and the Ethernet address that it maps to (RFC 2464 §7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
/// Flags of an advertisement; the third one, solicited, stays 0.
const ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;

fn neighbour_advertisement(mac: [u8; 6], ip: Ipv6Addr, router: bool) -> Vec<u8> {
    let flags = if router { ROUTER | OVERRIDE } else { OVERRIDE };
    let mut message = Vec::with_capacity(32);
    // Type 136, code 0, checksum (below), flags.
    message.extend([136, 0, 0, 0, flags, 0, 0, 0]);
    message.extend(ip.octets());
    // Option 2, target link-layer address, one unit of 8 bytes.
    message.extend([2, 1]);
    message.extend(mac);
    // Word 1 is the checksum itself.
    let sum = ipv6_checksum(&message, 1, &[], &ip, &ALL_NODES, IpNextHeaderProtocols::Icmpv6);
    message.splice(2..4, sum.to_be_bytes());

    let mut frame = Vec::with_capacity(86);
    frame.extend(ALL_NODES_MAC);
    frame.extend(mac);
    frame.extend([0x86, 0xdd]);
    // Version 6, 32 bytes of ICMPv6, hop limit 255: receivers drop anything less.
    frame.extend([0x60, 0, 0, 0, 0, 32, 58, 255]);
    frame.extend(ip.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

#[cfg(test)]
mod tests;
