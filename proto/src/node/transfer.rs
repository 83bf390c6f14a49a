//! Giving the role up and getting it: handovers, and when to start one (docs/protocol.md §9).
//!
//! ```text
//!   outgoing, at the master:  Asking ──ready──► Flushing ──► Leaving ──Left──► Released ──claim──► done
//!                               │ refused,        │ left                         │ no claim in time
//!                               ▼ no answer, left ▼                              ▼
//!                             called off: still master                       called off: by election
//! ```
//!
//! Until `Leaving` nothing is given up; from then on there is no way back but an election, so that never
//! two gateways act.

use std::time::Duration;

use super::{Incoming, Node};
use crate::api::{Ability, Doubt, Errand, Event, Reason, Role};
use crate::election::{Input, State};
use crate::handover::{Cause, Fitness, Objection, Outgoing, Step};
use crate::peer::Peer;
use crate::wire::body::{Body, Handover, same_config};

/// What must arrive soon is said again after this.
pub(super) const REPEAT: Duration = Duration::from_millis(5);
/// How long the master waits at most until its successor has the last of what it knows: clients
/// are served meanwhile, but whoever asked waits.
const FLUSH: Duration = Duration::from_millis(100);
/// Refused attempts to hand over of my own accord: the first wait, and the longest (§9).
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Node {
    /// Everything about transfers that time or a level brings about.
    pub(super) fn transfer(&mut self) {
        self.watch_outgoing();
        self.repeat_release();
        self.hand_over_if_better();
        self.finish_stop();
    }

    /// Asks a peer to take the role. The id tells its answer from those to earlier requests.
    pub(super) fn ask(&mut self, to: usize, force: bool, cause: Cause) {
        let id = self.next_handover_id;
        self.next_handover_id = id.wrapping_add(1);
        self.outgoing = Some(Outgoing {
            to,
            id,
            errand: 0,
            term: self.term,
            force,
            cause,
            step: Step::Asking,
            deadline: Some(self.now + self.config.handover_timeout),
            repeat_at: self.now + self.request_pause(),
        });
        self.queue(to);
    }

    /// A request that was lost costs a quarter interval, not a whole one (§9).
    fn request_pause(&self) -> Duration {
        (self.config.interval / 4).max(REPEAT)
    }

    /// A handover came to nothing.
    pub(super) fn abort(&mut self, why: &str) {
        if let Some(outgoing) = &self.outgoing {
            let name = self.peer_name(outgoing.to);
            self.abort_to(name, why);
        }
    }

    /// The same, where the successor's index may no longer be valid.
    pub(super) fn abort_to(&mut self, name: String, why: &str) {
        let Some(outgoing) = self.outgoing.take() else { return };
        self.event(Event::Handover { to: name, result: Err(why.to_owned()) });
        let wait = self.backoff.next.max(BACKOFF.0);
        self.backoff.until = self.now + wait;
        self.backoff.next = (wait * 2).min(BACKOFF.1);
        // Nothing was given up while the successor was only being asked.
        if outgoing.cause.leaves_anyway() && outgoing.is_reversible() {
            self.leave_for(outgoing.cause);
        }
    }

    /// Leaves the role to whoever is best.
    pub(super) fn leave_for(&mut self, cause: Cause) {
        let reason = if cause == Cause::Stop { Reason::Stopping } else { Reason::Maintenance };
        self.step(Input::Leave, reason);
    }

    /// Repeats the request, and calls off what takes too long. `Leaving` has no limit here: its effects
    /// must be off before anything is said, however long a script takes.
    fn watch_outgoing(&mut self) {
        let Some(outgoing) = &self.outgoing else { return };
        let (to, step, now) = (outgoing.to, outgoing.step, self.now);
        let expired = outgoing.deadline.is_some_and(|deadline| now >= deadline);
        match step {
            Step::Asking | Step::Flushing if self.state != State::Serving => {
                self.abort("this node left the role");
            }
            Step::Asking if expired => self.abort("no answer in time"),
            Step::Asking if now >= outgoing.repeat_at => {
                let next = now + self.request_pause();
                if let Some(outgoing) = &mut self.outgoing {
                    outgoing.repeat_at = next;
                }
                self.queue(to);
            }
            // What is missing then costs a client some time, a master that waits on costs all of them.
            Step::Flushing if expired => self.commit(),
            Step::Released if expired => self.abort("the successor did not take over in time"),
            Step::Asking | Step::Flushing | Step::Leaving | Step::Released => {}
        }
    }

    /// A step of a handover that a peer says.
    pub(super) fn take_handover(&mut self, index: usize, body: &Body) {
        match body.handover {
            Some(Handover::Request { term, id, force, manual }) => {
                self.answer_request(index, body, (term, id, force, manual));
            }
            Some(Handover::Ready { id }) if self.asks(index, id) => self.flush(),
            Some(Handover::Refuse { id, reason }) if self.asks(index, id) => {
                self.abort(Objection::text_of(reason));
            }
            // To an earlier request, or too late: changes nothing.
            Some(Handover::Ready { .. } | Handover::Refuse { .. }) => {}
            // It asks no longer, so the answer has served (§9).
            None => {
                if let Some(peer) = self.peers.get_mut(index) {
                    peer.reply = None;
                }
            }
        }
    }

    /// Whether this is the answer to the request that is open.
    fn asks(&self, index: usize, id: u32) -> bool {
        self.state == State::Serving
            && self
                .outgoing
                .as_ref()
                .is_some_and(|o| o.to == index && o.id == id && o.step == Step::Asking)
    }

    /// The successor is ready: it is told what it does not know yet, while clients are still served.
    fn flush(&mut self) {
        let errand = self.errand_number();
        let Some(outgoing) = &mut self.outgoing else { return };
        outgoing.step = Step::Flushing;
        outgoing.errand = errand;
        // Within what is left of the time that was given to all of the preparation.
        let latest = self.now + FLUSH;
        outgoing.deadline = Some(outgoing.deadline.map_or(latest, |at| at.min(latest)));
    }

    /// The machine says that the successor has it all.
    pub(super) fn flushed(&mut self, errand: u32) {
        let flushing = |o: &Outgoing| o.step == Step::Flushing && o.errand == errand;
        if self.state == State::Serving && self.outgoing.as_ref().is_some_and(flushing) {
            self.commit();
        }
    }

    fn errand_number(&mut self) -> u32 {
        let number = self.next_errand;
        self.next_errand = number.wrapping_add(1);
        number
    }

    /// What the machine is asked for now, besides the role.
    pub(super) fn errand(&self) -> Option<Errand> {
        if let Some(outgoing) = self.outgoing.as_ref().filter(|o| o.step == Step::Flushing) {
            let to = self.peer_name(outgoing.to);
            return Some(Errand::Flush { id: outgoing.errand, to });
        }
        let expected = |incoming: &Incoming| self.now < incoming.expected_until;
        let incoming = self.incoming.filter(expected)?;
        let from = self.peer_name(incoming.peer);
        let standby = self.state == State::Standby;
        standby.then_some(Errand::Examine { id: incoming.errand, from })
    }

    /// From here on the role is given up. The release follows when the machine
    /// says `Left`, not now: two open gates would be two masters.
    fn commit(&mut self) {
        let Some(outgoing) = &mut self.outgoing else { return };
        outgoing.step = Step::Leaving;
        outgoing.deadline = None;
        let name = self.outgoing.as_ref().map(|o| self.peer_name(o.to)).unwrap_or_default();
        self.step(Input::Leave, Reason::HandoverTo(name));
    }

    /// Says whether I can take over, from what I know of myself now: the master cannot know as much.
    fn answer_request(&mut self, index: usize, body: &Body, request: (u64, u32, bool, bool)) {
        let (term, id, force, manual) = request;
        // Only the master of that term has it to give (§9).
        if body.role != Role::Master || body.term != term {
            return;
        }
        let Some(session) = self.peers.get(index).and_then(|peer| peer.session.as_ref()) else {
            return;
        };
        let session = session.id;
        let same = |i: &Incoming| i.peer == index && i.session == session && i.id == id;
        let known = self.incoming.filter(same);
        let errand = known.map_or_else(|| self.errand_number(), |incoming| incoming.errand);
        self.incoming = Some(Incoming {
            peer: index,
            session,
            manual,
            id,
            force,
            same_wireguard: body.wireguard == self.config.wireguard,
            same_config: same_config(&body.fingerprint, &self.config.fingerprint),
            errand,
            examined: known.and_then(|incoming| incoming.examined),
            expected_until: self.now + self.config.handover_timeout,
        });
        self.reply();
    }

    /// The machine says whether it could take the role at once.
    pub(super) fn examined(&mut self, errand: u32, result: Result<(), Doubt>) {
        let Some(incoming) = self.incoming.as_mut().filter(|i| i.errand == errand) else { return };
        incoming.examined.get_or_insert(result);
        self.reply();
    }

    /// Answers the request, as soon as the answer is known: a refusal for what the node knows itself
    /// at once, anything else when the machine has looked.
    fn reply(&mut self) {
        let Some(incoming) = self.incoming else { return };
        let fitness = Fitness {
            ability_known: self.ability != Ability::Unknown,
            fault: self.state.role() == Role::Fault,
            backup: self.state == State::Standby,
            stopping: self.stopping.is_some(),
            maintenance: self.maintenance,
            healthy: self.health.ok,
            ready: self.is_ready(),
            same_wireguard: incoming.same_wireguard,
            same_config: incoming.same_config,
            doubt: incoming.examined.and_then(Result::err),
        };
        let id = incoming.id;
        let reply = match (fitness.objection(incoming.force), incoming.examined) {
            (Some(objection), _) => Some(Handover::Refuse { id, reason: objection as u8 }),
            (None, Some(_)) => Some(Handover::Ready { id }),
            (None, None) => None,
        };
        if let (Some(Handover::Refuse { .. }), Some(incoming)) = (reply, &mut self.incoming) {
            incoming.expected_until = self.now;
        }
        let Some(peer) = self.peers.get_mut(incoming.peer) else { return };
        peer.reply = reply;
        if reply.is_some() {
            peer.queue();
        }
    }

    /// What stands against a peer as successor, as far as is known here. It decides itself when asked;
    /// this spares the asking, and gives an operator the reason at once.
    pub(super) fn objection_to(&self, index: usize, force: bool) -> Option<&'static str> {
        let Some(peer) = self.peers.get(index) else { return Some("unknown") };
        if peer.config.witness {
            return Some("a witness");
        }
        let Some((said, _)) = peer.said.as_ref().filter(|_| peer.alive) else {
            return Some("not reachable");
        };
        let fitness = Fitness {
            ability_known: true,
            fault: said.role == Role::Fault,
            backup: said.role == Role::Backup,
            stopping: said.flags.leaving,
            maintenance: said.flags.maintenance,
            healthy: said.flags.healthy,
            ready: said.flags.ready,
            same_wireguard: said.wireguard == self.config.wireguard,
            same_config: same_config(&said.fingerprint, &self.config.fingerprint),
            doubt: None,
        };
        fitness.objection(force).map(Objection::text)
    }

    /// The best peer that nothing stands against, in the order of candidates (§7).
    pub(super) fn best_successor(&self, force: bool, fit: impl Fn(usize) -> bool) -> Option<usize> {
        let able =
            (0..self.peers.len()).filter(|i| self.objection_to(*i, force).is_none() && fit(*i));
        able.max_by_key(|index| self.peers.get(*index).and_then(Peer::standing))
    }
}
