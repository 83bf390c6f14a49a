//! The log: lines on standard error. `WGHA_LOG` sets what is shown, in the syntax of
//! `tracing_subscriber`'s `EnvFilter`: `debug`, `warn`, `info,gotatun=debug`.
//!
//! systemd's journal keeps times by itself, and takes the level as sd-daemon(3) says, so that
//! `journalctl -p warning` finds what matters.

use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// gotatun calls it an error when it stops its own tasks; what is one, `wireguard` says.
const DEFAULT_FILTER: &str = "info,gotatun=off";

/// Starts the log of this process.
pub fn start() {
    let filter =
        EnvFilter::try_from_env("WGHA_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    // Both fail only if a test has started a log before.
    if stderr_is_the_journal() {
        let log = log.without_time().with_level(false).with_ansi(false);
        let _ = log.with_writer(Journal).try_init();
    } else {
        let _ = log.with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).try_init();
    }
}

/// systemd names the socket that it connected us to; a shell in between may have put a file there.
fn stderr_is_the_journal() -> bool {
    let Ok(meta) = std::fs::metadata("/proc/self/fd/2") else { return false };
    let here = format!("{}:{}", meta.dev(), meta.ino());
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| stream == here)
}

/// Standard error, each line with its priority.
struct Journal;

impl<'a> MakeWriter<'a> for Journal {
    type Writer = Prioritized<io::Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        Prioritized { priority: priority(Level::INFO), to: io::stderr() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        Prioritized { priority: priority(*meta.level()), to: io::stderr() }
    }
}

/// syslog(3)'s number of a level.
const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

struct Prioritized<W> {
    priority: u8,
    to: W,
}

impl<W: Write> Write for Prioritized<W> {
    /// Takes whole messages: the journal cuts them at line ends, and each piece has its own priority.
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        let mut text = Vec::with_capacity(message.len() + 16);
        for line in message.split_inclusive(|byte| *byte == b'\n') {
            write!(text, "<{}>", self.priority)?;
            text.extend_from_slice(line);
        }
        self.to.write_all(&text)?;
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_a_message_has_the_priority_of_its_level() {
        for (level, text) in [
            (Level::ERROR, "<3>one\n<3>two\n"),
            (Level::WARN, "<4>one\n<4>two\n"),
            (Level::INFO, "<6>one\n<6>two\n"),
            (Level::DEBUG, "<7>one\n<7>two\n"),
        ] {
            let mut writer = Prioritized { priority: priority(level), to: Vec::new() };
            writer.write_all(b"one\ntwo\n").unwrap();
            assert_eq!(String::from_utf8(writer.to).unwrap(), text);
        }
    }
}
