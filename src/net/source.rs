//! WireGuard's packets leave from the floating IP or not at all: policy rules and a private table.
//!
//! For each family, with T = [`table_of`] the port, everything owned by routing protocol [`OWNER`]:
//!
//! ```text
//! 100  from VIP          iif lo ipproto udp sport PORT  lookup T     a source that is the VIP
//! 101  from 0.0.0.0/32   iif lo ipproto udp sport PORT  lookup T     IPv4: no source chosen yet
//! 101  from ::/1         iif lo ipproto udp sport PORT  blackhole    IPv6: any other source ...
//! 102  from 8000::/1     iif lo ipproto udp sport PORT  blackhole
//! 103                    iif lo ipproto udp sport PORT  lookup T     IPv6: ... so no source yet
//! 109                    iif lo ipproto udp sport PORT  blackhole    always present
//! ```
//!
//! T holds the main table's routes through the floating IP's interface, with the floating IP as
//! preferred source. IPv6 needs the detour because a rule with a source never matches a packet that
//! has none yet, and `::/0` is no source. `iif lo` means what this machine itself sends; forwarded
//! packets pass. `blackhole` gives the sender `EINVAL`, upon which the kernel's WireGuard forgets a
//! stale source and asks again. A family without a floating IP stays guarded while the other has
//! one: a client must not come to know an address that no other gateway can take over.
//!
//! Rules with a priority below 100 that others set come first, and are not ours to judge. While
//! somebody else has taken the rules away, [`barrier`](super::barrier) holds, which every function here that
//! changes anything brings along.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::netlink::{MAIN_TABLE, has_ipv6};
use super::{Change, Family, Link, NetError, Netlink, Route, barrier};

mod steps;

use steps::{LAST, Step, last_rule, mirror, route_steps, rule_steps, wanted_rules};

/// The routing protocol number of all that wgha sets (`ip rule show protocol 151`).
pub const OWNER: u8 = 151;

/// The private table of a WireGuard port: 5112, then the port in five digits (51820: 511251820).
#[must_use]
pub const fn table_of(port: u16) -> u32 {
    511_200_000 + port as u32
}

/// How often what was found wrong is put right before giving up.
const TRIES: usize = 3;

/// Where WireGuard's packets shall leave from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlan {
    /// WireGuard's listen port.
    pub port: u16,
    /// The IPv4 floating IP and its interface.
    pub v4: Option<(Ipv4Addr, String)>,
    /// The IPv6 floating IP and its interface.
    pub v6: Option<(Ipv6Addr, String)>,
}

impl SourcePlan {
    /// No floating IP in either family: nothing at all is set up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    /// What there is to guard: a kernel without IPv6 cannot send it.
    fn families(&self) -> impl Iterator<Item = Family> {
        let ipv6 = self.v6.is_some() || has_ipv6();
        Family::ALL.into_iter().filter(move |family| ipv6 || *family == Family::V4)
    }

    fn source(&self, family: Family) -> Option<(IpAddr, &str)> {
        match family {
            Family::V4 => self.v4.as_ref().map(|(ip, name)| (IpAddr::V4(*ip), name.as_str())),
            Family::V6 => self.v6.as_ref().map(|(ip, name)| (IpAddr::V6(*ip), name.as_str())),
        }
    }
}

/// What shall stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Nothing of ours.
    Nothing,
    /// The last rule: not one packet leaves.
    Guarded,
    /// All of it: packets leave from the floating IP.
    Installed,
}

/// Makes sure of the last rule, and leaves the others alone. For every moment of a gateway's life.
/// `true`: it was missing.
///
/// # Errors
/// The kernel refused or did not answer.
pub async fn guard(netlink: &Netlink, plan: &SourcePlan) -> Result<bool, NetError> {
    if plan.is_empty() {
        return Ok(false);
    }
    let mut changed = barrier::install(plan);
    for family in plan.families() {
        let last = last_rule(family, plan.port);
        if !netlink.rules(family).await?.iter().any(|rule| rule.same_effect(&last)) {
            changed |= netlink.add_rule(&last).await?;
        }
    }
    Ok(changed)
}

