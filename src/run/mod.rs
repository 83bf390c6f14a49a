//! `wgha run`: puts the daemon together.
//!
//! Its threads: the protocol's, which never blocks (`daemon.rs`); the gate's (`net/gate/`); the
//! reconciler's, which changes the machine (`gateway/`); that of the sync channel (`sync/`), and that
//! of files (`sync/files/`); that which asks the router (`evidence/`); that which answers monitors
//! (`http/`); and this one: operators, hooks, events. They share bounded channels and watched levels.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};
use wgha_proto::{Boot, Node, WireguardKind};

use crate::cli;
use crate::clock::{self, Stamps};
use crate::config::BackendChoice;
use crate::control::server;
use crate::daemon::{self, Daemon};
use crate::evidence;
use crate::gateway::ledger::Ledger;
use crate::gateway::machine::{Machine, Shared};
use crate::gateway::view::SharedView;
use crate::gateway::{Gateway, Notice, Order};
use crate::http::{self, Http, Vital};
use crate::link::Link;
use crate::log;
use crate::net::Netlink;
use crate::net::gate::{self, Gate, Permit};
use crate::priority;
use crate::realtime::Realtime;
use crate::setup::Setup;
use crate::state::StateDir;
use crate::sync;
use crate::wireguard;

mod app;
mod journal;
mod picture;
mod watchdog;

use app::App;

/// Orders to the reconciler, notices from it, and requests of operators that may wait.
const QUEUE: usize = 64;

/// Leaving may run PreDown and PostDown; this is longer than their own bound.
const FINISH: Duration = Duration::from_secs(70);

/// How long a thread may take to start.
const START: Duration = Duration::from_secs(5);

/// Runs the daemon until it is told to stop.
///
/// # Errors
///
/// Whatever keeps it from starting: config, keys, state directory, sockets.
pub fn run(path: &Path, node: Option<&str>, take_over: bool) -> anyhow::Result<ExitCode> {
    log::start();
    let setup = match Setup::load(path, node) {
        Ok(setup) => setup,
        Err(errors) => {
            error!("{errors}");
            // Starting again would not help: systemd does not (RestartPreventExitStatus).
            return Ok(ExitCode::from(cli::exit::WRONG_USE));
        }
    };
    for warning in &setup.warnings {
        warn!("{warning}");
    }
    serve(path, node, setup, take_over).or_else(|why| {
        error!("{why:#}");
        Ok(ExitCode::from(cli::exit::FAILED))
    })
}

fn serve(
    path: &Path,
    node: Option<&str>,
    setup: Setup,
    take_over: bool,
) -> anyhow::Result<ExitCode> {
    let state = Arc::new(StateDir::open(&setup.config.cluster.state_dir)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let app = start(path, node, setup, state, take_over).await?;
        app.run().await
    })
}

async fn start(
    path: &Path,
    node: Option<&str>,
    setup: Setup,
    state: Arc<StateDir>,
    take_over: bool,
) -> anyhow::Result<App> {
    let ledger = Ledger::open(Arc::clone(&state));
    let listener = server::bind(&setup.config.control_socket)?;
    let http_socket = setup.config.http.map(http::bind).transpose()?;
    if !setup.config.node().witness && !take_over {
        refuse_foreign_tunnels(&setup, &ledger).await?;
    }
    let wireguard = choose_backends(&setup, &ledger).await?;
    let boot = boot(&state)?;
    let permit = Permit::new().context("cannot make an event")?;
    let gate = start_gate(&setup, &ledger, &permit)?;
    let monitor = gate.as_ref().map(Gate::monitor);
    let stamps = Stamps::default();
    let handle = start_protocol(&setup, wireguard, boot, stamps.clone(), permit)?;
    let view = SharedView::default();
    let setup = Arc::new(setup);
    let endpoints = sync::Endpoints::default();
    let (sync, files) = start_sync(&setup, &endpoints, &state, &handle)?;
    let evidence = start_evidence(&setup, &endpoints, &handle, &state)?;
    let shared = Shared { view: view.clone(), endpoints, stamps };
    let gateway = start_gateway(&setup, &ledger, shared, &handle, gate)?;
    let (calls_tx, calls) = mpsc::channel(QUEUE);
    tokio::spawn(server::serve(listener, calls_tx.clone()));
    let vital = Arc::new(Vital::new(&handle, &setup.config));
    let mut http = Http::new(Arc::clone(&vital), calls_tx);
    http_socket.map(|socket| http.serve(socket)).transpose()?;
    let me = setup.config.node();
    info!(
        "{} of cluster {}: {}, heartbeat {} ms x {}",
        me.name,
        setup.config.cluster.name,
        if me.witness { "witness" } else { "gateway" },
        setup.config.cluster.heartbeat.as_millis(),
        setup.config.cluster.misses
    );
    let app = App::new(app::Parts {
        path: path.to_owned(),
        node: node.map(str::to_owned),
        setup,
        state,
        wireguard,
        handle,
        gateway,
        gate: monitor,
        view,
        sync,
        evidence,
        files,
        calls,
        vital,
        http,
    });
    app.context("cannot start the thread that keeps the state")
}

