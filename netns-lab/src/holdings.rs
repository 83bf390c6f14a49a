//! What the kernel of a node holds, asked over netlink: an audit asks often, and in an emulated machine each `ip`
//! takes longer than everything else of a look.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::node::Node;

/// Links, addresses, rules and routes of a node, all tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Interfaces.
    pub links: Vec<Link>,
    /// Addresses, of both families.
    pub addresses: Vec<Address>,
    /// Policy rules, of both families.
    pub rules: Vec<Rule>,
    /// Routes, of both families.
    pub routes: Vec<Route>,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// As `ip` writes it: `02:00:00:00:00:01`.
    pub mac: Option<String>,
}

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The node's own address.
    pub address: IpAddr,
    /// Length of its prefix.
    pub prefix_len: u8,
    /// Name of the interface.
    pub interface: String,
}

/// A policy rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// IPv6; else IPv4.
    pub v6: bool,
    /// Its place among the rules.
    pub priority: u32,
    /// Who made it: a routing protocol's number.
    pub protocol: u8,
    /// The table that it looks up.
    pub lookup: Option<u32>,
    /// Drops silently what it matches.
    pub blackhole: bool,
}

/// A route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// IPv6; else IPv4.
    pub v6: bool,
    /// Its table.
    pub table: u32,
    /// Length of the destination's prefix; 0 is the default route.
    pub prefix_len: u8,
    /// Leads through a router.
    pub gateway: bool,
}

/// An entry of the neighbour cache with a hardware address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Whose.
    pub address: IpAddr,
    /// As `ip` writes it.
    pub mac: String,
}

impl Node {
    /// What this node's kernel holds now. Parts are read one after the other.
    ///
    /// # Errors
    /// When the kernel refuses or says what nobody understands.
    pub fn holdings(&self) -> Result<Holdings> {
        use RouteNetlinkMessage::{GetAddress, GetLink, GetRoute, GetRule};
        let of = |family| {
            let mut rule = RuleMessage::default();
            rule.header.family = family;
            let mut route = RouteMessage::default();
            route.header.address_family = family;
            [GetRule(rule), GetRoute(route)]
        };
        let mut asked =
            vec![GetLink(LinkMessage::default()), GetAddress(AddressMessage::default())];
        asked.extend(of(AddressFamily::Inet));
        asked.extend(of(AddressFamily::Inet6));
        let mut holdings = Holdings::default();
        // Addresses name their links by number: links come first.
        for message in self.dump(asked)? {
            holdings.add(message);
        }
        Ok(holdings)
    }

    /// The neighbour cache: entries that have a hardware address.
    ///
    /// # Errors
    /// As [`Node::holdings`].
    pub fn neighbours(&self) -> Result<Vec<Neighbour>> {
        let asked = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        Ok(self.dump(vec![asked])?.into_iter().filter_map(neighbour).collect())
    }

    fn dump(&self, asked: Vec<RouteNetlinkMessage>) -> Result<Vec<RouteNetlinkMessage>> {
        self.run(move || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            let mut all = Vec::new();
            for question in asked {
                ask(&socket, question, &mut all).context("netlink")?;
            }
            Ok(all)
        })
    }
}

/// Asks one question and collects the answers.
fn ask(
    socket: &Socket,
    question: RouteNetlinkMessage,
    all: &mut Vec<RouteNetlinkMessage>,
) -> Result<()> {
    let mut message = NetlinkMessage::from(question);
    message.header.flags = NLM_F_DUMP | NLM_F_REQUEST;
    message.finalize();
    let mut packet = vec![0; message.buffer_len()];
    message.serialize(&mut packet);
    socket.send(&packet, 0)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)?;
            // Messages are padded to 4 bytes.
            let len = (message.header.length as usize).next_multiple_of(4);
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => all.push(inner),
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(e) => bail!("{e}"),
                _ => {}
            }
            rest = rest.get(len..).unwrap_or_default();
        }
    }
}

impl Holdings {
    fn add(&mut self, message: RouteNetlinkMessage) {
        match message {
            RouteNetlinkMessage::NewLink(m) => self.links.push(link(m)),
            RouteNetlinkMessage::NewAddress(m) => self.addresses.extend(self.address(m)),
            RouteNetlinkMessage::NewRule(m) => self.rules.push(rule(m)),
            RouteNetlinkMessage::NewRoute(m) => self.routes.push(route(m)),
            _ => {}
        }
    }

    fn address(&self, message: AddressMessage) -> Option<Address> {
        let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
            message.attributes.iter().find_map(wanted)
        };
        // Where both are there, `Address` is the far end.
        let local = find(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
        let address =
            find(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None });
        let link = self.links.iter().find(|l| l.index == message.header.index)?;
        Some(Address {
            address: local.or(address)?,
            prefix_len: message.header.prefix_len,
            interface: link.name.clone(),
        })
    }
}

fn link(message: LinkMessage) -> Link {
    let up = message.header.flags.contains(LinkFlags::Up);
    let mut link = Link { index: message.header.index, up, ..Link::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) if !bytes.is_empty() => link.mac = Some(hex(&bytes)),
            _ => {}
        }
    }
    link
}

fn rule(message: RuleMessage) -> Rule {
    let header = message.header;
    let mut rule = Rule {
        v6: header.family == AddressFamily::Inet6,
        blackhole: header.action == RuleAction::Blackhole,
        ..Rule::default()
    };
    let mut table = u32::from(header.table);
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = priority,
            RuleAttribute::Protocol(owner) => rule.protocol = owner.into(),
            RuleAttribute::Table(number) => table = number,
            _ => {}
        }
    }
    rule.lookup = (header.action == RuleAction::ToTable).then_some(table);
    rule
}

fn route(message: RouteMessage) -> Route {
    let header = message.header;
    let mut route = Route {
        v6: header.address_family == AddressFamily::Inet6,
        table: header.table.into(),
        prefix_len: header.destination_prefix_length,
        gateway: false,
    };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Table(number) => route.table = number,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => route.gateway = true,
            _ => {}
        }
    }
    route
}

fn neighbour(message: RouteNetlinkMessage) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let (mut address, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                address = Some(ip.into())
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                address = Some(ip.into());
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Some(hex(&bytes)),
            _ => {}
        }
    }
    Some(Neighbour { address: address?, mac: mac? })
}

fn hex(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    pairs.join(":")
}
