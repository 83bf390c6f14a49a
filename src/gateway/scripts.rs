//! PreUp, PostUp, PreDown, PostDown of wg-quick files: shell lines that run beside the takeover,
//! never in its way.
//!
//! PostUp runs once after each takeover, PreDown and PostDown once after it ends, in this order
//! always: a new takeover waits for nothing, but its PostUp waits for the PostDown before it. That
//! PostUp ran is on disk before it begins, so that a crash in the middle is undone.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::ledger::Ledger;
use crate::process::{self, Job};

/// Bound of one line; wg-quick itself has none.
pub const LINE_TIMEOUT: Duration = Duration::from_secs(30);

/// The lines of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// After link up.
    pub post_up: Vec<String>,
    /// After link down: a takeover must not wait for a script.
    pub pre_down: Vec<String>,
    /// After `pre_down`.
    pub post_down: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    up: bool,
    lines: BTreeMap<String, Lines>,
}

/// Owns the task that runs the lines. Dropping it kills a line that runs.
#[derive(Debug)]
pub struct Scripts {
    wanted: watch::Sender<Wanted>,
    /// The wanted state that the task has reached.
    reached: watch::Receiver<Option<bool>>,
    task: JoinHandle<()>,
}

impl Scripts {
    /// Starts the task on the current runtime. What an earlier run left up is taken down first,
    /// unless it is wanted up.
    #[must_use]
    pub fn spawn(ledger: Ledger) -> Scripts {
        let (wanted, seen) = watch::channel(Wanted::default());
        let (reached_tx, reached) = watch::channel(None);
        let runner = Runner { ledger, wanted: seen, reached: reached_tx };
        Scripts { wanted, reached, task: tokio::spawn(runner.run()) }
    }

    /// Which lines there are, by interface.
    pub fn set_lines(&self, lines: BTreeMap<String, Lines>) {
        self.wanted.send_modify(|w| w.lines = lines);
    }

    /// Makes PostUp (`true`) or PreDown and PostDown (`false`) have run. Returns at once.
    pub fn set(&self, up: bool) {
        self.wanted.send_if_modified(|w| std::mem::replace(&mut w.up, up) != up);
    }

    /// Waits until nothing of PostUp is left, for at most `bound`. False if it took longer.
    pub async fn wait_down(&mut self, bound: Duration) -> bool {
        self.set(false);
        let down = self.reached.wait_for(|reached| *reached == Some(false));
        tokio::time::timeout(bound, down).await.is_ok_and(|r| r.is_ok())
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Runner {
    ledger: Ledger,
    wanted: watch::Receiver<Wanted>,
    reached: watch::Sender<Option<bool>>,
}

impl Runner {
    async fn run(mut self) {
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            if wanted.up {
                self.up(&wanted).await;
            } else {
                self.down().await;
            }
            self.reached.send_replace(Some(wanted.up));
            if self.wanted.changed().await.is_err() {
                return;
            }
        }
    }

    async fn up(&mut self, wanted: &Wanted) {
        for (name, lines) in &wanted.lines {
            let ran = self.ledger.interface(name).is_some_and(|i| i.post_up_ran);
            if ran || !self.wanted.borrow().up {
                continue;
            }
            self.record(name, true, lines).await;
            for (number, line) in (1..).zip(&lines.post_up) {
                if !self.wanted.borrow().up {
                    break;
                }
                run_line("PostUp", number, name, line).await;
            }
        }
    }

    /// Runs the lines that were on record when the interface went up: the file may have others now.
    async fn down(&mut self) {
        for interface in self.ledger.applied().interfaces {
            if !interface.post_up_ran {
                continue;
            }
            run_down_lines(&interface.name, &interface.pre_down, &interface.post_down).await;
            self.record(&interface.name, false, &Lines::default()).await;
        }
    }

    async fn record(&self, name: &str, ran: bool, lines: &Lines) {
        let (ledger, name, lines) = (self.ledger.clone(), name.to_owned(), lines.clone());
        let write = move || {
            ledger.update_interface(&name, |interface| {
                interface.post_up_ran = ran;
                interface.pre_down = lines.pre_down;
                interface.post_down = lines.post_down;
            })
        };
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => error!("cannot record that PostUp ran: {e}"),
            Err(e) => error!("cannot record that PostUp ran: {e}"),
        }
    }
}

/// Runs an interface's PreDown and PostDown lines.
pub async fn run_down_lines(interface: &str, pre_down: &[String], post_down: &[String]) {
    for (key, lines) in [("PreDown", pre_down), ("PostDown", post_down)] {
        for (number, line) in (1..).zip(lines) {
            run_line(key, number, interface, line).await;
        }
    }
}

/// Runs one line as wg-quick does, with its output in the log. True if it ended with code 0.
///
/// The log names the line by its number among those of its key: a line may hold a secret.
pub async fn run_line(key: &str, number: usize, interface: &str, line: &str) -> bool {
    let job = Job::shell_line(&line.replace("%i", interface), LINE_TIMEOUT);
    let log = |text: &str| info!(target: "script", "{interface} {key} {number}: {text}");
    let finished = process::run(&job, std::future::pending(), log).await;
    let millis = finished.duration.as_millis();
    let ok = finished.outcome.is_success();
    if ok {
        info!(target: "script", "{interface} {key} {number}: done in {millis} ms");
    } else {
        warn!(target: "script", "{interface} {key} {number}: {} after {millis} ms", finished.outcome);
    }
    ok
}
