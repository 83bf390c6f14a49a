//! The commands that ask the daemon: status, handover, maintenance, events, reload; `upgrade` is in its own file.
//!
//! Each returns the exit code of the contract: 0 done, 1 refused or failed, 3 no daemon answers.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use crate::control::client::{Client, ClientError};
use crate::control::{Request, Response};
use crate::events::{Event, Phases};
use crate::status::{Status, table};

/// The exit code for "no daemon answers".
pub const NO_DAEMON: u8 = 3;

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Clears a terminal and goes to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Prints the status once, or with `watch` each second until interrupted.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn status(socket: &Path, json: bool, watch: bool) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let clear = !json && io::stdout().is_terminal();
    let shown = if watch {
        watch_status(socket, json, clear, &mut out)
    } else {
        show_status(socket, json, &mut out)
    };
    finish(shown)
}

/// Hands the role of master over and waits for the outcome.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn handover(socket: &Path, to: Option<&str>, force: bool) -> anyhow::Result<ExitCode> {
    let request = Request::Handover { to: to.map(str::to_owned), force };
    finish(command(socket, &request, &mut io::stdout().lock()))
}

/// Enters or leaves maintenance.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn maintenance(socket: &Path, on: bool, force: bool) -> anyhow::Result<ExitCode> {
    finish(command(socket, &Request::Maintenance { on, force }, &mut io::stdout().lock()))
}

/// Has the daemon read its config again, and with `force_voters` put its voters in force at once.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn reload(socket: &Path, force_voters: bool) -> anyhow::Result<ExitCode> {
    finish(command(socket, &Request::Reload { force_voters }, &mut io::stdout().lock()))
}

/// Prints the kept events, oldest first, and with `follow` every later one until interrupted.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn events(socket: &Path, json: bool, follow: bool) -> anyhow::Result<ExitCode> {
    finish(show_events(socket, json, follow, &mut io::stdout().lock()))
}

fn command(socket: &Path, request: &Request, out: &mut impl Write) -> io::Result<ExitCode> {
    match Client::connect(socket).and_then(|mut client| client.ask(request)) {
        Ok(response) => {
            let message = response.message.unwrap_or_else(|| "done".to_owned());
            writeln!(out, "{}", printable(&message))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(e) => Ok(complain(&e)),
    }
}

fn show_events(
    socket: &Path,
    json: bool,
    follow: bool,
    out: &mut impl Write,
) -> io::Result<ExitCode> {
    let mut client = match Client::connect(socket) {
        Ok(client) => client,
        Err(e) => return Ok(complain(&e)),
    };
    let mut answer = client.ask(&Request::Events { follow });
    loop {
        let event = match answer {
            Ok(Response { event: Some(event), .. }) => event,
            Ok(_) => return Ok(ExitCode::SUCCESS),
            Err(e) => return Ok(complain(&e)),
        };
        let text = if json { json_line(&event) } else { event_line(&event) };
        out.write_all(text.as_bytes())?;
        // One by one: whoever follows through a pipe wants them now.
        out.flush()?;
        answer = client.next(follow);
    }
}

fn show_status(socket: &Path, json: bool, out: &mut impl Write) -> io::Result<ExitCode> {
    match fetch_status(socket) {
        Ok(status) => {
            out.write_all(render(&status, json).as_bytes())?;
            out.flush()?;
            Ok(ExitCode::SUCCESS)
        }
        Err(e) => Ok(complain(&e)),
    }
}

fn watch_status(
    socket: &Path,
    json: bool,
    clear: bool,
    out: &mut impl Write,
) -> io::Result<ExitCode> {
    loop {
        if clear {
            out.write_all(CLEAR.as_bytes())?;
        }
        // A daemon that does not answer may come back: whoever watches wants to see that.
        let _ = show_status(socket, json, out)?;
        sleep(WATCH_EVERY);
    }
}

pub(super) fn fetch_status(socket: &Path) -> Result<Status, ClientError> {
    let response = Client::connect(socket)?.ask(&Request::Status {})?;
    let missing = || ClientError::Nonsense("no status in it".to_owned());
    response.status.map(|status| *status).ok_or_else(missing)
}

fn render(status: &Status, json: bool) -> String {
    if json { json_line(status) } else { table(status, SystemTime::now()) }
}

fn json_line(value: &impl serde::Serialize) -> String {
    // These types hold strings, numbers and lists alone, all of which JSON has.
    serde_json::to_string(value).unwrap_or_default() + "\n"
}

/// An event for people: when, what, why, and how long its parts took.
fn event_line(event: &Event) -> String {
    let Event { at, from, to, term, reason, phases_ms } = event;
    let phases = phases(phases_ms);
    let head = format!("{at}  {from} -> {to}, term {term}: {reason}{phases}");
    head.replace(char::is_control, "?") + "\n"
}

fn phases(phases: &Phases) -> String {
    let named = [
        ("detect", phases.detect),
        ("address", phases.address),
        ("announce", phases.announce),
        ("wireguard", phases.wireguard),
        ("first handshake", phases.first_handshake),
        ("hooks", phases.hooks),
        ("claims", phases.claims),
    ];
    let known = named.iter().filter_map(|(name, ms)| ms.map(|ms| format!("{name} {ms} ms")));
    let known: Vec<String> = known.collect();
    if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) }
}

