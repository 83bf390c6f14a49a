//! Which sockets a node has, and where its paths lead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wgha_proto::{MAX_FLOATING, floating_path};

use super::{Port, Route};
use crate::config::{Config, Node};

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// One of my addresses.
    Own,
    /// A floating IP, which the machine has while it is master: what comes on the clients' way.
    Floating,
    /// To floating IPs, from whatever address leads there.
    Clients,
}

/// The sockets of a node: its own addresses first, as routes count on.
pub(super) fn wanted(config: &Config) -> impl Iterator<Item = (SocketAddr, Use)> {
    let me = &config.nodes[config.me];
    let own = me.addresses.iter().map(|a| (a.bind, Use::Own));
    let port = me.addresses.first().map_or(0, |a| a.bind.port());
    let at = move |ip| (SocketAddr::new(ip, port), Use::Floating);
    // A witness never has one.
    let masters = floating(config).filter(move |_| !me.witness).map(at);
    let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let any =
        any.into_iter().filter(move |any| floating(config).any(|ip| ip.is_ipv4() == any.is_ipv4()));
    own.chain(masters).chain(any.map(|ip| (SocketAddr::new(ip, 0), Use::Clients)))
}

/// The floating IPs that are paths to the master.
fn floating(config: &Config) -> impl Iterator<Item = IpAddr> {
    config.floating_ips.iter().map(|f| f.address.addr()).take(usize::from(MAX_FLOATING))
}

/// How many floating IPs are paths to the master.
#[must_use]
pub fn floating_count(config: &Config) -> u8 {
    u8::try_from(floating(config).count()).unwrap_or(MAX_FLOATING)
}

/// Where a floating path to a peer leads: its number, and the floating IP with the peer's port.
pub fn floating_routes<'a>(
    config: &'a Config,
    peer: &'a Node,
) -> impl Iterator<Item = (u8, SocketAddr)> + 'a {
    let port = peer.addresses.first().map_or(0, |a| a.send.port());
    (0..)
        .zip(floating(config))
        .map(move |(place, ip)| (floating_path(place), SocketAddr::new(ip, port)))
}

/// Path k goes from my k-th address to the peer's k-th; who has fewer uses the last one again. Those over
/// floating IPs are counted from the other end.
pub(super) fn routes(config: &Config, ports: &[Port]) -> Vec<Vec<(u8, Route)>> {
    let mine = &config.nodes[config.me].addresses;
    let own = |peer: &Node, k: usize| {
        let port = k.min(mine.len().checked_sub(1)?);
        let remote = peer.addresses.get(k).or(peer.addresses.last())?.send;
        Some((u8::try_from(k).ok()?, Route { port, remote }))
    };
    let clients = |(number, remote): (u8, SocketAddr)| {
        let fits = |p: &Port| p.purpose == Use::Clients && p.bind.is_ipv4() == remote.is_ipv4();
        Some((number, Route { port: ports.iter().position(fits)?, remote }))
    };
    let all = |peer: &Node| {
        let count = path_count(mine.len(), peer.addresses.len());
        let own = (0..count).filter_map(|k| own(peer, k));
        own.chain(floating_routes(config, peer).filter_map(clients)).collect()
    };
    peers(config).map(all).collect()
}

/// How many paths two nodes have between them.
#[must_use]
pub fn path_count(mine: usize, theirs: usize) -> usize {
    mine.max(theirs)
}

/// The other nodes, in the order of the config: the protocol's peer index.
pub fn peers(config: &Config) -> impl Iterator<Item = &Node> {
    config.nodes.iter().enumerate().filter(|(i, _)| *i != config.me).map(|(_, node)| node)
}
