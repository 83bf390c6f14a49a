//! What tests/net/gate.rs shows to nft(8) is compared here byte by byte where it is patched.

use super::*;

fn plan() -> Plan {
    Plan {
        tunnels: vec![Guarded { port: 51820, addresses: vec!["203.0.113.10".parse().unwrap()] }],
        floating_ips: vec!["203.0.113.10".parse().unwrap()],
    }
}

#[test]
fn families_as_needed() {
    let v6 = Plan { tunnels: Vec::new(), floating_ips: vec!["fd00::1".parse().unwrap()] };
    assert_eq!(plan().families(), [Family::Inet, Family::Arp]);
    assert_eq!(v6.families(), [Family::Inet]);
    assert!(Plan::default().families().is_empty() && Plan::default().is_empty());
}

#[test]
fn time_and_generation_are_patched_wherever_they_stand() {
    let mut open = Turn::open("wgha_edge", &plan());
    assert_eq!(open.timeouts.len(), 2 * (2 + 1), "udp and ICMPv6, and ARP, each twice");
    let count = |bytes: &[u8], value: u64| {
        bytes
            .windows(12)
            .filter(|w| w[..4] == [12, 0, 4, 0] && w[4..] == value.to_be_bytes())
            .count()
    };
    let first = open.at(7, 0x0102_0304).to_vec();
    if cfg!(target_endian = "little") {
        assert_eq!(count(&first, 0x0102_0304), 6);
    }
    assert_eq!(first[24..28], [0, 0, 0, 7]);
    let never = open.at(0, 0).to_vec();
    if cfg!(target_endian = "little") {
        assert_eq!(count(&never, SHORTEST), 6, "0 would be for ever");
    }
    assert_eq!(never.len(), first.len());
}

#[test]
fn the_largest_plan_is_a_batch_that_fits() {
    let ip = |n: u8| IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n]);
    let tunnel = |n: u8| Guarded { port: 51820, addresses: vec![ip(n), [10, 0, 0, n].into()] };
    let plan =
        Plan { tunnels: (0..64).map(tunnel).collect(), floating_ips: (0..64).map(ip).collect() };
    let bytes = build(&"x".repeat(80), &plan, Some(500));
    assert!(bytes.len() < 1 << 20, "{}", bytes.len());
}
