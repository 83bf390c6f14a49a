//! The gate as nf_tables: two tables of one name, shown by `nft list ruleset` as
//!
//! ```text
//! table inet wgha_edge {
//!     set open {
//!         type inet_proto
//!         flags timeout
//!         elements = { udp timeout 500ms expires 312ms, ipv6-icmp timeout 500ms expires 312ms }
//!     }
//!     chain input {
//!         type filter hook input priority raw; policy accept;
//!         ip daddr 203.0.113.10 udp dport 51820 meta l4proto != @open counter drop
//!     }
//!     chain output {
//!         type filter hook output priority raw; policy accept;
//!         ip saddr 203.0.113.10 udp sport 51820 meta l4proto != @open counter drop
//!         icmpv6 type nd-neighbor-advert icmpv6 taddr 2001:db8::10 meta l4proto != @open counter drop
//!         icmpv6 type nd-neighbor-solicit ip6 saddr 2001:db8::10 meta l4proto != @open counter drop
//!     }
//! }
//! table arp wgha_edge {
//!     set open { type ether_type; flags timeout; elements = { arp ... } }
//!     chain output {
//!         type filter hook output priority filter; policy accept;
//!         arp saddr ip 203.0.113.10 meta protocol != @open counter drop
//!     }
//! }
//! ```
//!
//! A set of protocols stands for a switch: the kernel has no element without a key, and this one
//! reads well. Solicitations and ARP requests *from* the floating IP are held back as well, because whoever
//! is asked learns where the asker is.

use std::net::IpAddr;

use netlink_packet_core::NLM_F_CREATE;

use crate::net::nft::{
    Attributes, Batch, Expressions, Family, GENERATION_AT, ICMPV6, Kind, Place, Side, UDP,
};

/// The set whose elements let packets pass.
pub(super) const SET: &str = "open";
/// `NFT_SET_TIMEOUT`.
const SET_TIMEOUT: u32 = 0x10;
// `NF_INET_LOCAL_IN`, `NF_INET_LOCAL_OUT`, `NF_ARP_OUT`.
const HOOK_IN: u32 = 1;
const HOOK_OUT: u32 = 3;
const HOOK_ARP_OUT: u32 = 1;
/// `NF_IP_PRI_RAW`: before connection tracking has any work with what is dropped.
const RAW: i32 = -300;

/// `ETH_P_ARP`.
const ARP: u16 = 0x0806;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// The shortest time that an element is given, in milliseconds: a tick of the kernel's clock at 100 Hz, which is the slowest. Less
/// than a tick is rounded to none, and none is for ever before Linux 6.12 (e0c47281723f).
pub(super) const SHORTEST: u64 = 10;

/// What a gate guards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The WireGuard interfaces.
    pub tunnels: Vec<Guarded>,
    /// Whose ARP and neighbour advertisements are guarded.
    pub floating_ips: Vec<IpAddr>,
}

/// A WireGuard port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// The UDP port that WireGuard listens on and sends from.
    pub port: u16,
    /// The addresses that its packets go to and come from; empty: whichever.
    pub addresses: Vec<IpAddr>,
}

impl Plan {
    /// Nothing to guard.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tunnels.is_empty() && self.floating_ips.is_empty()
    }

    /// The tables that it takes.
    pub(super) fn families(&self) -> Vec<Family> {
        let inet = !self.tunnels.is_empty() || self.floating_ips.iter().any(IpAddr::is_ipv6);
        let arp = self.floating_ips.iter().any(IpAddr::is_ipv4);
        [(Family::Inet, inet), (Family::Arp, arp)]
            .into_iter()
            .filter_map(|(family, needed)| needed.then_some(family))
            .collect()
    }
}

/// Everything anew, whatever was there: closed, or open for `open_ms` milliseconds.
pub(super) fn build(name: &str, plan: &Plan, open_ms: Option<u64>) -> Vec<u8> {
    let mut batch = Batch::new(0);
    clear(&mut batch, name);
    for family in plan.families() {
        batch.table(family, name);
        set(&mut batch, family, name);
        match family {
            Family::Arp => arp_chain(&mut batch, name, plan),
            Family::Inet | Family::None => inet_chains(&mut batch, name, plan),
        }
        if let Some(ms) = open_ms {
            elements(&mut batch, Kind::NewElement, family, name, Some(ms));
        }
    }
    batch.finish()
}

/// Takes both tables off, whether they are there or not.
pub(super) fn remove(name: &str) -> Vec<u8> {
    let mut batch = Batch::new(0);
    clear(&mut batch, name);
    batch.finish()
}

/// Empties the set of one family, whatever is in it: shut.
pub(super) fn shut(name: &str, family: Family) -> Vec<u8> {
    let mut batch = Batch::new(0);
    // Without elements: all of them.
    batch.message(Kind::DelElement, family, 0, |a| {
        a.text(1, name);
        a.text(2, SET);
    });
    batch.finish()
}

/// Made first, so that taking off what was not there is no error.
fn clear(batch: &mut Batch, name: &str) {
    for family in [Family::Inet, Family::Arp] {
        batch.table(family, name);
        batch.delete_table(family, name);
    }
}

fn set(batch: &mut Batch, family: Family, name: &str) {
    // nft(8)'s numbers of `ether_type` and `inet_proto`, for its eyes alone; then the key's length.
    let (key_type, key_len) = if family == Family::Arp { (10, 2) } else { (12, 1) };
    batch.message(Kind::NewSet, family, NLM_F_CREATE, |a| {
        a.text(1, name);
        a.text(2, SET);
        a.be32(3, SET_TIMEOUT);
        a.be32(4, key_type);
        a.be32(5, key_len);
        // Its number in this batch.
        a.be32(10, 1);
    });
}

