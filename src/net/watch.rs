//! Notice of changes to links, addresses, routes, rules and nftables, by whomever.

use std::io;
use std::time::Duration;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};
use tokio::time::{Instant, sleep_until};

use super::{NetError, nft};

/// After a first notification: how long the rest of the same change may take to arrive.
const SETTLE: Duration = Duration::from_millis(5);
/// At least this long from one report to the next, however much changes.
const GAP: Duration = Duration::from_millis(25);
/// Notifications read at once; the rest is read when it is next waited for.
const BATCH: usize = 4096;
/// Bytes read of a notification. What it says does not matter, so the kernel may cut it off.
const CUT: usize = 64;
/// The same of nftables, where it does: one that fills this counts as a change.
const RULESET_CUT: usize = 16 << 10;
/// `RTNLGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV4_RULE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`,
/// `_IPV6_RULE`.
const GROUPS: [u32; 7] = [1, 5, 7, 8, 9, 11, 19];
/// `NFNLGRP_NFTABLES`.
const NFTABLES: [u32; 1] = [7];

/// A subscription. It says that something changed, never what: whoever is told looks for himself.
///
/// Changes of our own are told like any other; as they are not repeated when all is as it should
/// be, a caller that compares before it acts comes to rest after one more look.
pub struct Watch {
    socket: TokioSocket,
    /// Of nftables; `None` where the kernel has none, or this process may not listen.
    nftables: Option<TokioSocket>,
    /// Something was seen and not yet told.
    pending: bool,
    told: Option<Instant>,
}

impl Watch {
    /// Subscribes. Changes from now on are told.
    ///
    /// # Errors
    /// [`NetError::Open`] if the kernel refuses a socket.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open() -> Result<Watch, NetError> {
        Ok(Watch {
            socket: subscribe(NETLINK_ROUTE, &GROUPS).map_err(NetError::Open)?,
            nftables: subscribe(NETLINK_NETFILTER, &NFTABLES).ok(),
            pending: false,
            told: None,
        })
    }

    /// Returns after the next change; at the latest 30 ms after it. Changes in between are told
    /// once. A lost notification (full buffer) counts as a change. Safe to cancel.
    ///
    /// # Errors
    /// [`NetError::Open`]: the subscription is broken, open another one.
    pub async fn changed(&mut self) -> Result<(), NetError> {
        if !self.pending {
            self.notified().await.map_err(NetError::Open)?;
            self.pending = true;
        }
        let settled = Instant::now() + SETTLE;
        sleep_until(self.told.map_or(settled, |told| settled.max(told + GAP))).await;
        self.drain().map_err(NetError::Open)?;
        self.pending = false;
        self.told = Some(Instant::now());
        Ok(())
    }

    async fn notified(&mut self) -> io::Result<()> {
        let (mut one, mut other) = (Vec::with_capacity(CUT), Vec::with_capacity(RULESET_CUT));
        let Some(nftables) = &mut self.nftables else {
            return told(self.socket.recv(&mut one).await);
        };
        loop {
            other.clear();
            let read = tokio::select! {
                read = self.socket.recv(&mut one) => return told(read),
                read = nftables.recv(&mut other) => read,
            };
            // The gate renews its elements with every heartbeat.
            if read.is_err() || other.len() >= RULESET_CUT || nft::changes_rules(&other) {
                return told(read);
            }
        }
    }

    fn drain(&self) -> io::Result<()> {
        for socket in [Some(&self.socket), self.nftables.as_ref()].into_iter().flatten() {
            drain(socket.socket_ref())?;
        }
        Ok(())
    }
}

fn drain(socket: &Socket) -> io::Result<()> {
    for _ in 0..BATCH {
        match read_one(socket) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn subscribe(protocol: isize, groups: &[u32]) -> io::Result<TokioSocket> {
    let mut subscription = TokioSocket::new(protocol)?;
    let socket = subscription.socket_mut();
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    Ok(subscription)
}

/// Takes one notification off the socket, which never blocks. `WouldBlock`: there is none.
fn read_one(socket: &Socket) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(CUT);
    told(socket.recv(&mut buffer, 0).map(|_| ()))
}

/// Whatever was read, or lost, is a change.
fn told<T>(read: io::Result<T>) -> io::Result<()> {
    match read {
        Ok(_) => Ok(()),
        Err(e) if e.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
        Err(e) => Err(e),
    }
}
