//! What follows from all that is known now. Runs after every input, and looks at levels, so nothing is
//! missed by coming in another order.

use std::cmp::Reverse;
use std::time::Duration;

use super::{Node, Stopping};
use crate::api::{Ability, Event, Reason, Role};
use crate::election::{Incumbent, Input, Standing, State, Verdict, View};
use crate::peer::Claim;
use crate::time::Time;
use crate::wire::Tag;

/// The first hold-off after being master failed, and the longest.
const HOLD_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Node {
    pub(super) fn decide(&mut self) {
        if self.stopping == Some(Stopping::Done) {
            return;
        }
        self.expire();
        self.judge_ability();
        self.listen();
        self.transfer();
        self.elect();
        self.refresh_level();
    }

    /// Moves the state; a change of role is an event and is told at once.
    pub(super) fn step(&mut self, input: Input, reason: Reason) {
        let (before, old_role) = (self.state, self.level.role);
        self.state = before.after(input);
        if self.state == before {
            return;
        }
        self.queue_all();
        if self.state == State::Standby {
            self.listened_at.get_or_insert(self.now);
        }
        if self.state == State::Serving {
            self.abort("the successor did not take over");
            self.term = self.highest.saturating_add(1);
            self.note_term(self.term);
            self.won_at = self.now;
            self.yielded = None;
            self.release = None;
        }
        let role = self.state.role();
        if role == old_role {
            return;
        }
        let detect = self.detect_time(&reason);
        self.since = self.now;
        self.level.role = role;
        self.level.reason = reason.clone();
        self.refresh_level();
        let term = self.level.term;
        self.event(Event::Role { from: old_role, to: role, term, reason, detect });
    }

    /// How long ago the trouble began that a change of role answers.
    fn detect_time(&self, reason: &Reason) -> Duration {
        match reason {
            Reason::MasterSilent(_) => {
                self.best_claim().map_or(Duration::ZERO, |(_, claim)| self.now.since(claim.last))
            }
            Reason::MasterReleased(_)
            | Reason::MasterRestarted(_)
            | Reason::MasterObituary(_)
            | Reason::NoMaster => self.now.since(self.vacancy.since),
            Reason::Slept(gap) => *gap,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn refresh_level(&mut self) {
        let serving = self.state == State::Serving;
        self.level.term = if serving { self.term } else { self.highest };
        self.level.master = if serving {
            Some(self.config.name.clone())
        } else {
            let best = self.best_claim().and_then(|(index, _)| self.peers.get(index));
            best.map(|peer| peer.config.name.clone())
        };
    }

    /// What time alone ends.
    fn expire(&mut self) {
        let (now, detection) = (self.now, self.config.detection());
        for index in 0..self.peers.len() {
            let silent = self.peers.get(index).is_some_and(|peer| {
                peer.alive && peer.last_timely.is_none_or(|at| now.since(at) >= detection)
            });
            if silent {
                self.note_alive(index, false);
            }
        }
        if self.duplicate.first.is_some() && now.since(self.duplicate.last) >= detection {
            self.duplicate = super::Duplicate::default();
        }
        if self.failure.hold.as_ref().is_some_and(|(until, _)| now >= *until) {
            self.failure.hold = None;
        }
        // A term that lasted as long as the longest hold-off was no failure.
        if self.state == State::Serving && now.since(self.won_at) >= HOLD_OFF.1 {
            self.failure.next = Duration::ZERO;
        }
        // Said for a while, a yield has reached everyone who can be reached.
        if self.yielded.is_some_and(|(_, at)| now.since(at) >= detection * 4) {
            self.yielded = None;
        }
    }

    /// Fault, or not.
    fn judge_ability(&mut self) {
        let unable = if self.config.witness {
            None
        } else if self.duplicate.fault {
            Some(Reason::DuplicateName)
        } else if let Ability::Unable(why) = &self.ability {
            Some(Reason::Fault(why.clone()))
        } else {
            self.failure.hold.as_ref().map(|(_, why)| Reason::Fault(why.clone()))
        };
        match unable {
            // The same fault in other words is not another change of role.
            Some(reason) if self.level.role == Role::Fault => self.level.reason = reason,
            Some(reason) => self.step(Input::Unable, reason),
            None => self.step(Input::Able, Reason::Recovered),
        }
    }

    /// Being master failed: fault at once, and for a while even if all seems well again.
    pub(super) fn failed(&mut self, term: u64, why: String) {
        if !self.state.claims() || term != self.term {
            return;
        }
        let hold = self.failure.next.max(HOLD_OFF.0);
        self.failure.next = (hold * 2).min(HOLD_OFF.1);
        self.failure.hold = Some((self.now + hold, why));
    }

    /// Design §5.1.
    fn listen(&mut self) {
        if self.state != State::Init {
            return;
        }
        let long_enough = self.now >= self.awake_since + self.config.detection();
        let known = self.config.witness || self.ability != Ability::Unknown;
        if known && (long_enough || self.all_heard()) {
            self.step(Input::Listened, Reason::Listened);
        }
    }

    /// Whether my start, or my last wake from a sleep, is long enough ago for me to know the cluster.
    pub(super) fn is_settled(&self) -> bool {
        let since = self.listened_at.map(|at| at.max(self.awake_since));
        since.is_some_and(|since| self.now >= since + self.config.detection())
    }

    /// Every gateway is heard now, timely, and since I woke.
    fn all_heard(&self) -> bool {
        let mut gateways = self.peers.iter().filter(|peer| !peer.config.witness);
        gateways.all(|peer| peer.alive && peer.last_timely.is_some_and(|at| at > self.awake_since))
    }

    /// Design §5.2 and §5.3.
    fn elect(&mut self) {
        let eligible = self.obstacle().is_none();
        if !eligible {
            self.eligible_since = None;
            self.held_back = self.obstacle();
            return;
        }
        self.eligible_since.get_or_insert(self.now);
        match self.view().verdict() {
            Verdict::Wait(_) => self.held_back = None,
            Verdict::Held(why) => self.held_back = Some(why),
            Verdict::Act { silence } => {
                self.held_back = None;
                let reason = match self.best_claim().filter(|_| silence) {
                    Some((index, _)) => Reason::MasterSilent(self.peer_name(index)),
                    None => self.vacancy.reason.clone(),
                };
                self.step(Input::Won, reason);
            }
        }
    }

    /// What keeps me from being a candidate at all.
    pub(super) fn obstacle(&self) -> Option<&'static str> {
        if self.config.witness {
            return Some("witness");
        }
        if self.stopping.is_some() {
            return Some("stopping");
        }
        match self.state {
            State::Init => Some("listening"),
            State::Serving => Some("master"),
            State::Leaving | State::LeavingForFault => Some("leaving"),
            State::Faulty => Some("fault"),
            State::Standby if self.duplicate.first.is_some() => Some("duplicate-name"),
            State::Standby if self.maintenance => Some("maintenance"),
            State::Standby if self.ability == Ability::Unknown => Some("unknown-ability"),
            State::Standby => None,
        }
    }

    pub(super) fn peer_name(&self, index: usize) -> String {
        self.peers.get(index).map(|peer| peer.config.name.clone()).unwrap_or_default()
    }

    /// The claim with the highest (term, priority, name).
    pub(super) fn best_claim(&self) -> Option<(usize, Claim)> {
        let claims = self.peers.iter().enumerate().filter_map(|(index, peer)| {
            let priority = peer.said.as_ref().map_or(0, |(said, _)| said.priority);
            peer.claim.map(|claim| ((claim.term, priority, &peer.config.name), index, claim))
        });
        let best = claims.max_by(|a, b| a.0.cmp(&b.0));
        best.map(|(_, index, claim)| (index, claim))
    }

    fn view(&self) -> View {
        let incumbent = self.incumbent();
        let eligible_since = self.eligible_since.unwrap_or(self.now);
        let detection = self.config.detection();
        let unheard = self.peers.iter().filter(|p| !p.config.witness && !p.alive);
        let last = unheard.filter_map(|p| p.last_timely).max().unwrap_or(Time::ZERO);
        let last = last.max(self.awake_since);
        View {
            now: self.now,
            incumbent,
            vacant_since: self.vacancy.since.max(eligible_since).max(self.awake_since),
            reserved_until: self.vacancy.reserved_until,
            all_heard: self.all_heard(),
            silent_at: last + detection,
            rank: self.rank(),
            step: self.rank_step(),
            evidence: self.evidence,
            missed_since: incumbent.map_or(last, |master| master.last + master.interval),
            heard_until: self.heard_until(|_| true),
            namesake_until: self.heard_until(|node| *node == self.tag),
        }
    }

    /// Of all claims the one that lasts longest.
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

    /// How many better candidates are alive.
    fn rank(&self) -> u32 {
        let mine = Standing {
            settled: self.is_settled(),
            healthy: self.health.ok,
            priority: self.config.priority,
            name: Reverse(self.config.name.clone()),
        };
        let better = self.peers.iter().filter(|peer| {
            peer.claim.is_none() && peer.is_candidate() && peer.standing().is_some_and(|s| s > mine)
        });
        u32::try_from(better.count()).unwrap_or(u32::MAX)
    }

    fn rank_step(&self) -> Duration {
        let rtt = self.peers.iter().filter_map(|peer| peer.rtt).max().unwrap_or_default();
        (self.config.interval / 4).max(rtt * 3 / 2)
    }

    /// Until when to believe timely nodes that say that they hear a master, of a term no older than
    /// the claim that I know.
    fn heard_until(&self, which: impl Fn(&Tag) -> bool) -> Time {
        let term = self.best_claim().map_or(0, |(_, claim)| claim.term);
        let others = self.peers.iter().filter(|peer| peer.alive && peer.claim.is_none());
        let until = others.filter_map(|peer| {
            let (said, at) = peer.said.as_ref()?;
            let hears = said.hears.filter(|h| h.term >= term && which(&h.node))?;
            let age = Duration::from_millis(u64::from(hears.age_ms));
            Some(*at + self.config.detection() - age)
        });
        until.max().unwrap_or(Time::ZERO)
    }

    /// When outside evidence begins to matter, if nothing is heard until then.
    pub(super) fn evidence_wanted_at(&self) -> Option<Time> {
        // Half an interval of patience, so that jitter does not set off probes.
        let patience = self.config.interval * 3 / 2;
        let missing = self.peers.iter().filter(|peer| !peer.config.witness);
        let gateways = missing.map(|p| p.last_timely.unwrap_or(Time::ZERO).max(self.awake_since) + patience);
        match self.state {
            _ if self.config.witness => None,
            State::Serving => gateways.min(),
            State::Init | State::Standby | State::Leaving | State::LeavingForFault | State::Faulty => {
                match self.incumbent() {
                    Some(master) => Some(master.last + master.interval * 3 / 2),
                    None => gateways.min(),
                }
            }
        }
    }

    /// The next instant at which something is due.
    pub(super) fn next_wake(&self) -> Time {
        let mut next = self.next_heartbeat;
        if self.stopping == Some(Stopping::Done) {
            return next;
        }
        let detection = self.config.detection();
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
        at(self.failure.hold.as_ref().map(|(until, _)| *until));
        at(self.duplicate.first.map(|_| self.duplicate.last + detection));
        at(self.release.map(|release| release.repeat_at));
        at(self.release.map(|release| release.until));
        if let Some(outgoing) = &self.outgoing {
            at(outgoing.deadline);
            at(Some(outgoing.repeat_at));
        }
        next
    }
}
