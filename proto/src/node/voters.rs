//! Who votes in this node's eyes: the voters in force, and those of the config when they differ (§11).

use super::Node;
use super::lease::Lease;
use crate::api::{Event, NodeConfig, Quorum, VoteRecord};
use crate::arbiter::arbiter_voter;
use crate::election::State;
use crate::fingerprint::Printer;
use crate::lease::holder::Holder;
use crate::lease::set::SetHash;
pub(super) use crate::lease::set::VoterSet;
use crate::lease::voter::Voter;
use crate::lease::{LONGEST_LEASE, Timing};
use crate::time::Time;

/// The sets of voters.
#[derive(Clone)]
pub(super) struct Voters {
    pub(super) in_force: VoterSet,
    /// Those that were in force before.
    before: Option<VoterSet>,
    /// Of the config, if others are in force.
    pub(super) pending: Option<VoterSet>,
    /// There were no leases before: `in_force` is only announced until every member announces it.
    pub(super) waiting: bool,
    /// The set in force is known from disk, or from a lease that somebody held by it.
    remembered: bool,
}

impl Voters {
    /// Whether I may grant what one asks who has these voters in force: mine, or the next to them. While a set comes
    /// into force, neither those who have it nor those who do not may be a majority alone.
    pub(super) fn accepts(&self, hash: Option<SetHash>) -> bool {
        let next = self.pending.as_ref().filter(|_| !self.is_blocked());
        let near = [Some(&self.in_force), self.before.as_ref(), next];
        near.into_iter().flatten().any(|set| Some(set.hash()) == hash)
    }

    /// The pending voters cannot follow those in force: too many change at once.
    pub(super) fn is_blocked(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| !pending.overlaps(&self.in_force))
    }

    pub(super) fn print(&self, p: &mut Printer) {
        let hash = |set: &Option<VoterSet>| set.as_ref().map(VoterSet::hash);
        p.put((self.in_force.hash(), hash(&self.before), hash(&self.pending)));
        p.put((self.waiting, self.remembered));
    }
}

fn configured(config: &NodeConfig) -> VoterSet {
    let peers = config.peers.iter().map(|peer| peer.name.as_str());
    let nodes: Vec<&str> = peers.chain([config.name.as_str()]).collect();
    let arbiter = match config.quorum {
        Quorum::Majority { arbiter: true, .. } => {
            Some(arbiter_voter(&config.cluster, nodes.iter().copied()))
        }
        Quorum::Majority { arbiter: false, .. } | Quorum::None => None,
    };
    VoterSet::new(&config.cluster, nodes.into_iter().chain(arbiter.as_deref()))
}

