//! Whom to ask: default routers of the interfaces that matter, or the addresses that the config names.

use std::net::IpAddr;

use super::Settings;
use super::judge::{Key, MAX_SOURCES};
use crate::config::EvidenceChoice;
use crate::net::netlink::MAIN_TABLE;
use crate::net::probe::Question;
use crate::net::{Address, Family, Link, NetError, Netlink};

/// A source that can be asked now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) key: Key,
    pub(super) question: Question,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// What the config said.
    pub(super) choice: EvidenceChoice,
    pub(super) sources: Vec<Source>,
    /// Ethernet addresses of this machine.
    pub(super) own: Vec<[u8; 6]>,
}

/// Looks at links, addresses and routes. Asks nobody.
pub(super) async fn find(netlink: &Netlink, settings: &Settings) -> Result<Found, NetError> {
    if settings.choice == EvidenceChoice::Off {
        return Ok(Found { choice: EvidenceChoice::Off, ..Found::default() });
    }
    let machine =
        Machine { links: netlink.links().await?, addresses: netlink.addresses(None).await? };
    let wanted = match &settings.choice {
        EvidenceChoice::Auto => routers(netlink, settings, &machine).await?,
        EvidenceChoice::Addresses(named) => named
            .iter()
            .filter_map(|whom| Some((machine.on_link(*whom, settings)?, *whom)))
            .collect(),
        EvidenceChoice::Off => Vec::new(),
    };
    let choice = settings.choice.clone();
    let mut found = Found { choice, sources: Vec::new(), own: machine.macs() };
    for (index, whom) in wanted {
        let source = machine.source(index, whom, settings);
        let new = source.filter(|new| found.sources.iter().all(|known| known.key != new.key));
        found.sources.extend(new.filter(|_| found.sources.len() < MAX_SOURCES));
    }
    Ok(found)
}

/// The next hops of the default routes of the interfaces that carry heartbeats or floating IPs, best
/// metric first.
async fn routers(
    netlink: &Netlink,
    settings: &Settings,
    machine: &Machine,
) -> Result<Vec<(u32, IpAddr)>, NetError> {
    let mut all = Vec::new();
    for index in machine.interfaces(settings) {
        for family in Family::ALL {
            let routes = netlink.routes(family, MAIN_TABLE, Some(index)).await?;
            let defaults = routes.into_iter().filter(|r| r.destination.prefix_len() == 0);
            all.extend(defaults.filter_map(|r| Some((r.metric, index, r.gateway?))));
        }
    }
    all.sort_unstable();
    // One of us is nobody outside.
    let foreign =
        |router: &IpAddr| !settings.floating.contains(router) && !settings.nodes.contains(router);
    let all = all.into_iter().filter(|(_, _, router)| foreign(router));
    Ok(all.map(|(_, index, router)| (index, router)).collect())
}

/// Links and addresses at one time.
struct Machine {
    links: Vec<Link>,
    addresses: Vec<Address>,
}

impl Machine {
    /// The interfaces that carry heartbeats, then those of floating IPs.
    fn interfaces(&self, settings: &Settings) -> Vec<u32> {
        let bound = self.addresses.iter().filter(|a| settings.mine.contains(&a.address.addr()));
        let carriers = self.links.iter().filter(|l| settings.interfaces.contains(&l.name));
        let mut all: Vec<u32> = Vec::new();
        for index in bound.map(|a| a.interface).chain(carriers.map(|l| l.index)) {
            if !all.contains(&index) {
                all.push(index);
            }
        }
        all
    }

    /// The interface whose network an address is in; link-local ones are looked for where the
    /// heartbeats are.
    fn on_link(&self, whom: IpAddr, settings: &Settings) -> Option<u32> {
        if matches!(whom, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
            return self.interfaces(settings).first().copied();
        }
        let near = |a: &&Address| {
            a.address.contains(&whom) && !settings.floating.contains(&a.address.addr())
        };
        self.addresses.iter().find(near).map(|a| a.interface)
    }

    fn macs(&self) -> Vec<[u8; 6]> {
        self.links.iter().filter_map(|link| link.mac).collect()
    }

    /// `None` where nobody can be asked: no Ethernet, link down, no address of mine.
    fn source(&self, index: u32, whom: IpAddr, settings: &Settings) -> Option<Source> {
        let link = self.links.iter().find(|link| link.index == index && link.up)?;
        let from = self.sender(index, whom, settings)?;
        let question = Question { index, mac: link.mac?, from, whom };
        Some(Source { key: (link.name.clone(), whom), question })
    }

    /// An address of the machine's own, never a floating IP: asking teaches the asked one where the
    /// sender is.
    fn sender(&self, index: u32, whom: IpAddr, settings: &Settings) -> Option<IpAddr> {
        let usable = self.addresses.iter().filter(|a| {
            a.interface == index
                && !a.tentative
                && a.address.addr().is_ipv4() == whom.is_ipv4()
                && !settings.floating.contains(&a.address.addr())
        });
        let link_local = |ip: IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        // Of the same network first; one that is not preferred last.
        let worth = |a: &&Address| {
            let near = match link_local(whom) {
                true => link_local(a.address.addr()),
                false => a.address.contains(&whom),
            };
            let mine = settings.mine.contains(&a.address.addr());
            (near, !a.deprecated, mine)
        };
        usable.max_by_key(worth).map(|a| a.address.addr())
    }
}
