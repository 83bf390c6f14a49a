//! The invariants, checked against what the world knows and no node does.
//!
//! # Words
//!
//! D is the detection time, I the interval. A datagram is *timely* if the sender had read, before it sent
//! it, something that this run of the receiver sent less than D before: the world tells that from what it
//! delivered, not from what the datagram says. Clock rates (±1 %), wake-up latency (I/50) and reloads that
//! stretch the interval (by a fifth) leave a grey zone; each invariant takes the side of it that makes it hold.
//! x *hears* y since s: since s no gap between surely timely datagrams from y was longer than 0.9 D.
//! *Acting* means that effects stand: from the first moment of entering to the last of leaving.
//!
//! # Invariants and the condition of each
//!
//! - `TwoActing`: two gateways whose processes and reconcilers have run, and that hear each other, for 2 D and
//!   the time that leaving takes, do not act both. It has no exception for commands, failures to enter, handovers
//!   or reloads; only failures to *leave* void it, since nothing can take effects off then. Where the last datagram
//!   between them was lost or straggles, or among three or more gateways (until there are leases), two may take
//!   over at once; then one yields within an interval, a rank wait and a round trip.
//! - `NoneActing`: a gateway that could serve, with evidence where there is a source, does not stay without hearing
//!   a claim, or of one, for longer than D + rank wait + I + round trip. So a silent master is replaced within
//!   that time, also by the only gateway left; and connected, eligible gateways have a master. And who was
//!   told to be master serves after the time that entering takes.
//! - `Unjustified`: every change of role has a reason that fits what the world knows: see [`crate::reasons`].
//!   That an incumbent is not displaced by a newcomer, an isolated or a deaf node follows: no takeover while the last
//!   word of any node is a timely claim, or without evidence; no yielding but to a timely claim that ranks higher.
//!   A claim is void once another process of its name was heard, timely. A second process of a name does not take
//!   over while it hears a node that has heard its namesake for longer than the rank wait: before, that node cannot
//!   tell it.
//! - `LeftFirst`: who takes over by release or handover finds the old master's effects off: always, but for effects
//!   of a later term that the old master won by a new election and of which the successor had no surely
//!   timely claim. Then the two do not hear each other both ways, and a partition can give two.
//! - `Obituary`: who takes over by an obituary finds that run of the process dead, and its effects off. So none is
//!   shown by a living process; that none ends another session follows from `Accepted`. Always.
//! - `OneGate`, with leases: at every instant the gate of at most one machine is open. Always: no pardon for anything.
//! - `Term`: a node's term never sinks while it runs; who takes over has a term above every term that a
//!   timely datagram brought it, and above what its disk knew.
//! - `Chain`: the role events of a process form a chain that ends at its level.
//! - `Unmoved`: replays, forgeries, reflections, damage: refused, and the snapshot is the same apart from the
//!   counters of refusals. Always.
//! - `Accepted`: a first, surely timely datagram from an established session is taken. Always.
//! - `Cadence`, `Storm`, `Form`, `Busy`: a process that runs sends to every peer on every path in 1.25 I; never more
//!   than a bound; well-formed; its timer moves on. Always.
//! - `Answer`: an accepted handover has an outcome in time; a stop ends.
//! - `Liveness`: see `main.rs`.
//! - `Contest`, with leases: of two that ask, one makes way at once; see [`crate::contest`].

use std::collections::BTreeMap;
use std::sync::OnceLock;

use wgha_proto::{Command, Event, Refusal, Report, Role, Term};

use crate::contest;
use crate::host::{Host, Origin};
use crate::leases;
use crate::network::Datagram;
use crate::options::{Nanos, Options};
use crate::reasons;
use crate::stats::Situation;
use crate::world::{World, host_name};

/// An invariant; see the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    TwoActing,
    NoneActing,
    Unjustified,
    LeftFirst,
    Obituary,
    OneGate,
    Term,
    Chain,
    Unmoved,
    Accepted,
    Cadence,
    Storm,
    Form,
    Busy,
    Answer,
    Liveness,
    Contest,
}

#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) at: Nanos,
    pub(crate) what: String,
}

