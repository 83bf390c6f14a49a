//! The commands that ask the daemon: status, handover, maintenance, events, reload.
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
    if watch {
        let clear = !json && io::stdout().is_terminal();
        return finish(watch_status(socket, json, clear, &mut out));
    }
    match fetch_status(socket) {
        Ok(status) => finish(out.write_all(render(&status, json).as_bytes())),
        Err(e) => Ok(complain(&e)),
    }
}

/// Hands the role of master over and waits for the outcome.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn handover(socket: &Path, to: Option<&str>, force: bool) -> anyhow::Result<ExitCode> {
    command(socket, &Request::Handover { to: to.map(str::to_owned), force })
}

/// Enters or leaves maintenance.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn maintenance(socket: &Path, on: bool, force: bool) -> anyhow::Result<ExitCode> {
    command(socket, &Request::Maintenance { on, force })
}

/// Has the daemon read its config again.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn reload(socket: &Path) -> anyhow::Result<ExitCode> {
    command(socket, &Request::Reload {})
}

/// Prints the kept events, oldest first, and with `follow` every later one until interrupted.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn events(socket: &Path, json: bool, follow: bool) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
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
        // Flushed one by one: whoever follows through a pipe wants them now.
        if let Err(e) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            return finish(Err(e));
        }
        answer = client.next(follow);
    }
}

fn command(socket: &Path, request: &Request) -> anyhow::Result<ExitCode> {
    match Client::connect(socket).and_then(|mut client| client.ask(request)) {
        Ok(response) => {
            let message = response.message.unwrap_or_else(|| "done".to_owned());
            finish(writeln!(io::stdout().lock(), "{message}"))
        }
        Err(e) => Ok(complain(&e)),
    }
}

fn watch_status(socket: &Path, json: bool, clear: bool, out: &mut impl Write) -> io::Result<()> {
    loop {
        let picture = fetch_status(socket);
        if clear {
            out.write_all(CLEAR.as_bytes())?;
        }
        match picture {
            Ok(status) => out.write_all(render(&status, json).as_bytes())?,
            // It may come back: whoever watches wants to see that, so this is not the end.
            Err(e) => drop(complain(&e)),
        }
        out.flush()?;
        sleep(WATCH_EVERY);
    }
}

fn fetch_status(socket: &Path) -> Result<Status, ClientError> {
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
    ];
    let known = named.iter().filter_map(|(name, ms)| ms.map(|ms| format!("{name} {ms} ms")));
    let known: Vec<String> = known.collect();
    if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) }
}

/// A reader that has seen enough (`| head`) is no failure.
fn finish(written: io::Result<()>) -> anyhow::Result<ExitCode> {
    match written {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn complain(error: &ClientError) -> ExitCode {
    let text = error.to_string().replace(|c: char| c.is_control() && c != '\n', "?");
    // Standard error that is closed leaves the exit code to speak.
    let _ = writeln!(io::stderr(), "wgha: {text}");
    match error {
        ClientError::NoDaemon { .. } => ExitCode::from(NO_DAEMON),
        _ => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_as_a_sentence() {
        let mut event = Event {
            at: "2026-11-22T00:30:00.123Z".into(),
            from: "backup".into(),
            to: "master".into(),
            term: 7,
            reason: "master gw2 is silent\x1b[2J".into(),
            phases_ms: Phases::default(),
        };
        let line = "2026-11-22T00:30:00.123Z  backup -> master, term 7: master gw2 is silent?[2J";
        assert_eq!(event_line(&event), format!("{line}\n"));
        event.phases_ms = Phases { detect: Some(612.3), hooks: Some(40.0), ..Phases::default() };
        assert_eq!(event_line(&event), format!("{line} (detect 612.3 ms, hooks 40 ms)\n"));
    }
}
