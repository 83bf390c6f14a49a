//! What gateways tell each other over the sync channel: JSON objects with a `kind`.
//!
//! docs/sync.md describes them for other implementations. A kind that is not known is skipped, and
//! so is a field that is not known: gateways of different versions understand each other.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use wgha_proto::Term;

use super::endpoints::{Known, Peers};
use super::files;
use crate::wireguard::key::PublicKey;

/// Peers in one message. At most 170 bytes each, they fit into a frame.
const CHUNK: usize = 300;

/// Longest name of an interface, in bytes (IFNAMSIZ without the zero).
const MAX_INTERFACE: usize = 15;

/// One message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// The first in each direction. It proves that the sender is there now, and no recording.
    Hello {
        /// The sender's program version, for people.
        #[serde(default)]
        version: String,
    },
    /// Nothing to say; the connection works.
    Alive {},
    /// Where peers are.
    Endpoints(EndpointsMessage),
    /// Asks for everything of the endpoints: what is there does not suffice for the differences.
    Whole {},
    /// To be answered when everything before it was taken.
    Flush {
        /// Its number.
        number: u64,
    },
    /// The answer.
    Flushed {
        /// The number of the question.
        number: u64,
    },
    /// Which versions of files the sender has.
    Files(files::wire::List),
    /// Asks for the content of a file.
    FileWant(files::wire::Want),
    /// A piece of the content of a file.
    FilePart(files::wire::Part),
    /// A kind of a newer version.
    #[serde(other)]
    Unknown,
}

/// Where peers are, in the words of the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointsMessage {
    interface: String,
    term: Term,
    /// Missing: a difference to what was sent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot: Option<SnapshotPart>,
    #[serde(default)]
    peers: Vec<PeerEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gone: Vec<String>,
}

/// Which part of a snapshot a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SnapshotPart {
    first: bool,
    last: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PeerEntry {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<SocketAddr>,
    #[serde(default)]
    handshake_ns: i64,
}

/// A message about endpoints, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The WireGuard interface.
    pub interface: String,
    /// The master's term.
    pub term: Term,
    /// What the peers are.
    pub part: Part,
    /// The peers that are new or changed.
    pub peers: Peers,
    /// The peers that are no more.
    pub gone: Vec<PublicKey>,
}

/// What an [`Update`] carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Changes since the last update.
    Difference,
    /// A piece of everything.
    Snapshot {
        /// The first piece.
        first: bool,
        /// The last piece: with it the snapshot is complete.
        last: bool,
    },
}

impl Message {
    /// A whole table, in as many messages as it needs, at least one.
    #[must_use]
    pub fn snapshot(interface: &str, term: Term, peers: &Peers) -> Vec<Message> {
        let entries: Vec<PeerEntry> = peers.iter().map(entry).collect();
        let mut chunks: Vec<Vec<PeerEntry>> = entries.chunks(CHUNK).map(<[_]>::to_vec).collect();
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        let last = chunks.len() - 1;
        let message = |(index, peers)| {
            let snapshot = Some(SnapshotPart { first: index == 0, last: index == last });
            endpoints(interface, term, snapshot, peers, Vec::new())
        };
        chunks.into_iter().enumerate().map(message).collect()
    }

    /// What changed between two tables, in as many messages as it needs, at least one: an empty
    /// one says that nothing did.
    #[must_use]
    pub fn difference(interface: &str, term: Term, old: &Peers, new: &Peers) -> Vec<Message> {
        let changed = new.iter().filter(|(key, known)| old.get(key) != Some(known));
        let changed: Vec<PeerEntry> = changed.map(entry).collect();
        let gone: Vec<String> =
            old.keys().filter(|key| !new.contains_key(key)).map(ToString::to_string).collect();
        let parts = changed.len().div_ceil(CHUNK).max(gone.len().div_ceil(CHUNK)).max(1);
        let mut changed = changed.chunks(CHUNK);
        let mut gone = gone.chunks(CHUNK);
        let message = |_| {
            let (peers, gone) = (changed.next(), gone.next());
            let (peers, gone) = (peers.unwrap_or_default(), gone.unwrap_or_default());
            endpoints(interface, term, None, peers.to_vec(), gone.to_vec())
        };
        (0..parts).map(message).collect()
    }

    /// Reads a message. `None` if it is none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Message> {
        serde_json::from_slice(bytes).ok()
    }

    /// The bytes of a message.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings, numbers and lists: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl EndpointsMessage {
    /// What it says. `None` if a key or the interface's name is none.
    #[must_use]
    pub fn understand(self) -> Option<Update> {
        let name = !self.interface.is_empty() && self.interface.len() <= MAX_INTERFACE;
        let part = match self.snapshot {
            None => Part::Difference,
            Some(SnapshotPart { first, last }) => Part::Snapshot { first, last },
        };
        let peer = |p: PeerEntry| {
            let key = PublicKey::from_base64(&p.key)?;
            Some((key, Known { endpoint: p.endpoint, handshake_ns: p.handshake_ns }))
        };
        let peers = self.peers.into_iter().map(peer).collect::<Option<Peers>>()?;
        let gone =
            self.gone.iter().map(|key| PublicKey::from_base64(key)).collect::<Option<_>>()?;
        name.then_some(Update { interface: self.interface, term: self.term, part, peers, gone })
    }
}

fn endpoints(
    interface: &str,
    term: Term,
    snapshot: Option<SnapshotPart>,
    peers: Vec<PeerEntry>,
    gone: Vec<String>,
) -> Message {
    let interface = interface.to_owned();
    Message::Endpoints(EndpointsMessage { interface, term, snapshot, peers, gone })
}

fn entry((key, known): (&PublicKey, &Known)) -> PeerEntry {
    PeerEntry { key: key.to_string(), endpoint: known.endpoint, handshake_ns: known.handshake_ns }
}

#[cfg(test)]
mod tests;
