//! When to ask, and what the answers are worth. Pure: no socket, no clock.
//!
//! ```text
//!              first answer              MISSES unanswered in a row, at rest
//!   new source ────────────► usual ────────────────────────────────────────► no source
//!                              │ ▲
//!     no answer within patience│ │an answer
//!                              ▼ │
//!                            silent
//! ```
//! A source that never answered says nothing by its silence. One that usually answers is given up only
//! *at rest*, while the other nodes are heard: then its silence is its own affair. While a node is
//! missed, silence is what evidence is about.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use wgha_proto::{Evidence, Time};

/// The pause between questions at rest.
pub const AT_REST: Duration = Duration::from_secs(10);

/// Questions in a row that a source leaves unanswered at rest until it is none any more.
pub const MISSES: u32 = 6;

/// Sources that are kept.
pub const MAX_SOURCES: usize = 8;

/// While evidence is wanted: so many questions come at the fast pace.
const FAST: u32 = 16;

/// The fast pace is a quarter of the interval between heartbeats, within these.
const FAST_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// Then it is an interval, within these, while nothing answers ...
const SILENT_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// ... and this while something does.
const ANSWERED_PAUSE: Duration = Duration::from_secs(1);

/// Without an answer for half an interval a source is silent, within these; at rest for the longest.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// An answer that comes later than this answers something else.
const ANSWER_BOUND: Duration = Duration::from_secs(1);

/// How long a tunnel's word counts where the sources are silent: longer than the slowest poll.
const TUNNEL_FRESH: Duration = Duration::from_secs(20);

/// What names a source: its interface and its address.
pub type Key = (String, IpAddr);

/// What is known of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub key: Key,
    /// It can be asked now.
    pub present: bool,
    /// It usually answers.
    pub usual: bool,
    /// When it was last asked.
    pub asked: Option<Time>,
    /// When the newest question was asked that it answered.
    pub answered: Option<Time>,
    /// Questions without answer, oldest first.
    open: VecDeque<Time>,
    /// The first question since the last answer.
    unanswered_since: Option<Time>,
    /// Questions at rest since the last answer.
    misses: u32,
}

impl Known {
    fn new(key: Key, usual: bool) -> Known {
        Known {
            key,
            present: true,
            usual,
            asked: None,
            answered: None,
            open: VecDeque::new(),
            unanswered_since: None,
            misses: 0,
        }
    }

    /// It left a question unanswered for this long.
    #[must_use]
    pub fn is_silent(&self, now: Time, patience: Duration) -> bool {
        self.unanswered_since.is_some_and(|since| now >= since + patience)
    }
}

/// Decides when to ask, and what the answers are worth.
///
/// Call what happened, then [`ask`](Judge::ask) and, if it says so, ask every source; then read
/// [`evidence`](Judge::evidence), and call again at [`next`](Judge::next) at the latest.
#[derive(Debug)]
pub struct Judge {
    interval: Duration,
    wanted: bool,
    /// Questions since evidence is wanted.
    count: u32,
    next_ask: Time,
    sources: Vec<Known>,
    /// Usual in an earlier run, and not seen yet in this one.
    remembered: Vec<Key>,
}

impl Judge {
    /// A judge without sources. `interval`: of heartbeats; `remembered`: sources that usually
    /// answered an earlier run.
    #[must_use]
    pub fn new(interval: Duration, remembered: Vec<Key>) -> Judge {
        Judge {
            interval,
            wanted: false,
            count: 0,
            next_ask: Time::ZERO,
            sources: Vec::new(),
            remembered,
        }
    }

    /// Another interval of heartbeats.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Forgets everything: the operator named other sources.
    pub fn forget(&mut self) {
        self.sources.clear();
        self.remembered.clear();
    }

    /// The sources that can be asked now. One that usually answers and vanished is kept, silent: with
    /// its link a machine often loses its routes, and must not take that for a lack of routers.
    pub fn set_sources(&mut self, now: Time, keys: &[Key]) {
        for source in &mut self.sources {
            source.present = keys.contains(&source.key);
        }
        self.sources.retain(|source| source.present || source.usual);
        for key in keys {
            if self.sources.iter().all(|s| s.key != *key) && self.sources.len() < MAX_SOURCES {
                let usual = self.remembered.contains(key);
                self.sources.push(Known::new(key.clone(), usual));
                self.next_ask = now;
            }
        }
        self.remembered.retain(|key| !keys.contains(key));
    }

