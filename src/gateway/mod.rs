//! Makes the machine agree with the role. Level-triggered: it looks at the latest (role, term) and
//! at the machine, never at a change, so that nothing depends on having seen every step.
//!
//! Effects hang on entering and leaving master. A new term is never collapsed into the last one:
//! master of term 5 becomes master of term 7 by leaving 5 and entering 7, with `Left` between.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::error;
use wgha_proto::{Ability, Errand, Report, Role, RoleLevel, Term};

use crate::daemon::Input;

pub mod attend;
pub mod effects;
pub mod gate;
pub mod kick;
pub mod ledger;
pub mod machine;
pub mod scripts;
pub mod tunnel;
pub mod view;

pub use effects::{Effects, Notice, Order, Phases, Wanted};

/// The machine is looked at this often even if no notification came.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// After a step that failed, and between a notification and the look at what it changed: several
/// changes of one cause are answered together.
const SETTLE: Duration = Duration::from_millis(20);

/// As master, this many looks in a row that could not put things back mean that this node cannot
/// serve: another one should.
const FAILURES_TO_FAULT: u32 = 3;

/// Bound of what still runs beside when the process ends: PreDown and PostDown.
const FINISH: Duration = Duration::from_secs(60);

/// The reconciler: a task around [`Effects`].
pub struct Gateway<E> {
    effects: E,
    level: watch::Receiver<RoleLevel>,
    orders: mpsc::Receiver<Order>,
    notices: mpsc::Sender<Notice>,
    /// To the node, without a detour: others wait for what it says then.
    reports: mpsc::Sender<Input>,
    /// The number of the last errand that was run.
    errand: Option<u32>,
    /// The term whose effects stand, or may stand.
    acting: Option<Term>,
    failures: u32,
    ability: Ability,
    /// The term whose failure has been reported.
    failed: Option<Term>,
    /// The term of the level when nothing was last known to be left.
    clear: Term,
    /// What kept it from leaving when it last tried.
    stuck: Option<String>,
}

/// When to look again.
enum Next {
    Now,
    Soon,
    Later,
    /// Only the level matters now: the role may come or go any moment.
    OnLevel,
}

impl<E: Effects> Gateway<E> {
    /// A reconciler for `effects` that follows `level`.
    pub fn new(
        effects: E,
        level: watch::Receiver<RoleLevel>,
        orders: mpsc::Receiver<Order>,
        notices: mpsc::Sender<Notice>,
        reports: mpsc::Sender<Input>,
    ) -> Gateway<E> {
        let clear = level.borrow().term;
        Gateway {
            effects,
            level,
            orders,
            notices,
            reports,
            errand: None,
            acting: None,
            failures: 0,
            ability: Ability::Unknown,
            failed: None,
            clear,
            stuck: None,
        }
    }

