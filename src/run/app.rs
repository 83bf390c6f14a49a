//! The main thread's loop: events, notices, operators and signals arrive in one place.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::{error, info, warn};
use wgha_proto::{Ability, Command, Event, Refused, Report, RoleLevel, WireguardKind};

use super::journal::Journal;
use super::watchdog::Watchdog;
use super::{GatewayParts, picture};
use crate::control::{Call, Reply, Request};
use crate::daemon::{self, Input, NewConfig, Picture};
use crate::gateway::view::SharedView;
use crate::gateway::{Notice, Order};
use crate::setup::Setup;
use crate::state::StateDir;
use crate::sync;

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
    pub(super) view: SharedView,
    pub(super) sync: Option<sync::Handle>,
    pub(super) calls: mpsc::Receiver<Call>,
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
    gateway: GatewayParts,
    view: SharedView,
    /// None on a witness.
    sync: Option<sync::Handle>,
    calls: mpsc::Receiver<Call>,
    journal: Journal,
    watchdog: Watchdog,
    started: Instant,
    ready: bool,
    /// Whoever asked for the handover that is under way.
    handover: Option<oneshot::Sender<Reply>>,
}

impl App {
    /// Call inside the runtime that will [`run`](App::run) it.
    ///
    /// # Errors
    ///
    /// The system has no thread for us.
    pub(super) fn new(parts: Parts) -> std::io::Result<App> {
        Ok(App {
            path: parts.path,
            node: parts.node,
            journal: Journal::open(&parts.state, &parts.setup)?,
            watchdog: Watchdog::new(Arc::clone(&parts.handle.turns)),
            ready: parts.setup.config.node().witness,
            setup: parts.setup,
            wireguard: parts.wireguard,
            inputs: parts.handle.inputs,
            level: parts.handle.level,
            events: parts.handle.events,
            gateway: parts.gateway,
            view: parts.view,
            sync: parts.sync,
            calls: parts.calls,
            started: Instant::now(),
            handover: None,
        })
    }

