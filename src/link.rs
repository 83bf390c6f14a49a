//! The UDP sockets that carry heartbeats: paths to addresses, nothing of the protocol.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, ready};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use wgha_proto::{Tag, cluster_tag};

use crate::clock;
use crate::config::Config;
use crate::net::raw::socket_drops;

mod filter;
mod paths;
mod strangers;

use paths::{Use, routes, wanted};
pub use paths::{floating_count, floating_routes, path_count, peers};
use strangers::Strangers;

/// More than the largest heartbeat (1200 bytes), so that an over-long one is seen to be over-long.
const RECEIVE_BYTES: usize = 1500;

/// Room for a burst while the process does not run; a few hundred heartbeats.
const SOCKET_BUFFER_BYTES: usize = 256 * 1024;

/// DSCP CS6, network control (RFC 4594 §3.1): heartbeats go before the tunnel's own traffic.
const TRAFFIC_CLASS: u32 = 0xc0;

/// Strangers' datagrams that are thrown away before the loop turns: it has heartbeats to send.
const STRANGERS_AT_ONCE: usize = 64;

/// An address and its socket, if it could be bound.
#[derive(Debug)]
struct Port {
    bind: SocketAddr,
    purpose: Use,
    socket: Option<UdpSocket>,
    /// Why there is no socket.
    error: Option<io::Error>,
    /// What the kernel said last of how many it dropped.
    drops: u32,
}

impl Port {
    fn new(bind: SocketAddr, purpose: Use) -> Port {
        Port { bind, purpose, socket: None, error: None, drops: 0 }
    }

    /// Whether the kernel has chosen one of these.
    fn is_one_of(&self, ports: &[u16]) -> bool {
        let local = self.socket.as_ref().and_then(|socket| socket.local_addr().ok());
        self.bind.port() == 0 && local.is_some_and(|local| ports.contains(&local.port()))
    }
}

/// Where a path leads: from one of my sockets to one of the peer's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    port: usize,
    /// The peer's address.
    pub remote: SocketAddr,
}

/// What the link did that nobody waited for.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkCounters {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams received.
    pub received: u64,
    /// Sends that the kernel refused; the datagram is lost, as on any network.
    pub send_errors: u64,
    /// Receives that failed.
    pub receive_errors: u64,
    /// Sends without a socket, because the address could not be bound.
    pub unbound: u64,
    /// Datagrams that the kernel dropped: not of this cluster, by the filter, or come while the socket was full.
    pub dropped: u64,
    /// Datagrams from addresses that the config does not name, beyond the rate that all of those share.
    pub strangers: u64,
}

/// The sockets of a node and the paths to its peers.
#[derive(Debug)]
pub struct Link {
    ports: Vec<Port>,
    /// For each peer, by the number of the path.
    routes: Vec<Vec<(u8, Route)>>,
    /// WireGuard's, as far as they are known.
    listen_ports: Vec<u16>,
    /// The socket that is asked first: they take turns, so that a flood on one starves no other.
    turn: usize,
    cluster: Tag,
    strangers: Strangers,
    buffer: Box<[u8; RECEIVE_BYTES]>,
    counters: LinkCounters,
}

/// A datagram and where it came from; the answer goes back the same way.
#[derive(Debug)]
pub struct Received<'a> {
    /// The bytes, to be opened in place.
    pub bytes: &'a mut [u8],
    /// The way back.
    pub back: Route,
}

impl Link {
    /// Binds every address of the local node. An address that the machine does not have (yet) is
    /// tried again by [`Link::bind_missing`]. `listen_ports`: WireGuard's, which no socket of mine may have.
    #[must_use]
    pub fn open(config: &Config, listen_ports: Vec<u16>) -> Link {
        let ports: Vec<Port> =
            wanted(config).map(|(bind, purpose)| Port::new(bind, purpose)).collect();
        let mut link = Link {
            routes: routes(config, &ports),
            ports,
            listen_ports,
            turn: 0,
            cluster: cluster_tag(&config.cluster.name),
            strangers: Strangers::new(config),
            buffer: Box::new([0; RECEIVE_BYTES]),
            counters: LinkCounters::default(),
        };
        link.bind_missing();
        link
    }

