//! The last word about a session: made by the node while it lives, shown by whoever outlives its process
//! (docs/protocol.md §5).
//!
//! The node itself never sends it. It says nothing else, and it does not age: whoever has it needs no
//! key, no counter and no clock, only the certainty that the process is dead and its effects are off.

use crate::api::PathIndex;
use crate::peer::micros;
use crate::wire::MAX_PATHS;
use crate::wire::body::{Body, Obituary};

use super::Node;

/// No heartbeat has this counter, so that no window refuses it however many were sent since it was made.
pub(crate) const COUNTER: u64 = u64::MAX;
/// Below every number that a receiver knows of an established session: where the obituary is not
/// honoured, the datagram is refused as a whole and moves no window.
pub(crate) const NUMBER: u64 = 1;

impl Node {
    /// The datagram that ends this session for a peer, for each of its paths: index of the peer, path,
    /// bytes. Made with the config and the key in force: ask again after
    /// [`reconfigure`](Node::reconfigure).
    ///
    /// None while a successor acts on what this session handed on: ask again when
    /// [`has_handed_on`](Node::has_handed_on) changes.
    ///
    /// It is sealed and to be kept where only the worker and its guard can read it: who sends it ends
    /// the session for that peer, for ever.
    #[must_use]
    pub fn obituaries(&self) -> Vec<(usize, PathIndex, Vec<u8>)> {
        let mut all = Vec::new();
        if self.has_handed_on() {
            return all;
        }
        for (index, peer) in self.peers.iter().enumerate() {
            let paths = 0..peer.config.paths.min(MAX_PATHS);
            all.extend(paths.filter_map(|path| Some((index, path, self.obituary(index, path)?))));
        }
        all
    }

    fn obituary(&self, index: usize, path: PathIndex) -> Option<Vec<u8>> {
        let key = self.keys.sending()?;
        let peer = self.peers.get(index)?;
        let (keys, header) = (self.seal_keys(key, peer)?, self.header(peer, path, key, COUNTER));
        let secret = *self.obituary_secret;
        let body = Body {
            number: NUMBER,
            interval_us: micros(self.config.interval),
            misses: self.config.misses,
            obituary_hash: self.obituary_hash,
            obituary: Some(Obituary { node: self.tag, session: self.session, secret }),
            ..Body::blank()
        };
        let mut out = Vec::new();
        header.encode(&mut out);
        body.encode(&mut out);
        keys.seal(&mut out)?;
        Some(out)
    }
}
