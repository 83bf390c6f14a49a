//! Claims: what a master must have outside the machine — a cloud address, a route, a record in DNS — and the programs that
//! get it.
//!
//! A claim is a wanted state, not an event. While this node is master and its effects stand, each claim's program is run with
//! `assert`, then every while with `verify`, and with `assert` again when what it is for was lost, when another master
//! yielded, and after a failure, ever more slowly. One task for each claim: a slow cloud delays no other one, and
//! nothing else. A newer role ends what runs.
//!
//! Exit codes of the programs: 0 done or mine, 3 not mine, 4 unknown, 75 try again, 78 give up.

mod hand;
mod marker;
mod schedule;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use wgha_proto::Term;

pub use hand::{ByHand, by_hand};
pub use marker::Marker;
pub use schedule::Held;

use crate::clock;
use crate::config::Claim;
use crate::events::rfc3339;
use crate::hooks::HookContext;
use crate::process::GRACE;
use worker::Worker;

/// What a claim's program is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Get it, from whoever has it.
    Assert,
    /// Say whether this node has it; change nothing.
    Verify,
    /// Give it up, if this node has it.
    Release,
}

impl Verb {
    /// As on the program's command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Verb::Assert => "assert",
            Verb::Verify => "verify",
            Verb::Release => "release",
        }
    }
}

/// Why this node wants its claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mastership {
    /// Its term.
    pub term: Term,
    /// Why it became master, for people.
    pub reason: String,
}

/// What is known of one claim.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Whether this node has it.
    pub held: Held,
    /// The last line that the program said, or how it ended.
    pub detail: String,
    /// When an answer last said yes or no: nanoseconds of the wall clock.
    pub checked_at_ns: Option<i64>,
    /// How long the last run took.
    pub duration: Duration,
    /// Runs that failed since the last that did not.
    pub failures: u32,
    /// The program said that trying again is useless.
    pub given_up: bool,
    /// From the order to get it until it was there, of this term.
    pub took: Option<(Term, Duration)>,
}

/// Runs all claims of the config. Dropping it kills what runs.
#[derive(Debug)]
pub struct Claims {
    wanted: watch::Sender<Wanted>,
    shared: Shared,
    workers: Vec<JoinHandle<()>>,
    claims: Vec<Claim>,
    marker: Marker,
}

#[derive(Clone, Debug)]
struct Wanted {
    /// Grows with everything that is to be looked at anew.
    generation: u64,
    /// Grows when what claims are for may lead elsewhere: in a new term, and when another master yielded.
    moves: u64,
    mastership: Option<Mastership>,
    stopping: bool,
    context: Arc<HookContext>,
}

