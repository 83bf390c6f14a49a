//! Between the kernel's messages and [`super::types`]: the other half of `netlink.rs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteNextHopFlags, RouteProtocol, RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};

use super::types::{Action, Address, Family, Lifetime, Link, Route, Rule, Scope};

/// "Forever" in a lifetime.
const INFINITY: u32 = u32::MAX;
/// Bit of the MTU in `RTAX_LOCK`: 1 << `RTAX_MTU`.
const MTU_LOCK: u32 = 1 << 2;
/// What IPv6 makes of metric 0.
const IP6_DEFAULT_METRIC: u32 = 1024;

pub(super) const fn family_code(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn family_of(code: AddressFamily) -> Option<Family> {
    match code {
        AddressFamily::Inet => Some(Family::V4),
        AddressFamily::Inet6 => Some(Family::V6),
        _ => None,
    }
}

const fn any(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

pub(super) fn link(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        kind: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(bytes) => {
                link.mac = <[u8; 6]>::try_from(bytes).ok().filter(|mac| *mac != [0; 6]);
            }
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = Some(kind.to_string());
                    }
                }
            }
            _ => {}
        }
    }
    link
}

pub(super) fn address(message: &AddressMessage) -> Option<Address> {
    family_of(message.header.family)?;
    let mut flags = u32::from(message.header.flags.bits());
    let (mut local, mut peer, mut cache) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => peer = Some(*ip),
            AddressAttribute::Flags(all) => flags = all.bits(),
            AddressAttribute::CacheInfo(info) => cache = Some(*info),
            _ => {}
        }
    }
    // IPv6 has IFA_LOCAL only on point-to-point addresses.
    let address = IpNet::new(local.or(peer)?, message.header.prefix_len).ok()?;
    let valid = match cache.map_or(INFINITY, |c| c.ifa_valid) {
        INFINITY => Lifetime::Forever,
        seconds => Lifetime::Seconds(seconds),
    };
    let flags = AddressFlags::from_bits_retain(flags);
    Some(Address {
        interface: message.header.index,
        address,
        valid,
        deprecated: flags.contains(AddressFlags::Deprecated),
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
    })
}

pub(super) fn address_message(wanted: &Address) -> AddressMessage {
    let ip = wanted.address.addr();
    let mut message = AddressMessage::default();
    message.header.family = family_code(Family::of(ip));
    message.header.prefix_len = wanted.address.prefix_len();
    message.header.index = wanted.interface;
    if ip.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    let mut lifetime = CacheInfo::default();
    lifetime.ifa_valid = match wanted.valid {
        Lifetime::Forever => INFINITY,
        // 0 would be refused, and the largest number means "forever".
        Lifetime::Seconds(seconds) => seconds.clamp(1, INFINITY - 1),
    };
    lifetime.ifa_preferred = if wanted.deprecated { 0 } else { lifetime.ifa_valid };
    message.attributes = vec![
        AddressAttribute::Local(ip),
        AddressAttribute::Address(ip),
        AddressAttribute::CacheInfo(lifetime),
    ];
    message
}

/// The unicast route in a message; of several next hops the first through `interface`.
pub(super) fn route(message: RouteMessage, interface: Option<u32>) -> Option<Route> {
    let header = message.header;
    let family = family_of(header.address_family)?;
    // Type of service and source prefixes select by what WireGuard's lookups do not have.
    if header.kind != RouteType::Unicast || header.tos != 0 || header.source_prefix_length != 0 {
        return None;
    }
    let destination = IpNet::new(any(family), header.destination_prefix_length).ok()?;
    let mut route = Route {
        scope: scope(header.scope),
        onlink: header.flags.contains(RouteFlags::Onlink),
        ..Route::new(destination, u32::from(header.table), 0, header.protocol.into())
    };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                route.destination =
                    IpNet::new(ip(&to)?, header.destination_prefix_length).ok()?.trunc();
            }
            RouteAttribute::Table(table) => route.table = table,
            RouteAttribute::Priority(metric) => route.metric = metric,
            RouteAttribute::PrefSource(from) => route.source = ip(&from),
            RouteAttribute::Metrics(metrics) => read_metrics(&mut route, &metrics),
            RouteAttribute::MultiPath(hops) => {
                let hop = hops
                    .into_iter()
                    .find(|hop| interface.is_none_or(|i| i == hop.interface_index))?;
                route.interface = hop.interface_index;
                route.onlink = hop.flags.contains(RouteNextHopFlags::Onlink);
                for attribute in &hop.attributes {
                    read_hop(&mut route, attribute)?;
                }
            }
            other => read_hop(&mut route, &other)?,
        }
    }
    (route.interface != 0 && interface.is_none_or(|i| i == route.interface)).then_some(route)
}

/// Next hop attributes; `None` for routes that a plain copy would not do justice.
fn read_hop(route: &mut Route, attribute: &RouteAttribute) -> Option<()> {
    match attribute {
        RouteAttribute::Oif(index) => route.interface = *index,
        RouteAttribute::Gateway(via) => route.gateway = Some(ip(via)?),
        RouteAttribute::Via(RouteVia::Inet6(via)) => route.gateway = Some(IpAddr::V6(*via)),
        RouteAttribute::Via(_) | RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => {
            return None;
        }
        _ => {}
    }
    Some(())
}

