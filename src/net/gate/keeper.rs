//! The thread that keeps the gate: it waits in one place, for the permit, for changes of the ruleset,
//! and for time.
//!
//! It is a thread of its own because the kernel works on nf_tables one transaction at a time: while
//! somebody loads a large ruleset a renewal waits, and no heartbeat must wait with it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{oneshot, watch};
use wgha_proto::Time;

use super::kernel::{Job, Kernel};
use super::ruleset::{self, Plan};
use super::{Health, Turns};
use crate::clock;

/// The ruleset is looked at this often even if no notification came, and where the gate could not be
/// built it is tried again.
const SLOW: Duration = Duration::from_secs(1);
/// How long to wait before something is put back that was put back a moment ago.
const GAP: Duration = Duration::from_millis(25);

/// What the gate's owner asks.
pub(super) enum Command {
    /// Guard this from now on.
    Plan(Plan),
    /// Take the tables off and end.
    Remove(oneshot::Sender<io::Result<()>>),
}

pub(super) struct Keeper {
    job: Job,
    commands: Receiver<Command>,
    turns: watch::Sender<Turns>,
    health: watch::Sender<Health>,
    /// None: the gate could not be built, or not kept.
    kernel: Option<Kernel>,
    look_at: Time,
}

impl Keeper {
    pub(super) fn new(
        job: Job,
        commands: Receiver<Command>,
        turns: watch::Sender<Turns>,
        health: watch::Sender<Health>,
    ) -> Keeper {
        Keeper { job, commands, turns, health, kernel: None, look_at: Time::ZERO }
    }

    /// Runs until the owner takes the gate off, or is gone: then the gate stays, and shuts by itself.
    pub(super) fn run(mut self, ready: impl FnOnce()) {
        self.turn();
        ready();
        loop {
            self.wait();
            self.job.permit.seen();
            match self.commands.try_recv() {
                Ok(Command::Plan(plan)) => self.replan(plan),
                Ok(Command::Remove(done)) => {
                    // Nobody waiting is no reason to fail.
                    let _ = done.send(self.remove());
                    return;
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return,
            }
            self.turn();
        }
    }

    fn wait(&self) {
        let behind = self.kernel.as_ref().is_some_and(|k| k.is_behind(&self.job.permit));
        let left = if behind { 0 } else { self.look_at.since(clock::now()).as_millis() + 1 };
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let permit = readable(self.job.permit.changed());
        // A signal only makes it look once more.
        let _ = match &self.kernel {
            None => poll(&mut [permit], timeout),
            Some(kernel) => poll(&mut [permit, readable(kernel.changed())], timeout),
        };
    }

    /// Brings the kernel to where the permit is, and sees to it that nobody else changed it.
    fn turn(&mut self) {
        let due = clock::now() >= self.look_at;
        let stood = self.kernel.is_some();
        let result = match &mut self.kernel {
            Some(kernel) => kernel.turn(&mut self.job, due),
            None if due => Kernel::build(&mut self.job).map(|kernel| {
                self.kernel = Some(kernel);
                true
            }),
            None => return,
        };
        let now = clock::now();
        match &result {
            // Looked at, or with nothing new to be looked at: both only as often as this.
            Ok(true) => self.look_at = now + SLOW,
            Ok(false) => {}
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => self.look_at = now + GAP,
            // Anew, at once: a master's gate would shut meanwhile.
            Err(_) if stood => (self.kernel, self.look_at) = (None, now),
            Err(_) => self.look_at = now + SLOW,
        }
        self.publish(result.err());
    }

    fn replan(&mut self, plan: Plan) {
        if plan != self.job.plan {
            self.job.plan = plan;
            // Built anew, in one transaction with what is there.
            (self.kernel, self.look_at) = (None, Time::ZERO);
        }
    }

    fn remove(&mut self) -> io::Result<()> {
        self.kernel.as_mut().map_or(Ok(()), |k| k.commit(&ruleset::remove(&self.job.name)))
    }

    fn publish(&self, error: Option<io::Error>) {
        self.turns.send_replace(self.job.turns);
        self.job.permit.set_gate(self.kernel.is_some());
        let process_only = match &self.kernel {
            Some(_) => None,
            None => error.map(|e| e.to_string()),
        };
        let restored = self.job.restored;
        self.health.send_if_modified(|health| {
            let now = Health { process_only, restored };
            std::mem::replace(health, now.clone()) != now
        });
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}
