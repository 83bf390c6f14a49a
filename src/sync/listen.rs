//! Answering gateways of lower names.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, info};

use super::channel::{self, Channel, Refusal};
use super::files::Hub;
use super::{Connected, Endpoints, Settings, View, session};

/// Connections that have not shown that they hold the key: in all, and of one address.
const STRANGERS: usize = 16;
const STRANGERS_OF_ONE: usize = 4;

/// An address that cannot be bound is tried again this often; so is one that accepts no more.
const AGAIN: Duration = Duration::from_secs(1);

/// What all addresses of a node share.
#[derive(Clone, Default)]
pub(super) struct Sessions(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The established connection of each gateway; dropping it ends that one.
    established: HashMap<String, oneshot::Sender<()>>,
    strangers: HashMap<IpAddr, usize>,
}

impl Sessions {
    /// A gateway proved itself: an older connection of it ends.
    fn establish(&self, peer: &str) -> oneshot::Receiver<()> {
        let (keep, end) = oneshot::channel();
        self.lock().established.insert(peer.to_owned(), keep);
        end
    }

    /// `None` if there are too many that are not proved.
    pub(super) fn admit(&self, from: IpAddr) -> Option<Stranger> {
        let mut state = self.lock();
        let all: usize = state.strangers.values().sum();
        let mine = state.strangers.entry(from).or_default();
        if all >= STRANGERS || *mine >= STRANGERS_OF_ONE {
            return None;
        }
        *mine += 1;
        Some(Stranger { sessions: self.clone(), from })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is not proved, counted while this lives.
pub(super) struct Stranger {
    sessions: Sessions,
    from: IpAddr,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut state = self.sessions.lock();
        if let Some(count) = state.strangers.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                state.strangers.remove(&self.from);
            }
        }
    }
}

/// What one address of the node answers with.
#[derive(Clone)]
pub(super) struct Listener {
    pub(super) settings: Arc<Settings>,
    pub(super) endpoints: Endpoints,
    pub(super) files: Hub,
    pub(super) view: View,
    pub(super) sessions: Sessions,
}

impl Listener {
    /// Listens on `address` for ever.
    pub(super) async fn run(self, address: SocketAddr) {
        let mut connections = JoinSet::new();
        let mut failed = false;
        loop {
            let Err(why) = self.listen(address, &mut connections).await;
            if !std::mem::replace(&mut failed, true) {
                info!("sync: {address} cannot listen, trying on: {why}");
            }
            sleep(AGAIN).await;
        }
    }

    async fn listen(
        &self,
        address: SocketAddr,
        connections: &mut JoinSet<()>,
    ) -> Result<std::convert::Infallible, io::Error> {
        let listener = bind(address)?;
        loop {
            let (stream, from) = listener.accept().await?;
            while connections.try_join_next().is_some() {}
            match self.sessions.admit(from.ip()) {
                Some(stranger) => _ = connections.spawn(self.clone().serve(stream, stranger)),
                None => self.view.refused("sync_too_many"),
            }
        }
    }

    async fn serve(self, stream: TcpStream, stranger: Stranger) {
        let from = stranger.from;
        let channel = match self.prove(stream).await {
            Ok(channel) => channel,
            Err(why) => {
                self.view.ended(&why);
                return debug!("sync: connection from {from} refused: {why}");
            }
        };
        drop(stranger);
        let peer = channel.peer.clone();
        let replaced = self.sessions.establish(&peer);
        info!("sync: {peer} is connected");
        let _connected = Connected::new(&self.view, &peer);
        tokio::select! {
            why = session::run(channel, &self.endpoints, &self.files) => {
                self.view.ended(&why);
                info!("sync: connection of {peer} ended: {why}");
            }
            _ = replaced => debug!("sync: {peer} has a newer connection"),
        }
    }

    async fn prove(&self, stream: TcpStream) -> Result<Channel, Refusal> {
        stream.set_nodelay(true)?;
        channel::accept(stream, &self.settings).await
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(STRANGERS).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}