/// What x has from y, in x's present run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    /// The last surely timely datagram, and since when there was no gap.
    pub(crate) timely_at: Nanos,
    pub(crate) timely_since: Nanos,
    /// The last surely timely datagram before the last gap.
    pub(crate) before: Nanos,
    /// Anything from y's run, taken or not: last, and since when there was no gap.
    pub(crate) wire_at: Nanos,
    wire_since: Nanos,
    wire_boot: u32,
    /// y's run of the last datagram that x took.
    pub(crate) taken_boot: u32,
    /// y's run that the last surely timely datagram came from.
    pub(crate) timely_boot: u32,
    /// The last datagram that may count as timely.
    pub(crate) maybe_at: Nanos,
    /// The newest message: y's run, and its number in the world.
    pub(crate) newest: Option<(u32, u64)>,
    /// What x echoes to y: y's run, and when y sent it.
    pub(crate) echo: Option<(u32, Nanos)>,
    /// The newest datagram was surely timely and sent as master; when it arrived.
    pub(crate) claim_at: Option<Nanos>,
    /// The last datagram that may count as a claim.
    pub(crate) maybe_claim_at: Nanos,
    /// The run of y, and the highest term in a surely timely claim of it.
    pub(crate) surely_claimed: Option<(u32, Term)>,
    /// The run of y that claimed last, and its term.
    pub(crate) claimed: Option<(u32, Term)>,
    /// The last datagram that said that y, no master, hears one.
    pub(crate) told_at: Nanos,
    pub(crate) maybe_told_at: Nanos,
    /// y's run whose obituary x took last.
    buried: u32,
}

/// What is known of a host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    pub(crate) booted_at: Nanos,
    /// The node and its reconciler have run since then.
    pub(crate) runs_since: Nanos,
    /// Nothing has kept it from serving since then.
    pub(crate) able_since: Nanos,
    /// The router has answered, or not, since then.
    pub(crate) router_since: Nanos,
    /// By the events.
    pub(crate) role: Option<Role>,
    pub(crate) changed_at: Nanos,
    pub(crate) term: Term,
    /// The highest term of a timely datagram.
    pub(crate) told_term: Term,
    /// When the last role change happened that the level must reflect in effects.
    pub(crate) master_since: Option<Nanos>,
    /// Causes: the last accepted command of each kind.
    pub(crate) handover_asked: Option<Nanos>,
    /// When its checks failed last.
    pub(crate) unhealthy_at: Option<Nanos>,
    pub(crate) handover_due: Option<Nanos>,
    pub(crate) maintenance: bool,
    pub(crate) stopping: Option<Nanos>,
    pub(crate) failed: Option<Term>,
    pub(crate) unable: bool,
    pub(crate) leave_fails_until: Nanos,
    /// Timer calls at one instant.
    calls: (Nanos, u32),
    /// When it last sent to each host on each path, and how much lately.
    pub(crate) sent: Vec<Nanos>,
    recent: (Nanos, u32),
    pub(crate) paused: bool,
}

pub(crate) struct Audit {
    pub(crate) violation: Option<Violation>,
    pub(crate) heard: Vec<Vec<Heard>>,
    /// The member whose name a second process may have, and until when that has its effects.
    pub(crate) usurped: Option<(usize, Nanos)>,
    /// When a reload changed a priority last.
    pub(crate) reprioritized: Option<Nanos>,
    /// Which run of which host won each term. Only with leases.
    pub(crate) won: BTreeMap<Term, (usize, u32)>,
    /// The highest term that a timely datagram of a master brought to each host, in its present run.
    pub(crate) held_terms: Vec<Term>,
    /// Until then a voter that restarted abstains.
    pub(crate) abstains_until: Nanos,
    /// Since when two gateways ask for a lease that hear each other.
    pub(crate) contests: Vec<Option<Nanos>>,
    /// When a datagram was lost last, or began to straggle.
    pub(crate) lost_at: Nanos,
    /// Since when two gateways have acted that hear each other.
    both: Vec<Option<(Nanos, bool)>>,
    /// The last message of y to x that was lost or straggles, by its number.
    lost: Vec<Vec<u64>>,
    pub(crate) hosts: Vec<Watched>,
    pub(crate) now: Nanos,
    /// The shortest and the longest detection time of any config, with clocks and latency.
    pub(crate) short: Nanos,
    pub(crate) long: Nanos,
    /// The longest that rank, round trip and looking may add.
    pub(crate) wait: Nanos,
    /// The longest delay that faults have added so far.
    pub(crate) slowest: Nanos,
    o: Options,
    members: usize,
}

