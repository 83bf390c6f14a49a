//! Leases in the node: who asks, who grants, and until when this node may act (docs/protocol.md §11).
//!
//! The rules are in `lease/`; here they meet the peers, the election and the roles. Without leases in force
//! nothing here does anything: two voters go by §7 alone.

use std::time::Duration;

use super::Node;
use super::arbiter::Arbiter;
use super::voters::Voters;
use crate::api::{Reason, Term};
use crate::election::{Input, State};
use crate::lease::Timing;
use crate::lease::candidate::Candidate;
use crate::lease::holder::{Holder, Inherited};
use crate::lease::voter::{self, Verdict, Voter};
use crate::peer::{Peer, millis};
use crate::time::Time;
use crate::wire::body::{Ask, Body, Grant, Held, LeaseFields, Refuse, Release};

/// What a node with leases keeps.
#[derive(Clone)]
pub(super) struct Lease {
    pub(super) timing: Timing,
    pub(super) voters: Voters,
    pub(super) voter: Voter,
    pub(super) candidate: Candidate,
    pub(super) holder: Option<Holder>,
    /// The election says that it is my turn, and why. Made anew at each decision.
    pub(super) turn: Option<Reason>,
    /// Numbers of the asks to my own vote.
    pub(super) own_asks: u64,
    /// Until when I say that I withdrew.
    pub(super) withdrawal_until: Time,
    /// The end of the lease that I released.
    pub(super) released_end: Time,
    /// A successor may act until then.
    pub(super) handed_on: bool,
    /// The longest duration that this run or one before may have granted.
    pub(super) longest: Duration,
    /// The same of this run alone.
    pub(super) own_longest: Duration,
    pub(super) arbiter: Arbiter,
    /// What was told of my votes, to be kept.
    pub(super) told: (voter::Highest, Duration),
}

/// What a node keeps about the asks of one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerLease {
    /// The term that I refused it, and until when; `None`: for ever.
    pub(super) refused: Option<(Term, Option<Time>)>,
    /// When it was answered last, and what.
    pub(super) answered: Option<(Time, Verdict)>,
    /// When I sent the message that its newest timely one echoes.
    pub(crate) echoed: Option<Time>,
}

/// What one message says about votes.
pub(super) struct Votes {
    pub(super) fields: LeaseFields,
    pub(super) release: Option<Release>,
    pub(super) number: u64,
}

impl Lease {
    pub(super) fn new(timing: Timing, voters: Voters, voter: Voter, longest: Duration) -> Lease {
        Lease {
            timing,
            voters,
            candidate: Candidate::default(),
            holder: None,
            turn: None,
            own_asks: 0,
            withdrawal_until: Time::ZERO,
            released_end: Time::ZERO,
            handed_on: false,
            arbiter: Arbiter::default(),
            told: (voter.highest(), longest),
            longest,
            own_longest: timing.lease,
            voter,
        }
    }

    /// Until when the holder may act; `None` without a lease.
    pub(super) fn permitted_until(&self) -> Option<Time> {
        let holder = self.holder.as_ref()?;
        Some(holder.permitted_until(&self.voters.in_force, &self.timing))
    }
}

impl Node {
    /// The leases, if they are in force.
    pub(super) fn leases(&self) -> Option<&Lease> {
        self.lease.as_deref().filter(|lease| !lease.voters.waiting)
    }

    pub(super) fn leases_mut(&mut self) -> Option<&mut Lease> {
        self.lease.as_deref_mut().filter(|lease| !lease.voters.waiting)
    }

    /// Before anything else at every wake: without permission there is no master.
    pub(super) fn check_lease(&mut self) {
        let (now, detection) = (self.now, self.config.detection());
        let Some(lease) = self.leases_mut() else { return };
        if lease.permitted_until().is_none_or(|until| now < until) {
            return;
        }
        // Forgotten with all its parts; others are listened to before I ask again.
        lease.holder = None;
        lease.candidate.pause(now + detection);
        if self.state == State::Serving {
            self.lease_counts.lost += 1;
            self.step(Input::Leave, Reason::LeaseLost);
        }
    }

    /// Whether nothing may be sent any more before the next look at the time.
    pub(super) fn is_overdue(&self) -> bool {
        self.state == State::Serving
            && self.leases().is_some()
            && self.permitted_until().is_none_or(|until| self.now >= until)
    }

    /// The term of a master that begins.
    pub(super) fn won_term(&self) -> Term {
        let holder = self.leases().and_then(|lease| lease.holder.as_ref());
        holder.map_or(self.highest.saturating_add(1), |holder| holder.term)
    }