/// One rule: what it selects, then the switch.
fn rule(
    batch: &mut Batch,
    family: Family,
    name: &str,
    chain: &str,
    select: impl FnOnce(&mut Expressions<'_, '_>),
) {
    batch.rule(family, (name, chain), None, |e| {
        select(e);
        e.protocol_not_in(SET, family);
        e.count_and_drop();
    });
}

fn arp_chain(batch: &mut Batch, name: &str, plan: &Plan) {
    batch.chain(Family::Arp, name, "output", (HOOK_ARP_OUT, 0));
    for ip in plan.floating_ips.iter().filter(|ip| ip.is_ipv4()) {
        // The sender's protocol address of Ethernet and IPv4 (RFC 826).
        rule(batch, Family::Arp, name, "output", |e| e.address(Place::Network, 14, *ip));
    }
}

fn inet_chains(batch: &mut Batch, name: &str, plan: &Plan) {
    let inet = Family::Inet;
    batch.chain(inet, name, "input", (HOOK_IN, RAW));
    batch.chain(inet, name, "output", (HOOK_OUT, RAW));
    for tunnel in &plan.tunnels {
        let addresses = tunnel.addresses.iter().copied().map(Some);
        let addresses: Vec<_> =
            if tunnel.addresses.is_empty() { vec![None] } else { addresses.collect() };
        for address in addresses {
            rule(batch, inet, name, "input", |e| {
                e.ip(address, Side::Destination);
                e.udp(tunnel.port, Side::Destination);
            });
            rule(batch, inet, name, "output", |e| {
                e.ip(address, Side::Source);
                e.udp(tunnel.port, Side::Source);
            });
        }
    }
    for ip in plan.floating_ips.iter().filter(|ip| ip.is_ipv6()) {
        rule(batch, inet, name, "output", |e| {
            e.icmpv6(NEIGHBOUR_ADVERTISEMENT);
            // The target, behind type, code, checksum and flags (RFC 4861 §4.4).
            e.address(Place::Transport, 8, *ip);
        });
        rule(batch, inet, name, "output", |e| {
            e.icmpv6(NEIGHBOUR_SOLICITATION);
            e.ip(Some(*ip), Side::Source);
        });
    }
}

/// The elements of a table's set. Returns where the timeouts stand, for `open_ms` to be patched.
fn elements(
    batch: &mut Batch,
    kind: Kind,
    family: Family,
    name: &str,
    open_ms: Option<u64>,
) -> Vec<usize> {
    let mut places = Vec::new();
    let mut one = |a: &mut Attributes<'_>, key: &[u8]| {
        a.nested(1, |a| {
            a.nested(1, |a| a.bytes(1, key));
            if let Some(ms) = open_ms {
                places.push(a.be64(4, ms));
            }
        });
    };
    batch.message(kind, family, NLM_F_CREATE, |a| {
        a.text(1, name);
        a.text(2, SET);
        a.nested(3, |a| match family {
            Family::Arp => one(a, &ARP.to_be_bytes()),
            Family::Inet | Family::None => {
                one(a, &[UDP]);
                one(a, &[ICMPV6]);
            }
        });
    });
    places
}

/// A batch that opens or shuts the gate, made once; generation and time are patched in.
#[derive(Debug)]
pub(super) struct Turn {
    bytes: Vec<u8>,
    timeouts: Vec<usize>,
}

impl Turn {
    /// Opens, or extends the time: an element that is there keeps its timeout before Linux 6.12, so it is
    /// replaced, in one transaction. It is added first because to delete what has just expired is an
    /// error.
    pub(super) fn open(name: &str, plan: &Plan) -> Turn {
        let mut batch = Batch::new(0);
        let mut timeouts = Vec::new();
        for family in plan.families() {
            timeouts.extend(elements(&mut batch, Kind::NewElement, family, name, Some(SHORTEST)));
            elements(&mut batch, Kind::DelElement, family, name, None);
            timeouts.extend(elements(&mut batch, Kind::NewElement, family, name, Some(SHORTEST)));
        }
        Turn { bytes: batch.finish(), timeouts }
    }

    /// Shuts, whether it is open or not.
    pub(super) fn shut(name: &str, plan: &Plan) -> Turn {
        let mut batch = Batch::new(0);
        for family in plan.families() {
            // What is added and deleted in one batch is never seen, whatever its time.
            elements(&mut batch, Kind::NewElement, family, name, Some(SHORTEST));
            elements(&mut batch, Kind::DelElement, family, name, None);
        }
        Turn { bytes: batch.finish(), timeouts: Vec::new() }
    }

    /// The batch for this generation of the ruleset (0: any) and this long, in milliseconds; at least [`SHORTEST`].
    pub(super) fn at(&mut self, generation: u32, open_ms: u64) -> &[u8] {
        let mut put = |at: usize, value: &[u8]| {
            if let Some(place) = self.bytes.get_mut(at..at + value.len()) {
                place.copy_from_slice(value);
            }
        };
        put(GENERATION_AT, &generation.to_be_bytes());
        for at in &self.timeouts {
            put(*at, &open_ms.max(SHORTEST).to_be_bytes());
        }
        &self.bytes
    }
}

#[cfg(test)]
mod tests;
