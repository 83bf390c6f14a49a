//! gotatun's device: made, changed, suspended, resumed.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::future::join_all;
use gotatun::device::configure::DeviceWrite;
use gotatun::device::uapi::{UapiClient, UapiServer};
use gotatun::device::{Device, DeviceBuilder, Error, Peer};
use gotatun::tun::tun_async_device::{self, TunDevice};
use gotatun::x25519;
use ipnet::IpNet;
use ipnetwork::IpNetwork;
use nix::net::if_::if_nametoindex;

use crate::clock;
use crate::wireguard::conf::WgConf;
use crate::wireguard::key::{KEY_LEN, PublicKey, SecretKey};
use crate::wireguard::plan::{self, Action, Change, DevicePeer, Fields, PeerChange};
use crate::wireguard::udp::SourceUdp;
use crate::wireguard::{Kick, WgError};

/// Changes made under one lock; meanwhile no packet passes.
const BATCH: usize = 50;

/// How often, and how many times, it is looked whether a closed TUN device is gone.
const GONE_CHECK: Duration = Duration::from_millis(1);
const GONE_CHECKS: u32 = 2_000;

/// Bound of sending an initiation, which takes some 100 us. Until then nothing else is done.
const INITIATION: Duration = Duration::from_millis(5);

type Transports = (SourceUdp, TunDevice, TunDevice);

/// A TUN device with gotatun behind it.
pub(super) struct Tunnel {
    device: Device<Transports>,
    parts: Parts,
    port: u16,
    suspended: bool,
    /// Wall clock minus boot clock when the device was made, in nanoseconds.
    clock_ns: i64,
}

/// What outlives one device of gotatun.
struct Parts {
    interface: String,
    tun: TunDevice,
    tun_index: u32,
    udp: SourceUdp,
}

impl Tunnel {
    /// Makes the TUN device, its link down, and gotatun's, suspended and without peers. With it
    /// comes the way to ask it as `wg` does.
    pub(super) async fn create(
        interface: &str,
        udp: SourceUdp,
        conf: &WgConf,
    ) -> Result<(Self, UapiClient), WgError> {
        let tun = TunDevice::from_name(interface).map_err(|e| no_tun(&e, interface))?;
        let tun_index = if_nametoindex(interface)
            .map_err(|e| WgError::step(format!("look for {interface}"))(io::Error::from(e)))?;
        let parts = Parts { interface: interface.to_owned(), tun, tun_index, udp };
        Self::build(parts, conf.listen_port, conf.fwmark, &conf.private_key, Vec::new()).await
    }

    /// Makes gotatun's device again, suspended, with all that the old one knew but the sessions.
    pub(super) async fn again(self) -> Result<(Self, UapiClient), WgError> {
        let peers = self.device.peers().await.into_iter().map(|p| p.peer).collect();
        let (key, fwmark) = self
            .device
            .read(async |d| (d.private_key().map(|k| SecretKey::new(k.to_bytes())), d.fwmark()))
            .await;
        let Self { device, parts, port, .. } = self;
        device.stop().await;
        sockets_closed(&parts.udp).await?;
        let key = key.ok_or(WgError::NotStaged)?;
        Self::build(parts, port, fwmark.unwrap_or(0), &key, peers).await
    }

    async fn build(
        parts: Parts,
        port: u16,
        fwmark: u32,
        key: &SecretKey,
        peers: Vec<Peer>,
    ) -> Result<(Self, UapiClient), WgError> {
        let (client, server) = UapiServer::new();
        let clock_ns = clock_ns();
        let device = DeviceBuilder::new()
            .with_udp(parts.udp.clone())
            .with_ip(parts.tun.clone())
            .with_private_key(x25519::StaticSecret::from(*key.expose()))
            .with_listen_port(port)
            .with_fwmark(fwmark)
            .with_peers(peers)
            .with_uapi(server)
            .suspended(true)
            .build();
        let device = device.await.map_err(|e| failed(e, port))?;
        Ok((Self { device, parts, port, suspended: true, clock_ns }, client))
    }

