//! WireGuard inside wgha, for machines without the kernel's.
//!
//! Staged is: the TUN device exists with its link down, and the engine is configured and suspended.
//! Both are needed: a suspended engine does not read the TUN, whose queue would fill.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::sync::watch;
use wgha_proto::WireguardKind;

use super::conf::WgConf;
use super::device::{Found, Kind, Netdev};
use super::engine::{Engine, Snapshot};
use super::key::KEY_LEN;
use super::plan::{Keepalives, Moves, peer_states, plan};
use super::{Backend, DeviceState, EMBEDDED_PEERS, Kick, Live, PeerState, Source, WgError};
use crate::net::gate::Permit;

/// A TUN device and the engine behind it.
pub(super) struct EmbeddedBackend {
    netdev: Netdev,
    engine: Arc<Engine>,
    source: Source,
    /// The peers have their keepalives.
    settled: Arc<AtomicBool>,
    /// As of the last `stage`.
    conf: Option<WgConf>,
    /// The device when it was last seen down and staged: it can go up without another look.
    bare: Option<Found>,
    /// The device that was brought up.
    raised: Option<u32>,
}

impl EmbeddedBackend {
    pub(super) fn open(interface: &str) -> Result<Self, WgError> {
        Ok(Self {
            netdev: Netdev::open(interface)?,
            engine: Arc::new(Engine::start(interface)?),
            source: Source::default(),
            settled: Arc::default(),
            conf: None,
            bare: None,
            raised: None,
        })
    }

    async fn find(&self) -> Result<Option<Found>, WgError> {
        self.netdev.find_kind(Kind::Tun).await
    }

    /// Staged, with a device that may be up or down.
    async fn required(&self) -> Result<(Found, Snapshot, WgConf), WgError> {
        let conf = self.conf.clone().ok_or(WgError::NotStaged)?;
        let found = self.find().await?.ok_or(WgError::NotStaged)?;
        let snapshot = self.engine.read().await?.ok_or(WgError::NotStaged)?;
        Ok((found, snapshot, conf))
    }

    fn keepalives(&self, running: bool) -> Keepalives {
        match (running, self.settled.load(Ordering::Relaxed)) {
            (false, _) => Keepalives::Off,
            (true, false) => Keepalives::AsFound,
            (true, true) => Keepalives::AsConfigured,
        }
    }

    async fn silence_all(&self) -> Result<(), WgError> {
        let suspended = self.engine.suspend().await;
        // Whatever became of the engine, the link goes down.
        if let Some(found) = self.netdev.find_own(&Kind::Tun).await? {
            self.netdev.bring_down(&found).await?;
        }
        suspended
    }
}

#[async_trait]
impl Backend for EmbeddedBackend {
    fn kind(&self) -> WireguardKind {
        WireguardKind::Embedded
    }

    fn set_source(&mut self, source: Source) {
        self.source = source;
    }

    fn set_permit(&mut self, permit: Permit) {
        self.engine.set_permit(permit);
    }

    async fn stage(&mut self, conf: &WgConf) -> Result<(), WgError> {
        self.bare = None;
        // A foreign device is named before the engine trips over it.
        let before = self.find().await?;
        if conf.peers.len() > EMBEDDED_PEERS {
            tracing::warn!(
                peers = conf.peers.len(),
                "more peers than the embedded WireGuard is made for"
            );
        }
        let running = self.engine.read().await?.is_some_and(|s| s.running);
        if !running {
            self.settled.store(false, Ordering::Relaxed);
        }
        let keepalives = self.keepalives(running);
        self.engine.configure(conf, keepalives).await?;
        if let (true, Some(found), Some(old)) = (running, &before, &self.conf) {
            self.netdev.change(found, old, conf).await?;
        }
        self.conf = Some(conf.clone());
        Ok(())
    }

