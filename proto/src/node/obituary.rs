//! The last word about a session: made by the node while it lives, shown by whoever outlives its process
//! (docs/protocol.md §5).
//!
//! The node itself never sends it. It says nothing else, and it does not age: whoever has it needs no
//! key, no counter and no clock, only the certainty that the process is dead and its effects are off.

use crate::api::PathIndex;
use crate::peer::micros;
use crate::seal::SealKeys;
use crate::wire::body::{Body, Obituary};
use crate::wire::{Header, MAX_PATHS};

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
    /// It is sealed and to be kept where only the worker and its guard can read it: who sends it ends
    /// the session for that peer, for ever.
    #[must_use]
    pub fn obituaries(&self) -> Vec<(usize, PathIndex, Vec<u8>)> {
        let mut all = Vec::new();
        for (index, peer) in self.peers.iter().enumerate() {
            let paths = 0..peer.config.paths.min(MAX_PATHS);
            all.extend(paths.filter_map(|path| Some((index, path, self.obituary(index, path)?))));
        }
        all
    }

    fn obituary(&self, index: usize, path: PathIndex) -> Option<Vec<u8>> {
        let key = self.keys.sending()?;
        let peer = self.peers.get(index)?;
        let prk = self.keys.find(key, self.config.witness || peer.config.witness)?;
        let (cluster, me) = (&self.config.cluster, &self.config.name);
        let keys = SealKeys::derive(prk, cluster, &self.session, me, &peer.config.name);
        let header = Header {
            path,
            key,
            cluster: self.cluster_tag,
            sender: self.tag,
            receiver: peer.tag,
            session: self.session,
            counter: COUNTER,
        };
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
