//! The record of role changes: `wgha events`, kept over restarts.
//!
//! An event is written and shown to followers when the role changes. What came of it (how long
//! addresses, WireGuard and hooks took) is known later: each figure is added with
//! [`EventLog::update`], which appends the whole record once more under the same number. Readers
//! take the last record of each number, so a crash loses at most figures, never an event.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::state;

/// Events that are kept.
pub const MAX_EVENTS: usize = 1000;

/// Lines of the file at which it is written anew with the latest events alone.
const MAX_LINES: usize = 4 * MAX_EVENTS;

/// Events that a follower may be behind before it is told that it missed some.
const FOLLOW_BACKLOG: usize = 64;

/// The file's name in the state directory.
const FILE: &str = "events.jsonl";

/// Largest file that is read at the start, in bytes.
const MAX_FILE: u64 = 8 << 20;

/// One change of role, as `wgha events --json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When: RFC 3339, UTC, milliseconds.
    pub at: String,
    /// The role before, in a word.
    pub from: String,
    /// The role now, in a word.
    pub to: String,
    /// The term that it belongs to.
    pub term: u64,
    /// Why, for people.
    pub reason: String,
    /// How long its parts took.
    pub phases_ms: Phases,
}

/// How long the parts of a role change took, in milliseconds; `None`: not yet known, or no part of
/// this change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Phases {
    /// From the last sign of the old master to the decision.
    pub detect: Option<f64>,
    /// Until the floating IPs stood, or were gone.
    pub address: Option<f64>,
    /// Until they were announced.
    pub announce: Option<f64>,
    /// Until WireGuard was up, or down.
    pub wireguard: Option<f64>,
    /// Until the first handshake with a client.
    pub first_handshake: Option<f64>,
    /// Extension: until 90 % of the clients that were there before had a handshake.
    pub handshakes_90_percent: Option<f64>,
    /// Until the last hook ended.
    pub hooks: Option<f64>,
    /// Extension: from the order to get them until all claims were there.
    pub claims: Option<f64>,
}

