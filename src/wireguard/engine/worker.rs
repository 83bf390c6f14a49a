//! The one that drives the tunnel: calls, failures, clock.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use gotatun::device::uapi::UapiClient;
use tokio::sync::{mpsc, watch};
use wgha_proto::Time;

use super::tunnel::Tunnel;
use super::{Call, Snapshot};
use crate::clock;
use crate::wireguard::conf::WgConf;
use crate::wireguard::key::{KEY_LEN, PublicKey};
use crate::wireguard::plan::{self, Keepalives, Moves};
use crate::wireguard::uapi::{Client, Uapi};
use crate::wireguard::udp::SourceUdp;
use crate::wireguard::{Kick, Source, WgError};

/// A tunnel that fails again within this time is not made again.
const RECOVERY: Duration = Duration::from_secs(10);

/// How often TUN device and clocks are looked at.
const CHECK: Duration = Duration::from_secs(1);

/// By how much the wall clock may have been set before gotatun's stamps are stale, in nanoseconds.
const CLOCK_STEP_NS: u64 = 500_000_000;

const DELETED: &str = "its TUN device was deleted";

/// What lives on the engine's thread.
pub(super) struct Worker {
    interface: String,
    failed: watch::Sender<Option<String>>,
    stamped: watch::Sender<Option<i64>>,
    udp: SourceUdp,
    client: Client,
    uapi: Option<Uapi>,
    tunnel: Option<Tunnel>,
    /// gotatun forgets a handshake after 180 s, and all at every resume.
    handshakes: HashMap<PublicKey, SystemTime>,
    /// When a running device was last made again.
    recovered: Option<Time>,
}

enum Input {
    Call(Option<Call>),
    /// gotatun says that it cannot go on.
    Failed,
    Check,
}

impl Worker {
    pub(super) fn new(
        interface: &str,
        failed: watch::Sender<Option<String>>,
        stamped: watch::Sender<Option<i64>>,
        udp: SourceUdp,
    ) -> Self {
        Self {
            interface: interface.to_owned(),
            failed,
            stamped,
            udp,
            client: Client::default(),
            uapi: None,
            tunnel: None,
            handshakes: HashMap::new(),
            recovered: None,
        }
    }

