//! Writes what the protocol loop wants kept, without making it wait for a disk.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use wgha_proto::Term;

use super::{StateDir, StateError};

/// A thread that writes the latest of each fact. The calls never wait for the disk; when it is slow,
/// values in between are left out. Dropping it writes what is pending and waits for that.
///
/// A disk that refuses is named in the log, and the fact is written again with the next one.
#[derive(Debug)]
pub struct StateWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    highest_term: Option<Term>,
    maintenance: Option<bool>,
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
        let work = Arc::clone(&shared);
        let thread =
            thread::Builder::new().name("state".to_owned()).spawn(move || work.run(&dir))?;
        Ok(StateWriter { shared, thread: Some(thread) })
    }

    /// Keeps the highest term.
    pub fn highest_term(&self, term: Term) {
        self.shared.change(|pending| pending.highest_term = Some(term));
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
            failed = write(dir, now);
            if now.end {
                return;
            }
        }
    }

    /// Waits for something to write and takes it.
    fn next(&self) -> Pending {
        let idle = |p: &mut Pending| p.highest_term.is_none() && p.maintenance.is_none() && !p.end;
        let mut pending =
            self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *pending)
    }
}

/// What could not be written.
fn write(dir: &StateDir, now: Pending) -> Pending {
    let highest_term = now.highest_term.filter(|term| refused(dir.set_highest_term(*term)));
    let maintenance = now.maintenance.filter(|on| refused(dir.set_maintenance(*on)));
    Pending { highest_term, maintenance, end: false }
}

fn refused(result: Result<(), StateError>) -> bool {
    result.inspect_err(|e| tracing::error!("state not kept: {e}")).is_err()
}
