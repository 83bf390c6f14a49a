//! The picture for status.

use std::time::Duration;

use super::Node;
use super::receive::micros_of;
use crate::api::{
    Alarm, ArbiterSnapshot, LeaseSnapshot, PathIndex, PathSnapshot, PeerSnapshot, Snapshot,
    WireguardKind, Wish,
};
use crate::direction::Signs;
use crate::peer::Peer;
use crate::time::Time;
use crate::wire::MAX_PATHS;
use crate::wire::body::same_config;

impl Node {
    pub(super) fn picture(&self, now: Time) -> Snapshot {
        Snapshot {
            level: self.level.clone(),
            since: self.since,
            healthy: self.health.ok,
            maintenance: self.maintenance,
            ready: self.is_ready(),
            held_back: self.held_back.filter(|why| *why != "master"),
            lease: self.picture_of_lease(now),
            peers: self.peers.iter().map(|peer| self.picture_of(peer, now)).collect(),
            refusals: self.refusals.list(),
        }
    }

    fn picture_of_lease(&self, now: Time) -> Option<LeaseSnapshot> {
        let lease = self.leases()?;
        let set = &lease.voters.in_force;
        let holder = lease.holder.as_ref();
        let bid = lease.candidate.bid().map(|bid| &bid.parts);
        let parts = holder.map(|holder| &holder.parts).or(bid);
        let arbiter = set.arbiter();
        let name = |tag: &crate::wire::Tag| {
            if let Some((name, _)) = arbiter.filter(|(_, arbiter)| arbiter == tag) {
                return name.to_owned();
            }
            let peer = self.peers.iter().find(|peer| peer.tag == *tag);
            peer.map_or(&self.config.name, |peer| &peer.config.name).clone()
        };
        let mut votes: Vec<_> =
            parts.into_iter().flat_map(|parts| parts.live(now)).map(name).collect();
        votes.sort();
        let until = self.permitted_until().filter(|_| holder.is_some());
        let abstains = lease.voter.abstain_until().since(now);
        Some(LeaseSnapshot {
            held: until.is_some_and(|until| now < until),
            permitted: until.map(|until| until.since(now)),
            margin: lease.timing.margin,
            votes,
            majority: set.majority(),
            voters: set.names().to_vec(),
            pending: lease.voters.pending.is_some(),
            blocked: lease.voters.is_blocked(),
            abstains: (!abstains.is_zero()).then_some(abstains),
            counts: self.lease_counts,
            arbiter: arbiter.map(|(name, tag)| ArbiterSnapshot {
                name: name.to_owned(),
                present: lease.arbiter.present,
                wanted: matches!(self.arbiter_wish(), Wish::Ask { .. }),
                held: parts.is_some_and(|parts| parts.live(now).any(|voter| *voter == tag)),
            }),
        })
    }

    fn picture_of(&self, peer: &Peer, now: Time) -> PeerSnapshot {
        let said = peer.said.as_ref().map(|(said, _)| said);
        let term = said.map_or(0, |said| if said.term > 0 { said.term } else { said.highest_term });
        PeerSnapshot {
            name: peer.config.name.clone(),
            witness: peer.config.witness,
            role: said.map(|said| said.role),
            term,
            priority: said.map(|said| said.priority),
            alive: peer.alive,
            last_heard: peer.last_heard.map(|at| now.since(at)),
            rtt: peer.rtt,
            loss: peer
                .session
                .as_ref()
                .and_then(|s| s.lost())
                .map_or(0.0, |lost| f64::from(lost) / 64.0),
            clock_offset_ns: peer.clock.offset_ns(),
            alarms: alarms(peer),
            healthy: said.is_some_and(|said| said.flags.healthy),
            maintenance: said.is_some_and(|said| said.flags.maintenance),
            ready: said.is_some_and(|said| said.flags.ready),
            config_match: said.map(|said| same_config(&said.fingerprint, &self.config.fingerprint)),
            wireguard: said.map_or(WireguardKind::None, |said| said.wireguard),
            paths: (0..peer.config.paths.min(MAX_PATHS))
                .map(|path| self.picture_of_path(peer, path, now))
                .collect(),
        }
    }

    pub(super) fn picture_of_path(&self, peer: &Peer, path: PathIndex, now: Time) -> PathSnapshot {
        let said = peer.said.as_ref().map(|(said, _)| said);
        let theirs = said
            .map_or(Duration::ZERO, |said| micros_of(said.interval_us) * u32::from(said.misses));
        let detection = self.config.detection().max(theirs);
        let lately = |at: &Option<Time>| at.is_some_and(|at| now.since(at) < detection);
        let signs = Signs {
            heard: peer.path_heard.get(usize::from(path)).is_some_and(lately),
            heard_any: peer.path_heard.iter().any(lately),
            timely: peer.alive,
            said: said.is_some_and(|said| said.paths_heard & (1 << path) != 0),
        };
        signs.path()
    }
}

fn alarms(peer: &Peer) -> Vec<Alarm> {
    let offset_ns = peer.clock.offset_ns().filter(|_| peer.clock_watch.apart);
    let clock = offset_ns.map(|offset_ns| Alarm::Clock { offset_ns });
    clock.into_iter().chain(peer.wireguard_differs.then_some(Alarm::Wireguard)).collect()
}