    pub(super) async fn run(mut self, mut calls: mpsc::Receiver<Call>) {
        let mut check = tokio::time::interval(CHECK);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let input = tokio::select! {
                call = calls.recv() => Input::Call(call),
                () = failure(self.tunnel.as_mut()) => Input::Failed,
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
            Call::SetEndpoints(endpoints, reply) => {
                let _ = reply.send(self.set_endpoints(&endpoints).await);
            }
            Call::Kick(kicks, reply) => {
                let _ = reply.send(self.kick(&kicks).await);
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
        if self.tunnel.as_ref().is_some_and(|t| !t.exists()) {
            self.failed(DELETED).await;
        }
        if let Err(e) = self.follow_clock().await {
            self.failed(&e.to_string()).await;
        }
    }

    /// gotatun reports the end of its tasks as a failure, also of tasks that it stops itself when
    /// it suspends or opens new sockets, if they end in an unlucky order. So the tunnel is made
    /// again, once; what is really broken breaks again.
    async fn recover(&mut self) {
        let Some(tunnel) = &self.tunnel else { return };
        if !tunnel.exists() {
            return self.failed(DELETED).await;
        }
        if !tunnel.suspended() {
            let now = clock::now();
            let before = self.recovered.replace(now);
            if before.is_some_and(|before| now.since(before) < RECOVERY) {
                return self.failed("its socket or its TUN device does not work").await;
            }
        }
        if let Err(e) = self.settle().await {
            self.failed(&e.to_string()).await;
        }
    }

    /// Makes a tunnel again that reports a failure, running or suspended as it was. To be called
    /// whenever gotatun stopped tasks by itself: then a failure means nothing (see `recover`).
    async fn settle(&mut self) -> Result<(), WgError> {
        let Some(old) = self.tunnel.take_if(|t| t.failure().now_or_never().is_some()) else {
            return Ok(());
        };
        let resume = !old.suspended();
        self.adopt(old.again().await?);
        match &mut self.tunnel {
            Some(tunnel) if resume => tunnel.resume().await,
            _ => Ok(()),
        }
    }

    /// gotatun samples the wall clock when a peer is made and stamps handshakes from it ever after:
    /// when the clock was set since, a suspended tunnel is made again, with all it knows.
    async fn follow_clock(&mut self) -> Result<(), WgError> {
        let stale = |t: &mut Tunnel| t.suspended() && t.clock_error_ns() > CLOCK_STEP_NS;
        let Some(old) = self.tunnel.take_if(stale) else { return Ok(()) };
        tracing::info!("{}: the wall clock was set, renewing the time stamps", self.interface);
        self.adopt(old.again().await?);
        Ok(())
    }

    async fn failed(&mut self, why: &str) {
        self.close().await;
        let why = format!("the embedded WireGuard of {} stopped: {why}", self.interface);
        self.failed.send_replace(Some(why));
    }

    async fn configure(&mut self, conf: &WgConf, keepalives: Keepalives) -> Result<(), WgError> {
        if self.tunnel.is_none() {
            let new = Tunnel::create(&self.interface, self.udp.clone(), conf).await?;
            self.adopt(new);
            self.failed.send_replace(None);
        }
        let Some(tunnel) = &mut self.tunnel else { return Err(WgError::NotStaged) };
        let now = tunnel.read().await;
        let change = plan::plan(&now, conf, keepalives, Moves::TakenBack);
        if change.is_empty() {
            return Ok(());
        }
        let applied = tunnel.apply(&change).await;
        // Without peers nothing was opened, and nothing opens by itself when some are added.
        if applied.is_ok() && now.peers.is_empty() && !tunnel.suspended() {
            tunnel.suspend().await?;
            tunnel.resume().await?;
        }
        self.settle().await?;
        applied
    }

    async fn resume(&mut self, source: Source) -> Result<(), WgError> {
        if self.udp.set(source) {
            self.suspend().await?;
        }
        self.follow_clock().await?;
        match &mut self.tunnel {
            Some(tunnel) => tunnel.resume().await,
            None => Err(WgError::NotStaged),
        }
    }

    async fn suspend(&mut self) -> Result<(), WgError> {
        // Reading remembers the handshakes that the next resume forgets.
        self.read().await;
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.suspend().await?;
        }
        self.settle().await
    }

    async fn read(&mut self) -> Option<Snapshot> {
        if self.tunnel.as_ref().is_some_and(|t| !t.exists()) {
            self.failed(DELETED).await;
        }
        let tunnel = self.tunnel.as_ref()?;
        let mut device = tunnel.read().await;
        for peer in &mut device.peers {
            match peer.last_handshake {
                Some(at) => {
                    self.handshakes.insert(peer.public_key, at);
                }
                None => peer.last_handshake = self.handshakes.get(&peer.public_key).copied(),
            }
        }
        let known: HashSet<PublicKey> = device.peers.iter().map(|p| p.public_key).collect();
        self.handshakes.retain(|key, _| known.contains(key));
        Some(Snapshot { running: !tunnel.suspended(), device })
    }

    async fn set_endpoints(
        &mut self,
        endpoints: &[([u8; KEY_LEN], SocketAddr)],
    ) -> Result<usize, WgError> {
        let Some(tunnel) = &mut self.tunnel else { return Err(WgError::NotStaged) };
        if !tunnel.suspended() {
            return Err(WgError::Up);
        }
        let change = plan::endpoints(&tunnel.read().await, endpoints);
        tunnel.apply(&change).await?;
        Ok(change.peers.len())
    }

    async fn kick(&mut self, kicks: &[Kick]) -> Result<(), WgError> {
        match &mut self.tunnel {
            Some(tunnel) if !tunnel.suspended() => tunnel.kick(kicks).await,
            // The role changed meanwhile.
            _ => Ok(()),
        }
    }

    /// Takes a tunnel into use, and lets `wg show` see it.
    fn adopt(&mut self, (tunnel, client): (Tunnel, UapiClient)) {
        self.stamped.send_replace(Some(tunnel.clock_ns()));
        self.tunnel = Some(tunnel);
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
        if self.uapi.is_none() {
            match Uapi::open(&self.interface, self.client.clone()) {
                Ok(uapi) => self.uapi = Some(uapi),
                Err(e) => tracing::warn!("{}: wg show will not work: {e}", self.interface),
            }
        }
    }

    async fn close(&mut self) {
        self.uapi = None;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(tunnel) = self.tunnel.take() {
            tunnel.close().await;
        }
    }
}

/// Ends when the tunnel reports that it cannot go on.
async fn failure(tunnel: Option<&mut Tunnel>) {
    match tunnel {
        Some(tunnel) => tunnel.failure().await,
        None => std::future::pending().await,
    }
}
