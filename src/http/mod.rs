//! `[http]`: read-only answers for monitors, load balancers and people.
//!
//! ```text
//! GET /livez    200 while the protocol's loop turns
//!     /readyz   200 on the master, and on a backup that could take over
//!     /master   200 on the master alone
//!     /status   what `wgha status --json` prints
//!     /metrics  OpenMetrics
//!     /         what `wgha status` prints, as a page
//! ```
//!
//! It runs on a thread of its own. `/livez` and `/master` look at what the protocol's loop has
//! published, and wait for nobody; the others ask the main thread, however many clients there are at
//! most ten times a second. Nothing here changes anything, and nothing needs a password, so nothing
//! secret may be in an answer.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{error, info};

use crate::aside::Aside;
use crate::control::Call;
use crate::net::listen::bound;

mod connections;
mod counts;
mod look;
mod metrics;
mod page;
mod routes;
#[cfg(test)]
mod tests;
mod vital;

pub use vital::Vital;

use connections::LIMITS;
use counts::Counts;
use look::Looker;
use routes::Router;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 128;

/// Why nobody can listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Somebody else listens there.
    #[error("[http] listen: {0} is in use by another process")]
    InUse(SocketAddr),
    /// The system refuses the address.
    #[error("[http] listen: {0}: {1}")]
    Bind(SocketAddr, io::Error),
    /// The system has no thread for it.
    #[error("[http]: cannot start its thread: {0}")]
    Thread(io::Error),
}

/// The listener as the config wants it, or none.
pub struct Http {
    router: Arc<Router>,
    server: Option<Server>,
}

impl Http {
    /// Does not listen yet. `calls` are answered by the main thread.
    #[must_use]
    pub fn new(vital: Arc<Vital>, calls: mpsc::Sender<Call>) -> Http {
        let counts = Arc::new(Counts::default());
        let router = Router { vital, looker: Looker::new(calls), counts };
        Http { router: Arc::new(router), server: None }
    }

    /// Answers on a socket of [`bind`] from now on, and no longer on an earlier one.
    ///
    /// # Errors
    ///
    /// [`StartError::Thread`]; then nobody listens.
    pub fn serve(&mut self, socket: TcpListener) -> Result<(), StartError> {
        self.server = None;
        self.server = Some(Server::start(socket, Arc::clone(&self.router))?);
        Ok(())
    }

    /// Listens where the config says now. If it has not changed, connections stay.
    ///
    /// # Errors
    ///
    /// The new address cannot be had; then it listens where it did.
    pub fn follow(&mut self, listen: Option<SocketAddr>) -> Result<(), StartError> {
        let old = self.server.as_ref().map(|server| server.listen);
        if old == listen {
            return Ok(());
        }
        let Some(address) = listen else {
            self.server = None;
            info!("no HTTP any more");
            return Ok(());
        };
        match (bind(address), old) {
            (Ok(socket), _) => self.serve(socket),
            // The one in the way may be our own: of 127.0.0.1 and 0.0.0.0, say.
            (Err(StartError::InUse(_)), Some(old)) if overlap(old, address) => {
                self.server = None;
                match bind(address) {
                    Ok(socket) => self.serve(socket),
                    Err(why) => bind(old).and_then(|socket| self.serve(socket)).and(Err(why)),
                }
            }
            (Err(why), _) => Err(why),
        }
    }
}

/// Both take in one address: one of them is all addresses.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// Makes the listening socket. The machine need not have the address yet: it may be a floating IP.
///
/// # Errors
///
/// [`StartError::InUse`] or [`StartError::Bind`].
pub fn bind(listen: SocketAddr) -> Result<TcpListener, StartError> {
    let made = || -> io::Result<TcpListener> {
        let socket = bound(listen)?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    made().map_err(|e| match e.kind() {
        io::ErrorKind::AddrInUse => StartError::InUse(listen),
        _ => StartError::Bind(listen, e),
    })
}

/// What answers. Dropping it closes everything, and waits for that.
struct Server {
    listen: SocketAddr,
    _thread: Aside,
}

impl Server {
    fn start(socket: TcpListener, router: Arc<Router>) -> Result<Server, StartError> {
        let listen = socket.local_addr().map_err(StartError::Thread)?;
        let thread = Aside::start("http", move || async move {
            match tokio::net::TcpListener::from_std(socket) {
                Ok(listener) => match connections::serve(listener, router, LIMITS).await {},
                Err(e) => error!("[http] listen: {listen}: {e}"),
            }
        });
        let thread = thread.map_err(StartError::Thread)?;
        info!("HTTP on {listen}");
        Ok(Server { listen, _thread: thread })
    }
}
