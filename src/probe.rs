//! `[probe]`: a bare TCP responder for load balancers that can only try to connect.
//!
//! It listens while this node is master with permission to act, under the same condition as `/master` of [`http`](crate::http). Else
//! there is no listening socket, so that the kernel itself refuses. What connects is accepted and closed: nothing is
//! read or written, and nothing is kept, however many there are. A thread of its own does it, at a bounded pace.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::aside::Aside;
use crate::clock;
use crate::http::Vital;
use crate::net::listen::bound;

/// Connections that the kernel keeps until they are accepted. One more is dropped, and the client asks again after a second:
/// so it holds what a burst of monitors brings while none is taken.
const BACKLOG: i32 = 1024;

/// So many connections are taken at once, and then none for a while: 12,800 a second at most.
const BURST: (usize, Duration) = (64, Duration::from_millis(5));

/// What failed is tried again, and a permission that ran out looked for, this often.
const AGAIN: Duration = Duration::from_millis(50);

/// Why there is no responder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// Somebody else listens there, or the system refuses the address.
    #[error("[probe] listen: {0}: {1}")]
    Bind(SocketAddr, io::Error),
    /// The system has no thread for it.
    #[error("[probe]: cannot start its thread: {0}")]
    Thread(io::Error),
}

/// The responder as the config wants it, or none.
#[derive(Debug)]
pub struct Probe {
    vital: Vital,
    server: Option<Server>,
}

impl Probe {
    /// No responder yet; `vital` says when there is to be one that accepts.
    #[must_use]
    pub fn new(vital: Vital) -> Probe {
        Probe { vital, server: None }
    }

    /// Responds where the config says now.
    ///
    /// # Errors
    /// The address cannot be had; then it responds where it did.
    pub fn follow(&mut self, listen: Option<SocketAddr>) -> Result<(), ProbeError> {
        let old = self.server.as_ref().map(|server| server.listen);
        if old == listen {
            return Ok(());
        }
        // The one in the way may be our own.
        self.server = None;
        let result = listen.map(|address| self.start(address)).transpose();
        if result.is_err()
            && let Some(old) = old
        {
            self.start(old)?;
        }
        result.map(|_| ())
    }

    fn start(&mut self, listen: SocketAddr) -> Result<(), ProbeError> {
        // A port that is taken is found now, and not by the takeover.
        bound(listen).map_err(|e| ProbeError::Bind(listen, e))?;
        let vital = self.vital.clone();
        let thread = Aside::start("probe", move || respond(listen, vital));
        self.server = Some(Server { listen, _thread: thread.map_err(ProbeError::Thread)? });
        info!("the master accepts TCP connections on {listen}");
        Ok(())
    }
}

/// What listens. Dropping it closes the socket, and waits for that.
#[derive(Debug)]
struct Server {
    listen: SocketAddr,
    _thread: Aside,
}

/// Listens while this node is master, until the protocol's loop is gone.
async fn respond(listen: SocketAddr, mut vital: Vital) {
    let mut listener = None;
    let mut failed = false;
    loop {
        let until = vital.master_until();
        match until {
            // First of all: closed, so that the kernel refuses.
            None => listener = None,
            Some(_) if listener.is_none() => match open(listen) {
                Ok(opened) => (listener, failed) = (Some(opened), false),
                Err(e) => {
                    if !std::mem::replace(&mut failed, true) {
                        warn!("[probe] listen: {listen}: {e}, which is tried again");
                    }
                }
            },
            Some(_) => {}
        }
        let left = match until {
            Some(until) if listener.is_some() => until.since(clock::now()),
            _ => AGAIN,
        };
        tokio::select! {
            // In this order: whoever floods the port does not keep it open.
            biased;
            changed = vital.changed() => if changed.is_err() {
                return;
            },
            () = sleep(left) => {}
            () = accept(listener.as_ref()) => {}
        }
    }
}

