use super::*;

const MAC: [u8; 6] = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];

#[test]
fn arp_request_is_exact() {
    let frame = arp(MAC, Ipv4Addr::new(203, 0, 113, 10), ArpForm::Request);
    #[rustfmt::skip]
    assert_eq!(frame, [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x11, 0x22, 0x33, 0x44, 0x55, 0x08, 0x06,
        0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01,
        0x02, 0x11, 0x22, 0x33, 0x44, 0x55, 203, 0, 113, 10,
        0, 0, 0, 0, 0, 0, 203, 0, 113, 10,
    ]);
}

#[test]
fn arp_reply_is_exact() {
    let frame = arp(MAC, Ipv4Addr::new(203, 0, 113, 10), ArpForm::Reply);
    #[rustfmt::skip]
    assert_eq!(frame, [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x11, 0x22, 0x33, 0x44, 0x55, 0x08, 0x06,
        0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x02,
        0x02, 0x11, 0x22, 0x33, 0x44, 0x55, 203, 0, 113, 10,
        0x02, 0x11, 0x22, 0x33, 0x44, 0x55, 203, 0, 113, 10,
    ]);
}

/// 2001:db8::10
#[rustfmt::skip]
const VIP6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];

#[test]
fn neighbour_advertisement_is_exact() {
    let frame = neighbour_advertisement(MAC, Ipv6Addr::from(VIP6), false);
    let mut expected = vec![
        0x33, 0x33, 0, 0, 0, 1, 0x02, 0x11, 0x22, 0x33, 0x44, 0x55, 0x86, 0xdd, // Ethernet
        0x60, 0, 0, 0, 0, 32, 58, 255, // IPv6
    ];
    expected.extend(VIP6);
    expected.extend([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let sum = by_hand(&frame);
    expected.extend([136, 0, sum[0], sum[1], 0x20, 0, 0, 0]);
    expected.extend(VIP6);
    expected.extend([2, 1, 0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);
    assert_eq!(frame, expected);
}

#[test]
fn router_flag_only_adds_its_bit() {
    let frame = neighbour_advertisement(MAC, Ipv6Addr::from(VIP6), true);
    assert_eq!(frame[58], 0xa0);
    assert_eq!(frame[56..58], by_hand(&frame));
}

/// The ICMPv6 checksum over the pseudo-header, straight from RFC 4443 §2.3.
fn by_hand(frame: &[u8]) -> [u8; 2] {
    let (addresses, message) = (&frame[22..54], &frame[54..]);
    let mut bytes = addresses.to_vec();
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, 58]);
    bytes.extend(&message[..2]);
    bytes.extend([0, 0]);
    bytes.extend(&message[4..]);
    let mut sum: u32 = bytes.chunks(2).map(|p| u32::from(u16::from_be_bytes([p[0], p[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
