//! WireGuard inside wgha, for machines without the kernel's.
//!
//! Staged is: the TUN device exists with its link down, and the engine is configured and suspended.
//! Both are needed: a suspended engine does not read the TUN, whose queue would fill.

use async_trait::async_trait;
use tokio::sync::watch;
use wgha_proto::WireguardKind;

use super::conf::WgConf;
use super::device::{Found, Kind, Netdev};
use super::engine::{Engine, Snapshot};
use super::plan::{Keepalives, Moves, plan};
use super::{Backend, DeviceState, EMBEDDED_PEERS, PeerState, Source, WgError};

/// A TUN device and the engine behind it.
pub(super) struct EmbeddedBackend {
    netdev: Netdev,
    engine: Engine,
    source: Source,
    /// As of the last `stage`.
    conf: Option<WgConf>,
}

impl EmbeddedBackend {
    pub(super) fn open(interface: &str) -> Result<Self, WgError> {
        Ok(Self {
            netdev: Netdev::open(interface)?,
            engine: Engine::start(interface)?,
            source: Source::default(),
            conf: None,
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

    async fn silence(&self) -> Result<(), WgError> {
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

    async fn stage(&mut self, conf: &WgConf) -> Result<(), WgError> {
        // A foreign device is named before the engine trips over it.
        let before = self.find().await?;
        if conf.peers.len() > EMBEDDED_PEERS {
            tracing::warn!(
                peers = conf.peers.len(),
                "more peers than the embedded WireGuard is made for"
            );
        }
        let running = self.engine.read().await?.is_some_and(|s| s.running);
        let keepalives = if running { Keepalives::AsConfigured } else { Keepalives::Off };
        self.engine.configure(conf, keepalives).await?;
        if let (true, Some(found), Some(old)) = (running, &before, &self.conf) {
            self.netdev.change(found, old, conf).await?;
        }
        self.conf = Some(conf.clone());
        Ok(())
    }

    async fn up(&mut self) -> Result<(), WgError> {
        let (found, _, conf) = self.required().await?;
        self.netdev.bring_up(&found, &conf).await?;
        if let Err(e) = self.engine.resume(self.source).await {
            self.netdev.bring_down(&Found { up: true, ..found }).await?;
            return Err(e);
        }
        self.netdev.add_routes(found.index, &conf).await?;
        self.engine.configure(&conf, Keepalives::AsConfigured).await
    }

    async fn down(&mut self) -> Result<(), WgError> {
        self.silence().await?;
        match (&self.conf, self.engine.read().await?) {
            (Some(conf), Some(_)) => self.engine.configure(conf, Keepalives::Off).await,
            _ => Ok(()),
        }
    }

    async fn state(&mut self) -> Result<DeviceState, WgError> {
        let found = self.netdev.find_own(&Kind::Tun).await?;
        let snapshot = self.engine.read().await?;
        let running = snapshot.as_ref().is_some_and(|s| s.running);
        let keepalives = if running { Keepalives::AsConfigured } else { Keepalives::Off };
        let staged = match (&self.conf, &snapshot) {
            (Some(conf), Some(snapshot)) => {
                plan(&snapshot.device, conf, keepalives, Moves::TakenBack).is_empty()
            }
            _ => false,
        };
        Ok(DeviceState {
            exists: found.is_some(),
            up: running || found.is_some_and(|found| found.up),
            staged,
        })
    }

    async fn peers(&mut self) -> Result<Vec<PeerState>, WgError> {
        let peers = self.engine.read().await?.map(|s| s.device.peers).unwrap_or_default();
        let peer = |p: super::plan::DevicePeer| PeerState {
            public_key: p.public_key.0,
            endpoint: p.endpoint,
            last_handshake: p.last_handshake,
        };
        Ok(peers.into_iter().map(peer).collect())
    }

    async fn delete(&mut self) -> Result<(), WgError> {
        self.conf = None;
        self.engine.delete().await
    }

    fn failure(&self) -> watch::Receiver<Option<String>> {
        self.engine.failure()
    }
}
