//! Until when a master may act without a word from its node: the gate's deadline (docs/protocol.md §6).

use super::Node;
use crate::election::State;
use crate::time::Time;

impl Node {
    /// Until when this node's machine may act as master if the node is not asked again; `None`: not
    /// at all. Valid like [`level`](Node::level), and after each [`poll_transmit`](Node::poll_transmit)
    /// that returned `None`, as what was sent extends it.
    ///
    /// This is the one place that grants permission. With leases it is the end of the lease less the
    /// margin, and nothing else extends it. Without, it ends before any other gateway that heard the last
    /// heartbeat can take over by silence: half an interval before the detection time has passed
    /// since the last heartbeat to every gateway.
    #[must_use]
    pub fn permitted_until(&self) -> Option<Time> {
        if self.state != State::Serving {
            return None;
        }
        match self.leases() {
            Some(lease) => lease.permitted_until(),
            None => {
                let detection = self.config.detection();
                Some(self.claimed_to_all() + detection.saturating_sub(self.config.interval / 2))
            }
        }
    }

    /// When each other gateway had last been sent my claim, on one path at least. Winning counts as
    /// sending: who wins may act at once, and nobody waits for claims that never began.
    fn claimed_to_all(&self) -> Time {
        let gateways = self.peers.iter().filter(|peer| !peer.config.witness);
        let sent = gateways.map(|peer| peer.claim_sent).min();
        // Alone, being awake is all that there is to prove.
        sent.unwrap_or(self.now).max(self.won_at)
    }
}
