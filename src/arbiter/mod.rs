//! The arbiter: an etcd that votes (docs/protocol.md §11, Arbiter).
//!
//! What to ask and what an answer is worth is `wgha_proto::Agent`'s affair; here are its thread, its sockets and its
//! clock. One request is under way at a time, each for a bounded time; after a failure the next endpoint is asked.
//!
//! ```text
//!   daemon --Level (watch)--> this thread --HTTP/1.1, JSON--> etcd
//!          <--Input::Arbiter------                       |--> View, for status
//! ```
//!
//! It runs on a thread of its own: nothing here delays a heartbeat. A witness has none: it does not ask for votes.

use std::io;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use wgha_proto::{Wish, Word};

use crate::aside;
use crate::config::{self, Config};
use crate::daemon::Input;

mod client;
mod http;
mod json;
mod secret;
mod task;
#[cfg(test)]
mod tests;
mod tls;

pub use secret::password;
pub use tls::connector;

/// Names of endpoints that may be looked up at a time: a resolver that hangs holds one thread each, until it gives up.
const RESOLVERS: usize = 4;

/// What a gateway needs to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whom to ask.
    pub arbiter: config::Arbiter,
    /// The cluster's name.
    pub cluster: String,
    /// This node's name.
    pub node: String,
    /// The name under which etcd votes by this config.
    pub voter: String,
    /// Between heartbeats.
    pub interval: Duration,
    /// The length of a lease.
    pub detection: Duration,
}

impl Settings {
    /// The settings of a gateway; `None` without an arbiter.
    #[must_use]
    pub fn new(config: &Config) -> Option<Settings> {
        let nodes = config.nodes.iter().map(|node| node.name.as_str());
        Some(Settings {
            arbiter: config.arbiter.clone()?,
            cluster: config.cluster.name.clone(),
            node: config.node().name.clone(),
            voter: wgha_proto::arbiter_voter(&config.cluster.name, nodes),
            interval: config.cluster.heartbeat,
            detection: config.detection(),
        })
    }
}

/// What the protocol wants of etcd's vote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// The node's session, in whose name it is wanted; `None`: not known yet, so nothing is asked.
    pub session: Option<[u8; 16]>,
    /// The name under which it votes in the set in force; `None`: it does not.
    pub voter: Option<String>,
    /// What is wanted.
    pub wish: Wish,
}

/// What status shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// The endpoint that is asked.
    pub endpoint: String,
    /// It answered last time; `None`: not asked yet.
    pub reachable: Option<bool>,
    /// What went wrong last, since it last answered.
    pub last_error: Option<String>,
    /// Requests since the start, and those that failed.
    pub requests: (u64, u64),
}

/// The picture, shared.
pub(crate) type View = crate::shared::Shared<Picture>;

/// The rest of the process's end.
pub type Handle = crate::shared::Handle<Option<Settings>, Picture>;

/// Starts the thread, also where no etcd votes yet. It ends with the protocol's, and does not keep that alive.
///
/// # Errors
/// The system has no thread for us.
pub fn start(
    settings: Option<Settings>,
    inputs: mpsc::WeakSender<Input>,
    level: watch::Receiver<Level>,
) -> io::Result<Handle> {
    let (handle, settings, view) = Handle::new(settings);
    let tell = move |word: Word| {
        inputs.upgrade().is_some_and(|inputs| inputs.try_send(Input::Arbiter(word)).is_ok())
    };
    let parts = task::Parts { settings, level, tell: Box::new(tell), view };
    aside::raised("arbiter", RESOLVERS, move || task::run(parts))?;
    Ok(handle)
}