impl Audit {
    pub(crate) fn new(hosts: usize, o: &Options) -> Audit {
        let paths = usize::from(o.paths);
        let mut audit = Audit {
            violation: None,
            heard: vec![vec![Heard::default(); hosts]; hosts],
            usurped: None,
            reprioritized: None,
            won: BTreeMap::new(),
            held_terms: vec![0; hosts],
            abstains_until: 0,
            contests: vec![None; o.gateways * o.gateways],
            lost_at: 0,
            lost: vec![vec![0; hosts]; hosts],
            both: vec![None; hosts * hosts],
            hosts: (0..hosts)
                .map(|_| Watched { sent: vec![0; hosts * paths], ..Watched::default() })
                .collect(),
            now: 0,
            short: o.detection() * 97 / 100,
            long: o.detection() * 125 / 100,
            wait: 0,
            slowest: 0,
            members: o.members(),
            o: o.clone(),
        };
        audit.slower(0);
        audit
    }

    /// A fault adds this delay: round trips and so rank waits may grow.
    pub(crate) fn slower(&mut self, delay: Nanos) {
        self.slowest = self.slowest.max(delay);
        let one_way = self.o.delay_most() + self.slowest + self.o.latency();
        let straggler = if self.o.stragglers > 0 { self.o.interval } else { 0 };
        let trip = (2 * (one_way + straggler)).min(self.o.detection() * 5 / 4);
        let step = (self.o.interval * 3 / 10).max(trip * 155 / 100);
        let ranks = self.o.gateways as u64;
        self.wait = ranks * step + self.o.interval * 3 / 2 + trip + 3 * self.o.latency();
    }

    pub(crate) fn broken(&mut self, rule: Rule, what: String) {
        if self.violation.is_none() && is_watched(rule) {
            self.violation = Some(Violation { rule, at: self.now, what });
        }
    }

    pub(crate) fn booted(&mut self, host: usize, now: Nanos) {
        let kept = &self.hosts[host];
        let sent = vec![now; kept.sent.len()];
        self.hosts[host] = Watched {
            booted_at: now,
            runs_since: now,
            able_since: now,
            changed_at: now,
            router_since: kept.router_since,
            leave_fails_until: kept.leave_fails_until,
            sent,
            ..Watched::default()
        };
        self.heard[host].fill(Heard::default());
        self.held_terms[host] = 0;
    }

    /// Another session of the same process: nothing that was heard before counts in it.
    pub(crate) fn renewed(&mut self, host: usize, now: Nanos) {
        let watched = &mut self.hosts[host];
        watched.booted_at = now;
        watched.told_term = 0;
        watched.sent.fill(now);
        self.heard[host].fill(Heard::default());
        self.held_terms[host] = 0;
    }

    pub(crate) fn died(&mut self, host: usize, now: Nanos) {
        self.disturbed(host, now);
        self.hosts[host].handover_due = None;
        self.hosts[host].master_since = None;
    }

    /// Something befell this host: what must hold in quiet starts to count again.
    pub(crate) fn disturbed(&mut self, host: usize, now: Nanos) {
        self.hosts[host].runs_since = now;
        self.hosts[host].able_since = now;
        self.hosts[host].paused = true;
    }

    pub(crate) fn resumed(&mut self, host: usize, now: Nanos) {
        self.hosts[host].paused = false;
        self.hosts[host].sent.fill(now);
        // Answers may be as late as the pause was long.
        if let Some(due) = &mut self.hosts[host].handover_due {
            *due = now + self.long * 2 + self.o.handover_timeout + self.o.leave;
        }
    }

    pub(crate) fn unfit(&mut self, host: usize, now: Nanos) {
        self.hosts[host].able_since = now;
    }

    pub(crate) fn router(&mut self, host: usize, now: Nanos) {
        self.hosts[host].router_since = now;
    }

    pub(crate) fn reloaded(&mut self, host: usize, now: Nanos) {
        self.unfit(host, now);
    }