    /// Takes up a new config; sockets whose address stays are kept, with their filter (the cluster's name
    /// cannot change).
    pub fn reconfigure(&mut self, config: &Config, listen_ports: Vec<u16>) {
        self.count_drops();
        self.listen_ports = listen_ports;
        let mut old = std::mem::take(&mut self.ports);
        for (bind, purpose) in wanted(config) {
            let kept = old.iter().position(|p| (p.bind, p.purpose) == (bind, purpose));
            let kept = kept.map(|i| old.swap_remove(i));
            let kept = kept.filter(|port| !port.is_one_of(&self.listen_ports));
            self.ports.push(kept.unwrap_or_else(|| Port::new(bind, purpose)));
        }
        self.routes = routes(config, &self.ports);
        self.strangers = Strangers::new(config);
        self.turn = 0;
        self.bind_missing();
    }

    /// Tries to bind what is not bound. True if none of my addresses is missing.
    pub fn bind_missing(&mut self) -> bool {
        for port in self.ports.iter_mut().filter(|p| p.socket.is_none()) {
            let socket = bind_beside(port.bind, self.cluster, &self.listen_ports);
            match socket.and_then(UdpSocket::from_std) {
                Ok(socket) => (port.socket, port.error, port.drops) = (Some(socket), None, 0),
                Err(error) => port.error = Some(error),
            }
        }
        self.own().all(|p| p.socket.is_some())
    }

    /// The sockets on addresses that this node must have.
    fn own(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().filter(|p| p.purpose == Use::Own)
    }

    /// The addresses that could not be bound, and why.
    #[must_use]
    pub fn unbound(&self) -> Vec<(SocketAddr, String)> {
        self.own().filter_map(|p| Some((p.bind, p.error.as_ref()?.to_string()))).collect()
    }

    /// An address that could not be bound because another socket has it.
    #[must_use]
    pub fn taken(&self) -> Option<SocketAddr> {
        let in_use = |e: &io::Error| e.kind() == io::ErrorKind::AddrInUse;
        self.own().find(|p| p.error.as_ref().is_some_and(in_use)).map(|p| p.bind)
    }

    /// What was sent, received and lost.
    #[must_use]
    pub fn counters(&mut self) -> LinkCounters {
        self.count_drops();
        self.counters
    }

    /// Adds what the kernel dropped since the last time. Its count is short: at a flood's rate it is to be
    /// asked once an hour at least.
    pub fn count_drops(&mut self) {
        for port in &mut self.ports {
            let Some(drops) = port.socket.as_ref().and_then(|s| socket_drops(s).ok()) else {
                continue;
            };
            self.counters.dropped += u64::from(drops.wrapping_sub(port.drops));
            port.drops = drops;
        }
    }

    /// The route of a path, if the config has it.
    #[must_use]
    pub fn route(&self, peer: usize, path: u8) -> Option<Route> {
        let routes = self.routes.get(peer)?;
        routes.iter().find(|(number, _)| *number == path).map(|(_, route)| *route)
    }

    /// The local address of a route.
    #[must_use]
    pub fn local(&self, route: Route) -> Option<SocketAddr> {
        self.ports.get(route.port).map(|port| port.bind)
    }

    /// Sends at once or not at all: a full socket buffer loses the datagram, and is counted.
    pub fn send(&mut self, route: Route, bytes: &[u8]) {
        let Some(socket) = self.ports.get(route.port).and_then(|p| p.socket.as_ref()) else {
            self.counters.unbound += 1;
            return;
        };
        match socket.try_send_to(bytes, route.remote) {
            Ok(_) => self.counters.sent += 1,
            Err(_) => self.counters.send_errors += 1,
        }
    }

