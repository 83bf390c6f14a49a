//! The netlink socket that asks and changes.
//!
//! The kernel works on a batch inside `send`, so its answer is there when `send` returns, and `send` takes
//! as long as another transaction holds the ruleset.

use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;

use netlink_packet_core::NlasIterator;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use super::answer::{Answer, attribute, be32, take_apart};
use super::encode::{Attributes, Family, Kind, question};

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
