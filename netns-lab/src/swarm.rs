//! A thousand simulated clients in one process: real Noise handshakes, real data, no interface.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gotatun::packet::Packet;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;

use crate::lab::Lab;
use crate::node::Node;
use crate::sys::realtime_ns;
use crate::topology;
use peer::{Heard, Identity, Peer};

mod inner;
mod peer;
mod rate;

pub use rate::HandshakeRate;

/// WireGuard's timers are looked at this often.
const TICK: Duration = Duration::from_millis(250);
/// An active client: it sends something this often.
const ASK: Duration = Duration::from_secs(5);

/// When a simulated client came back, CLOCK_REALTIME in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Back {
    /// Its first handshake since [`Swarm::mark`].
    pub handshake: Option<u64>,
    /// Since that: a request was answered in the new session.
    pub answered: Option<u64>,
    /// Where the gateway is, as the client knows it.
    pub endpoint: Option<SocketAddr>,
}

/// Running simulated clients. They end when this is dropped.
pub struct Swarm {
    backs: Arc<Mutex<Vec<Back>>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Lab {
    /// Starts the lab's simulated clients in client1, `per_second` new ones each second. Each has an address of its own,
    /// or (`one_address`) shares that of client1, as behind a NAT. The echo server of the host answers them.
    ///
    /// # Errors
    /// When so many sockets cannot be opened.
    pub fn start_swarm(&self, one_address: bool, per_second: u32) -> Result<Swarm> {
        let keys = self.keys();
        let echo = SocketAddrV4::new(topology::host().v4, topology::ECHO_PORT);
        let members = (0..).zip(&keys.swarm).map(|(n, key)| Member {
            identity: Identity {
                private: key.secret(),
                preshared: keys.preshared.secret().to_bytes(),
                gateway: keys.gateway.public(),
                tunnel: topology::swarm_tunnel(n),
                echo,
            },
            outer: if one_address { Ipv4Addr::UNSPECIFIED } else { topology::swarm_outer(n) },
        });
        Swarm::start(self.client_node(1), members.collect(), per_second)
    }
}

struct Member {
    identity: Identity,
    outer: Ipv4Addr,
}

impl Swarm {
    fn start(node: &Node, members: Vec<Member>, per_second: u32) -> Result<Self> {
        allow_files(members.len() + 256)?;
        let outers: Vec<Ipv4Addr> = members.iter().map(|m| m.outer).collect();
        let sockets = node.run(move || outers.into_iter().map(open).collect::<Result<Vec<_>>>())?;
        let backs = Arc::new(Mutex::new(vec![Back::default(); members.len()]));
        let (stop, stopped) = watch::channel(false);
        let pause = Duration::from_secs(1) / per_second.max(1);
        let shared = Arc::clone(&backs);
        let thread = node.thread(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                for (n, (member, socket)) in (0..).zip(members.into_iter().zip(sockets)) {
                    let socket = tokio::net::UdpSocket::from_std(socket)?;
                    let peer = Peer::new(member.identity);
                    let backs = Arc::clone(&shared);
                    tasks.spawn(live(peer, socket, pause * n, n as usize, backs));
                }
                let mut stopped = stopped;
                // The other end gone is an order to stop, too.
                let _ = stopped.wait_for(|stop| *stop).await;
                Ok(())
            })
        });
        Ok(Self { backs, stop, thread: Some(thread) })
    }

    /// Forgets who is back: from now on only new handshakes count.
    pub fn mark(&self) {
        for back in lock(&self.backs).iter_mut() {
            *back = Back { endpoint: back.endpoint, ..Back::default() };
        }
    }

    /// Every client, in order.
    pub fn backs(&self) -> Vec<Back> {
        lock(&self.backs).clone()
    }

    /// Waits until all clients are back since the last [`Swarm::mark`] (or the start).
    ///
    /// # Errors
    /// Says how many are not when the time is over, or why the clients ended.
    pub fn wait_all(&mut self, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        loop {
            let all = self.backs();
            let missing = all.iter().filter(|b| b.answered.is_none()).count();
            if missing == 0 {
                return Ok(());
            }
            if let Some(thread) = self.thread.take_if(|t| t.is_finished()) {
                thread
                    .join()
                    .unwrap_or_else(|_| bail!("they panicked"))
                    .context("simulated clients")?;
                bail!("the simulated clients ended");
            }
            if Instant::now() > end {
                let shaken = all.iter().filter(|b| b.handshake.is_some()).count();
                bail!(
                    "after {timeout:?} {missing} of {} simulated clients are not back ({shaken} had a handshake)",
                    all.len()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(backs: &Mutex<Vec<Back>>) -> MutexGuard<'_, Vec<Back>> {
    backs.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(outer: Ipv4Addr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((outer, 0)).with_context(|| format!("a socket on {outer}"))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A thousand sockets are more than a process may have open, usually.
fn allow_files(wanted: usize) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = wanted as u64;
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))
            .with_context(|| format!("{wanted} open files (ulimit -n)"))?;
    }
    Ok(())
}

/// The life of one client.
async fn live(
    mut peer: Peer,
    socket: tokio::net::UdpSocket,
    begin: Duration,
    number: usize,
    backs: Arc<Mutex<Vec<Back>>>,
) {
    tokio::time::sleep(begin).await;
    let mut gateway = topology::endpoint(false);
    let (mut tick, mut ask) = (tokio::time::interval(TICK), tokio::time::interval(ASK));
    let mut send = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        tokio::select! {
            _ = tick.tick() => peer.tick(&mut send),
            _ = ask.tick() => peer.ask(&mut send),
            received = socket.recv_from(&mut buffer) => {
                // An error is the ICMP answer to an earlier packet: the gateway is away.
                if let Ok((length, from)) = received {
                    let heard = peer.hear(from, buffer.get(..length).unwrap_or_default(), &mut send);
                    if heard != Heard::Nothing {
                        gateway = from;
                        record(&backs, number, heard, gateway);
                    }
                }
            }
        }
        for packet in send.drain(..) {
            let _ = send_to(&socket, &packet, gateway).await;
        }
    }
}

async fn send_to(
    socket: &tokio::net::UdpSocket,
    packet: &Packet,
    gateway: SocketAddr,
) -> std::io::Result<usize> {
    socket.send_to(packet, gateway).await
}

fn record(backs: &Mutex<Vec<Back>>, number: usize, heard: Heard, gateway: SocketAddr) {
    let mut backs = lock(backs);
    let Some(back) = backs.get_mut(number) else { return };
    back.endpoint = Some(gateway);
    match heard {
        Heard::Handshake => back.handshake = back.handshake.or_else(|| Some(realtime_ns())),
        // An answer in a session of before the mark is none.
        Heard::Answer if back.handshake.is_some() => {
            back.answered = back.answered.or_else(|| Some(realtime_ns()));
        }
        Heard::Answer | Heard::Authentic | Heard::Nothing => {}
    }
}