fn boot(state: &StateDir) -> anyhow::Result<Boot> {
    let random = SystemRandom::new();
    let mut boot = Boot {
        session: [0; 16],
        obituary_secret: [0; 32],
        highest_term: state.highest_term(),
        maintenance: state.maintenance(),
    };
    random.fill(&mut boot.session).map_err(|_| anyhow!("no random numbers"))?;
    random.fill(&mut boot.obituary_secret).map_err(|_| anyhow!("no random numbers"))?;
    Ok(boot)
}

/// The first start on a machine where the interface is up already: wg-quick's, most likely. Taking
/// it down would cut off whoever uses it, maybe the operator.
async fn refuse_foreign_tunnels(setup: &Setup, ledger: &Ledger) -> anyhow::Result<()> {
    let netlink = Netlink::open()?;
    for (entry, _) in setup.tunnels() {
        let name = &entry.interface;
        if ledger.interface(name).is_none() && netlink.link(name).await?.is_some_and(|l| l.up) {
            bail!(
                "{name} is up already, and not by wgha: stop what brought it up \
                 (wg-quick down {name}), or start once with `wgha run --take-over`"
            );
        }
    }
    Ok(())
}

/// Decides `backend = "auto"` once and keeps the choice. Returns what this node runs, for its peers.
async fn choose_backends(setup: &Setup, ledger: &Ledger) -> anyhow::Result<WireguardKind> {
    let mut first = None;
    let gateway = !setup.config.node().witness;
    // Also those whose file is not there yet.
    for entry in setup.config.wireguard.iter().filter(|_| gateway) {
        let recorded = ledger.interface(&entry.interface).map(|i| i.backend);
        let kernel = match (entry.backend, recorded.as_deref()) {
            (BackendChoice::Kernel, _) | (BackendChoice::Auto, Some("kernel")) => true,
            (BackendChoice::Embedded, _) | (BackendChoice::Auto, Some("embedded")) => false,
            (BackendChoice::Auto, _) => wireguard::kernel_available().await,
        };
        let word = if kernel { "kernel" } else { "embedded" };
        ledger.update_interface(&entry.interface, |i| i.backend = word.to_owned())?;
        info!("{}: {word} WireGuard", entry.interface);
        first.get_or_insert(if kernel { WireguardKind::Kernel } else { WireguardKind::Embedded });
    }
    Ok(first.unwrap_or(WireguardKind::None))
}

/// Builds the gate, shut, before anything could act. A witness has none.
fn start_gate(setup: &Setup, ledger: &Ledger, permit: &Permit) -> anyhow::Result<Option<Gate>> {
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
    let gate = Gate::start(&name, crate::gateway::gate::plan(setup), permit.clone());
    gate.map(Some).context("cannot start the gate's thread")
}

/// Starts the protocol's thread with a runtime of its own.
fn start_protocol(
    setup: &Setup,
    wireguard: WireguardKind,
    boot: Boot,
    stamps: Stamps,
    permit: Permit,
) -> anyhow::Result<daemon::Handle> {
    let node_config = setup.node_config(wireguard);
    let (config, keys) = (setup.config.clone(), setup.keys.clone());
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
            let link = Link::open(&config);
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
            let (mut daemon, handle) = Daemon::new(node, link, stamps, permit);
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
struct GatewayParts {
    orders: mpsc::Sender<Order>,
    notices: mpsc::Receiver<Notice>,
    thread: Option<thread::JoinHandle<()>>,
}

impl GatewayParts {
    /// Has the reconciler leave and end. True if it said that nothing is left.
    async fn finish(&mut self) -> bool {
        let (done, mut wait) = oneshot::channel();
        if self.orders.send_timeout(Order::Finish(done), START).await.is_err() {
            return false;
        }
        let deadline = tokio::time::Instant::now() + FINISH;
        loop {
            tokio::select! {
                left = &mut wait => return left.is_ok(),
                // Nobody needs them any more, but without room for them it would wait for ever.
                Some(_) = self.notices.recv() => {}
                () = tokio::time::sleep_until(deadline) => return false,
            }
        }
    }
}

/// Starts the sync channel, and what keeps files the same over it. A witness has neither.
fn start_sync(
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
fn start_evidence(
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

/// Starts the reconciler with a runtime of its own, so that neither the log's disk nor an operator
/// stands between a takeover and the machine. A witness has none.
fn start_gateway(
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
