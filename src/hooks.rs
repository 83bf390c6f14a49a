//! Runs the `[[hook]]` programs of the config after a change of role.
//!
//! One worker runs one program at a time, in the order of the file, never through a shell. It
//! follows a level, not a queue: a newer level cancels the program that runs for an older one, and
//! however often the role flapped, only the latest level is run after it. So the last hook that ran
//! on a node matches the role it ended in.

#[cfg(test)]
mod tests;
mod worker;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use wgha_proto::{Role, Term};

use crate::clock;
use crate::config::{Hook, HookState};
use crate::events;
use crate::process::{Job, Outcome};
use worker::Worker;

/// What every hook of a process is told, whatever the role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookContext {
    /// The cluster's name.
    pub cluster: String,
    /// The local node's name.
    pub node: String,
    /// The local node's priority, 1..=255.
    pub priority: u8,
    /// Floating IPs with their prefix lengths.
    pub floating_ips: Vec<String>,
    /// WireGuard interfaces.
    pub interfaces: Vec<String>,
}

impl HookContext {
    /// `run`, the program and its arguments, with the variables that hooks and claims have in common.
    pub(crate) fn job(&self, run: &[String], timeout: Duration, user: Option<&str>) -> Job {
        let (program, args) = run.split_first().map_or(("", [].as_slice()), |(p, a)| (p, a));
        // Whole seconds, because shells cannot count in anything else; the program is to end before.
        let deadline = timeout.as_secs().max(1);
        Job::new(program, args, timeout)
            .as_user(user)
            .env("WGHA_CLUSTER", &self.cluster)
            .env("WGHA_NODE", &self.node)
            .env("WGHA_FLOATING_IPS", &self.floating_ips.join(" "))
            .env("WGHA_INTERFACES", &self.interfaces.join(" "))
            .env("WGHA_DEADLINE_S", &deadline.to_string())
    }
}

/// The level that hooks follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookLevel {
    /// What the node is now, or that the process ends.
    pub state: HookState,
    /// What it was before.
    pub old_role: Role,
    /// My term if master, else the highest known.
    pub term: Term,
    /// Why, for people.
    pub reason: String,
    /// Who is master, as far as known.
    pub master: Option<String>,
}

/// The last run of one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookResult {
    /// Program and arguments, as configured.
    pub run: Vec<String>,
    /// The state it ran for.
    pub on: HookState,
    /// How it ended; `None` while it runs.
    pub outcome: Option<Outcome>,
    /// How long it ran; zero while it runs.
    pub duration: Duration,
    /// When it started: nanoseconds of the wall clock.
    pub at_ns: i64,
}

/// Every hook of one level has ended by itself or by its timeout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelDone {
    /// The level's state.
    pub state: HookState,
    /// The level's term.
    pub term: Term,
    /// From the level's arrival to the end of the last hook.
    pub duration: Duration,
    /// Every hook ended with exit code 0.
    pub ok: bool,
}

/// Owns the worker. Dropping it kills a hook that runs.
///
/// `set`, `reconfigure` and `results` never wait. After [`stop`](HookRunner::stop) nothing runs
/// any more; later calls change nothing.
#[derive(Debug)]
pub struct HookRunner {
    wanted: watch::Sender<Wanted>,
    results: Results,
    done: watch::Receiver<Option<LevelDone>>,
    worker: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct Wanted {
    /// Grows with every level that differs from the one before; 0: none yet.
    generation: u64,
    level: Option<HookLevel>,
    hooks: Arc<Vec<Hook>>,
    context: Arc<HookContext>,
}

type Results = Arc<Mutex<Vec<HookResult>>>;

impl HookRunner {
    /// Starts the worker on the current tokio runtime. Nothing runs before the first
    /// [`set`](HookRunner::set).
    #[must_use]
    pub fn spawn(context: HookContext, hooks: Vec<Hook>) -> HookRunner {
        let (hooks, context) = (Arc::new(hooks), Arc::new(context));
        let (wanted, seen) = watch::channel(Wanted { generation: 0, level: None, hooks, context });
        let (done_tx, done) = watch::channel(None);
        let results = Results::default();
        let worker = Worker { wanted: seen, results: results.clone(), done: done_tx };
        HookRunner { wanted, results, done, worker: tokio::spawn(worker.run()) }
    }

    /// Makes the hooks follow this level.
    ///
    /// The level set last, once more, changes nothing; for states other than `Master` a new term
    /// alone does not make a new level, because a backup has nothing to do when others elect.
    pub fn set(&self, level: HookLevel) {
        self.wanted.send_if_modified(|wanted| {
            let same = wanted.level.as_ref().is_some_and(|old| is_same(old, &level));
            if same || is_stopping(wanted) {
                return false;
            }
            wanted.generation += 1;
            wanted.level = Some(level);
            true
        });
    }

    /// Replaces the hooks and what they are told, from the next level on. A hook that runs now is
    /// left alone.
    pub fn reconfigure(&self, context: HookContext, hooks: Vec<Hook>) {
        let mut results = lock(&self.results);
        results.retain(|r| hooks.iter().any(|h| h.run == r.run));
        drop(results);
        self.wanted.send_modify(|wanted| {
            wanted.hooks = Arc::new(hooks);
            wanted.context = Arc::new(context);
        });
    }

    /// The last run of each hook, in the order of their first runs.
    #[must_use]
    pub fn results(&self) -> Vec<HookResult> {
        lock(&self.results).clone()
    }

    /// Changes each time when all hooks of a level have ended without being superseded.
    #[must_use]
    pub fn done(&self) -> watch::Receiver<Option<LevelDone>> {
        self.done.clone()
    }

    /// Cancels what runs, runs the `stop` hooks (`level.state` is taken as `Stop`) and ends the
    /// worker. Takes at most their timeouts, plus [`process::GRACE`] for each run that is ended.
    pub async fn stop(mut self, level: HookLevel) {
        self.set(HookLevel { state: HookState::Stop, ..level });
        if let Err(e) = (&mut self.worker).await {
            tracing::error!("the hook worker died: {e}");
        }
    }
}

impl Drop for HookRunner {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

fn is_same(old: &HookLevel, new: &HookLevel) -> bool {
    old.state == new.state && (old.term == new.term || new.state != HookState::Master)
}

fn is_stopping(wanted: &Wanted) -> bool {
    wanted.level.as_ref().is_some_and(|level| level.state == HookState::Stop)
}

fn lock(results: &Mutex<Vec<HookResult>>) -> std::sync::MutexGuard<'_, Vec<HookResult>> {
    // The list is whole at every moment, so a panic elsewhere does not spoil it.
    results.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<&HookResult> for crate::status::Hook {
    fn from(result: &HookResult) -> Self {
        let outcome = result.outcome.as_ref();
        crate::status::Hook {
            run: result.run.clone(),
            on: result.on.word().to_owned(),
            exit: outcome.and_then(Outcome::exit_code),
            duration_ms: clock::millis(result.duration),
            at: events::rfc3339(result.at_ns),
            outcome: outcome.map_or_else(|| "running".to_owned(), ToString::to_string),
        }
    }
}
