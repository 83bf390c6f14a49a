//! The gate as it stands in the kernel: built, renewed, looked at, put back.
//!
//! A renewal that had to wait is not applied late. It names the generation of the ruleset that it was
//! made for, and the kernel refuses it (`ERESTART`) when another transaction came first; then it is
//! made again with the time that is left. The generation also says that nobody changed anything
//! since the last look, so that a look costs one question.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use wgha_proto::Time;

use super::Turns;
use super::permit::Permit;
use super::ruleset::{self, Plan, SHORTEST, Turn};
use super::snapshot::Snapshot;
use crate::clock;
use crate::net::nft::{Connection, Subscription};

/// Attempts at one change while others change the ruleset; the last takes any generation.
const TRIES: u32 = 5;
/// A renewal that took longer is made again with the time that is left then: behind a transaction that
/// was called off, which makes no generation, or as one for any generation, it would count from too late.
const STRETCH: Duration = Duration::from_millis(2);
/// At least this long from one rebuilding to the next.
const GAP: Duration = Duration::from_millis(25);

/// What is to be kept, and how it went so far.
pub(super) struct Job {
    /// Of both tables.
    pub(super) name: String,
    pub(super) plan: Plan,
    pub(super) permit: Permit,
    pub(super) turns: Turns,
    /// How often what others removed was put back.
    pub(super) restored: u64,
}

impl Job {
    /// Until when the gate should be open, and how long that is from `now` on, in milliseconds; `None`: shut.
    fn wanted(&self) -> (Time, Time, Option<u64>) {
        // The deadline first: the time that is left can only come out too short.
        let until = self.permit.until();
        let now = clock::now();
        let left = clock::millis(until.since(now));
        (until, now, (left >= SHORTEST).then_some(left))
    }

    /// Notes a change that stands: wanted at `begun`, made at `now`.
    fn note(&mut self, until: Time, begun: Time, now: Time, open: bool) {
        let turns = &mut self.turns;
        turns.lapsed += u64::from(open && turns.open_until > Time::ZERO && turns.open_until < now);
        turns.renewed += 1;
        turns.slowest = turns.slowest.max(clock::now().since(begun));
        turns.open_until = if open { until } else { Time::ZERO };
    }
}

pub(super) struct Kernel {
    connection: Connection,
    subscription: Subscription,
    /// What stood after the last building.
    built: Snapshot,
    built_at: Time,
    /// The ruleset's generation when all was as it should be.
    generation: u32,
    /// A change by others was passed over, for the sake of a renewal.
    unseen: bool,
    /// The permit that the elements are made by; `None`: they stand for longer, and are to be made again.
    applied: Option<Time>,
    open: Turn,
    shut: Turn,
}

impl Kernel {
    /// Builds the tables anew, as open as the permit says.
    ///
    /// # Errors
    /// Why this machine has no gate, or nothing to guard.
    pub(super) fn build(job: &mut Job) -> io::Result<Kernel> {
        if job.plan.is_empty() {
            return Err(io::Error::other("nothing to guard"));
        }
        let mut kernel = Kernel {
            connection: Connection::open()?,
            subscription: Subscription::open()?,
            built: Snapshot::default(),
            built_at: Time::ZERO,
            generation: 0,
            unseen: false,
            applied: None,
            open: Turn::open(&job.name, &job.plan),
            shut: Turn::shut(&job.name, &job.plan),
        };
        kernel.rebuild(job)?;
        Ok(kernel)
    }

