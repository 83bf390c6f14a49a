//! gotatun on threads of its own, reached by messages.
//!
//! gotatun spawns tasks and registers sockets on the runtime that calls it, so it gets one: a slow
//! peer or a saturated tunnel must not delay the protocol loop, nor the other way round. What is
//! done to it is done here alone, one call after the other; every caller waits a bounded time.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gotatun::device::configure::DeviceWrite;
use gotatun::device::uapi::UapiServer;
use gotatun::device::{Device, DeviceBuilder, Error, Peer};
use gotatun::tun::tun_async_device::{self, TunDevice};
use gotatun::x25519;
use ipnet::IpNet;
use ipnetwork::IpNetwork;
use nix::net::if_::if_nametoindex;
use tokio::sync::{mpsc, oneshot, watch};
use wgha_proto::Time;

use super::conf::WgConf;
use super::key::{KEY_LEN, PublicKey, SecretKey};
use super::plan::{self, Action, Change, DevicePeer, Fields, Keepalives, Moves, PeerChange};
use super::uapi::{Client, Uapi};
use super::udp::SourceUdp;
use super::{Source, WgError};
use crate::clock;

/// Where TUN devices come from.
pub(super) const TUN: &str = "/dev/net/tun";

/// Longest wait for an answer of the engine, in seconds.
const ANSWER_S: u64 = 10;

/// Calls that may wait for the engine.
const CALLS: usize = 16;

/// Changes made under one lock; meanwhile no packet passes.
const BATCH: usize = 50;

/// A device that fails again within this time is not made again.
const RECOVERY: Duration = Duration::from_secs(10);

/// How often TUN device and clocks are looked at, and by how much the wall clock may have been
/// set before the engine's stamps are stale.
const CHECK: Duration = Duration::from_secs(1);
const CLOCK_STEP_NS: u64 = 500_000_000;

/// The threads that forward packets.
const THREADS: usize = 4;

type Transports = (SourceUdp, TunDevice, TunDevice);

/// The engine's handle. Dropping it ends the engine and with it the TUN device.
pub(super) struct Engine {
    calls: mpsc::Sender<Call>,
    failure: watch::Receiver<Option<String>>,
}

/// The engine as it is.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Not suspended.
    pub(super) running: bool,
    pub(super) device: plan::Device,
}

type Reply<T> = oneshot::Sender<Result<T, WgError>>;

enum Call {
    Configure(Box<WgConf>, Keepalives, Reply<()>),
    Resume(Source, Reply<()>),
    Suspend(Reply<()>),
    Read(Reply<Option<Snapshot>>),
    Delete(Reply<()>),
}

impl Engine {
    /// Starts the engine's threads, in the network namespace of this one. There is no device yet.
    pub(super) fn start(interface: &str) -> Result<Self, WgError> {
        let (calls, incoming) = mpsc::channel(CALLS);
        let failed = watch::Sender::new(None);
        let failure = failed.subscribe();
        let worker = Worker::new(interface, failed);
        let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, THREADS);
        // Dropping a runtime blocks, so that its own thread does it.
        let thread = std::thread::Builder::new().name("wgha-wireguard".to_owned());
        let (started, start) = std::sync::mpsc::sync_channel(1);
        let spawned = thread.spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name("wgha-packets")
                .enable_all()
                .build();
            match runtime {
                Ok(runtime) => {
                    let _ = started.send(Ok(()));
                    runtime.block_on(worker.run(incoming));
                }
                Err(e) => drop(started.send(Err(e))),
            }
        });
        let what = "start the embedded WireGuard";
        spawned.map_err(WgError::step(what))?;
        let lost = || Err(io::Error::other("its thread ended"));
        start.recv().unwrap_or_else(|_| lost()).map_err(WgError::step(what))?;
        Ok(Self { calls, failure })
    }

    /// Why the engine stopped by itself.
    pub(super) fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.clone()
    }

    /// Makes key, port and peers what the file says; a new device is suspended, its link down.
    pub(super) async fn configure(&self, conf: &WgConf, k: Keepalives) -> Result<(), WgError> {
        let conf = Box::new(conf.clone());
        self.call("configure", |reply| Call::Configure(conf, k, reply)).await
    }

    /// Opens the sockets and starts to speak. Nothing if it does already.
    pub(super) async fn resume(&self, source: Source) -> Result<(), WgError> {
        self.call("resume", |reply| Call::Resume(source, reply)).await
    }

    /// Closes the sockets. Nothing if there is no device.
    pub(super) async fn suspend(&self) -> Result<(), WgError> {
        self.call("suspend", Call::Suspend).await
    }

    /// `None` if there is no device.
    pub(super) async fn read(&self) -> Result<Option<Snapshot>, WgError> {
        self.call("read", Call::Read).await
    }

    /// Ends the device, and the TUN device with it.
    pub(super) async fn delete(&self) -> Result<(), WgError> {
        self.call("delete", Call::Delete).await
    }

    async fn call<T>(
        &self,
        what: &'static str,
        call: impl FnOnce(Reply<T>) -> Call,
    ) -> Result<T, WgError> {
        let (reply, answer) = oneshot::channel();
        let gone = || WgError::Failed("the embedded WireGuard ended".to_owned());
        let exchange = async {
            self.calls.send(call(reply)).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        };
        match tokio::time::timeout(Duration::from_secs(ANSWER_S), exchange).await {
            Ok(result) => result,
            Err(_) => Err(WgError::Timeout(what, ANSWER_S)),
        }
    }
}

