//! The network device under WireGuard, whichever implementation drives it: existence, inner
//! addresses, MTU, link state, routes.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope,
};
use rtnetlink::{Handle, LinkUnspec, LinkWireguard, RouteMessageBuilder};

use super::WgError;
use super::conf::{Table, WgConf};

/// Longest wait for one answer of the kernel, which normally answers at once.
const ANSWER: Duration = Duration::from_secs(5);

/// Routes asked for before the first is answered.
const IN_FLIGHT: usize = 32;

/// The main routing table.
const MAIN: u32 = 254;

/// A device by name, whether it exists or not.
pub(super) struct Netdev {
    name: String,
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

/// What exists under the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) index: u32,
    pub(super) kind: Kind,
    pub(super) up: bool,
    pub(super) mtu: u32,
}

/// What sort of device it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Wireguard,
    Tun,
    Other(String),
}

impl Drop for Netdev {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Netdev {
    /// Opens a netlink socket in the network namespace of this thread.
    pub(super) fn open(name: &str) -> Result<Self, WgError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(WgError::step("open a netlink socket"))?;
        let connection = tokio::spawn(connection);
        Ok(Self { name: name.to_owned(), handle, connection })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn find(&self) -> Result<Option<Found>, WgError> {
        let mut links = self.handle.link().get().match_name(self.name.clone()).execute();
        match bounded(links.try_next()).await {
            Ok(link) => Ok(link.map(|link| found(&link))),
            Err(e) if e.raw_os_error() == Some(nix::libc::ENODEV) => Ok(None),
            Err(source) => Err(self.failed("look for", source)),
        }
    }

    /// As [`find`](Self::find), for a device that has to be of this kind.
    pub(super) async fn find_kind(&self, kind: Kind) -> Result<Option<Found>, WgError> {
        let found = self.find().await?;
        match found {
            Some(Found { kind: other, .. }) if other != kind => Err(WgError::WrongKind {
                interface: self.name.clone(),
                found: match other {
                    Kind::Wireguard => "a WireGuard device of the kernel".to_owned(),
                    Kind::Tun => "a TUN device".to_owned(),
                    Kind::Other(kind) => kind,
                },
            }),
            found => Ok(found),
        }
    }

    /// As [`find`](Self::find); somebody else's device under this name counts as none. For taking
    /// traffic off: nothing of ours speaks through it, and a master that finds it must be able to leave.
    pub(super) async fn find_own(&self, kind: &Kind) -> Result<Option<Found>, WgError> {
        Ok(self.find().await?.filter(|found| found.kind == *kind))
    }

    pub(super) async fn create_wireguard(&self) -> Result<(), WgError> {
        let link = LinkWireguard::new(&self.name).build();
        let result = bounded(self.handle.link().add(link).execute()).await;
        result.map_err(|e| self.failed("create", e))
    }

    pub(super) async fn delete(&self, index: u32) -> Result<(), WgError> {
        let result = bounded(self.handle.link().del(index).execute()).await;
        match result {
            Err(e) if e.raw_os_error() == Some(nix::libc::ENODEV) => Ok(()),
            result => result.map_err(|e| self.failed("delete", e)),
        }
    }

    /// Addresses, then MTU and link up in one step. WireGuard's socket opens here (kernel), so the
    /// error may be `EADDRINUSE`.
    pub(super) async fn bring_up(&self, found: &Found, conf: &WgConf) -> Result<(), WgError> {
        self.set_addresses(found.index, &conf.addresses, Strangers::Remove).await?;
        if found.up && found.mtu == conf.mtu {
            return Ok(());
        }
        let link = LinkUnspec::new_with_index(found.index).mtu(conf.mtu).up().build();
        let result = bounded(self.handle.link().set(link).execute()).await;
        result.map_err(|e| self.failed("bring up", e))
    }

    /// Link down, then no address: an address would be local even on a device that is down, and
    /// the clients' way to the master would end here.
    pub(super) async fn bring_down(&self, found: &Found) -> Result<(), WgError> {
        if found.up {
            let link = LinkUnspec::new_with_index(found.index).down().build();
            let result = bounded(self.handle.link().set(link).execute()).await;
            result.map_err(|e| self.failed("bring down", e))?;
        }
        self.set_addresses(found.index, &[], Strangers::Remove).await
    }

