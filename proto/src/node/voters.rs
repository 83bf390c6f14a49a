//! Who votes in this node's eyes: the voters in force, and those of the config when they differ (§11).

use super::Node;
use super::lease::Lease;
use crate::api::{Event, NodeConfig, Quorum, VoteRecord};
use crate::election::State;
use crate::lease::holder::Holder;
pub(super) use crate::lease::set::VoterSet;
use crate::lease::voter::Voter;
use crate::lease::{LONGEST_LEASE, Timing};
use crate::time::Time;

/// The sets of voters.
pub(super) struct Voters {
    pub(super) in_force: VoterSet,
    /// Of the config, if others are in force.
    pub(super) pending: Option<VoterSet>,
    /// There were no leases before: `in_force` is only announced until every member announces it.
    pub(super) waiting: bool,
    /// The set in force is known from disk, or from a majority.
    remembered: bool,
}

fn configured(config: &NodeConfig) -> VoterSet {
    let peers = config.peers.iter().map(|peer| peer.name.as_str());
    VoterSet::new(&config.cluster, peers.chain([config.name.as_str()]))
}

fn timing(config: &NodeConfig) -> Option<Timing> {
    match config.quorum {
        Quorum::None => None,
        Quorum::Majority { reaction } => {
            Some(Timing::new(config.detection(), config.interval, reaction))
        }
    }
}

/// The leases of a node that starts.
pub(super) fn at_start(
    config: &NodeConfig,
    kept: Option<&VoteRecord>,
    now: Time,
) -> Option<Box<Lease>> {
    let timing = timing(config)?;
    let wanted = configured(config);
    let names = kept.map(|kept| kept.voters.iter().map(String::as_str));
    let known = names.map(|names| VoterSet::new(&config.cluster, names));
    let known = known.filter(|set| !set.names().is_empty());
    let remembered = known.is_some();
    let in_force = known.unwrap_or_else(|| wanted.clone());
    let pending = (in_force != wanted).then_some(wanted);
    let voters = Voters { in_force, pending, waiting: false, remembered };
    Some(Box::new(lease(timing, voters, kept, now)))
}

fn lease(timing: Timing, voters: Voters, kept: Option<&VoteRecord>, since: Time) -> Lease {
    let longest = kept.map_or(LONGEST_LEASE, |kept| kept.longest);
    let highest = kept.map_or((0, [0; 16]), |kept| (kept.term, kept.session));
    Lease::new(timing, voters, Voter::new(since, longest, highest), longest)
}

impl Node {
    /// The config changed: other voters are pending, unless this is no change of them.
    pub(super) fn reconfigure_voters(&mut self) {
        let wanted = configured(&self.config);
        let Some(timing) = timing(&self.config) else {
            self.lease = None;
            return;
        };
        let (kept, since) = (self.votes_at_boot.clone(), self.started);
        let lease = self.lease.get_or_insert_with(|| {
            let voters =
                Voters { in_force: wanted.clone(), pending: None, waiting: true, remembered: true };
            Box::new(lease(timing, voters, kept.as_ref(), since))
        });
        lease.timing = timing;
        lease.own_longest = lease.own_longest.max(timing.lease);
        lease.longest = lease.longest.max(timing.lease);
        if lease.voters.waiting {
            lease.voters.in_force = wanted;
        } else {
            lease.voters.pending = (lease.voters.in_force != wanted).then_some(wanted);
        }
    }

    /// Puts the pending voters in force once every member of both sets announces them and, with leases before, the
    /// holder holds its lease under them; or once a holder does that they are in force for.
    pub(super) fn adopt_voters(&mut self) {
        let Some(lease) = self.lease.as_deref() else { return };
        let voters = &lease.voters;
        let waiting = voters.waiting;
        let Some(wanted) = (if waiting { Some(&voters.in_force) } else { voters.pending.as_ref() })
        else {
            return;
        };
        let held = lease.holder.as_ref().and_then(|holder| holder.parts.end(wanted));
        let held = held.is_some_and(|end| self.now < end - lease.timing.margin);
        let agreed = self.all_announce(wanted, (!waiting).then_some(&voters.in_force));
        if !(agreed && (waiting || held) || self.a_holder_has(wanted)) {
            return;
        }
        let (wanted, until) = (wanted.clone(), self.now + lease.timing.lease);
        let (serving, term) = (self.state == State::Serving, self.term);
        let Some(lease) = self.lease.as_deref_mut() else { return };
        lease.voters = Voters { in_force: wanted, pending: None, waiting: false, remembered: true };
        if waiting && serving {
            // It was master without a lease; within this time it has one, or is master no longer.
            let mut holder = Holder::new(term, Default::default(), None);
            holder.grace = until;
            lease.holder = Some(holder);
        }
        self.queue_all();
        self.tell_votes();
    }

    /// Every other member of both sets is alive and announces this one.
    fn all_announce(&self, wanted: &VoterSet, before: Option<&VoterSet>) -> bool {
        let old = before.map_or(&[][..], VoterSet::names);
        let mut names = wanted.names().iter().chain(old);
        names.all(|name| {
            *name == self.config.name
                || self.peers.iter().any(|peer| {
                    let said =
                        peer.said.as_ref().filter(|_| peer.alive).map(|(said, _)| said.lease);
                    let hash = Some(wanted.hash());
                    peer.config.name == *name
                        && said.is_some_and(|said| said.pending == hash || said.voters == hash)
                })
        })
    }

    fn a_holder_has(&self, wanted: &VoterSet) -> bool {
        self.peers.iter().filter(|peer| peer.alive && wanted.contains(&peer.tag)).any(|peer| {
            peer.said.as_ref().is_some_and(|(said, _)| {
                said.lease.held.is_some() && said.lease.voters == Some(wanted.hash())
            })
        })
    }

    /// Without a memory, and others have another set in force: then mine means nothing.
    pub(super) fn foreign_voters(&self) -> bool {
        let Some(lease) = self.leases().filter(|lease| !lease.voters.remembered) else {
            return false;
        };
        let mine = lease.voters.in_force.hash();
        self.peers.iter().filter(|peer| peer.alive).any(|peer| {
            let voters = peer.said.as_ref().and_then(|(said, _)| said.lease.voters);
            voters.is_some_and(|hash| hash != mine)
        })
    }

    /// Puts the voters of the config in force, whatever others say: for a member that is lost for good. Two halves
    /// of a cluster that are forced apart may both have a master.
    pub fn force_voters(&mut self, now: Time) {
        self.begin(now);
        let wanted = configured(&self.config);
        if let Some(lease) = self.lease.as_deref_mut() {
            lease.voters =
                Voters { in_force: wanted, pending: None, waiting: false, remembered: true };
            self.queue_all();
            self.tell_votes();
        }
        self.finish();
    }

    /// What a restart must know about votes, told when it changed.
    pub(super) fn keep_votes(&mut self) {
        let now = self.now;
        let Some(lease) = self.leases_mut() else { return };
        if now >= lease.voter.abstain_until() {
            // What an earlier run granted is over.
            lease.longest = lease.own_longest;
        }
        let highest = lease.voter.highest();
        if (highest, lease.longest) != lease.told {
            lease.told = (highest, lease.longest);
            self.note_term(highest.0);
            self.tell_votes();
        }
    }

    fn tell_votes(&mut self) {
        let Some(lease) = self.leases() else { return };
        let (term, session) = lease.voter.highest();
        let voters = lease.voters.in_force.names().to_vec();
        let record = VoteRecord { longest: lease.longest, term, session, voters };
        self.event(Event::Votes(record));
    }
}