/// What lives on the engine's thread.
struct Worker {
    interface: String,
    failed: watch::Sender<Option<String>>,
    udp: SourceUdp,
    client: Client,
    uapi: Option<Uapi>,
    running: Option<Running>,
    /// gotatun forgets a handshake after 180 s, and all at every resume.
    handshakes: HashMap<PublicKey, SystemTime>,
    /// When a running device was last made again.
    recovered: Option<Time>,
}

struct Running {
    device: Device<Transports>,
    udp: SourceUdp,
    tun: TunDevice,
    tun_index: u32,
    port: u16,
    suspended: bool,
    /// Wall clock minus boot clock when the device was built, in nanoseconds.
    clock_ns: i64,
}

enum Input {
    Call(Option<Call>),
    /// gotatun says that it cannot go on.
    Failed,
    Check,
}

impl Worker {
    fn new(interface: &str, failed: watch::Sender<Option<String>>) -> Self {
        Self {
            interface: interface.to_owned(),
            failed,
            udp: SourceUdp::default(),
            client: Client::default(),
            uapi: None,
            running: None,
            handshakes: HashMap::new(),
            recovered: None,
        }
    }

    async fn run(mut self, mut calls: mpsc::Receiver<Call>) {
        let mut check = tokio::time::interval(CHECK);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let input = tokio::select! {
                call = calls.recv() => Input::Call(call),
                () = failure(self.running.as_mut()) => Input::Failed,
                _ = check.tick() => Input::Check,
            };
            match input {
                Input::Call(Some(call)) => self.call(call).await,
                Input::Call(None) => break,
                Input::Failed => self.recover().await,
                Input::Check => self.check().await,
            }
        }
        self.close().await;
    }

    /// A caller that stopped waiting does not take the reply.
    async fn call(&mut self, call: Call) {
        match call {
            Call::Configure(conf, keepalives, reply) => {
                let _ = reply.send(self.configure(&conf, keepalives).await);
            }
            Call::Resume(source, reply) => {
                let _ = reply.send(self.resume(source).await);
            }
            Call::Suspend(reply) => {
                let _ = reply.send(self.suspend().await);
            }
            Call::Read(reply) => {
                let _ = reply.send(Ok(self.read().await));
            }
            Call::Delete(reply) => {
                self.close().await;
                self.handshakes.clear();
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// What nobody tells: a TUN device that was deleted, a clock that was set.
    async fn check(&mut self) {
        if self.running.as_ref().is_some_and(|r| !r.tun_exists(&self.interface)) {
            self.failed("its TUN device was deleted").await;
        }
        if let Err(e) = self.follow_clock().await {
            self.failed(&e.to_string()).await;
        }
    }

    /// gotatun reports the end of its tasks as a failure, also of tasks that it stops itself when
    /// it suspends or opens new sockets, if they end in an unlucky order. So the device is made
    /// again, once; what is really broken breaks again.
    async fn recover(&mut self) {
        let Some(old) = self.running.take() else { return };
        if !old.tun_exists(&self.interface) {
            self.running = Some(old);
            return self.failed("its TUN device was deleted").await;
        }
        let now = clock::now();
        let again = self.recovered.is_some_and(|before| now.since(before) < RECOVERY);
        if !old.suspended && again {
            self.running = Some(old);
            return self.failed("its socket or its TUN device does not work").await;
        }
        let resume = !old.suspended;
        let mut result = self.rebuild(old).await;
        if let (true, Ok(()), Some(running)) = (resume, &result, &mut self.running) {
            self.recovered = Some(now);
            result = running.resume().await;
        }
        if let Err(e) = result {
            self.failed(&e.to_string()).await;
        }
    }

    async fn failed(&mut self, why: &str) {
        self.close().await;
        let why = format!("the embedded WireGuard of {} stopped: {why}", self.interface);
        self.failed.send_replace(Some(why));
    }

    async fn configure(&mut self, conf: &WgConf, keepalives: Keepalives) -> Result<(), WgError> {
        if self.running.is_none() {
            let tun =
                TunDevice::from_name(&self.interface).map_err(|e| no_tun(e, &self.interface))?;
            self.build(tun, conf.listen_port, conf.fwmark, &conf.private_key, Vec::new()).await?;
            self.failed.send_replace(None);
        }
        let Some(running) = &mut self.running else { return Err(WgError::NotStaged) };
        let now = read(&running.device).await;
        let change = plan::plan(&now, conf, keepalives, Moves::TakenBack);
        if change.is_empty() {
            return Ok(());
        }
        running.port = conf.listen_port;
        running.apply(&change).await?;
        // Without peers nothing was opened, and nothing opens by itself when some are added.
        if now.peers.is_empty() && !running.suspended {
            running.suspend().await?;
            running.resume().await?;
        }
        Ok(())
    }

    async fn resume(&mut self, source: Source) -> Result<(), WgError> {
        self.follow_clock().await?;
        let Some(running) = &mut self.running else { return Err(WgError::NotStaged) };
        self.udp.set(source);
        running.resume().await
    }

    async fn suspend(&mut self) -> Result<(), WgError> {
        // Reading remembers the handshakes that the next resume forgets.
        self.read().await;
        match &mut self.running {
            Some(running) => running.suspend().await,
            None => Ok(()),
        }
    }

    async fn read(&mut self) -> Option<Snapshot> {
        if self.running.as_ref().is_some_and(|r| !r.tun_exists(&self.interface)) {
            self.failed("its TUN device was deleted").await;
        }
        let running = self.running.as_ref()?;
        let mut device = read(&running.device).await;
        for peer in &mut device.peers {
            match peer.last_handshake {
                Some(at) => {
                    self.handshakes.insert(peer.public_key, at);
                }
                None => peer.last_handshake = self.handshakes.get(&peer.public_key).copied(),
            }
        }
        self.handshakes.retain(|key, _| device.peers.iter().any(|p| p.public_key == *key));
        Some(Snapshot { running: !running.suspended, device })
    }

    /// gotatun samples the wall clock when a peer is made and stamps handshakes from it ever after:
    /// when the clock was set since, a suspended device is made again, with all it knows.
    async fn follow_clock(&mut self) -> Result<(), WgError> {
        let stale = |r: &Running| r.suspended && r.clock_ns.abs_diff(clock_ns()) > CLOCK_STEP_NS;
        let Some(old) = self.running.take_if(|r| stale(r)) else { return Ok(()) };
        tracing::info!("{}: the wall clock was set, renewing the time stamps", self.interface);
        self.rebuild(old).await
    }

    /// Makes the device again, suspended, with all that the old one knew but the sessions.
    async fn rebuild(&mut self, old: Running) -> Result<(), WgError> {
        let device = read(&old.device).await;
        let key =
            old.device.read(async |d| d.private_key().map(|k| SecretKey::new(k.to_bytes()))).await;
        let peers = old.device.peers().await.into_iter().map(|p| p.peer).collect();
        let Running { device: old_device, tun, port, .. } = old;
        old_device.stop().await;
        self.udp.closed().await.map_err(WgError::step("close the embedded WireGuard's sockets"))?;
        let Some(key) = key else { return Ok(()) };
        self.build(tun, port, device.fwmark, &key, peers).await
    }

    /// Makes the device, suspended, and lets `wg show` see it.
    async fn build(
        &mut self,
        tun: TunDevice,
        port: u16,
        fwmark: u32,
        key: &SecretKey,
        peers: Vec<Peer>,
    ) -> Result<(), WgError> {
        let (client, server) = UapiServer::new();
        let device = DeviceBuilder::new()
            .with_udp(self.udp.clone())
            .with_ip(tun.clone())
            .with_private_key(x25519::StaticSecret::from(*key.expose()))
            .with_listen_port(port)
            .with_fwmark(fwmark)
            .with_peers(peers)
            .with_uapi(server)
            .suspended(true)
            .build();
        let device = device.await.map_err(|e| failed(e, port))?;
        let udp = self.udp.clone();
        let clock_ns = clock_ns();
        let tun_index = if_nametoindex(self.interface.as_str())
            .map_err(WgError::step(format!("look for {}", self.interface)))?;
        let suspended = true;
        self.running = Some(Running { device, udp, tun, tun_index, port, suspended, clock_ns });
        *self.client.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(client);
        if self.uapi.is_none() {
            match Uapi::open(&self.interface, self.client.clone()) {
                Ok(uapi) => self.uapi = Some(uapi),
                Err(e) => tracing::warn!("{}: wg show will not work: {e}", self.interface),
            }
        }
        Ok(())
    }

    async fn close(&mut self) {
        self.uapi = None;
        *self.client.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        if let Some(Running { device, tun, .. }) = self.running.take() {
            device.stop().await;
            drop(tun);
        }
    }
}

impl Running {
    /// The kernel does not wake a reader of a TUN device that is deleted.
    fn tun_exists(&self, interface: &str) -> bool {
        if_nametoindex(interface).is_ok_and(|index| index == self.tun_index)
    }

    async fn suspend(&mut self) -> Result<(), WgError> {
        self.device.suspend().await;
        self.suspended = true;
        self.udp.closed().await.map_err(WgError::step("close the embedded WireGuard's sockets"))
    }

    async fn resume(&mut self) -> Result<(), WgError> {
        let result = self.device.resume().await;
        self.suspended = result.is_err();
        if let Err(e) = result {
            // gotatun takes itself for resumed by now and would not try again.
            self.device.suspend().await;
            return Err(failed(e, self.port));
        }
        Ok(())
    }

    async fn apply(&mut self, change: &Change) -> Result<(), WgError> {
        let result = self.try_apply(change).await;
        if let Err(e) = result {
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

async fn read(device: &Device<Transports>) -> plan::Device {
    let (public_key, listen_port, fwmark) = device
        .read(async |d| {
            let key = d.private_key().map(|k| PublicKey(x25519::PublicKey::from(k).to_bytes()));
            (key, d.listen_port(), d.fwmark())
        })
        .await;
    let now =
        UNIX_EPOCH.checked_add(Duration::from_nanos(u64::try_from(clock::wall()).unwrap_or(0)));
    let peers = device.peers().await.into_iter().map(|p| DevicePeer {
        public_key: PublicKey(p.peer.public_key.to_bytes()),
        preshared_key: p.peer.preshared_key.filter(|k| *k != [0; KEY_LEN]).map(SecretKey::new),
        endpoint: p.peer.endpoint,
        keepalive: p.peer.keepalive.unwrap_or(0),
        allowed_ips: p.peer.allowed_ips.iter().filter_map(from_gotatun).collect(),
        last_handshake: p.stats.last_handshake.and_then(|ago| now?.checked_sub(ago)),
    });
    plan::Device { public_key, listen_port, fwmark: fwmark.unwrap_or(0), peers: peers.collect() }
}

fn to_gotatun(net: &IpNet) -> Option<IpNetwork> {
    IpNetwork::new(net.addr(), net.prefix_len()).ok()
}

fn from_gotatun(net: &IpNetwork) -> Option<IpNet> {
    IpNet::new(net.ip(), net.prefix()).ok()
}

/// Ends when the device reports that it cannot go on.
async fn failure(running: Option<&mut Running>) {
    match running {
        Some(running) => running.device.wait().await,
        None => std::future::pending().await,
    }
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

fn no_tun(e: tun_async_device::Error, interface: &str) -> WgError {
    // The system's word is the innermost one.
    let mut cause: &dyn std::error::Error = &e;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    WgError::Failed(format!("create the TUN device {interface}: {cause}"))
}