    /// Runs until [`Order::Finish`], or until nobody can give orders any more; leaves at the end.
    pub async fn run(mut self) {
        // When to look next. What others change puts it forward, the level does so at once.
        let mut look_at = Instant::now();
        let mut on_level = false;
        loop {
            if Instant::now() >= look_at {
                let next = self.reconcile().await;
                on_level = matches!(next, Next::OnLevel);
                look_at = Instant::now()
                    + match next {
                        Next::Now => continue,
                        Next::Soon => SETTLE,
                        Next::Later | Next::OnLevel => CHECK_EVERY,
                    };
            }
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(Order::Reassert) => self.effects.reassert().await,
                    Some(Order::Kick(term)) => self.kick(term).await,
                    Some(Order::Reconfigure(setup)) => {
                        self.effects.reconfigure(setup).await;
                        look_at = Instant::now();
                    }
                    Some(Order::Finish(done)) => {
                        let left = self.finish().await;
                        // Nobody waiting is no reason to fail.
                        let _ = done.send(left);
                        return;
                    }
                    None => {
                        self.finish().await;
                        return;
                    }
                },
                changed = self.level.changed() => {
                    if changed.is_err() {
                        let left = self.finish().await;
                        return self.answer_last(left).await;
                    }
                    look_at = Instant::now();
                }
                () = self.effects.changed(), if !on_level => {
                    look_at = look_at.min(Instant::now() + SETTLE);
                }
                () = sleep_until(look_at) => {}
            }
        }
    }

    /// One comparison of what is with what should be.
    async fn reconcile(&mut self) -> Next {
        let level = self.level.borrow_and_update().clone();
        let wanted = (level.role == Role::Master).then_some(level.term);
        let errand = level.errand;
        match (self.acting, wanted) {
            (Some(term), Some(want)) if term == want && self.failed != Some(term) => match errand {
                Some(Errand::Flush { id, to }) => self.flush(id, &to).await,
                Some(Errand::Examine { .. }) | None => self.keep(term).await,
            },
            (Some(term), _) => self.leave(term).await,
            (None, Some(term)) if self.failed != Some(term) => self.enter(term).await,
            // It failed, was undone and reported; the node has not answered yet.
            (None, Some(_)) => Next::Later,
            (None, None) => match errand {
                // Whatever stands is taken off first.
                Some(Errand::Examine { id, from }) if self.clear == level.term => {
                    self.examine(id, &from).await
                }
                Some(Errand::Examine { .. }) => {
                    let next = self.rest(level.term).await;
                    if self.clear == level.term { Next::Now } else { next }
                }
                Some(Errand::Flush { .. }) | None => self.rest(level.term).await,
            },
        }
    }

    /// Once for each request; then only the level matters, so that the role is taken without delay.
    async fn examine(&mut self, id: u32, from: &str) -> Next {
        if self.errand != Some(id) {
            let mut level = self.level.clone();
            let found = tokio::select! {
                found = self.effects.examine(from) => found,
                // The role does not wait for an errand.
                _ = level.changed() => return Next::Now,
            };
            self.errand = Some(id);
            self.report(Report::Examined(id, found)).await;
        }
        Next::OnLevel
    }

    async fn flush(&mut self, id: u32, to: &str) -> Next {
        if self.errand != Some(id) {
            let mut level = self.level.clone();
            tokio::select! {
                () = self.effects.flush(to) => {}
                _ = level.changed() => return Next::Now,
            }
            self.errand = Some(id);
            self.report(Report::Flushed(id)).await;
        }
        Next::OnLevel
    }

    async fn kick(&mut self, term: Term) {
        let wanted = Wanted { level: self.level.clone(), term };
        if self.acting == Some(term) && self.failed != Some(term) && wanted.still() {
            self.effects.kick(term).await;
        }
    }

    async fn enter(&mut self, term: Term) -> Next {
        self.acting = Some(term);
        self.failures = 0;
        let wanted = Wanted { level: self.level.clone(), term };
        match self.effects.enter(term, &wanted).await {
            Ok(phases) => {
                self.tell(Notice::Entered(term, phases)).await;
                self.report(Report::Entered(term)).await;
                Next::Later
            }
            // Whatever it ran into, the role is gone: leaving is all that is left to do.
            Err(_) if !wanted.still() => Next::Now,
            Err(why) => {
                self.fail(term, why).await;
                Next::Now
            }
        }
    }

    async fn keep(&mut self, term: Term) -> Next {
        match self.effects.keep(term).await {
            Ok(()) => {
                self.failures = 0;
                Next::Later
            }
            Err(why) => {
                self.failures += 1;
                if self.failures >= FAILURES_TO_FAULT {
                    self.fail(term, why).await;
                    return Next::Now;
                }
                Next::Soon
            }
        }
    }

    async fn leave(&mut self, term: Term) -> Next {
        match self.effects.leave().await {
            Ok(()) => {
                self.acting = None;
                self.stuck = None;
                self.ability = Ability::Unknown;
                self.clear = term;
                self.report(Report::Left(term)).await;
                // What does not act is taken off when the successor has had its moment.
                let again = self.level.borrow().role == Role::Master;
                if again { Next::Now } else { Next::Soon }
            }
            Err(why) => {
                // Until this succeeds no other gateway serves: the log must say what stands in the way.
                if self.stuck.as_ref() != Some(&why) {
                    error!("term {term}: cannot leave: {why}");
                    self.stuck = Some(why.clone());
                }
                self.fail(term, why).await;
                Next::Soon
            }
        }
    }

    async fn rest(&mut self, term: Term) -> Next {
        self.failed = None;
        let rested = self.effects.rest().await;
        // The level may have been master and not master again since it was last read. The node waits for
        // `Left` then, of a term that was never seen here.
        if term != self.clear && rested.is_ok() {
            self.clear = term;
            self.report(Report::Left(term)).await;
        }
        let ability = rested.unwrap_or_else(Ability::Unable);
        if ability != self.ability {
            self.ability = ability.clone();
            self.report(Report::Ability(ability)).await;
        }
        Next::Later
    }

    /// Reports a failure once for each term; the node answers by leaving master.
    async fn fail(&mut self, term: Term, why: String) {
        if self.failed != Some(term) {
            self.failed = Some(term);
            self.report(Report::Failed(term, why)).await;
        }
    }

    /// True if a look found that nothing acts.
    async fn finish(&mut self) -> bool {
        let left = match self.acting {
            // Whatever it could not do, it has said before.
            None => self.effects.rest().await.is_ok(),
            Some(term) => self.leave_at_last(term).await,
        };
        self.effects.finish(FINISH).await;
        left
    }

    /// The protocol's thread ends a moment before the process does. Whoever ends the process still
    /// asks, and must not take an answer that is missing for something left behind.
    async fn answer_last(&mut self, left: bool) {
        while let Some(order) = self.orders.recv().await {
            if let Order::Finish(done) = order {
                let _ = done.send(left);
                return;
            }
        }
    }

    async fn leave_at_last(&mut self, term: Term) -> bool {
        for _ in 0..FAILURES_TO_FAULT {
            if self.effects.leave().await.is_ok() {
                self.acting = None;
                self.report(Report::Left(term)).await;
                return true;
            }
            tokio::time::sleep(SETTLE).await;
        }
        false
    }

    async fn report(&mut self, report: Report) {
        // Nobody listens only when the process ends.
        let _ = self.reports.send(Input::Report(report.clone())).await;
        self.tell(Notice::Report(report)).await;
    }

    async fn tell(&mut self, notice: Notice) {
        // Nobody listens only when the process ends.
        let _ = self.notices.send(notice).await;
    }
}

#[cfg(test)]
mod tests;
