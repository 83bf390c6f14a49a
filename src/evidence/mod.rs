//! Outside evidence: does something that is no node of the cluster answer this one?
//!
//! A gateway that no longer hears the master cannot know by itself which of the two is cut off. The
//! default router knows no cluster and answers everyone, so it is asked, by ARP or neighbour
//! solicitation: each 10 s to learn whether it usually answers, and at once when the protocol misses a
//! heartbeat. A master's tunnels are evidence as well: an authenticated packet came through.
//!
//! ```text
//!   netlink --find--> sources --+          +--> daemon::Input::Evidence
//!   wants_evidence ------------ judge -----+--> View, for status
//!   ARP / NDP answers ----------+          +--> evidence.json: who usually answers
//! ```
//!
//! It runs on a thread of its own: nothing here delays a heartbeat. A witness has none.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};
use wgha_proto::{Evidence, Time};

use crate::aside;
use crate::config::{Config, EvidenceChoice};
use crate::daemon::Input;
use crate::net::watch::Watch;
use crate::net::{NetError, Netlink};
use crate::state::StateDir;

mod asker;
mod find;
pub mod judge;
mod view;

use asker::Asker;
use find::{Found, find};
use judge::Key;
pub use view::Picture;

/// The picture, shared.
pub type View = crate::shared::Shared<Picture>;

/// Who usually answers, in the state directory.
const FILE: &str = "evidence.json";

/// At least this long from one look at links and routes to the next, however much changes.
const LOOK_GAP: Duration = Duration::from_millis(500);

/// What could not be done is tried again this often.
const AGAIN: Duration = Duration::from_secs(10);

/// What the evidence needs of the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whom to ask.
    pub choice: EvidenceChoice,
    /// Between heartbeats.
    pub interval: Duration,
    /// The addresses that carry this node's heartbeats.
    pub mine: Vec<IpAddr>,
    /// All nodes' addresses: none of them is outside.
    pub nodes: Vec<IpAddr>,
    /// The floating IPs: neither asked nor asking.
    pub floating: Vec<IpAddr>,
    /// The interfaces that carry them.
    pub interfaces: Vec<String>,
}

impl Settings {
    /// The settings of a gateway.
    #[must_use]
    pub fn new(config: &Config) -> Settings {
        let all = config.nodes.iter().flat_map(|node| &node.addresses);
        Settings {
            choice: config.cluster.evidence.clone(),
            interval: config.cluster.heartbeat,
            mine: config.node().addresses.iter().map(|a| a.bind.ip()).collect(),
            nodes: all.flat_map(|a| [a.send.ip(), a.bind.ip()]).collect(),
            floating: config.floating_ips.iter().map(|f| f.address.addr()).collect(),
            interfaces: config.floating_ips.iter().map(|f| f.interface.clone()).collect(),
        }
    }
}

/// What the evidence hears, and whom it tells.
pub struct Parts {
    /// The config in force.
    pub settings: watch::Receiver<Settings>,
    /// Whether the protocol misses someone. It all ends with the sender.
    pub wanted: watch::Receiver<bool>,
    /// Since when an authenticated packet came through a tunnel of this node as master.
    pub tunnel: watch::Receiver<Option<Time>>,
    /// Tells the protocol; false if it has no room.
    pub tell: Box<dyn FnMut(Evidence) -> bool + Send>,
    /// For status.
    pub view: View,
    /// Who usually answered an earlier run.
    pub remembered: Vec<Key>,
    /// Takes who usually answers, for the next run.
    pub keep: watch::Sender<Vec<Key>>,
}

/// The rest of the process's end.
pub type Handle = crate::shared::Handle<Settings, Picture>;

/// Starts the thread. It ends with the protocol's, and does not keep that alive.
///
/// # Errors
/// The system has no thread for us.
///
/// # Panics
/// Outside of a tokio runtime, which keeps files.
pub fn start(
    settings: Settings,
    inputs: mpsc::WeakSender<Input>,
    wanted: watch::Receiver<bool>,
    tunnel: watch::Receiver<Option<Time>>,
    state: Arc<StateDir>,
) -> io::Result<Handle> {
    let (handle, settings, view) = Handle::new(settings);
    let remembered: Vec<Key> = state.load(FILE);
    let (keep, kept) = watch::channel(remembered.clone());
    let tell = move |evidence| {
        inputs.upgrade().is_some_and(|inputs| inputs.try_send(Input::Evidence(evidence)).is_ok())
    };
    let tell = Box::new(tell);
    let parts = Parts { settings, wanted, tunnel, tell, view, remembered, keep };
    tokio::spawn(store_all(kept, state));
    // An answer that waits for a busy core delays a takeover as a heartbeat would.
    aside::raised("evidence", 1, move || run(parts))?;
    Ok(handle)
}

/// Keeps what is to be kept; a slow disk delays nothing but this.
async fn store_all(mut kept: watch::Receiver<Vec<Key>>, state: Arc<StateDir>) {
    while kept.changed().await.is_ok() {
        let (keys, state) = (kept.borrow_and_update().clone(), Arc::clone(&state));
        let stored = tokio::task::spawn_blocking(move || state.store(FILE, &keys)).await;
        if let Ok(Err(e)) = stored {
            warn!("{e}");
        }
    }
}

/// Asks and tells until the protocol is gone.
pub async fn run(parts: Parts) {
    let (found_tx, found) = watch::channel(Found::default());
    let mut following = JoinSet::new();
    following.spawn(follow(parts.settings.clone(), found_tx, parts.view.clone()));
    Asker::new(parts, found).run().await;
}

/// Finds the sources again after every change, by netlink, which may be slow while the machine is
/// changed: whoever asks does not wait for it.
async fn follow(mut settings: watch::Receiver<Settings>, found: watch::Sender<Found>, view: View) {
    loop {
        match follow_until_trouble(&mut settings, &found).await {
            Ok(()) => return,
            Err(e) => {
                debug!("{e}");
                view.draw(|picture| picture.trouble = Some(e.to_string()));
            }
        }
        sleep(AGAIN).await;
    }
}

/// `Ok` when nobody is left to follow for.
async fn follow_until_trouble(
    settings: &mut watch::Receiver<Settings>,
    found: &watch::Sender<Found>,
) -> Result<(), NetError> {
    let netlink = Netlink::open()?;
    let mut watch = Watch::open()?;
    loop {
        let wanted = settings.borrow_and_update().clone();
        let now = find(&netlink, &wanted).await?;
        found.send_if_modified(|old| {
            let changed = *old != now;
            *old = now;
            changed
        });
        sleep(LOOK_GAP).await;
        tokio::select! {
            changed = settings.changed() => if changed.is_err() {
                return Ok(());
            },
            changed = watch.changed() => changed?,
        }
    }
}
