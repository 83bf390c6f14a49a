//! Many changes at once: said in one go, done by the kernel in their order.

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use ipnet::IpNet;
use nix::errno::Errno;

use super::super::types::{Address, Route, Rule};
use super::{NetError, Netlink, is};

/// Requests under way at once.
const IN_FLIGHT: usize = 64;

/// One change. Interfaces are given by index: whoever makes a list has looked before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets an address, as [`Netlink::put_address`] does, for ever.
    PutAddress {
        /// Index of the interface.
        interface: u32,
        /// The address and its prefix length.
        address: IpNet,
        /// Preferred lifetime 0 (IPv6).
        deprecated: bool,
    },
    /// Removes an address.
    RemoveAddress(Address),
    /// Adds a rule.
    AddRule(Rule),
    /// Removes a rule.
    RemoveRule(Rule),
    /// Sets a route.
    PutRoute(Route),
    /// Adds a route where there is none.
    AddRoute(Route),
    /// Removes a route.
    RemoveRoute(Route),
    /// Sets an interface up or down.
    SetLink {
        /// Its index.
        interface: u32,
        /// Up.
        up: bool,
    },
}

impl Netlink {
    /// Makes all changes, in this order, without waiting for one answer after the other. What is so
    /// already, or gone already, is no error. Returns the routes in whose place there was one.
    ///
    /// # Errors
    /// The first that the kernel refused, or did not answer; the others were tried.
    pub async fn flight(&self, changes: Vec<Change>) -> Result<Vec<Route>, NetError> {
        // Polled, and so sent, in the order of the list.
        let doing = changes.into_iter().map(async |change| self.make(&change).await);
        let mut answers = iter(doing).buffered(IN_FLIGHT);
        let (mut taken, mut first_error) = (Vec::new(), None);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(route) => taken.extend(route),
                Err(e) => _ = first_error.get_or_insert(e),
            }
        }
        first_error.map_or(Ok(taken), Err)
    }

    /// Makes one change. Returns the route whose place is taken.
    async fn make(&self, change: &Change) -> Result<Option<Route>, NetError> {
        match change {
            Change::PutAddress { interface, address, deprecated } => {
                self.put_address_at(*interface, *address, *deprecated).await?;
            }
            Change::RemoveAddress(address) => _ = self.remove_found(address).await?,
            Change::AddRule(rule) => _ = self.add_rule(rule).await?,
            Change::RemoveRule(rule) => _ = self.remove_rule(rule).await?,
            Change::PutRoute(route) => self.put_route(route).await?,
            Change::RemoveRoute(route) => _ = self.remove_route(route).await?,
            Change::AddRoute(route) => {
                return Ok((!self.add_route(route).await?).then(|| route.clone()));
            }
            Change::SetLink { interface, up } => match self.set_link(*interface, *up).await {
                // One that is gone is down.
                Err(e) if !up && is(&e, &[Errno::ENODEV]) => {}
                other => other?,
            },
        }
        Ok(None)
    }
}
