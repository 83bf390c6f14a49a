//! Connections, and their bounds.
//!
//! When there are too many, the one goes that has asked nothing for the longest time: those who hold
//! connections open, on purpose or not, do not keep others out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tracing::debug;

use super::routes::Router;

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at a time.
    pub(super) connections: usize,
    /// A connection without a whole request for this long is closed. It covers clients that send
    /// their request drop by drop, that never read the answer, and that keep a connection for later.
    pub(super) quiet: Duration,
}

/// The bounds of the daemon.
pub(super) const LIMITS: Limits = Limits { connections: 64, quiet: Duration::from_secs(30) };

/// The longest head of a request in bytes (the least that hyper takes), and its most headers.
const MAX_HEAD: usize = 8192;
const MAX_HEADERS: usize = 64;

/// After a failed accept: out of descriptors, most likely.
const AGAIN: Duration = Duration::from_millis(100);

/// Accepts for ever.
pub(super) async fn serve(
    listener: TcpListener,
    router: Arc<Router>,
    limits: Limits,
) -> Infallible {
    let slots = Arc::new(Slots { table: Mutex::default(), router, limits });
    let mut id = 0;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                id += 1;
                slots.admit(id, stream);
            }
            Err(e) => {
                debug!("http: {e}");
                sleep(AGAIN).await;
            }
        }
    }
}

/// The connections that stand, by number.
struct Slots {
    table: Mutex<BTreeMap<u64, Slot>>,
    router: Arc<Router>,
    limits: Limits,
}

struct Slot {
    /// Accepted, or the last request answered.
    quiet_since: Instant,
    /// A request is being answered.
    busy: bool,
    task: AbortHandle,
}

impl Slots {
    fn admit(self: &Arc<Self>, id: u64, stream: TcpStream) {
        let mut table = self.lock();
        if table.len() >= self.limits.connections {
            let idle = table.iter().filter(|(_, slot)| !slot.busy);
            let Some(oldest) = idle.min_by_key(|(_, slot)| slot.quiet_since).map(|(id, _)| *id)
            else {
                self.router.counts.refused.add_one();
                return;
            };
            if let Some(slot) = table.remove(&oldest) {
                slot.task.abort();
            }
            self.router.counts.displaced.add_one();
        }
        // It does not run before this returns: there is one thread.
        let task = tokio::spawn(Connection { id, slots: Arc::clone(self) }.run(stream));
        let task = task.abort_handle();
        table.insert(id, Slot { quiet_since: Instant::now(), busy: false, task });
        self.router.counts.open.set(table.len());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Slot>> {
        // Each entry is whole at every moment.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection; its slot is free when this is dropped.
struct Connection {
    id: u64,
    slots: Arc<Slots>,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        // Answers are one piece each.
        let _ = stream.set_nodelay(true);
        let me = &self;
        let service = service_fn(|request: Request<Incoming>| async move {
            me.note(true);
            let router = &me.slots.router;
            let answer = router.answer(request.method(), request.uri().path()).await;
            me.note(false);
            Ok::<_, Infallible>(answer)
        });
        let mut http = http1::Builder::new();
        // Ours covers more than hyper's.
        http.max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS).header_read_timeout(None);
        // Simple probes (`nc`) say that they are done before they have read the answer.
        http.half_close(true);
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            // Whatever ended it, the client knows.
            _ = connection => {}
            () = me.quiet() => me.slots.router.counts.quiet.add_one(),
        }
    }

    fn note(&self, busy: bool) {
        if let Some(slot) = self.slots.lock().get_mut(&self.id) {
            (slot.busy, slot.quiet_since) = (busy, Instant::now());
        }
    }

    /// Returns when the client has asked nothing for too long.
    async fn quiet(&self) {
        loop {
            let quiet = match self.slots.lock().get(&self.id) {
                Some(slot) if !slot.busy => slot.quiet_since.elapsed(),
                _ => Duration::ZERO,
            };
            match self.slots.limits.quiet.checked_sub(quiet) {
                None | Some(Duration::ZERO) => return,
                Some(rest) => sleep(rest).await,
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut table = self.slots.lock();
        table.remove(&self.id);
        self.slots.router.counts.open.set(table.len());
    }
}