    pub(crate) fn reported(&mut self, host: usize, report: &Report, now: Nanos) {
        let watched = &mut self.hosts[host];
        match report {
            Report::Failed(term, _) => watched.failed = Some(*term),
            Report::Left(_) => {}
            Report::Ability(ability) => {
                watched.unable = matches!(ability, wgha_proto::Ability::Unable(_));
                watched.able_since = now;
            }
            Report::Entered(_) | Report::Examined(..) | Report::Flushed(_) => {}
        }
    }

    pub(crate) fn commanded(
        &mut self,
        host: usize,
        command: &Command,
        accepted: bool,
        was_master: bool,
        now: Nanos,
    ) {
        if !accepted {
            return;
        }
        let patience = self.o.handover_timeout * 3 + 2 * self.o.leave + 3 * self.long + self.wait;
        let watched = &mut self.hosts[host];
        match command {
            Command::Handover { .. } => {
                watched.handover_asked = Some(now);
                watched.handover_due = Some(now + patience);
            }
            Command::Maintenance { on, .. } => {
                watched.maintenance = *on;
                watched.able_since = now;
            }
            Command::Stop => watched.stopping = Some(now + patience),
        }
        if was_master {
            watched.handover_asked = Some(now);
        }
    }

    /// What the world knows about a datagram that is being sent.
    pub(crate) fn sent(
        &mut self,
        hosts: &[Host],
        from: usize,
        to: usize,
        path: u8,
        now: Nanos,
        bytes: &[u8],
    ) -> Datagram {
        let host = &hosts[from];
        let (role, term) =
            host.process.as_ref().map_or((Role::Init, 0), |p| (p.level.role, p.level.term));
        let (half, long) = (self.short / 2, self.long);
        let heard = &self.heard[from];
        let others = (0..self.members).filter(|&y| y != to && y != from);
        let hears_master = others
            .clone()
            .any(|y| heard[y].claim_at.is_some_and(|at| now.saturating_sub(at) < half));
        let hears_maybe = (0..self.members).filter(|&y| y != from).any(|y| {
            heard[y].maybe_claim_at > 0 && now.saturating_sub(heard[y].maybe_claim_at) < long * 2
        });
        Datagram {
            from,
            from_boot: host.boots,
            to,
            path,
            sent: now,
            role,
            term,
            leaving: host.gateway.holds().is_some() && role != Role::Master,
            hears_master,
            hears_maybe,
            message: 0,
            echo: heard[to].echo,
            obituary: false,
            bytes: bytes.to_vec(),
        }
    }

    /// A node took an obituary: what that run of its sender said is void, and it is not waited for.
    pub(crate) fn buried(&mut self, x: usize, d: &Datagram, now: Nanos) {
        let h = &mut self.heard[x][d.from];
        h.buried = d.from_boot;
        if h.taken_boot == d.from_boot {
            (h.claim_at, h.told_at, h.echo, h.maybe_at) = (None, 0, None, now);
        }
    }

    pub(crate) fn cadence(&mut self, from: usize, to: usize, path: u8, now: Nanos) {
        let paths = usize::from(self.o.paths);
        let peers = (self.members - 1) as u32;
        let watched = &mut self.hosts[from];
        watched.sent[to * paths + usize::from(path)] = now;
        let (since, count) = watched.recent;
        if now.saturating_sub(since) > self.o.interval {
            watched.recent = (now, 1);
            return;
        }
        watched.recent.1 = count + 1;
        // One heartbeat, and a burst at each of a few changes in an interval.
        if count > 32 * peers * u32::from(self.o.paths) {
            self.broken(Rule::Storm, format!("{} sent {count} in an interval", host_name(from)));
        }
    }

