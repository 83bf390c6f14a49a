//! The task of one claim.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;
use tracing::{info, warn};
use wgha_proto::Term;

use super::schedule::{Answer, Schedule};
use super::{Held, Mastership, Shared, Verb, View, Wanted};
use crate::clock;
use crate::config::Claim;
use crate::hooks::HookContext;
use crate::process::{self, Finished, Job, Outcome};

/// Characters of a program's last line that status shows.
const DETAIL: usize = 200;

/// Follows what is wanted of one claim.
pub(super) struct Worker {
    claim: Claim,
    index: usize,
    wanted: watch::Receiver<Wanted>,
    shared: Shared,
    marker: PathBuf,
    schedule: Schedule,
    /// The mastership that it works for.
    mastership: Option<Mastership>,
    /// When that began, until the claim is there.
    begun: Option<Instant>,
    seen: u64,
    /// The last of [`Wanted::moves`] that it knows.
    moves: u64,
    /// What it is for may not have led here when this node was last told that it does.
    astray: bool,
}

impl Worker {
    pub(super) fn new(
        claim: Claim,
        index: usize,
        wanted: watch::Receiver<Wanted>,
        shared: Shared,
        marker: PathBuf,
    ) -> Worker {
        let schedule = Schedule::new(claim.verify_every, claim.retries);
        Worker {
            claim,
            index,
            wanted,
            shared,
            marker,
            schedule,
            mastership: None,
            begun: None,
            seen: 0,
            moves: 0,
            astray: false,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            if wanted.generation != self.seen {
                self.seen = wanted.generation;
                self.follow(&wanted).await;
            }
            if wanted.stopping {
                return;
            }
            let Some((verb, at)) = self.schedule.next() else {
                if self.wanted.changed().await.is_err() {
                    return;
                }
                continue;
            };
            tokio::select! {
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep_until(at.into()) => self.turn(verb, &wanted).await,
            }
        }
    }

    /// Takes up what is wanted now.
    async fn follow(&mut self, wanted: &Wanted) {
        let acted = std::mem::replace(&mut self.mastership, wanted.mastership.clone());
        match &wanted.mastership {
            Some(now) => {
                if acted.as_ref().is_none_or(|before| before.term != now.term) {
                    self.begun = Some(Instant::now());
                }
                self.astray |= std::mem::replace(&mut self.moves, wanted.moves) != wanted.moves;
                self.schedule.begin(Instant::now());
            }
            None => {
                self.schedule.end();
                self.begun = None;
                self.publish(String::new(), Duration::ZERO, false);
                if let Some(acted) = acted.filter(|_| self.claim.release) {
                    // To its end, or the next role: giving up what is not ours any more is the program's to refuse.
                    let ended = self.program(Verb::Release, &wanted.context, &acted).await;
                    self.note(Verb::Release, &ended.0, &ended.1);
                }
            }
        }
    }

    async fn turn(&mut self, verb: Verb, wanted: &Wanted) {
        let Some(mastership) = self.mastership.clone() else { return };
        let (finished, last) = self.program(verb, &wanted.context, &mastership).await;
        if finished.outcome == Outcome::Cancelled {
            info!(target: "claim", claim = self.name(), verb = verb.word(), "ended by a newer role");
            return;
        }
        let answer = Answer::of(&finished.outcome);
        let before = self.schedule.held;
        self.schedule.ended(verb, answer, Instant::now(), chance());
        self.note(verb, &finished, &last);
        if (before, self.schedule.held) == (Held::Yes, Held::No) {
            warn!(target: "claim", claim = self.name(), "lost: asserted again");
            self.astray = true;
        }
        if self.schedule.given_up {
            let why = "it says that trying again is useless; it is tried in the next term, or after a reload";
            warn!(target: "claim", claim = self.name(), "given up: {why}");
        }
        if self.schedule.held == Held::Yes {
            self.arrived(mastership.term);
        }
        let detail = if last.is_empty() { finished.outcome.to_string() } else { last };
        let checked = matches!(answer, Answer::Mine | Answer::NotMine);
        self.publish(detail, finished.duration, checked);
    }

    fn arrived(&mut self, term: Term) {
        if let Some(begun) = self.begun.take() {
            let took = Some((term, begun.elapsed()));
            self.shared.lock().get_mut(self.index).into_iter().for_each(|view| view.took = took);
        }
        if std::mem::take(&mut self.astray) {
            *self.shared.arrived.lock().unwrap_or_else(PoisonError::into_inner) = Some(term);
        }
    }

    /// Runs the program and returns its end and its last line. A newer role ends it.
    async fn program(
        &self,
        verb: Verb,
        context: &HookContext,
        mastership: &Mastership,
    ) -> (Finished, String) {
        let mut job = job(&self.claim, verb, context, mastership);
        // What is given up is given up because another is master now.
        if verb != Verb::Release {
            job = job.env("WGHA_TERM_FILE", &self.marker.to_string_lossy());
        }
        let (mut wanted, seen) = (self.wanted.clone(), self.seen);
        let newer = async move {
            // An error means that nobody wants anything any more.
            let _ = wanted.wait_for(|wanted| wanted.generation != seen).await;
        };
        let mut last = String::new();
        let finished = process::run(&job, newer, |line| {
            info!(target: "claim", claim = self.name(), verb = verb.word(), "{line}");
            last = line.chars().filter(|c| !c.is_control()).take(DETAIL).collect();
        })
        .await;
        (finished, last)
    }

    fn note(&self, verb: Verb, finished: &Finished, last: &str) {
        let ms = clock::millis(finished.duration);
        let (claim, verb) = (self.name(), verb.word());
        match Answer::of(&finished.outcome) {
            Answer::Mine if verb == Verb::Verify.word() => {}
            Answer::Mine => info!(target: "claim", claim, verb, ms, "done"),
            _ => warn!(target: "claim", claim, verb, ms, "{}: {last}", finished.outcome),
        }
    }

    fn publish(&self, detail: String, duration: Duration, checked: bool) {
        let mut views = self.shared.lock();
        let Some(view) = views.get_mut(self.index) else { return };
        *view = View {
            held: self.schedule.held,
            detail,
            checked_at_ns: if checked { Some(clock::wall()) } else { view.checked_at_ns },
            duration,
            failures: self.schedule.failures,
            given_up: self.schedule.given_up,
            took: view.took,
        };
        drop(views);
        self.shared.changed.send_replace(());
    }

    fn name(&self) -> &str {
        self.claim.run.first().map_or("", String::as_str)
    }
}

/// The program with its verb, and the variables of the contract.
pub(super) fn job(claim: &Claim, verb: Verb, context: &HookContext, m: &Mastership) -> Job {
    let role = if verb == Verb::Release { "backup" } else { "master" };
    context
        .job(&claim.run, claim.timeout, claim.user.as_deref())
        .arg(verb.word())
        .env("WGHA_VERB", verb.word())
        .env("WGHA_ROLE", role)
        .env("WGHA_TERM", &m.term.to_string())
        .env("WGHA_REASON", &m.reason)
        .env("WGHA_MASTER", if verb == Verb::Release { "" } else { &context.node })
}

/// A number in 0..1; in the middle where the system has no randomness.
fn chance() -> f64 {
    let mut bytes = [0; 2];
    let random = SystemRandom::new().fill(&mut bytes);
    random.map_or(0.5, |()| f64::from(u16::from_le_bytes(bytes)) / 65_536.0)
}