/// Text from outside, unable to move a terminal's cursor.
pub(super) fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n', "?")
}

/// A reader that has seen enough (`| head`) is no failure.
pub(super) fn finish(shown: io::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match shown {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        shown => Ok(shown?),
    }
}

pub(super) fn complain(error: &ClientError) -> ExitCode {
    // Standard error that is closed leaves the exit code to speak.
    let _ = writeln!(io::stderr(), "wgha: {}", printable(&error.to_string()));
    match error {
        ClientError::NoDaemon { .. } => ExitCode::from(NO_DAEMON),
        _ => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::{Daemon, event};

    /// A reader that closes its end after some lines.
    struct Head(usize, Vec<u8>);

    impl Write for Head {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.extend_from_slice(bytes);
            let lines = self.1.iter().filter(|b| **b == b'\n').count();
            if lines > self.0 { Err(ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn same(code: ExitCode, expected: u8) {
        // ExitCode can be compared in no other way.
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(expected)));
    }

    fn said(out: Vec<u8>) -> String {
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_reads_as_a_sentence() {
        let mut shown = event(7);
        shown.reason = "master gw2 is silent\x1b[2J".into();
        let line = "2026-11-22T00:30:00.123Z  backup -> master, term 7: master gw2 is silent?[2J";
        assert_eq!(event_line(&shown), format!("{line}\n"));
        shown.phases_ms = Phases { detect: Some(612.3), hooks: Some(40.0), ..Phases::default() };
        assert_eq!(event_line(&shown), format!("{line} (detect 612.3 ms, hooks 40 ms)\n"));
    }

    #[test]
    fn without_a_daemon_every_command_exits_with_3() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("wgha.sock");
        same(status(&socket, false, false).unwrap(), 3);
        same(handover(&socket, None, false).unwrap(), 3);
        same(maintenance(&socket, true, false).unwrap(), 3);
        same(reload(&socket, false).unwrap(), 3);
        same(events(&socket, true, true).unwrap(), 3);
    }

    #[test]
    fn commands_print_the_outcome() {
        let daemon = Daemon::start();
        let mut out = Vec::new();
        let request = Request::Handover { to: Some("gw2".into()), force: false };
        same(command(&daemon.socket(), &request, &mut out).unwrap(), 0);
        assert_eq!(said(out), "Some(\"gw2\") false\n");
        let mut out = Vec::new();
        let request = Request::Maintenance { on: true, force: false };
        same(command(&daemon.socket(), &request, &mut out).unwrap(), 1);
        assert!(out.is_empty(), "the refusal goes to standard error");
    }

    #[test]
    fn status_is_a_table_or_one_line_of_json() {
        let daemon = Daemon::start();
        let mut out = Vec::new();
        same(show_status(&daemon.socket(), true, &mut out).unwrap(), 0);
        let text = said(out);
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap().node, "gw1");
        assert_eq!(text.lines().count(), 1);
        let mut out = Vec::new();
        same(show_status(&daemon.socket(), false, &mut out).unwrap(), 0);
        assert!(said(out).contains("exclusive"));
    }

    #[test]
    fn watching_goes_on_until_the_reader_leaves() {
        let daemon = Daemon::start();
        let mut head = Head(2, Vec::new());
        let watched = watch_status(&daemon.socket(), true, false, &mut head);
        same(finish(watched).unwrap(), 0);
        assert_eq!(said(head.1).lines().count(), 3);
    }

    #[test]
    fn events_are_printed_and_followed() {
        let daemon = Daemon::start();
        for term in 1..=3 {
            daemon.events.push(event(term));
        }
        let mut out = Vec::new();
        same(show_events(&daemon.socket(), true, false, &mut out).unwrap(), 0);
        let terms: Vec<u64> =
            said(out).lines().map(|l| serde_json::from_str::<Event>(l).unwrap().term).collect();
        assert_eq!(terms, [1, 2, 3]);
        let log = daemon.events.clone();
        let later = std::thread::spawn(move || {
            sleep(Duration::from_millis(300));
            log.push(event(4));
        });
        let mut head = Head(3, Vec::new());
        same(finish(show_events(&daemon.socket(), false, true, &mut head)).unwrap(), 0);
        assert!(said(head.1).contains("term 4"));
        later.join().unwrap();
    }
}
