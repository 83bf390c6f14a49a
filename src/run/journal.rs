//! What follows from events: log lines, the event log, hooks, and what is kept on disk.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};
use wgha_proto::{Event, Reason, Role, Term};

use crate::alarm;
use crate::claims::{Claims, Marker, Mastership};
use crate::clock;
use crate::config::{Config, HookState};
use crate::daemon::Memory;
use crate::events::{self, EventId, EventLog, phase_ms, rfc3339};
use crate::gateway::Phases;
use crate::gateway::kick::Handshakes;
use crate::hooks::{HookContext, HookLevel, HookRunner, LevelDone};
use crate::setup::Setup;
use crate::state::{StateDir, StateWriter};
use crate::status::Changes;

/// Keeps the records of what happened, and runs the hooks.
pub(super) struct Journal {
    pub(super) events: EventLog,
    pub(super) hooks: HookRunner,
    pub(super) claims: Claims,
    /// What must survive a restart.
    kept: StateWriter,
    /// What of it was written, or is about to be.
    memory: Memory,
    /// The last change of role.
    last: Option<Last>,
    /// The term whose effects stand.
    acting: Option<Term>,
    /// What became of the role since the start.
    changes: Changes,
}

struct Last {
    id: EventId,
    level: HookLevel,
    role: Role,
}

impl Journal {
    /// Opens the event log and starts the hook runner, inside a runtime.
    ///
    /// # Errors
    ///
    /// The system has no thread for us.
    pub(super) fn open(state: &Arc<StateDir>, setup: &Setup) -> std::io::Result<Journal> {
        Ok(Journal {
            events: EventLog::open(state.path()),
            hooks: HookRunner::spawn(hook_context(&setup.config), setup.config.hooks.clone()),
            claims: Claims::spawn(
                hook_context(&setup.config),
                setup.config.claims.clone(),
                Marker::beside(&setup.config.control_socket),
            ),
            kept: StateWriter::start(Arc::clone(state))?,
            memory: Memory::default(),
            last: None,
            acting: None,
            changes: Changes::default(),
        })
    }

    /// Takes note of one event. `master` is who is master now.
    pub(super) fn note(&mut self, event: &Event, master: Option<String>) {
        count(&mut self.changes, event);
        match event {
            Event::Role { from, to, term, reason, detect } => {
                let reason_word = reason.word();
                info!("{} -> {}, term {term}: {reason} [{reason_word}]", from.word(), to.word());
                // Before anything that takes time: programs that run for an older role look here.
                self.claims.mark(*term, master.as_deref());
                if *to != Role::Master {
                    self.claims.leave();
                }
                let id = self.events.push(events::Event {
                    at: rfc3339(clock::wall()),
                    from: from.word().to_owned(),
                    to: to.word().to_owned(),
                    term: *term,
                    reason: reason.to_string(),
                    phases_ms: detect_phase(*to, *detect),
                });
                if let Some(state) = hook_state(*to) {
                    let level = HookLevel {
                        state,
                        old_role: *from,
                        term: *term,
                        reason: reason.to_string(),
                        master,
                    };
                    self.last = Some(Last { id, level, role: *to });
                }
                self.run_hooks();
            }
            Event::Peer { name, alive: true } => info!("{name} is heard"),
            Event::Peer { name, alive: false } => warn!("{name} is silent"),
            Event::Alarm { name, alarm, on: true } => warn!("{}", alarm::text(name, *alarm)),
            Event::Alarm { name, alarm, on: false } => info!("{}", alarm::over(name, *alarm)),
            Event::Reassert { term } => {
                warn!("another master yielded; still master, term {term}");
                self.claims.assert_again();
            }
            Event::Handover { to, result: Ok(()) } => info!("handover to {to} done"),
            Event::Handover { to, result: Err(why) } => warn!("no handover to {to}: {why}"),
            Event::Maintenance(on) => info!("maintenance {}", if *on { "on" } else { "off" }),
            Event::Withdrew(term) => info!("no majority for term {term}"),
            // Of the memory, which is a level.
            Event::HighestTerm(_) | Event::Votes(_) => {}
            Event::Renewed(why) => warn!("a new session: {why}"),
            Event::Stopped => info!("stopped"),
        }
    }

    /// Has what changed of this written to disk.
    pub(super) fn keep(&mut self, memory: &Memory) {
        let old = std::mem::replace(&mut self.memory, memory.clone());
        if let Some(term) = memory.highest_term.filter(|_| memory.highest_term != old.highest_term)
        {
            self.kept.highest_term(term);
        }
        if let Some(on) = memory.maintenance.filter(|_| memory.maintenance != old.maintenance) {
            self.kept.maintenance(on);
        }
        if let Some(votes) = memory.votes.clone().filter(|_| memory.votes != old.votes) {
            self.kept.votes(votes);
        }
    }

    /// Leases of this duration may be granted from now on: it is on disk when this returns.
    pub(super) fn longest_lease(&self, lease: Duration) -> anyhow::Result<()> {
        Ok(self.kept.longest_lease(lease)?)
    }

    /// What became of the role, for status.
    pub(super) fn changes(&self) -> Changes {
        Changes { last_takeover: self.events.last_takeover(), ..self.changes.clone() }
    }

