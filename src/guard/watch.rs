//! The guard's life: it waits in one place until the worker is dead.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use zeroize::Zeroizing;

use super::process;
use super::pulse::Pulse;
use super::systemd;
use super::will::{MOST, Message, Note, Will};
use crate::clock;
use crate::log;

/// The watch over one worker.
pub(super) struct Watch {
    worker: Pid,
    pidfd: OwnedFd,
    signals: SignalFd,
    /// `None` when the worker has closed its end, which says nothing about its life.
    inbox: Option<OwnedFd>,
    progress: File,
    will: Option<Will>,
    pulse: Option<Pulse>,
    /// It ends on purpose: its pulse is the end.
    rests: bool,
    /// It said that the program is to be started in its place.
    again: bool,
    /// It was reaped; its number may be another's now.
    status: Option<WaitStatus>,
}

impl Watch {
    pub(super) fn new(
        worker: Pid,
        pidfd: OwnedFd,
        inbox: OwnedFd,
        progress: File,
        signals: &SigSet,
    ) -> io::Result<Watch> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Watch {
            worker,
            pidfd,
            signals: SignalFd::with_flags(signals, flags)?,
            inbox: Some(inbox),
            progress,
            will: None,
            pulse: None,
            rests: false,
            again: false,
            status: None,
        })
    }

    /// Waits until the worker is dead. Returns how it ended; `None`: by surprise, and that is not known yet.
    pub(super) fn until_death(&mut self) -> io::Result<Option<WaitStatus>> {
        loop {
            let dead = self.wait()?;
            let open = self.inbox.is_some();
            // What it said last counts, so this comes before its end.
            self.read_inbox();
            self.take_signals();
            if dead {
                return self.reap().map(Some);
            }
            // One look is enough: a dying process closes its descriptors when all its threads are on their way out. Is it closed for
            // another reason, or held open by a child, then the pidfd says it later.
            // One that ends on purpose has said that it rests; then its exit code says what is left to do.
            let closed = open && self.inbox.is_none();
            if closed && self.pulse.is_some() && !self.rests && process::is_exiting(self.worker) {
                return Ok(None);
            }
            self.look();
        }
    }

    /// What the worker left to do.
    pub(super) fn will(&mut self) -> Option<Will> {
        self.will.take()
    }

    /// Whether the program is to be started anew, and nobody wanted its end since.
    pub(super) fn again(&self) -> bool {
        self.again
    }

    /// The one place that waits. True if the worker is dead.
    fn wait(&self) -> io::Result<bool> {
        let mut fds = vec![
            PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.inbox.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, self.timeout()) {
            Ok(_) => Ok(fds.first().is_some_and(|fd| fd.any().unwrap_or(false))),
            Err(Errno::EINTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn timeout(&self) -> PollTimeout {
        let Some(pulse) = &self.pulse else { return PollTimeout::NONE };
        let left = pulse.next().since(clock::now());
        // Rounded up: else it would wake a moment too early, again and again.
        let ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
        PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)
    }

    fn read_inbox(&mut self) {
        let Some(inbox) = &self.inbox else { return };
        let mut buffer = Zeroizing::new(vec![0; MOST]);
        loop {
            match recv(inbox.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => {
                    self.inbox = None;
                    return;
                }
                Ok(length) => match buffer.get(..length).and_then(Message::decode) {
                    Some(Message::Will(will)) => {
                        self.pulse = Some(Pulse::new(will.patience, clock::now()));
                        (self.will, self.rests) = (Some(will), false);
                    }
                    Some(Message::Rest) => {
                        let leaving = self.will.as_ref().and_then(|will| will.leaving);
                        self.pulse = leaving.map(|leaving| Pulse::new(leaving, clock::now()));
                        self.rests = true;
                    }
                    Some(Message::Note(note)) => tell_systemd(&note),
                    Some(Message::Again) => self.again = true,
                    None => {}
                },
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => {
                    self.inbox = None;
                    return;
                }
            }
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            match Signal::try_from(number) {
                Ok(Signal::SIGCHLD) => self.reap_all(),
                // The watchdog of systemd, which takes this process for the worker.
                Ok(Signal::SIGABRT) => self.send(Signal::SIGKILL),
                Ok(signal) => {
                    // Whoever stops an upgrade does not want it to begin again.
                    self.again &= !matches!(signal, Signal::SIGTERM | Signal::SIGINT);
                    self.send(signal);
                }
                Err(_) => {}
            }
        }
    }

    /// Children that hooks left, which this process adopted; and the worker.
    fn reap_all(&mut self) {
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(status) if status.pid() == Some(self.worker) => self.status = Some(status),
                Ok(_) => {}
            }
        }
    }

    /// How the worker ended; waits for that.
    pub(super) fn reap(&mut self) -> io::Result<WaitStatus> {
        match self.status {
            Some(status) => Ok(status),
            None => {
                let status = waitpid(self.worker, None)?;
                self.status = Some(status);
                Ok(status)
            }
        }
    }

    fn send(&self, signal: Signal) {
        if self.status.is_none() {
            // It may be dead: then its descriptor says so next.
            let _ = kill(self.worker, signal);
        }
    }

    /// Kills a worker that hangs.
    fn look(&mut self) {
        let Some(pulse) = &mut self.pulse else { return };
        let now = clock::now();
        if now < pulse.next() {
            return;
        }
        // Reading takes what has been counted since the last look; nothing there means nothing counted.
        let progress = self.progress.read_exact(&mut [0; 8]).is_ok();
        if pulse.look(now, progress) {
            self.pulse = None;
            log::start();
            let what = if self.rests { "does not end" } else { "makes no progress" };
            tracing::error!("the worker {what}: killed");
            self.send(Signal::SIGKILL);
        }
    }
}

fn tell_systemd(note: &Note) {
    if let Err(e) = systemd::tell(note) {
        log::start();
        tracing::warn!("systemd cannot be told: {e}");
    }
}

#[cfg(test)]
mod tests;
