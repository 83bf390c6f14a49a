//! systemd's watchdog: fed only while the protocol's loop makes progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::warn;

use crate::guard::Line;
use crate::guard::will::Note;

/// Tells systemd that the daemon is ready and alive, through the guard, which is systemd's main process. Without
/// systemd it changes nothing.
#[derive(Debug)]
pub(super) struct Watchdog {
    line: Arc<Line>,
    turns: Arc<AtomicU64>,
    seen: u64,
    /// How often systemd wants to hear, halved; a default if it does not watch.
    pub(super) every: Duration,
    watched: bool,
    /// The line for `systemctl status`, as last told.
    said: String,
}

impl Watchdog {
    /// `line` leads to systemd, and tells of every turn of the protocol's loops.
    pub(super) fn new(line: Arc<Line>) -> Watchdog {
        let wanted = wanted(line.guard_id());
        let every = wanted.unwrap_or(Duration::from_secs(20)) / 2;
        Watchdog {
            turns: line.rounds(),
            line,
            seen: 0,
            every,
            watched: wanted.is_some(),
            said: String::new(),
        }
    }

    /// Feeds the watchdog if the loop has turned since the last call.
    pub(super) fn feed(&mut self) {
        let turns = self.turns.load(Ordering::Relaxed);
        if turns == self.seen {
            warn!("the protocol's loop makes no progress");
        } else if self.watched {
            self.tell(&Note::Alive);
        }
        self.seen = turns;
    }

    /// The daemon takes part in the cluster.
    pub(super) fn ready(&mut self, status: &str) {
        self.said = self.line_for(status);
        self.tell(&Note::Ready(self.said.clone()));
    }

    /// A line for `systemctl status`, told when it is another one.
    pub(super) fn status(&mut self, status: &str) {
        let line = self.line_for(status);
        if self.said != line {
            self.said = line;
            self.tell(&Note::Status(self.said.clone()));
        }
    }

    /// One line for all clusters of the process.
    fn line_for(&self, status: &str) -> String {
        match self.line.clusters() {
            1 => status.to_owned(),
            n => format!("a witness of {n} clusters"),
        }
    }

    /// Feeds it in any case until the process ends, which it does within bounds of its own. Call inside the runtime.
    pub(super) fn keep_fed(&mut self) {
        self.status("upgrading");
        if self.watched {
            let (line, mut tick) = (Arc::clone(&self.line), tokio::time::interval(self.every));
            tokio::spawn(async move {
                loop {
                    tick.tick().await;
                    tell(&line, &Note::Alive);
                }
            });
        }
    }

    /// The daemon ends. One of several clusters may do so alone, and be begun again.
    pub(super) fn stopping(&self) {
        if self.line.clusters() == 1 {
            self.tell(&Note::Stopping);
        }
    }

    fn tell(&self, note: &Note) {
        tell(&self.line, note);
    }
}

fn tell(line: &Line, note: &Note) {
    // A guard that is gone is noticed elsewhere; one that does not read hangs, and then systemd is to notice.
    if let Err(e) = line.tell_systemd(note) {
        warn!("the guard does not hear what systemd is to be told: {e}");
    }
}

/// What systemd wants of its main process, which is not this one.
fn wanted(main: u32) -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(main));
    number("WATCHDOG_USEC").filter(|us| ours && *us > 0).map(Duration::from_micros)
}