    /// Whether evidence is wanted: then it is asked for at once.
    pub fn want(&mut self, now: Time, wanted: bool) {
        if self.wanted == wanted {
            return;
        }
        self.wanted = wanted;
        self.count = 0;
        if wanted {
            self.next_ask = now;
        }
        for source in &mut self.sources {
            source.misses = 0;
        }
    }

    /// Whether every source is to be asked now; taken as done.
    pub fn ask(&mut self, now: Time) -> bool {
        if now < self.next_ask {
            return false;
        }
        if !self.wanted {
            self.give_up();
        }
        for source in &mut self.sources {
            source.asked = Some(now);
            source.unanswered_since.get_or_insert(now);
            source.open.retain(|at| now.since(*at) < ANSWER_BOUND);
            source.open.push_back(now);
            source.misses += u32::from(!self.wanted);
        }
        self.count = self.count.saturating_add(1);
        self.next_ask = now + self.pause(now);
        !self.sources.is_empty()
    }

    fn pause(&self, now: Time) -> Duration {
        if !self.wanted {
            AT_REST
        } else if self.count < FAST {
            (self.interval / 4).clamp(FAST_PAUSE.0, FAST_PAUSE.1)
        } else if matches!(self.evidence(now, None), Evidence::Silent) {
            self.interval.clamp(SILENT_PAUSE.0, SILENT_PAUSE.1)
        } else {
            ANSWERED_PAUSE
        }
    }

    /// At rest: what does not answer any more is no source, and what went away is forgotten when
    /// there is another one.
    fn give_up(&mut self) {
        for source in self.sources.iter_mut().filter(|source| source.misses >= MISSES) {
            source.usual = false;
        }
        let other = self.sources.iter().any(|s| s.present && s.usual);
        self.sources.retain(|s| s.present || s.usual && !other);
    }

    /// A source answered. The oldest question of the last second counts as the answered one: that is
    /// never too favourable.
    pub fn answered(&mut self, now: Time, key: &Key) {
        let Some(source) = self.sources.iter_mut().find(|s| s.key == *key) else { return };
        source.open.retain(|at| now.since(*at) < ANSWER_BOUND);
        let Some(asked) = source.open.front().copied() else { return };
        source.open.clear();
        source.answered = Some(asked);
        source.unanswered_since = None;
        source.misses = 0;
        source.usual = true;
    }

    /// What all answers are worth now. `tunnel`: since then an authenticated packet of a client came
    /// through a tunnel of this node as master.
    #[must_use]
    pub fn evidence(&self, now: Time, tunnel: Option<Time>) -> Evidence {
        let usual = || self.sources.iter().filter(|source| source.usual);
        if usual().next().is_none() {
            return tunnel.map_or(Evidence::NoSource, Evidence::Answered);
        }
        let speaking = usual().filter(|source| !source.is_silent(now, self.patience()));
        let best = speaking.filter_map(|source| source.answered).max();
        let fresh = tunnel.filter(|at| best.is_some() || now.since(*at) < TUNNEL_FRESH);
        best.max(fresh).map_or(Evidence::Silent, Evidence::Answered)
    }

    /// How long an answer may take.
    #[must_use]
    pub fn patience(&self) -> Duration {
        if self.wanted { (self.interval / 2).clamp(PATIENCE.0, PATIENCE.1) } else { PATIENCE.1 }
    }

    /// When to look again at the latest.
    #[must_use]
    pub fn next(&self, now: Time) -> Time {
        let patience = self.patience();
        let overdue = self.sources.iter().filter_map(|s| Some(s.unanswered_since? + patience));
        overdue.filter(|at| *at > now).fold(self.next_ask, Time::min)
    }

    /// Whether evidence is wanted.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// All sources.
    #[must_use]
    pub fn sources(&self) -> &[Known] {
        &self.sources
    }
}

#[cfg(test)]
mod tests;
