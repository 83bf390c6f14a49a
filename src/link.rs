//! The UDP sockets that carry heartbeats: paths to addresses, nothing of the protocol.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use crate::config::Config;

/// More than the largest heartbeat (1200 bytes), so that an over-long one is seen to be over-long.
const RECEIVE_BYTES: usize = 1500;

/// Room for a burst while the process does not run; a few hundred heartbeats.
const SOCKET_BUFFER_BYTES: usize = 256 * 1024;

/// DSCP CS6, network control (RFC 4594 §3.1): heartbeats go before the tunnel's own traffic.
const TRAFFIC_CLASS: u32 = 0xc0;

/// One of my addresses and its socket, if it could be bound.
#[derive(Debug)]
struct Port {
    bind: SocketAddr,
    socket: Option<UdpSocket>,
    /// Why there is no socket.
    error: Option<io::Error>,
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
}

/// The sockets of a node and the paths to its peers.
#[derive(Debug)]
pub struct Link {
    ports: Vec<Port>,
    routes: Vec<Vec<Route>>,
    /// The socket that is asked first: they take turns, so that a flood on one starves no other.
    turn: usize,
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
    /// tried again by [`Link::bind_missing`].
    #[must_use]
    pub fn open(config: &Config) -> Link {
        let mine = &config.nodes[config.me].addresses;
        let ports = mine.iter().map(|a| Port { bind: a.bind, socket: None, error: None }).collect();
        let mut link = Link {
            ports,
            routes: routes(config),
            turn: 0,
            buffer: Box::new([0; RECEIVE_BYTES]),
            counters: LinkCounters::default(),
        };
        link.bind_missing();
        link
    }

    /// Takes up a new config; sockets whose address stays are kept.
    pub fn reconfigure(&mut self, config: &Config) {
        let mut old = std::mem::take(&mut self.ports);
        for address in &config.nodes[config.me].addresses {
            let kept = old.iter().position(|p| p.bind == address.bind).map(|i| old.swap_remove(i));
            self.ports.push(kept.unwrap_or(Port { bind: address.bind, socket: None, error: None }));
        }
        self.routes = routes(config);
        self.turn = 0;
        self.bind_missing();
    }

    /// Tries to bind what is not bound. True if nothing is missing.
    pub fn bind_missing(&mut self) -> bool {
        for port in self.ports.iter_mut().filter(|p| p.socket.is_none()) {
            match bind(port.bind).and_then(UdpSocket::from_std) {
                Ok(socket) => (port.socket, port.error) = (Some(socket), None),
                Err(error) => port.error = Some(error),
            }
        }
        self.ports.iter().all(|p| p.socket.is_some())
    }

    /// The addresses that could not be bound, and why.
    #[must_use]
    pub fn unbound(&self) -> Vec<(SocketAddr, String)> {
        self.ports.iter().filter_map(|p| Some((p.bind, p.error.as_ref()?.to_string()))).collect()
    }

    /// An address that could not be bound because another socket has it.
    #[must_use]
    pub fn taken(&self) -> Option<SocketAddr> {
        let in_use = |e: &io::Error| e.kind() == io::ErrorKind::AddrInUse;
        self.ports.iter().find(|p| p.error.as_ref().is_some_and(in_use)).map(|p| p.bind)
    }

    /// What was sent, received and lost.
    #[must_use]
    pub fn counters(&self) -> LinkCounters {
        self.counters
    }

    /// The route of a path, if the config has it.
    #[must_use]
    pub fn route(&self, peer: usize, path: u8) -> Option<Route> {
        self.routes.get(peer)?.get(usize::from(path)).copied()
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

    /// Waits for a datagram on any socket. Without a socket it waits for ever.
    pub async fn receive(&mut self) -> Received<'_> {
        let Link { ports, turn, buffer, counters, .. } = self;
        let (length, port, remote) =
            poll_fn(|cx| poll_receive(ports, turn, &mut buffer[..], counters, cx)).await;
        Received { bytes: &mut buffer[..length], back: Route { port, remote } }
    }
}

/// Asks each socket once, beginning after the one that answered last.
fn poll_receive(
    ports: &[Port],
    turn: &mut usize,
    buffer: &mut [u8],
    counters: &mut LinkCounters,
    cx: &mut Context<'_>,
) -> Poll<(usize, usize, SocketAddr)> {
    for step in 0..ports.len() {
        let index = (*turn + step) % ports.len();
        let Some(socket) = ports.get(index).and_then(|p| p.socket.as_ref()) else { continue };
        let mut space = ReadBuf::new(buffer);
        loop {
            match socket.poll_recv_from(cx, &mut space) {
                Poll::Ready(Ok(remote)) => {
                    *turn = (index + 1) % ports.len();
                    counters.received += 1;
                    return Poll::Ready((space.filled().len(), index, remote));
                }
                // An ICMP error of an earlier send; it is taken off the queue by being read.
                Poll::Ready(Err(_)) => counters.receive_errors += 1,
                Poll::Pending => break,
            }
        }
    }
    Poll::Pending
}

/// Path k goes from my k-th address to the peer's k-th; who has fewer uses the last one again.
fn routes(config: &Config) -> Vec<Vec<Route>> {
    let mine = &config.nodes[config.me].addresses;
    peers(config)
        .map(|peer| {
            (0..path_count(mine.len(), peer.addresses.len()))
                .filter_map(|k| {
                    let port = k.min(mine.len().checked_sub(1)?);
                    let remote = peer.addresses.get(k).or(peer.addresses.last())?.send;
                    Some(Route { port, remote })
                })
                .collect()
        })
        .collect()
}

/// How many paths two nodes have between them.
#[must_use]
pub fn path_count(mine: usize, theirs: usize) -> usize {
    mine.max(theirs)
}

/// The other nodes, in the order of the config: the protocol's peer index.
pub fn peers(config: &Config) -> impl Iterator<Item = &crate::config::Node> {
    config.nodes.iter().enumerate().filter(|(i, _)| *i != config.me).map(|(_, node)| node)
}

/// A socket for heartbeats on one of this machine's addresses, which does not block.
///
/// # Errors
/// The machine does not have the address, or another socket has it.
pub fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
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
    socket.bind(&address.into())?;
    Ok(socket.into())
}
