//! Whether the reason of a change of role fits what the world knows.

use wgha_proto::{Ability, Reason, Role, Term};

use crate::audit::{Audit, Heard, Rule};
use crate::leases;
use crate::options::Nanos;
use crate::stats::Situation;
use crate::world::{World, host_name};

/// Checks one change of role of `x`, and counts what it stands for.
pub(crate) fn check(w: &mut World, x: usize, from: Role, to: Role, term: Term, reason: &Reason) {
    Audit::look_for_usurper(w);
    let (rule, verdict) = match to {
        Role::Master => took_over(w, x, from, term, reason),
        Role::Init => (Rule::Unjustified, again(w, x, reason)),
        Role::Backup | Role::Fault => (Rule::Unjustified, rests(w, x, from, to, reason)),
    };
    if let Err(why) = verdict {
        let what = format!("{} {from:?} to {to:?} of {term}, {reason}: {why}", host_name(x));
        w.audit.broken(rule, what);
    }
}

/// Init is where a process begins, and a session.
pub(crate) fn again(w: &World, x: usize, reason: &Reason) -> Verdict {
    match reason {
        Reason::Started => Ok(()),
        // The clock's rate and all configs of this schedule are within that.
        Reason::Slept(gap) => ok(
            gap.as_nanos() as Nanos > w.audit.short && w.hosts[x].gateway.holds().is_none(),
            "it slept for no longer than a lease, or effects of it stand",
        ),
        _ => Err("init again".to_owned()),
    }
}

pub(crate) type Verdict = Result<(), String>;

pub(crate) fn ok(holds: bool, why: &str) -> Verdict {
    if holds { Ok(()) } else { Err(why.to_owned()) }
}

fn took_over(w: &mut World, x: usize, from: Role, term: Term, reason: &Reason) -> (Rule, Verdict) {
    let fit = may_serve(w, x, from);
    if fit.is_err() {
        return (Rule::Unjustified, fit);
    }
    // Of more than two, another may claim beside the one that hands over: a conflict that is not over.
    let handed =
        w.o.gateways > 2 && matches!(reason, Reason::HandoverFrom(_) | Reason::MasterReleased(_));
    if let Some(y) = claims_to(w, x).filter(|_| !handed) {
        return (Rule::Unjustified, Err(format!("{} claims, timely", host_name(y))));
    }
    if term <= w.audit.hosts[x].told_term || term <= w.audit.hosts[x].term {
        return (Rule::Term, Err(format!("not above {}", w.audit.hosts[x].told_term)));
    }
    if x >= w.o.members() {
        let victim = w.hosts[x].member;
        // Who hears nobody that has heard its namesake for a while cannot know that the name is in use.
        let lately = w.audit.short.min(w.o.interval * 5 / 2);
        let hears = (0..x).filter(|&y| y != victim).any(|y| {
            let knows = w.audit.hears_since(y, victim, w.now);
            knows.is_some_and(|since| w.now.saturating_sub(since) > w.audit.wait)
                && w.now.saturating_sub(w.audit.heard[x][y].wire_at) < lately
        });
        let free = usurped(w, victim) || !hears;
        return (Rule::Unjustified, ok(free, "the name is in use"));
    }
    match reason {
        Reason::NoMaster => {
            w.stats.add(Situation::TakeoverNoMaster);
            (Rule::Unjustified, no_master(w, x))
        }
        Reason::MasterSilent(name) => {
            w.stats.add(Situation::TakeoverSilence);
            (Rule::Unjustified, silent(w, x, name))
        }
        Reason::MasterRestarted(name) => {
            w.stats.add(Situation::TakeoverRestart);
            let verdict = match claimed_in(w, x, name) {
                Some((y, boot, _)) => ok(
                    w.hosts[y].boots > boot || usurped(w, y) || replaced(w, x, y),
                    "it did not restart",
                ),
                None => Err("it never claimed".to_owned()),
            };
            (Rule::Unjustified, verdict)
        }
        Reason::MasterReleased(name) | Reason::HandoverFrom(name) => {
            w.stats.add(Situation::TakeoverRelease);
            (Rule::LeftFirst, released(w, x, term, name))
        }
        Reason::MasterObituary(name) => {
            w.stats.add(Situation::TakeoverObituary);
            (Rule::Obituary, buried(w, x, name))
        }
        Reason::Started
        | Reason::Listened
        | Reason::HandoverTo(_)
        | Reason::Yielded(_)
        | Reason::Slept(_)
        | Reason::Fault(_)
        | Reason::DuplicateName
        | Reason::Copied
        | Reason::Recovered
        | Reason::Stopping
        | Reason::Maintenance => (Rule::Unjustified, Err("no reason to take over".to_owned())),
        _ => (Rule::Unjustified, Err("unknown reason".to_owned())),
    }
}

/// A witness, a node in maintenance, in fault, or about to end never takes over.
pub(crate) fn may_serve(w: &World, x: usize, from: Role) -> Verdict {
    let (host, watched) = (&w.hosts[x], &w.audit.hosts[x]);
    ok(!host.witness, "a witness")?;
    ok(!host.disk.maintenance, "in maintenance")?;
    ok(matches!(from, Role::Backup | Role::Init), "not from backup")?;
    ok(watched.stopping.is_none(), "stopping")?;
    ok(!watched.unable, "unable")
}