    /// Routes for all allowed prefixes, longest first. One that is there stays.
    pub(super) async fn add_routes(&self, index: u32, conf: &WgConf) -> Result<(), WgError> {
        let mut present = None;
        let adding = routes(conf)
            .into_iter()
            .map(|route| async move { (route, self.add_route(index, &route).await) });
        let mut added = futures_util::stream::iter(adding).buffered(IN_FLIGHT);
        while let Some((route, result)) = added.next().await {
            match result {
                Err(e) if e.raw_os_error() == Some(nix::libc::EEXIST) => {}
                result => {
                    result.map_err(|e| self.failed(&format!("route {} to", route.net), e))?;
                    continue;
                }
            }
            // Ours from before, or another's: the kernel's table is read once, and only now.
            if present.is_none() {
                present = Some(self.present_routes(index).await?);
            }
            if !present.as_ref().is_some_and(|present| present.contains(&route)) {
                return Err(WgError::RouteTaken(route.net));
            }
        }
        Ok(())
    }

    /// The difference between two files on a device that is up.
    pub(super) async fn change(
        &self,
        found: &Found,
        old: &WgConf,
        new: &WgConf,
    ) -> Result<(), WgError> {
        let gone: Vec<IpNet> =
            old.addresses.iter().filter(|a| !new.addresses.contains(a)).copied().collect();
        self.set_addresses(found.index, &new.addresses, Strangers::Keep(&gone)).await?;
        if found.mtu != new.mtu {
            let link = LinkUnspec::new_with_index(found.index).mtu(new.mtu).build();
            let result = bounded(self.handle.link().set(link).execute()).await;
            result.map_err(|e| self.failed("set the MTU of", e))?;
        }
        let wanted = routes(new);
        for route in routes(old).difference(&wanted) {
            let message = route_message(found.index, route);
            match bounded(self.handle.route().del(message).execute()).await {
                // Gone with its address, or by another hand.
                Err(e) if e.raw_os_error() == Some(nix::libc::ESRCH) => {}
                result => result.map_err(|e| self.failed("delete a route of", e))?,
            }
        }
        self.add_routes(found.index, new).await
    }

    async fn set_addresses(
        &self,
        index: u32,
        wanted: &[IpNet],
        strangers: Strangers<'_>,
    ) -> Result<(), WgError> {
        let present = self.addresses(index).await?;
        for (net, message) in &present {
            let remove = match strangers {
                // The kernel's own link-local address comes and goes with the link.
                Strangers::Remove => !is_link_local(net) && !wanted.contains(net),
                Strangers::Keep(gone) => gone.contains(net),
            };
            if remove {
                let result = bounded(self.handle.address().del(message.clone()).execute()).await;
                match result {
                    Err(e) if e.raw_os_error() == Some(nix::libc::EADDRNOTAVAIL) => {}
                    result => result.map_err(|e| self.failed("take an address from", e))?,
                }
            }
        }
        for net in wanted.iter().filter(|net| !present.iter().any(|(there, _)| there == *net)) {
            let add = self.handle.address().add(index, net.addr(), net.prefix_len());
            match bounded(add.execute()).await {
                Err(e) if e.raw_os_error() == Some(nix::libc::EEXIST) => {}
                result => {
                    result.map_err(|e| self.failed(&format!("give the address {net} to"), e))?;
                }
            }
        }
        Ok(())
    }

    async fn addresses(&self, index: u32) -> Result<Vec<(IpNet, AddressMessage)>, WgError> {
        let stream = self.handle.address().get().set_link_index_filter(index).execute();
        let all: Vec<AddressMessage> =
            bounded(stream.try_collect()).await.map_err(|e| self.failed("read", e))?;
        Ok(all.into_iter().filter_map(|m| Some((address(&m)?, m))).collect())
    }

    async fn add_route(&self, index: u32, route: &Route) -> Result<(), io::Error> {
        bounded(self.handle.route().add(route_message(index, route)).execute()).await
    }

    async fn present_routes(&self, index: u32) -> Result<BTreeSet<Route>, WgError> {
        let mut routes = BTreeSet::new();
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for filter in [v4, v6] {
            let stream = self.handle.route().get(filter).execute();
            let all: Vec<RouteMessage> = bounded(stream.try_collect())
                .await
                .map_err(|e| self.failed("read routes of", e))?;
            routes.extend(all.iter().filter_map(|m| present_route(index, m)));
        }
        Ok(routes)
    }

    fn failed(&self, what: &str, source: io::Error) -> WgError {
        WgError::System { what: format!("{what} {}", self.name), source }
    }
}

/// Addresses that are there and not wanted.
#[derive(Clone, Copy)]
enum Strangers<'a> {
    /// The device carries the file's addresses alone.
    Remove,
    /// Only these go: a script may have added others.
    Keep(&'a [IpNet]),
}

/// A route to the device. Ordered by length, longest first, as wg-quick adds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Route {
    shorter_by: u8,
    net: IpNet,
    table: u32,
}

