//! gotatun on threads of its own, reached by messages.
//!
//! gotatun spawns tasks and registers sockets on the runtime that calls it, so it gets one: a slow
//! peer or a saturated tunnel must not delay the protocol loop, nor the other way round. What is
//! done to it is done by one worker, one call after the other; every caller waits a bounded time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::conf::WgConf;
use super::key::KEY_LEN;
use super::plan::{self, Keepalives};
use super::udp::SourceUdp;
use super::{Kick, Source, WgError};
use crate::net::gate::Permit;
use worker::Worker;

mod tunnel;
mod worker;

/// Where TUN devices come from.
pub(super) const TUN: &str = "/dev/net/tun";

/// Longest wait for an answer of the engine, in seconds.
const ANSWER_S: u64 = 10;

/// Calls that may wait for the engine.
const CALLS: usize = 16;

/// The threads that forward packets.
const THREADS: usize = 4;

/// The engine's handle. Dropping it ends the engine and with it the TUN device.
pub(super) struct Engine {
    calls: mpsc::Sender<Call>,
    failure: watch::Receiver<Option<String>>,
    stamp: watch::Receiver<Option<i64>>,
    udp: SourceUdp,
}

/// The engine as it is.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Not suspended.
    pub(super) running: bool,
    pub(super) device: plan::Device,
}

/// Peers and where they are.
type Endpoints = Vec<([u8; KEY_LEN], SocketAddr)>;

type Reply<T> = oneshot::Sender<Result<T, WgError>>;

enum Call {
    Configure(Box<WgConf>, Keepalives, Reply<()>),
    Resume(Source, Reply<()>),
    Suspend(Reply<()>),
    Read(Reply<Option<Snapshot>>),
    SetEndpoints(Endpoints, Reply<usize>),
    Kick(Vec<Kick>, Reply<()>),
    Delete(Reply<()>),
}

impl Engine {
    /// Starts the engine's threads, in the network namespace of this one. There is no device yet.
    pub(super) fn start(interface: &str) -> Result<Self, WgError> {
        let (calls, incoming) = mpsc::channel(CALLS);
        let failed = watch::Sender::new(None);
        let failure = failed.subscribe();
        let stamped = watch::Sender::new(None);
        let stamp = stamped.subscribe();
        let udp = SourceUdp::default();
        let worker = Worker::new(interface, failed, stamped, udp.clone());
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
        Ok(Self { calls, failure, stamp, udp })
    }

    /// Nothing is sent past this deadline, from the next [`resume`](Engine::resume) on.
    pub(super) fn set_permit(&self, permit: Permit) {
        self.udp.set_permit(permit);
    }

    /// Why the engine stopped by itself.
    pub(super) fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.clone()
    }

    /// Wall clock minus boot clock when the device was made: what its stamps come from.
    pub(super) fn stamp_offset(&self) -> Option<i64> {
        *self.stamp.borrow()
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

    /// Where peers are, on a suspended device. Returns how many it did not know.
    pub(super) async fn set_endpoints(&self, endpoints: Endpoints) -> Result<usize, WgError> {
        self.call("set endpoints", |reply| Call::SetEndpoints(endpoints, reply)).await
    }

    /// Handshakes and keepalives; nothing if suspended.
    pub(super) async fn kick(&self, kicks: Vec<Kick>) -> Result<(), WgError> {
        self.call("start handshakes", |reply| Call::Kick(kicks, reply)).await
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