    /// A datagram reaches a node; returns whether it must be taken.
    pub(crate) fn delivered(w: &mut World, x: usize, d: &Datagram, origin: Origin) -> bool {
        let (now, second) = (w.now, w.o.members());
        let gap = w.o.interval * 3 / 2;
        let first = origin == (Origin::Network { first: true });
        let a = &mut w.audit;
        let (surely, _) = a.timeliness(d, w.hosts[x].boots, now);
        let usurped = a.usurped.is_some_and(|(who, _)| who == x || who == d.from);
        let h = &mut a.heard[x][d.from];
        if now.saturating_sub(h.wire_at) > gap || h.wire_boot != d.from_boot {
            h.wire_since = now;
        }
        (h.wire_at, h.wire_boot) = (now, d.from_boot);
        let newer = h.newest.is_none_or(|newest| (d.from_boot, d.message) > newest);
        if !newer && first {
            w.stats.add(Situation::Reordered);
        }
        let h = &a.heard[x][d.from];
        // What straggles behind the obituary of a run that is over.
        let over = w.hosts[d.from].process.is_none() || w.hosts[d.from].boots != d.from_boot;
        if over && h.buried == d.from_boot {
            return false;
        }
        if d.from >= second || x >= second || !first || usurped {
            return false;
        }
        // A new session must first have shown that it is live, and the old one that it is not; a reply to
        // it takes a round trip more.
        let taken = h.taken_boot == d.from_boot;
        let other = &a.heard[d.from][x];
        let mutual = other.wire_boot == w.hosts[x].boots && now.saturating_sub(other.wire_at) < gap;
        let since = h.wire_since.max(other.wire_since).max(a.hosts[x].runs_since);
        let patient = mutual && now.saturating_sub(since) > 2 * a.long + 4 * gap + a.wait;
        (taken && newer && surely) || (patient && newer)
    }

    /// How old the echo is, whether that is surely timely, and whether it may be.
    fn timeliness(&self, d: &Datagram, boots: u32, now: Nanos) -> (bool, bool) {
        match d.echo.filter(|(boot, _)| *boot == boots) {
            Some((_, sent)) => {
                let age = now - sent;
                (age < self.short * 9 / 10, age < self.long * 105 / 100)
            }
            None => (false, false),
        }
    }

    /// A node took a datagram.
    pub(crate) fn taken(w: &mut World, x: usize, d: &Datagram) {
        let now = w.now;
        let a = &mut w.audit;
        let (surely, maybe) = a.timeliness(d, w.hosts[x].boots, now);
        if !maybe {
            w.stats.add(Situation::Late);
        }
        let gap = a.short * 9 / 10;
        let h = &mut a.heard[x][d.from];
        if h.taken_boot != d.from_boot {
            // What its last run said is void.
            h.claim_at = None;
            h.taken_boot = d.from_boot;
        }
        // The copy that comes on the slower path is no newer word.
        let newer = h.newest.is_none_or(|newest| (d.from_boot, d.message) > newest);
        if maybe {
            h.maybe_at = now;
            if d.role == Role::Master || d.leaving {
                h.maybe_claim_at = now;
            }
            if d.hears_maybe {
                h.maybe_told_at = now;
            }
        }
        if !newer {
            return;
        }
        h.newest = Some((d.from_boot, d.message));
        h.echo = Some((d.from_boot, d.sent));
        // Of two processes of one name it echoes the one that it listens to.
        for y in (0..w.hosts.len()).filter(|&y| y != d.from) {
            if w.hosts[y].member == w.hosts[d.from].member {
                a.heard[x][y].echo = None;
            }
        }
        let h = &mut a.heard[x][d.from];
        if surely {
            if now.saturating_sub(h.timely_at) > gap || h.timely_boot != d.from_boot {
                h.before = h.timely_at;
                h.timely_since = now;
            }
            h.timely_at = now;
            h.timely_boot = d.from_boot;
            if d.role == Role::Master || d.leaving {
                h.surely_claimed = h.surely_claimed.max(Some((d.from_boot, d.term)));
            }
        }
        h.claim_at = match d.role {
            Role::Master if surely => Some(now),
            Role::Master => h.claim_at,
            _ => None,
        };
        if d.role == Role::Master || d.leaving {
            h.claimed = Some((d.from_boot, d.term));
        }
        h.told_at = if surely && d.hears_master { now } else { 0 };
        if surely {
            a.hosts[x].told_term = a.hosts[x].told_term.max(d.term);
            if d.role == Role::Master {
                a.held_terms[x] = a.held_terms[x].max(d.term);
            }
        }
    }

    pub(crate) fn answered(
        &mut self,
        host: usize,
        now: Nanos,
        expected: bool,
        result: Result<(), Refusal>,
    ) {
        self.now = now;
        if expected && let Err(why) = result {
            let what = format!("{} refused a good datagram: {why:?}", host_name(host));
            self.broken(Rule::Accepted, what);
        }
    }