/// A node whose last word to `x` is a timely claim, that no detection time has passed since.
fn claims_to(w: &World, x: usize) -> Option<usize> {
    let fresh = w.audit.short;
    (0..w.hosts.len()).find(|&y| {
        y != x
            && !usurped(w, y)
            && !replaced(w, x, y)
            && w.audit.heard[x][y]
                .claim_at
                .is_some_and(|at| w.now.saturating_sub(at.max(w.audit.hosts[x].booted_at)) < fresh)
    })
}

/// Since the last claim of `y` another process of its name was heard, timely: that ends the claim.
fn replaced(w: &World, x: usize, y: usize) -> bool {
    let claimed = w.audit.heard[x][y].claim_at.unwrap_or(0);
    (0..w.hosts.len()).any(|z| {
        z != y && w.hosts[z].member == w.hosts[y].member && w.audit.heard[x][z].maybe_at > claimed
    })
}

/// A second process may have its name.
fn usurped(w: &World, y: usize) -> bool {
    w.audit.usurped.is_some_and(|(who, _)| who == y || y >= w.o.members())
}

fn no_master(w: &World, x: usize) -> Verdict {
    // Who has not heard every gateway takes over by silence, and that needs evidence.
    let all = w.gateways().filter(|&y| y != x).all(|y| {
        let maybe = w.audit.heard[x][y].maybe_at;
        usurped(w, y) || maybe > 0 && w.now.saturating_sub(maybe) <= w.audit.long
    });
    if all {
        return Ok(());
    }
    let watched = &w.audit.hosts[x];
    let listened = w.now.saturating_sub(watched.booted_at);
    ok(listened >= w.audit.short, "did not listen")?;
    evidence(w, x)
}

fn silent(w: &World, x: usize, name: &str) -> Verdict {
    ok(claimed_in(w, x, name).is_some(), "it never claimed")?;
    evidence(w, x)?;
    // A node that is no master itself but hears one.
    let told = (0..w.o.members()).filter(|&y| y != x).find(|&y| {
        let Heard { told_at, .. } = w.audit.heard[x][y];
        told_at > 0
            && w.hosts[y].process.is_some()
            && w.now.saturating_sub(told_at) < w.audit.short * 3 / 10
    });
    // It may mean another one of several masters.
    let masters = w.gateways().filter(|&y| w.hosts[y].is_master()).count();
    match told.filter(|_| masters < 2) {
        Some(y) => Err(format!("{} says that a master is heard", host_name(y))),
        None => Ok(()),
    }
}

/// The router answered `x` since it last heard a claim, or at least lately.
pub(crate) fn evidence(w: &World, x: usize) -> Verdict {
    let cut_for = if w.hosts[x].router_cuts > 0 {
        w.now.saturating_sub(w.audit.hosts[x].router_since)
    } else {
        0
    };
    ok(!w.o.evidence || cut_for <= w.o.interval * 2, "isolated, and knows it")
}

pub(crate) fn released(w: &World, x: usize, term: Term, name: &str) -> Verdict {
    if name == w.hosts[x].config.name {
        // Its own release, that nobody took up.
        ok(w.hosts[x].gateway.last_left.is_some(), "it never left")?;
        return no_master(w, x);
    }
    let Some(y) = (0..w.o.members()).find(|&y| w.hosts[y].config.name == name) else {
        return Err("nobody".to_owned());
    };
    let gateway = &w.hosts[y].gateway;
    let Some(left) = gateway.last_left else { return Err("it never left".to_owned()) };
    // It may act again, by an election of its own that x has not heard of both ways. Or it may have
    // crashed in that term.
    let told = w.audit.heard[x][y].surely_claimed.unwrap_or((0, 0));
    let again = match gateway.holds() {
        Some(held) => held > left && (held >= term || told < (w.hosts[y].boots, held)),
        None => w.audit.heard[x][y].taken_boot < w.hosts[y].boots || w.hosts[y].process.is_none(),
    };
    ok(!gateway.effects || again, "its effects stand")
}

/// The run that claimed is over, and its guard has taken its effects off before it said so.
pub(crate) fn buried(w: &World, x: usize, name: &str) -> Verdict {
    let Some((y, boot, _)) = claimed_in(w, x, name) else {
        return Err("it never claimed".to_owned());
    };
    let host = &w.hosts[y];
    let over = host.process.is_none() || host.boots > boot;
    ok(over, "it lives")?;
    ok(host.boots > boot || !host.gateway.effects, "its effects stand")
}

/// The host that claimed under this name, in which run, in which term.
fn claimed_in(w: &World, x: usize, name: &str) -> Option<(usize, u32, Term)> {
    (0..w.hosts.len())
        .filter(|&y| y != x && w.hosts[y].config.name == name)
        .max_by_key(|&y| w.audit.heard[x][y].maybe_claim_at)
        .and_then(|y| w.audit.heard[x][y].claimed.map(|(boot, term)| (y, boot, term)))
}

