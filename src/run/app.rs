//! The main thread's loop: events, notices, operators and signals arrive in one place.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};
use wgha_proto::{Ability, Alarm, Event, Report, RoleLevel, WireguardKind};

use super::journal::Journal;
use super::threads::GatewayParts;
use super::watchdog::Watchdog;
use crate::alarm;
use crate::arbiter;
use crate::checks::{self, Checks};
use crate::config::{Check, Config};
use crate::control::{Call, Reply};
use crate::daemon::{self, Input, Memory};
use crate::evidence;
use crate::gateway::view::SharedView;
use crate::gateway::{Notice, Order};
use crate::guard::Line;
use crate::http::Http;
use crate::net::gate;
use crate::probe::Probe;
use crate::setup::Setup;
use crate::state::StateDir;
use crate::sync;

mod end;
mod operator;
mod upgrade;

/// The protocol's loop and the reconciler answer in microseconds, or something is wrong.
const ANSWER: Duration = Duration::from_secs(2);

/// How many events `wgha events` shows.
const EVENTS: usize = 200;

/// What the main thread is made of.
pub(super) struct Parts {
    pub(super) path: PathBuf,
    pub(super) node: Option<String>,
    pub(super) setup: Arc<Setup>,
    pub(super) state: Arc<StateDir>,
    pub(super) wireguard: WireguardKind,
    pub(super) handle: daemon::Handle,
    pub(super) gateway: GatewayParts,
    pub(super) gate: Option<gate::Monitor>,
    pub(super) view: SharedView,
    pub(super) sync: Option<sync::Handle>,
    pub(super) evidence: Option<evidence::Handle>,
    pub(super) arbiter: Option<arbiter::Handle>,
    pub(super) files: Option<sync::files::Handle>,
    pub(super) calls: mpsc::Receiver<Call>,
    pub(super) line: Arc<Line>,
    pub(super) http: Http,
    pub(super) probe: Probe,
    pub(super) endpoints: sync::Endpoints,
}

/// The main thread.
pub(super) struct App {
    path: PathBuf,
    node: Option<String>,
    setup: Arc<Setup>,
    wireguard: WireguardKind,
    inputs: mpsc::Sender<Input>,
    level: watch::Receiver<RoleLevel>,
    events: mpsc::Receiver<Event>,
    memory: watch::Receiver<Memory>,
    gateway: GatewayParts,
    /// None on a witness.
    gate: Option<gate::Monitor>,
    view: SharedView,
    /// None on a witness.
    sync: Option<sync::Handle>,
    /// None on a witness.
    evidence: Option<evidence::Handle>,
    /// None on a witness.
    arbiter: Option<arbiter::Handle>,
    /// None on a witness.
    files: Option<sync::files::Handle>,
    calls: mpsc::Receiver<Call>,
    line: Arc<Line>,
    guard_died: oneshot::Receiver<()>,
    /// Why the guard does not know what to do after this process.
    unheard: watch::Receiver<Option<String>>,
    http: Http,
    probe: Probe,
    /// Those of a witness are none.
    checks: Checks,
    journal: Journal,
    watchdog: Watchdog,
    started: Instant,
    ready: bool,
    /// The guard starts another program when this process has ended.
    upgrading: bool,
    /// Whoever asked for the handover that is under way.
    handover: Option<oneshot::Sender<Reply>>,
    /// The alarms that stand, by gateway.
    alarms: Vec<(String, Alarm)>,
}

impl App {
    /// Call inside the runtime that will [`run`](App::run) it.
    ///
    /// # Errors
    ///
    /// The system has no thread or descriptor for us.
    pub(super) fn new(parts: Parts) -> std::io::Result<App> {
        let checks = start_checks(&parts.setup.config, parts.endpoints, &parts.handle.inputs);
        Ok(App {
            path: parts.path,
            node: parts.node,
            journal: Journal::open(&parts.state, &parts.setup)?,
            watchdog: Watchdog::new(Arc::clone(&parts.line)),
            guard_died: parts.line.guard_died()?,
            line: parts.line,
            ready: parts.setup.config.node().witness,
            setup: parts.setup,
            wireguard: parts.wireguard,
            inputs: parts.handle.inputs,
            level: parts.handle.level,
            events: parts.handle.events,
            memory: parts.handle.memory,
            unheard: parts.handle.unheard,
            gateway: parts.gateway,
            gate: parts.gate,
            view: parts.view,
            sync: parts.sync,
            evidence: parts.evidence,
            arbiter: parts.arbiter,
            files: parts.files,
            calls: parts.calls,
            http: parts.http,
            probe: parts.probe,
            checks,
            started: Instant::now(),
            handover: None,
            upgrading: false,
            alarms: Vec::new(),
        })
    }

