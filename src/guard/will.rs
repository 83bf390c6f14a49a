//! What the worker leaves to its guard: said again whenever it changes, in one message each.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::state::Applied;

/// Longer than any: 15 peers with 8 paths each, of at most 1200 bytes.
pub(super) const MOST: usize = 192 * 1024;

/// First byte of a message.
const WILL: u8 = 1;
/// The message that says that the worker ends, and makes no progress any more.
pub(super) const REST: [u8; 1] = [2];
/// First byte of a message for systemd; the second says which.
const NOTE: u8 = 3;

/// What systemd is told of the daemon. It listens to its main process alone, which is the guard; and the guard says nothing but these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The daemon takes part in the cluster; a line for `systemctl status`.
    Ready(String),
    /// A line for `systemctl status`.
    Status(String),
    /// The protocol's loop made progress.
    Alive,
    /// The daemon ends.
    Stopping,
}

impl Note {
    /// As one message.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, text) = match self {
            Note::Ready(text) => (0, text.as_str()),
            Note::Status(text) => (1, text.as_str()),
            Note::Alive => (2, ""),
            Note::Stopping => (3, ""),
        };
        [&[NOTE, kind], text.as_bytes()].concat()
    }

    fn decode(kind: u8, text: &[u8]) -> Option<Note> {
        // A line is one: what stands in a second one would be another order to systemd.
        let line = || {
            let text = String::from_utf8_lossy(text);
            text.lines().next().unwrap_or_default().to_owned()
        };
        Some(match kind {
            0 => Note::Ready(line()),
            1 => Note::Status(line()),
            2 => Note::Alive,
            3 => Note::Stopping,
            _ => return None,
        })
    }
}
/// The message that says that the worker ends, and that the program at its path is to be started in its place.
pub(super) const AGAIN: [u8; 1] = [4];

/// One obituary and its way.
#[derive(Clone, PartialEq, Eq)]
pub struct Letter {
    /// The address that the worker sends from.
    pub from: SocketAddr,
    /// The peer's.
    pub to: SocketAddr,
    /// Sealed. Whoever sends it ends the worker's session: no `Debug`.
    pub bytes: Zeroizing<Vec<u8>>,
}

/// What to do after the worker's death.
#[derive(Clone, PartialEq, Eq)]
pub struct Will {
    /// Where it is on record what the worker put up.
    pub state_dir: PathBuf,
    /// What the config in force may put up: taken off whatever the record says, which may be damaged.
    pub by_config: Applied,
    /// The detection time: a worker without progress for so long hangs.
    pub patience: Duration,
    /// The longest that a worker takes to end on purpose: one that takes longer hangs. `None`: there is no bound.
    pub leaving: Option<Duration>,
    /// One for each path to each peer.
    pub letters: Vec<Letter>,
}

/// What a message says.
pub(super) enum Message {
    Will(Will),
    Rest,
    Note(Note),
    Again,
}

impl Will {
    /// As one message.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Room for all of it at once: a vector that grows leaves copies behind.
        let mut out = Zeroizing::new(Vec::with_capacity(MOST));
        out.push(WILL);
        put(&mut out, self.state_dir.as_os_str().as_bytes());
        // Strings, numbers and lists of them; a will without it would not be read.
        put(&mut out, &serde_json::to_vec(&self.by_config).unwrap_or_default());
        put(&mut out, &nanos(self.patience));
        put(&mut out, self.leaving.map(nanos).as_ref().map_or(&[], |bytes| &bytes[..]));
        for letter in &self.letters {
            put(&mut out, letter.from.to_string().as_bytes());
            put(&mut out, letter.to.to_string().as_bytes());
            put(&mut out, &letter.bytes);
        }
        out
    }
}

impl Message {
    /// Reads a message; `None` if it is none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Message> {
        if bytes == REST {
            return Some(Message::Rest);
        }
        if let Some((&[NOTE, kind], text)) = bytes.split_first_chunk() {
            return Note::decode(kind, text).map(Message::Note);
        }
        if bytes == AGAIN {
            return Some(Message::Again);
        }
        let mut rest = bytes.strip_prefix(&[WILL])?;
        let state_dir = PathBuf::from(OsStr::from_bytes(take(&mut rest)?));
        let by_config = serde_json::from_slice(take(&mut rest)?).ok()?;
        let patience = duration(take(&mut rest)?)?;
        let leaving = match take(&mut rest)? {
            [] => None,
            bytes => Some(duration(bytes)?),
        };
        let mut letters = Vec::new();
        while !rest.is_empty() {
            letters.push(Letter {
                from: address(take(&mut rest)?)?,
                to: address(take(&mut rest)?)?,
                bytes: Zeroizing::new(take(&mut rest)?.to_vec()),
            });
        }
        Some(Message::Will(Will { state_dir, by_config, patience, leaving, letters }))
    }
}