    /// A second process can take a name whose owner is silent for two intervals. Then the promises to the
    /// owner are void, until all is over for a while.
    pub(crate) fn look_for_usurper(w: &mut World) {
        let (now, second) = (w.now, w.o.members());
        if let Some((_, until)) = w.audit.usurped
            && now > until
            && w.hosts[second].process.is_none()
        {
            w.audit.usurped = None;
        }
        if w.hosts[second].process.is_none() {
            return;
        }
        let victim = w.hosts[second].member;
        let silent = (0..second)
            .filter(|&z| z != victim)
            .any(|z| now.saturating_sub(w.audit.heard[z][victim].timely_at) > w.o.interval * 3 / 2);
        if silent {
            w.audit.usurped = Some((victim, now + 6 * w.audit.long));
        }
    }

    /// A node said that something happened.
    pub(crate) fn event(w: &mut World, host: usize, event: &Event) {
        w.audit.now = w.now;
        match event {
            Event::Role { from, to, term, reason, .. } => {
                let (role, last) = (w.audit.hosts[host].role, w.audit.hosts[host].term);
                if role.unwrap_or(*from) != *from {
                    let what = format!("{} from {from:?}, was {role:?}", host_name(host));
                    w.audit.broken(Rule::Chain, what);
                }
                if *term < last {
                    let what = format!("{} {term} after {last}", host_name(host));
                    w.audit.broken(Rule::Term, what);
                }
                if w.o.majority {
                    leases::check(w, host, *from, *to, *term, reason);
                } else {
                    reasons::check(w, host, *from, *to, *term, reason);
                }
                let now = w.now;
                let watched = &mut w.audit.hosts[host];
                watched.role = Some(*to);
                watched.term = *term;
                watched.changed_at = now;
                watched.able_since = now;
                watched.master_since = (*to == Role::Master).then_some(now);
            }
            Event::Handover { result, .. } => {
                w.audit.hosts[host].handover_due = None;
                w.stats.add(match result {
                    Ok(()) => Situation::HandoverDone,
                    Err(_) => Situation::HandoverAborted,
                });
            }
            Event::HighestTerm(term) => {
                let disk = &mut w.hosts[host].disk;
                if *term < disk.highest_term {
                    w.audit.broken(Rule::Term, format!("{}: highest sinks", host_name(host)));
                }
                w.hosts[host].disk.highest_term = *term;
            }
            Event::Maintenance(on) => w.hosts[host].disk.maintenance = *on,
            Event::Votes(votes) => {
                let old = w.hosts[host].disk.votes.replace(votes.clone());
                if old.is_some_and(|o| !o.voters.is_empty() && o.voters != votes.voters) {
                    w.stats.add(Situation::VotersChanged);
                }
            }
            Event::Reassert { .. } => w.stats.add(Situation::Reassert),
            Event::Withdrew(_) => w.stats.add(Situation::SplitVote),
            Event::Peer { .. } | Event::Alarm { .. } | Event::Renewed(_) | Event::Stopped => {}
        }
    }

    /// After every input of a node, when its events were taken.
    pub(crate) fn drained(w: &mut World, host: usize) {
        let Some(process) = &w.hosts[host].process else { return };
        let (level, a) = (&process.level, &mut w.audit);
        a.now = w.now;
        if a.hosts[host].role.unwrap_or(Role::Init) != level.role {
            let what = format!(
                "{} is {:?}, events say {:?}",
                host_name(host),
                level.role,
                a.hosts[host].role
            );
            a.broken(Rule::Chain, what);
        }
        if level.term < a.hosts[host].term {
            a.broken(Rule::Term, format!("{} sinks to {}", host_name(host), level.term));
        }
        a.hosts[host].term = a.hosts[host].term.max(level.term);
        let (at, count) = a.hosts[host].calls;
        a.hosts[host].calls = if at == w.now { (at, count + 1) } else { (w.now, 0) };
        if count > 2000 {
            a.broken(Rule::Busy, format!("{} is called again and again", host_name(host)));
        }
    }

    /// Whether x has heard y, surely timely and without a gap, since then.
    pub(crate) fn hears_since(&self, x: usize, y: usize, now: Nanos) -> Option<Nanos> {
        let h = &self.heard[x][y];
        (h.timely_at > 0 && now.saturating_sub(h.timely_at) <= self.short * 9 / 10)
            .then_some(h.timely_since)
    }