pub(crate) fn rests(w: &mut World, x: usize, from: Role, to: Role, reason: &Reason) -> Verdict {
    match reason {
        Reason::Started => ok(from == Role::Init, "started twice"),
        Reason::Listened => ok(from == Role::Init && to == Role::Backup, "not from init"),
        Reason::HandoverTo(name) => {
            ok(from == Role::Master, "not master")?;
            handed_over(w, x, name)
        }
        Reason::Yielded(name) => {
            ok(from == Role::Master && to == Role::Backup, "not master")?;
            w.stats.add(Situation::TwoMasters);
            yielded(w, x, name)
        }
        Reason::Slept(_) => {
            w.stats.add(Situation::Slept);
            let gap = w.hosts[x].process.as_ref().map_or(0, |p| p.gap);
            ok(gap > w.audit.short / 2, "it did not sleep")
        }
        Reason::Fault(_) => faulty(w, x),
        Reason::DuplicateName => {
            w.stats.add(Situation::DuplicateName);
            ok(x >= w.o.members() || usurped(w, x), "the established one gives way")
        }
        Reason::Copied => Err("no machine is copied here".to_owned()),
        Reason::Recovered => {
            w.stats.add(Situation::Recovered);
            ok(from == Role::Fault && to == Role::Backup, "not from fault")
        }
        Reason::Stopping => ok(w.audit.hosts[x].stopping.is_some(), "nobody told it to stop"),
        Reason::Maintenance => ok(w.audit.hosts[x].maintenance, "nobody asked for it"),
        Reason::LeaseLost => leases::lost(w, from, to),
        Reason::NoMaster
        | Reason::MasterSilent(_)
        | Reason::MasterRestarted(_)
        | Reason::MasterReleased(_)
        | Reason::MasterObituary(_)
        | Reason::HandoverFrom(_) => Err("a reason to take over".to_owned()),
        _ => Err("unknown reason".to_owned()),
    }
}

/// On command, by preemption, or because it is unhealthy: nothing else.
fn handed_over(w: &mut World, x: usize, name: &str) -> Verdict {
    let to = (0..w.o.members()).find(|&y| w.hosts[y].config.name == name);
    let Some(to) = to else { return Err("nobody".to_owned()) };
    ok(!w.hosts[to].witness, "a witness")?;
    if w.audit.hosts[x].handover_asked.is_some() {
        w.audit.hosts[x].handover_asked = None;
        return Ok(());
    }
    // A check that passes again does not call off what it began.
    let patience = w.o.handover_timeout + w.o.detection();
    let unhealthy = w.audit.hosts[x].unhealthy_at;
    if unhealthy.is_some_and(|at| w.now.saturating_sub(at) <= patience) {
        w.stats.add(Situation::UnhealthyHandover);
        return Ok(());
    }
    let better = w.hosts[to].config.priority > w.hosts[x].config.priority;
    w.stats.add(Situation::Preempt);
    // Nor does another priority.
    let better = better || w.audit.reprioritized.is_some_and(|at| w.now - at <= patience);
    ok(w.o.preempt.is_some() && better, "no cause")
}

/// Only to a node whose claim is timely and that ranks higher.
fn yielded(w: &World, x: usize, name: &str) -> Verdict {
    let Some((y, _, claimed)) = claimed_in(w, x, name) else {
        return Err("it never claimed".to_owned());
    };
    let heard = &w.audit.heard[x][y];
    let fresh =
        heard.maybe_claim_at > 0 && w.now.saturating_sub(heard.maybe_claim_at) <= w.audit.long;
    ok(fresh, "it is deaf, or silent: its claim is not timely")?;
    if !w.o.evidence {
        let (mine, theirs) = (rank(w, x, w.audit.hosts[x].term), rank(w, y, claimed));
        return ok(theirs > mine, "it ranks lower");
    }
    let long_cut = w.hosts[y].router_cuts > 0
        && w.audit.hosts[y].router_since + w.o.interval * 2 < contact_lost(w, x, y);
    let open = w.hosts[x].router_cuts == 0
        && w.audit.hosts[x].router_since + w.o.interval * 2 < contact_lost(w, x, y);
    ok(!(long_cut && open), "it is the isolated one")
}

fn rank(w: &World, host: usize, term: Term) -> (Term, u8, String) {
    (term, w.hosts[host].config.priority, w.hosts[host].config.name.clone())
}

/// About when the last surely timely datagrams came before the present contact.
fn contact_lost(w: &World, x: usize, y: usize) -> Nanos {
    w.audit.heard[x][y].before.min(w.audit.heard[y][x].before)
}

fn faulty(w: &mut World, x: usize) -> Verdict {
    let unable =
        matches!(w.hosts[x].gateway.ability, Ability::Unable(_)) || w.audit.hosts[x].unable;
    w.stats.add(if unable { Situation::Unable } else { Situation::Failed });
    ok(unable || w.audit.hosts[x].failed.is_some(), "nothing failed")
}