fn nanos(duration: Duration) -> [u8; 8] {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).to_be_bytes()
}

fn duration(bytes: &[u8]) -> Option<Duration> {
    bytes.try_into().ok().map(u64::from_be_bytes).map(Duration::from_nanos)
}

/// A part, behind its length in four bytes.
fn put(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(part);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (part, behind) = behind.split_at_checked(length)?;
    *rest = behind;
    Some(part)
}

fn address(text: &[u8]) -> Option<SocketAddr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::sync::Arc;

    use nix::sys::eventfd::EventFd;
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
    use nix::unistd::Pid;

    use super::*;
    use crate::guard::{Line, process};

    /// Both ends of a line; no process is at the other one.
    pub(crate) fn line() -> (Arc<Line>, OwnedFd) {
        let (mut lines, guard) = lines(1);
        (lines.remove(0), guard)
    }

    /// The same with several clusters in the worker.
    pub(crate) fn lines(clusters: usize) -> (Vec<Arc<Line>>, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (guard, worker) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let pidfd = process::pidfd(Pid::this()).unwrap();
        (Line::all(worker, EventFd::new().unwrap(), pidfd, 1, None, clusters), guard)
    }

    /// The next will at the guard's end; `None`: there is none.
    pub(crate) fn read(guard: &OwnedFd) -> Option<Will> {
        let mut buffer = vec![0; MOST];
        let length = recv(guard.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
        match Message::decode(&buffer[..length])? {
            Message::Will(will) => Some(will),
            Message::Rest | Message::Note(_) | Message::Again => None,
        }
    }

    fn will(letters: usize) -> Will {
        let letter = |n: usize| Letter {
            from: "[2001:db8::1]:5112".parse().unwrap(),
            to: format!("10.0.1.{n}:5112").parse().unwrap(),
            bytes: Zeroizing::new(vec![u8::try_from(n).unwrap(); 1200]),
        };
        Will {
            state_dir: "/var/lib/wgha/edge".into(),
            by_config: Applied { gates: vec!["wgha_edge".into()], ..Applied::default() },
            patience: Duration::from_millis(600),
            leaving: (letters > 0).then_some(Duration::from_secs(120)),
            letters: (0..letters).map(letter).collect(),
        }
    }

    #[test]
    fn what_is_handed_over_arrives() {
        for count in [0, 1, 120] {
            let will = will(count);
            let bytes = will.encode();
            assert!(bytes.len() <= MOST, "{} bytes", bytes.len());
            assert!(matches!(Message::decode(&bytes), Some(Message::Will(w)) if w == will));
        }
        assert!(matches!(Message::decode(&REST), Some(Message::Rest)));
        assert!(matches!(Message::decode(&AGAIN), Some(Message::Again)));
    }

    #[test]
    fn a_note_is_one_of_four_and_of_one_line() {
        let told = |bytes: &[u8]| match Message::decode(bytes) {
            Some(Message::Note(note)) => Some(note),
            _ => None,
        };
        let notes = [
            Note::Ready("backup; master is gw2".to_owned()),
            Note::Status(String::new()),
            Note::Alive,
            Note::Stopping,
        ];
        for note in notes {
            assert_eq!(told(&note.encode()), Some(note));
        }
        let two = Note::Status("master\nMAINPID=1".to_owned());
        assert_eq!(told(&two.encode()), Some(Note::Status("master".to_owned())));
        assert_eq!(told(&[NOTE, 4]), None);
        assert_eq!(told(&[NOTE]), None);
    }

    #[test]
    fn what_is_cut_off_is_not_believed() {
        let bytes = will(2).encode();
        let whole = |end: usize| matches!(Message::decode(&bytes[..end]), Some(Message::Will(_)));
        let complete: Vec<usize> = (0..=bytes.len()).filter(|end| whole(*end)).collect();
        // Between two letters nothing shows: the kernel keeps messages whole.
        assert_eq!(complete.len(), 3, "{complete:?}");
    }
}