    /// Whether the TUN device is still there: the kernel does not wake the reader of a deleted one.
    pub(super) fn exists(&self) -> bool {
        let index = if_nametoindex(self.parts.interface.as_str());
        index.is_ok_and(|index| index == self.parts.tun_index)
    }

    pub(super) const fn suspended(&self) -> bool {
        self.suspended
    }

    /// Ends when gotatun reports that it cannot go on, and at once ever after.
    pub(super) async fn failure(&mut self) {
        self.device.wait().await;
    }

    /// Wall clock minus boot clock when gotatun read them, in nanoseconds.
    pub(super) const fn clock_ns(&self) -> i64 {
        self.clock_ns
    }

    /// By how much the wall clock was set since gotatun read it.
    pub(super) fn clock_error_ns(&self) -> u64 {
        self.clock_ns.abs_diff(clock_ns())
    }

    /// Closes the sockets and stops the timers.
    pub(super) async fn suspend(&mut self) -> Result<(), WgError> {
        self.device.suspend().await;
        self.suspended = true;
        sockets_closed(&self.parts.udp).await
    }

    /// Opens the sockets; nothing if they are open.
    pub(super) async fn resume(&mut self) -> Result<(), WgError> {
        let result = self.device.resume().await;
        self.suspended = result.is_err();
        if let Err(e) = result {
            // gotatun takes itself for resumed by now and would not try again.
            self.device.suspend().await;
            return Err(failed(e, self.port));
        }
        Ok(())
    }

    /// Ends it all; returns when the sockets are closed, as the next tunnel wants their port, and the TUN device is gone.
    pub(super) async fn close(self) {
        let existed = self.exists();
        let Self { device, parts: Parts { interface, tun, tun_index, udp }, .. } = self;
        device.stop().await;
        if let Err(e) = sockets_closed(&udp).await {
            tracing::error!("{interface}: {e}");
        }
        drop((tun, udp));
        let there = || if_nametoindex(interface.as_str()).is_ok_and(|index| index == tun_index);
        for _ in 0..GONE_CHECKS {
            if !existed || !there() {
                return;
            }
            tokio::time::sleep(GONE_CHECK).await;
        }
        tracing::error!("{interface} is still there");
    }

    /// The device as it is.
    pub(super) async fn read(&self) -> plan::Device {
        let (public_key, listen_port, fwmark) = self
            .device
            .read(async |d| {
                let key = d.private_key().map(|k| PublicKey(x25519::PublicKey::from(k).to_bytes()));
                (key, d.listen_port(), d.fwmark().unwrap_or(0))
            })
            .await;
        let wall = Duration::from_nanos(u64::try_from(clock::wall()).unwrap_or(0));
        let now = UNIX_EPOCH.checked_add(wall);
        let peers = self.device.peers().await.into_iter().map(|p| DevicePeer {
            public_key: PublicKey(p.peer.public_key.to_bytes()),
            preshared_key: p.peer.preshared_key.filter(|k| *k != [0; KEY_LEN]).map(SecretKey::new),
            endpoint: p.peer.endpoint,
            keepalive: p.peer.keepalive.unwrap_or(0),
            allowed_ips: p.peer.allowed_ips.iter().filter_map(from_gotatun).collect(),
            last_handshake: p.stats.last_handshake.and_then(|ago| now?.checked_sub(ago)),
            received: u64::try_from(p.stats.rx_bytes).unwrap_or(u64::MAX),
        });
        plan::Device { public_key, listen_port, fwmark, peers: peers.collect() }
    }

    /// Sends initiations, then sets keepalives.
    pub(super) async fn kick(&mut self, kicks: &[Kick]) -> Result<(), WgError> {
        let device = &self.device;
        let shake = |kick: &Kick| {
            let key = x25519::PublicKey::from(kick.public_key);
            // It would wait for the answer for ever. A peer that is gone or has no endpoint is no
            // reason not to go on.
            async move { drop(tokio::time::timeout(INITIATION, device.force_handshake(&key)).await) }
        };
        join_all(kicks.iter().filter(|k| k.handshake).map(shake)).await;
        let wanted = kicks.iter().filter(|k| k.keepalive != 0);
        let change = plan::keepalives(wanted.map(|k| (k.public_key, k.keepalive)));
        self.apply(&change).await
    }

