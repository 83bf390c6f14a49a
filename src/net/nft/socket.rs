//! The netlink sockets: one that asks and changes, one that listens.
//!
//! The kernel works on a batch inside `send`, so its answer is there when `send` returns, and `send` takes
//! as long as another transaction holds the ruleset.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc;
use std::thread;

use netlink_packet_core::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlasIterator};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use super::encode::{Attributes, Family, HEADER, Kind, question};

/// Room for one answer; the kernel fills at most 32 KiB of a list at once.
const ANSWER: usize = 64 * 1024;
/// How often a list is read again that changed while it was read.
const TRIES: usize = 5;
/// The table's name, which is attribute 1 of every object.
const TABLE: u16 = 1;
/// `NFTA_SET_ELEM_LIST_SET`, `NFTA_SET_ELEM_LIST_ELEMENTS`.
const ELEMENTS_SET: u16 = 2;
const ELEMENTS: u16 = 3;
/// Room for the largest batch: 64 WireGuard ports and 64 floating IPs take some 200 KB.
const SEND_BUFFER: usize = 1 << 20;
/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// Notifications read at once; what they say does not matter.
const NOTIFICATIONS: usize = 4096;
const CUT: usize = 64;
/// Behind the netlink header: family, version, resource.
const NFGEN: usize = 4;

/// Asks and changes.
pub(in crate::net) struct Connection {
    socket: Socket,
    buffer: Vec<u8>,
    /// It changed something, which the kernel may not have finished with.
    changed: bool,
    /// Dropped behind the socket, which this tells whoever waits.
    closed: Option<mpsc::Sender<()>>,
}

/// To close the socket after a change can take the kernel 20 ms (a grace period, until what was deleted is freed). Nobody waits
/// for that: the last descriptor of it is a thread's.
impl Drop for Connection {
    fn drop(&mut self) {
        if !self.changed {
            return;
        }
        let Ok(last) = self.socket.as_fd().try_clone_to_owned() else { return };
        let (closed, wait) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("nft".to_owned());
        // Without a thread it is closed here.
        let _ = thread.spawn(move || {
            let _ = wait.recv();
            drop(last);
        });
        self.closed = Some(closed);
    }
}

