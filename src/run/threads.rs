//! Starts the threads, each with a runtime of its own.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};
use wgha_proto::{Boot, Node, WireguardKind};

use super::QUEUE;
use crate::arbiter;
use crate::clock::{self, Stamps};
use crate::config::Config;
use crate::daemon::{self, Daemon};
use crate::evidence;
use crate::gateway::ledger::Ledger;
use crate::gateway::machine::{Machine, Shared};
use crate::gateway::{self, Gateway, Notice, Order};
use crate::guard::Line;
use crate::link::Link;
use crate::net::gate::{self, Gate, Permit};
use crate::priority;
use crate::process::GRACE;
use crate::realtime::Realtime;
use crate::setup::Setup;
use crate::state::StateDir;
use crate::sync;

/// Leaving may run PreDown and PostDown; this is longer than their own bound.
const FINISH: Duration = Duration::from_secs(70);

/// How long a thread may take to start.
const START: Duration = Duration::from_secs(5);

/// The end of a process that has nothing left to wait for.
const EXIT: Duration = Duration::from_secs(10);

/// The longest that a daemon takes to end once its loop does: the reconciler, then claims and `stop` hooks.
pub(crate) fn longest_end(config: &Config) -> Duration {
    let hooks = config.hooks.iter().map(|hook| hook.timeout);
    let claims = config.claims.iter().map(|claim| claim.timeout);
    // One more, which is cut off, may run before them.
    let runs: Duration = hooks.chain(claims).map(|timeout| timeout + GRACE * 2).sum();
    START + FINISH + runs + GRACE * 2 + EXIT
}

/// Builds the gate, shut, before anything could act. A witness has none.
pub(super) fn start_gate(
    setup: &Setup,
    ledger: &Ledger,
    permit: &Permit,
) -> anyhow::Result<Option<Gate>> {
    let config = &setup.config;
    if config.node().witness {
        return Ok(None);
    }
    if !config.cluster.gate {
        return Ok(Some(Gate::off(permit.clone())));
    }
    let name = gate::table_name(&config.cluster.name);
    ledger.update(|applied| {
        if !applied.gates.contains(&name) {
            applied.gates.push(name.clone());
        }
    })?;
    let (plan, realtime) = (gateway::gate::plan(setup), config.cluster.realtime);
    let gate = Gate::start(&name, plan, permit.clone(), realtime);
    gate.map(Some).context("cannot start the gate's thread")
}

/// Starts the protocol's thread with a runtime of its own.
pub(super) fn start_protocol(
    setup: &Setup,
    wireguard: WireguardKind,
    boot: Boot,
    stamps: Stamps,
    permit: Permit,
    line: Arc<Line>,
) -> anyhow::Result<daemon::Handle> {
    let node_config = setup.node_config(wireguard);
    let (config, keys) = (setup.config.clone(), setup.keys.clone());
    let puts_up = setup.puts_up();
    let (handle_tx, handle) = std::sync::mpsc::sync_channel(1);
    let body = move || -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        if let Err(e) = priority::raise_this_thread() {
            info!("heartbeats have no priority over other programs: {e}");
        }
        let realtime = config.cluster.realtime.then(Realtime::claim);
        for missing in realtime.iter().flat_map(|r| &r.missing) {
            warn!("{missing}");
        }
        runtime.block_on(async {
            let link = Link::open(&config, puts_up.listen_ports());
            if let Some(address) = link.taken() {
                // Deaf to the others it would soon be master beside whoever has the address.
                let taken = anyhow!("{address} is in use by another process");
                let _ = handle_tx.send(Err(taken));
                return;
            }
            for (address, why) in link.unbound() {
                warn!("{address} cannot be bound, which is tried again each second: {why}");
            }
            let node = Node::new(node_config, keys, boot, clock::now());
            let (mut daemon, handle) =
                Daemon::new(&config, puts_up, node, link, stamps, permit, line);
            daemon.runs_as(realtime);
            if handle_tx.send(Ok(handle)).is_ok() {
                daemon.run().await;
            }
        });
        Ok(())
    };
    thread::Builder::new()
        .name("protocol".to_owned())
        .spawn(move || {
            if let Err(e) = body() {
                error!("the protocol's runtime did not start: {e}");
            }
        })
        .context("cannot start the protocol's thread")?;
    handle.recv_timeout(START).context("the protocol's thread did not start")?
}