/// Brings rules and table to where packets leave from the floating IPs, which are claimed before;
/// again whenever the main table or an address changed. `true`: something was not so.
///
/// # Errors
/// [`NetError::NoAddress`], [`NetError::NoInterface`]: that family stays guarded, the other is
/// installed. [`NetError::DidNotStay`]; the kernel refused or did not answer.
pub async fn install(netlink: &Netlink, plan: &SourcePlan) -> Result<bool, NetError> {
    bring(netlink, plan, Extent::Installed).await
}

/// Back to the last rule alone. After wg0 is down, before the address goes. `true`: more was there.
///
/// # Errors
/// As [`install`], apart from missing addresses and interfaces.
pub async fn remove(netlink: &Netlink, plan: &SourcePlan) -> Result<bool, NetError> {
    bring(netlink, plan, Extent::Guarded).await
}

/// What [`install`] would do now if the floating IPs stood already, for the moment when they do.
/// `None`: that cannot be known before (the floating IP brings a route that is to be mirrored).
///
/// # Errors
/// [`NetError::NoInterface`]; the kernel refused or did not answer.
pub async fn prepare_install(
    netlink: &Netlink,
    plan: &SourcePlan,
    links: &[Link],
) -> Result<Option<Vec<Change>>, NetError> {
    let mut changes = Vec::new();
    for family in plan.families() {
        let mut at = None;
        if let Some((ip, interface)) = plan.source(family) {
            let known = links.iter().find(|link| link.name == interface);
            let Some(link) = known else { return Ok(None) };
            let own = netlink.routes(family, MAIN_TABLE, Some(link.index)).await?;
            if !own.iter().any(|r| r.gateway.is_none() && r.destination.contains(&ip)) {
                return Ok(None);
            }
            at = Some((ip, own));
        }
        let steps = steps_to(netlink, plan, family, at, Extent::Installed).await?;
        changes.extend(steps.into_iter().map(Change::from));
    }
    Ok(Some(changes))
}

/// What [`remove`] would do now.
///
/// # Errors
/// The kernel refused or did not answer.
pub async fn prepare_remove(netlink: &Netlink, plan: &SourcePlan) -> Result<Vec<Change>, NetError> {
    let mut changes = Vec::new();
    for family in plan.families() {
        let steps = steps_to(netlink, plan, family, None, Extent::Guarded).await?;
        changes.extend(steps.into_iter().map(Change::from));
    }
    Ok(changes)
}

/// Removes everything that wgha ever set for this port. `true`: there was something.
///
/// # Errors
/// As [`remove`].
pub async fn purge(netlink: &Netlink, port: u16) -> Result<bool, NetError> {
    bring(netlink, &SourcePlan { port, v4: None, v6: None }, Extent::Nothing).await
}

/// The same without the barrier: taking that down may wait tens of milliseconds for others' transactions, and it stops nobody but who
/// would speak from a wrong address.
///
/// # Errors
/// As [`remove`].
pub async fn purge_rules(netlink: &Netlink, port: u16) -> Result<bool, NetError> {
    bring_families(netlink, &SourcePlan { port, v4: None, v6: None }, Extent::Nothing).await
}

/// What differs from the wanted extent, one line for each; empty: nothing.
///
/// # Errors
/// As [`install`], apart from [`NetError::DidNotStay`].
pub async fn verify(
    netlink: &Netlink,
    plan: &SourcePlan,
    extent: Extent,
) -> Result<Vec<String>, NetError> {
    let mut found = Vec::new();
    for family in plan.families() {
        let steps = difference(netlink, plan, family, extent).await?;
        found.extend(steps.iter().map(ToString::to_string));
    }
    Ok(found)
}

async fn bring(netlink: &Netlink, plan: &SourcePlan, extent: Extent) -> Result<bool, NetError> {
    let nothing = extent == Extent::Nothing || plan.is_empty();
    let barrier = if nothing { barrier::remove(plan.port) } else { barrier::install(plan) };
    Ok(bring_families(netlink, plan, extent).await? || barrier)
}

