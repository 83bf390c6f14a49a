//! The packet inside the tunnel: an echo request over UDP, and its answer.

use std::net::{Ipv4Addr, SocketAddrV4};

const IP_LEN: usize = 20;
const UDP_LEN: usize = 8;
/// Headers and a number of 8 bytes.
const LEN: usize = IP_LEN + UDP_LEN + 8;
const UDP: u8 = 17;

/// A request from `from`, its port as that of the server, that carries a number. Without an UDP checksum, which IPv4 allows.
pub(super) fn request(from: Ipv4Addr, to: SocketAddrV4, number: u64) -> [u8; LEN] {
    let mut packet = [0; LEN];
    let (ip, udp) = packet.split_at_mut(IP_LEN);
    let total = (LEN as u16).to_be_bytes();
    ip.copy_from_slice(&[
        0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, UDP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    ip[12..16].copy_from_slice(&from.octets());
    ip[16..20].copy_from_slice(&to.ip().octets());
    let sum = checksum(ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    let port = to.port().to_be_bytes();
    let length = ((LEN - IP_LEN) as u16).to_be_bytes();
    udp[..2].copy_from_slice(&port);
    udp[2..4].copy_from_slice(&port);
    udp[4..6].copy_from_slice(&length);
    udp[8..].copy_from_slice(&number.to_be_bytes());
    packet
}

/// The number in an answer of `server` to `to`; `None` when the packet is anything else.
pub(super) fn answer(packet: &[u8], server: SocketAddrV4, to: Ipv4Addr) -> Option<u64> {
    // WireGuard pads what it carries.
    let packet = packet.get(..LEN)?;
    let is_answer = packet[0] == 0x45
        && packet[9] == UDP
        && packet[12..16] == server.ip().octets()
        && packet[16..20] == to.octets()
        && packet[20..22] == server.port().to_be_bytes();
    packet.last_chunk().filter(|_| is_answer).map(|number| u64::from_be_bytes(*number))
}

/// RFC 1071, over an even number of bytes.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_request_turned_round() {
        let (own, server) = (Ipv4Addr::new(10, 9, 1, 1), "172.16.0.100:7007".parse().unwrap());
        let mut packet = request(own, server, 77);
        assert_eq!(checksum(&packet[..IP_LEN]), 0, "a correct header sums up to zero");
        assert_eq!(answer(&packet, server, own), None);
        let (source, destination) = (packet[12..16].to_vec(), packet[16..20].to_vec());
        packet[12..16].copy_from_slice(&destination);
        packet[16..20].copy_from_slice(&source);
        assert_eq!(answer(&packet, server, own), Some(77));
        assert_eq!(answer(&packet, server, Ipv4Addr::new(10, 9, 1, 2)), None);
        assert_eq!(answer(&packet[..LEN - 1], server, own), None);
    }
}
