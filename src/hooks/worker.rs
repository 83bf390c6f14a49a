//! The task that runs hooks, and what it tells them.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{HookContext, HookLevel, HookResult, LevelDone, Results, Wanted, lock};
use crate::clock;
use crate::config::{Hook, HookState};
use crate::process::{self, Finished, Job, Outcome};

/// Runs the hooks of the latest level, one after the other.
pub(super) struct Worker {
    pub(super) wanted: watch::Receiver<Wanted>,
    pub(super) results: Results,
    pub(super) done: watch::Sender<Option<LevelDone>>,
}

impl Worker {
    pub(super) async fn run(mut self) {
        let mut ran = 0;
        loop {
            let wanted = match self.wanted.wait_for(|w| w.generation != ran).await {
                Ok(wanted) => wanted.clone(),
                Err(_) => return,
            };
            ran = wanted.generation;
            let Some(level) = &wanted.level else { continue };
            let started = Instant::now();
            if let Some(ok) = self.run_level(&wanted, level).await {
                let (state, term, duration) = (level.state, level.term, started.elapsed());
                self.done.send_replace(Some(LevelDone { state, term, duration, ok }));
            }
            if level.state == HookState::Stop {
                return;
            }
        }
    }

    /// Runs the hooks of one level: whether all succeeded, or `None` if a newer one came.
    async fn run_level(&self, wanted: &Wanted, level: &HookLevel) -> Option<bool> {
        let mut ok = true;
        for hook in wanted.hooks.iter().filter(|h| h.on.contains(&level.state)) {
            if superseded(&self.wanted, wanted.generation) {
                return None;
            }
            let outcome = self.run_hook(hook, wanted, level).await;
            if outcome == Outcome::Cancelled {
                return None;
            }
            ok &= outcome.is_success();
        }
        Some(ok)
    }

    async fn run_hook(&self, hook: &Hook, wanted: &Wanted, level: &HookLevel) -> Outcome {
        let name = hook.run.first().map_or("", String::as_str);
        let on = level.state.word();
        let (run, at_ns) = (hook.run.clone(), clock::wall());
        let running =
            HookResult { run, on: level.state, outcome: None, duration: Duration::ZERO, at_ns };
        self.keep(running.clone());
        let cancel = newer(self.wanted.clone(), wanted.generation);
        let job = job(hook, &wanted.context, level);
        let finished = process::run(&job, cancel, |line| {
            tracing::info!(target: "hook", hook = name, on, "{line}");
        })
        .await;
        log_end(name, on, &finished);
        let Finished { outcome, duration, .. } = finished;
        self.keep(HookResult { outcome: Some(outcome.clone()), duration, ..running });
        outcome
    }

    fn keep(&self, result: HookResult) {
        let mut results = lock(&self.results);
        match results.iter_mut().find(|r| r.run == result.run) {
            Some(old) => *old = result,
            None => results.push(result),
        }
    }
}

/// Whether a newer level came.
fn superseded(wanted: &watch::Receiver<Wanted>, generation: u64) -> bool {
    wanted.borrow().generation != generation
}

/// Ready when a newer level, or the end of the runner, makes this generation's hooks pointless.
async fn newer(mut wanted: watch::Receiver<Wanted>, generation: u64) {
    // An error means that the runner is gone, which ends the hooks as well.
    let _ = wanted.wait_for(|w| w.generation != generation).await;
}

fn log_end(hook: &str, on: &str, finished: &Finished) {
    let ms = clock::millis(finished.duration);
    let (outcome, dropped) = (&finished.outcome, finished.dropped_lines);
    if dropped > 0 {
        tracing::warn!(target: "hook", hook, on, dropped, "more output than is logged");
    }
    match outcome {
        Outcome::Exit(0) => tracing::info!(target: "hook", hook, on, ms, "done"),
        Outcome::Cancelled => {
            tracing::info!(target: "hook", hook, on, ms, "cancelled by a newer role")
        }
        _ => tracing::warn!(target: "hook", hook, on, ms, "{outcome}"),
    }
}

/// The hook's program with keepalived's arguments and the variables of ours.
fn job(hook: &Hook, context: &HookContext, level: &HookLevel) -> Job {
    let word = level.state.word();
    context
        .job(&hook.run, hook.timeout, hook.user.as_deref())
        .arg("INSTANCE")
        .arg(&context.cluster)
        .arg(&word.to_uppercase())
        .arg(&context.priority.to_string())
        .env("WGHA_ROLE", word)
        .env("WGHA_OLD_ROLE", level.old_role.word())
        .env("WGHA_TERM", &level.term.to_string())
        .env("WGHA_REASON", &level.reason)
        .env("WGHA_MASTER", level.master.as_deref().unwrap_or(""))
}