    /// After everything that happens.
    pub(crate) fn look(w: &mut World) {
        w.audit.now = w.now;
        if w.o.majority {
            leases::look(w);
            return;
        }
        for x in w.gateways() {
            for y in 0..x {
                let at = x * w.hosts.len() + y;
                if !Audit::both_act(w, x, y) {
                    w.audit.both[at] = None;
                    continue;
                }
                // Two gateways may take over at once where a claim was lost, or, without leases, among three.
                let pardon = w.o.gateways > 2 || w.audit.missed(x, y) || w.audit.missed(y, x);
                let (since, pardon) = *w.audit.both[at].get_or_insert((w.now, pardon));
                let patience = if pardon { w.audit.wait + w.o.leave + w.o.interval } else { 0 };
                if w.now - since >= patience {
                    let what = format!("{} and {} act", host_name(y), host_name(x));
                    w.audit.broken(Rule::TwoActing, what);
                }
            }
        }
    }

    /// The last word of y to x was lost, or straggles.
    fn missed(&self, x: usize, y: usize) -> bool {
        self.heard[x][y].newest.is_none_or(|(_, message)| message < self.lost[x][y])
    }

    /// No member's last word to another was lost.
    pub(crate) fn nothing_missed(&self) -> bool {
        let all = 0..self.members;
        all.clone().all(|x| all.clone().all(|y| x == y || !self.missed(x, y)))
    }

    pub(crate) fn lost(&mut self, d: &Datagram) {
        self.lost[d.to][d.from] = d.message;
        self.lost_at = d.sent;
    }

    fn both_act(w: &World, x: usize, y: usize) -> bool {
        let settle = 2 * w.audit.long + w.o.leave + w.o.interval + w.audit.wait;
        if !w.hosts[x].gateway.effects || !w.hosts[y].gateway.effects || !w.runs(x) || !w.runs(y) {
            return false;
        }
        let a = &w.audit;
        if a.usurped.is_some_and(|(who, _)| who == x || who == y) {
            return false;
        }
        let (Some(one), Some(other)) = (a.hears_since(x, y, w.now), a.hears_since(y, x, w.now))
        else {
            return false;
        };
        let (hx, hy) = (&a.hosts[x], &a.hosts[y]);
        let since = one.max(other).max(hx.runs_since).max(hy.runs_since);
        let since = since.max(hx.leave_fails_until).max(hy.leave_fails_until);
        w.now.saturating_sub(since) > settle
    }

    /// A few times in each interval: what should have happened and did not.
    pub(crate) fn look_slowly(w: &mut World) {
        w.audit.now = w.now;
        Audit::look_for_usurper(w);
        for x in 0..w.o.members() {
            if !w.hosts[x].running() {
                continue;
            }
            Audit::look_at_cadence(w, x);
            Audit::look_at_answers(w, x);
            if x < w.o.gateways {
                Audit::look_at_vacancy(w, x);
            }
        }
        if w.o.majority {
            contest::look(w);
        }
        Audit::count_one(w);
        Audit::look_at_held_back(w);
    }

    fn look_at_cadence(w: &mut World, x: usize) {
        let (paths, most) = (usize::from(w.o.paths), w.o.interval * 155 / 100);
        // One that is paused may not have read that there are more.
        for y in 0..=w.hosts[x].config.peers.len() {
            for path in 0..paths {
                let silent = w.now.saturating_sub(w.audit.hosts[x].sent[y * paths + path]);
                if y != x && silent > most {
                    let what =
                        format!("{} sent {} nothing for {silent} ns", host_name(x), host_name(y));
                    w.audit.broken(Rule::Cadence, what);
                }
            }
        }
    }

    fn look_at_answers(w: &mut World, x: usize) {
        if w.hosts[x].gateway_paused > 0 || w.now < w.audit.hosts[x].leave_fails_until {
            return;
        }
        // A pause of the reconciler delays `Left`, and with it every answer.
        let late = w.audit.hosts[x].runs_since + 2 * w.audit.long + 2 * w.o.handover_timeout;
        if w.now < late + w.o.leave {
            return;
        }
        let watched = &w.audit.hosts[x];
        if watched.handover_due.is_some_and(|due| w.now > due) {
            w.audit.broken(Rule::Answer, format!("{}: handover without outcome", host_name(x)));
        }
        let watched = &w.audit.hosts[x];
        if watched.stopping.is_some_and(|due| w.now > due) {
            w.audit.broken(Rule::Answer, format!("{} does not stop", host_name(x)));
        }
    }