async fn bring_families(
    netlink: &Netlink,
    plan: &SourcePlan,
    extent: Extent,
) -> Result<bool, NetError> {
    let mut changed = false;
    let mut first_error = None;
    for family in plan.families() {
        match bring_family(netlink, plan, family, extent).await {
            Ok(did) => changed |= did,
            Err(e @ (NetError::NoAddress { .. } | NetError::NoInterface(_))) => {
                let guarded = bring_family(netlink, plan, family, Extent::Guarded).await;
                first_error.get_or_insert(guarded.err().unwrap_or(e));
            }
            Err(e) => {
                first_error.get_or_insert(e);
            }
        }
    }
    first_error.map_or(Ok(changed), Err)
}

async fn bring_family(
    netlink: &Netlink,
    plan: &SourcePlan,
    family: Family,
    extent: Extent,
) -> Result<bool, NetError> {
    let mut changed = false;
    for _ in 0..TRIES {
        let steps = difference(netlink, plan, family, extent).await?;
        if steps.is_empty() {
            return Ok(changed);
        }
        let mut effect = false;
        for step in &steps {
            effect |= take(netlink, step).await?;
        }
        if !effect {
            return Ok(changed);
        }
        changed = true;
    }
    match difference(netlink, plan, family, extent).await?.first() {
        Some(step) => Err(NetError::DidNotStay(step.to_string())),
        None => Ok(changed),
    }
}

async fn take(netlink: &Netlink, step: &Step) -> Result<bool, NetError> {
    match step {
        Step::AddRule(rule) => netlink.add_rule(rule).await,
        Step::RemoveRule(rule) => netlink.remove_rule(rule).await,
        Step::PutRoute(route) => netlink.put_route(route).await.map(|()| true),
        Step::RemoveRoute(route) => netlink.remove_route(route).await,
    }
}

/// What is to do in a family, in order.
async fn difference(
    netlink: &Netlink,
    plan: &SourcePlan,
    family: Family,
    extent: Extent,
) -> Result<Vec<Step>, NetError> {
    let mut at = None;
    if let Some((ip, interface)) = plan.source(family).filter(|_| extent == Extent::Installed) {
        let index = usable(netlink, ip, interface).await?;
        at = Some((ip, netlink.routes(family, MAIN_TABLE, Some(index)).await?));
    }
    steps_to(netlink, plan, family, at, extent).await
}

/// The same, where the floating IP and the main table's routes through its interface are known.
async fn steps_to(
    netlink: &Netlink,
    plan: &SourcePlan,
    family: Family,
    at: Option<(IpAddr, Vec<Route>)>,
    extent: Extent,
) -> Result<Vec<Step>, NetError> {
    let table = table_of(plan.port);
    let source = at.as_ref().map(|(ip, _)| *ip);
    let wanted_routes = at.map_or_else(Vec::new, |(ip, main)| mirror(main, table, ip));
    let wanted_rules = match extent {
        _ if plan.is_empty() => Vec::new(),
        Extent::Nothing => Vec::new(),
        _ => wanted_rules(family, plan.port, source),
    };
    let rules = netlink.rules(family).await?;
    let routes = netlink.routes(family, table, None).await?;
    let (add, drop) = rule_steps(&wanted_rules, &rules, plan.port);
    let route_steps = route_steps(&wanted_routes, &routes);
    // The table is filled before it is asked, and emptied after; the last rule comes first of all.
    Ok(if source.is_some() {
        let (last, rest): (Vec<_>, Vec<_>) =
            add.into_iter().partition(|s| matches!(s, Step::AddRule(r) if r.priority == LAST));
        [last, route_steps, rest, drop].concat()
    } else {
        [add, drop, route_steps].concat()
    })
}

/// The index of the interface on which the address is usable.
async fn usable(netlink: &Netlink, ip: IpAddr, interface: &str) -> Result<u32, NetError> {
    let addresses = netlink.addresses(Some(interface)).await?;
    addresses
        .iter()
        .find(|a| a.address.addr() == ip && !a.tentative)
        .map(|a| a.interface)
        .ok_or_else(|| NetError::NoAddress { address: ip, interface: interface.to_owned() })
}