    /// Runs until a signal ends it, or a part of it dies.
    pub(super) async fn run(mut self) -> anyhow::Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut feed = tokio::time::interval(self.watchdog.every);
        if let Some(gate) = &self.gate {
            tokio::spawn(gate.clone().log());
        }
        let mut hooks_done = self.journal.hooks.done();
        let mut claims = self.journal.claims.changed();
        let mut files = self.files.as_ref().map(sync::files::Handle::changed);
        if self.ready {
            self.watchdog.ready(&self.headline());
        }
        loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.note(event),
                    None => break self.fail("the protocol's thread died").await,
                },
                notice = self.gateway.notices.recv(), if self.gateway.thread.is_some() => {
                    match notice {
                        Some(notice) => self.notice(notice),
                        None => break self.fail("the reconciler died").await,
                    }
                }
                Ok(()) = self.memory.changed() => self.keep(),
                Ok(()) = self.level.changed() => self.watchdog.status(&self.headline()),
                Some(call) = self.calls.recv() => {
                    self.answer(call).await;
                    if self.upgrading {
                        break self.stop().await;
                    }
                }
                Ok(()) = hooks_done.changed() => {
                    if let Some(done) = hooks_done.borrow_and_update().clone() {
                        self.journal.hooks_done(&done);
                    }
                }
                Ok(()) = claims.changed() => self.claims_changed(),
                () = changed(&mut files) => {
                    if let Err(e) = self.take_files().await {
                        error!("a changed file is not applied: {e:#}");
                    }
                }
                _ = hangup.recv() => match self.reload().await {
                    Ok(message) => info!("{message}"),
                    Err(e) => error!("not reloaded, the old config stays in force: {e:#}"),
                },
                Ok(()) = self.unheard.changed() => match &*self.unheard.borrow_and_update() {
                    Some(why) => error!("the guard does not know what to do after this process, which is tried again: {why}"),
                    None => info!("the guard knows what to do after this process"),
                },
                _ = &mut self.guard_died => {
                    error!("the guard is dead: this process stops, since nobody would clean up after it");
                    break self.stop().await;
                }
                _ = terminate.recv() => break self.stop().await,
                _ = interrupt.recv() => break self.stop().await,
                _ = feed.tick() => self.watchdog.feed(),
            }
        }
    }

    fn note(&mut self, event: Event) {
        if let Event::Handover { to, result } = &event
            && let Some(waiting) = self.handover.take()
        {
            // The operator may have given up.
            let _ = waiting.send(match result {
                Ok(()) => Reply::Done(self.done(to)),
                Err(why) => Reply::Refused(why.clone()),
            });
        }
        if let Event::Alarm { name, alarm, on } = &event {
            let same = std::mem::discriminant(alarm);
            self.alarms.retain(|(n, a)| n != name || std::mem::discriminant(a) != same);
            self.alarms.extend(on.then(|| (name.clone(), *alarm)));
        }
        if let Event::Reassert { .. } = event
            && self.gateway.orders.try_send(Order::Reassert).is_err()
        {
            warn!("the reconciler is too busy to announce again; it does so by itself");
        }
        let master = self.level.borrow().master.clone();
        self.journal.note(&event, master);
    }

    /// Has what must survive a restart written to disk.
    fn keep(&mut self) {
        self.journal.keep(&self.memory.borrow_and_update());
    }

    /// What was sent to clients before a claim was there is lost.
    fn claims_changed(&mut self) {
        let Some(term) = self.journal.claims_changed() else { return };
        if self.gateway.orders.try_send(Order::Kick(term)).is_err() {
            warn!("the reconciler is too busy to begin handshakes again; clients do it in 15 s");
        }
    }

    /// The answer to a handover, with what stands between the clients and the new master.
    fn done(&self, to: &str) -> String {
        let alarms = self.alarms.iter().filter(|(name, _)| name == to);
        let warnings =
            alarms.map(|(name, alarm)| format!("\nwarning: {}", alarm::text(name, *alarm)));
        format!("{to} is master now{}", warnings.collect::<String>())
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Entered(term, phases) => self.journal.entered(term, phases),
            Notice::Handshakes(term, handshakes) => self.journal.handshakes(term, handshakes),
            Notice::Restarted(term, why) => self.journal.restarted(term, why),
            Notice::Report(report) => {
                match &report {
                    Report::Left(term) => self.journal.left(*term),
                    Report::Failed(term, why) => error!("term {term}: {why}"),
                    Report::Ability(Ability::Ready) => info!("able to serve"),
                    Report::Ability(Ability::NotReady(why)) => warn!("not ready to serve: {why}"),
                    Report::Ability(Ability::Unable(why)) => warn!("cannot serve: {why}"),
                    Report::Examined(_, Ok(())) => info!("asked to take the role: all is there"),
                    Report::Examined(_, Err(doubt)) => warn!("asked to take the role: {doubt:?}"),
                    Report::Ability(Ability::Unknown) | Report::Entered(_) | Report::Flushed(_) => {
                    }
                }
                if !self.ready {
                    self.ready = true;
                    self.watchdog.ready(&self.headline());
                }
            }
        }
    }
}

/// Starts the health checks, and tells the protocol what they find.
fn start_checks(
    config: &Config,
    endpoints: sync::Endpoints,
    inputs: &mpsc::Sender<Input>,
) -> Checks {
    let (cluster, node) = (config.cluster.name.clone(), config.node().name.clone());
    let context = checks::Context { cluster, node, endpoints };
    let checks = Checks::spawn(context, own_checks(config));
    tokio::spawn(checks::tell(checks.health(), inputs.downgrade()));
    checks
}

/// The checks that this node runs: a witness serves nobody.
fn own_checks(config: &Config) -> Vec<Check> {
    if config.node().witness { Vec::new() } else { config.checks.clone() }
}

/// Waits until synced files have changed; for ever if there are none.
async fn changed(files: &mut Option<watch::Receiver<u64>>) {
    let alive = match files {
        Some(changes) => changes.changed().await.is_ok(),
        None => false,
    };
    if !alive {
        std::future::pending().await
    }
}
