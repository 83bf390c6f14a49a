//! Runs one program at a time for hooks, PreUp/PostUp and claims, and leaves nothing of it behind.
//!
//! A program runs in its own process group, without standard input and without the daemon's
//! descriptors. After its timeout, or when it is cancelled, the group gets SIGTERM and, [`GRACE`]
//! later, SIGKILL. What is left of the group when the program ends is killed too. A child that
//! leaves the group on purpose (`setsid`) is out of reach; under systemd it dies with the service.

mod cloexec;
mod lines;
mod outcome;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::user;
pub use lines::{MAX_LINE, MAX_LINES};
pub use outcome::{NotStarted, Outcome};
use outcome::{lost, outcome_of, why_not_started};

/// From SIGTERM to SIGKILL, and again until a process that does not even die of that is given up.
pub const GRACE: Duration = Duration::from_secs(2);

/// How long the output of an ended program is read on, if someone outside its group holds it open.
const DRAIN: Duration = Duration::from_millis(200);

/// What systemd hands to the daemon alone.
const PRIVATE_ENV: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// A program to run once. Not `Debug`: shell lines of wg0.conf may hold secrets.
#[derive(Clone)]
pub struct Job {
    program: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    timeout: Duration,
    user: Option<String>,
    network: bool,
}

impl Job {
    /// A program with its arguments, run directly: no shell sees them.
    #[must_use]
    pub fn new(program: &str, args: &[String], timeout: Duration) -> Job {
        Job {
            program: program.to_owned(),
            args: args.to_vec(),
            env: Vec::new(),
            timeout,
            user: None,
            network: false,
        }
    }

    /// A line of shell, run by `bash -c` as wg-quick runs PreUp and PostUp. It may change the network, whoever runs it.
    #[must_use]
    pub fn shell_line(line: &str, timeout: Duration) -> Job {
        let job = Job::new("bash", &["-c".to_owned(), line.to_owned()], timeout);
        Job { network: true, ..job }
    }

    /// Run as this user; `None`: as this process's own.
    #[must_use]
    pub fn as_user(self, user: Option<&str>) -> Job {
        Job { user: user.map(str::to_owned), ..self }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Job {
        self.args.push(arg.to_owned());
        self
    }

    /// One more variable, beside those of the daemon. NUL bytes, which no variable can hold, become
    /// `?`.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Job {
        self.env.push((name.to_owned(), value.replace('\0', "?")));
        self
    }
}

/// A run that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// From start to end.
    pub duration: Duration,
    /// Lines of output beyond [`MAX_LINES`], which were thrown away.
    pub dropped_lines: u64,
}

/// Runs `job` to its end, or until `cancel` is ready. `on_line` gets each line of its output
/// (standard output and error in the order written), at most [`MAX_LINES`] of at most [`MAX_LINE`]
/// bytes.
///
/// Takes at most the job's timeout plus twice [`GRACE`]. Dropping the future kills the group.
pub async fn run(
    job: &Job,
    cancel: impl Future<Output = ()>,
    mut on_line: impl FnMut(&str),
) -> Finished {
    let started = Instant::now();
    let mut running = match Running::start(job) {
        Ok(running) => running,
        Err(why) => {
            let outcome = Outcome::NotStarted(why);
            return Finished { outcome, duration: started.elapsed(), dropped_lines: 0 };
        }
    };
    let outcome = running.until_end(job.timeout, cancel, &mut on_line).await;
    running.drain(&mut on_line).await;
    Finished { outcome, duration: started.elapsed(), dropped_lines: running.cutter.dropped() }
}

struct Running {
    child: Child,
    group: Group,
    /// Signals that some child changed; opened before the start, so that none is missed.
    children: SignalStream,
    output: pipe::Receiver,
    cutter: lines::LineCutter,
    open: bool,
}

impl Running {
    fn start(job: &Job) -> Result<Running, NotStarted> {
        let other = |e: io::Error| NotStarted::Other(e.to_string());
        let children = signal(SignalKind::child()).map_err(other)?;
        let (reader, writer) = io::pipe().map_err(other)?;
        let output = pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(other)?;
        let mut command = Command::new(&job.program);
        command.args(&job.args).envs(job.env.iter().map(|(k, v)| (k, v)));
        for name in PRIVATE_ENV {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(writer.try_clone().map_err(other)?).stderr(writer);
        command.process_group(0).kill_on_drop(true);
        let lent = user::set_up(&mut command, job.user.as_deref(), job.network);
        let lent = lent.map_err(NotStarted::Other)?;
        cloexec::mark_all();
        let child = command.spawn().map_err(why_not_started)?;
        drop(lent);
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let pid = pid.ok_or_else(|| NotStarted::Other("no process id".to_owned()))?;
        let cutter = lines::LineCutter::default();
        Ok(Running { child, group: Group(pid), children, output, cutter, open: true })
    }

    async fn until_end(
        &mut self,
        limit: Duration,
        cancel: impl Future<Output = ()>,
        on_line: &mut impl FnMut(&str),
    ) -> Outcome {
        let mut cancel = pin!(cancel);
        let mut alarm = pin!(sleep(limit));
        let mut ended_by_us = None;
        let mut killed = false;
        let mut buffer = [0; 8192];
        loop {
            tokio::select! {
                () = leader_ended(self.group.0, &mut self.children) => break,
                read = self.output.read(&mut buffer), if self.open => {
                    self.take(read, &buffer, on_line);
                    continue;
                }
                () = &mut cancel, if ended_by_us.is_none() => {
                    ended_by_us = Some(Outcome::Cancelled);
                }
                () = &mut alarm => match ended_by_us {
                    None => ended_by_us = Some(Outcome::TimedOut),
                    // In the kernel's hands (a dead disk): the group guard has done what it can.
                    Some(outcome) if killed => return outcome,
                    Some(_) => killed = true,
                },
            }
            self.group.send(if killed { Signal::SIGKILL } else { Signal::SIGTERM });
            alarm.set(sleep(GRACE));
        }
        // The leader is still a zombie, so its group's number cannot belong to anyone else yet.
        self.group.send(Signal::SIGKILL);
        let status = self.child.wait().await;
        ended_by_us.unwrap_or_else(|| status.map_or_else(lost, outcome_of))
    }

    /// Reads what the ended program wrote last.
    async fn drain(&mut self, on_line: &mut impl FnMut(&str)) {
        let mut buffer = [0; 8192];
        let all = async {
            while self.open {
                let read = self.output.read(&mut buffer).await;
                self.take(read, &buffer, on_line);
            }
        };
        // Running out of time is fine: then someone outside the group holds the pipe.
        let _ = timeout(DRAIN, all).await;
        self.cutter.end(on_line);
    }

    fn take(&mut self, read: io::Result<usize>, buffer: &[u8], on_line: &mut impl FnMut(&str)) {
        match read {
            Ok(n) if n > 0 => self.cutter.push(buffer.get(..n).unwrap_or_default(), on_line),
            _ => self.open = false,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not reaped: the group still exists, and the number is still its own.
        if self.child.id().is_some() {
            self.group.send(Signal::SIGKILL);
        }
    }
}

/// A process group, by the id of its leader.
struct Group(Pid);

impl Group {
    fn send(&self, signal: Signal) {
        match killpg(self.0, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(e) => tracing::warn!(group = self.0.as_raw(), %signal, "cannot send: {e}"),
        }
    }
}

/// Waits until the leader has ended, without reaping it.
async fn leader_ended(leader: Pid, children: &mut SignalStream) {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    while let Ok(WaitStatus::StillAlive) = waitid(Id::Pid(leader), flags) {
        children.recv().await;
    }
}
