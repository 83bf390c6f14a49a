//! What operators ask for, and what they get.

use std::sync::Arc;

use anyhow::{Context, bail};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{info, warn};
use wgha_proto::{Command, Refused};

use super::{ANSWER, App, EVENTS, own_checks};
use crate::arbiter;
use crate::control::{Call, Reply, Request};
use crate::daemon::{Input, NewConfig, Picture};
use crate::evidence;
use crate::gateway::Order;
use crate::run::picture;
use crate::setup::Setup;
use crate::sync;

impl App {
    pub(super) async fn answer(&mut self, call: Call) {
        let reply = match call.request {
            Request::Status {} => match self.look().await {
                Ok(picture) => Reply::Status(Box::new(self.status(&picture))),
                Err(e) => Reply::Refused(format!("{e:#}")),
            },
            Request::Events { follow } => {
                let (past, later) = self.journal.events.follow(EVENTS);
                Reply::Events { past, follow: follow.then_some(later) }
            }
            Request::Reload { force_voters } => match self.reload().await {
                Ok(_) if force_voters => match self.force_voters().await {
                    Ok(message) => Reply::Done(message),
                    Err(e) => Reply::Refused(format!("reloaded, but no voters are forced: {e:#}")),
                },
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
            Request::Upgrade { look, force } => match self.upgrade(look, force).await {
                Ok(message) => Reply::Done(message),
                Err(why) => Reply::Refused(why),
            },
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

    pub(super) async fn command(&self, command: Command) -> Result<(), String> {
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

    pub(super) async fn tell(&self, input: Input) -> anyhow::Result<()> {
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
        picture::add_files(&mut status, self.files.as_ref().map(sync::files::Handle::view));
        let evidence = self.evidence.as_ref().map(evidence::Handle::look);
        picture::add_evidence(&mut status, evidence.as_ref(), picture.now);
        let arbiter = self.arbiter.as_ref().map(arbiter::Handle::look);
        picture::add_arbiter(&mut status, arbiter.as_ref(), &picture.node);
        status.changes = self.journal.changes();
        status.claims = self.journal.claims.status();
        status.checks = self.checks.status();
        picture::add_gate(&mut status, self.gate.as_ref(), picture.now);
        status
    }

    pub(super) fn headline(&self) -> String {
        let level = self.level.borrow();
        picture::headline(level.role, level.term, level.master.as_deref())
    }

    /// Reads everything again and applies the difference. The role is not touched.
    pub(super) async fn reload(&mut self) -> anyhow::Result<String> {
        let (path, node) = (self.path.clone(), self.node.clone());
        let read = move || Setup::load(&path, node.as_deref());
        let setup = tokio::task::spawn_blocking(read).await??;
        needs_restart(&self.setup, &setup)?;
        if let Some(missing) = setup.missing().filter(|_| self.setup.missing().is_none()) {
            // The device goes on with what it has.
            bail!("{missing}");
        }
        self.http.follow(setup.config.http)?;
        let probe = setup.config.probe.filter(|_| !setup.config.node().witness);
        if let Err(e) = self.probe.follow(probe) {
            // All or nothing.
            self.http.follow(self.setup.config.http)?;
            return Err(e.into());
        }
        self.apply(Arc::new(setup)).await?;
        if let Some(sync) = &self.sync {
            sync.reconfigure(sync::Settings::new(&self.setup)).await;
        }
        if let Some(evidence) = &self.evidence {
            evidence.reconfigure(evidence::Settings::new(&self.setup.config));
        }
        if let Some(arbiter) = &self.arbiter {
            arbiter.reconfigure(arbiter::Settings::new(&self.setup.config));
        }
        if let Some(files) = &self.files {
            files.reconfigure(sync::files::Settings::new(&self.setup)).await;
        }
        self.journal.reconfigure(&self.setup.config);
        self.checks.reconfigure(own_checks(&self.setup.config));
        let lease = self.look().await?.node.lease;
        Ok(match lease.filter(|lease| lease.blocked) {
            Some(lease) => format!(
                "reloaded, but the voters stay {}: a majority of the new ones may have nobody in common with a majority \
                 of those. Change one node at a time{}; --force-voters if one is lost for good",
                lease.voters.iter().map(|name| picture::voter(name)).collect::<Vec<_>>().join(", "),
                if lease.arbiter.is_some() {
                    ", and none while an etcd votes: first take it out"
                } else {
                    ""
                },
            ),
            None => "reloaded".to_owned(),
        })
    }

    /// Has the config's nodes vote from now on, without waiting for those that voted until now.
    async fn force_voters(&mut self) -> anyhow::Result<String> {
        let config = &self.setup.config;
        if !config.needs_majority() {
            bail!("with this config no majority is needed");
        }
        let voters = config.nodes.iter().map(|node| node.name.as_str());
        let voters = voters.chain(config.arbiter.is_some().then_some("@etcd"));
        let voters = voters.collect::<Vec<_>>().join(", ");
        self.tell(Input::ForceVoters).await?;
        warn!("forced by the operator: the voters are now {voters}");
        Ok(format!("reloaded; the voters are now {voters}"))
    }

    /// Files of `[sync]` changed: those of WireGuard are applied, and nothing else.
    pub(super) async fn take_files(&mut self) -> anyhow::Result<()> {
        let setup = Arc::clone(&self.setup);
        let read = move || setup.with_files_of_now();
        if let Some(setup) = tokio::task::spawn_blocking(read).await?? {
            self.apply(Arc::new(setup)).await?;
            info!("the changed WireGuard files are applied");
        }
        Ok(())
    }

    /// Has everyone take up other settings.
    async fn apply(&mut self, setup: Arc<Setup>) -> anyhow::Result<()> {
        for warning in &setup.warnings {
            warn!("{warning}");
        }
        let new = NewConfig {
            config: setup.config.clone(),
            node: setup.node_config(self.wireguard),
            keys: setup.keys.clone(),
            puts_up: setup.puts_up(),
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
        self.setup = setup;
        Ok(())
    }
}

/// What cannot be changed while the process runs.
fn needs_restart(old: &Setup, new: &Setup) -> anyhow::Result<()> {
    let (a, b) = (&old.config, &new.config);
    let fixed = [
        ("cluster name", a.cluster.name == b.cluster.name),
        ("name of this node", a.node().name == b.node().name),
        ("witness", a.node().witness == b.node().witness),
        ("realtime", a.cluster.realtime == b.cluster.realtime),
        ("user", a.cluster.user == b.cluster.user),
        ("gate", a.cluster.gate == b.cluster.gate),
        ("state_dir", a.cluster.state_dir == b.cluster.state_dir),
        ("control socket", a.control_socket == b.control_socket),
    ];
    match fixed.iter().find(|(_, same)| !same) {
        Some((what, _)) => bail!("the {what} changed: that needs a restart"),
        None => Ok(()),
    }
}
