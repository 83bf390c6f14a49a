//! Addresses of interfaces.

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use nix::errno::Errno;

use super::super::types::{Address, Family, Lifetime};
use super::{NetError, Netlink, family_code, family_of, unless};

impl Netlink {
    /// The addresses of an interface, or of all.
    ///
    /// # Errors
    /// [`NetError::NoInterface`]; the kernel refused or did not answer.
    pub async fn addresses(&self, interface: Option<&str>) -> Result<Vec<Address>, NetError> {
        let mut message = AddressMessage::default();
        let mut what = "list addresses".to_owned();
        if let Some(name) = interface {
            message.header.index = self.existing_link(name).await?.index;
            what = format!("list addresses of {name}");
        }
        let index = message.header.index;
        let answers = self.list(&what, RouteNetlinkMessage::GetAddress(message)).await?;
        let addresses = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => convert(&message),
            _ => None,
        });
        Ok(addresses.filter(|a| index == 0 || a.interface == index).collect())
    }

    /// Sets an address, new or again (then its lifetime starts anew). One request, no comparison.
    ///
    /// IPv6 addresses are set without duplicate address detection: usable at once. `deprecated`
    /// gives them preferred lifetime 0, so that the machine's own traffic does not leave from them.
    ///
    /// # Errors
    /// [`NetError::NoInterface`]; the kernel refused or did not answer.
    pub async fn put_address(
        &self,
        interface: &str,
        address: IpNet,
        valid: Lifetime,
        deprecated: bool,
    ) -> Result<(), NetError> {
        let link = self.existing_link(interface).await?;
        let deprecated = deprecated && address.addr().is_ipv6();
        let wanted = Address { valid, deprecated, ..plain(link.index, address) };
        let request = RouteNetlinkMessage::NewAddress(message(&wanted));
        let what = format!("set address {address} on {interface}");
        self.change(&what, request, NLM_F_CREATE | NLM_F_REPLACE).await
    }

    /// As [`put_address`](Self::put_address), on an interface that was found.
    pub(super) async fn put_address_at(
        &self,
        interface: u32,
        address: IpNet,
        valid: Lifetime,
        deprecated: bool,
    ) -> Result<(), NetError> {
        let deprecated = deprecated && address.addr().is_ipv6();
        let wanted = Address { valid, deprecated, ..plain(interface, address) };
        let request = RouteNetlinkMessage::NewAddress(message(&wanted));
        let what = format!("set address {address} on interface {interface}");
        self.change(&what, request, NLM_F_CREATE | NLM_F_REPLACE).await
    }

    /// Removes an address. `false`: it was not there, or its interface is gone.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn remove_address(&self, interface: &str, address: IpNet) -> Result<bool, NetError> {
        let Some(link) = self.link(interface).await? else { return Ok(false) };
        self.remove_found(&plain(link.index, address)).await
    }

    /// Removes an address that was found, whatever its other end. `false`: it is gone.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn remove_found(&self, found: &Address) -> Result<bool, NetError> {
        let mut message = message(found);
        // Only the addresses themselves identify it.
        message.attributes.retain(|a| !matches!(a, AddressAttribute::CacheInfo(_)));
        let request = RouteNetlinkMessage::DelAddress(message);
        let what = format!("remove address {}", found.address);
        unless(&[Errno::EADDRNOTAVAIL, Errno::ENODEV], self.change(&what, request, 0).await)
    }
}

fn convert(message: &AddressMessage) -> Option<Address> {
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
        far_end: peer.filter(|peer| *peer != address.addr()),
        valid,
        deprecated: flags.contains(AddressFlags::Deprecated),
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
    })
}

/// An address without anything else.
fn plain(interface: u32, address: IpNet) -> Address {
    Address {
        interface,
        address,
        far_end: None,
        valid: Lifetime::Forever,
        deprecated: false,
        tentative: false,
    }
}

fn message(wanted: &Address) -> AddressMessage {
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
        AddressAttribute::Address(wanted.far_end.unwrap_or(ip)),
        AddressAttribute::CacheInfo(lifetime),
    ];
    // With a lifetime the kernel does not take the prefix's route off together with the address, but leaves it to expire. To
    // a single address it is of no use anyway.
    if ip.is_ipv6() && wanted.address.prefix_len() == 128 && wanted.valid != Lifetime::Forever {
        // In place of the header's.
        let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    message
}

/// "Forever" in a lifetime.
const INFINITY: u32 = u32::MAX;
