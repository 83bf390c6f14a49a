//! What is wanted, what differs, and what to do about it; nothing here asks the kernel.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::super::netlink::{route_key, same_route};
use super::super::{Action, Change, Family, Route, Rule};
use super::{OWNER, table_of};

/// One thing to do, in an order in which no packet slips out from a wrong address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    AddRule(Rule),
    PutRoute(Route),
    RemoveRoute(Route),
    RemoveRule(Rule),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::AddRule(r) => write!(f, "rule {} of {:?} is missing", r.priority, r.family),
            Step::RemoveRule(r) => write!(f, "rule {} of {:?} is too much", r.priority, r.family),
            Step::PutRoute(r) => {
                write!(f, "route to {} in table {} is missing", r.destination, r.table)
            }
            Step::RemoveRoute(r) => {
                write!(f, "route to {} in table {} is too much", r.destination, r.table)
            }
        }
    }
}

impl From<Step> for Change {
    fn from(step: Step) -> Change {
        match step {
            Step::AddRule(rule) => Change::AddRule(rule),
            Step::PutRoute(route) => Change::PutRoute(route),
            Step::RemoveRoute(route) => Change::RemoveRoute(route),
            Step::RemoveRule(rule) => Change::RemoveRule(rule),
        }
    }
}

/// IP protocol number.
const UDP: u8 = 17;
/// Priority of the last rule.
pub(super) const LAST: u32 = 109;

pub(super) fn our_rule(
    family: Family,
    port: u16,
    priority: u32,
    from: Option<IpNet>,
    action: Action,
) -> Rule {
    Rule {
        family,
        priority,
        from,
        input: Some("lo".to_owned()),
        ip_protocol: Some(UDP),
        source_port: Some(port),
        action,
        owner: OWNER,
        other_selectors: false,
    }
}

pub(super) fn last_rule(family: Family, port: u16) -> Rule {
    our_rule(family, port, LAST, None, Action::Blackhole)
}

/// In the order in which they are added: what drops before what lets through.
pub(super) fn wanted_rules(family: Family, port: u16, source: Option<IpAddr>) -> Vec<Rule> {
    let mut rules = vec![last_rule(family, port)];
    let Some(ip) = source else { return rules };
    let lookup = Action::Lookup(table_of(port));
    let mut add = |priority, from, action| {
        rules.push(our_rule(family, port, priority, from, action));
    };
    match family {
        Family::V4 => {
            add(101, Some(Ipv4Net::from(Ipv4Addr::UNSPECIFIED).into()), lookup);
        }
        Family::V6 => {
            add(101, half(Ipv6Addr::UNSPECIFIED), Action::Blackhole);
            add(102, half(Ipv6Addr::new(0x8000, 0, 0, 0, 0, 0, 0, 0)), Action::Blackhole);
            add(103, None, lookup);
        }
    }
    add(100, Some(IpNet::from(ip)), lookup);
    rules
}

/// One half of all IPv6 addresses.
fn half(start: Ipv6Addr) -> Option<IpNet> {
    Ipv6Net::new(start, 1).ok().map(IpNet::from)
}

/// What to add, and what of ours is there and not wanted.
pub(super) fn rule_steps(wanted: &[Rule], found: &[Rule], port: u16) -> (Vec<Step>, Vec<Step>) {
    let add = wanted
        .iter()
        .filter(|want| !found.iter().any(|rule| rule.same_effect(want)))
        .map(|want| Step::AddRule(want.clone()))
        .collect();
    let ours = |rule: &&Rule| rule.owner == OWNER && rule.source_port == Some(port);
    let mut drop: Vec<&Rule> = found
        .iter()
        .filter(ours)
        .filter(|rule| !wanted.iter().any(|want| rule.same_effect(want)))
        .collect();
    // A rule that lets through goes before the ones that drop.
    drop.sort_by_key(|rule| rule.action == Action::Blackhole);
    (add, drop.into_iter().map(|rule| Step::RemoveRule(rule.clone())).collect())
}

/// The main table's routes, with another source. One for each destination and metric.
pub(super) fn mirror(main: Vec<Route>, table: u32, source: IpAddr) -> Vec<Route> {
    let mut routes = BTreeMap::new();
    for route in main {
        // IPv6 has a route to the floating IP itself: local, never a way out.
        if route.destination == IpNet::from(source) {
            continue;
        }
        let copy = Route { table, source: Some(source), owner: OWNER, ..route };
        routes.entry(route_key(&copy)).or_insert(copy);
    }
    let mut routes: Vec<Route> = routes.into_values().collect();
    // Connected ones first: gateways must be reachable when their routes are set.
    routes.sort_by_key(|route| route.gateway.is_some());
    routes
}

pub(super) fn route_steps(wanted: &[Route], found: &[Route]) -> Vec<Step> {
    let missing = wanted.iter().filter(|want| !found.iter().any(|r| same_route(r, want)));
    let mut steps: Vec<Step> = missing.map(|want| Step::PutRoute(want.clone())).collect();
    for route in found.iter().filter(|r| !wanted.iter().any(|want| same_route(r, want))) {
        // One with the key of a wanted one is replaced in the step above.
        if !wanted.iter().any(|want| route_key(want) == route_key(route)) {
            steps.push(Step::RemoveRoute(route.clone()));
        }
    }
    steps
}

#[cfg(test)]
mod tests;
