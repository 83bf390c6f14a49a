//! What operators ask for.
//!
//! A command is refused for what is known now, with the reason; what turns out later (no answer, a refusal
//! of the successor) comes as an event. The rules are those of docs/protocol.md §9.

use super::{Node, Stopping};
use crate::api::{Command, Event, Reason, Refused};
use crate::election::State;
use crate::handover::Cause;

impl Node {
    /// A node that stops takes no further orders: it already gives up all that it has.
    pub(super) fn command(&mut self, command: Command) -> Result<(), Refused> {
        if self.stopping.is_some() {
            return Err(Refused::Stopping);
        }
        match command {
            Command::Handover { to, force } => self.command_handover(to, force),
            Command::Maintenance { on, force } => self.command_maintenance(on, force),
            Command::Stop => {
                self.command_stop();
                Ok(())
            }
        }
    }

    /// The checks go from what cannot be meant (a witness, an unknown name) to what may pass.
    fn command_handover(&mut self, to: Option<String>, force: bool) -> Result<(), Refused> {
        if self.config.witness {
            return Err(Refused::IAmWitness);
        }
        let to = to.map(|name| self.gateway_named(name)).transpose()?;
        if self.state != State::Serving {
            return Err(Refused::NotMaster);
        }
        if self.outgoing.is_some() {
            return Err(Refused::HandoverUnderWay);
        }
        let to = match to {
            Some(index) => match self.objection_to(index, force) {
                None => index,
                Some(why) => {
                    let name = self.peer_name(index);
                    return Err(Refused::NotASuccessor { name, why: why.to_owned() });
                }
            },
            None => self.best_successor(force, |_| true).ok_or_else(|| self.no_successor(force))?,
        };
        self.ask(to, force, Cause::Command);
        Ok(())
    }

    /// The peer of that name, if it can be master at all.
    fn gateway_named(&self, name: String) -> Result<usize, Refused> {
        if name == self.config.name {
            return Err(Refused::Myself(name));
        }
        match self.peers.iter().position(|peer| peer.config.name == name) {
            None => Err(Refused::UnknownNode(name)),
            Some(i) if self.peers.get(i).is_some_and(|p| p.config.witness) => {
                Err(Refused::Witness(name))
            }
            Some(index) => Ok(index),
        }
    }

    /// The reason for each gateway, so that an operator sees which one to set right.
    fn no_successor(&self, force: bool) -> Refused {
        let gateways = self.peers.iter().enumerate().filter(|(_, peer)| !peer.config.witness);
        let reasons = gateways.filter_map(|(index, peer)| {
            Some(format!("{} is {}", peer.config.name, self.objection_to(index, force)?))
        });
        let text = reasons.collect::<Vec<_>>().join(", ");
        Refused::NoSuccessor(if text.is_empty() { "there is no other".to_owned() } else { text })
    }

    /// A master in maintenance hands over; without a successor only `force` lets it leave the clients
    /// alone. Not a fault, so the node keeps voting and keeps what it knows.
    fn command_maintenance(&mut self, on: bool, force: bool) -> Result<(), Refused> {
        if self.config.witness {
            return Err(Refused::IAmWitness);
        }
        // The same again is no error: scripts repeat themselves.
        if on == self.maintenance {
            return Ok(());
        }
        if on && self.state == State::Serving {
            match self.best_successor(force, |_| true) {
                None if !force => return Err(self.no_successor(force)),
                to => self.give_up(to, force, Cause::Maintenance),
            }
        }
        let leaving_for_it = self.outgoing.as_mut().filter(|outgoing| {
            !on && outgoing.cause == Cause::Maintenance && outgoing.is_reversible()
        });
        if let Some(outgoing) = leaving_for_it {
            // Nothing was given up yet: the master stays.
            outgoing.cause = Cause::Command;
            self.abort("maintenance was switched off");
        }
        self.maintenance = on;
        self.event(Event::Maintenance(on));
        self.queue_all();
        Ok(())
    }

    /// Never refused: the process ends in any case, and a successor that differs is better than none.
    fn command_stop(&mut self) {
        self.stopping = Some(Stopping::UnderWay);
        self.queue_all();
        if self.state == State::Serving {
            let to = self.best_successor(true, |_| true);
            self.give_up(to, true, Cause::Stop);
        }
        // A fault stays the reason: it says more than that someone ended the process.
        if self.state != State::Serving && self.state.role() != crate::api::Role::Fault {
            self.level.reason = Reason::Stopping;
        }
    }

    /// Gives the role up, by a handover if that can be.
    fn give_up(&mut self, to: Option<usize>, force: bool, cause: Cause) {
        match (&mut self.outgoing, to) {
            // One handover at a time: this one now ends as the graver cause demands.
            (Some(outgoing), _) if outgoing.is_reversible() => outgoing.cause = cause,
            (Some(_), _) => {}
            (None, Some(to)) => self.ask(to, force, cause),
            (None, None) => self.leave_for(cause),
        }
    }
}
