//! Writes what the protocol loop wants kept, without making it wait for a disk.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wgha_proto::{Term, VoteRecord};

use super::{StateDir, StateError};

/// A thread that writes the latest of each fact. The calls never wait for the disk; when it is slow,
/// values in between are left out. Dropping it writes what is pending and waits for that.
///
/// A disk that refuses is named in the log, and the fact is written again with the next one.
#[derive(Debug)]
pub struct StateWriter {
    shared: Arc<Shared>,
    dir: Arc<StateDir>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Clone, Debug, Default)]
struct Pending {
    highest_term: Option<Term>,
    maintenance: Option<bool>,
    votes: Option<VoteRecord>,
    /// No record of votes is written with a shorter duration than this.
    longest: Duration,
    end: bool,
}

impl StateWriter {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system has no thread for us.
    pub fn start(dir: Arc<StateDir>) -> std::io::Result<StateWriter> {
        let shared = Arc::new(Shared::default());
        let (work, to) = (Arc::clone(&shared), Arc::clone(&dir));
        let thread =
            thread::Builder::new().name("state".to_owned()).spawn(move || work.run(&to))?;
        Ok(StateWriter { shared, dir, thread: Some(thread) })
    }

    /// Keeps the highest term.
    pub fn highest_term(&self, term: Term) {
        self.shared.change(|pending| pending.highest_term = Some(term));
    }

    /// Keeps what must be known of votes.
    pub fn votes(&self, votes: VoteRecord) {
        self.shared.change(|pending| pending.votes = Some(votes));
    }

    /// Puts on disk that leases of this duration may be granted from now on, before it returns. Until the process ends
    /// no record says less.
    ///
    /// # Errors
    ///
    /// The disk refuses: then no such lease may be granted.
    pub fn longest_lease(&self, longest: Duration) -> Result<(), StateError> {
        // The lock is held while it is written, so that no older record follows it.
        let mut pending = self.shared.lock();
        pending.longest = pending.longest.max(longest);
        let Some(mut votes) = self.dir.votes() else {
            // Without a memory the longest that there is stands.
            return Ok(());
        };
        votes.longest = votes.longest.max(pending.longest);
        self.dir.set_votes(&votes)
    }

    /// Keeps whether maintenance is on.
    pub fn maintenance(&self, on: bool) {
        self.shared.change(|pending| pending.maintenance = Some(on));
    }
}

impl Drop for StateWriter {
    fn drop(&mut self) {
        self.shared.change(|pending| pending.end = true);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes the state died");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // The values are whole at every moment, so a panic elsewhere does not spoil them.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Pending)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }

    fn run(&self, dir: &StateDir) {
        let mut failed = Pending::default();
        loop {
            let mut now = self.next();
            now.highest_term = now.highest_term.or(failed.highest_term);
            now.maintenance = now.maintenance.or(failed.maintenance);
            now.votes = now.votes.or(failed.votes);
            let end = now.end;
            failed = self.write(dir, now);
            if end {
                return;
            }
        }
    }

    /// Waits for something to write and takes it.
    fn next(&self) -> Pending {
        let idle = |p: &mut Pending| {
            p.highest_term.is_none() && p.maintenance.is_none() && p.votes.is_none() && !p.end
        };
        let mut pending =
            self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let longest = pending.longest;
        std::mem::replace(&mut *pending, Pending { longest, ..Pending::default() })
    }

    /// What could not be written.
    fn write(&self, dir: &StateDir, now: Pending) -> Pending {
        let highest_term = now.highest_term.filter(|term| refused(dir.set_highest_term(*term)));
        let maintenance = now.maintenance.filter(|on| refused(dir.set_maintenance(*on)));
        let votes = now.votes.filter(|votes| refused(self.write_votes(dir, votes)));
        Pending { highest_term, maintenance, votes, ..Pending::default() }
    }

    fn write_votes(&self, dir: &StateDir, votes: &VoteRecord) -> Result<(), StateError> {
        let pending = self.lock();
        let longest = votes.longest.max(pending.longest);
        dir.set_votes(&VoteRecord { longest, ..votes.clone() })
    }
}

fn refused(result: Result<(), StateError>) -> bool {
    result.inspect_err(|e| tracing::error!("state not kept: {e}")).is_err()
}
