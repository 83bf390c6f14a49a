//! One WireGuard interface on this gateway: its device, its source rules, its place in the record.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use tracing::{error, warn};

use super::attend::Attended;
use super::kick::{self, Limits, SESSION_LIFE, Target};
use super::ledger::Ledger;
use super::scripts::Lines;
use super::view::TunnelView;
use crate::config::{FloatingIp, Wireguard};
use crate::net::gate::Permit;
use crate::net::source::{self, SourcePlan};
use crate::net::{NetError, Netlink};
use crate::sync::Endpoints;
use crate::wireguard::conf::WgConf;
use crate::wireguard::key::PublicKey;
use crate::wireguard::{self, Backend, WgError};

mod stage;

/// Bound of the last look at endpoints when the device has gone down: others wait for `Left`.
const LAST_LOOK: Duration = Duration::from_millis(50);

/// A WireGuard interface of the config.
pub struct Tunnel {
    entry: Wireguard,
    conf: WgConf,
    plan: SourcePlan,
    backend: Option<Box<dyn Backend>>,
    /// What the embedded backend asks before it sends.
    permit: Option<Permit>,
    /// The file changed since the device was staged.
    stale: bool,
    /// The public key that the device was staged with.
    staged_key: Option<PublicKey>,
    /// Up to which of [`Table::moves`](crate::sync::endpoints::Table::moves) the staged device
    /// follows.
    endpoints: u64,
}

/// What [`Tunnel::keep_up`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was up; a changed file is applied.
    Stood,
    /// It was gone, changed or down.
    PutBack,
    /// It has another private key, with which no session goes on.
    Restarted,
}

impl Tunnel {
    /// A tunnel that has not been looked at yet.
    #[must_use]
    pub fn new(
        entry: Wireguard,
        conf: WgConf,
        floating_ips: &[FloatingIp],
        permit: Option<&Permit>,
    ) -> Tunnel {
        let plan = source_plan(&entry, &conf, floating_ips);
        Tunnel {
            entry,
            conf,
            plan,
            backend: None,
            permit: permit.cloned(),
            stale: true,
            staged_key: None,
            endpoints: 0,
        }
    }