    async fn up(&mut self) -> Result<(), WgError> {
        if let (Some(found), Some(conf)) = (self.bare.take(), self.conf.clone())
            && self.netdev.raise(&found, &conf).await.is_ok()
            && self.engine.resume(self.source).await.is_ok()
        {
            self.raised = Some(found.index);
            return Ok(());
        }
        // Whatever it was, the long way finds it and says so.
        let (found, _, conf) = self.required().await?;
        self.raised = Some(found.index);
        self.netdev.bring_up(&found, &conf).await?;
        if let Err(e) = self.engine.resume(self.source).await {
            self.netdev.bring_down(&Found { up: true, ..found }).await?;
            return Err(e);
        }
        self.netdev.add_routes(found.index, &conf).await?;
        match self.keepalives(true) {
            Keepalives::AsConfigured => {
                self.engine.configure(&conf, Keepalives::AsConfigured).await
            }
            // Nothing to set, and a takeover has no time to look.
            Keepalives::Off | Keepalives::AsFound => Ok(()),
        }
    }

    async fn silence(&mut self) -> Result<(), WgError> {
        self.settled.store(false, Ordering::Relaxed);
        let Some(index) = self.raised.take() else { return self.silence_all().await };
        let (suspended, lowered) = tokio::join!(self.engine.suspend(), self.netdev.lower(index));
        suspended.and(lowered)
    }

    async fn down(&mut self) -> Result<(), WgError> {
        (self.bare, self.raised) = (None, None);
        self.settled.store(false, Ordering::Relaxed);
        self.silence_all().await?;
        match (&self.conf, self.engine.read().await?) {
            (Some(conf), Some(_)) => self.engine.configure(conf, Keepalives::Off).await,
            _ => Ok(()),
        }
    }

    /// gotatun begins no handshake while one is unanswered, and suspended forgets them all.
    async fn forget_unanswered(&mut self) -> Result<(), WgError> {
        let Some(conf) = self.conf.clone() else { return Err(WgError::NotStaged) };
        self.settled.store(false, Ordering::Relaxed);
        self.engine.suspend().await?;
        let configured = self.engine.configure(&conf, Keepalives::Off).await;
        self.engine.resume(self.source).await.and(configured)
    }

    async fn state(&mut self) -> Result<DeviceState, WgError> {
        let found = self.netdev.find_own(&Kind::Tun).await?;
        let snapshot = self.engine.read().await?;
        let running = snapshot.as_ref().is_some_and(|s| s.running);
        let keepalives = self.keepalives(running);
        let staged = match (&self.conf, &snapshot) {
            (Some(conf), Some(snapshot)) => {
                plan(&snapshot.device, conf, keepalives, Moves::TakenBack).is_empty()
            }
            _ => false,
        };
        let up = running || found.as_ref().is_some_and(|found| found.up);
        let mtu = self.conf.as_ref().map(|conf| conf.mtu);
        self.bare = found.clone().filter(|f| !up && staged && Some(f.mtu) == mtu);
        Ok(DeviceState { exists: found.is_some(), up, staged })
    }

    async fn peers(&mut self) -> Result<Vec<PeerState>, WgError> {
        peers(&self.engine).await
    }

    async fn set_endpoints(
        &mut self,
        endpoints: &[([u8; KEY_LEN], SocketAddr)],
    ) -> Result<usize, WgError> {
        self.engine.set_endpoints(endpoints.to_vec()).await
    }

    fn live(&self) -> Arc<dyn Live> {
        Arc::new(EmbeddedLive {
            engine: Arc::clone(&self.engine),
            settled: Arc::clone(&self.settled),
        })
    }

    fn stamp_offset(&self) -> Option<i64> {
        self.engine.stamp_offset()
    }

    async fn delete(&mut self) -> Result<(), WgError> {
        self.conf = None;
        self.engine.delete().await
    }

    fn failure(&self) -> watch::Receiver<Option<String>> {
        self.engine.failure()
    }
}

async fn peers(engine: &Engine) -> Result<Vec<PeerState>, WgError> {
    let snapshot = engine.read().await?.ok_or(WgError::NotStaged)?;
    Ok(peer_states(snapshot.device.peers))
}

/// Asks the same worker, so that it sees all calls in their order.
struct EmbeddedLive {
    engine: Arc<Engine>,
    settled: Arc<AtomicBool>,
}

#[async_trait]
impl Live for EmbeddedLive {
    async fn peers(&self) -> Result<Vec<PeerState>, WgError> {
        peers(&self.engine).await
    }

    async fn kick(&self, kicks: &[Kick]) -> Result<(), WgError> {
        self.engine.kick(kicks.to_vec()).await
    }

    fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }
}
