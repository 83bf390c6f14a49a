//! Links, addresses, routes and policy rules of this network namespace, over rtnetlink.
//!
//! This file and `convert.rs` are the only ones that name the netlink crates. Interfaces are named
//! by name and resolved at every call, because they come and go.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::rule::RuleMessage;
use netlink_sys::AsyncSocket;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::NetError;
use super::convert;
use super::types::{Address, Family, Lifetime, Link, Route, Rule};

/// How long the kernel may take for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
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
        Ok(Netlink { handle, _driver: Arc::new(Driver(tokio::spawn(connection))) })
    }

    /// The interface of that name, if there is one now.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, NetError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let what = format!("look up interface {name}");
        match self.ask(&what, RouteNetlinkMessage::GetLink(message), 0).await {
            Ok(answers) => Ok(answers.messages.into_iter().find_map(as_link)),
            // ERANGE: longer than a name can be.
            Err(e) if is(&e, &[Errno::ENODEV, Errno::ERANGE, Errno::EINVAL]) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The interface of that name.
    ///
    /// # Errors
    /// [`NetError::NoInterface`] if there is none; the kernel refused or did not answer.
    pub async fn existing_link(&self, name: &str) -> Result<Link, NetError> {
        self.link(name).await?.ok_or_else(|| NetError::NoInterface(name.to_owned()))
    }

    /// All interfaces.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn links(&self) -> Result<Vec<Link>, NetError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.list("list interfaces", request).await?;
        Ok(answers.into_iter().filter_map(as_link).collect())
    }

    /// Sets an interface up or down. `true`: it was not before.
    ///
    /// # Errors
    /// [`NetError::NoInterface`]; the kernel refused (`EADDRINUSE`: the port of a WireGuard
    /// interface is taken) or did not answer.
    pub async fn set_up(&self, name: &str, up: bool) -> Result<bool, NetError> {
        let link = self.existing_link(name).await?;
        if link.up == up {
            return Ok(false);
        }
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        let what = format!("set {name} {}", if up { "up" } else { "down" });
        self.change(&what, RouteNetlinkMessage::SetLink(message), 0).await?;
        Ok(true)
    }

    /// Sets an interface's MTU, bytes. `true`: it was another one before.
    ///
    /// # Errors
    /// [`NetError::NoInterface`]; the kernel refused (out of range) or did not answer.
    pub async fn set_mtu(&self, name: &str, mtu: u32) -> Result<bool, NetError> {
        let link = self.existing_link(name).await?;
        if link.mtu == mtu {
            return Ok(false);
        }
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        let what = format!("set the MTU of {name} to {mtu}");
        self.change(&what, RouteNetlinkMessage::SetLink(message), 0).await?;
        Ok(true)
    }

    /// Makes an interface of a kind such as `wireguard`, down. `false`: one of that name exists,
    /// of whatever kind (see [`Link::kind`]).
    ///
    /// # Errors
    /// The kernel refused (`EOPNOTSUPP`: it does not know the kind) or did not answer.
    pub async fn create_link(&self, name: &str, kind: &str) -> Result<bool, NetError> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind.into())]),
        ];
        let request = RouteNetlinkMessage::NewLink(message);
        let what = format!("create {kind} interface {name}");
        unless(&[Errno::EEXIST], self.change(&what, request, NLM_F_CREATE | NLM_F_EXCL).await)
    }

    /// Deletes an interface. `false`: there is none.
    ///
    /// # Errors
    /// The kernel refused (hardware cannot be deleted) or did not answer.
    pub async fn delete_link(&self, name: &str) -> Result<bool, NetError> {
        let Some(link) = self.link(name).await? else { return Ok(false) };
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        let request = RouteNetlinkMessage::DelLink(message);
        unless(&[Errno::ENODEV], self.change(&format!("delete interface {name}"), request, 0).await)
    }

    /// The addresses of an interface, or of all.
    ///
    /// # Errors
    /// [`NetError::NoInterface`]; the kernel refused or did not answer.
    pub async fn addresses(&self, interface: Option<&str>) -> Result<Vec<Address>, NetError> {
        let mut message = AddressMessage::default();
        let mut what = "list addresses".to_owned();
        if let Some(name) = interface {
            message.header.index = self.existing_link(name).await?.index;
            what = format!("list addresses of {name}");
        }
        let index = message.header.index;
        let answers = self.list(&what, RouteNetlinkMessage::GetAddress(message)).await?;
        let addresses = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => convert::address(&message),
            _ => None,
        });
        Ok(addresses.filter(|a| index == 0 || a.interface == index).collect())
    }

    /// Sets an address, new or again (then its lifetime starts anew). One request, no comparison.
    ///
    /// IPv6 addresses are set without duplicate address detection: usable at once. `deprecated`
    /// gives them preferred lifetime 0, so that the machine's own traffic does not leave from them.
    ///
    /// # Errors
    /// [`NetError::NoInterface`]; the kernel refused or did not answer.
    pub async fn put_address(
        &self,
        interface: &str,
        address: IpNet,
        valid: Lifetime,
        deprecated: bool,
    ) -> Result<(), NetError> {
        let link = self.existing_link(interface).await?;
        let deprecated = deprecated && address.addr().is_ipv6();
        let wanted =
            Address { interface: link.index, address, valid, deprecated, tentative: false };
        let request = RouteNetlinkMessage::NewAddress(convert::address_message(&wanted));
        let what = format!("set address {address} on {interface}");
        self.change(&what, request, NLM_F_CREATE | NLM_F_REPLACE).await
    }

    /// Removes an address. `false`: it was not there, or its interface is gone.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn remove_address(&self, interface: &str, address: IpNet) -> Result<bool, NetError> {
        let Some(link) = self.link(interface).await? else { return Ok(false) };
        let mut message = convert::address_message(&Address {
            interface: link.index,
            address,
            valid: Lifetime::Forever,
            deprecated: false,
            tentative: false,
        });
        message.attributes.truncate(2);
        let request = RouteNetlinkMessage::DelAddress(message);
        let what = format!("remove address {address} from {interface}");
        unless(&[Errno::EADDRNOTAVAIL, Errno::ENODEV], self.change(&what, request, 0).await)
    }

    /// The unicast routes of a family in a table, all or those through one interface (by index).
    /// Of a route with several next hops the first one through that interface counts.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn routes(
        &self,
        family: Family,
        table: u32,
        interface: Option<u32>,
    ) -> Result<Vec<Route>, NetError> {
        let mut message = RouteMessage::default();
        message.header.address_family = convert::family_code(family);
        message.attributes.push(RouteAttribute::Table(table));
        message.attributes.extend(interface.map(RouteAttribute::Oif));
        let what = format!("list routes of table {table}");
        let request = RouteNetlinkMessage::GetRoute(message);
        let answers = match self.list(&what, request).await {
            Ok(answers) => answers,
            // No such table yet; no such family; no such interface any more.
            Err(e) if is(&e, &[Errno::ENOENT, Errno::EAFNOSUPPORT, Errno::ENODEV]) => Vec::new(),
            Err(e) => return Err(e),
        };
        let routes = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(message) => convert::route(message, interface),
            _ => None,
        });
        Ok(routes.filter(|r| r.table == table && r.family() == family).collect())
    }

    /// Sets a route. One with the same destination, metric and table is replaced in one step.
    ///
    /// # Errors
    /// The kernel refused (interface down, gateway not reachable, source not ours) or did not answer.
    pub async fn put_route(&self, route: &Route) -> Result<(), NetError> {
        let request = RouteNetlinkMessage::NewRoute(convert::route_message(route));
        let what = format!("set route to {} in table {}", route.destination, route.table);
        self.change(&what, request, NLM_F_CREATE | NLM_F_REPLACE).await
    }

    /// Removes a route. `false`: it was not there.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn remove_route(&self, route: &Route) -> Result<bool, NetError> {
        let mut message = convert::route_message(route);
        // Metrics do not identify a route, and a dangling source must not keep one from going.
        message.attributes.retain(|attribute| {
            !matches!(attribute, RouteAttribute::Metrics(_) | RouteAttribute::PrefSource(_))
        });
        let request = RouteNetlinkMessage::DelRoute(message);
        let what = format!("remove route to {} from table {}", route.destination, route.table);
        let gone = [Errno::ESRCH, Errno::ENOENT, Errno::ENODEV];
        unless(&gone, self.change(&what, request, 0).await)
    }

    /// The policy rules of a family, in the order in which they are asked.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn rules(&self, family: Family) -> Result<Vec<Rule>, NetError> {
        let mut message = RuleMessage::default();
        message.header.family = convert::family_code(family);
        let answers = match self.list("list rules", RouteNetlinkMessage::GetRule(message)).await {
            Ok(answers) => answers,
            Err(e) if is(&e, &[Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP]) => Vec::new(),
            Err(e) => return Err(e),
        };
        let rules = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRule(message) => convert::rule(message),
            _ => None,
        });
        Ok(rules.filter(|rule| rule.family == family).collect())
    }

    /// Adds a policy rule. `false`: the same one is there already.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn add_rule(&self, rule: &Rule) -> Result<bool, NetError> {
        let request = RouteNetlinkMessage::NewRule(convert::rule_message(rule));
        let what = format!("add rule {} of {:?}", rule.priority, rule.family);
        unless(&[Errno::EEXIST], self.change(&what, request, NLM_F_CREATE | NLM_F_EXCL).await)
    }

    /// Removes a policy rule. `false`: it was not there.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn remove_rule(&self, rule: &Rule) -> Result<bool, NetError> {
        let request = RouteNetlinkMessage::DelRule(convert::rule_message(rule));
        let what = format!("remove rule {} of {:?}", rule.priority, rule.family);
        unless(&[Errno::ENOENT], self.change(&what, request, 0).await)
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
        tokio::time::timeout(ANSWER_TIMEOUT, self.answers(what, request, flags))
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

fn as_link(message: RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Some(convert::link(message)),
        _ => None,
    }
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

/// Routes that differ in nothing that a lookup would notice.
pub(super) fn same_route(a: &Route, b: &Route) -> bool {
    let plain = |r: &Route| Route {
        metric: convert::effective_metric(r),
        // IPv6 has no scope.
        scope: if r.family() == Family::V6 { Default::default() } else { r.scope },
        owner: 0,
        ..r.clone()
    };
    plain(a) == plain(b)
}

/// What identifies a route in its table: two with the same key replace each other.
pub(super) fn route_key(route: &Route) -> (IpNet, u32) {
    (route.destination, convert::effective_metric(route))
}
