//! `wgha run`: puts the daemon together.
//!
//! Its threads: the protocol's, which never blocks (`daemon.rs`); the gate's (`net/gate/`); the
//! reconciler's, which changes the machine (`gateway/`); that of the sync channel (`sync/`), and that
//! of files (`sync/files/`); that which asks the router (`evidence/`); that which answers monitors
//! (`http/`), and that which accepts their connections (`probe.rs`); that which watches the guard process (`guard/`); that which
//! hears of copies of the machine (`copies.rs`); and this one: operators, hooks, claims, checks, events.
//! They share bounded channels and watched levels.

use std::convert::Infallible;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use tokio::sync::mpsc;
use tracing::{error, info, warn};
use wgha_proto::{Boot, LONGEST_LEASE, VoteRecord, WireguardKind};

use crate::cli;
use crate::clock::Stamps;
use crate::config::{BackendChoice, Config};
use crate::control::server;
use crate::copies;
use crate::daemon::draw;
use crate::gateway::ledger::Ledger;
use crate::gateway::machine::Shared;
use crate::gateway::view::SharedView;
use crate::guard::Line;
use crate::http::{self, Http, Vital};
use crate::log;
use crate::net::Netlink;
use crate::net::gate::{Gate, Permit};
use crate::probe::Probe;
use crate::setup::Setup;
use crate::state::StateDir;
use crate::sync;
use crate::user;
use crate::wireguard;

mod app;
mod journal;
mod picture;
pub mod several;
mod threads;
mod watchdog;

use app::App;
pub(crate) use journal::hook_context;
pub(crate) use threads::longest_end;
use threads::{
    start_arbiter, start_evidence, start_gate, start_gateway, start_protocol, start_sync,
};

/// Orders to the reconciler, notices from it, and requests of operators that may wait.
const QUEUE: usize = 64;

/// Runs the daemon until it is told to stop, or the guard at the other end of `line` dies.
///
/// # Errors
///
/// Whatever keeps it from starting: config, keys, state directory, sockets.
pub fn run(
    path: &Path,
    node: Option<&str>,
    take_over: bool,
    line: Arc<Line>,
) -> anyhow::Result<ExitCode> {
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
    if !user::is_as_configured(&setup.config) {
        error!("[cluster] user changed while this process started");
        return Ok(ExitCode::from(cli::exit::FAILED));
    }
    serve(path, node, setup, take_over, line).or_else(|why| {
        error!("{why:#}");
        Ok(ExitCode::from(cli::exit::FAILED))
    })
}

fn serve(
    path: &Path,
    node: Option<&str>,
    setup: Setup,
    take_over: bool,
    line: Arc<Line>,
) -> anyhow::Result<ExitCode> {
    let state = Arc::new(StateDir::open(&setup.config.cluster.state_dir)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let app = start(path, node, setup, state, take_over, line).await?;
        app.run().await
    })
}

async fn start(
    path: &Path,
    node: Option<&str>,
    setup: Setup,
    state: Arc<StateDir>,
    take_over: bool,
    line: Arc<Line>,
) -> anyhow::Result<App> {
    let Ok(ledger) = Ledger::open(Arc::clone(&state), || Ok::<_, Infallible>(setup.puts_up()));
    let listener = server::bind(&setup.config.control_socket)?;
    let http_socket = setup.config.http.map(http::bind).transpose()?;
    if !setup.config.node().witness && !take_over {
        refuse_foreign_tunnels(&setup, &ledger).await?;
    }
    let wireguard = choose_backends(&setup, &ledger).await?;
    let boot = boot(&state, &setup)?;
    let permit = Permit::new().context("cannot make an event")?;
    let gate = start_gate(&setup, &ledger, &permit)?;
    let monitor = gate.as_ref().map(Gate::monitor);
    let stamps = Stamps::default();
    let handle =
        start_protocol(&setup, wireguard, boot, stamps.clone(), permit.clone(), Arc::clone(&line))?;
    copies::watch(&handle.inputs);
    let view = SharedView::default();
    let setup = Arc::new(setup);
    let endpoints = sync::Endpoints::default();
    let (sync, files) = start_sync(&setup, &endpoints, &state, &handle)?;
    let evidence = start_evidence(&setup, &endpoints, &handle, &state)?;
    let arbiter = start_arbiter(&setup, &handle)?;
    let turns = Arc::clone(&handle.turns);
    let shared = Shared { view: view.clone(), endpoints: endpoints.clone(), stamps, turns };
    let gateway = start_gateway(&setup, &ledger, shared, &handle, gate)?;
    let (calls_tx, calls) = mpsc::channel(QUEUE);
    tokio::spawn(server::serve(listener, calls_tx.clone()));
    let vital = Vital::new(&handle, permit);
    let mut probe = Probe::new(vital.clone());
    // A witness is never master.
    probe.follow(setup.config.probe.filter(|_| !setup.config.node().witness))?;
    let mut http = Http::new(Arc::new(vital), calls_tx);
    http_socket.map(|socket| http.serve(socket)).transpose()?;
    introduce(&setup.config);
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
        arbiter,
        files,
        calls,
        line,
        http,
        probe,
        endpoints,
    });
    app.context("cannot start the thread that keeps the state, or watch the guard")
}

fn introduce(config: &Config) {
    let (me, cluster) = (config.node(), &config.cluster);
    info!(
        "{} of cluster {}: {}, heartbeat {} ms x {}",
        me.name,
        cluster.name,
        if me.witness { "witness" } else { "gateway" },
        cluster.heartbeat.as_millis(),
        cluster.misses
    );
}

fn boot(state: &StateDir, setup: &Setup) -> anyhow::Result<Boot> {
    let votes = state.votes();
    if setup.config.needs_majority() {
        // On disk before anything can be granted: a restart must know how long to abstain.
        let mut kept = votes.clone().unwrap_or(VoteRecord::without_grant(LONGEST_LEASE));
        kept.longest = kept.longest.max(setup.config.detection());
        state.set_votes(&kept)?;
        if votes.is_none() {
            info!("no memory of votes: this node does not vote for {} s", LONGEST_LEASE.as_secs());
        }
    }
    Ok(Boot {
        session: *draw().context("no random numbers")?,
        obituary_secret: *draw().context("no random numbers")?,
        highest_term: state.highest_term(),
        maintenance: state.maintenance(),
        votes,
    })
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