/// A duration as a phase: milliseconds with one decimal.
#[must_use]
pub fn phase_ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// A wall-clock time (nanoseconds since 1970, not before) in RFC 3339, UTC, with milliseconds.
#[must_use]
pub fn rfc3339(wall_ns: i64) -> String {
    // humantime panics beyond the year 9999; an i64 of nanoseconds ends in 2262.
    let since = Duration::from_nanos(u64::try_from(wall_ns).unwrap_or(0));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

/// The number of an event in its log; it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EventId(u64);

/// The log. Clones share it.
///
/// Writing to the disk may wait for it: call [`push`](EventLog::push) and
/// [`update`](EventLog::update) off the protocol loop. A disk that refuses is named in the log of
/// the process once; events then live in memory.
#[derive(Clone, Debug)]
pub struct EventLog {
    inner: Arc<Mutex<Inner>>,
    followers: broadcast::Sender<Event>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: Option<File>,
    records: VecDeque<Record>,
    lines: usize,
    next: u64,
    disk_ok: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    id: EventId,
    #[serde(flatten)]
    event: Event,
}

impl EventLog {
    /// Opens the log of a state directory. A file with damaged lines is kept aside as
    /// `events.jsonl.corrupt` and goes on with the good ones; this never fails.
    #[must_use]
    pub fn open(state_dir: &Path) -> EventLog {
        let path = state_dir.join(FILE);
        let records = load(&path);
        let next = records.back().map_or(1, |r| r.id.0.saturating_add(1));
        let mut inner = Inner { path, file: None, records, lines: 0, next, disk_ok: true };
        inner.rewrite();
        let (followers, _) = broadcast::channel(FOLLOW_BACKLOG);
        EventLog { inner: Arc::new(Mutex::new(inner)), followers }
    }

    /// Records an event and shows it to followers.
    pub fn push(&self, event: Event) -> EventId {
        let mut inner = self.lock();
        let id = EventId(inner.next);
        inner.next = inner.next.saturating_add(1);
        let record = Record { id, event: event.clone() };
        inner.append(&record);
        inner.records.push_back(record);
        if inner.records.len() > MAX_EVENTS {
            inner.records.pop_front();
        }
        // Sent under the lock, so that `follow` neither misses nor repeats one. No follower: fine.
        let _ = self.followers.send(event);
        id
    }

    /// Adds what became known about an event. One that is no longer kept is left alone.
    pub fn update(&self, id: EventId, change: impl FnOnce(&mut Phases)) {
        let mut inner = self.lock();
        let Some(record) = inner.records.iter_mut().rev().find(|r| r.id == id) else { return };
        let before = record.event.phases_ms;
        change(&mut record.event.phases_ms);
        if record.event.phases_ms != before {
            let record = record.clone();
            inner.append(&record);
        }
    }

    /// The last `n` events, oldest first.
    #[must_use]
    pub fn last(&self, n: usize) -> Vec<Event> {
        last(&self.lock(), n)
    }

    /// The last change by which this node became master.
    #[must_use]
    pub fn last_takeover(&self) -> Option<Event> {
        let inner = self.lock();
        let became = |r: &&Record| r.event.to == "master" && r.event.from != "master";
        inner.records.iter().rev().find(became).map(|r| r.event.clone())
    }

    /// The last `n` events, and every later one as it happens (with the figures known then). A
    /// follower more than 64 events behind gets `Lagged`.
    #[must_use]
    pub fn follow(&self, n: usize) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let inner = self.lock();
        (last(&inner, n), self.followers.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Records are whole at every moment, so a panic elsewhere does not spoil them.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn last(inner: &Inner, n: usize) -> Vec<Event> {
    let skip = inner.records.len().saturating_sub(n);
    inner.records.iter().skip(skip).map(|r| r.event.clone()).collect()
}

impl Inner {
    fn append(&mut self, record: &Record) {
        if self.lines >= MAX_LINES || self.file.is_none() {
            self.rewrite();
        }
        let result = match &mut self.file {
            Some(file) => line_of(record).and_then(|line| file.write_all(&line)),
            None => return,
        };
        self.lines += 1;
        // After a failure the last line may be torn: the next append writes the file anew.
        if result.is_err() {
            self.file = None;
        }
        self.note(result);
    }

    /// Writes the kept events into a new file, which takes the old one's place.
    fn rewrite(&mut self) {
        self.file = None;
        let mut bytes = Vec::new();
        let result = self.records.iter().try_for_each(|record| {
            bytes.extend(line_of(record)?);
            Ok(())
        });
        let result = result.and_then(|()| state::replace(&self.path, &bytes)).and_then(|()| {
            self.file = Some(OpenOptions::new().append(true).mode(0o600).open(&self.path)?);
            Ok(())
        });
        self.lines = self.records.len();
        self.note(result);
    }

    /// Says once that the disk refuses, and once that it works again.
    fn note(&mut self, result: io::Result<()>) {
        match result {
            Err(e) if self.disk_ok => {
                tracing::error!(path = %self.path.display(), "events are kept in memory only: {e}");
                self.disk_ok = false;
            }
            Ok(()) if !self.disk_ok => {
                tracing::info!(path = %self.path.display(), "events are on disk again");
                self.disk_ok = true;
            }
            _ => {}
        }
    }
}

fn line_of(record: &Record) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    Ok(line)
}

/// The good records of the file, the last one of each number. Bad lines make a copy of the file,
/// except a torn last line, which a power cut leaves.
fn load(path: &Path) -> VecDeque<Record> {
    let bytes = match state::read_bounded(path, MAX_FILE) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return VecDeque::new(),
        Err(e) => {
            state::set_aside(path, &e.to_string());
            return VecDeque::new();
        }
    };
    let mut records: VecDeque<Record> = VecDeque::new();
    let mut bad = 0_usize;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        match serde_json::from_slice::<Record>(line) {
            Ok(new) => keep(&mut records, new),
            Err(_) if line.ends_with(b"\n") => bad += 1,
            Err(_) => tracing::info!(path = %path.display(), "the last event was torn; left out"),
        }
    }
    if bad > 0 {
        state::set_aside(path, &format!("{bad} damaged lines"));
    }
    records
}

fn keep(records: &mut VecDeque<Record>, new: Record) {
    match records.iter_mut().rev().find(|r| r.id == new.id) {
        Some(old) => *old = new,
        None => records.push_back(new),
    }
    if records.len() > MAX_EVENTS {
        records.pop_front();
    }
}
