//! Unicast routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteNextHopFlags, RouteProtocol, RouteScope, RouteType, RouteVia,
};
use nix::errno::Errno;

use super::super::types::{Family, Route, Scope};
use super::{NetError, Netlink, family_code, family_of, is, unless};

impl Netlink {
    /// The unicast routes of a family in a table, all or those through one interface (by index).
    /// Of a route with several next hops the first one through that interface counts.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn routes(
        &self,
        family: Family,
        table: u32,
        interface: Option<u32>,
    ) -> Result<Vec<Route>, NetError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family_code(family);
        message.attributes.push(RouteAttribute::Table(table));
        message.attributes.extend(interface.map(RouteAttribute::Oif));
        let what = format!("list routes of table {table}");
        let request = RouteNetlinkMessage::GetRoute(message);
        let answers = match self.list(&what, request).await {
            Ok(answers) => answers,
            // No such table yet; no such family; no such interface any more.
            Err(e) if is(&e, &[Errno::ENOENT, Errno::EAFNOSUPPORT, Errno::ENODEV]) => Vec::new(),
            Err(e) => return Err(e),
        };
        let routes = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(message) => convert(message, interface),
            _ => None,
        });
        Ok(routes.filter(|r| r.table == table && r.family() == family).collect())
    }

    /// Sets a route. One with the same destination, metric and table is replaced in one step.
    ///
    /// # Errors
    /// The kernel refused (interface down, gateway not reachable, source not ours) or did not answer.
    pub async fn put_route(&self, route: &Route) -> Result<(), NetError> {
        let request = RouteNetlinkMessage::NewRoute(message(route));
        let what = format!("set route to {} in table {}", route.destination, route.table);
        self.change(&what, request, NLM_F_CREATE | NLM_F_REPLACE).await
    }

    /// Adds a route. `false`: one with the same destination, metric and table is there already,
    /// which may go elsewhere.
    ///
    /// # Errors
    /// The kernel refused (interface down, gateway not reachable) or did not answer.
    pub async fn add_route(&self, route: &Route) -> Result<bool, NetError> {
        let request = RouteNetlinkMessage::NewRoute(message(route));
        let what = format!("add route to {} in table {}", route.destination, route.table);
        unless(&[Errno::EEXIST], self.change(&what, request, NLM_F_CREATE | NLM_F_EXCL).await)
    }

    /// Removes a route. `false`: it was not there.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn remove_route(&self, route: &Route) -> Result<bool, NetError> {
        let mut message = message(route);
        // Metrics do not identify a route, and a dangling source must not keep one from going.
        message.attributes.retain(|attribute| {
            !matches!(attribute, RouteAttribute::Metrics(_) | RouteAttribute::PrefSource(_))
        });
        let request = RouteNetlinkMessage::DelRoute(message);
        let what = format!("remove route to {} from table {}", route.destination, route.table);
        let gone = [Errno::ESRCH, Errno::ENOENT, Errno::ENODEV];
        unless(&gone, self.change(&what, request, 0).await)
    }
}

/// Routes that differ in nothing that a lookup would notice.
pub(in crate::net) fn same_route(a: &Route, b: &Route) -> bool {
    let plain = |r: &Route| Route {
        metric: effective_metric(r),
        // IPv6 has no scope.
        scope: if r.family() == Family::V6 { Default::default() } else { r.scope },
        owner: 0,
        ..r.clone()
    };
    plain(a) == plain(b)
}

/// What identifies a route in its table: two with the same key replace each other.
pub(crate) fn route_key(route: &Route) -> (IpNet, u32) {
    (route.destination, effective_metric(route))
}

/// The metric as the kernel will report it.
fn effective_metric(route: &Route) -> u32 {
    match (route.family(), route.metric) {
        (Family::V6, 0) => IP6_DEFAULT_METRIC,
        (_, metric) => metric,
    }
}

fn message(route: &Route) -> RouteMessage {
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

/// The unicast route in a message; of several next hops the first through `interface`.
fn convert(message: RouteMessage, interface: Option<u32>) -> Option<Route> {
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

const fn any(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Bit of the MTU in `RTAX_LOCK`: 1 << `RTAX_MTU`.
const MTU_LOCK: u32 = 1 << 2;

/// What IPv6 makes of metric 0.
const IP6_DEFAULT_METRIC: u32 = 1024;