impl Connection {
    /// # Errors
    /// The kernel has no nfnetlink.
    pub(in crate::net) fn open() -> io::Result<Connection> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        // Errors without the message that they answer.
        socket.set_cap_ack(true)?;
        // Beyond net.core.wmem_max, which needs a privilege; without it small rulesets work.
        if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
            setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER)?;
        }
        let buffer = Vec::with_capacity(ANSWER);
        Ok(Connection { socket, buffer, changed: false, closed: None })
    }

    /// As [`Connection::open`]. `None`: this kernel has no nf_tables.
    ///
    /// # Errors
    /// It cannot be known whether it has.
    pub(in crate::net) fn open_where_supported() -> io::Result<Option<Connection>> {
        let mut connection = match Connection::open() {
            Err(e) if is_unsupported(&e) => return Ok(None),
            other => other?,
        };
        match connection.generation() {
            Ok(_) => Ok(Some(connection)),
            // nfnetlink knows nobody for the question (`nfnetlink_rcv_msg`), which has nothing in it that could be wrong.
            Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(None),
            Err(e) if is_unsupported(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Has the kernel apply a batch.
    ///
    /// # Errors
    /// What the kernel said of its first message that it refused; nothing was applied then.
    /// `TimedOut`: no answer.
    pub(in crate::net) fn commit(&mut self, batch: &[u8]) -> io::Result<()> {
        self.forget()?;
        self.changed = true;
        self.socket.send(batch, 0)?;
        let mut done = None;
        self.answers(|_, message| match message {
            Answer::Result(result) => {
                done.get_or_insert(result);
            }
            Answer::Object(..) => {}
        })?;
        done.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The generation of the ruleset: it grows by one with each transaction of anybody.
    ///
    /// # Errors
    /// The kernel has no nf_tables, or lacks the will.
    pub(in crate::net) fn generation(&mut self) -> io::Result<u32> {
        let mut generation = None;
        self.ask(&question(Kind::GetGeneration, Family::None, false, |_| {}), |_, attributes| {
            // NFTA_GEN_ID.
            generation = attribute(attributes, 1).and_then(be32).or(generation);
        })?;
        generation.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The attributes of every object of a kind in a table. None if there is no such table.
    ///
    /// # Errors
    /// As [`Connection::commit`]; `Interrupted`: others change the ruleset all the time.
    pub(in crate::net) fn list(
        &mut self,
        kind: Kind,
        family: Family,
        table: &str,
    ) -> io::Result<Vec<Vec<u8>>> {
        self.list_some(kind, family, table, |_| {})
    }

    /// How many elements a set has that have not expired; none if there is no such set.
    ///
    /// # Errors
    /// As [`Connection::list`].
    pub(in crate::net) fn elements(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
    ) -> io::Result<usize> {
        let only = |a: &mut Attributes<'_>| a.text(ELEMENTS_SET, set);
        let lists = self.list_some(Kind::GetElement, family, table, only)?;
        let count = |list: &[u8]| NlasIterator::new(list).map_while(Result::ok).count();
        Ok(lists.iter().filter_map(|list| attribute(list, ELEMENTS)).map(count).sum())
    }

    fn list_some(
        &mut self,
        kind: Kind,
        family: Family,
        table: &str,
        more: impl FnOnce(&mut Attributes<'_>),
    ) -> io::Result<Vec<Vec<u8>>> {
        let question = question(kind, family, true, |a| {
            a.text(TABLE, table);
            more(a);
        });
        for _ in 0..TRIES {
            let mut found = Vec::new();
            // Those of other tables, too, where the kernel has no filter.
            let result = self.ask(&question, |_, attributes| {
                let name = attribute(attributes, TABLE).and_then(|t| t.strip_suffix(b"\0"));
                if name == Some(table.as_bytes()) {
                    found.push(attributes.to_vec());
                }
            });
            match result {
                Ok(true) => return Ok(found),
                // Who gets no answer knows nothing.
                Ok(false) => return Err(io::ErrorKind::TimedOut.into()),
                Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => return Ok(Vec::new()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// True if the kernel said that this was all, which it does at the end of a list.
    fn ask(&mut self, question: &[u8], mut each: impl FnMut(u16, &[u8])) -> io::Result<bool> {
        self.forget()?;
        self.socket.send(question, 0)?;
        let mut done = Ok(false);
        self.answers(|changed, message| match message {
            _ if changed => done = Err(io::ErrorKind::Interrupted.into()),
            Answer::Result(Err(e)) => done = Err(e),
            Answer::Result(Ok(())) => {
                // What went wrong before stays wrong.
                if let Ok(ended) = &mut done {
                    *ended = true;
                }
            }
            Answer::Object(kind, attributes) => each(kind, attributes),
        })?;
        done
    }

    /// Everything that lies in the socket.
    fn answers(&mut self, mut each: impl FnMut(bool, Answer<'_>)) -> io::Result<()> {
        while self.read()? {
            take_apart(&self.buffer, &mut each);
        }
        Ok(())
    }

    /// What was not read of an earlier answer.
    fn forget(&mut self) -> io::Result<()> {
        while self.read()? {}
        Ok(())
    }

    /// Reads one datagram. False: there is none.
    fn read(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, 0) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// This kernel has no nf_tables: no nfnetlink to open a socket of, or nobody in it for a batch (`nfnetlink_rcv_batch`).
pub(in crate::net) fn is_unsupported(error: &io::Error) -> bool {
    let none = [Errno::EPROTONOSUPPORT, Errno::EOPNOTSUPP, Errno::EAFNOSUPPORT];
    error.raw_os_error().is_some_and(|number| none.contains(&Errno::from_raw(number)))
}

enum Answer<'a> {
    /// Of a change, or the end of a list.
    Result(io::Result<()>),
    /// Message type and attributes.
    Object(u16, &'a [u8]),
}

/// The messages in what was read, each with whether the list changed meanwhile; what is cut off is left out.
fn take_apart(mut rest: &[u8], each: &mut impl FnMut(bool, Answer<'_>)) {
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        let changed = message.flags() & NLM_F_DUMP_INTR != 0;
        let length = message.length() as usize;
        let payload = rest.get(HEADER..length).unwrap_or_default();
        let answer = match message.message_type() {
            NLMSG_ERROR | NLMSG_DONE => Answer::Result(code(payload)),
            kind => Answer::Object(kind, payload.get(NFGEN..).unwrap_or_default()),
        };
        each(changed, answer);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// The number at the head of an error message, or of the end of a list; zero is the acknowledgement.
fn code(payload: &[u8]) -> io::Result<()> {
    let bytes = payload.get(..4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    match bytes {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The value of the first attribute of this kind.
pub(in crate::net) fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut all = NlasIterator::new(attributes).map_while(Result::ok);
    let found = all.find(|a| a.kind() == kind)?;
    let start = found.into_inner();
    start.get(4..usize::from(netlink_packet_core::NlaBuffer::new(start).length()))
}

/// A number.
pub(in crate::net) fn be32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// Whether a notification tells of more than elements of sets, which come and go by themselves, and the
/// generation that every transaction ends with. One that cannot be read does.
pub(in crate::net) fn changes_rules(mut rest: &[u8]) -> bool {
    let passing = [Kind::NewElement, Kind::DelElement, Kind::NewGeneration].map(Kind::code);
    while !rest.is_empty() {
        let Ok(message) = NetlinkBuffer::new_checked(rest) else { return true };
        if !passing.contains(&message.message_type()) {
            return true;
        }
        let next = (message.length() as usize).next_multiple_of(4);
        rest = rest.get(next..).unwrap_or_default();
    }
    false
}

/// Listens for changes of the ruleset, by whomever.
pub(in crate::net) struct Subscription(Socket);

impl Subscription {
    /// # Errors
    /// The kernel refuses.
    pub(in crate::net) fn open() -> io::Result<Subscription> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        socket.add_membership(GROUP)?;
        Ok(Subscription(socket))
    }

    /// Readable when something changed.
    pub(in crate::net) fn changed(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes off what was told. True if there was anything, or something was lost.
    pub(in crate::net) fn drain(&self) -> io::Result<bool> {
        let mut any = false;
        let mut buffer = Vec::with_capacity(CUT);
        for _ in 0..NOTIFICATIONS {
            buffer.clear();
            match self.0.recv(&mut buffer, 0) {
                Ok(_) => any = true,
                Err(e) if e.raw_os_error() == Some(Errno::ENOBUFS as i32) => any = true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode::append;
    use super::*;

    /// What is in the bytes, in words.
    fn told(bytes: &[u8]) -> Vec<String> {
        let mut told = Vec::new();
        take_apart(bytes, &mut |changed, answer| {
            told.push(match answer {
                Answer::Result(result) => format!("{changed} {:?}", result.map_err(|e| e.kind())),
                Answer::Object(kind, attributes) => {
                    format!(
                        "{changed} {kind} {:?} {:?}",
                        attribute(attributes, 7),
                        attribute(attributes, 9)
                    )
                }
            });
        });
        told
    }

    #[test]
    fn a_renewal_of_the_gate_is_no_change_of_rules() {
        let said = |kinds: &[Kind]| {
            let mut bytes = Vec::new();
            for kind in kinds {
                append(&mut bytes, kind.code(), 0, Family::Inet, 0, |a| a.text(TABLE, "t"));
            }
            bytes
        };
        let renewal =
            [Kind::NewElement, Kind::DelElement, Kind::NewElement, Kind::NewGeneration].as_slice();
        assert!(!changes_rules(&said(renewal)));
        for kind in [Kind::NewTable, Kind::DelTable, Kind::NewChain, Kind::NewRule, Kind::NewSet] {
            let last = said(&[renewal, &[kind]].concat());
            assert!(changes_rules(&last), "{kind:?}");
            assert!(changes_rules(&last[..last.len() - 5]), "cut off");
        }
    }

    #[test]
    fn answers_are_taken_apart() {
        let mut bytes = Vec::new();
        append(&mut bytes, Kind::NewRule.code(), NLM_F_DUMP_INTR, Family::Inet, 0, |a| {
            a.text(TABLE, "wgha_51820");
            a.bytes(7, b"odd");
        });
        let at = bytes.len();
        append(&mut bytes, NLMSG_ERROR, 0, Family::None, 0, |_| {});
        bytes[at + HEADER..].copy_from_slice(&(-2_i32).to_ne_bytes());
        let rule = format!("true {} Some({:?}) None", Kind::NewRule.code(), b"odd");
        assert_eq!(told(&bytes), [rule, "false Err(NotFound)".to_owned()]);
        // Whatever is cut off, nothing panics, and nothing is made up.
        for length in 0..bytes.len() {
            assert!(told(&bytes[..length]).len() < 2, "{length}");
        }
        assert!(told(&[0; 64]).is_empty());
    }
}