fn read_metrics(route: &mut Route, metrics: &[RouteMetric]) {
    for metric in metrics {
        match metric {
            RouteMetric::Mtu(mtu) => route.mtu = Some(*mtu),
            RouteMetric::Lock(lock) => route.mtu_locked = lock & MTU_LOCK != 0,
            _ => {}
        }
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn scope(scope: RouteScope) -> Scope {
    match scope {
        RouteScope::Universe => Scope::Universe,
        RouteScope::Link => Scope::Link,
        RouteScope::Host => Scope::Host,
        other => Scope::Other(other.into()),
    }
}

fn scope_code(scope: Scope) -> RouteScope {
    match scope {
        Scope::Universe => RouteScope::Universe,
        Scope::Link => RouteScope::Link,
        Scope::Host => RouteScope::Host,
        Scope::Other(code) => RouteScope::from(code),
    }
}

/// The metric as the kernel will report it.
pub(super) fn effective_metric(route: &Route) -> u32 {
    match (route.family(), route.metric) {
        (Family::V6, 0) => IP6_DEFAULT_METRIC,
        (_, metric) => metric,
    }
}

pub(super) fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family_code(route.family()),
        destination_prefix_length: route.destination.prefix_len(),
        protocol: RouteProtocol::from(route.owner),
        scope: scope_code(route.scope),
        kind: RouteType::Unicast,
        flags: if route.onlink { RouteFlags::Onlink } else { RouteFlags::empty() },
        ..RouteHeader::default()
    };
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table));
    attributes.push(RouteAttribute::Oif(route.interface));
    if route.destination.prefix_len() != 0 {
        attributes.push(RouteAttribute::Destination(route.destination.addr().into()));
    }
    match (route.family(), route.gateway) {
        (Family::V4, Some(IpAddr::V6(via))) => {
            attributes.push(RouteAttribute::Via(RouteVia::Inet6(via)));
        }
        (_, Some(via)) => attributes.push(RouteAttribute::Gateway(via.into())),
        (_, None) => {}
    }
    if let Some(source) = route.source {
        attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    if effective_metric(route) != 0 {
        attributes.push(RouteAttribute::Priority(effective_metric(route)));
    }
    if let Some(mtu) = route.mtu {
        let mut metrics = vec![RouteMetric::Mtu(mtu)];
        if route.mtu_locked {
            metrics.push(RouteMetric::Lock(MTU_LOCK));
        }
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

pub(super) fn rule(message: RuleMessage) -> Option<Rule> {
    let header = message.header;
    let family = family_of(header.family)?;
    let mut rule = Rule {
        family,
        priority: 0,
        from: None,
        input: None,
        ip_protocol: None,
        source_port: None,
        action: Action::Other(0),
        owner: 0,
        other_selectors: header.dst_len != 0
            || header.tos != 0
            || header.flags.bits() & INVERT != 0,
    };
    let mut table = u32::from(header.table);
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = priority,
            RuleAttribute::Source(ip) => rule.from = IpNet::new(ip, header.src_len).ok(),
            RuleAttribute::Iifname(name) => rule.input = Some(name),
            RuleAttribute::IpProtocol(number) => rule.ip_protocol = Some(u8::from(number)),
            RuleAttribute::SourcePortRange(range) if range.start == range.end => {
                rule.source_port = Some(range.start);
            }
            RuleAttribute::Table(number) => table = number,
            RuleAttribute::Protocol(owner) => rule.owner = owner.into(),
            // "None", which the kernel always reports.
            RuleAttribute::SuppressPrefixLen(u32::MAX)
            | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            RuleAttribute::Other(other) if is_whole_port(&other) => {}
            _ => rule.other_selectors = true,
        }
    }
    rule.action = match header.action {
        RuleAction::ToTable => Action::Lookup(table),
        RuleAction::Blackhole => Action::Blackhole,
        other => Action::Other(other.into()),
    };
    Some(rule)
}

/// `FRA_SPORT_MASK` with all bits, which Linux 6.15 and later report with a single port.
fn is_whole_port(attribute: &DefaultNla) -> bool {
    let mut value = [0; 2];
    if attribute.kind() != FRA_SPORT_MASK || attribute.value_len() != value.len() {
        return false;
    }
    attribute.emit_value(&mut value);
    value == [0xff; 2]
}

/// Not known to the packet crate yet.
const FRA_SPORT_MASK: u16 = 28;
/// `FIB_RULE_INVERT`: the rule matches what its selectors do not.
const INVERT: u32 = 2;

pub(super) fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family_code(rule.family);
    message.header.action = match rule.action {
        Action::Lookup(_) => RuleAction::ToTable,
        Action::Blackhole => RuleAction::Blackhole,
        Action::Other(code) => RuleAction::from(code),
    };
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(rule.owner)));
    if let Some(from) = rule.from {
        message.header.src_len = from.prefix_len();
        attributes.push(RuleAttribute::Source(from.addr()));
    }
    if let Some(input) = &rule.input {
        attributes.push(RuleAttribute::Iifname(input.clone()));
    }
    if let Some(number) = rule.ip_protocol {
        attributes.push(RuleAttribute::IpProtocol(number.into()));
    }
    if let Some(port) = rule.source_port {
        attributes.push(RuleAttribute::SourcePortRange(RulePortRange { start: port, end: port }));
    }
    if let Action::Lookup(table) = rule.action {
        attributes.push(RuleAttribute::Table(table));
    }
    message
}