    /// Readable when anybody changed the ruleset.
    pub(super) fn changed(&self) -> BorrowedFd<'_> {
        self.subscription.changed()
    }

    /// What stands is not what the permit says.
    pub(super) fn is_behind(&self, permit: &Permit) -> bool {
        self.applied != Some(permit.until())
    }

    /// Applies a batch of the caller's.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn commit(&mut self, batch: &[u8]) -> io::Result<()> {
        self.connection.commit(batch)
    }

    /// Follows the permit, then looks at the ruleset if it was changed or `due`. True if it looked.
    ///
    /// # Errors
    /// `ResourceBusy`: it is to be looked at again in a moment. Else: the gate cannot be kept.
    pub(super) fn turn(&mut self, job: &mut Job, due: bool) -> io::Result<bool> {
        if self.is_behind(&job.permit) {
            self.renew(job)?;
        }
        // Changes of our own are told like any other; they are seen by the generation.
        let told = self.subscription.drain()?;
        if !told && !due && !self.unseen {
            return Ok(false);
        }
        let generation = self.connection.generation()?;
        if generation != self.generation || self.unseen {
            self.look(job, generation)?;
        }
        Ok(true)
    }

    /// Somebody changed the ruleset: ours may be gone, or opened.
    fn look(&mut self, job: &mut Job, generation: u32) -> io::Result<()> {
        let families = job.plan.families();
        let found = Snapshot::take(&mut self.connection, &job.name, &families);
        if matches!(&found, Err(e) if e.kind() == io::ErrorKind::Interrupted) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        if found? != self.built {
            if clock::now().since(self.built_at) < GAP {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            job.restored += 1;
            return self.rebuild(job);
        }
        (self.generation, self.unseen) = (generation, false);
        self.renew(job)
    }

    /// Opens until the permit's end, or shuts.
    fn renew(&mut self, job: &mut Job) -> io::Result<()> {
        let begun = clock::now();
        for attempt in 1..=TRIES {
            let (until, now, left) = job.wanted();
            let generation = if attempt < TRIES { self.generation } else { 0 };
            let batch = match left {
                Some(ms) => self.open.at(generation, ms),
                None => self.shut.at(generation, 1),
            };
            match self.connection.commit(batch) {
                Ok(()) => {
                    self.unseen |= generation == 0;
                    self.generation = following(self.generation);
                    self.applied = stands(until, left, clock::now().since(now));
                    // After the last one there is a look at what else is to be done first.
                    if self.applied.is_none() && attempt < TRIES {
                        continue;
                    }
                    job.note(until, begun, now, left.is_some());
                    return Ok(());
                }
                Err(e) if is(&e, Errno::ERESTART) => {
                    (self.generation, self.unseen) = (self.connection.generation()?, true);
                }
                // Flushed a moment ago.
                Err(e) if is(&e, Errno::ENOENT) => {
                    job.restored += 1;
                    return self.rebuild(job);
                }
                Err(e) => return Err(e),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Everything anew, with the elements, in one transaction: nothing passes in between that should not,
    /// and nothing is dropped that should pass.
    fn rebuild(&mut self, job: &mut Job) -> io::Result<()> {
        let begun = clock::now();
        for _ in 0..TRIES {
            let before = self.connection.generation()?;
            let (until, now, left) = job.wanted();
            self.connection.commit(&ruleset::build(&job.name, &job.plan, left))?;
            self.applied = stands(until, left, clock::now().since(now));
            job.note(until, begun, now, left.is_some());
            self.built = Snapshot::take(&mut self.connection, &job.name, &job.plan.families())?;
            (self.built_at, self.generation) = (clock::now(), following(before));
            self.unseen = false;
            // Whoever came in between may have changed what was just taken for ours.
            if self.connection.generation()? == self.generation {
                break;
            }
        }
        Ok(())
    }
}

/// The permit that a change stands for which took so long; `None`: it opened for longer.
fn stands(until: Time, left: Option<u64>, took: Duration) -> Option<Time> {
    (left.is_none() || took <= STRETCH).then_some(until)
}

/// The generation after this one; 0 is none (`nf_tables_commit`).
const fn following(generation: u32) -> u32 {
    match generation.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_no_tick_of_the_kernels_is_shut() {
        let permit = Permit::new().unwrap();
        let (name, plan) = (String::new(), Plan::default());
        let job = Job { name, plan, permit, turns: Turns::default(), restored: 0 };
        let left = |ms: u64| {
            job.permit.set(Some(clock::now() + Duration::from_millis(ms)));
            job.wanted().2
        };
        assert_eq!([0, 1, 3, 9, 10].map(left), [None; 5], "less than 10 ms are left by now");
        assert!(left(60_000).is_some_and(|ms| ms > 10_000));
    }

    #[test]
    fn what_opened_late_is_made_again() {
        let until = Time::from_nanos(7);
        assert_eq!(stands(until, Some(300), STRETCH), Some(until));
        let late = STRETCH + Duration::from_nanos(1);
        assert_eq!(stands(until, Some(300), late), None);
        assert_eq!(stands(until, None, late), Some(until), "what is shut cannot be shut too long");
    }
}