    /// Waits for a datagram on any socket; without a socket for ever. `None`: there were only strangers,
    /// and there may be more.
    pub async fn receive(&mut self) -> Option<Received<'_>> {
        let (length, back) = poll_fn(|cx| self.poll_receive(cx)).await?;
        Some(Received { bytes: &mut self.buffer[..length], back })
    }

    /// A datagram that is there already, if it may be looked at.
    pub fn receive_now(&mut self) -> Option<Received<'_>> {
        let (length, back) = self.take_any()?;
        if !(self.strangers.knows(back.remote) || self.strangers.admit(clock::now())) {
            self.counters.strangers += 1;
            return None;
        }
        Some(Received { bytes: &mut self.buffer[..length], back })
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, Route)>> {
        for _ in 0..STRANGERS_AT_ONCE {
            let (length, back) = ready!(self.poll_any(cx));
            if self.strangers.knows(back.remote) || self.strangers.admit(clock::now()) {
                return Poll::Ready(Some((length, back)));
            }
            self.counters.strangers += 1;
        }
        Poll::Ready(None)
    }

    /// As [`Link::poll_any`], for who does not wait.
    fn take_any(&mut self) -> Option<(usize, Route)> {
        let Link { ports, turn, buffer, counters, .. } = self;
        for step in 0..ports.len() {
            let index = (*turn + step) % ports.len();
            let Some(socket) = ports.get(index).and_then(|p| p.socket.as_ref()) else { continue };
            match socket.try_recv_from(&mut buffer[..]) {
                Ok((length, remote)) => {
                    *turn = (index + 1) % ports.len();
                    counters.received += 1;
                    return Some((length, Route { port: index, remote }));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => counters.receive_errors += 1,
            }
        }
        None
    }

    /// Asks each socket once, beginning after the one that answered last.
    fn poll_any(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Route)> {
        let Link { ports, turn, buffer, counters, .. } = self;
        for step in 0..ports.len() {
            let index = (*turn + step) % ports.len();
            let Some(socket) = ports.get(index).and_then(|p| p.socket.as_ref()) else { continue };
            let mut space = ReadBuf::new(&mut buffer[..]);
            loop {
                match socket.poll_recv_from(cx, &mut space) {
                    Poll::Ready(Ok(remote)) => {
                        *turn = (index + 1) % ports.len();
                        counters.received += 1;
                        let back = Route { port: index, remote };
                        return Poll::Ready((space.filled().len(), back));
                    }
                    // An ICMP error of an earlier send; it is taken off the queue by being read.
                    Poll::Ready(Err(_)) => counters.receive_errors += 1,
                    Poll::Pending => break,
                }
            }
        }
        Poll::Pending
    }
}

/// As [`bind`]; but where the kernel chooses the port, it is none of `others`: a process that had WireGuard's own port
/// could never serve.
///
/// # Errors
/// As [`bind`].
pub fn bind_beside(
    address: SocketAddr,
    cluster: Tag,
    others: &[u16],
) -> io::Result<std::net::UdpSocket> {
    // Held until one is found, or the kernel might choose the same again.
    let mut unfit = Vec::new();
    loop {
        let socket = bind(address, Some(cluster))?;
        if address.port() != 0 || !others.contains(&socket.local_addr()?.port()) {
            return Ok(socket);
        }
        unfit.push(socket);
    }
}

/// A socket for heartbeats on one of this machine's addresses, which does not block. With `cluster` the kernel drops what is
/// no heartbeat of that cluster.
///
/// # Errors
/// The machine does not have the address, or another socket has it.
pub fn bind(address: SocketAddr, cluster: Option<Tag>) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    match address.ip() {
        IpAddr::V4(_) => socket.set_tos_v4(TRAFFIC_CLASS)?,
        IpAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_tclass_v6(TRAFFIC_CLASS)?;
        }
    }
    // Before it is bound, so that nothing comes in unfiltered.
    if let Some(cluster) = cluster {
        filter::attach(&socket, cluster)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}