    /// Applies a change; suspended afterwards if that failed.
    pub(super) async fn apply(&mut self, change: &Change) -> Result<(), WgError> {
        self.port = change.listen_port.unwrap_or(self.port);
        if let Err(e) = self.try_apply(change).await {
            // A new key or port could not have its socket: silent, and said so.
            self.suspend().await?;
            return Err(failed(e, self.port));
        }
        Ok(())
    }

    async fn try_apply(&self, change: &Change) -> Result<(), Error> {
        if change.private_key.is_some() || change.listen_port.is_some() || change.fwmark.is_some() {
            self.device.write(async |d| apply_device(d, change).await).await??;
        }
        for batch in change.peers.chunks(BATCH) {
            let apply = async |d: &mut DeviceWrite<'_, Transports>| {
                for peer in batch {
                    apply_peer(d, peer).await;
                }
            };
            self.device.write(apply).await?;
        }
        Ok(())
    }
}

async fn sockets_closed(udp: &SourceUdp) -> Result<(), WgError> {
    udp.closed().await.map_err(WgError::step("close the embedded WireGuard's sockets"))
}

async fn apply_device(d: &mut DeviceWrite<'_, Transports>, change: &Change) -> Result<(), Error> {
    if let Some(key) = &change.private_key {
        d.set_private_key(x25519::StaticSecret::from(*key.expose())).await;
    }
    if let Some(port) = change.listen_port {
        d.set_listen_port(port);
    }
    change.fwmark.map_or(Ok(()), |mark| d.set_fwmark(mark))
}

async fn apply_peer(d: &mut DeviceWrite<'_, Transports>, change: &PeerChange) {
    let key = x25519::PublicKey::from(change.public_key.0);
    match &change.action {
        Action::Remove => {
            d.remove_peer(&key).await;
        }
        Action::Add(fields) => {
            d.add_peer(added(key, fields));
        }
        Action::Update(fields) => {
            d.modify_peer(&key, |peer| {
                if let Some(psk) = &fields.preshared_key {
                    peer.set_preshared_key(psk.as_ref().map(|key| *key.expose()));
                }
                if let Some(endpoint) = fields.endpoint {
                    peer.set_endpoint(Some(endpoint));
                }
                if let Some(seconds) = fields.keepalive {
                    peer.set_keepalive((seconds != 0).then_some(seconds));
                }
                if fields.replace_allowed_ips {
                    peer.clear_allowed_ips();
                }
                peer.add_allowed_ips(fields.allowed_ips.iter().filter_map(to_gotatun));
            })
            .await;
        }
    }
}

fn added(key: x25519::PublicKey, fields: &Fields) -> Peer {
    let mut peer = Peer::new(key);
    peer.preshared_key =
        fields.preshared_key.as_ref().and_then(|k| k.as_ref()).map(|k| *k.expose());
    peer.endpoint = fields.endpoint;
    peer.keepalive = fields.keepalive;
    peer.allowed_ips = fields.allowed_ips.iter().filter_map(to_gotatun).collect();
    peer
}

fn to_gotatun(net: &IpNet) -> Option<IpNetwork> {
    IpNetwork::new(net.addr(), net.prefix_len()).ok()
}

fn from_gotatun(net: &IpNetwork) -> Option<IpNet> {
    IpNet::new(net.ip(), net.prefix()).ok()
}

fn clock_ns() -> i64 {
    clock::wall().saturating_sub_unsigned(clock::now().as_nanos())
}

fn failed(e: Error, port: u16) -> WgError {
    match e {
        Error::Bind(e, _) if e.kind() == io::ErrorKind::AddrInUse => WgError::PortTaken(port),
        Error::Bind(e, _) => WgError::step(format!("open UDP port {port}"))(e),
        Error::IoError(e) => WgError::step("embedded WireGuard")(e),
        other => WgError::Failed(other.to_string()),
    }
}

fn no_tun(e: &tun_async_device::Error, interface: &str) -> WgError {
    // The system's word is the innermost one.
    let mut cause: &dyn std::error::Error = e;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    WgError::Failed(format!("create the TUN device {interface}: {cause}"))
}

#[cfg(test)]
mod tests;
