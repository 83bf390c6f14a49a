//! One WireGuard interface on this gateway: its device, its source rules, its place in the record.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use tracing::{debug, error, warn};
use wgha_proto::WireguardKind;

use super::attend::Attended;
use super::kick::{Limits, SESSION_LIFE, Target};
use super::ledger::Ledger;
use super::scripts::{self, Lines};
use super::view::TunnelView;
use crate::config::{BackendChoice, FloatingIp, Wireguard};
use crate::net::gate::Permit;
use crate::net::source::{self, SourcePlan};
use crate::net::{NetError, Netlink};
use crate::sync::Endpoints;
use crate::sync::endpoints::Origin;
use crate::wireguard::conf::WgConf;
use crate::wireguard::{self, Backend, Source, WgError, port};

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
    /// Up to which of [`Table::moves`](crate::sync::endpoints::Table::moves) the staged device
    /// follows.
    endpoints: u64,
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
        let permit = permit.cloned();
        Tunnel { entry, conf, plan, backend: None, permit, stale: true, endpoints: 0 }
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

    /// The device configured and silent; the port reserved and free; PreUp run once.
    pub async fn stage(&mut self, ledger: &Ledger) -> Result<(), String> {
        self.open(ledger).await?;
        let interface = self.entry.interface.clone();
        let listen_port = self.conf.listen_port;
        let reserved = port::reserve(listen_port);
        if let Err(e) = &reserved {
            warn!("{interface}: cannot reserve UDP port {listen_port}: {e}");
        }
        let record = ledger.update(|applied| {
            // What somebody else reserved stays reserved when we go.
            if matches!(reserved, Ok(true)) && !applied.reserved_ports.contains(&listen_port) {
                applied.reserved_ports.push(listen_port);
            }
        });
        let pre_up_ran = ledger.interface(&interface).is_some_and(|i| i.pre_up_ran);
        if !pre_up_ran {
            for (number, line) in (1..).zip(&self.conf.pre_up) {
                if !scripts::run_line("PreUp", number, &interface, line).await {
                    return Err(format!("{interface}: PreUp {number} failed"));
                }
            }
        }
        let record = record.and(ledger.update_interface(&interface, |i| {
            i.pre_up_ran = true;
            i.listen_port = Some(listen_port);
        }));
        if let Err(e) = record {
            error!("cannot keep the record of what is put up: {e}");
        }
        self.restage().await
    }

    /// Applies the file to the device, live if it is up.
    pub async fn restage(&mut self) -> Result<(), String> {
        let Some(backend) = &mut self.backend else { return Err("not opened".to_owned()) };
        backend.set_source(self.entry.source.iter().copied().collect());
        backend.stage(&self.conf).await.map_err(|e| format!("{}: {e}", self.entry.interface))?;
        self.stale = false;
        // Peers may be new.
        self.endpoints = 0;
        Ok(())
    }

    /// Tells the staged device where its peers are, if that changed.
    pub async fn take_endpoints(&mut self, endpoints: &Endpoints) -> Result<(), String> {
        let name = &self.entry.interface;
        let Some(backend) = &mut self.backend else { return Ok(()) };
        if endpoints.moves(name) == self.endpoints {
            return Ok(());
        }
        let table = endpoints.look(name);
        let mut known: Vec<_> =
            table.peers.iter().filter_map(|(key, peer)| Some((key.0, peer.endpoint?))).collect();
        let result = async {
            if table.origin == Origin::Kept {
                // The device may be older than this process and know better.
                let there = backend.peers().await?;
                let has = |key: &[u8; 32]| {
                    there.iter().any(|p| p.public_key == *key && p.endpoint.is_some())
                };
                known.retain(|(key, _)| !has(key));
            }
            backend.set_endpoints(&known).await
        };
        match result.await {
            Ok(0) => {}
            Ok(count) => debug!("{name}: {count} endpoints set"),
            Err(e) => return Err(format!("{name}: {e}")),
        }
        self.endpoints = table.moves;
        Ok(())
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
        let name = &self.entry.interface;
        let Some(term) = endpoints.acting(name) else { return };
        if let Some(backend) = &mut self.backend
            && let Ok(Ok(peers)) = tokio::time::timeout(LAST_LOOK, backend.peers()).await
        {
            endpoints.publish(name, term, &peers);
        }
        endpoints.end(name);
    }

    /// The file changed since the device was staged.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Whether another program has the listen port while the device is down.
    pub fn check_port(&self) -> Result<(), String> {
        // The kernel's WireGuard listens on every address, gotatun on the source's.
        let source = match self.backend.as_ref().map(|b| b.kind()) {
            Some(WireguardKind::Embedded) => self.entry.source.iter().copied().collect(),
            _ => Source::default(),
        };
        match port::is_free(self.conf.listen_port, source) {
            Ok(true) => Ok(()),
            Ok(false) => Err(WgError::PortTaken(self.conf.listen_port).to_string()),
            // Not being able to look is no reason not to serve.
            Err(_) => Ok(()),
        }
    }

    /// Traffic on.
    pub async fn up(&mut self) -> Result<(), String> {
        let name = self.entry.interface.clone();
        let backend = self.backend.as_mut().ok_or_else(|| format!("{name}: not opened"))?;
        backend.up().await.map_err(|e| format!("{name}: {e}"))
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

    /// As master: puts the device back if it is gone, changed or down. True if it had to.
    pub async fn keep_up(&mut self, endpoints: &Endpoints) -> Result<bool, String> {
        let name = self.entry.interface.clone();
        let backend = self.backend.as_mut().ok_or_else(|| format!("{name}: not opened"))?;
        if let Some(why) = backend.failure().borrow().clone() {
            return Err(format!("{name}: {why}"));
        }
        let state = backend.state().await.map_err(|e| format!("{name}: {e}"))?;
        let missing = !state.exists || !state.staged;
        if missing || self.stale {
            self.restage().await?;
        }
        if !state.up {
            // A device that was deleted forgot them.
            self.take_endpoints(endpoints).await?;
        }
        // Also when it is up: addresses and routes may have been removed.
        self.up().await?;
        Ok(missing || !state.up)
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

    /// Counts peers, recent handshakes and known endpoints into `view`.
    pub async fn count_peers(&mut self, view: &mut TunnelView) {
        let Some(backend) = &mut self.backend else { return };
        let Ok(peers) = backend.peers().await else { return };
        let now = SystemTime::now();
        let recent = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age < SESSION_LIFE);
        view.peers = peers.len() as u64;
        view.recent_handshakes =
            peers.iter().filter(|p| p.last_handshake.is_some_and(recent)).count() as u64;
        view.endpoints_known = peers.iter().filter(|p| p.endpoint.is_some()).count() as u64;
    }

    fn has_rules(&self) -> bool {
        self.entry.guard && !self.plan.is_empty()
    }

    /// Opens the implementation that was chosen at the first start.
    async fn open(&mut self, ledger: &Ledger) -> Result<(), String> {
        if self.backend.is_some() {
            return Ok(());
        }
        let choice = recorded_choice(&self.entry, ledger);
        let name = &self.entry.interface;
        let mut backend =
            wireguard::open(choice, name).await.map_err(|e| format!("{name}: {e}"))?;
        if let Some(permit) = &self.permit {
            backend.set_permit(permit.clone());
        }
        self.backend = Some(backend);
        Ok(())
    }
}

/// `auto` stays with what it chose first.
fn recorded_choice(entry: &Wireguard, ledger: &Ledger) -> BackendChoice {
    let recorded = ledger.interface(&entry.interface).map(|i| i.backend);
    match (entry.backend, recorded.as_deref()) {
        (BackendChoice::Auto, Some("kernel")) => BackendChoice::Kernel,
        (BackendChoice::Auto, Some("embedded")) => BackendChoice::Embedded,
        (choice, _) => choice,
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
