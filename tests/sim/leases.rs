//! What leases add: the gate of each machine, the memory of voters, and what must hold of both.
//!
//! The *gate* is the switch in the kernel: it is open until a time that the process sets each time that it runs, up to
//! 20 ms longer, and whatever becomes of the process. A process that is no longer master shuts it within 20 ms, and
//! before it says `Left`. It counts as open from the moment that the node says master, although effects take their time.

use std::time::Duration;

use wgha_proto::{LONGEST_LEASE, Reason, Role, Term, VoteRecord};

use crate::audit::Rule;
use crate::host::Disk;
use crate::options::{Nanos, REACTION};
use crate::reasons::{self, Verdict, ok};
use crate::stats::Situation;
use crate::world::{Mutation, World, host_name};

impl World {
    /// What the daemon does before its node starts: reads what is known of votes, and keeps what it may grant now.
    pub(crate) fn leases_boot(&mut self, host: usize, disk: &mut Disk) {
        if !self.o.majority {
            return;
        }
        let first = self.hosts[host].boots == 0;
        if first {
            // Not a machine that lost its memory: it never had one.
            disk.votes = Some(VoteRecord::without_grant(Duration::ZERO));
        }
        if self.mutation == Mutation::VotesForgotten
            && let Some(votes) = &mut disk.votes
        {
            votes.longest = Duration::ZERO;
        }
        self.hosts[host].disk.votes.clone_from(&disk.votes);
        // It abstains for as long as an earlier run may have granted; that one may have had no memory itself.
        let longest = disk.votes.as_ref().map_or(LONGEST_LEASE, |votes| votes.longest);
        let abstains = longest.as_nanos() as Nanos * 21 / 20;
        self.audit.abstains_until = self.audit.abstains_until.max(self.now + abstains);
        self.keep_longest(host);
        if !first && self.gates().next().is_some() {
            self.stats.add(Situation::RestartInLease);
        }
    }

    /// A new session abstains like a restart.
    pub(crate) fn leases_renew(&mut self, host: usize) {
        if !self.o.majority {
            return;
        }
        let votes = self.hosts[host].disk.votes.as_ref();
        let longest = votes.map_or(LONGEST_LEASE, |votes| votes.longest);
        let abstains = longest.as_nanos() as Nanos * 21 / 20;
        self.audit.abstains_until = self.audit.abstains_until.max(self.now + abstains);
        let process = self.hosts[host].process.as_ref();
        let lease = process.and_then(|p| p.node.snapshot(self.local(host)).lease);
        if lease.is_some_and(|lease| lease.abstains.is_none()) {
            self.audit.broken(Rule::Unjustified, "a new session votes at once".to_owned());
        }
    }

    fn local(&self, host: usize) -> wgha_proto::Time {
        self.hosts[host].clock.local(self.now)
    }

    /// Before a config is taken.
    pub(crate) fn keep_longest(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        if let Some(votes) = &mut h.disk.votes {
            votes.longest = votes.longest.max(h.config.detection());
        }
    }

    /// The state directory is lost with the process.
    pub(crate) fn forget(&mut self, host: usize) {
        self.hosts[host].disk.votes = None;
        self.stats.add(Situation::Forgot);
    }

    /// After each input: the gate follows the permission.
    pub(crate) fn set_gate(&mut self, host: usize) {
        if !self.o.majority {
            return;
        }
        let late = self.rng.within(0, REACTION);
        let h = &mut self.hosts[host];
        let Some(process) = &h.process else { return };
        match process.node.permitted_until() {
            Some(until) if self.mutation == Mutation::GateOpen => {
                h.gate_until = h.clock.world(until) + 10 * self.o.detection();
            }
            Some(until) => h.gate_until = h.clock.world(until) + late,
            None => self.shut_gate(host, late),
        }
    }

    pub(crate) fn shut_gate(&mut self, host: usize, late: Nanos) {
        let h = &mut self.hosts[host];
        h.gate_until = h.gate_until.min(self.now + late);
    }

    /// The hosts whose gate is open.
    fn gates(&self) -> impl Iterator<Item = usize> {
        self.gateways().filter(|&host| self.hosts[host].gate_until > self.now)
    }
}

/// After everything that happens.
pub(crate) fn look(w: &mut World) {
    let open: Vec<String> = w.gates().map(host_name).collect();
    if open.len() > 1 {
        w.audit.broken(Rule::OneGate, format!("the gates of {open:?} are open"));
    }
}