/// The reconciler's ends: orders to it, notices from it, and its thread.
pub(super) struct GatewayParts {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) notices: mpsc::Receiver<Notice>,
    pub(super) thread: Option<thread::JoinHandle<()>>,
}

impl GatewayParts {
    /// Has the reconciler leave and end. True if it said that nothing is left.
    pub(super) async fn finish(&mut self) -> bool {
        let (done, mut wait) = oneshot::channel();
        if self.orders.send_timeout(Order::Finish(done), START).await.is_err() {
            return false;
        }
        let deadline = tokio::time::Instant::now() + FINISH;
        loop {
            tokio::select! {
                left = &mut wait => return left.unwrap_or(false),
                // Nobody needs them any more, but without room for them it would wait for ever.
                Some(_) = self.notices.recv() => {}
                () = tokio::time::sleep_until(deadline) => return false,
            }
        }
    }
}

/// Starts the sync channel, and what keeps files the same over it. A witness has neither.
pub(super) fn start_sync(
    setup: &Setup,
    endpoints: &sync::Endpoints,
    state: &Arc<StateDir>,
    handle: &daemon::Handle,
) -> anyhow::Result<(Option<sync::Handle>, Option<sync::files::Handle>)> {
    if setup.config.node().witness {
        return Ok((None, None));
    }
    let settings = sync::files::Settings::new(setup);
    let (files, hub) = sync::files::start(settings, Arc::clone(state), handle.level.clone())
        .context("cannot start the thread that syncs files")?;
    let settings = sync::Settings::new(setup);
    let sync = sync::start(settings, endpoints.clone(), hub, Arc::clone(state))
        .context("cannot start the sync channel's thread")?;
    Ok((Some(sync), Some(files)))
}

/// Starts the outside evidence. A witness, which takes no role over, has none.
pub(super) fn start_evidence(
    setup: &Setup,
    endpoints: &sync::Endpoints,
    handle: &daemon::Handle,
    state: &Arc<StateDir>,
) -> anyhow::Result<Option<evidence::Handle>> {
    if setup.config.node().witness {
        return Ok(None);
    }
    let (inputs, wanted) = (handle.inputs.downgrade(), handle.wants_evidence.clone());
    let settings = evidence::Settings::new(&setup.config);
    let tunnel = endpoints.received();
    let started = evidence::start(settings, inputs, wanted, tunnel, Arc::clone(state));
    started.map(Some).context("cannot start the thread of the evidence")
}

/// Starts what asks etcd for its vote. A witness asks for none.
pub(super) fn start_arbiter(
    setup: &Setup,
    handle: &daemon::Handle,
) -> anyhow::Result<Option<arbiter::Handle>> {
    if setup.config.node().witness {
        return Ok(None);
    }
    let settings = arbiter::Settings::new(&setup.config);
    let started = arbiter::start(settings, handle.inputs.downgrade(), handle.arbiter.clone());
    started.map(Some).context("cannot start the thread of the arbiter")
}

/// Starts the reconciler with a runtime of its own, so that neither the log's disk nor an operator
/// stands between a takeover and the machine. A witness has none.
pub(super) fn start_gateway(
    setup: &Arc<Setup>,
    ledger: &Ledger,
    shared: Shared,
    handle: &daemon::Handle,
    gate: Option<Gate>,
) -> anyhow::Result<GatewayParts> {
    let (orders, orders_rx) = mpsc::channel(QUEUE);
    let (notices_tx, notices) = mpsc::channel(QUEUE);
    let Some(gate) = gate else {
        return Ok(GatewayParts { orders, notices, thread: None });
    };
    let (setup, ledger) = (Arc::clone(setup), ledger.clone());
    let (level, reports) = (handle.level.clone(), handle.inputs.clone());
    let (ready_tx, ready) = std::sync::mpsc::sync_channel(1);
    let body = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        runtime.block_on(async {
            let machine = Machine::open(&setup, ledger, shared, notices_tx.clone(), gate)?;
            // Whoever waits for this has given up at worst.
            let _ = ready_tx.send(());
            Gateway::new(machine, level, orders_rx, notices_tx, reports).run().await;
            anyhow::Ok(())
        })
    };
    let thread = thread::Builder::new()
        .name("gateway".to_owned())
        .spawn(move || {
            if let Err(e) = body() {
                error!("the reconciler did not start: {e:#}");
            }
        })
        .context("cannot start the reconciler's thread")?;
    ready.recv_timeout(START).context("the reconciler did not start")?;
    Ok(GatewayParts { orders, notices, thread: Some(thread) })
}
