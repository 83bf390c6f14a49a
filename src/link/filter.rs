//! What the kernel drops before any of our code runs: whatever cannot be a heartbeat of this cluster by
//! its length, magic and cluster tag (docs/protocol.md §2).

use std::io;
use std::os::fd::AsFd;

use wgha_proto::{MAX_DATAGRAM, MIN_DATAGRAM, Tag};

use crate::net::raw::{Instruction, attach_filter};

/// The filter of a UDP socket sees the datagram from its UDP header on, over IPv4 and IPv6 alike.
const UDP_HEADER: u32 = 8;

/// Has the kernel drop what cannot be for the cluster with this tag; replaces an earlier filter.
///
/// # Errors
/// The kernel refuses it.
pub(super) fn attach(socket: &impl AsFd, cluster: Tag) -> io::Result<()> {
    attach_filter(socket, &program(cluster))
}

/// What is dropped stands at the end, so that every comparison jumps forward, as the kernel demands.
fn program(cluster: Tag) -> [Instruction; 11] {
    let [a, b, c, d, e, f, g, h] = cluster;
    let (shortest, longest) = (MIN_DATAGRAM as u32, MAX_DATAGRAM as u32);
    [
        LOAD_LENGTH,
        // Each jumps over as many instructions as are left before the last.
        jump(AT_LEAST, shortest + UDP_HEADER, 0, 8),
        jump(ABOVE, longest + UDP_HEADER, 7, 0),
        load_word(0),
        jump(EQUAL, u32::from_be_bytes(*b"WgHA"), 0, 5),
        load_word(8),
        jump(EQUAL, u32::from_be_bytes([a, b, c, d]), 0, 3),
        load_word(12),
        jump(EQUAL, u32::from_be_bytes([e, f, g, h]), 0, 1),
        PASS,
        DROP,
    ]
}

/// `BPF_JMP` with a constant: equal, above, at least (linux/bpf_common.h).
const EQUAL: u16 = 0x15;
const ABOVE: u16 = 0x25;
const AT_LEAST: u16 = 0x35;

/// `BPF_LD | BPF_W | BPF_LEN`: the length of all that the filter sees.
const LOAD_LENGTH: Instruction =
    Instruction { code: 0x80, jump_true: 0, jump_false: 0, operand: 0 };
/// `BPF_RET | BPF_K`: how many bytes of it pass.
const PASS: Instruction =
    Instruction { code: 0x06, jump_true: 0, jump_false: 0, operand: u32::MAX };
const DROP: Instruction = Instruction { code: 0x06, jump_true: 0, jump_false: 0, operand: 0 };

const fn jump(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}

/// Four bytes of the payload, big endian.
const fn load_word(offset: u32) -> Instruction {
    Instruction { code: 0x20, jump_true: 0, jump_false: 0, operand: UDP_HEADER + offset }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use wgha_proto::cluster_tag;

    use super::*;
    use crate::net::raw::socket_drops;

    /// A datagram that passes.
    fn heartbeat(cluster: &str, length: usize) -> Vec<u8> {
        let mut bytes = b"WgHA\x01\x00\x00\x01".to_vec();
        bytes.extend(cluster_tag(cluster));
        bytes.resize(length, 0x5a);
        bytes
    }

    fn only_heartbeats_pass(address: &str) {
        let socket = UdpSocket::bind(address).unwrap();
        attach(&socket, cluster_tag("edge")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let sender = UdpSocket::bind(address).unwrap();
        let send = |bytes: &[u8]| sender.send_to(bytes, socket.local_addr().unwrap()).unwrap();
        let mut dropped = 0;
        for length in [0, 1, 4, 8, 16, 83, 1201, 1500, 9000] {
            send(&heartbeat("edge", 9000)[..length]);
            dropped += 1;
        }
        for bit in 0..16 * 8 {
            // Version, path and key id are for the protocol to judge.
            if (32..64).contains(&bit) {
                continue;
            }
            let mut flipped = heartbeat("edge", 84);
            flipped[bit / 8] ^= 1 << (bit % 8);
            send(&flipped);
            dropped += 1;
        }
        send(&heartbeat("other", 300));
        dropped += 1;
        // What passes comes behind all that must not.
        for length in [84, 85, 300, 1199, 1200] {
            send(&heartbeat("edge", length));
            let mut buffer = [0; 2000];
            assert_eq!(socket.recv(&mut buffer).unwrap(), length);
        }
        assert_eq!(socket_drops(&socket).unwrap(), dropped);
        // A reload replaces it.
        attach(&socket, cluster_tag("other")).unwrap();
        send(&heartbeat("edge", 84));
        send(&heartbeat("other", 90));
        assert_eq!(socket.recv(&mut [0; 2000]).unwrap(), 90);
    }

    #[test]
    fn only_heartbeats_of_the_cluster_pass_over_ipv4() {
        only_heartbeats_pass("127.0.0.1:0");
    }

    #[test]
    fn only_heartbeats_of_the_cluster_pass_over_ipv6() {
        only_heartbeats_pass("[::1]:0");
    }
}
