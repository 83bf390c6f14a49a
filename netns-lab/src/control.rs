//! The daemon's control socket, as src/control of wgha describes it: one JSON object a line.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde_json::Value;

use crate::node::Node;

/// Where a node's daemon listens: its config is named wgha.toml and names no other place.
const SOCKET: &str = "/run/wgha/wgha.sock";

/// As long as the command line waits for an answer.
const PATIENCE: Duration = Duration::from_secs(32);

/// Longest answer, in bytes.
const MAX_ANSWER: u64 = 4 << 20;

/// The daemon's status.
///
/// # Errors
/// When no daemon answers, or with an error.
pub(crate) fn status(node: &Node) -> Result<Value> {
    // /run is the node's own; the stream may be used anywhere.
    let stream = node.run(open).with_context(|| format!("{SOCKET} on {}", node.name()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    (&stream).write_all(b"{\"command\":\"status\"}\n")?;
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_ANSWER)).read_until(b'\n', &mut line)?;
    let mut answer: Value = serde_json::from_slice(&line).context("the daemon's answer")?;
    if answer["ok"] != true {
        bail!("status of {}: {}", node.name(), answer["error"]);
    }
    Ok(answer["status"].take())
}

/// Not std's connect: it waits for ever on the full queue of a daemon that sleeps.
fn open() -> Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(SOCKET)?)?;
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}
