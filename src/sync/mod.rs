//! The sync channel: what gateways tell each other beside the heartbeats, over TCP on the
//! heartbeats' addresses, encrypted. docs/sync.md describes it for other implementations.
//!
//! ```text
//! WireGuard -> gateway/attend --publish--> Endpoints --session/channel--> Endpoints -> staged device
//!                                             |  other gateway               |
//!                                           store (state directory)        store
//! ```
//!
//! It runs on a thread of its own: neither the election nor a takeover waits for it. A witness has
//! no key for it and takes no part.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::error;
use zeroize::Zeroizing;

use self::channel::Refusal;
use crate::config;
use crate::setup::Setup;
use crate::shared::Shared;
use crate::state::StateDir;

pub mod channel;
mod dial;
pub mod endpoints;
pub mod files;
pub mod flush;
mod listen;
pub mod message;
mod session;
mod store;

pub use endpoints::Endpoints;

/// New settings that may wait.
const ORDERS: usize = 4;

/// What the channel needs of config and key file.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// The cluster's name.
    pub cluster: String,
    /// This node's name.
    pub me: String,
    /// This node's addresses.
    pub addresses: Vec<config::NodeAddress>,
    /// The other gateways.
    pub peers: Vec<config::Node>,
    /// By key id, the one to connect with first.
    pub secrets: Vec<(u16, Zeroizing<[u8; 32]>)>,
}

impl Settings {
    /// The settings of a gateway.
    #[must_use]
    pub fn new(setup: &Setup) -> Settings {
        let config = &setup.config;
        Settings {
            cluster: config.cluster.name.clone(),
            me: config.node().name.clone(),
            addresses: config.node().addresses.clone(),
            peers: config.peers().filter(|node| !node.witness).cloned().collect(),
            secrets: setup.keys.derive(channel::PURPOSE),
        }
    }
}

/// What became of connections, for status.
#[derive(Clone, Debug, Default)]
pub struct View(Shared<Picture>);

/// See [`View`].
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Gateways with an established connection, and how many: two for a moment, while a new one
    /// replaces an old one.
    pub connected: BTreeMap<String, usize>,
    /// Connections that were refused or failed, by the word of the reason.
    pub refusals: BTreeMap<&'static str, u64>,
}

impl View {
    /// The picture now.
    #[must_use]
    pub fn look(&self) -> Picture {
        self.0.look()
    }

    fn connected(&self, peer: &str) {
        self.0.draw(|picture| *picture.connected.entry(peer.to_owned()).or_default() += 1);
    }

    fn disconnected(&self, peer: &str) {
        self.0.draw(|picture| {
            if let Some(count) = picture.connected.get_mut(peer) {
                *count -= 1;
                if *count == 0 {
                    picture.connected.remove(peer);
                }
            }
        });
    }

    /// A network that fails is no refusal.
    fn ended(&self, why: &Refusal) {
        if !matches!(why, Refusal::Io(_)) {
            self.refused(why.word());
        }
    }

    fn refused(&self, word: &'static str) {
        self.0.draw(|picture| *picture.refusals.entry(word).or_default() += 1);
    }
}

/// The running channel. Dropping it writes what is to be kept, ends it, and waits for that.
pub struct Handle {
    orders: Option<mpsc::Sender<Settings>>,
    thread: Option<JoinHandle<()>>,
    view: View,
}

impl Handle {
    /// Takes up new settings; connections end only if they differ.
    pub async fn reconfigure(&self, settings: Settings) {
        if let Some(orders) = &self.orders
            && orders.send(settings).await.is_err()
        {
            error!("the sync channel's thread died");
        }
    }

    /// What became of connections.
    #[must_use]
    pub fn view(&self) -> Picture {
        self.view.look()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.orders = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("the sync channel's thread died");
        }
    }
}

/// Takes up what an earlier run kept, and starts the thread.
///
/// # Errors
///
/// The system has no thread for us.
pub fn start(
    settings: Settings,
    endpoints: Endpoints,
    files: files::Hub,
    state: Arc<StateDir>,
) -> io::Result<Handle> {
    store::restore(&state, &endpoints);
    let (orders, incoming) = mpsc::channel(ORDERS);
    let view = View::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shared = view.clone();
    let body = move || {
        runtime.block_on(async {
            let (end, ended) = oneshot::channel();
            let keeper = tokio::spawn(store::keep(state, endpoints.clone(), ended));
            run(settings, incoming, endpoints, files, shared).await;
            drop(end);
            if keeper.await.is_err() {
                error!("the task that keeps the endpoints died");
            }
        });
    };
    let thread = thread::Builder::new().name("sync".to_owned()).spawn(body)?;
    Ok(Handle { orders: Some(orders), thread: Some(thread), view })
}

/// Holds connections to all other gateways until nobody can give orders any more.
async fn run(
    first: Settings,
    mut orders: mpsc::Receiver<Settings>,
    endpoints: Endpoints,
    files: files::Hub,
    view: View,
) {
    let mut current = Arc::new(first);
    let mut tasks = tasks(&current, &endpoints, &files, &view);
    while let Some(settings) = orders.recv().await {
        if settings != *current {
            current = Arc::new(settings);
            // Every connection made with the old settings ends with its task.
            tasks.shutdown().await;
            tasks = self::tasks(&current, &endpoints, &files, &view);
        }
    }
}

/// The lower name connects, the higher one listens: one connection for each pair.
fn tasks(
    settings: &Arc<Settings>,
    endpoints: &Endpoints,
    files: &files::Hub,
    view: &View,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for peer in settings.peers.iter().filter(|peer| settings.me < peer.name) {
        let (settings, endpoints) = (Arc::clone(settings), endpoints.clone());
        let dial = dial::run(settings, peer.clone(), endpoints, files.clone(), view.clone());
        tasks.spawn(dial);
    }
    if settings.peers.iter().any(|peer| peer.name < settings.me) {
        let sessions = listen::Sessions::default();
        for address in &settings.addresses {
            let listener = listen::Listener {
                settings: Arc::clone(settings),
                endpoints: endpoints.clone(),
                files: files.clone(),
                view: view.clone(),
                sessions: sessions.clone(),
            };
            tasks.spawn(listener.run(address.bind));
        }
    }
    tasks
}

/// Says while it lives that a gateway is connected.
struct Connected<'a> {
    view: &'a View,
    peer: String,
}

impl<'a> Connected<'a> {
    fn new(view: &'a View, peer: &str) -> Connected<'a> {
        view.connected(peer);
        Connected { view, peer: peer.to_owned() }
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.view.disconnected(&self.peer);
    }
}

#[cfg(test)]
mod tests;