impl Route {
    fn new(net: IpNet, table: u32) -> Self {
        Self { shorter_by: 128 - net.prefix_len(), net, table }
    }
}

/// Which routes the file asks for.
fn routes(conf: &WgConf) -> BTreeSet<Route> {
    let prefixes = conf.peers.iter().flat_map(|p| p.allowed_ips.iter().copied());
    match conf.table {
        Table::Off => BTreeSet::new(),
        Table::Number(table) => prefixes.map(|net| Route::new(net, table)).collect(),
        // The kernel routes the addresses' subnets to the device by itself.
        Table::Auto => prefixes
            .filter(|net| !conf.addresses.iter().any(|own| own.trunc().contains(net)))
            .map(|net| Route::new(net, MAIN))
            .collect(),
    }
}

fn route_message(index: u32, route: &Route) -> RouteMessage {
    let builder = RouteMessageBuilder::<IpAddr>::new()
        .output_interface(index)
        .table_id(route.table)
        .protocol(RouteProtocol::Boot);
    let scope =
        if matches!(route.net, IpNet::V4(_)) { RouteScope::Link } else { RouteScope::Universe };
    let builder = builder.scope(scope);
    // Fails for a prefix longer than its family's addresses, which IpNet rules out.
    match builder.clone().destination_prefix(route.net.addr(), route.net.prefix_len()) {
        Ok(complete) => complete.build(),
        Err(_) => builder.build(),
    }
}

fn present_route(index: u32, message: &RouteMessage) -> Option<Route> {
    let mut table = u32::from(message.header.table);
    let mut destination = None;
    let mut ours = false;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Oif(oif) => ours = *oif == index,
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => destination = Some((*v4).into()),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => {
                destination = Some((*v6).into());
            }
            _ => {}
        }
    }
    let any = match message.header.address_family {
        netlink_packet_route::AddressFamily::Inet => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        netlink_packet_route::AddressFamily::Inet6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let length = message.header.destination_prefix_length;
    let net = IpNet::new(destination.unwrap_or(any), length).ok()?;
    ours.then(|| Route::new(net, table))
}

fn found(link: &LinkMessage) -> Found {
    let mut kind = None;
    let mut mtu = 0;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(InfoKind::Wireguard) => Some(Kind::Wireguard),
                    LinkInfo::Kind(InfoKind::Tun) => Some(Kind::Tun),
                    LinkInfo::Kind(other) => Some(Kind::Other(format!("of kind {other}"))),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Found {
        index: link.header.index,
        kind: kind.unwrap_or_else(|| Kind::Other("a physical or built-in device".to_owned())),
        up: link.header.flags.contains(LinkFlags::Up),
        mtu,
    }
}

/// `IFA_LOCAL` is the device's own address where the other one is the far end's.
fn address(message: &AddressMessage) -> Option<IpNet> {
    let mut address = None;
    let mut local = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Local(ip) => local = Some(*ip),
            _ => {}
        }
    }
    IpNet::new(local.or(address)?, message.header.prefix_len).ok()
}

fn is_link_local(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local())
}

async fn bounded<T>(
    answer: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, io::Error> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(result) => result.map_err(|e| match e {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other),
        }),
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(extra: &str, allowed: &str) -> WgConf {
        let key = "YNqHbfBQKaGvzefsSXO6PDJIAVzzaTEPWiGmJUiKlFo=";
        let peer = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
        let text = format!(
            "[Interface]\nPrivateKey={key}\nListenPort=51820\nAddress=10.9.0.1/24\n{extra}\n\
             [Peer]\nPublicKey={peer}\nAllowedIPs={allowed}\n"
        );
        WgConf::parse("wg0", &text).unwrap().conf
    }

    fn listed(conf: &WgConf) -> Vec<String> {
        routes(conf).iter().map(|r| format!("{} {}", r.net, r.table)).collect()
    }

    #[test]
    fn routes_longest_first_and_none_that_an_address_covers() {
        let conf = conf("", "10.1.0.0/16, 10.9.0.2/32, 10.1.2.0/24, fd00:1::/64, 10.0.0.0/8");
        let expected = ["fd00:1::/64 254", "10.1.2.0/24 254", "10.1.0.0/16 254", "10.0.0.0/8 254"];
        assert_eq!(listed(&conf), expected);
    }

    #[test]
    fn routes_in_a_table_of_their_own_are_all_there() {
        let conf = conf("Table = 77", "0.0.0.0/0, 10.9.0.2/32");
        assert_eq!(listed(&conf), ["10.9.0.2/32 77", "0.0.0.0/0 77"]);
    }

    #[test]
    fn no_routes_with_table_off() {
        assert!(listed(&conf("Table = off", "0.0.0.0/0")).is_empty());
    }
}
