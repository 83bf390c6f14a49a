//! How a node begins, and how it takes another config.

use std::collections::VecDeque;

use ring::digest;
use zeroize::{Zeroize, Zeroizing};

use super::{Backoff, Duplicate, Failure, Incoming, Node, Outside, Reaction, Vacancy};
use crate::api::{Ability, Boot, Evidence, Health, LeaseCounts, NodeConfig, Reason, RoleLevel};
use crate::election::State;
use crate::keys::Keyring;
use crate::peer::Peer;
use crate::refusal::Counts;
use crate::time::Time;
use crate::wire::{cluster_tag, node_tag};

impl Node {
    /// A node that starts to listen now.
    #[must_use]
    pub fn new(config: NodeConfig, keys: Keyring, mut boot: Boot, now: Time) -> Node {
        let obituary_secret = Zeroizing::new(boot.obituary_secret);
        boot.obituary_secret.zeroize();
        let hash = digest::digest(&digest::SHA256, &*obituary_secret);
        let mut obituary_hash = [0; 32];
        obituary_hash.copy_from_slice(hash.as_ref());
        let level = RoleLevel {
            role: State::Init.role(),
            term: boot.highest_term,
            reason: Reason::Started,
            master: None,
            errand: None,
        };
        let cluster = config.cluster.clone();
        let peers =
            config.peers.iter().map(|peer| Peer::new(&cluster, peer.clone(), now)).collect();
        let lease = super::voters::at_start(&config, boot.votes.as_ref(), now);
        let mut node = Node {
            cluster_tag: cluster_tag(&cluster),
            tag: node_tag(&cluster, &config.name),
            config,
            keys,
            session: boot.session,
            obituary_secret,
            obituary_hash,
            now,
            expected: now,
            awake_since: now,
            listened_at: None,
            next_heartbeat: now,
            wall_offset: 0,
            state: State::Init,
            level,
            since: now,
            term: 0,
            highest: boot.highest_term,
            highest_held: boot.highest_term,
            won_at: now,
            peers,
            vacancy: Vacancy { since: now, reason: Reason::NoMaster, reserved_until: now },
            eligible_since: None,
            improved_at: None,
            outdone_at: None,
            held_back: None,
            ability: Ability::Unknown,
            health: Health { ok: true, last_pass_began: None },
            unhealthy_since: None,
            outside: Outside::new(now, Evidence::NoSource),
            maintenance: boot.maintenance,
            failure: Failure::default(),
            reaction: Reaction::new(now),
            duplicate: Duplicate::default(),
            over: None,
            stopping: None,
            outgoing: None,
            next_handover_id: 1,
            incoming: None,
            next_errand: 1,
            no_preempt: None,
            backoff: Backoff::default(),
            release: None,
            releases: 0,
            yielded: None,
            lease,
            votes_before: boot.votes,
            voted_until: now,
            floating: 0,
            answer: None,
            events: VecDeque::new(),
            refusals: Counts::default(),
            lease_counts: LeaseCounts::default(),
        };
        node.finish();
        node
    }

    /// Takes another config and other keys into force, by difference: the role stays, and peers
    /// that are in both keep what is known of them. The node's and the cluster's name must be the same.
    pub fn reconfigure(&mut self, now: Time, config: NodeConfig, keys: Keyring) {
        self.begin(now);
        let mut old: Vec<Option<Peer>> = self.peers.drain(..).map(Some).collect();
        let outgoing_to = self.outgoing.as_ref().and_then(|o| self.config.peers.get(o.to)).cloned();
        let incoming_from =
            self.incoming.as_ref().and_then(|i| self.config.peers.get(i.peer)).cloned();
        for wanted in &config.peers {
            let known =
                old.iter_mut().find(|p| p.as_ref().is_some_and(|p| p.config.name == wanted.name));
            let mut peer = known
                .and_then(Option::take)
                .unwrap_or_else(|| Peer::new(&config.cluster, wanted.clone(), self.now));
            peer.config = wanted.clone();
            if wanted.witness {
                peer.claim = None;
            }
            // Made anew with the keys now in force.
            (peer.tx, peer.rx) = (None, None);
            // Paths that are gone carry nothing more.
            if peer.pending != 0 {
                peer.queue();
            }
            self.peers.push(peer);
        }
        let place = |name: &str| config.peers.iter().position(|peer| peer.name == name);
        if let Some(gone) = outgoing_to {
            match (place(&gone.name), self.outgoing.as_mut()) {
                (Some(index), Some(outgoing)) => outgoing.to = index,
                _ => self.abort_to(gone.name, "it is no longer in the config"),
            }
        }
        self.incoming =
            match (incoming_from.and_then(|peer| place(&peer.name)), self.incoming.take()) {
                (Some(index), Some(incoming)) => Some(Incoming { peer: index, ..incoming }),
                _ => None,
            };
        self.answer = None;
        self.config = config;
        self.keys = keys;
        self.reconfigure_voters();
        self.next_heartbeat = self.next_heartbeat.min(self.now + self.config.interval);
        self.finish();
    }
}