/// What workers write and everyone reads.
#[derive(Clone, Debug)]
struct Shared {
    views: Arc<Mutex<Vec<View>>>,
    /// The term in which something came to lead here, until that is taken note of.
    arrived: Arc<Mutex<Option<Term>>>,
    changed: watch::Sender<()>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<View>> {
        // Plain values: a panic elsewhere does not spoil them.
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claims {
    /// Starts a task for each claim on the current tokio runtime. Nothing runs before the first
    /// [`assert`](Claims::assert).
    #[must_use]
    pub fn spawn(context: HookContext, claims: Vec<Claim>, marker: Marker) -> Claims {
        let wanted = Wanted {
            generation: 0,
            moves: 0,
            mastership: None,
            stopping: false,
            context: Arc::new(context),
        };
        let views = Arc::new(Mutex::new(vec![View::default(); claims.len()]));
        let shared = Shared { views, arrived: Arc::default(), changed: watch::Sender::default() };
        let mut all = Claims {
            wanted: watch::Sender::new(wanted),
            shared,
            workers: Vec::new(),
            claims,
            marker,
        };
        all.workers = all.start();
        all
    }

    fn start(&self) -> Vec<JoinHandle<()>> {
        let worker = |(index, claim): (usize, &Claim)| {
            let worker = Worker::new(
                claim.clone(),
                index,
                self.wanted.subscribe(),
                self.shared.clone(),
                self.marker.path().to_owned(),
            );
            tokio::spawn(worker.run())
        };
        self.claims.iter().enumerate().map(worker).collect()
    }

    /// This node is master, and everything on the machine stands. The same term once more changes nothing.
    pub fn assert(&self, mastership: Mastership) {
        self.wanted.send_if_modified(|wanted| {
            let same = wanted.mastership.as_ref().is_some_and(|m| m.term == mastership.term);
            if same || wanted.stopping {
                return false;
            }
            wanted.generation += 1;
            wanted.moves += 1;
            wanted.mastership = Some(mastership);
            true
        });
    }

    /// Another master yielded: it may have got what is ours.
    pub fn assert_again(&self) {
        self.wanted.send_if_modified(|wanted| {
            let acting = wanted.mastership.is_some() && !wanted.stopping;
            wanted.generation += u64::from(acting);
            wanted.moves += u64::from(acting);
            acting
        });
    }

    /// This node is master no more. Ends what runs.
    pub fn leave(&self) {
        self.wanted.send_if_modified(|wanted| {
            let acted = wanted.mastership.take().is_some();
            wanted.generation += u64::from(acted);
            acted
        });
    }

    /// Says to programs that run who is master now: see [`Marker`].
    pub fn mark(&self, term: Term, master: Option<&str>) {
        if !self.claims.is_empty() {
            self.marker.write(term, master);
        }
    }

    /// Takes up other claims. Those that are the same go on; if any differs, all begin anew.
    pub fn reconfigure(&mut self, context: HookContext, claims: Vec<Claim>) {
        if claims != self.claims {
            self.workers.iter().for_each(JoinHandle::abort);
            *self.shared.lock() = vec![View::default(); claims.len()];
            self.claims = claims;
            self.workers = self.start();
        }
        self.wanted.send_modify(|wanted| {
            wanted.context = Arc::new(context);
            // What was given up may be right now.
            wanted.generation += 1;
        });
        self.shared.changed.send_replace(());
    }

    /// What is known of each, in the order of the config.
    #[must_use]
    pub fn views(&self) -> Vec<View> {
        self.shared.lock().clone()
    }

    /// Marked as changed after each run.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// Says once that something new leads clients here, and in which term: they could not be reached before.
    #[must_use]
    pub fn take_arrived(&self) -> Option<Term> {
        self.shared.arrived.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// From the order to assert until all were there, once they are, in this term.
    #[must_use]
    pub fn took(&self, term: Term) -> Option<Duration> {
        let views = self.shared.lock();
        let took = |view: &View| view.took.filter(|(of, _)| *of == term).map(|(_, took)| took);
        let all: Option<Vec<Duration>> = views.iter().map(took).collect();
        all?.into_iter().max()
    }

    /// For `wgha status`.
    #[must_use]
    pub fn status(&self) -> Vec<crate::status::Claim> {
        self.claims.iter().zip(self.views()).map(|(claim, view)| status(claim, view)).collect()
    }

    /// Ends what runs, gives up what is to be released, and ends the tasks: at most the longest timeout and twice
    /// [`GRACE`].
    pub async fn stop(mut self) {
        self.wanted.send_modify(|wanted| {
            // What is being given up is not cut off.
            wanted.generation += u64::from(wanted.mastership.is_some());
            (wanted.mastership, wanted.stopping) = (None, true);
        });
        let longest = self.claims.iter().map(|claim| claim.timeout).max().unwrap_or_default();
        let end = tokio::time::Instant::now() + longest + GRACE * 2;
        for worker in &mut self.workers {
            if tokio::time::timeout_at(end, worker).await.is_err() {
                tracing::error!("a claim's program does not end");
            }
        }
        self.marker.remove();
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        self.workers.iter().for_each(JoinHandle::abort);
    }
}

fn status(claim: &Claim, view: View) -> crate::status::Claim {
    crate::status::Claim {
        run: claim.run.clone(),
        held: view.held == Held::Yes,
        checked_at: view.checked_at_ns.map(rfc3339),
        state: view.held.word().to_owned(),
        detail: view.detail,
        duration_ms: clock::millis(view.duration),
        failures: view.failures,
        given_up: view.given_up,
    }
}
