//! What the worker leaves to its guard: said again whenever it changes, in one message each.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::state::Applied;

/// Longer than any: 15 peers with 8 paths each, of at most 1200 bytes.
pub(super) const MOST: usize = 192 * 1024;

/// First byte of a message.
const WILL: u8 = 1;
/// The message that says that no progress is to be expected.
pub(super) const REST: [u8; 1] = [2];

/// One obituary and its way.
#[derive(Clone, PartialEq, Eq)]
pub struct Letter {
    /// The address that the worker sends from.
    pub from: SocketAddr,
    /// The peer's.
    pub to: SocketAddr,
    /// Sealed. Whoever sends it ends the worker's session: no `Debug`.
    pub bytes: Vec<u8>,
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
    /// One for each path to each peer.
    pub letters: Vec<Letter>,
}

/// What a message says.
pub(super) enum Message {
    Will(Will),
    Rest,
}

impl Will {
    /// As one message.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![WILL];
        put(&mut out, self.state_dir.as_os_str().as_bytes());
        // Strings, numbers and lists of them; a will without it would not be read.
        put(&mut out, &serde_json::to_vec(&self.by_config).unwrap_or_default());
        let patience = u64::try_from(self.patience.as_nanos()).unwrap_or(u64::MAX);
        put(&mut out, &patience.to_be_bytes());
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
        let mut rest = bytes.strip_prefix(&[WILL])?;
        let state_dir = PathBuf::from(OsStr::from_bytes(take(&mut rest)?));
        let by_config = serde_json::from_slice(take(&mut rest)?).ok()?;
        let patience = u64::from_be_bytes(take(&mut rest)?.try_into().ok()?);
        let mut letters = Vec::new();
        while !rest.is_empty() {
            letters.push(Letter {
                from: address(take(&mut rest)?)?,
                to: address(take(&mut rest)?)?,
                bytes: take(&mut rest)?.to_vec(),
            });
        }
        let patience = Duration::from_nanos(patience);
        Some(Message::Will(Will { state_dir, by_config, patience, letters }))
    }
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

    use nix::sys::eventfd::EventFd;
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
    use nix::unistd::Pid;

    use super::*;
    use crate::guard::{Line, process};

    /// Both ends of a line; no process is at the other one.
    pub(crate) fn line() -> (Line, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (guard, worker) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let pidfd = process::pidfd(Pid::this()).unwrap();
        (Line::new(worker, EventFd::new().unwrap(), pidfd, 1), guard)
    }

    /// The next will at the guard's end; `None`: there is none.
    pub(crate) fn read(guard: &OwnedFd) -> Option<Will> {
        let mut buffer = vec![0; MOST];
        let length = recv(guard.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
        match Message::decode(&buffer[..length])? {
            Message::Will(will) => Some(will),
            Message::Rest => None,
        }
    }

    fn will(letters: usize) -> Will {
        let letter = |n: usize| Letter {
            from: "[2001:db8::1]:5112".parse().unwrap(),
            to: format!("10.0.1.{n}:5112").parse().unwrap(),
            bytes: vec![u8::try_from(n).unwrap(); 1200],
        };
        Will {
            state_dir: "/var/lib/wgha/edge".into(),
            by_config: Applied { gates: vec!["wgha_edge".into()], ..Applied::default() },
            patience: Duration::from_millis(600),
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
