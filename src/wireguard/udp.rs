//! The embedded WireGuard's sockets: one for each family, bound to the address that its packets
//! must leave from.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use gotatun::packet::{Packet, PacketBufPool};
use gotatun::udp::socket::{SockOpt, UdpSocket};
use gotatun::udp::{UdpRecv, UdpSend, UdpTransportFactory, UdpTransportFactoryParams};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::sync::watch;

use super::Source;
use crate::clock;
use crate::net::gate::Permit;

/// Room for what arrives while the process does not run, in bytes: some 50 ms at 1 Gbit/s.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Bound of closing the sockets.
const CLOSE: Duration = Duration::from_secs(2);

/// Opens the sockets whenever the device resumes. Clones share all of it.
#[derive(Clone, Default)]
pub(super) struct SourceUdp {
    source: Arc<Mutex<Source>>,
    permit: Arc<Mutex<Option<Permit>>>,
    /// Its other end is held by the sockets that are open.
    open: Arc<Mutex<Option<watch::Receiver<()>>>>,
}

impl SourceUdp {
    /// Takes effect when the sockets are opened next. Whether it is another one than before.
    pub(super) fn set(&self, source: Source) -> bool {
        let mut current = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, source) != source
    }

    /// Takes effect when the sockets are opened next.
    pub(super) fn set_permit(&self, permit: Permit) {
        *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
    }

    fn get(&self) -> Source {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SourceUdp {
    /// Waits until the sockets are closed. gotatun drops them on tasks of its own, a moment after
    /// it says that it is suspended.
    ///
    /// # Errors
    /// `TimedOut` if that does not happen.
    pub(super) async fn closed(&self) -> io::Result<()> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(mut open) = open else { return Ok(()) };
        // Nothing is ever said: it ends with the last sender.
        let closed = async { while open.changed().await.is_ok() {} };
        tokio::time::timeout(CLOSE, closed).await.map_err(|_| io::ErrorKind::TimedOut.into())
    }
}

impl UdpTransportFactory for SourceUdp {
    type Send = Pair;
    type Recv = Pair;

    async fn bind(&mut self, params: &UdpTransportFactoryParams) -> io::Result<(Pair, Pair)> {
        let source = self.get();
        let any = source == Source::default();
        let bind = |ip: IpAddr| {
            bind(SocketAddr::new(ip, params.port), params.fwmark)
                .map_err(|e| io::Error::new(e.kind(), format!("bind {ip}: {e}")))
        };
        let v4 = source.v4.or(any.then_some(Ipv4Addr::UNSPECIFIED)).map(IpAddr::V4);
        let v6 = source.v6.map(IpAddr::V6);
        let (alive, open) = watch::channel(());
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
        let pair = Pair {
            _alive: alive,
            permit: self.permit.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            v4: v4.map(bind).transpose()?,
            v6: match v6 {
                Some(v6) => Some(bind(v6)?),
                None if any => unless_disabled(bind(Ipv6Addr::UNSPECIFIED.into()))?,
                None => None,
            },
        };
        Ok((pair.clone(), pair))
    }
}

fn bind(address: SocketAddr, fwmark: Option<u32>) -> io::Result<UdpSocket> {
    let options = SockOpt { fwmark, only_v6: Some(true), ..SockOpt::default() };
    let socket = UdpSocket::bind(address, options)?;
    // Beyond net.core.rmem_max, which needs a privilege; without it the limit has to do.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
    }
    // Saves system calls; a kernel without it works all the same.
    let _ = socket.enable_udp_gro();
    Ok(socket)
}

/// A machine without IPv6 serves IPv4.
fn unless_disabled(socket: io::Result<UdpSocket>) -> io::Result<Option<UdpSocket>> {
    match socket {
        Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(None),
        Err(e) if e.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => Ok(None),
        other => other.map(Some),
    }
}

/// A socket for each family, where there is one.
#[derive(Clone)]
pub(super) struct Pair {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    permit: Option<Permit>,
    /// Says that a socket may be open; dropped after them, as fields are in this order.
    _alive: watch::Sender<()>,
}

impl Pair {
    /// Asked before each send: a process that slept wakes up with packets in its hands, and another
    /// gateway may serve by now. What may not go is lost, as on any network.
    fn permitted(&self) -> bool {
        self.permit.as_ref().is_none_or(|permit| permit.allows(clock::now()))
    }

    fn toward(&self, destination: SocketAddr) -> io::Result<&UdpSocket> {
        let socket = if destination.is_ipv4() { &self.v4 } else { &self.v6 };
        socket.as_ref().ok_or_else(|| io::ErrorKind::NetworkUnreachable.into())
    }

    /// The next socket that has something to read.
    async fn readable(&mut self) -> io::Result<&mut UdpSocket> {
        async fn ready(socket: Option<&UdpSocket>) -> io::Result<()> {
            match socket {
                Some(socket) => socket.socket().readable().await,
                None => std::future::pending().await,
            }
        }
        let v4 = tokio::select! {
            result = ready(self.v4.as_ref()) => result.map(|()| true),
            result = ready(self.v6.as_ref()) => result.map(|()| false),
        }?;
        let socket = if v4 { &mut self.v4 } else { &mut self.v6 };
        socket.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl UdpSend for Pair {
    type SendManyBuf = <UdpSocket as UdpSend>::SendManyBuf;

    async fn send_to(&self, packet: Packet, destination: SocketAddr) -> io::Result<()> {
        if !self.permitted() {
            return Ok(());
        }
        self.toward(destination)?.send_to(packet, destination).await
    }

    fn max_number_of_packets_to_send(&self) -> usize {
        let socket = self.v4.as_ref().or(self.v6.as_ref());
        socket.map_or(1, UdpSend::max_number_of_packets_to_send)
    }

    /// All packets of one call go to one family.
    async fn send_many_to(
        &self,
        buffer: &mut Self::SendManyBuf,
        packets: &mut Vec<(Packet, SocketAddr)>,
    ) -> io::Result<()> {
        if !self.permitted() {
            packets.clear();
        }
        let Some((_, destination)) = packets.first() else { return Ok(()) };
        self.toward(*destination)?.send_many_to(buffer, packets).await
    }

    fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        let socket = self.v4.as_ref().or(self.v6.as_ref());
        socket.map(UdpSocket::local_addr).transpose()
    }

    fn set_fwmark(&self, mark: u32) -> io::Result<()> {
        for socket in [&self.v4, &self.v6].into_iter().flatten() {
            socket.set_fwmark(mark)?;
        }
        Ok(())
    }
}

impl UdpRecv for Pair {
    type RecvManyBuf = <UdpSocket as UdpRecv>::RecvManyBuf;

    async fn recv_from(&mut self, pool: &mut PacketBufPool) -> io::Result<(Packet, SocketAddr)> {
        loop {
            // Readiness can be stale; waiting on that socket would keep the other one from us.
            if let Some(done) = self.readable().await?.recv_from(pool).now_or_never() {
                return done;
            }
        }
    }

    async fn recv_many_from(
        &mut self,
        buffer: &mut Self::RecvManyBuf,
        pool: &mut PacketBufPool,
        packets: &mut Vec<(Packet, SocketAddr)>,
    ) -> io::Result<()> {
        loop {
            let socket = self.readable().await?;
            if let Some(done) = socket.recv_many_from(buffer, pool, packets).now_or_never() {
                return done;
            }
        }
    }
}
