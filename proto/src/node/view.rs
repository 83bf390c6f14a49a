//! What a node sees of its cluster when it decides, and when it must look again.
//!
//! Sections are those of docs/protocol.md. All of this is computed anew from the peers each time; nothing
//! is kept that could go out of step. Whatever makes a decision due must be in `next_wake` too: what
//! is missing there happens an interval late.

use std::cmp::Reverse;
use std::time::Duration;

use super::receive::micros_of;
use super::{Node, Stopping};
use crate::election::{Incumbent, Standing, State, Verdict, View};
use crate::peer::{Claim, Peer};
use crate::time::Time;
use crate::wire::body::Hears;

impl Node {
    /// All that a verdict needs (§7). Times before my last wake are taken for it: what I did not hear
    /// while I slept counts against nobody (§6, Sleep).
    pub(super) fn view(&self) -> View {
        let incumbent = self.incumbent();
        let eligible_since = self.eligible_since.unwrap_or(self.now);
        let vacant_since = self.vacancy.since.max(eligible_since).max(self.awake_since);
        let stirred_at = self.stirred_at(vacant_since).filter(|_| incumbent.is_none());
        let detection = self.config.detection();
        let unheard = self.peers.iter().filter(|peer| self.may_hide_a_master(peer));
        let last = unheard.filter_map(|p| p.last_timely).max().unwrap_or(Time::ZERO);
        let last = last.max(self.awake_since);
        View {
            now: self.now,
            incumbent,
            vacant_since: stirred_at.map_or(vacant_since, |at| at.max(vacant_since)),
            reserved_until: self.vacancy.reserved_until,
            all_heard: self.all_heard(),
            silent_at: last + detection,
            rank: self.rank() + u32::from(stirred_at.is_some()),
            step: self.rank_step(),
            evidence: self.outside.evidence,
            missed_since: incumbent.map_or(last, |master| master.last + master.interval),
            isolated_until: self.outside.isolated_until,
            heard_until: self.heard_until(|_| true),
            // What I held myself and released is no riddle.
            namesake_until: self.heard_until(|h| h.node == self.tag && h.term > self.term),
        }
    }

    /// Of all claims the one that lasts longest (§7, case 1). The claimer's detection time counts if it
    /// is longer than mine: its heartbeats come at its pace.
    fn incumbent(&self) -> Option<Incumbent> {
        let mine = self.config.detection();
        let claims = self.peers.iter().filter_map(|peer| peer.claim);
        let incumbents = claims.map(|claim| Incumbent {
            last: claim.last.max(self.awake_since),
            detection: claim.detection.max(mine),
            interval: claim.interval,
        });
        incumbents.max_by_key(|master| master.last + master.detection)
    }

    /// How many better candidates are alive (§7). By what they announce, never by my own file: the
    /// files of two nodes may differ while one of them is changed. To one who just came back, who is not
    /// a candidate may have come back too: word of it takes its time.
    pub(super) fn rank(&self) -> u32 {
        let fresh = self.improved_at.is_some_and(|at| at > self.vacancy.since);
        let mine = self.standing();
        let better = self.peers.iter().filter(|peer| {
            let stands = peer.is_candidate() || fresh && peer.may_come_back();
            stands && peer.claim.is_none() && peer.standing().is_some_and(|s| s > mine)
        });
        u32::try_from(better.count()).unwrap_or(u32::MAX)
    }

    fn standing(&self) -> Standing {
        Standing {
            settled: self.is_settled(),
            healthy: self.health.ok,
            priority: self.config.priority,
            name: Reverse(self.config.name.clone()),
        }
    }

    /// Whether a peer is a better candidate than me.
    pub(super) fn outdoes(&self, index: usize) -> bool {
        self.peers.get(index).is_some_and(|peer| {
            peer.claim.is_none()
                && peer.is_candidate()
                && peer.standing().is_some_and(|s| s > self.standing())
        })
    }

    /// When the order of the candidates last changed while there was no master. Then one rank step more
    /// passes before anyone acts on it: a claim that was made by the old order is heard first.
    fn stirred_at(&self, vacant_since: Time) -> Option<Time> {
        let improved = self.improved_at.filter(|at| *at > self.vacancy.since);
        // One that comes and goes must not keep me waiting for ever.
        let most = vacant_since.max(self.vacancy.reserved_until) + self.config.detection();
        let outdone = self.outdone_at.filter(|at| *at > self.vacancy.since && *at < most);
        improved.max(outdone)
    }

    /// How much later each rank acts (§7, step): time for a better one's claim to arrive.
    pub(super) fn rank_step(&self) -> Duration {
        let rtt = self.peers.iter().filter_map(|peer| peer.rtt).max().unwrap_or_default();
        (self.config.interval / 4).max(rtt * 3 / 2)
    }

