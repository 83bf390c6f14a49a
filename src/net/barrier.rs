//! The second line: an nftables table that drops what WireGuard's port would send from any other
//! address than the floating IP.
//!
//! The policy rules of [`source`](super::source) choose the right source; who takes them away (a
//! restart of networkd, `ip rule flush`) opens a gap of some milliseconds until they are put back, in which the
//! kernel's WireGuard would speak from the machine's own address. This table stands at all times,
//! master or not, and never changes with the role:
//!
//! ```text
//! table inet wgha_51820 {
//!     chain output {
//!         type filter hook output priority filter
//!         meta nfproto ipv4 udp sport 51820 ip saddr != 203.0.113.10 counter drop
//!         meta nfproto ipv6 udp sport 51820 counter drop                    a family without one
//!     }
//! }
//! ```
//!
//! It is looked at whenever the rules are. A kernel without nf_tables goes without: the rules are the
//! first line.

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::errno::Errno;
use tracing::warn;

use super::Family;
use super::source::SourcePlan;

mod message;

use message::{Answer, Batch};

/// How long the kernel may take for one answer. A transaction may wait for others'.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of one read: the kernel sends a list in pieces of at most 32 KiB.
const READ: usize = 64 << 10;

/// What was last complained about: once is enough for what is tried again each second.
static COMPLAINT: Mutex<Option<String>> = Mutex::new(None);

/// The table's name.
#[must_use]
pub fn table_of(port: u16) -> String {
    format!("wgha_{port}")
}

/// What a family's rule lets through; `None`: nothing.
type Allowed = Option<IpAddr>;

/// Makes the table what it should be. `true`: it was not.
///
/// Never an error: it is the second line, and what keeps it from standing is in the log.
pub async fn install(plan: &SourcePlan) -> bool {
    let allowed: [(Family, Allowed); 2] = [
        (Family::V4, plan.v4.as_ref().map(|(ip, _)| IpAddr::V4(*ip))),
        (Family::V6, plan.v6.as_ref().map(|(ip, _)| IpAddr::V6(*ip))),
    ];
    tell(plan.port, stand(plan.port, &allowed).await)
}

/// Removes the table. `true`: it was there.
pub async fn remove(port: u16) -> bool {
    tell(port, fall(port).await)
}

fn tell(port: u16, result: io::Result<bool>) -> bool {
    let complaint = result.as_ref().err().filter(|e| !unsupported(e)).map(ToString::to_string);
    let mut last = COMPLAINT.lock().unwrap_or_else(PoisonError::into_inner);
    if *last != complaint {
        if let Some(why) = &complaint {
            warn!("nftables table {}: {why}", table_of(port));
        }
        *last = complaint;
    }
    result.unwrap_or(false)
}

/// This kernel has no nf_tables, or this process may not use it.
fn unsupported(error: &io::Error) -> bool {
    let none = [Errno::EPROTONOSUPPORT, Errno::EOPNOTSUPP, Errno::EAFNOSUPPORT];
    error.raw_os_error().is_some_and(|number| none.contains(&Errno::from_raw(number)))
}

async fn stand(port: u16, allowed: &[(Family, Allowed)]) -> io::Result<bool> {
    let table = table_of(port);
    let wanted: Vec<Vec<u8>> = allowed.iter().map(|(f, ip)| message::comment(*f, *ip)).collect();
    let mut conversation = Conversation::open()?;
    if conversation.comments(&table).await? == wanted {
        return Ok(false);
    }
    let mut batch = Batch::default();
    // Whatever it is, it goes; one that is not there cannot be deleted, so it is made first.
    batch.table(&table).delete_table(&table).table(&table).chain(&table);
    for ((family, ip), comment) in allowed.iter().zip(&wanted) {
        batch.rule(&table, *family, port, *ip, comment);
    }
    conversation.commit(batch).await?;
    Ok(true)
}

async fn fall(port: u16) -> io::Result<bool> {
    let table = table_of(port);
    let mut conversation = Conversation::open()?;
    let mut batch = Batch::default();
    batch.delete_table(&table);
    match conversation.commit(batch).await {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// A connection to nfnetlink of this network namespace.
struct Conversation {
    socket: TokioSocket,
}

impl Conversation {
    fn open() -> io::Result<Conversation> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        Ok(Conversation { socket })
    }

    /// The comments of the table's rules, in order; none where there is no such table.
    async fn comments(&mut self, table: &str) -> io::Result<Vec<Vec<u8>>> {
        self.send(&message::list_rules(table)).await?;
        let mut found = Vec::new();
        loop {
            for answer in self.receive().await? {
                match answer {
                    Answer::Rule { of, comment } if of == table => found.push(comment),
                    Answer::Rule { .. } => {}
                    Answer::Result(0) => return Ok(found),
                    Answer::Result(number) if number == Errno::ENOENT as i32 => return Ok(found),
                    Answer::Result(number) => return Err(io::Error::from_raw_os_error(number)),
                }
            }
        }
    }

    /// All of it or nothing.
    async fn commit(&mut self, batch: Batch) -> io::Result<()> {
        let (bytes, mut expected) = batch.finish();
        self.send(&bytes).await?;
        while expected > 0 {
            for answer in self.receive().await? {
                match answer {
                    Answer::Result(0) => expected = expected.saturating_sub(1),
                    Answer::Result(number) => return Err(io::Error::from_raw_os_error(number)),
                    Answer::Rule { .. } => {}
                }
            }
        }
        Ok(())
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send_to(bytes, &SocketAddr::new(0, 0)).await.map(drop)
    }

    async fn receive(&mut self) -> io::Result<Vec<Answer>> {
        let mut buffer = Vec::with_capacity(READ);
        let read = tokio::time::timeout(ANSWER_TIMEOUT, self.socket.recv(&mut buffer));
        read.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(message::answers(&buffer))
    }
}
