//! The kernel's WireGuard.
//!
//! Staged is: the device exists with key, port and peers, and its link is down. Then the kernel has
//! no socket and sends nothing, and keeps endpoints and time stamps.

use std::io;

use async_trait::async_trait;
use tokio::sync::watch;
use wgha_proto::WireguardKind;

use super::conf::WgConf;
use super::device::{Found, Kind, Netdev};
use super::plan::{Device, Keepalives, Moves, plan};
use super::wgnl::Wgnl;
use super::{Backend, DeviceState, PeerState, Source, WgError};

/// A device of the kernel's module.
pub(super) struct KernelBackend {
    netdev: Netdev,
    wgnl: Wgnl,
    /// As of the last `stage`.
    conf: Option<WgConf>,
    /// Never written: the kernel's WireGuard does not stop by itself.
    failure: watch::Sender<Option<String>>,
}

impl KernelBackend {
    pub(super) fn open(interface: &str) -> Result<Self, WgError> {
        Ok(Self {
            netdev: Netdev::open(interface)?,
            wgnl: Wgnl::open().map_err(WgError::step("open a generic netlink socket"))?,
            conf: None,
            failure: watch::Sender::new(None),
        })
    }

    async fn find(&self) -> Result<Option<Found>, WgError> {
        self.netdev.find_kind(Kind::Wireguard).await
    }

    async fn read(&self) -> Result<Device, WgError> {
        let name = self.netdev.name();
        self.wgnl.get(name).await.map_err(WgError::step(format!("read {name}")))
    }

    /// Makes key, port and peers what the file says.
    async fn configure(&self, conf: &WgConf, keepalives: Keepalives) -> Result<(), WgError> {
        let change = plan(&self.read().await?, conf, keepalives, Moves::Taken);
        let name = self.netdev.name();
        let result = self.wgnl.set(name, &change).await;
        result.map_err(|e| port_taken(WgError::step(format!("configure {name}"))(e), conf))
    }

    /// Staged, with a device that may be up or down.
    async fn required(&self) -> Result<(Found, WgConf), WgError> {
        let conf = self.conf.clone().ok_or(WgError::NotStaged)?;
        let found = self.find().await?.ok_or(WgError::NotStaged)?;
        Ok((found, conf))
    }
}

/// Names the port where a socket could not be had.
fn port_taken(e: WgError, conf: &WgConf) -> WgError {
    match e {
        WgError::System { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
            WgError::PortTaken(conf.listen_port)
        }
        e => e,
    }
}

#[async_trait]
impl Backend for KernelBackend {
    fn kind(&self) -> WireguardKind {
        WireguardKind::Kernel
    }

    fn set_source(&mut self, _: Source) {}

    async fn stage(&mut self, conf: &WgConf) -> Result<(), WgError> {
        let found = match self.find().await? {
            None => {
                self.netdev.create_wireguard().await?;
                self.find().await?.ok_or(WgError::NotStaged)?
            }
            // Left over from an earlier run: silent first, its peers and endpoints stay.
            Some(found) if self.conf.is_none() => {
                self.netdev.bring_down(&found).await?;
                Found { up: false, ..found }
            }
            Some(found) => found,
        };
        let keepalives = if found.up { Keepalives::AsConfigured } else { Keepalives::Off };
        self.configure(conf, keepalives).await?;
        if let (true, Some(old)) = (found.up, &self.conf) {
            self.netdev.change(&found, old, conf).await?;
        }
        self.conf = Some(conf.clone());
        Ok(())
    }

    async fn up(&mut self) -> Result<(), WgError> {
        let (found, conf) = self.required().await?;
        let result = self.netdev.bring_up(&found, &conf).await;
        result.map_err(|e| port_taken(e, &conf))?;
        self.netdev.add_routes(found.index, &conf).await?;
        self.configure(&conf, Keepalives::AsConfigured).await
    }

    async fn down(&mut self) -> Result<(), WgError> {
        let Some(found) = self.netdev.find_own(&Kind::Wireguard).await? else { return Ok(()) };
        self.netdev.bring_down(&found).await?;
        match self.conf.clone() {
            Some(conf) => self.configure(&conf, Keepalives::Off).await,
            None => Ok(()),
        }
    }

    async fn state(&mut self) -> Result<DeviceState, WgError> {
        let Some(found) = self.netdev.find_own(&Kind::Wireguard).await? else {
            return Ok(DeviceState { exists: false, up: false, staged: false });
        };
        let keepalives = if found.up { Keepalives::AsConfigured } else { Keepalives::Off };
        let staged = match &self.conf {
            Some(conf) => plan(&self.read().await?, conf, keepalives, Moves::Taken).is_empty(),
            None => false,
        };
        Ok(DeviceState { exists: true, up: found.up, staged })
    }

    async fn peers(&mut self) -> Result<Vec<PeerState>, WgError> {
        if self.find().await?.is_none() {
            return Ok(Vec::new());
        }
        let device = self.read().await?;
        let peer = |p: super::plan::DevicePeer| PeerState {
            public_key: p.public_key.0,
            endpoint: p.endpoint,
            last_handshake: p.last_handshake,
        };
        Ok(device.peers.into_iter().map(peer).collect())
    }

    async fn delete(&mut self) -> Result<(), WgError> {
        self.conf = None;
        match self.find().await? {
            Some(found) => self.netdev.delete(found.index).await,
            None => Ok(()),
        }
    }

    fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.subscribe()
    }
}
