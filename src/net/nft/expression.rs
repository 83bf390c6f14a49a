//! The expressions of a rule: what it compares, and what it does.

use std::net::IpAddr;

use super::encode::{Attributes, Family};

/// IP protocol numbers.
pub(in crate::net) const UDP: u8 = 17;
pub(in crate::net) const ICMPV6: u8 = 58;

/// `NFT_REG_1` and `NFT_REG_VERDICT`.
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;
/// `NFT_META_PROTOCOL`, `NFT_META_NFPROTO`, `NFT_META_L4PROTO`.
const META_PROTOCOL: u32 = 1;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const NFPROTO: [u8; 2] = [2, 10];
/// `NFT_LOOKUP_F_INV`.
const NOT_IN: u32 = 1;
/// `NF_DROP`.
const DROP: u32 = 0;

/// Which header an offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) enum Place {
    Network = 1,
    Transport = 2,
}

/// Which end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) enum Side {
    Source,
    Destination,
}

/// `NFT_CMP_EQ`, `NFT_CMP_NEQ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Equal = 0,
    NotEqual = 1,
}

/// The list of expressions of one rule. One that compares ends the rule where that does not hold.
pub(in crate::net) struct Expressions<'a, 'b>(pub(super) &'a mut Attributes<'b>);

impl Expressions<'_, '_> {
    /// The packet's own address on this side; any if there is none.
    pub(in crate::net) fn ip(&mut self, ip: Option<IpAddr>, side: Side) {
        let Some(ip) = ip else { return };
        self.version(ip.is_ipv6());
        self.address(Place::Network, offset(ip, side), ip);
    }

    /// IPv4, or IPv6.
    pub(in crate::net) fn version(&mut self, ipv6: bool) {
        self.meta(META_NFPROTO);
        self.compare(Compare::Equal, &[NFPROTO[usize::from(ipv6)]]);
    }

    /// Of a packet whose IP version is known: any other address on this side.
    pub(in crate::net) fn not_ip(&mut self, ip: IpAddr, side: Side) {
        self.at(Place::Network, offset(ip, side), ip, Compare::NotEqual);
    }

    /// UDP with this port on this side.
    pub(in crate::net) fn udp(&mut self, port: u16, side: Side) {
        self.meta(META_L4PROTO);
        self.compare(Compare::Equal, &[UDP]);
        self.payload(Place::Transport, if side == Side::Source { 0 } else { 2 }, 2);
        self.compare(Compare::Equal, &port.to_be_bytes());
    }

    /// ICMPv6 of this type.
    pub(in crate::net) fn icmpv6(&mut self, kind: u8) {
        self.meta(META_L4PROTO);
        self.compare(Compare::Equal, &[ICMPV6]);
        self.payload(Place::Transport, 0, 1);
        self.compare(Compare::Equal, &[kind]);
    }

    /// This address at this offset.
    pub(in crate::net) fn address(&mut self, place: Place, offset: u32, ip: IpAddr) {
        self.at(place, offset, ip, Compare::Equal);
    }

    /// The packet's protocol is not in the set, which is the first one made in this batch.
    pub(in crate::net) fn protocol_not_in(&mut self, set: &str, family: Family) {
        self.meta(if family == Family::Arp { META_PROTOCOL } else { META_L4PROTO });
        self.one("lookup", |a| {
            a.text(1, set);
            a.be32(2, REGISTER);
            // The set's number in this batch, as it may be as new as the rule.
            a.be32(4, 1);
            a.be32(5, NOT_IN);
        });
    }

    /// Counts what came so far, and drops it.
    pub(in crate::net) fn count_and_drop(&mut self) {
        self.one("counter", |a| {
            a.be64(1, 0);
            a.be64(2, 0);
        });
        self.one("immediate", |a| {
            a.be32(1, VERDICT);
            a.nested(2, |a| a.nested(2, |a| a.be32(1, DROP)));
        });
    }

    fn at(&mut self, place: Place, offset: u32, ip: IpAddr, how: Compare) {
        match ip {
            IpAddr::V4(ip) => {
                self.payload(place, offset, 4);
                self.compare(how, &ip.octets());
            }
            IpAddr::V6(ip) => {
                self.payload(place, offset, 16);
                self.compare(how, &ip.octets());
            }
        }
    }

    fn meta(&mut self, key: u32) {
        self.one("meta", |a| {
            a.be32(2, key);
            a.be32(1, REGISTER);
        });
    }

    fn payload(&mut self, place: Place, offset: u32, length: u32) {
        self.one("payload", |a| {
            a.be32(1, REGISTER);
            a.be32(2, place as u32);
            a.be32(3, offset);
            a.be32(4, length);
        });
    }

    fn compare(&mut self, how: Compare, value: &[u8]) {
        self.one("cmp", |a| {
            a.be32(1, REGISTER);
            a.be32(2, how as u32);
            a.nested(3, |a| a.bytes(1, value));
        });
    }

    fn one(&mut self, name: &str, data: impl FnOnce(&mut Attributes<'_>)) {
        self.0.nested(1, |a| {
            a.text(1, name);
            a.nested(2, data);
        });
    }
}

/// Where an IP header has the address.
fn offset(ip: IpAddr, side: Side) -> u32 {
    match (ip, side) {
        (IpAddr::V4(_), Side::Source) => 12,
        (IpAddr::V4(_), Side::Destination) => 16,
        (IpAddr::V6(_), Side::Source) => 8,
        (IpAddr::V6(_), Side::Destination) => 24,
    }
}
