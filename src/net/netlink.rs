//! Links, addresses, routes and policy rules of this network namespace, over rtnetlink.
//!
//! Only this module names the crates that do it (`watch.rs` and `barrier.rs` the socket). Interfaces are given by
//! name and resolved at every call, because they come and go.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily as Code, RouteNetlinkMessage};
use netlink_sys::AsyncSocket;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::NetError;
use super::types::Family;

mod address;
mod bulk;
mod flight;
mod link;
mod route;
mod rule;

pub use flight::Change;
pub(crate) use route::route_key;
pub(super) use route::same_route;

/// How long the kernel may take for one answer or one list, unless [`Netlink::patient`].
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a list is asked for again when it changed while being read.
const LIST_TRIES: usize = 5;
/// `NLM_F_DUMP_INTR`: the list changed while it was being read.
const LIST_CHANGED: u16 = 0x10;

/// The main routing table.
pub const MAIN_TABLE: u32 = 254;

/// A connection to rtnetlink. Clones share it; its task ends with the last one.
///
/// It belongs to the network namespace of the thread that opened it.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    /// Longest wait for one answer or one list.
    patience: Duration,
    _driver: Arc<Driver>,
}

/// The task that moves messages, ended when nobody can ask any more.
#[derive(Debug)]
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Netlink {
    /// Opens a connection; its task runs on the current tokio runtime.
    ///
    /// # Errors
    /// [`NetError::Open`] if the kernel refuses a socket.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open() -> Result<Netlink, NetError> {
        let (mut connection, handle, _unsolicited) =
            rtnetlink::new_connection().map_err(NetError::Open)?;
        let socket = connection.socket_mut().socket_mut();
        // Lets the kernel filter lists by table and interface: a router may have a million routes.
        socket.set_netlink_get_strict_chk(true).map_err(NetError::Open)?;
        // Without these an error at the end of a list, or a dead connection, would look like success.
        connection.set_forward_done(true);
        connection.set_forward_ack(true);
        let driver = Arc::new(Driver(tokio::spawn(connection)));
        Ok(Netlink { handle, patience: ANSWER_TIMEOUT, _driver: driver })
    }

    /// The same connection, waiting this long for one answer or one list instead of 3 s: for links
    /// with thousands of peers and routes, which the kernel walks at once when they go down.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Netlink {
        Netlink { patience, ..self }
    }

    async fn change(
        &self,
        what: &str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetError> {
        self.ask(what, request, flags | NLM_F_ACK).await.map(|_| ())
    }

    /// A whole list, asked for again if it changed meanwhile.
    async fn list(
        &self,
        what: &str,
        request: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetError> {
        for _ in 0..LIST_TRIES {
            let answers = self.ask(what, request.clone(), NLM_F_DUMP).await?;
            if !answers.changed {
                return Ok(answers.messages);
            }
        }
        Err(NetError::Restless(what.to_owned()))
    }

    async fn ask(
        &self,
        what: &str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Answers, NetError> {
        tokio::time::timeout(self.patience, self.answers(what, request, flags))
            .await
            .unwrap_or_else(|_| Err(NetError::NoAnswer(what.to_owned())))
    }

    async fn answers(
        &self,
        what: &str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Answers, NetError> {
        let mut request = NetlinkMessage::from(request);
        request.header.flags = NLM_F_REQUEST | flags;
        let refused = |source| NetError::Refused { what: what.to_owned(), source };
        let mut stream = self
            .handle
            .clone()
            .request(request)
            .map_err(|_| NetError::NoAnswer(what.to_owned()))?;
        let mut answers = Answers { messages: Vec::new(), changed: false };
        while let Some(answer) = stream.next().await {
            answers.changed |= answer.header.flags & LIST_CHANGED != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => answers.messages.push(message),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                NetlinkPayload::Error(error) => return Err(refused(error.to_io())),
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(refused(io::Error::from_raw_os_error(-done.code)));
                }
                NetlinkPayload::Done(_) => return Ok(answers),
                _ => {}
            }
        }
        // A question about one object ends with the object; all else has an end of its own.
        if flags == 0 && !answers.messages.is_empty() {
            return Ok(answers);
        }
        Err(NetError::NoAnswer(what.to_owned()))
    }
}

struct Answers {
    messages: Vec<RouteNetlinkMessage>,
    /// The list changed while it was being read.
    changed: bool,
}

fn is(error: &NetError, errors: &[Errno]) -> bool {
    error.errno().is_some_and(|number| errors.contains(&Errno::from_raw(number)))
}

/// `false` where the kernel says that there was nothing to do.
fn unless(nothing: &[Errno], result: Result<(), NetError>) -> Result<bool, NetError> {
    match result {
        Ok(()) => Ok(true),
        Err(e) if is(&e, nothing) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether this kernel has IPv6 at all (`ipv6.disable=1`: no). In doubt it has.
pub(super) fn has_ipv6() -> bool {
    let socket = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    !matches!(socket, Err(Errno::EAFNOSUPPORT))
}

const fn family_code(family: Family) -> Code {
    match family {
        Family::V4 => Code::Inet,
        Family::V6 => Code::Inet6,
    }
}

fn family_of(code: Code) -> Option<Family> {
    match code {
        Code::Inet => Some(Family::V4),
        Code::Inet6 => Some(Family::V6),
        _ => None,
    }
}
