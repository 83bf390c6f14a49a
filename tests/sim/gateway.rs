//! A model of the reconciler, `src/gateway/mod.rs`: it makes the machine agree with the latest level, one
//! operation at a time, each of which takes its time and may fail.
//!
//! `effects` is what an outsider could see of mastership: it stands from the first moment of entering
//! until the last of leaving. `serving` is narrower: entering is complete and leaving has not begun.

use wgha_proto::{Ability, Doubt, Errand, Report, Role, RoleLevel, Term};

use crate::options::{MS, Nanos, Options};
use crate::rng::Rng;

/// After a step that failed.
const SETTLE: Nanos = 20 * MS;

/// What is done now; it ends at the time kept beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Enter(Term),
    Keep(Term),
    Leave(Term),
    Rest,
    Errand,
}

/// How the model deviates from what `src/gateway` promises. Only the tests that prove that a
/// deviation is caught use anything but `Faithful`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Faithful,
    /// Says `Left` when it begins to leave.
    LeftEarly,
    /// Says `Left` and stays.
    NeverLeaves,
    /// Says `Entered` and does nothing.
    NeverEnters,
}

#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    pub(crate) effects: bool,
    pub(crate) serving: bool,
    manner: Manner,
    acting: Option<Term>,
    failed: Option<Term>,
    told: Ability,
    work: Option<(Work, Nanos)>,
    wanted: Option<Term>,
    /// What a handover asks for, and whether that was done.
    errand: Option<Errand>,
    errand_done: bool,
    /// The term of the level, and the last for which `Left` was said.
    level_term: Term,
    clear: Option<Term>,
    /// When it looks again without being told to.
    look_at: Nanos,
    /// What this machine could do, as the faults have it.
    pub(crate) ability: Ability,
    /// The next so many enterings, leavings and looks at a standing master fail.
    pub(crate) fail_enter: u32,
    pub(crate) fail_leave: u32,
    pub(crate) fail_keep: u32,
    keep_failures: u32,
    /// The last term that it left.
    pub(crate) last_left: Option<Term>,
}

impl Gateway {
    pub(crate) fn new(manner: Manner) -> Gateway {
        Gateway {
            effects: false,
            serving: false,
            manner,
            acting: None,
            failed: None,
            told: Ability::Unknown,
            work: None,
            wanted: None,
            errand: None,
            errand_done: false,
            level_term: 0,
            clear: None,
            look_at: 0,
            ability: Ability::Ready,
            fail_enter: 0,
            fail_leave: 0,
            fail_keep: 0,
            keep_failures: 0,
            last_left: None,
        }
    }

    /// The process ended. What stood still stands.
    pub(crate) fn crash(&mut self) {
        let (effects, ability) = (self.effects, self.ability.clone());
        let last_left = self.last_left;
        *self = Gateway { effects, ability, last_left, ..Gateway::new(self.manner) };
    }

    /// A standby that could take over, and has said so.
    pub(crate) fn said_ready(&self) -> bool {
        self.told == Ability::Ready && self.ability == Ability::Ready
    }

    /// Whether effects of a term stand, and nobody was told that they were taken off.
    pub(crate) fn holds(&self) -> Option<Term> {
        self.acting
    }

    pub(crate) fn faultless(&self) -> bool {
        self.ability == Ability::Ready
            && self.failed.is_none()
            && self.fail_enter + self.fail_leave + self.fail_keep == 0
    }

    /// The latest level. An entering that is no longer wanted may end early.
    pub(crate) fn follow(&mut self, now: Nanos, level: &RoleLevel, rng: &mut Rng) {
        let term = level.term;
        let wanted = (level.role == Role::Master).then_some(term);
        let other_errand = self.errand != level.errand;
        if other_errand {
            self.errand.clone_from(&level.errand);
            self.errand_done = false;
            self.look_at = now;
        }
        let same = wanted == self.wanted && term == self.level_term;
        // An errand holds nothing up.
        if (other_errand || !same) && matches!(self.work, Some((Work::Errand, _))) {
            self.work = None;
        }
        self.level_term = term;
        if same {
            return;
        }
        self.wanted = wanted;
        self.look_at = now;
        if let Some((Work::Enter(_), until)) = &mut self.work
            && rng.permille(500)
        {
            *until = now;
        }
    }

    /// When [`Gateway::step`] is due.
    pub(crate) fn due(&self) -> Nanos {
        self.work.map_or(self.look_at, |(_, until)| until)
    }

    /// Ends the operation that is complete, begins the next; returns what it tells the node.
    pub(crate) fn step(&mut self, now: Nanos, o: &Options, rng: &mut Rng) -> Vec<Report> {
        let mut reports = Vec::new();
        if let Some((work, until)) = self.work {
            if now < until {
                return reports;
            }
            self.work = None;
            if work == Work::Rest {
                self.look_at = now;
                reports.extend(self.rested(now, o));
            } else {
                reports.extend(self.complete(work, now, o));
            }
        }
        if self.work.is_none() && now >= self.look_at {
            reports.extend(self.begin(now, o, rng));
        }
        reports
    }

