//! When a claim's program is run next, and what its answers mean. Pure: time and chance come in as arguments.

use std::time::{Duration, Instant};

use super::Verb;
use crate::process::Outcome;

/// After the first failure, and doubled after each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait between tries, before the pace falls to that of `verify`.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Whether this node has what a claim is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Held {
    /// Nobody asked, or no answer could be had. Never taken for a loss.
    #[default]
    Unknown,
    /// It has.
    Yes,
    /// Another has it, or nobody.
    No,
}

impl Held {
    /// As in status.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Held::Unknown => "unknown",
            Held::Yes => "held",
            Held::No => "not held",
        }
    }
}

/// What a program's end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Done, or mine.
    Mine,
    NotMine,
    Unknown,
    Again,
    GiveUp,
}

impl Answer {
    /// By the exit codes of the contract. What is no answer at all (a signal, the timeout, another code) is worth another
    /// try; a program that cannot be started is not.
    pub(super) fn of(outcome: &Outcome) -> Answer {
        match outcome {
            Outcome::Exit(0) => Answer::Mine,
            Outcome::Exit(3) => Answer::NotMine,
            Outcome::Exit(4) => Answer::Unknown,
            Outcome::Exit(78) | Outcome::NotStarted(_) => Answer::GiveUp,
            Outcome::Exit(_) | Outcome::Signal(_) | Outcome::TimedOut | Outcome::Cancelled => {
                Answer::Again
            }
        }
    }
}

/// One claim's plan.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    verify_every: Duration,
    /// So many tries come quickly after a failure; then the pace is that of `verify`.
    retries: u32,
    pub(super) held: Held,
    pub(super) failures: u32,
    pub(super) given_up: bool,
    next: Option<(Verb, Instant)>,
}

impl Schedule {
    pub(super) fn new(verify_every: Duration, retries: u32) -> Schedule {
        Schedule {
            verify_every,
            retries,
            held: Held::Unknown,
            failures: 0,
            given_up: false,
            next: None,
        }
    }

    /// This node is master in a new term, or is to make sure once more.
    pub(super) fn begin(&mut self, now: Instant) {
        (self.failures, self.given_up) = (0, false);
        self.next = Some((Verb::Assert, now));
    }

    /// This node is not master: it asks nobody, and knows nothing.
    pub(super) fn end(&mut self) {
        (self.held, self.failures, self.given_up, self.next) = (Held::Unknown, 0, false, None);
    }

    /// What is to be run, and when.
    pub(super) fn next(&self) -> Option<(Verb, Instant)> {
        self.next
    }

    /// Takes an answer. `chance` is in 0..1: two gateways, and two claims of one, do not try in step.
    pub(super) fn ended(&mut self, verb: Verb, answer: Answer, now: Instant, chance: f64) {
        if answer == Answer::Mine {
            (self.held, self.failures) = (Held::Yes, 0);
            // A tenth earlier at most.
            let wait = self.verify_every.mul_f64(1.0 - chance / 10.0);
            self.next = Some((Verb::Verify, now + wait));
            return;
        }
        if (verb, answer) == (Verb::Verify, Answer::NotMine) {
            self.held = Held::No;
            self.next = Some((Verb::Assert, now));
            return;
        }
        self.failures = self.failures.saturating_add(1);
        match answer {
            Answer::NotMine => self.held = Held::No,
            // What was said before is not taken back by a failed try.
            Answer::Again if verb == Verb::Assert => {}
            _ => self.held = Held::Unknown,
        }
        if answer == Answer::GiveUp {
            (self.given_up, self.next) = (true, None);
            return;
        }
        // After an unknown only a question: nothing says that it was lost.
        let asks = verb == Verb::Verify || answer == Answer::Unknown;
        let verb = if asks { Verb::Verify } else { Verb::Assert };
        self.next = Some((verb, now + self.wait(chance)));
    }

    /// Doubled each time, half of it by chance.
    fn wait(&self, chance: f64) -> Duration {
        let doubled = FIRST_WAIT * 2_u32.saturating_pow(self.failures.saturating_sub(1).min(16));
        let quick = doubled.min(LONGEST_WAIT).mul_f64(0.5 + chance / 2.0);
        if self.failures > self.retries { quick.max(self.verify_every) } else { quick }
    }
}
