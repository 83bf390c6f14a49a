//! A proxy between two daemons: it hands on, keeps and invents datagrams.
//!
//! Each daemon sends to the proxy's address of the other, and gets what comes from there: for both,
//! the proxy is where the other node is.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::cluster::{Cluster, until};

/// How long a thread may not notice that the proxy ends.
const TICK: Duration = Duration::from_millis(20);

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Gw1,
    Gw2,
}

#[derive(Default)]
struct Shared {
    end: AtomicBool,
    /// Everything that was handed on.
    seen: Mutex<Vec<(To, Vec<u8>)>>,
    /// The next datagram that way is kept here instead of being handed on.
    keep: Mutex<Option<To>>,
    kept: Mutex<Option<Vec<u8>>>,
}

/// The proxy between gw1 and gw2.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    /// Stands for gw1, and for gw2.
    gw1: UdpSocket,
    gw2: UdpSocket,
    to_gw1: SocketAddr,
    to_gw2: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// Puts itself between gw1 and gw2 of a cluster that does not run yet.
    pub(crate) fn between(cluster: &mut Cluster) -> Proxy {
        let (at_gw1, at_gw2) = (cluster.address(101), cluster.address(102));
        let (to_gw1, to_gw2) = (cluster.spec("gw1").bind, cluster.spec("gw2").bind);
        for node in &mut cluster.nodes {
            match node.name {
                "gw1" => node.send = at_gw1,
                "gw2" => node.send = at_gw2,
                _ => {}
            }
        }
        let (gw1, gw2) = (UdpSocket::bind(at_gw1).unwrap(), UdpSocket::bind(at_gw2).unwrap());
        let shared = Arc::new(Shared::default());
        let threads = vec![
            // What is sent to gw2's address comes from gw1.
            relay(&shared, &gw2, &gw1, to_gw2, To::Gw2),
            relay(&shared, &gw1, &gw2, to_gw1, To::Gw1),
        ];
        Proxy { shared, gw1, gw2, to_gw1, to_gw2, threads }
    }

    /// Sends a datagram that seems to come from the other node.
    pub(crate) fn inject(&self, to: To, datagram: &[u8]) {
        let sent = match to {
            To::Gw1 => self.gw2.send_to(datagram, self.to_gw1),
            To::Gw2 => self.gw1.send_to(datagram, self.to_gw2),
        };
        assert_eq!(sent.unwrap(), datagram.len());
    }

    /// Everything that was handed on that way so far.
    pub(crate) fn seen(&self, to: To) -> Vec<Vec<u8>> {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().filter(|(way, _)| *way == to).map(|(_, bytes)| bytes.clone()).collect()
    }

    /// Waits until so many more were handed on that way, and returns them.
    pub(crate) fn next(&self, to: To, count: usize) -> Vec<Vec<u8>> {
        let before = self.seen(to).len();
        until("heartbeats pass", || self.seen(to).get(before..before + count).map(<[_]>::to_vec))
    }

    /// The next datagram that way, which does not arrive.
    pub(crate) fn keep(&self, to: To) -> Vec<u8> {
        *self.shared.keep.lock().unwrap() = Some(to);
        until("a heartbeat is kept", || self.shared.kept.lock().unwrap().take())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Hands on what `from` gets, as if `by` had sent it.
fn relay(
    shared: &Arc<Shared>,
    from: &UdpSocket,
    by: &UdpSocket,
    address: SocketAddr,
    to: To,
) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    let (from, by) = (from.try_clone().unwrap(), by.try_clone().unwrap());
    from.set_read_timeout(Some(TICK)).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while !shared.end.load(Ordering::Relaxed) {
            let length = match from.recv(&mut buffer) {
                Ok(length) => length,
                // With a timeout set, a machine that is frozen for a moment interrupts the call.
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    continue;
                }
                Err(e) => panic!("the proxy cannot receive: {e}"),
            };
            let datagram = buffer[..length].to_vec();
            if shared.keep.lock().unwrap().take_if(|way| *way == to).is_some() {
                *shared.kept.lock().unwrap() = Some(datagram);
                continue;
            }
            // A daemon that does not run refuses it; heartbeats get lost.
            let _ = by.send_to(&datagram, address);
            shared.seen.lock().unwrap().push((to, datagram));
        }
    })
}
