//! Health checks: what makes a gateway that hears and is heard unfit to serve.
//!
//! Each check of the config runs in a task of its own, again and again and never twice at a time. `fall` failures in a row
//! make it fail, `rise` passes in a row make it pass again; a run that is not over after its timeout is a failure
//! then, not when it ends. The node is healthy while all pass, and is told so as a level: an unhealthy master
//! hands over to a healthy gateway, and serves on without one.
//!
//! ```text
//!   worker --run--> kinds (ping, interface, tcp, http, script, wireguard)
//!      |result
//!      v
//!   board: judges (rise, fall) --Health--> daemon::Input::Health
//!      +--> status, metrics, log
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};
use wgha_proto::{Health, Time};

mod http;
mod judge;
mod kinds;
mod names;
#[cfg(test)]
mod tests;
mod worker;

use crate::config::Check;
use crate::daemon::Input;
use crate::sync::Endpoints;
use judge::Judge;

/// What a run found: a line for people, and whether it is a pass.
type Found = Result<String, String>;

/// Runs all checks of the config. Dropping it kills what runs.
#[derive(Debug)]
pub struct Checks {
    board: Board,
    workers: Vec<Worker>,
    context: Context,
    /// Numbers the workers, so that none is taken for an earlier one of the same check.
    last: u64,
}

#[derive(Debug)]
struct Worker {
    id: u64,
    task: JoinHandle<()>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What scripts are told, and where handshakes are counted.
#[derive(Clone, Debug)]
pub struct Context {
    /// The cluster's name.
    pub cluster: String,
    /// This node's name.
    pub node: String,
    /// What the master's devices say of their clients.
    pub endpoints: Endpoints,
}

impl Checks {
    /// Starts a task for each check on the current tokio runtime.
    #[must_use]
    pub fn spawn(context: Context, checks: Vec<Check>) -> Checks {
        let health = watch::Sender::new(Health { ok: true, last_pass_began: None });
        let board = Board { slots: Arc::default(), health };
        let mut all = Checks { board, workers: Vec::new(), context, last: 0 };
        all.reconfigure(checks);
        all
    }

    /// Takes up other checks. Those that are the same go on, with what is known of them; the others begin anew.
    pub fn reconfigure(&mut self, checks: Vec<Check>) {
        let mut old = std::mem::take(&mut *self.board.lock());
        let mut slots = Vec::with_capacity(checks.len());
        let mut fresh = Vec::new();
        for check in checks {
            if let Some(at) = old.iter().position(|slot| slot.check == check) {
                slots.push(old.swap_remove(at));
                continue;
            }
            self.last += 1;
            let judge = Judge::new(check.rise, check.fall);
            fresh.push((self.last, check.clone()));
            let detail = "not run yet".to_owned();
            slots.push(Slot { id: self.last, check, judge, detail });
        }
        self.workers.retain(|worker| slots.iter().any(|slot| slot.id == worker.id));
        *self.board.lock() = slots;
        for (id, check) in fresh {
            let task = worker::run(id, check, self.context.clone(), self.board.clone());
            self.workers.push(Worker { id, task: tokio::spawn(task) });
        }
        self.board.publish();
    }

    /// The health of the node, as a level.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.board.health.subscribe()
    }

    /// For `wgha status`.
    #[must_use]
    pub fn status(&self) -> Vec<crate::status::Check> {
        let slots = self.board.lock();
        let status = |slot: &Slot| crate::status::Check {
            name: slot.check.name.clone(),
            ok: slot.judge.ok,
            detail: slot.detail.clone(),
        };
        slots.iter().map(status).collect()
    }
}

/// Tells the protocol each change of the health, without keeping it alive. Ends with either.
pub async fn tell(mut health: watch::Receiver<Health>, inputs: mpsc::WeakSender<Input>) {
    while health.changed().await.is_ok() {
        let now = *health.borrow_and_update();
        let Some(inputs) = inputs.upgrade() else { return };
        if inputs.send(Input::Health(now)).await.is_err() {
            return;
        }
    }
}

/// What workers write and everyone reads.
#[derive(Clone, Debug)]
struct Board {
    slots: Arc<Mutex<Vec<Slot>>>,
    health: watch::Sender<Health>,
}

/// One check and what is known of it.
#[derive(Debug)]
struct Slot {
    id: u64,
    check: Check,
    judge: Judge,
    detail: String,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Vec<Slot>> {
        // Plain values: a panic elsewhere does not spoil them.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the result of a run that began then.
    fn note(&self, id: u64, began: Time, found: Found) {
        let mut slots = self.lock();
        // None: a reload took it away.
        let Some(slot) = slots.iter_mut().find(|slot| slot.id == id) else { return };
        let (passed, detail) = match found {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        let changed = slot.judge.note(began, passed);
        let name = &slot.check.name;
        match (changed, passed) {
            (true, true) => info!(target: "check", "{name} passes again: {detail}"),
            (true, false) => warn!(target: "check", "{name} fails: {detail}"),
            (false, false) if slot.judge.ok => debug!(target: "check", "{name}: {detail}"),
            (false, _) => {}
        }
        slot.detail = detail;
        drop(slots);
        self.publish();
    }

    fn publish(&self) {
        let now = judge::health(self.lock().iter().map(|slot| &slot.judge));
        self.health.send_if_modified(|old| std::mem::replace(old, now) != now);
    }
}
