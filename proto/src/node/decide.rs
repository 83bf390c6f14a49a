//! What follows from all that is known now. Runs after every input, and looks at levels, so nothing is
//! missed by coming in another order.
//!
//! Sections are those of docs/protocol.md; the table of states and inputs is in `election.rs`.

use std::time::Duration;

use super::{Node, Stopping};
use crate::api::{Ability, Event, Reason, Role};
use crate::election::{Input, State, Verdict};

/// The first hold-off after being master failed, and the longest.
const HOLD_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Node {
    /// From what time ended, over what this node can do, to whether it should be master.
    pub(super) fn decide(&mut self) {
        // After the goodbye nothing happens any more: the session is over for everyone (§9).
        if self.stopping == Some(Stopping::Done) {
            return;
        }
        self.expire();
        self.judge_ability();
        self.listen();
        self.transfer();
        self.adopt_voters();
        self.elect();
        self.candidacy();
        self.judge_arbiter();
        self.keep_votes();
        self.refresh_level();
    }

    /// Moves the state; a change of role is an event and is told at once.
    pub(super) fn step(&mut self, input: Input, reason: Reason) {
        let (before, old_role) = (self.state, self.level.role);
        self.state = before.after(input);
        if self.state == before {
            return;
        }
        // Not with the next heartbeat: whoever waits for this saves up to an interval.
        self.queue_all();
        if before.claims() && !self.state.claims() {
            self.stop_holding();
        }
        if self.state.is_leaving() && !before.is_leaving() {
            self.reaction.begins(self.now);
        }
        if self.state == State::Standby {
            self.listened_at.get_or_insert(self.now);
        }
        if self.state == State::Serving {
            self.abort("the successor did not take over");
            // A term is won as the highest known + 1 (§7).
            self.term = self.won_term();
            self.note_term(self.term);
            self.note_held(self.term);
            self.won_at = self.now;
            // What I gave up before is history: a release said on would free the role that I hold.
            self.yielded = None;
            self.release = None;
        }
        let role = self.state.role();
        // To the machine, leaving is backup already, so that effects go off; that others hear of a
        // master until they are off is the message's affair (§6).
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

    /// How long ago the trouble began that a change of role answers: the first part of every failover,
    /// shown in events.
    pub(super) fn detect_time(&self, reason: &Reason) -> Duration {
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

    /// Term and master of the level; the role itself changes in `step` alone. The master is me only
    /// while I serve: once I leave, effects go off, and the next claim is another's.
    pub(super) fn refresh_level(&mut self) {
        let serving = self.state == State::Serving;
        self.level.term = if serving { self.term } else { self.known_term() };
        self.level.master = if serving {
            Some(self.config.name.clone())
        } else {
            let best = self.best_claim().and_then(|(index, _)| self.peers.get(index));
            // Who takes nothing over (a witness, a node in maintenance) keeps the claim of a dead
            // master, but must not go on naming it.
            best.filter(|peer| peer.alive).map(|peer| peer.config.name.clone())
        };
        self.level.errand = self.errand();
    }

    /// What time alone ends.
    fn expire(&mut self) {
        let (now, detection) = (self.now, self.config.detection());
        // Alive is: timely less than my D ago (§5).
        for index in 0..self.peers.len() {
            let silent = self.peers.get(index).is_some_and(|peer| {
                peer.alive && peer.last_timely.is_none_or(|at| now.since(at) >= detection)
            });
            if silent {
                self.note_alive(index, false);
            }
        }
        // The namesake is gone, or was an earlier run of mine (§5).
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

    /// Fault, or not. A witness has nothing that could fail: it only votes.
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
        // A late word about an older term says nothing about this one.
        if !self.state.claims() || term != self.term {
            return;
        }
        // 1 s, doubling to 60 s (§6): a gateway that fails as master each time must not take the role
        // back and forth at the pace of its failures.
        let hold = self.failure.next.max(HOLD_OFF.0);
        self.failure.next = (hold * 2).min(HOLD_OFF.1);
        self.failure.hold = Some((self.now + hold, why));
    }

    /// Whoever starts, or was cut off, listens first (§6): a takeover on nothing but its own ignorance
    /// would make two masters of every restart.
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

    /// Whether to take over (§7). The rules are a pure function of the view, in `election.rs`; here is
    /// only what changes by its verdict.
    fn elect(&mut self) {
        let eligible = self.obstacle().is_none();
        if !eligible {
            self.eligible_since = None;
            self.held_back = self.obstacle();
            return;
        }
        if self.eligible_since.is_none() {
            // The wait by rank begins when I became able to win, not when the role became free.
            self.eligible_since = Some(self.now);
            // After init `settled` says that I am new; this is for those who came back.
            if self.listened_at.is_some_and(|at| at < self.now) {
                self.improved_at = Some(self.now);
            }
        }
        match self.view().verdict() {
            Verdict::Wait(_) => self.held_back = None,
            Verdict::Held(why) => self.held_back = Some(why),
            Verdict::Act { silence } => {
                self.held_back = None;
                let reason = match self.best_claim().filter(|_| silence) {
                    Some((index, _)) => Reason::MasterSilent(self.peer_name(index)),
                    None => self.vacancy.reason.clone(),
                };
                self.win(reason);
            }
        }
    }

    /// What keeps me from being a candidate at all (§7), in the word that status shows.
    pub(super) fn obstacle(&self) -> Option<&'static str> {
        if self.config.witness {
            return Some("witness");
        }
        if self.stopping.is_some() {
            return Some("stopping");
        }
        if self.over.is_some() {
            return Some("session-over");
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

    /// For events and reasons. Indexes are of the config in force; an empty name shows a mistake here
    /// without ending the process.
    pub(super) fn peer_name(&self, index: usize) -> String {
        self.peers.get(index).map(|peer| peer.config.name.clone()).unwrap_or_default()
    }
}
