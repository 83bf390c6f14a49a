//! Files that are the same on all gateways: `[sync] files`.
//!
//! ```text
//! inotify -> watch -> local: what is on the disk, is it whole, is it an edit?
//!                       |                          index: versions, in the state directory
//!                     engine: lineage::decide  <-- peers' lists (wire, over the sync channel)
//!                       |
//!                     fetch -> disk::replace --> `changed`: wg0.conf is applied (run/app.rs)
//! ```
//!
//! Everything happens on a thread of its own, which may wait for the disk: no connection, takeover
//! or heartbeat waits for it. What is said to peers is compared with what was said, so a message
//! that is lost because a queue is full is said again.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::{Notify, mpsc, watch};
use tracing::error;
use wgha_proto::RoleLevel;

use self::check::Check;
use self::engine::Engine;
use crate::config::SyncFile;
use crate::setup::Setup;
use crate::state::StateDir;
use crate::sync::message::Message;

pub mod check;
pub mod disk;
mod engine;
pub mod fetch;
pub mod hash;
pub mod index;
pub mod lineage;
mod local;
pub mod places;
mod view;
mod watch_dirs;
pub mod wire;

pub use view::{FileView, Picture};

/// Messages of all connections that may wait for the thread.
const INPUTS: usize = 256;

/// Messages that may wait for one connection: more than the longest list has.
const OUTPUTS: usize = 192;

/// What the thread needs of the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// This node's name.
    pub me: String,
    /// The other gateways' names.
    pub peers: Vec<String>,
    /// `[sync] files`.
    pub files: Vec<SyncFile>,
    /// Which contents are whole.
    pub check: Check,
}

impl Settings {
    /// The settings of a gateway.
    #[must_use]
    pub fn new(setup: &Setup) -> Settings {
        let config = &setup.config;
        Settings {
            me: config.node().name.clone(),
            peers: config.peers().filter(|n| !n.witness).map(|n| n.name.clone()).collect(),
            files: config.sync.clone(),
            check: Check::new(config),
        }
    }
}

/// The running thread. Dropping it ends it, and waits for that.
pub struct Handle {
    orders: Option<mpsc::Sender<Settings>>,
    thread: Option<JoinHandle<()>>,
    picture: Arc<Mutex<Picture>>,
    changed: watch::Receiver<u64>,
}

impl Handle {
    /// Takes up new settings.
    pub async fn reconfigure(&self, settings: Settings) {
        if let Some(orders) = &self.orders
            && orders.send(settings).await.is_err()
        {
            error!("the thread that syncs files died");
        }
    }

    /// The files now.
    #[must_use]
    pub fn view(&self) -> Picture {
        lock(&self.picture).clone()
    }

    /// A number that grows when a file has a new content.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.orders = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("the thread that syncs files died");
        }
    }
}

/// Where connections of the sync channel meet the thread.
#[derive(Clone)]
pub struct Hub {
    links: Arc<Mutex<Links>>,
    /// Links came or went.
    notify: Arc<Notify>,
    inputs: mpsc::Sender<(u64, Message)>,
    dropped: Arc<AtomicU64>,
}

#[derive(Default)]
struct Links {
    next: u64,
    open: BTreeMap<u64, (String, mpsc::Sender<Message>)>,
}

/// One connection's end. Dropping it tells that the connection is gone.
pub struct Link {
    hub: Hub,
    id: u64,
    outputs: mpsc::Receiver<Message>,
}

impl Hub {
    fn new() -> (Hub, mpsc::Receiver<(u64, Message)>) {
        let (inputs, receiver) = mpsc::channel(INPUTS);
        let (links, notify) = (Arc::default(), Arc::default());
        (Hub { links, notify, inputs, dropped: Arc::default() }, receiver)
    }

    /// A hub without a thread behind it: files are not spoken of.
    #[must_use]
    pub fn unattended() -> Hub {
        Hub::new().0
    }

    /// For a connection to `peer` that has proved itself.
    #[must_use]
    pub fn join(&self, peer: &str) -> Link {
        let (sender, outputs) = mpsc::channel(OUTPUTS);
        let mut links = lock(&self.links);
        let id = links.next;
        links.next += 1;
        links.open.insert(id, (peer.to_owned(), sender));
        self.notify.notify_one();
        Link { hub: self.clone(), id, outputs }
    }

    /// The open connections.
    fn open(&self) -> BTreeMap<u64, (String, mpsc::Sender<Message>)> {
        lock(&self.links).open.clone()
    }
}

impl Link {
    /// For the connection's receiving half: passes on what the peer said. Never waits; what does not
    /// fit in is said again by the peer.
    pub fn deliverer(&self) -> impl Fn(Message) + use<> {
        let (hub, id) = (self.hub.clone(), self.id);
        move |message| deliver(&hub, id, message)
    }

    /// What the peer is to be told next. Waits for ever when the thread has ended.
    pub async fn next(&mut self) -> Message {
        match self.outputs.recv().await {
            Some(message) => message,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        lock(&self.hub.links).open.remove(&self.id);
        self.hub.notify.notify_one();
    }
}

fn deliver(hub: &Hub, id: u64, message: Message) {
    if hub.inputs.try_send((id, message)).is_err() {
        hub.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Starts the thread. `level` says who is master.
///
/// # Errors
///
/// The system has no thread for us, or no inotify.
pub fn start(
    settings: Settings,
    state: Arc<StateDir>,
    level: watch::Receiver<RoleLevel>,
) -> io::Result<(Handle, Hub)> {
    let (orders, incoming) = mpsc::channel(4);
    let (hub, inputs) = Hub::new();
    let picture = Arc::<Mutex<Picture>>::default();
    let (changes, changed) = watch::channel(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (shared, drawn) = (hub.clone(), Arc::clone(&picture));
    let body = move || {
        runtime.block_on(async {
            let engine = Engine::new(settings, state, shared, drawn, changes);
            if let Err(e) = engine.run(incoming, inputs, level).await {
                error!("files are not synced: {e}");
            }
        });
    };
    let thread = thread::Builder::new().name("files".to_owned()).spawn(body)?;
    Ok((Handle { orders: Some(orders), thread: Some(thread), picture, changed }, hub))
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // Replaced as a whole, so a panic elsewhere does not spoil it.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