fn timing(config: &NodeConfig) -> Option<Timing> {
    match config.quorum {
        Quorum::None => None,
        Quorum::Majority { reaction, .. } => {
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
    let set = |names: &[String]| VoterSet::new(&config.cluster, names.iter().map(String::as_str));
    let known = |names: &[String]| Some(set(names)).filter(|set| !set.names().is_empty());
    let remembered = kept.and_then(|kept| known(&kept.voters));
    let before = kept.and_then(|kept| known(&kept.before));
    let in_force = remembered.clone().unwrap_or_else(|| wanted.clone());
    let pending = (in_force != wanted).then_some(wanted);
    let remembered = remembered.is_some();
    let voters = Voters { in_force, before, pending, waiting: false, remembered };
    Some(Box::new(lease(timing, voters, kept, now)))
}

fn lease(timing: Timing, voters: Voters, kept: Option<&VoteRecord>, since: Time) -> Lease {
    let longest = kept.map_or(LONGEST_LEASE, |kept| kept.longest);
    let highest = kept.map_or((0, [0; 16]), |kept| (kept.term, kept.session));
    Lease::new(timing, voters, Voter::new(since, longest, highest), longest)
}

fn record(lease: &Lease) -> VoteRecord {
    let (term, session) = lease.voter.highest();
    let voters = lease.voters.in_force.names().to_vec();
    let before = lease.voters.before.as_ref().map_or(Vec::new(), |set| set.names().to_vec());
    VoteRecord { longest: lease.longest, term, session, voters, before }
}

impl Node {
    /// The config changed: other voters are pending, unless this is no change of them.
    pub(super) fn reconfigure_voters(&mut self) {
        let wanted = configured(&self.config);
        let Some(timing) = timing(&self.config) else {
            if let Some(lease) = self.lease.take() {
                self.votes_before = Some(record(&lease));
                self.voted_until = self.now;
            }
            return;
        };
        let (kept, since) = (self.votes_before.clone(), self.voted_until);
        let lease = self.lease.get_or_insert_with(|| {
            let in_force = wanted.clone();
            let voters =
                Voters { in_force, before: None, pending: None, waiting: true, remembered: true };
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
        self.set_margin();
    }

    /// Puts the pending voters in force once every other member announces them and, with leases before, the holder holds
    /// its lease under them; or once a holder does that they are in force for.
    pub(super) fn adopt_voters(&mut self) {
        self.confirm_voters();
        let Some(lease) = self.lease.as_deref() else { return };
        let voters = &lease.voters;
        let wanted = if voters.waiting { Some(&voters.in_force) } else { voters.pending.as_ref() };
        let Some(wanted) = wanted else { return };
        let agreed = if voters.waiting {
            self.all_announce(wanted, None)
        } else {
            let end = lease.holder.as_ref().and_then(|holder| holder.parts.end(wanted));
            let held = end.is_some_and(|end| self.now < end - lease.timing.margin);
            held && !voters.is_blocked() && self.all_announce(wanted, Some(&voters.in_force))
        };
        if agreed || self.a_holder_has(wanted) {
            let wanted = wanted.clone();
            self.put_in_force(wanted);
        }
    }

    /// What was taken from the config for want of a memory is known to be in force once somebody holds a lease by it.
    fn confirm_voters(&mut self) {
        let Some(lease) = self.leases().filter(|lease| !lease.voters.remembered) else { return };
        let held = lease.holder.is_some() || self.a_holder_has(&lease.voters.in_force);
        if let Some(lease) = self.leases_mut().filter(|_| held) {
            lease.voters.remembered = true;
            self.tell_votes();
        }
    }

    fn put_in_force(&mut self, wanted: VoterSet) {
        let (serving, term, now) = (self.state == State::Serving, self.term, self.now);
        let Some(lease) = self.lease.as_deref_mut() else { return };
        if lease.voters.waiting && serving {
            // It was master without a lease; within this time it has one, or is master no longer.
            let mut holder = Holder::new(term, Default::default(), None);
            holder.grace = now + lease.timing.lease;
            lease.holder = Some(holder);
        }
        let voters = Voters {
            in_force: wanted,
            before: None,
            pending: None,
            waiting: false,
            remembered: true,
        };
        let old = std::mem::replace(&mut lease.voters, voters);
        lease.voters.before = Some(old.in_force).filter(|set| set.overlaps(&lease.voters.in_force));
        self.queue_all();
        self.tell_votes();
    }

    /// Every other member of this set is alive and announces it. None of them may be further behind than the set
    /// `before` it: majorities overlap from one set to the next alone.
    fn all_announce(&self, wanted: &VoterSet, before: Option<&VoterSet>) -> bool {
        let hash = Some(wanted.hash());
        wanted.nodes().filter(|name| **name != self.config.name).all(|name| {
            let peer = self.peers.iter().find(|peer| peer.alive && peer.config.name == *name);
            let Some((said, _)) = peer.and_then(|peer| peer.said.as_ref()) else { return false };
            let (pending, voters) = (said.lease.pending, said.lease.voters);
            let new = before.is_none_or(|set| !set.names().contains(name));
            let near = new || voters == hash || voters == before.map(VoterSet::hash);
            near && (pending == hash || voters == hash)
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
    /// of a cluster that are forced apart may both have a master. Does nothing in a config without leases.
    pub fn force_voters(&mut self, now: Time) {
        self.begin(now);
        self.put_in_force(configured(&self.config));
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
        if let Some(lease) = self.leases() {
            self.event(Event::Votes(record(lease)));
        }
    }

    /// What a restart would find.
    pub(super) fn votes_to_keep(&self) -> Option<VoteRecord> {
        self.leases().map(record).or_else(|| self.votes_before.clone())
    }
}