    /// No gateway that could serve waits longer than it must; who is master serves.
    fn look_at_vacancy(w: &mut World, x: usize) {
        let (now, a) = (w.now, &w.audit);
        let watched = &a.hosts[x];
        if let Some(since) = watched.master_since {
            let since = since.max(watched.runs_since).max(watched.able_since);
            let entering = w.o.leave * 2 + w.o.enter + w.o.interval;
            let free =
                w.runs(x) && now > watched.leave_fails_until && w.hosts[x].gateway.faultless();
            if free && now.saturating_sub(since) > entering && !w.hosts[x].gateway.serving {
                w.audit.broken(
                    Rule::NoneActing,
                    format!("{} is master and does not serve", host_name(x)),
                );
            }
            return;
        }
        if !w.eligible(x) || a.usurped.is_some() || w.o.majority {
            return;
        }
        let mut since = watched.able_since.max(watched.runs_since).max(watched.booted_at);
        if w.o.evidence {
            since = since.max(watched.router_since);
        }
        for y in (0..w.hosts.len()).filter(|&y| y != x) {
            since = since.max(a.heard[x][y].maybe_claim_at).max(a.heard[x][y].maybe_told_at);
        }
        // A role that was released to another is reserved for it for a detection time.
        let reserved = if w.o.gateways > 2 { a.long } else { 0 };
        let most = a.long + a.wait + w.o.leave + reserved;
        if now.saturating_sub(since) > most {
            let waited = now - since;
            let what = format!(
                "{} hears no master and waits, for {waited} ns (most {most})",
                host_name(x)
            );
            w.audit.broken(Rule::NoneActing, what);
        }
    }

    /// For the record: how often the main promise was there to be checked, and held.
    fn count_one(w: &mut World) {
        let settle = 2 * w.audit.long + w.audit.wait;
        let quiet = w.gateways().all(|x| {
            w.eligible(x)
                && w.now.saturating_sub(w.audit.hosts[x].runs_since) > settle
                && w.gateways().filter(|&y| y != x).all(|y| {
                    w.audit
                        .hears_since(x, y, w.now)
                        .is_some_and(|since| w.now.saturating_sub(since) > settle)
                })
        });
        if quiet && w.gateways().filter(|&x| w.hosts[x].gateway.serving).count() == 1 {
            w.stats.exactly_one += 1;
        }
    }

    fn look_at_held_back(w: &mut World) {
        for x in w.gateways() {
            let host = &w.hosts[x];
            if !host.running() || host.is_master() {
                continue;
            }
            let Some(process) = &host.process else { continue };
            match process.node.snapshot(host.clock.local(w.now)).held_back {
                Some("isolated") => w.stats.add(Situation::Isolated),
                Some("listening") => w.stats.add(Situation::Listening),
                Some(_) => w.stats.add(Situation::HeldBackOther),
                None => {}
            }
        }
    }
}

/// `WGHA_SIM_RULES` names the rules that count, separated by commas; all unless given.
fn is_watched(rule: Rule) -> bool {
    static RULES: OnceLock<Option<String>> = OnceLock::new();
    let rules = RULES.get_or_init(|| std::env::var("WGHA_SIM_RULES").ok());
    rules.as_ref().is_none_or(|rules| rules.split(',').any(|name| name == format!("{rule:?}")))
}

impl World {
    /// The node and the reconciler of a host run.
    pub(crate) fn runs(&self, host: usize) -> bool {
        self.hosts[host].running() && self.hosts[host].gateway_paused == 0
    }

    /// Nothing that a fault or a command did keeps this gateway from taking over.
    pub(crate) fn eligible(&self, host: usize) -> bool {
        let h = &self.hosts[host];
        self.runs(host)
            && !h.witness
            && !h.disk.maintenance
            && h.gateway.faultless()
            && (h.gateway.said_ready() || h.is_master())
            && (!self.o.evidence || h.router_cuts == 0)
            && self.audit.hosts[host].stopping.is_none()
            && self.audit.hosts[host].role != Some(Role::Fault)
    }
}