    /// Runs until a signal ends it, or a part of it dies.
    pub(super) async fn run(mut self) -> anyhow::Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut feed = tokio::time::interval(self.watchdog.every);
        let mut hooks_done = self.journal.hooks.done();
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
                        Some(notice) => self.notice(notice).await?,
                        None => break self.fail("the reconciler died").await,
                    }
                }
                Some(call) = self.calls.recv() => self.answer(call).await,
                Ok(()) = hooks_done.changed() => {
                    if let Some(done) = hooks_done.borrow_and_update().clone() {
                        self.journal.hooks_done(&done);
                    }
                }
                _ = hangup.recv() => match self.reload().await {
                    Ok(message) => info!("{message}"),
                    Err(e) => error!("not reloaded, the old config stays in force: {e:#}"),
                },
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
                Ok(()) => Reply::Done(format!("{to} is master now")),
                Err(why) => Reply::Refused(why.clone()),
            });
        }
        if let Event::Reassert { .. } = event
            && self.gateway.orders.try_send(Order::Reassert).is_err()
        {
            warn!("the reconciler is too busy to announce again; it does so by itself");
        }
        let master = self.level.borrow().master.clone();
        self.journal.note(&event, master);
        if let Event::Role { .. } = event {
            self.watchdog.status(&self.headline());
        }
    }

    async fn notice(&mut self, notice: Notice) -> anyhow::Result<()> {
        match notice {
            Notice::Entered(term, phases) => self.journal.entered(term, phases),
            Notice::Handshakes(term, handshakes) => self.journal.handshakes(term, handshakes),
            Notice::Report(report) => {
                match &report {
                    Report::Left(term) => self.journal.left(*term),
                    Report::Failed(term, why) => error!("term {term}: {why}"),
                    Report::Ability(Ability::Ready) => info!("able to serve"),
                    Report::Ability(Ability::NotReady(why)) => warn!("not ready to serve: {why}"),
                    Report::Ability(Ability::Unable(why)) => warn!("cannot serve: {why}"),
                    Report::Ability(Ability::Unknown) | Report::Entered(_) => {}
                }
                self.tell(Input::Report(report)).await?;
                if !self.ready {
                    self.ready = true;
                    self.watchdog.ready(&self.headline());
                }
            }
        }
        Ok(())
    }

    async fn answer(&mut self, call: Call) {
        let reply = match call.request {
            Request::Status {} => match self.look().await {
                Ok(picture) => Reply::Status(Box::new(self.status(&picture))),
                Err(e) => Reply::Refused(format!("{e:#}")),
            },
            Request::Events { follow } => {
                let (past, later) = self.journal.events.follow(EVENTS);
                Reply::Events { past, follow: follow.then_some(later) }
            }
            Request::Reload {} => match self.reload().await {
                Ok(message) => Reply::Done(message),
                Err(e) => Reply::Refused(format!("not reloaded: {e:#}")),
            },
            Request::Maintenance { on, force } => {
                let done = format!("maintenance {}", if on { "on" } else { "off" });
                match self.command(Command::Maintenance { on, force }).await {
                    Ok(()) => Reply::Done(done),
                    Err(why) => Reply::Refused(why),
                }
            }
            Request::Handover { to, force } => {
                match self.command(Command::Handover { to, force }).await {
                    // The answer comes with the event.
                    Ok(()) => return self.handover = Some(call.reply),
                    Err(why) => Reply::Refused(why),
                }
            }
        };
        // The client may have gone away.
        let _ = call.reply.send(reply);
    }

    async fn command(&self, command: Command) -> Result<(), String> {
        let (answer, wait) = oneshot::channel::<Result<(), Refused>>();
        self.tell(Input::Command(command, answer)).await.map_err(|e| format!("{e:#}"))?;
        match timeout(ANSWER, wait).await {
            Ok(Ok(result)) => result.map_err(|refused| refused.to_string()),
            Ok(Err(_)) | Err(_) => Err("the protocol does not answer".to_owned()),
        }
    }

    async fn look(&self) -> anyhow::Result<Picture> {
        let (answer, wait) = oneshot::channel();
        self.tell(Input::Look(answer)).await?;
        timeout(ANSWER, wait).await?.context("the protocol's thread died")
    }

    async fn tell(&self, input: Input) -> anyhow::Result<()> {
        let sent = self.inputs.send_timeout(input, ANSWER).await;
        sent.map_err(|_| anyhow::anyhow!("the protocol's thread takes no input"))
    }

    fn status(&self, picture: &Picture) -> crate::status::Status {
        let hooks = self.journal.hooks.results();
        let uptime = self.started.elapsed();
        let view = self.view.look();
        let sync = self.sync.as_ref().map(sync::Handle::view);
        let mut status =
            picture::status(&self.setup.config, self.wireguard, picture, &view, &hooks, uptime);
        picture::add_sync(&mut status, sync.as_ref());
        status
    }

    fn headline(&self) -> String {
        let level = self.level.borrow();
        picture::headline(level.role, level.term, level.master.as_deref())
    }

    /// Reads everything again and applies the difference. The role is not touched.
    async fn reload(&mut self) -> anyhow::Result<String> {
        let (path, node) = (self.path.clone(), self.node.clone());
        let read = move || Setup::load(&path, node.as_deref());
        let setup = tokio::task::spawn_blocking(read).await??;
        needs_restart(&self.setup, &setup)?;
        for warning in &setup.warnings {
            warn!("{warning}");
        }
        let setup = Arc::new(setup);
        let new = NewConfig {
            config: setup.config.clone(),
            node: setup.node_config(self.wireguard),
            keys: setup.keys.clone(),
        };
        if setup.config.needs_majority() {
            self.journal.longest_lease(setup.config.detection())?;
        }
        self.tell(Input::Reconfigure(Box::new(new))).await?;
        if self.gateway.thread.is_some() {
            let order = Order::Reconfigure(Arc::clone(&setup));
            self.gateway.orders.send_timeout(order, ANSWER).await.ok().context(
                "the reconciler takes no orders; the protocol has the new config already",
            )?;
        }
        if let Some(sync) = &self.sync {
            sync.reconfigure(sync::Settings::new(&setup)).await;
        }
        self.journal.reconfigure(&setup);
        self.setup = setup;
        Ok("reloaded".to_owned())
    }

    /// Hands over if possible, leaves, says goodbye, runs the `stop` hooks.
    async fn stop(mut self) -> anyhow::Result<ExitCode> {
        info!("stopping");
        self.watchdog.stopping();
        if let Err(why) = self.command(Command::Stop).await {
            warn!("{why}");
        }
        let cluster = &self.setup.config.cluster;
        let bound = cluster.handover_timeout * 2 + self.setup.config.detection() * 2 + ANSWER;
        if timeout(bound, self.until_stopped()).await.is_err() {
            warn!("no successor answered within {} ms", bound.as_millis());
        }
        self.end("stopping").await;
        Ok(ExitCode::SUCCESS)
    }

    /// Passes reports on until the node says that it has stopped.
    async fn until_stopped(&mut self) {
        loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    None => return,
                    Some(event) => {
                        let stopped = event == Event::Stopped;
                        self.note(event);
                        if stopped {
                            return;
                        }
                    }
                },
                Some(notice) = self.gateway.notices.recv() => {
                    // Nobody takes it if the protocol has just ended; its last events say so.
                    let _ = self.notice(notice).await;
                }
            }
        }
    }

    async fn fail(self, what: &str) -> anyhow::Result<ExitCode> {
        error!("{what}: leaving");
        self.end(what).await;
        bail!("{what}")
    }

    /// Makes sure that nothing of ours acts, whatever state the parts are in.
    async fn end(mut self, reason: &str) {
        let (role, term) = {
            let level = self.level.borrow();
            (level.role, level.term)
        };
        if self.gateway.thread.is_some() && !self.gateway.finish().await {
            error!("leaving could not be verified: run `wgha release`");
        }
        self.journal.stop(reason.to_owned(), term, role).await;
    }
}

/// What cannot be changed while the process runs.
fn needs_restart(old: &Setup, new: &Setup) -> anyhow::Result<()> {
    let (a, b) = (&old.config, &new.config);
    let fixed = [
        ("cluster name", a.cluster.name == b.cluster.name),
        ("name of this node", a.node().name == b.node().name),
        ("witness", a.node().witness == b.node().witness),
        ("state_dir", a.cluster.state_dir == b.cluster.state_dir),
        ("control socket", a.control_socket == b.control_socket),
    ];
    match fixed.iter().find(|(_, same)| !same) {
        Some((what, _)) => bail!("the {what} changed: that needs a restart"),
        None => Ok(()),
    }
}
