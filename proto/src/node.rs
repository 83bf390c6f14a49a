//! The node: what the parts of the protocol make together.

use std::collections::VecDeque;

use zeroize::Zeroizing;

use crate::api::{
    Ability, Command, Event, Evidence, Health, LeaseCounts, NodeConfig, PathIndex, Reason, Refused,
    Report, RoleLevel, Snapshot, Term, VoteRecord,
};
use crate::election::State;
use crate::handover::Outgoing;
use crate::keys::Keyring;
use crate::peer::Peer;
use crate::refusal::{Counts, Refusal};
use crate::time::Time;
use crate::wire::Tag;

use outside::{Outside, Patience};
use parts::{Answer, Backoff, Duplicate, Failure, Incoming, Releasing, Stopping, Vacancy};
use reaction::Reaction;

mod arbiter;
mod candidacy;
mod command;
mod decide;
mod fingerprint;
pub(crate) mod floating;
mod lease;
pub(crate) mod obituary;
mod outside;
mod parts;
mod permit;
mod preempt;
mod reaction;
mod receive;
mod release;
mod send;
mod session;
mod setup;
mod snapshot;
mod take;
mod transfer;
mod view;
mod vote;
mod voters;

pub(crate) use lease::PeerLease;

/// Events that nobody fetched. The oldest go first when there are more.
const EVENTS_LEN: usize = 256;

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// To a peer, on one of its paths.
    Peer {
        /// Index in [`NodeConfig::peers`] of the config in force.
        peer: usize,
        /// Index of the path.
        path: PathIndex,
    },
    /// Back to where the datagram that was just handled came from, from the address it came to.
    Sender,
}

/// One member of a cluster, without its sockets and its clock.
///
/// # Calling contract
///
/// - `handle_*`, [`reconfigure`](Node::reconfigure) and `new` take what happened and when. Give one
///   input, then drain [`poll_transmit`](Node::poll_transmit) and [`poll_event`](Node::poll_event)
///   until they return `None`, then read [`level`](Node::level), [`wants_evidence`](Node::wants_evidence)
///   and [`poll_timeout`](Node::poll_timeout), and call [`handle_timeout`](Node::handle_timeout)
///   when that time has come, whatever else happens.
/// - `level` is valid the moment that `handle_*` returns. Effects follow it, events do not carry it.
/// - Datagrams are made when they are polled, so poll them when they can be sent. What is not
///   drained is merged into the next message; an answer to the [`Destination::Sender`] is lost
///   with the next `handle_*`.
/// - Spurious calls are harmless: `handle_timeout` before its time does nothing but look; a report
///   about another term, or the same again, changes nothing.
/// - A `now` that lies before one already seen is taken for that one.
/// - Every `handle_*` first looks how long ago the last was: longer than the detection time, and the session is
///   over before the input is looked at.
/// - Once everything is drained, [`wants_session`](Node::wants_session) says whether a new session is due;
///   then call [`renew`](Node::renew) at once, and drain again.
///
/// A clone is another future of the same node, for explorers of states; never let both speak to one cluster.
#[derive(Clone)]
pub struct Node {
    config: NodeConfig,
    keys: Keyring,
    cluster_tag: Tag,
    tag: Tag,
    session: [u8; 16],
    /// Whoever shows it ends this session: only its hash is said, and it itself only in [`Node::obituaries`].
    obituary_secret: Zeroizing<[u8; 32]>,
    obituary_hash: [u8; 32],

    now: Time,
    /// When I asked to be called, at the end of the last input.
    expected: Time,
    /// Start, or the last wake from a sleep: nothing heard before it is counted against anyone.
    awake_since: Time,
    /// When I left `init`.
    listened_at: Option<Time>,
    next_heartbeat: Time,
    wall_offset: i64,

    state: State,
    level: RoleLevel,
    since: Time,
    /// The term that I hold or held last.
    term: Term,
    highest: Term,
    /// The highest that somebody won.
    highest_held: Term,
    /// When I became master last.
    won_at: Time,

    peers: Vec<Peer>,
    vacancy: Vacancy,
    /// Since when I could take over, if I could.
    eligible_since: Option<Time>,
    /// When I last became a better candidate: able again, out of maintenance, healthy again.
    improved_at: Option<Time>,
    /// When another candidate last became better than me.
    outdone_at: Option<Time>,
    held_back: Option<&'static str>,

    ability: Ability,
    health: Health,
    /// When my checks began to fail.
    unhealthy_since: Option<Time>,
    outside: Outside,
    maintenance: bool,
    failure: Failure,
    reaction: Reaction,
    duplicate: Duplicate,
    /// Why this session is over: nothing is won, granted or begun in it any more.
    over: Option<Reason>,
    stopping: Option<Stopping>,

    outgoing: Option<Outgoing>,
    next_handover_id: u32,
    /// The peer that asked to hand over to me.
    incoming: Option<Incoming>,
    next_errand: u32,
    /// Preemption would undo an operator's handover from this session of this node.
    no_preempt: Option<(String, [u8; 16])>,
    backoff: Backoff,
    release: Option<Releasing>,
    releases: u32,
    /// The term that I gave up because another master stays, and when.
    yielded: Option<(Term, Time)>,

