//! Interfaces.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use nix::errno::Errno;

use super::super::types::Link;
use super::{NetError, Netlink, is, unless};

impl Netlink {
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
        self.set_link(link.index, up).await?;
        Ok(true)
    }

    /// Sets an interface that was found up or down.
    pub(super) async fn set_link(&self, index: u32, up: bool) -> Result<(), NetError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        let what = format!("set interface {index} {}", if up { "up" } else { "down" });
        self.change(&what, RouteNetlinkMessage::SetLink(message), 0).await
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
        self.delete_found(name, link.index).await
    }

    /// Deletes the interface that was found, and not one that took its name since. `false`: it is
    /// gone.
    ///
    /// # Errors
    /// As [`delete_link`](Self::delete_link).
    pub async fn delete_found(&self, name: &str, index: u32) -> Result<bool, NetError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let request = RouteNetlinkMessage::DelLink(message);
        let what = format!("delete interface {name}");
        unless(&[Errno::ENODEV], self.change(&what, request, 0).await)
    }
}

fn as_link(message: RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Some(convert(message)),
        _ => None,
    }
}

fn convert(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        kind: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(bytes) => {
                link.mac = <[u8; 6]>::try_from(bytes).ok().filter(|mac| *mac != [0; 6]);
            }
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = Some(kind.to_string());
                    }
                }
            }
            _ => {}
        }
    }
    link
}
