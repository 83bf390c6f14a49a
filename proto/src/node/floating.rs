//! Paths over the floating IPs: one more way to the master, which goes as the clients go (docs/protocol.md §1).
//!
//! Whoever is not master sends there as well; whoever is master and hears it answers from there. So a backup whose direct paths are cut
//! still knows that the master serves, and takes nothing over. What comes is sealed as any heartbeat: nobody but the
//! master's session can be heard on it.

use super::{Answer, Node};
use crate::api::{PathIndex, PathSnapshot, Role};
use crate::time::Time;
use crate::wire::body::Body;
use crate::wire::{Header, MAX_PATHS};

/// At most so many floating IPs are paths: one of each family, usually.
pub const MAX_FLOATING: PathIndex = 2;

/// The number of the path over a floating IP, by its place among those that are paths. Counted down from the last, so
/// that it is the same whatever other paths there are.
#[must_use]
pub fn floating_path(place: PathIndex) -> PathIndex {
    (MAX_PATHS - 1).saturating_sub(place)
}

impl Node {
    /// How many floating IPs are paths, at most [`MAX_FLOATING`]. None unless it was said.
    pub fn set_floating(&mut self, count: PathIndex) {
        self.floating = count.min(MAX_FLOATING);
    }

    /// What is known of each floating path to this peer, by its index: number and picture.
    #[must_use]
    pub fn floating_paths(&self, peer: usize, now: Time) -> Vec<(PathIndex, PathSnapshot)> {
        let Some(peer) = self.peers.get(peer) else { return Vec::new() };
        let now = now.max(self.now);
        let free = self.floating_numbers().filter(|path| *path >= peer.config.paths);
        free.map(|path| (path, self.picture_of_path(peer, path, now))).collect()
    }

    fn floating_numbers(&self) -> impl Iterator<Item = PathIndex> + use<> {
        (0..self.floating).map(floating_path)
    }

    /// On which floating paths each peer is sent to: the master, or who may be it.
    pub(super) fn choose_floating(&mut self) {
        let bits = self.floating_numbers().fold(0, |bits, path| bits | 1 << path);
        let master = self.best_claim().map(|(index, _)| index);
        // What I have myself leads back to me.
        let silent = self.state.claims();
        for (index, peer) in self.peers.iter_mut().enumerate() {
            let may_serve = match master {
                Some(master) => index == master,
                None => !peer.alive,
            };
            let wanted = !silent && !peer.config.witness && may_serve;
            peer.floating = if wanted { bits } else { 0 };
        }
    }

    /// A peer that is not master was heard on a floating path, which leads to me: it is told so, on the same way.
    pub(super) fn answer_floating(&mut self, peer: usize, header: &Header, body: &Body) {
        let floating = self.floating_numbers().any(|path| path == header.path);
        let own = self.peers.get(peer).is_some_and(|p| header.path < p.config.paths);
        if floating && !own && self.state.claims() && body.role != Role::Master {
            self.answer = Some(Answer { peer, path: header.path, echo: None, duplicate: false });
        }
    }
}