    /// With `quorum = "majority"`.
    lease: Option<Box<lease::Lease>>,
    /// What is known of votes from before `lease`, and until when they may have been given.
    votes_before: Option<VoteRecord>,
    voted_until: Time,

    /// How many floating IPs are paths.
    floating: PathIndex,
    answer: Option<Answer>,
    events: VecDeque<Event>,
    refusals: Counts,
    lease_counts: LeaseCounts,
}

impl Node {
    /// Takes a datagram, opening it in place. Where it came from does not matter.
    ///
    /// # Errors
    /// Why it was refused; it changed nothing then, except that an unknown session may get an answer, and that an
    /// echo of what was never sent shows that this session is not mine alone, and ends it. With [`Refusal::Flooded`] what is due stays due.
    pub fn handle_datagram(&mut self, now: Time, bytes: &mut [u8]) -> Result<(), Refusal> {
        // Not even the time is looked at for these: that costs as much as opening.
        if self.is_flood(now, bytes) {
            self.refusals.add(Refusal::Flooded);
            return Err(Refusal::Flooded);
        }
        self.begin(now);
        let result = self.receive(bytes);
        if let Err(refusal) = result {
            self.refusals.add(refusal);
            if refusal == Refusal::NeverSent {
                // A copy of this machine sent it, or this one before it was set back (§5). Whatever that one knows
                // and was granted, I may not build on.
                self.end_own_session(Reason::Copied);
            }
        }
        self.finish();
        result
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.begin(now);
        self.finish();
    }

    /// Takes word from the reconciler of the machine.
    pub fn handle_report(&mut self, now: Time, report: Report) {
        self.begin(now);
        match report {
            Report::Entered(_) => {}
            Report::Left(term) => self.left(term),
            Report::Failed(term, why) => self.failed(term, why),
            Report::Examined(errand, result) => self.examined(errand, result),
            Report::Flushed(errand) => self.flushed(errand),
            Report::Ability(ability) => {
                if self.ability != ability {
                    self.ability = ability;
                    self.queue_all();
                }
            }
        }
        self.finish();
    }

    /// Takes the outcome of the health checks.
    pub fn handle_health(&mut self, now: Time, health: Health) {
        self.begin(now);
        if self.health.ok != health.ok {
            self.unhealthy_since = (!health.ok).then_some(self.now);
            if health.ok {
                self.improved_at = Some(self.now);
            }
            self.queue_all();
        }
        self.health = health;
        self.finish();
    }

    /// Takes outside evidence.
    pub fn handle_evidence(&mut self, now: Time, evidence: Evidence) {
        self.begin(now);
        // The source answers again before the first heartbeat of a master can have come: that takes two
        // intervals and a round trip, once the machine has found it among its neighbours.
        let patience = Patience {
            interval: self.config.interval,
            wait: self.config.detection() + self.rank_step(),
            retry: self.config.neighbour_retry,
        };
        let held = self.held_back == Some("isolated");
        let missed_since = self.view().missed_since;
        self.outside.take(self.now, evidence, held, missed_since, patience);
        self.finish();
    }

    /// Obeys an operator, or says why not.
    ///
    /// # Errors
    /// What is known to stand against it now. What turns out later comes as an [`Event::Handover`].
    pub fn handle_command(&mut self, now: Time, command: Command) -> Result<(), Refused> {
        self.begin(now);
        let result = self.command(command);
        self.finish();
        result
    }

    /// Tells the wall clock that stamps handshakes: its nanoseconds since 1970 minus `Time`'s.
    pub fn set_wall_offset(&mut self, nanos: i64) {
        self.wall_offset = nanos;
    }

    /// The next thing that happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `handle_timeout` is wanted at the latest. There always is such a time: the next
    /// heartbeat.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.expected
    }

    /// What effects follow.
    #[must_use]
    pub fn level(&self) -> &RoleLevel {
        &self.level
    }

    /// Whether outside evidence should be looked for: from the first heartbeat on that a master,
    /// or a gateway that may be it, missed.
    #[must_use]
    pub fn wants_evidence(&self) -> bool {
        self.evidence_wanted_at().is_some_and(|at| at <= self.now)
    }

    /// A picture of everything, for status.
    #[must_use]
    pub fn snapshot(&self, now: Time) -> Snapshot {
        self.picture(now.max(self.now))
    }

    /// What comes before every input: time, and what a sleep undoes.
    fn begin(&mut self, now: Time) {
        let now = self.now.max(now);
        let gap = now.since(self.now);
        self.now = now;
        self.answer = None;
        if gap > self.config.detection() {
            self.end_own_session(Reason::Slept(gap));
        } else if self.state != State::Serving && now.since(self.expected) > self.config.interval {
            self.awake_since = now;
        }
        self.check_lease();
    }

    /// What comes after every input.
    fn finish(&mut self) {
        self.decide();
        self.choose_floating();
        self.heartbeat();
        self.expected = self.next_wake();
    }

    fn event(&mut self, event: Event) {
        if self.events.len() >= EVENTS_LEN {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests;
