//! sd_notify(3): one datagram to the socket that systemd names. Written here because the guard must not hang on a
//! systemd that does: whoever waits cannot bury.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::will::Note;

/// How long systemd's socket may be full.
const PATIENCE: Duration = Duration::from_millis(100);

/// Tells systemd; without one it does nothing.
///
/// # Errors
/// The socket is not there, or full.
pub(super) fn tell(note: &Note) -> io::Result<()> {
    match env::var_os("NOTIFY_SOCKET") {
        Some(name) => send(&name, note),
        None => Ok(()),
    }
}

fn send(name: &OsStr, note: &Note) -> io::Result<()> {
    let to = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(state(note).as_bytes(), &to).map(drop)
}

/// As sd_notify(3) has it.
fn state(note: &Note) -> String {
    match note {
        Note::Ready(text) => format!("READY=1\nSTATUS={text}\n"),
        Note::Status(text) => format!("STATUS={text}\n"),
        Note::Alive => "WATCHDOG=1\n".to_owned(),
        Note::Stopping => "STOPPING=1\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn each_note_as_systemd_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let unique = format!("wgha-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&unique).unwrap();
        let sockets = [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{unique}").into(), UnixDatagram::bind_addr(&abstract_name).unwrap()),
        ];
        for (name, socket) in sockets {
            for (note, expected) in [
                (Note::Ready("backup".to_owned()), "READY=1\nSTATUS=backup\n"),
                (Note::Status("master".to_owned()), "STATUS=master\n"),
                (Note::Alive, "WATCHDOG=1\n"),
                (Note::Stopping, "STOPPING=1\n"),
            ] {
                send(&name, &note).unwrap();
                assert_eq!(heard(&socket), expected);
            }
        }
    }

    #[test]
    fn a_systemd_that_does_not_read_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let started = Instant::now();
        // More than any queue (net.unix.max_dgram_qlen) has room for.
        let full = (0..100_000).find_map(|_| send(path.as_os_str(), &Note::Alive).err());
        assert_eq!(full.map(|e| e.kind()), Some(io::ErrorKind::WouldBlock));
        assert!(started.elapsed() < Duration::from_secs(10));
        assert!(send(&dir.path().join("none").into_os_string(), &Note::Alive).is_err());
    }
}
