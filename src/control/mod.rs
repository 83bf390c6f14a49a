//! The control socket: how `wgha status` and its kin talk to the daemon.
//!
//! A unix socket of mode 0600. Each line is one JSON object, both ways:
//!
//! ```text
//! {"command":"status"}                             {"ok":true,"status":{...}}
//! {"command":"handover","to":"gw2","force":false}  {"ok":true,"message":"gw2 is master"}
//! {"command":"maintenance","on":true}              {"ok":false,"error":"no gateway can take over: ..."}
//! {"command":"events","follow":false}              {"ok":true,"event":{...}} ... {"ok":true,"end":true}
//! {"command":"reload"}                             {"ok":true,"message":"..."}
//! {"command":"upgrade","look":true}                {"ok":true,"message":"..."}
//! ```
//!
//! [`server`] is the daemon's side, [`client`] that of the command line.

pub mod client;
pub mod server;
#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, oneshot};

use crate::events::Event;
use crate::status::Status;

/// Longest request line, in bytes without the newline.
pub const MAX_REQUEST: usize = 4096;

/// Connections at a time.
pub const MAX_CONNECTIONS: usize = 16;

/// Connections of those that may follow events, so that followers leave room for commands.
pub const MAX_FOLLOWERS: usize = 8;

/// How long a client may take to send a request, or to take a line of the answer.
pub const CLIENT_TIME: Duration = Duration::from_secs(10);

/// How long the daemon may take to answer a request: a handover waits for its outcome.
pub const ANSWER_TIME: Duration = Duration::from_secs(30);

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// The daemon's status.
    Status {},
    /// Give the role of master away.
    Handover {
        /// To whom; the best candidate if not given.
        #[serde(default)]
        to: Option<String>,
        /// In spite of doubts that can be passed over.
        #[serde(default)]
        force: bool,
    },
    /// Enter or leave maintenance.
    Maintenance {
        /// Enter, or leave.
        on: bool,
        /// Enter even if nobody else can serve.
        #[serde(default)]
        force: bool,
    },
    /// The kept events, oldest first.
    Events {
        /// And every later one as it happens.
        #[serde(default)]
        follow: bool,
    },
    /// Read the config again.
    Reload {
        /// Put its voters in force, although a node that voted is lost for good.
        #[serde(default)]
        force_voters: bool,
    },
    /// End, and have the program that is now at the daemon's path run in its place.
    Upgrade {
        /// Only say whether that program accepts the config.
        #[serde(default)]
        look: bool,
        /// Even as master.
        #[serde(default)]
        force: bool,
    },
}

impl Request {
    /// Reads one line without its newline.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in a sentence.
    pub fn parse(line: &[u8]) -> Result<Request, String> {
        serde_json::from_slice(line).map_err(|e| format!("not a request: {e}"))
    }
}

/// A request on its way to whoever answers it.
#[derive(Debug)]
pub struct Call {
    /// The request.
    pub request: Request,
    /// Takes the answer. Dropped without one, the client is told that the daemon is stopping.
    pub reply: oneshot::Sender<Reply>,
}

/// The daemon's answer.
#[derive(Debug)]
pub enum Reply {
    /// To `status`.
    Status(Box<Status>),
    /// Done; a sentence for people.
    Done(String),
    /// Not done; the reason in a sentence.
    Refused(String),
    /// To `events`: see [`EventLog::follow`](crate::events::EventLog::follow).
    Events {
        /// The kept ones.
        past: Vec<Event>,
        /// The later ones, if the client follows.
        follow: Option<broadcast::Receiver<Event>>,
    },
}

/// One line of an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Whether the request was obeyed.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Box<Status>>,
    /// One event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    /// The last event was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<bool>,
}

impl Response {
    fn done(message: String) -> Response {
        Response { ok: true, message: Some(message), ..Response::default() }
    }

    fn refused(error: impl Into<String>) -> Response {
        Response { error: Some(error.into()), ..Response::default() }
    }

    fn status(status: Box<Status>) -> Response {
        Response { ok: true, status: Some(status), ..Response::default() }
    }

    fn event(event: Event) -> Response {
        Response { ok: true, event: Some(event), ..Response::default() }
    }

    fn end() -> Response {
        Response { ok: true, end: Some(true), ..Response::default() }
    }
}
