//! `wgha upgrade`: the steps of an upgrade, in an order in which whatever fails leaves a daemon that serves.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::client::{complain, fetch_status, finish, printable};
use crate::control::client::{Client, ClientError};
use crate::control::{Request, Response};

/// A stop runs PreDown and PostDown, then the stop hooks, each within its timeout.
const BACK: Duration = Duration::from_secs(120);

/// How often the new daemon is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Has the daemon replaced by the program that is now at its path.
///
/// # Errors
///
/// Standard output cannot be written.
pub(super) fn run(socket: &Path, force: bool) -> anyhow::Result<ExitCode> {
    finish(upgrade(socket, force, &mut io::stdout().lock()))
}

fn upgrade(socket: &Path, force: bool, out: &mut impl Write) -> io::Result<ExitCode> {
    // Before anything is given up.
    match ask(socket, &Request::Upgrade { look: true, force }) {
        Ok(said) => writeln!(out, "{said}")?,
        Err(e) => return Ok(complain(&e)),
    }
    let master = match fetch_status(socket) {
        Ok(status) => status.role == "master",
        Err(e) => return Ok(complain(&e)),
    };
    if master {
        match ask(socket, &Request::Handover { to: None, force: false }) {
            Ok(said) => writeln!(out, "{said}")?,
            Err(e) if force => {
                writeln!(out, "upgraded without a successor: {}", printable(&e.to_string()))?;
            }
            Err(e) => return Ok(complain(&e)),
        }
    }
    let asked = Instant::now();
    match ask(socket, &Request::Upgrade { look: false, force }) {
        Ok(_) => wait(socket, asked, out),
        Err(e) => Ok(complain(&e)),
    }
}

/// Until another daemon than the one that was asked answers.
fn wait(socket: &Path, asked: Instant, out: &mut impl Write) -> io::Result<ExitCode> {
    loop {
        match fetch_status(socket) {
            // Seconds are cut, never rounded up.
            Ok(status) if Duration::from_secs(status.uptime_seconds) <= asked.elapsed() => {
                let (node, role, version) = (status.node, status.role, status.version);
                writeln!(out, "{}", printable(&format!("{node} runs version {version}: {role}")))?;
                return Ok(ExitCode::SUCCESS);
            }
            Err(e) if asked.elapsed() > BACK => return Ok(complain(&e)),
            Ok(_) | Err(_) => sleep(LOOK),
        }
    }
}

fn ask(socket: &Path, request: &Request) -> Result<String, ClientError> {
    let Response { message, .. } = Client::connect(socket)?.ask(request)?;
    Ok(printable(&message.unwrap_or_else(|| "done".to_owned())))
}
