//! Sees from outside what the gateways do: `ip monitor` in each of them and in the router.

use std::collections::HashMap;

use anyhow::Result;

use crate::lab::Lab;
use crate::node::Node;
use crate::process::{Process, Spec};
use crate::timeline::{Event, stamped};
use crate::topology;

/// Watches addresses and wg0 of the gateways, and whom the router takes for the floating IP's owner.
pub struct Watch {
    gateways: Vec<Process>,
    router: Process,
    macs: HashMap<String, String>,
}

impl Watch {
    /// Starts watching. The stamps are a few milliseconds late at most.
    ///
    /// # Errors
    /// When `ip` cannot be started.
    pub fn start(lab: &Lab) -> Result<Self> {
        let monitor = |node: &Node, what: &[&str]| {
            let argv = ["ip", "monitor"].iter().chain(what).copied();
            node.spawn(Spec::new(argv).named("monitor"))
        };
        let macs = lab.gateways().iter().map(|g| Ok((mac(g, "eth0")?, g.name().to_owned())));
        Ok(Self {
            macs: macs.collect::<Result<_>>()?,
            gateways: lab
                .gateways()
                .iter()
                .map(|g| monitor(g, &["address", "link"]))
                .collect::<Result<_>>()?,
            router: monitor(lab.router(), &["neigh"])?,
        })
    }

    /// What changed so far. Repeated lines (address lifetimes renewed, neighbours confirmed) count once.
    pub fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for process in &self.gateways {
            let mut state = HashMap::new();
            for (at, line) in process.log().lines().filter_map(stamped) {
                let Some((thing, now)) = gateway_change(line) else { continue };
                if state.insert(thing.clone(), now) != Some(now) {
                    events.push(event(at, process.node_name(), gateway_words(&thing, now)));
                }
            }
        }
        let mut owners = HashMap::new();
        for (at, line) in self.router.log().lines().filter_map(stamped) {
            let Some((address, mac)) = neighbour(line) else { continue };
            let owner = self.macs.get(mac).map_or(mac, String::as_str);
            if owners.insert(address.to_owned(), owner.to_owned()).as_deref() != Some(owner) {
                events.push(event(at, "router", format!("{address} is at {owner}")));
            }
        }
        events.sort();
        events
    }

    /// When `what` first happened on `node` after `since` (ns).
    pub fn first(&self, since: u64, node: &str, what: &str) -> Option<u64> {
        self.events()
            .iter()
            .find(|e| e.at >= since && e.node == node && e.what == what)
            .map(|e| e.at)
    }
}

fn event(at: u64, node: &str, what: String) -> Event {
    Event { at, node: node.to_owned(), what }
}

fn floating() -> [String; 4] {
    let (outer, inner) = (topology::floating(), topology::inner_floating());
    [outer.v4.to_string(), outer.v6.to_string(), inner.v4.to_string(), inner.v6.to_string()]
}

/// What a line says of a floating address or of a link: its name, and whether it is there or up.
fn gateway_change(line: &str) -> Option<(String, bool)> {
    let deleted = line.starts_with("Deleted ");
    let line = line.strip_prefix("Deleted ").unwrap_or(line);
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        [_, _, "inet" | "inet6", address, ..] => {
            let address = address.split('/').next()?;
            floating().iter().any(|f| f == address).then(|| (address.to_owned(), !deleted))
        }
        [_, name, flags, ..] if flags.starts_with('<') => {
            let name = name.trim_end_matches(':').split('@').next()?;
            let flags = flags.trim_matches(['<', '>']);
            let has = |flag| flags.split(',').any(|f| f == flag);
            let up = !deleted && has("UP") && (name == "wg0" || has("LOWER_UP"));
            (name == "wg0" || name == "eth0").then(|| (name.to_owned(), up))
        }
        _ => None,
    }
}

fn gateway_words(thing: &str, now: bool) -> String {
    match (thing, now) {
        ("wg0", true) => "wg0 up".to_owned(),
        ("wg0", false) => "wg0 down".to_owned(),
        ("eth0", true) => "eth0 has a carrier".to_owned(),
        ("eth0", false) => "eth0 lost its carrier".to_owned(),
        (address, true) => format!("{address} added"),
        (address, false) => format!("{address} removed"),
    }
}

/// Address and MAC of a line about a floating address.
fn neighbour(line: &str) -> Option<(&str, &str)> {
    let (address, rest) = line.split_once(' ')?;
    let mac = rest.split_once("lladdr ")?.1.split_whitespace().next()?;
    floating().iter().any(|f| f == address).then_some((address, mac))
}

/// The hardware address of an interface.
///
/// # Errors
/// When there is no such interface.
pub fn mac(node: &Node, interface: &str) -> Result<String> {
    let links = node.holdings()?.links;
    let found = links.into_iter().find(|l| l.name == interface).and_then(|l| l.mac);
    found.ok_or_else(|| anyhow::anyhow!("{} has no {interface} with a MAC", node.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ip_monitor() {
        let change = |line| gateway_change(line).map(|(thing, now)| gateway_words(&thing, now));
        assert_eq!(
            change("3: eth0    inet 203.0.113.100/32 scope global deprecated dynamic eth0"),
            Some("203.0.113.100 added".into())
        );
        assert_eq!(
            change("Deleted 3: eth0    inet6 2001:db8:1::100/128 scope global"),
            Some("2001:db8:1::100 removed".into())
        );
        assert_eq!(
            change("4: wg0: <NO-CARRIER,POINTOPOINT,MULTICAST,NOARP,UP> mtu 1500"),
            Some("wg0 up".into())
        );
        assert_eq!(
            change("4: wg0: <POINTOPOINT,MULTICAST,NOARP> mtu 1500"),
            Some("wg0 down".into())
        );
        assert_eq!(
            change("2: eth0@if5: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1500"),
            Some("eth0 lost its carrier".into())
        );
        assert_eq!(change("       valid_lft 4sec preferred_lft 0sec"), None);
        assert_eq!(change("3: eth0    inet 203.0.113.11/24 scope global eth0"), None);
        let line = "203.0.113.100 dev eth0 lladdr 02:00:00:00:00:01 REACHABLE ";
        assert_eq!(neighbour(line), Some(("203.0.113.100", "02:00:00:00:00:01")));
        assert_eq!(neighbour("203.0.113.100 dev eth0 FAILED"), None);
    }
}
