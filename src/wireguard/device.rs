//! The network device under WireGuard, whichever implementation drives it: existence, inner
//! addresses, MTU, link state, routes.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use ipnet::IpNet;

use super::WgError;
use super::conf::{Table, WgConf};
use crate::net::netlink::{MAIN_TABLE, route_key};
use crate::net::{Change, Family, Lifetime, Link, NetError, Netlink, Route};

/// Longest wait for one answer of the kernel. It normally answers at once, but takes thousands of
/// routes down with their link, and shares its lock with everyone who sets up links.
const ANSWER: Duration = Duration::from_secs(10);

/// `RTPROT_BOOT`: what `ip route add`, and so wg-quick, says.
const OWNER: u8 = 3;

/// A device by name, whether it exists or not.
pub(super) struct Netdev {
    name: String,
    netlink: Netlink,
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

impl Netdev {
    /// Opens a netlink socket in the network namespace of this thread.
    pub(super) fn open(name: &str) -> Result<Self, WgError> {
        Ok(Self { name: name.to_owned(), netlink: Netlink::open()?.patient(ANSWER) })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn find(&self) -> Result<Option<Found>, WgError> {
        Ok(self.netlink.link(&self.name).await?.map(|link| found(&link)))
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
        if self.netlink.create_link(&self.name, WIREGUARD).await? {
            return Ok(());
        }
        // Someone was faster. Whose it is, the next call finds out.
        let exists = io::Error::from(io::ErrorKind::AlreadyExists);
        Err(WgError::step(format!("create {}", self.name))(exists))
    }

    pub(super) async fn delete(&self, index: u32) -> Result<(), WgError> {
        self.netlink.delete_found(&self.name, index).await?;
        Ok(())
    }

    /// Addresses, MTU, then the link. WireGuard's socket opens here (kernel), so the error may be
    /// `EADDRINUSE`.
    pub(super) async fn bring_up(&self, found: &Found, conf: &WgConf) -> Result<(), WgError> {
        self.set_addresses(&conf.addresses, Strangers::Remove).await?;
        self.set_mtu(found, conf).await?;
        if !found.up {
            self.netlink.set_up(&self.name, true).await?;
        }
        Ok(())
    }

    /// Addresses, link up, routes, all in one go, on a device that is down and bare. Only where the
    /// MTU is right already.
    pub(super) async fn raise(&self, found: &Found, conf: &WgConf) -> Result<(), WgError> {
        let interface = found.index;
        let address = |a: &IpNet| Change::PutAddress { interface, address: *a, deprecated: false };
        let mut changes: Vec<Change> = conf.addresses.iter().map(address).collect();
        changes.push(Change::SetLink { interface, up: true });
        changes.extend(routes(interface, conf).into_iter().map(Change::AddRoute));
        let taken = self.netlink.flight(changes).await?;
        self.own(taken).await
    }

    /// Link down, at once.
    pub(super) async fn lower(&self, index: u32) -> Result<(), WgError> {
        self.netlink.flight(vec![Change::SetLink { interface: index, up: false }]).await?;
        Ok(())
    }

    /// Link down, then no address: an address would be local even on a device that is down, and
    /// the clients' way to the master would end here.
    pub(super) async fn bring_down(&self, found: &Found) -> Result<(), WgError> {
        if found.up {
            self.netlink.set_up(&self.name, false).await?;
        }
        self.set_addresses(&[], Strangers::Remove).await
    }

    /// Routes for all allowed prefixes, longest first. One that is there stays.
    pub(super) async fn add_routes(&self, index: u32, conf: &WgConf) -> Result<(), WgError> {
        let wanted = routes(index, conf);
        let present = self.present(&wanted).await?;
        let missing = wanted.into_iter().filter(|r| !present.contains(&place(r))).collect();
        let taken = self.netlink.add_routes(missing).await?;
        self.own(taken).await
    }

    /// Whether the routes in whose place there is one are ours.
    async fn own(&self, taken: Vec<Route>) -> Result<(), WgError> {
        // Another's, unless someone set ours since the question before.
        let present = self.present(&taken).await?;
        match taken.iter().find(|r| !present.contains(&place(r))) {
            Some(route) => Err(WgError::RouteTaken(route.destination)),
            None => Ok(()),
        }
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
        self.set_addresses(&new.addresses, Strangers::Keep(&gone)).await?;
        self.set_mtu(found, new).await?;
        let wanted: BTreeSet<Place> = routes(found.index, new).iter().map(place).collect();
        let mut gone = routes(found.index, old);
        gone.retain(|route| !wanted.contains(&place(route)));
        // Some went with their address, or by another hand.
        let present = self.present(&gone).await?;
        gone.retain(|route| present.contains(&place(route)));
        self.netlink.remove_routes(gone).await?;
        self.add_routes(found.index, new).await
    }

    async fn set_mtu(&self, found: &Found, conf: &WgConf) -> Result<(), WgError> {
        if found.mtu != conf.mtu {
            self.netlink.set_mtu(&self.name, conf.mtu).await?;
        }
        Ok(())
    }

    async fn set_addresses(
        &self,
        wanted: &[IpNet],
        strangers: Strangers<'_>,
    ) -> Result<(), WgError> {
        let present = self.netlink.addresses(Some(&self.name)).await?;
        for there in &present {
            let net = there.address;
            let remove = match strangers {
                // The kernel's own link-local address comes and goes with the link.
                Strangers::Remove => !is_link_local(&net) && !wanted.contains(&net),
                Strangers::Keep(gone) => gone.contains(&net),
            };
            if remove {
                self.netlink.remove_found(there).await?;
            }
        }
        for net in wanted.iter().filter(|net| !present.iter().any(|there| there.address == **net)) {
            self.netlink.put_address(&self.name, *net, Lifetime::Forever, false).await?;
        }
        Ok(())
    }

    /// Which places of these routes, all to one device, have a route to that device now. One
    /// question for each family and table, and none without routes.
    async fn present(&self, routes: &[Route]) -> Result<BTreeSet<Place>, WgError> {
        let lists: BTreeSet<(Family, u32, u32)> =
            routes.iter().map(|r| (r.family(), r.table, r.interface)).collect();
        let mut present = BTreeSet::new();
        for (family, table, interface) in lists {
            let routes = self.netlink.routes(family, table, Some(interface)).await?;
            present.extend(routes.iter().map(place));
        }
        Ok(present)
    }
}

impl From<NetError> for WgError {
    fn from(e: NetError) -> Self {
        match e {
            NetError::Refused { what, source } => WgError::System { what, source },
            NetError::NoAnswer(what) => {
                WgError::System { what, source: io::ErrorKind::TimedOut.into() }
            }
            NetError::Open(source) => {
                WgError::System { what: "open a netlink socket".to_owned(), source }
            }
            other => WgError::System {
                what: "set up the interface".to_owned(),
                source: io::Error::other(other),
            },
        }
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

/// Destination, metric and table: the kernel has one route for each.
type Place = ((IpNet, u32), u32);

fn place(route: &Route) -> Place {
    (route_key(route), route.table)
}

/// Which routes to the device the file asks for: longest first, as wg-quick adds them.
fn routes(index: u32, conf: &WgConf) -> Vec<Route> {
    let (table, covered): (_, &[IpNet]) = match conf.table {
        Table::Off => return Vec::new(),
        Table::Number(table) => (table, &[]),
        // The kernel routes the addresses' subnets to the device by itself.
        Table::Auto => (MAIN_TABLE, &conf.addresses),
    };
    let prefixes: BTreeSet<(u8, IpNet)> = conf
        .peers
        .iter()
        .flat_map(|p| p.allowed_ips.iter())
        .filter(|net| !covered.iter().any(|own| own.trunc().contains(*net)))
        .map(|net| (128 - net.prefix_len(), *net))
        .collect();
    prefixes.into_iter().map(|(_, net)| Route::new(net, table, index, OWNER)).collect()
}

fn found(link: &Link) -> Found {
    let kind = match link.kind.as_deref() {
        Some(WIREGUARD) => Kind::Wireguard,
        Some("tun") => Kind::Tun,
        Some(other) => Kind::Other(format!("of kind {other}")),
        None => Kind::Other("a physical or built-in device".to_owned()),
    };
    Found { index: link.index, kind, up: link.up, mtu: link.mtu }
}

/// The kernel's name for a link of its WireGuard.
const WIREGUARD: &str = "wireguard";

fn is_link_local(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local())
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
        routes(7, conf).iter().map(|r| format!("{} {}", r.destination, r.table)).collect()
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