    /// The interface's name.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.entry.interface
    }

    /// The script lines that belong to entering and leaving master.
    #[must_use]
    pub fn lines(&self) -> Lines {
        Lines {
            post_up: self.conf.post_up.clone(),
            pre_down: self.conf.pre_down.clone(),
            post_down: self.conf.post_down.clone(),
        }
    }

    /// Takes up another entry and file for the same interface. Applied by the next
    /// [`stage`](Tunnel::stage).
    pub async fn update(
        &mut self,
        netlink: &Netlink,
        entry: Wireguard,
        conf: WgConf,
        floating_ips: &[FloatingIp],
    ) {
        let plan = source_plan(&entry, &conf, floating_ips);
        let had_rules = self.has_rules();
        let old_port = self.plan.port;
        if self.entry.backend != entry.backend {
            warn!("{}: the backend changes at the next start only", entry.interface);
        }
        (self.entry, self.conf, self.plan, self.stale) = (entry, conf, plan, true);
        let obsolete = had_rules && (!self.has_rules() || old_port != self.plan.port);
        if obsolete && let Err(e) = source::purge(netlink, old_port).await {
            error!("{}: {e}", self.interface());
        }
    }

    /// What those need who attend to the device now that it is up.
    pub fn attended(&self, endpoints: &Endpoints) -> Option<Attended> {
        let backend = self.backend.as_ref()?;
        let table = endpoints.look(&self.entry.interface);
        let target = |peer: &wireguard::conf::Peer| {
            let known = table.peers.get(&peer.public_key).copied().unwrap_or_default();
            Some(Target {
                public_key: peer.public_key.0,
                endpoint: known.endpoint.or(peer.endpoint)?,
                last_handshake: known.last_handshake(),
                keepalive: peer.keepalive,
            })
        };
        Some(Attended {
            interface: self.entry.interface.clone(),
            live: backend.live(),
            limits: Limits::of(backend.kind()),
            targets: self.conf.peers.iter().filter_map(target).collect(),
        })
    }

    /// After the device went down: the last that this node knew as master, for the others.
    pub async fn last_endpoints(&mut self, endpoints: &Endpoints) {
        self.publish_endpoints(endpoints).await;
        endpoints.end(&self.entry.interface);
    }

    /// As master: what the device knows now, for the others.
    pub async fn publish_endpoints(&mut self, endpoints: &Endpoints) {
        let name = &self.entry.interface;
        let Some(term) = endpoints.acting(name) else { return };
        if let Some(backend) = &mut self.backend
            && let Ok(Ok(peers)) = tokio::time::timeout(LAST_LOOK, backend.peers()).await
        {
            endpoints.publish(name, term, &peers);
        }
    }

    /// Traffic on.
    pub async fn up(&mut self) -> Result<(), String> {
        let name = self.entry.interface.clone();
        let backend = self.backend.as_mut().ok_or_else(|| format!("{name}: not opened"))?;
        backend.up().await.map_err(|e| format!("{name}: {e}"))
    }

    /// Traffic off at once; the rest of [`down`](Tunnel::down) is to follow.
    pub async fn silence(&mut self) -> Result<(), String> {
        let Some(backend) = &mut self.backend else { return Ok(()) };
        backend.silence().await.map_err(|e| e.to_string())
    }

    /// Traffic off. True if there was any.
    pub async fn down(&mut self, ledger: &Ledger) -> Result<bool, String> {
        self.open(ledger).await?;
        let name = self.entry.interface.clone();
        let Some(backend) = &mut self.backend else { return Ok(false) };
        let was_up = backend.state().await.is_ok_and(|s| s.up);
        backend.down().await.map_err(|e| format!("{name}: {e}"))?;
        match backend.state().await {
            Ok(state) if state.up => Err(format!("{name} is still up")),
            Ok(_) => Ok(was_up),
            Err(e) => Err(format!("{name}: {e}")),
        }
    }

    /// Clients are expected, and none has shaken hands since.
    pub async fn nobody_is_back(&mut self, since: SystemTime, endpoints: &Endpoints) -> bool {
        if !self.attended(endpoints).is_some_and(|a| kick::expects_any(&a.targets)) {
            return false;
        }
        let Some(backend) = &mut self.backend else { return false };
        backend.peers().await.is_ok_and(|peers| !peers.iter().any(|peer| peer.is_back(since)))
    }

    /// If nobody is back, the next kick begins all handshakes anew; see [`Backend::forget_unanswered`].
    pub async fn forget_unanswered(
        &mut self,
        since: SystemTime,
        endpoints: &Endpoints,
    ) -> Result<(), String> {
        if !self.nobody_is_back(since, endpoints).await {
            return Ok(());
        }
        let Some(backend) = &mut self.backend else { return Ok(()) };
        backend.forget_unanswered().await.map_err(|e| e.to_string())
    }

    /// As master: puts the device back if it is gone, changed or down, and applies a changed file.
    pub async fn keep_up(&mut self, endpoints: &Endpoints) -> Result<Kept, String> {
        let name = self.entry.interface.clone();
        let backend = self.backend.as_mut().ok_or_else(|| format!("{name}: not opened"))?;
        if let Some(why) = backend.failure().borrow().clone() {
            return Err(format!("{name}: {why}"));
        }
        let mut state = backend.state().await.map_err(|e| format!("{name}: {e}"))?;
        let missing = !state.exists || !state.staged;
        let restart = state.up && self.staged_key.is_some_and(|key| key != self.conf.public_key);
        if restart {
            // Half a device with each key would answer nobody.
            backend.down().await.map_err(|e| format!("{name}: {e}"))?;
            state.up = false;
        }
        if missing || self.stale {
            self.restage().await?;
        }
        if !state.up {
            // A device that was deleted forgot them.
            self.take_endpoints(endpoints).await?;
        }
        // Also when it is up: addresses and routes may have been removed.
        self.up().await?;
        Ok(match (restart, missing || !state.up) {
            (true, _) => Kept::Restarted,
            (false, true) => Kept::PutBack,
            (false, false) => Kept::Stood,
        })
    }

    /// Source rules: all of them if `acting`, else the last one that lets nothing leave.
    pub async fn source_rules(&self, netlink: &Netlink, acting: bool) -> Result<bool, NetError> {
        if !self.has_rules() {
            return Ok(false);
        }
        if acting {
            source::install(netlink, &self.plan).await
        } else {
            source::remove(netlink, &self.plan).await
        }
    }

    /// Takes the tunnel off the machine for good: the config has it no more.
    pub async fn remove(mut self, netlink: &Netlink, ledger: &Ledger) -> Result<(), String> {
        self.down(ledger).await?;
        if self.has_rules() {
            source::purge(netlink, self.plan.port).await.map_err(|e| e.to_string())?;
        }
        if let Some(backend) = &mut self.backend {
            backend.delete().await.map_err(|e| e.to_string())?;
        }
        let name = self.entry.interface;
        ledger
            .update(|applied| applied.interfaces.retain(|i| i.name != name || i.post_up_ran))
            .map_err(|e| e.to_string())
    }

    /// What the device is, without its peers.
    pub async fn look(&mut self) -> (bool, bool) {
        match &mut self.backend {
            Some(backend) => backend.state().await.map_or((false, false), |s| (s.up, s.staged)),
            None => (false, false),
        }
    }

    /// The clock that its handshakes are stamped with, if that is not the system's; see
    /// [`Backend::stamp_offset`].
    #[must_use]
    pub fn stamp_offset(&self) -> Option<i64> {
        self.backend.as_ref().and_then(|backend| backend.stamp_offset())
    }

    /// Counts peers, recent handshakes and known endpoints into `view`.
    pub async fn count_peers(&mut self, view: &mut TunnelView) {
        let Some(backend) = &mut self.backend else { return };
        let peers = match backend.peers().await {
            Ok(peers) => peers,
            Err(WgError::NotStaged) => Vec::new(),
            Err(_) => return,
        };
        let now = SystemTime::now();
        let recent = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age < SESSION_LIFE);
        view.peers = peers.len() as u64;
        view.recent_handshakes =
            peers.iter().filter(|p| p.last_handshake.is_some_and(recent)).count() as u64;
        view.endpoints_known = peers.iter().filter(|p| p.endpoint.is_some()).count() as u64;
    }

    /// Where its packets leave from.
    pub(super) fn source_plan(&self) -> &SourcePlan {
        &self.plan
    }

    pub(super) fn has_rules(&self) -> bool {
        self.entry.guard && !self.plan.is_empty()
    }
}

/// Which floating IP the tunnel's packets leave from, and on which interface it is.
fn source_plan(entry: &Wireguard, conf: &WgConf, floating_ips: &[FloatingIp]) -> SourcePlan {
    let mut plan = SourcePlan { port: conf.listen_port, v4: None, v6: None };
    for source in &entry.source {
        let Some(ip) = floating_ips.iter().find(|f| f.address.addr() == *source) else { continue };
        match source {
            IpAddr::V4(v4) => plan.v4 = Some((*v4, ip.interface.clone())),
            IpAddr::V6(v6) => plan.v6 = Some((*v6, ip.interface.clone())),
        }
    }
    plan
}
