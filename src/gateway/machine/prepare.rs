//! What is made ready before the role moves, so that nothing is asked while clients wait: the list
//! of changes that puts the floating IPs up, and the one that takes them off.
//!
//! A list is only as good as the look that it was made from. So entering compares everything once
//! more after the clients were called, and leaving looks before it says that nothing is left;
//! without a list, or when the kernel refuses a part of it, both go step by step.

use std::time::Duration;

use tokio::time::timeout;
use tracing::{debug, warn};
use wgha_proto::Doubt;

use super::Machine;
use crate::config::FloatingIp;
use crate::net::{Address, Change, Link, NetError, source};

/// Bound of telling the successor the last; the node gives it 100 ms.
const FLUSH: Duration = Duration::from_millis(80);

/// What entering does when all is as it was seen.
#[derive(Debug)]
pub(super) struct Entering {
    pub(super) changes: Vec<Change>,
    /// The interfaces of the floating IPs.
    pub(super) links: Vec<Link>,
}

impl Machine {
    /// Makes the list for entering; without one entering takes longer.
    pub(super) async fn prepare_entering(&mut self) {
        self.entering = match self.list_entering().await {
            Ok(list) => list,
            Err(e) => {
                debug!("the takeover is not prepared: {e}");
                None
            }
        };
    }

    async fn list_entering(&self) -> Result<Option<Entering>, NetError> {
        let mut links: Vec<Link> = Vec::new();
        let mut changes = Vec::new();
        for ip in &self.floating_ips {
            if !links.iter().any(|link| link.name == ip.interface) {
                links.push(self.netlink.existing_link(&ip.interface).await?);
            }
            let Some(link) = links.iter().find(|link| link.name == ip.interface) else { continue };
            changes.push(Change::PutAddress {
                interface: link.index,
                address: ip.address,
                valid: self.dead_man.lifetime(),
                deprecated: true,
            });
        }
        for tunnel in self.tunnels.iter().filter(|tunnel| tunnel.has_rules()) {
            let plan = tunnel.source_plan();
            match source::prepare_install(&self.netlink, plan, &links).await? {
                Some(more) => changes.extend(more),
                None => return Ok(None),
            }
        }
        Ok(Some(Entering { changes, links }))
    }

    /// Makes the list for leaving: rules, then floating IPs.
    async fn prepare_leaving(&mut self) {
        self.leaving = match self.list_leaving().await {
            Ok(list) => list,
            Err(e) => {
                debug!("leaving is not prepared: {e}");
                None
            }
        };
    }

    async fn list_leaving(&self) -> Result<Option<Vec<Change>>, NetError> {
        let mut changes = Vec::new();
        for tunnel in self.tunnels.iter().filter(|tunnel| tunnel.has_rules()) {
            changes.extend(source::prepare_remove(&self.netlink, tunnel.source_plan()).await?);
        }
        for ip in &self.floating_ips {
            let there = self.netlink.addresses(Some(&ip.interface)).await?;
            // With the first address of a subnet the kernel takes the others along: that is for the
            // way that looks.
            let own = |a: &&Address| a.address.addr() != ip.address.addr();
            if there.iter().filter(own).any(|a| a.address.trunc() == ip.address.trunc()) {
                return Ok(None);
            }
            changes.extend(there.into_iter().filter(|a| is(a, ip)).map(Change::RemoveAddress));
        }
        Ok(Some(changes))
    }

    /// Takes off what acts by the list. True if nothing is left of it, which was looked at; false:
    /// it has to be done step by step.
    pub(super) async fn leave_by_list(&mut self) -> bool {
        let Some(changes) = self.leaving.take() else { return false };
        self.attendance.end();
        // As in `take_off`.
        self.gate.closed().await;
        for tunnel in &mut self.tunnels {
            if let Err(e) = tunnel.silence().await {
                warn!("{}: {e}", tunnel.interface());
                return false;
            }
        }
        if let Err(e) = self.netlink.flight(changes).await {
            warn!("leaving: {e}");
            return false;
        }
        self.is_off().await.unwrap_or(false)
    }

    /// Whether no floating IP, no rule that lets WireGuard leave, and no interface of WireGuard that
    /// is up is left.
    async fn is_off(&self) -> Result<bool, NetError> {
        let addresses = self.netlink.addresses(None).await?;
        for ip in &self.floating_ips {
            let Some(link) = self.netlink.link(&ip.interface).await? else { continue };
            if addresses.iter().any(|a| a.interface == link.index && is(a, ip)) {
                return Ok(false);
            }
        }
        for tunnel in &self.tunnels {
            let up = self.netlink.link(tunnel.interface()).await?.is_some_and(|link| link.up);
            let rules = tunnel.has_rules()
                && !source::prepare_remove(&self.netlink, tunnel.source_plan()).await?.is_empty();
            if up || rules {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Everything that a takeover at once needs, looked at now.
    pub(super) async fn examine_all(&mut self, from: &str) -> Result<(), Doubt> {
        if self.missing_interface().await.is_some() {
            return Err(Doubt::NotStaged);
        }
        for tunnel in &mut self.tunnels {
            tunnel.check_port().await.map_err(|_| Doubt::PortTaken)?;
            let (up, staged) = tunnel.look().await;
            if up || !staged || tunnel.is_stale() {
                return Err(Doubt::NotStaged);
            }
        }
        if !self.tunnels.is_empty() && !self.endpoints.flushes.connected(from) {
            return Err(Doubt::NotInSync);
        }
        for tunnel in &mut self.tunnels {
            if !self.endpoints.look(tunnel.interface()).is_current() {
                return Err(Doubt::StaleEndpoints);
            }
            if let Err(e) = tunnel.take_endpoints(&self.endpoints).await {
                warn!("endpoints not set: {e}");
                return Err(Doubt::NotStaged);
            }
        }
        self.prepare_entering().await;
        Ok(())
    }

    /// The last look before the master leaves, said to `to` and acknowledged, and the list for
    /// leaving.
    pub(super) async fn flush_to(&mut self, to: &str) {
        let told = async {
            for tunnel in &mut self.tunnels {
                tunnel.publish_endpoints(&self.endpoints).await;
            }
            self.tunnels.is_empty() || self.endpoints.flushes.flush(to).await
        };
        if !timeout(FLUSH, told).await.unwrap_or(false) {
            warn!("{to} did not confirm the last endpoints; it has those of a moment ago");
        }
        self.prepare_leaving().await;
    }
}

fn is(address: &Address, ip: &FloatingIp) -> bool {
    address.address.addr() == ip.address.addr()
}
