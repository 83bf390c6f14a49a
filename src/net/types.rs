//! What the kernel's network objects look like to the rest of the program.

use std::net::IpAddr;

use ipnet::IpNet;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Family {
        match ip {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

/// A network interface, as it was when asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number; another one after the interface was made anew.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; `None` where it has none (loopback, tunnels).
    pub mac: Option<[u8; 6]>,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// Set up by the administrator.
    pub up: bool,
    /// Has a carrier.
    pub carrier: bool,
    /// `veth`, `wireguard`, ...; `None` for hardware.
    pub kind: Option<String>,
}

/// How long an address stays without being set again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Lifetime {
    /// Until removed.
    #[default]
    Forever,
    /// Seconds, 1 ..= 2^32-2; the kernel removes it up to 0.5 s after.
    Seconds(u32),
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of its interface.
    pub interface: u32,
    /// The address and its prefix length.
    pub address: IpNet,
    /// The other end's address, where it was given one (`peer`): the prefix length is then its.
    pub far_end: Option<IpAddr>,
    /// What is left of its valid lifetime.
    pub valid: Lifetime,
    /// IPv6: preferred lifetime 0, so that the machine's own traffic does not leave from it.
    pub deprecated: bool,
    /// IPv6: duplicate address detection runs or has failed; the address cannot be used.
    pub tentative: bool,
}

/// How far away a route's destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Scope {
    /// Behind a gateway, or anything in IPv6.
    #[default]
    Universe,
    /// On the link.
    Link,
    /// On this machine.
    Host,
    /// Any other, by number.
    Other(u8),
}

/// A unicast route through one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to; prefix length 0 for the default route.
    pub destination: IpNet,
    /// Which table; 254 is main.
    pub table: u32,
    /// Index of the interface.
    pub interface: u32,
    /// Next hop; may be IPv6 for an IPv4 route.
    pub gateway: Option<IpAddr>,
    /// Preferred source.
    pub source: Option<IpAddr>,
    /// Smaller wins. 0 in IPv6 means the kernel's default, 1024.
    pub metric: u32,
    /// How far away.
    pub scope: Scope,
    /// Who set it (`RTPROT_*`).
    pub owner: u8,
    /// The next hop counts as on the link, whatever the addresses say.
    pub onlink: bool,
    /// Path MTU, bytes, where the route has one.
    pub mtu: Option<u32>,
    /// Path MTU discovery may not lower `mtu`.
    pub mtu_locked: bool,
}

impl Route {
    /// A route to `destination` on an interface, owned by `owner`, without anything else.
    #[must_use]
    pub fn new(destination: IpNet, table: u32, interface: u32, owner: u8) -> Route {
        let scope = if destination.addr().is_ipv4() { Scope::Link } else { Scope::Universe };
        Route {
            destination: destination.trunc(),
            table,
            interface,
            gateway: None,
            source: None,
            metric: 0,
            scope,
            owner,
            onlink: false,
            mtu: None,
            mtu_locked: false,
        }
    }

    /// Its family.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.destination.addr())
    }
}

/// What a policy rule does with a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Looks into a table.
    Lookup(u32),
    /// Drops; the sender sees `EINVAL`.
    Blackhole,
    /// Anything else, by number.
    Other(u8),
}

/// A policy rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its family.
    pub family: Family,
    /// Smaller is asked first.
    pub priority: u32,
    /// Source prefix.
    pub from: Option<IpNet>,
    /// Input interface; `lo` for what the machine itself sends.
    pub input: Option<String>,
    /// IP protocol number.
    pub ip_protocol: Option<u8>,
    /// Source port.
    pub source_port: Option<u16>,
    /// What it does.
    pub action: Action,
    /// Who set it (`RTPROT_*`).
    pub owner: u8,
    /// It selects by something that is not listed here, so it is none that wgha sets.
    pub other_selectors: bool,
}

impl Rule {
    /// Both do the same to the same packets at the same place; who set them does not matter.
    #[must_use]
    pub fn same_effect(&self, other: &Rule) -> bool {
        Rule { owner: other.owner, ..self.clone() } == *other
    }
}
