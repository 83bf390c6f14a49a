//! Which of the nodes this machine is.

use std::fmt;
use std::net::IpAddr;

use super::{Config, Machine, Node};

/// How the local node was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// `--node` names it.
    Option,
    /// `WGHA_NODE` names it.
    Variable,
    /// This machine has one of its addresses.
    Address(IpAddr),
    /// It has the name of this host.
    Hostname(String),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Option => f.write_str("--node names it"),
            Found::Variable => f.write_str("WGHA_NODE names it"),
            Found::Address(address) => write!(f, "this machine has its address {address}"),
            Found::Hostname(name) => write!(f, "this host's name is {name}"),
        }
    }
}

impl Config {
    /// How the local node was found: `None` if the machine changed since the config was read.
    #[must_use]
    pub fn found(&self, node: Option<&str>, machine: &dyn Machine) -> Option<Found> {
        let (me, found) = locate(&self.nodes, node, machine).ok()?;
        (me == self.me).then_some(found)
    }
}

/// The index of the local node in `nodes`.
pub(super) fn locate(
    nodes: &[Node],
    node: Option<&str>,
    machine: &dyn Machine,
) -> Result<(usize, Found), String> {
    if let Some(name) = node {
        return Ok((named(nodes, name, "--node")?, Found::Option));
    }
    if let Some(name) = machine.node_variable() {
        return Ok((named(nodes, &name, "WGHA_NODE")?, Found::Variable));
    }
    if let Some((index, address)) = by_address(nodes, machine)? {
        return Ok((index, Found::Address(address)));
    }
    let hostname = machine.hostname().unwrap_or_default();
    match by_hostname(nodes, &hostname) {
        Some(index) => Ok((index, Found::Hostname(hostname))),
        None => Err(format!(
            "none of the nodes is this machine: it has no address of {} and its name is {hostname:?}; \
             expected --node, WGHA_NODE, or an address or name of this machine",
            names(nodes),
        )),
    }
}

fn named(nodes: &[Node], name: &str, by: &str) -> Result<usize, String> {
    nodes
        .iter()
        .position(|node| node.name == name)
        .ok_or_else(|| format!("{by} is {name:?}; expected one of {}", names(nodes)))
}

fn by_address(nodes: &[Node], machine: &dyn Machine) -> Result<Option<(usize, IpAddr)>, String> {
    let mine =
        machine.addresses().map_err(|e| format!("cannot list this machine's addresses: {e}"))?;
    let matches: Vec<(usize, IpAddr)> = nodes
        .iter()
        .enumerate()
        .filter_map(|(index, node)| {
            let binds = node.addresses.iter().map(|address| address.bind.ip());
            binds.into_iter().find(|ip| mine.contains(ip)).map(|ip| (index, ip))
        })
        .collect();
    match matches.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        [(a, ip_a), (b, ip_b), ..] => Err(format!(
            "two nodes are this machine: it has {ip_a} of {} and {ip_b} of {}; \
             expected --node or WGHA_NODE to say which",
            nodes[*a].name, nodes[*b].name,
        )),
    }
}

/// The node of the host's whole name, else of its first label.
fn by_hostname(nodes: &[Node], hostname: &str) -> Option<usize> {
    let label = hostname.split('.').next().unwrap_or_default();
    let position = |name: &str| nodes.iter().position(|node| node.name == name);
    position(hostname).or_else(|| position(label))
}

fn names(nodes: &[Node]) -> String {
    nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ")
}