    /// The effects of a term stand.
    pub(super) fn entered(&mut self, term: Term, phases: Phases) {
        self.acting = Some(term);
        if let Some(last) = self.last.as_ref().filter(|l| l.level.term == term) {
            self.events.update(last.id, |kept| {
                kept.address = phases.address.map(phase_ms);
                kept.announce = phases.announce.map(phase_ms);
                kept.wireguard = phases.wireguard.map(phase_ms);
            });
        }
        let millis = phases.wireguard.unwrap_or_default().as_millis();
        info!("term {term}: floating IPs and WireGuard are up after {millis} ms");
        self.run_hooks();
    }

    /// How clients come back. With several interfaces: the first of all, and 90 % of each.
    pub(super) fn handshakes(&self, term: Term, handshakes: Handshakes) {
        let Some(last) = self.last.as_ref().filter(|l| l.level.term == term) else { return };
        self.events.update(last.id, |kept| {
            let first = handshakes.first.map(phase_ms);
            let before = kept.first_handshake;
            kept.first_handshake = first.map(|f| before.map_or(f, |b| b.min(f))).or(before);
            let ninety = handshakes.ninety_percent.map(phase_ms);
            let before = kept.handshakes_90_percent;
            kept.handshakes_90_percent = ninety.map(|n| before.map_or(n, |b| b.max(n))).or(before);
        });
    }

    /// An interface was restarted: no change of role, but clients notice.
    pub(super) fn restarted(&mut self, term: Term, reason: String) {
        let word = Role::Master.word().to_owned();
        self.events.push(events::Event {
            at: rfc3339(clock::wall()),
            from: word.clone(),
            to: word,
            term,
            reason,
            phases_ms: events::Phases::default(),
        });
    }

    /// The effects of a term are gone.
    pub(super) fn left(&mut self, term: Term) {
        // The reconciler says so at every new term of others, too.
        if self.acting.take().is_some() {
            info!("term {term}: nothing is left of it");
        }
        self.run_hooks();
    }

    /// All hooks of a level have ended.
    pub(super) fn hooks_done(&self, done: &LevelDone) {
        let level = |l: &&Last| l.level.state == done.state && l.level.term == done.term;
        if let Some(last) = self.last.as_ref().filter(level) {
            self.events.update(last.id, |kept| kept.hooks = Some(phase_ms(done.duration)));
        }
    }

    /// A claim's program has ended. Returns the term if clients can be reached since that could not before.
    pub(super) fn claims_changed(&self) -> Option<Term> {
        let last = self.last.as_ref().filter(|l| l.role == Role::Master)?;
        if let Some(took) = self.claims.took(last.level.term) {
            self.events.update(last.id, |kept| kept.claims = Some(phase_ms(took)));
        }
        self.claims.take_arrived()
    }

    /// Takes up new hooks and claims.
    pub(super) fn reconfigure(&mut self, config: &Config) {
        self.hooks.reconfigure(hook_context(config), config.hooks.clone());
        self.claims.reconfigure(hook_context(config), config.claims.clone());
    }

    /// Gives up the claims that are to be released, runs the `stop` hooks, writes what is pending, and ends.
    pub(super) async fn stop(self, reason: String, term: Term, old_role: Role) {
        let level = HookLevel { state: HookState::Stop, old_role, term, reason, master: None };
        tokio::join!(self.claims.stop(), self.hooks.stop(level));
    }

    /// Hooks come after the effects: `master` once they stand, the others once they
    /// are gone.
    fn run_hooks(&self) {
        let Some(last) = &self.last else { return };
        let in_effect = match last.role {
            Role::Master => self.acting == Some(last.level.term),
            Role::Init | Role::Backup | Role::Fault => self.acting.is_none(),
        };
        if !in_effect {
            return;
        }
        self.hooks.set(last.level.clone());
        if last.role == Role::Master {
            let HookLevel { term, reason, .. } = last.level.clone();
            self.claims.assert(Mastership { term, reason });
        }
    }
}

fn count(changes: &mut Changes, event: &Event) {
    match event {
        Event::Role { to, reason, .. } => {
            *changes.roles.entry(to.word().to_owned()).or_default() += 1;
            match (to, reason) {
                (Role::Master, Reason::HandoverFrom(_)) => changes.handovers_taken += 1,
                (Role::Master, _) => changes.takeovers += 1,
                _ => {}
            }
        }
        Event::Handover { result: Ok(()), .. } => changes.handovers_given += 1,
        Event::Handover { result: Err(_), .. } => changes.handovers_failed += 1,
        _ => {}
    }
}

fn detect_phase(to: Role, detect: Duration) -> events::Phases {
    let detect = (to == Role::Master && !detect.is_zero()).then(|| phase_ms(detect));
    events::Phases { detect, ..events::Phases::default() }
}

fn hook_state(role: Role) -> Option<HookState> {
    match role {
        Role::Init => None,
        Role::Backup => Some(HookState::Backup),
        Role::Master => Some(HookState::Master),
        Role::Fault => Some(HookState::Fault),
    }
}

pub(crate) fn hook_context(config: &Config) -> HookContext {
    HookContext {
        cluster: config.cluster.name.clone(),
        node: config.node().name.clone(),
        priority: config.node().priority,
        floating_ips: config.floating_ips.iter().map(|f| f.address.addr().to_string()).collect(),
        interfaces: config.wireguard.iter().map(|w| w.interface.clone()).collect(),
    }
}