    fn begin(&mut self, now: Nanos, o: &Options, rng: &mut Rng) -> Option<Report> {
        if let Some(takes) = self.errand_takes(o, rng) {
            self.work = Some((Work::Errand, now + takes));
            return None;
        }
        let (work, takes) = match (self.acting, self.wanted) {
            (Some(term), Some(want)) if term == want && self.failed != Some(term) => {
                (Work::Keep(term), rng.within(1, MS))
            }
            (Some(term), _) => (Work::Leave(term), rng.within(1, o.leave)),
            (None, Some(term)) if self.failed != Some(term) => {
                (Work::Enter(term), rng.within(1, o.enter))
            }
            // It failed, was undone and reported; the node has not answered yet.
            (None, Some(_)) => {
                self.look_at = now + 1000 * MS;
                return None;
            }
            (None, None) => (Work::Rest, rng.within(1, o.leave)),
        };
        self.work = Some((work, now + takes));
        match work {
            Work::Enter(term) => {
                self.acting = Some(term);
                self.keep_failures = 0;
                self.effects = self.manner != Manner::NeverEnters;
            }
            Work::Leave(term) => {
                self.serving = false;
                if self.manner == Manner::LeftEarly {
                    return Some(self.left(term));
                }
            }
            Work::Keep(_) | Work::Rest | Work::Errand => {}
        }
        None
    }

    /// How long the errand takes that is to be run now.
    fn errand_takes(&self, o: &Options, rng: &mut Rng) -> Option<Nanos> {
        let errand = self.errand.as_ref().filter(|_| !self.errand_done)?;
        let calm = match (self.acting, self.wanted) {
            (Some(term), Some(want)) => term == want && self.failed != Some(term),
            (None, None) => self.clear == Some(self.level_term),
            (Some(_), None) | (None, Some(_)) => false,
        };
        let takes = match errand {
            Errand::Examine { .. } => rng.within(1, 10 * MS),
            // Sometimes longer than the master waits.
            Errand::Flush { .. } if rng.permille(50) => o.handover_timeout,
            Errand::Flush { .. } => rng.within(1, 10 * MS),
        };
        calm.then_some(takes)
    }

    fn errand_done(&mut self) -> Option<Report> {
        self.errand_done = true;
        match self.errand.clone()? {
            Errand::Examine { id, .. } => {
                let fit = self.ability == Ability::Ready;
                Some(Report::Examined(id, if fit { Ok(()) } else { Err(Doubt::NotStaged) }))
            }
            Errand::Flush { id, .. } => Some(Report::Flushed(id)),
        }
    }

    fn complete(&mut self, work: Work, now: Nanos, o: &Options) -> Option<Report> {
        self.look_at = now;
        match work {
            Work::Enter(term) if self.wanted != Some(term) => None,
            Work::Enter(term) if take(&mut self.fail_enter) => self.fail(term),
            Work::Enter(term) => {
                self.serving = self.manner != Manner::NeverEnters;
                self.look_at = now + o.detection();
                Some(Report::Entered(term))
            }
            Work::Keep(term) if take(&mut self.fail_keep) => {
                self.keep_failures += 1;
                self.look_at = now + SETTLE;
                if self.keep_failures < 3 { None } else { self.fail(term) }
            }
            Work::Keep(_) => {
                self.keep_failures = 0;
                self.look_at = now + o.detection();
                None
            }
            Work::Leave(term) if take(&mut self.fail_leave) => {
                self.look_at = now + SETTLE.min(o.interval);
                self.fail(term)
            }
            Work::Leave(term) => {
                self.effects = self.manner == Manner::NeverLeaves;
                // With `LeftEarly` this was said already.
                if self.acting == Some(term) { Some(self.left(term)) } else { None }
            }
            Work::Errand => self.errand_done(),
            Work::Rest => None,
        }
    }

    fn rested(&mut self, now: Nanos, o: &Options) -> Vec<Report> {
        let mut reports = Vec::new();
        if self.wanted.is_some() {
            return reports;
        }
        self.effects &= self.manner == Manner::NeverLeaves;
        self.failed = None;
        let errand = self.errand.is_some() && !self.errand_done;
        self.look_at = if errand { now } else { now + o.detection() / 2 };
        // Being master may have begun and ended unseen.
        if self.clear != Some(self.level_term) {
            self.clear = Some(self.level_term);
            self.last_left = self.last_left.max(Some(self.level_term));
            reports.push(Report::Left(self.level_term));
        }
        if self.told != self.ability {
            self.told = self.ability.clone();
            reports.push(Report::Ability(self.told.clone()));
        }
        reports
    }

    fn left(&mut self, term: Term) -> Report {
        self.acting = None;
        self.told = Ability::Unknown;
        self.last_left = Some(term);
        self.clear = Some(term);
        Report::Left(term)
    }

    /// Reports a failure once for each term.
    fn fail(&mut self, term: Term) -> Option<Report> {
        if self.failed == Some(term) {
            return None;
        }
        self.failed = Some(term);
        Some(Report::Failed(term, "told to fail".to_owned()))
    }
}

fn take(count: &mut u32) -> bool {
    let some = *count > 0;
    *count -= u32::from(some);
    some
}
