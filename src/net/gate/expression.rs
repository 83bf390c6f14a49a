//! The expressions of a rule: what it compares, and what it does.

use std::net::IpAddr;

use super::encode::{Attributes, Family};
use super::ruleset::{ICMPV6, Side, UDP};

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
pub(super) enum Place {
    Network = 1,
    Transport = 2,
}

/// The list of expressions of one rule. Each one that compares ends the rule where it differs.
pub(super) struct Expressions<'a, 'b>(pub(super) &'a mut Attributes<'b>);

impl Expressions<'_, '_> {
    /// The packet's own address on this side; any if there is none.
    pub(super) fn ip(&mut self, ip: Option<IpAddr>, side: Side) {
        let Some(ip) = ip else { return };
        let (family, source, destination) = match ip {
            IpAddr::V4(_) => (NFPROTO[0], 12, 16),
            IpAddr::V6(_) => (NFPROTO[1], 8, 24),
        };
        self.meta(META_NFPROTO);
        self.equal(&[family]);
        self.address(Place::Network, if side == Side::Source { source } else { destination }, ip);
    }

    /// UDP with this port on this side.
    pub(super) fn udp(&mut self, port: u16, side: Side) {
        self.meta(META_L4PROTO);
        self.equal(&[UDP]);
        self.payload(Place::Transport, if side == Side::Source { 0 } else { 2 }, 2);
        self.equal(&port.to_be_bytes());
    }

    /// ICMPv6 of this type.
    pub(super) fn icmpv6(&mut self, kind: u8) {
        self.meta(META_L4PROTO);
        self.equal(&[ICMPV6]);
        self.payload(Place::Transport, 0, 1);
        self.equal(&[kind]);
    }

    /// This address at this offset.
    pub(super) fn address(&mut self, place: Place, offset: u32, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => {
                self.payload(place, offset, 4);
                self.equal(&ip.octets());
            }
            IpAddr::V6(ip) => {
                self.payload(place, offset, 16);
                self.equal(&ip.octets());
            }
        }
    }

    /// Counts and drops unless the packet's protocol is in the set.
    pub(super) fn drop_unless_open(&mut self, family: Family, set: &str) {
        self.meta(if family == Family::Arp { META_PROTOCOL } else { META_L4PROTO });
        self.one("lookup", |a| {
            a.text(1, set);
            a.be32(2, REGISTER);
            // The set's number in this batch, as it may be as new as the rule.
            a.be32(4, 1);
            a.be32(5, NOT_IN);
        });
        self.one("counter", |a| {
            a.be64(1, 0);
            a.be64(2, 0);
        });
        self.one("immediate", |a| {
            a.be32(1, VERDICT);
            a.nested(2, |a| a.nested(2, |a| a.be32(1, DROP)));
        });
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

    fn equal(&mut self, value: &[u8]) {
        self.one("cmp", |a| {
            a.be32(1, REGISTER);
            // NFT_CMP_EQ.
            a.be32(2, 0);
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