/// Checks one change of role.
pub(crate) fn check(w: &mut World, x: usize, from: Role, to: Role, term: Term, reason: &Reason) {
    let (rule, verdict) = match to {
        Role::Master => won(w, x, from, term, reason),
        Role::Init => (Rule::Unjustified, reasons::again(w, x, reason)),
        Role::Backup | Role::Fault => (Rule::Unjustified, reasons::rests(w, x, from, to, reason)),
    };
    if let Err(why) = verdict {
        let what = format!("{} {from:?} to {to:?} of {term}, {reason}: {why}", host_name(x));
        w.audit.broken(rule, what);
    }
}

fn won(w: &mut World, x: usize, from: Role, term: Term, reason: &Reason) -> (Rule, Verdict) {
    let fit = reasons::may_serve(w, x, from);
    if fit.is_err() {
        return (Rule::Unjustified, fit);
    }
    let run = (x, w.hosts[x].boots);
    if let Some((other, _)) = w.audit.won.insert(term, run) {
        return (Rule::Term, Err(format!("{} had this term", host_name(other))));
    }
    if term <= w.audit.held_terms[x] || term <= w.audit.hosts[x].term.min(term - 1) {
        return (Rule::Term, Err(format!("not above {}", w.audit.held_terms[x])));
    }
    match reason {
        Reason::HandoverFrom(name) => {
            w.stats.add(Situation::LeaseHandover);
            (Rule::LeftFirst, reasons::released(w, x, term, name))
        }
        Reason::MasterObituary(name) => {
            w.stats.add(Situation::LeaseObituary);
            let buried = reasons::buried(w, x, name);
            (Rule::Obituary, buried.and_then(|()| majority(w, x)))
        }
        Reason::NoMaster
        | Reason::MasterSilent(_)
        | Reason::MasterRestarted(_)
        | Reason::MasterReleased(_) => {
            w.stats.add(Situation::LeaseTakeover);
            if etcd_voted(w, x) > 0 {
                w.stats.add(Situation::EtcdTakeover);
            }
            (Rule::Unjustified, majority(w, x))
        }
        _ => (Rule::Unjustified, Err("no reason to take over".to_owned())),
    }
}

/// Who votes in the eyes of a node.
pub(crate) fn voters_in_force(w: &World, x: usize) -> Vec<usize> {
    let host = &w.hosts[x];
    let Some(process) = &host.process else { return Vec::new() };
    let lease = process.node.snapshot(host.clock.local(w.now)).lease;
    let names = lease.map_or_else(Vec::new, |lease| lease.voters);
    (0..w.o.members()).filter(|&y| names.contains(&w.hosts[y].config.name)).collect()
}

/// A majority was heard lately.
fn majority(w: &World, x: usize) -> Verdict {
    let voters = voters_in_force(w, x);
    let etcd = etcd_voted(w, x);
    let lately = |y: &&usize| {
        w.now.saturating_sub(w.audit.heard[x][**y].maybe_at) < w.audit.long || **y == x
    };
    let all = voters.len() + usize::from(w.o.etcd);
    ok(voters.iter().filter(lately).count() + etcd > all / 2, "no majority is heard")
}

/// A lease is lost only if a majority does not answer.
pub(crate) fn lost(w: &mut World, from: Role, to: Role) -> Verdict {
    w.stats.add(Situation::LostLease);
    ok(from == Role::Master && to == Role::Backup, "not master")
}

/// In the liveness phase: the gateway that serves is one that hears a majority and is heard by it.
pub(crate) fn connected(w: &World, x: usize) -> bool {
    let voters = voters_in_force(w, x);
    let both = voters.iter().filter(|&&y| {
        y == x
            || w.audit.hears_since(x, y, w.now).is_some()
                && w.audit.hears_since(y, x, w.now).is_some()
    });
    both.count() + w.etcd_votes(x) > (voters.len() + usize::from(w.o.etcd)) / 2
}

/// Of those that vote for a master, how many are an etcd.
fn etcd_voted(w: &World, x: usize) -> usize {
    let host = &w.hosts[x];
    let Some(process) = &host.process else { return 0 };
    let lease = process.node.snapshot(host.clock.local(w.now)).lease;
    let held = lease.and_then(|lease| lease.arbiter).is_some_and(|arbiter| arbiter.held);
    usize::from(held)
}

/// Whether a change of voters is not in force yet, or cannot come into force, and a member of the old voters knows them no longer.
pub(crate) fn forgot_in_a_change(w: &World) -> bool {
    let old = 0..w.o.members() - w.o.spare;
    let leases: Vec<_> = old
        .filter_map(|host| {
            let process = w.hosts[host].process.as_ref()?;
            process.node.snapshot(w.hosts[host].clock.local(w.now)).lease
        })
        .collect();
    leases.iter().any(|lease| lease.pending || lease.blocked)
        && leases.iter().any(|lease| lease.voters != leases[0].voters)
}