fn open(listen: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(listen)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts and closes a burst; waits for ever without a listener.
async fn accept(listener: Option<&TcpListener>) {
    let Some(listener) = listener else { return std::future::pending().await };
    for _ in 0..BURST.0 {
        if let Err(e) = listener.accept().await {
            debug!("[probe]: {e}");
            return sleep(AGAIN).await;
        }
    }
    sleep(BURST.1).await;
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::Ordering::Relaxed;
    use std::sync::atomic::{AtomicBool, AtomicU64};
    use std::thread;
    use std::time::Instant;

    use tokio::sync::watch;
    use wgha_proto::{Reason, Role, RoleLevel};

    use super::*;
    use crate::net::gate::Permit;

    struct Bench {
        level: watch::Sender<RoleLevel>,
        permit: Permit,
        probe: Probe,
    }

    fn level(role: Role) -> RoleLevel {
        RoleLevel { role, term: 7, reason: Reason::Started, master: None, errand: None }
    }

    impl Bench {
        fn new() -> Bench {
            let (sender, seen) = watch::channel(level(Role::Backup));
            let turned = Arc::new(AtomicU64::new(clock::now().as_nanos()));
            let permit = Permit::new().unwrap();
            let probe = Probe::new(Vital::of(seen, turned, permit.clone()));
            Bench { level: sender, permit, probe }
        }

        fn grant(&self, ms: u64) {
            self.permit.set(Some(clock::now() + Duration::from_millis(ms)));
        }
    }

    /// An address that nobody else has: this process's own corner of the loopback.
    fn address(host: u8) -> SocketAddr {
        let [a, b] = u16::try_from(std::process::id() & 0xffff).unwrap().to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(127, a | 1, b, host), 7113))
    }

    fn answers(address: SocketAddr) -> bool {
        TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok()
    }

    fn becomes(address: SocketAddr, wanted: bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while answers(address) != wanted {
            assert!(Instant::now() < end, "{address} does not become {wanted}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn accepts_on_the_master_with_permission_only() {
        let (at, mut bench) = (address(1), Bench::new());
        bench.probe.follow(Some(at)).unwrap();
        assert!(!answers(at), "a backup");
        bench.level.send_replace(level(Role::Master));
        thread::sleep(AGAIN * 4);
        assert!(!answers(at), "without permission");
        bench.grant(60_000);
        becomes(at, true);
        bench.level.send_replace(level(Role::Backup));
        becomes(at, false);
        bench.grant(5_000);
        bench.level.send_replace(level(Role::Master));
        becomes(at, true);
        // Nobody says anything: it runs out.
        becomes(at, false);
        bench.grant(60_000);
        becomes(at, true);
        drop(bench.level);
        becomes(at, false);
    }

    #[test]
    fn closes_under_a_flood_and_keeps_nothing() {
        let (at, mut bench) = (address(2), Bench::new());
        bench.probe.follow(Some(at)).unwrap();
        bench.level.send_replace(level(Role::Master));
        bench.grant(600_000);
        becomes(at, true);
        let (taken, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let flood: Vec<_> = (0..4)
            .map(|_| {
                let (taken, stop) = (Arc::clone(&taken), Arc::clone(&stop));
                thread::spawn(move || {
                    while !stop.load(Relaxed) {
                        taken.fetch_add(u64::from(answers(at)), Relaxed);
                    }
                })
            })
            .collect();
        let end = Instant::now() + Duration::from_secs(60);
        while taken.load(Relaxed) <= 8 * 64 {
            assert!(Instant::now() < end, "only {} got through", taken.load(Relaxed));
            thread::sleep(Duration::from_millis(5));
        }
        bench.level.send_replace(level(Role::Backup));
        becomes(at, false);
        stop.store(true, Relaxed);
        flood.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn moves_with_the_config_and_stays_where_it_was_if_that_fails() {
        let (first, second, mut bench) = (address(3), address(4), Bench::new());
        bench.level.send_replace(level(Role::Master));
        bench.grant(60_000);
        bench.probe.follow(Some(first)).unwrap();
        becomes(first, true);
        let taken = std::net::TcpListener::bind(second).unwrap();
        let error = bench.probe.follow(Some(second)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("[probe] listen: {second}: ")), "{error}");
        becomes(first, true);
        drop(taken);
        bench.probe.follow(Some(second)).unwrap();
        becomes(second, true);
        assert!(!answers(first));
        bench.probe.follow(None).unwrap();
        assert!(!answers(second));
    }
}
