//! The kernel's WireGuard.
//!
//! Staged is: the device exists with key, port and peers, and its link is down. Then the kernel has
//! no socket and sends nothing, and keeps endpoints and time stamps.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::sync::watch;
use wgha_proto::WireguardKind;

use super::conf::WgConf;
use super::device::{Found, Kind, Netdev};
use super::key::{KEY_LEN, SecretKey};
use super::plan::{self, Change, Device, Keepalives, Moves, peer_states, plan};
use super::wgnl::Wgnl;
use super::{Backend, DeviceState, Kick, Live, PeerState, Source, WgError};

/// A device of the kernel's module.
pub(super) struct KernelBackend {
    netdev: Netdev,
    wgnl: Arc<Wgnl>,
    /// The peers have their keepalives.
    settled: Arc<AtomicBool>,
    /// As of the last `stage`.
    conf: Option<WgConf>,
    /// The device when it was last seen down and staged: it can go up without another look.
    bare: Option<Found>,
    /// The device that was brought up.
    raised: Option<u32>,
    /// Never written: the kernel's WireGuard does not stop by itself.
    failure: watch::Sender<Option<String>>,
}

impl KernelBackend {
    pub(super) fn open(interface: &str) -> Result<Self, WgError> {
        Ok(Self {
            netdev: Netdev::open(interface)?,
            wgnl: Arc::new(Wgnl::open().map_err(WgError::step("open a generic netlink socket"))?),
            settled: Arc::default(),
            conf: None,
            bare: None,
            raised: None,
            failure: watch::Sender::new(None),
        })
    }

    async fn find(&self) -> Result<Option<Found>, WgError> {
        self.netdev.find_kind(Kind::Wireguard).await
    }

    async fn read(&self) -> Result<Device, WgError> {
        read(&self.wgnl, self.netdev.name()).await
    }

    async fn apply(&self, change: &plan::Change) -> Result<(), WgError> {
        apply(&self.wgnl, self.netdev.name(), change).await
    }

    fn keepalives(&self, up: bool) -> Keepalives {
        match (up, self.settled.load(Ordering::Relaxed)) {
            (false, _) => Keepalives::Off,
            (true, false) => Keepalives::AsFound,
            (true, true) => Keepalives::AsConfigured,
        }
    }

    /// Makes key, port and peers what the file says.
    async fn configure(&self, conf: &WgConf, keepalives: Keepalives) -> Result<(), WgError> {
        let change = plan(&self.read().await?, conf, keepalives, Moves::Taken);
        self.apply(&change).await.map_err(|e| port_taken(e, conf))
    }

    /// Staged, with a device that may be up or down.
    async fn required(&self) -> Result<(Found, WgConf), WgError> {
        let conf = self.conf.clone().ok_or(WgError::NotStaged)?;
        let found = self.find().await?.ok_or(WgError::NotStaged)?;
        Ok((found, conf))
    }
}

async fn read(wgnl: &Wgnl, name: &str) -> Result<Device, WgError> {
    wgnl.get(name).await.map_err(WgError::step(format!("read {name}")))
}

async fn apply(wgnl: &Wgnl, name: &str, change: &plan::Change) -> Result<(), WgError> {
    wgnl.set(name, change).await.map_err(WgError::step(format!("configure {name}")))
}

/// Shares the netlink socket, so that the kernel sees all requests in their order.
struct KernelLive {
    name: String,
    wgnl: Arc<Wgnl>,
    settled: Arc<AtomicBool>,
}

#[async_trait]
impl Live for KernelLive {
    async fn peers(&self) -> Result<Vec<PeerState>, WgError> {
        Ok(peer_states(read(&self.wgnl, &self.name).await?.peers))
    }

    /// A keepalive that appears is sent at once, and without a session a handshake in its place;
    /// the handshake goes on when the keepalive goes away again.
    async fn kick(&self, kicks: &[Kick]) -> Result<(), WgError> {
        let wanted = kicks.iter().filter(|k| k.keepalive != 0 || k.handshake);
        let on = plan::keepalives(wanted.map(|k| (k.public_key, k.keepalive.max(1))));
        apply(&self.wgnl, &self.name, &on).await?;
        let without = kicks.iter().filter(|k| k.keepalive == 0 && k.handshake);
        let off = plan::keepalives(without.map(|k| (k.public_key, 0)));
        apply(&self.wgnl, &self.name, &off).await
    }

    fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
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
        self.bare = None;
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
        if !found.up {
            self.settled.store(false, Ordering::Relaxed);
        }
        let keepalives = self.keepalives(found.up);
        self.configure(conf, keepalives).await?;
        if let (true, Some(old)) = (found.up, &self.conf) {
            self.netdev.change(&found, old, conf).await?;
        }
        self.conf = Some(conf.clone());
        Ok(())
    }

    async fn up(&mut self) -> Result<(), WgError> {
        if let (Some(found), Some(conf)) = (self.bare.take(), self.conf.clone())
            && self.netdev.raise(&found, &conf).await.is_ok()
        {
            self.raised = Some(found.index);
            return Ok(());
        }
        // Whatever it was, the long way finds it and says so.
        let (found, conf) = self.required().await?;
        self.raised = Some(found.index);
        let result = self.netdev.bring_up(&found, &conf).await;
        result.map_err(|e| port_taken(e, &conf))?;
        self.netdev.add_routes(found.index, &conf).await?;
        match self.keepalives(true) {
            Keepalives::AsConfigured => self.configure(&conf, Keepalives::AsConfigured).await,
            // Nothing to set, and a takeover has no time to look.
            Keepalives::Off | Keepalives::AsFound => Ok(()),
        }
    }

    async fn silence(&mut self) -> Result<(), WgError> {
        self.settled.store(false, Ordering::Relaxed);
        match self.raised.take() {
            Some(index) => self.netdev.lower(index).await,
            None => self.down().await,
        }
    }

    async fn down(&mut self) -> Result<(), WgError> {
        (self.bare, self.raised) = (None, None);
        self.settled.store(false, Ordering::Relaxed);
        let Some(found) = self.netdev.find_own(&Kind::Wireguard).await? else { return Ok(()) };
        self.netdev.bring_down(&found).await?;
        match self.conf.clone() {
            Some(conf) => self.configure(&conf, Keepalives::Off).await,
            None => Ok(()),
        }
    }

    /// The kernel begins a handshake with a peer once in 5 s (REKEY_TIMEOUT), whoever asks. It forgets when it did where its
    /// private key changes: so it has none for a moment. Should it stay so, the next look puts it back.
    async fn forget_unanswered(&mut self) -> Result<(), WgError> {
        let Some(conf) = self.conf.clone() else { return Err(WgError::NotStaged) };
        self.settled.store(false, Ordering::Relaxed);
        // A keepalive that is there already would not appear.
        self.configure(&conf, Keepalives::Off).await?;
        for key in [SecretKey::new([0; KEY_LEN]), conf.private_key] {
            self.apply(&Change { private_key: Some(key), ..Change::default() }).await?;
        }
        Ok(())
    }

    async fn state(&mut self) -> Result<DeviceState, WgError> {
        let Some(found) = self.netdev.find_own(&Kind::Wireguard).await? else {
            return Ok(DeviceState { exists: false, up: false, staged: false });
        };
        let keepalives = self.keepalives(found.up);
        let staged = match &self.conf {
            Some(conf) => plan(&self.read().await?, conf, keepalives, Moves::Taken).is_empty(),
            None => false,
        };
        let (up, mtu) = (found.up, self.conf.as_ref().map(|conf| conf.mtu));
        self.bare = Some(found).filter(|f| !up && staged && Some(f.mtu) == mtu);
        Ok(DeviceState { exists: true, up, staged })
    }

    async fn peers(&mut self) -> Result<Vec<PeerState>, WgError> {
        if self.find().await?.is_none() {
            return Err(WgError::NotStaged);
        }
        Ok(peer_states(self.read().await?.peers))
    }

    async fn set_endpoints(
        &mut self,
        endpoints: &[([u8; KEY_LEN], SocketAddr)],
    ) -> Result<usize, WgError> {
        let (found, _) = self.required().await?;
        if found.up {
            return Err(WgError::Up);
        }
        let change = plan::endpoints(&self.read().await?, endpoints);
        self.apply(&change).await?;
        Ok(change.peers.len())
    }

    fn live(&self) -> Arc<dyn Live> {
        Arc::new(KernelLive {
            name: self.netdev.name().to_owned(),
            wgnl: Arc::clone(&self.wgnl),
            settled: Arc::clone(&self.settled),
        })
    }

    fn stamp_offset(&self) -> Option<i64> {
        None
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