    /// Whether I may act on a release that names me, now (§11, Transfer). The lease is mine then.
    pub(super) fn inherits(&mut self, index: usize, body: &Body, release: &Release) -> bool {
        let now = self.now;
        if self.leases().is_none() {
            return true;
        }
        if self.foreign_voters() {
            return false;
        }
        let Some((_, session)) = self.voter_at(index) else { return false };
        let Some(sent) = self.peers.get(index).and_then(|peer| peer.lease.echoed) else {
            return false;
        };
        let tag = self.tag;
        let Some(lease) = self.leases_mut() else { return false };
        let set = &lease.voters.in_force;
        let member = set.contains(&tag) && body.lease.voters == Some(set.hash());
        let term = release.term.saturating_add(1);
        if !member || now < lease.voter.abstain_until() || term <= lease.candidate.withdrawn() {
            return false;
        }
        let remaining = Duration::from_millis(u64::from(release.remaining_ms));
        let inherited = Inherited::new(session, release.term, sent, remaining, &lease.timing);
        if now >= inherited.end() - lease.timing.margin {
            return false;
        }
        lease.holder = Some(Holder::new(term, Default::default(), Some(inherited)));
        self.lease_counts.won += 1;
        true
    }

    /// All effects are off: the lease is free, or its rest is the successor's.
    pub(super) fn stop_holding(&mut self) {
        let (now, tag, session, term) = (self.now, self.tag, self.session, self.term);
        let named = self.release.is_some_and(|release| release.successor != [0; 8]);
        let Some(lease) = self.leases_mut() else { return };
        let set = &lease.voters.in_force;
        let end = lease.holder.take().and_then(|holder| holder.transferable_until(set));
        lease.released_end = end.unwrap_or(now).max(now);
        let successor = named && lease.released_end > now;
        lease.handed_on = successor;
        if successor {
            // Until then it may act, although nothing of it is heard.
            lease.candidate.pause(lease.released_end);
        }
        lease.own_asks += 1;
        lease.voter.released(tag, session, lease.own_asks, term, successor);
    }

    /// Whether a successor may still act on the lease that I released to it, heard or not. An obituary would free the
    /// votes of those who missed the release, so there is none meanwhile.
    #[must_use]
    pub fn has_handed_on(&self) -> bool {
        self.leases().is_some_and(|lease| lease.handed_on && self.now < lease.released_end)
    }

    /// What is left of the lease that I released; without leases, how long the successor is preferred.
    pub(super) fn release_remaining(&self, until: Time) -> u32 {
        let end = self.leases().map_or(until, |lease| lease.released_end);
        millis(end.since(self.now))
    }

    /// The fields of leases in a message to this peer (§4).
    pub(super) fn lease_fields(&self, peer: &Peer) -> LeaseFields {
        let Some(lease) = self.lease.as_deref() else { return LeaseFields::default() };
        let set = lease.voters.in_force.hash();
        if lease.voters.waiting {
            return LeaseFields { pending: Some(set), ..LeaseFields::default() };
        }
        let now = self.now;
        let bid = lease.candidate.bid().map(|bid| Ask { term: bid.term, transfer: None });
        let again = lease.holder.as_ref().map(|holder| Ask {
            term: holder.term,
            transfer: holder.inherited.map(|i| (i.session, i.term)),
        });
        let grant = lease.voter.grant(now).map(|g| Grant {
            node: g.node,
            session: g.session,
            term: g.term,
            duration_ms: millis(g.duration),
            ask: g.ask,
        });
        // Rounded up, as 0 means for ever; of one whose time is over nothing is said.
        let refuse = peer.lease.refused.and_then(|(term, until)| {
            let remaining_ms = match until {
                None => 0,
                Some(until) if until > now => millis(until.since(now)).saturating_add(1),
                Some(_) => return None,
            };
            Some(Refuse { term, remaining_ms })
        });
        let withdrawn = lease.candidate.withdrawn();
        LeaseFields {
            ask: bid.or(again),
            grant,
            refuse,
            withdraw: (withdrawn > 0 && now < lease.withdrawal_until).then_some(withdrawn),
            held: lease.holder.as_ref().map(|holder| Held {
                term: holder.term,
                remaining_ms: millis(holder.end(&lease.voters.in_force).since(now)),
            }),
            voters: Some(set),
            pending: lease.voters.pending.as_ref().map(super::voters::VoterSet::hash),
        }
    }

    /// Everything about leases that comes due by time.
    pub(super) fn lease_wakes(&self) -> [Option<Time>; 5] {
        let Some(lease) = self.leases() else { return [None; 5] };
        [
            self.permitted_until(),
            Some(lease.voter.abstain_until()),
            lease.candidate.due(&lease.timing).or(Some(lease.candidate.not_before())),
            lease.voter.grant(self.now).map(|grant| grant.until),
            self.arbiter_wake(),
        ]
    }
}