    /// Until when (§7, `hears`) to believe timely nodes that say that they hear a master, of a term no older than
    /// every claim that I know: of several masters, the one of the older term may be the one that lives.
    pub(super) fn heard_until(&self, which: impl Fn(&Hears) -> bool) -> Time {
        let claims = self.peers.iter().filter_map(|peer| peer.claim);
        let term = claims.map(|claim| claim.term).min().unwrap_or(0);
        // Whoever claims the role itself says nothing about another master.
        let others = self.peers.iter().filter(|peer| peer.alive && peer.claim.is_none());
        let until = others.filter_map(|peer| {
            let (said, at) = peer.said.as_ref()?;
            let hears = said.hears.filter(|h| h.term >= term && which(h))?;
            // Its word ages from when the claim came to it, not from when it passed it on.
            let age = Duration::from_millis(u64::from(hears.age_ms));
            let until = *at + self.config.detection() - age;
            // With two misses the next word may come a moment after that.
            let interval = micros_of(said.interval_us);
            let fresh = age <= interval * 5 / 4;
            Some(if fresh { until.max(*at + interval * 5 / 4) } else { until })
        });
        until.max().unwrap_or(Time::ZERO)
    }

    /// When outside evidence begins to matter, if nothing is heard until then. An answer must be newer
    /// than the first heartbeat missed (§7), so asking earlier would be of no use; asking later would
    /// hold up the takeover. A master asks too: evidence decides between two masters (§8).
    pub(super) fn evidence_wanted_at(&self) -> Option<Time> {
        // Half an interval of patience, so that jitter does not set off probes.
        let patience = self.config.interval * 3 / 2;
        let missing = self.peers.iter().filter(|peer| !peer.config.witness);
        let gateways =
            missing.map(|p| p.last_timely.unwrap_or(Time::ZERO).max(self.awake_since) + patience);
        match self.state {
            _ if self.config.witness => None,
            State::Serving => gateways.min(),
            State::Init
            | State::Standby
            | State::Leaving
            | State::LeavingForFault
            | State::Faulty => match self.incumbent() {
                Some(master) => Some(master.last + master.interval * 3 / 2),
                None => gateways.min(),
            },
        }
    }

    /// The next instant at which something is due.
    pub(super) fn next_wake(&self) -> Time {
        let mut next = self.next_heartbeat;
        // Only to keep the promise that there is a next time.
        if self.stopping == Some(Stopping::Done) {
            return next;
        }
        let detection = self.config.detection();
        // What is due already was looked at by `decide`; it must not make the caller spin.
        let mut at = |due: Option<Time>| {
            if let Some(due) = due.filter(|due| *due > self.now) {
                next = next.min(due);
            }
        };
        if self.state == State::Init {
            at(Some(self.awake_since + detection));
        }
        if self.obstacle().is_none() {
            let view = self.view();
            match view.verdict() {
                Verdict::Wait(due) => at(Some(due)),
                Verdict::Held(_) => {
                    at(Some(view.isolated_until));
                    at(Some(view.heard_until));
                    at(Some(view.namesake_until));
                }
                Verdict::Act { .. } => {}
            }
        }
        for peer in self.peers.iter().filter(|peer| peer.alive) {
            at(peer.last_timely.map(|last| last + detection));
        }
        at(self.evidence_wanted_at());
        self.lease_wakes().into_iter().for_each(&mut at);
        at(self.failure.hold.as_ref().map(|(until, _)| *until));
        at(self.duplicate.first.map(|_| self.duplicate.last + detection));
        at(self.release.map(|release| release.repeat_at));
        at(self.release.map(|release| release.until));
        if let Some(outgoing) = &self.outgoing {
            at(outgoing.deadline);
            at(Some(outgoing.repeat_at));
        }
        at(self.incoming.map(|incoming| incoming.expected_until));
        next
    }

    /// Every gateway is accounted for (§7, case 2): none can be master unheard.
    pub(super) fn all_heard(&self) -> bool {
        !self.peers.iter().any(|peer| self.may_hide_a_master(peer))
    }

    /// A gateway that is not heard, timely and since I woke. One whose session ended a moment ago,
    /// by its goodbye or obituary, is no riddle: it may only become one again by starting anew, and then it
    /// listens for the detection time.
    fn may_hide_a_master(&self, peer: &Peer) -> bool {
        let heard = peer.alive && peer.last_timely.is_some_and(|at| at > self.awake_since);
        let grace = self.config.detection();
        let gone = peer.gone_at.is_some_and(|at| self.now.since(at) < grace);
        !peer.config.witness && !heard && !gone
    }

    /// Whether my start, or my last wake from a sleep, is long enough ago for me to know the cluster:
    /// the first thing that candidates are compared by (§7), said in the flags (§4).
    pub(super) fn is_settled(&self) -> bool {
        let since = self.listened_at.map(|at| at.max(self.awake_since));
        since.is_some_and(|since| self.now >= since + self.config.detection())
    }

    /// The claim of a peer that is alive before one that is not, then with the highest (term, priority,
    /// name): of two masters the one that will stay (§8), as far as that can be seen from outside.
    pub(super) fn best_claim(&self) -> Option<(usize, Claim)> {
        let claims = self.peers.iter().enumerate().filter_map(|(index, peer)| {
            let priority = peer.said.as_ref().map_or(0, |(said, _)| said.priority);
            let order = |term| (peer.alive, term, priority, &peer.config.name);
            peer.claim.map(|claim| (order(claim.term), index, claim))
        });
        let best = claims.max_by(|a, b| a.0.cmp(&b.0));
        best.map(|(_, index, claim)| (index, claim))
    }
}
