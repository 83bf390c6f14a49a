//! How a program ended, or why it never began.

use std::fmt;
use std::io;
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::sys::signal::Signal;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By itself, with this code.
    Exit(i32),
    /// By a signal that was not ours.
    Signal(i32),
    /// It did not end within its timeout.
    TimedOut,
    /// The caller called it off.
    Cancelled,
    /// It never ran.
    NotStarted(NotStarted),
}

/// Why a program never ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotStarted {
    /// No such file, or the interpreter that its first line names is missing.
    Missing,
    /// No execute permission, or no program at all.
    NotExecutable,
    /// Anything else, in the system's words.
    Other(String),
}

impl Outcome {
    /// Ended by itself with code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        *self == Outcome::Exit(0)
    }

    /// The exit code, if it ended by itself.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Outcome::Exit(code) => Some(*code),
            _ => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Exit(code) => write!(f, "exit {code}"),
            Outcome::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {number}"),
            },
            Outcome::TimedOut => f.write_str("timed out"),
            Outcome::Cancelled => f.write_str("cancelled"),
            Outcome::NotStarted(NotStarted::Missing) => f.write_str("not started: no such program"),
            Outcome::NotStarted(NotStarted::NotExecutable) => {
                f.write_str("not started: not executable")
            }
            Outcome::NotStarted(NotStarted::Other(why)) => write!(f, "not started: {why}"),
        }
    }
}

pub(super) fn why_not_started(error: io::Error) -> NotStarted {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENOTDIR) => NotStarted::Missing,
        Some(Errno::EACCES | Errno::ENOEXEC) => NotStarted::NotExecutable,
        _ => NotStarted::Other(error.to_string()),
    }
}

pub(super) fn outcome_of(status: ExitStatus) -> Outcome {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => Outcome::Exit(code),
        (None, signal) => Outcome::Signal(signal.unwrap_or(0)),
    }
}

pub(super) fn lost(error: io::Error) -> Outcome {
    Outcome::NotStarted(NotStarted::Other(format!("its end was not seen: {error}")))
}
