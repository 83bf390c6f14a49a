//! How the process ends: in order, or because a part of it died.

use std::process::ExitCode;

use anyhow::bail;
use tokio::time::timeout;
use tracing::{error, info, warn};
use wgha_proto::{Command, Event};

use super::{ANSWER, App};
use crate::cli;

impl App {
    /// Hands over if possible, leaves, says goodbye, runs the `stop` hooks.
    pub(super) async fn stop(mut self) -> anyhow::Result<ExitCode> {
        let why = if self.upgrading { "upgrading" } else { "stopping" };
        info!("{why}");
        if self.upgrading {
            // To systemd it is one service that goes on.
            self.watchdog.keep_fed();
        } else {
            self.watchdog.stopping();
        }
        if let Err(why) = self.command(Command::Stop).await {
            warn!("{why}");
        }
        let cluster = &self.setup.config.cluster;
        let bound = cluster.handover_timeout * 2 + self.setup.config.detection() * 2 + ANSWER;
        if timeout(bound, self.until_stopped()).await.is_err() {
            warn!("no successor answered within {} ms", bound.as_millis());
        }
        // If it could not be verified that nothing acts, the guard tries again: that is what it hears of.
        let left = self.end(why).await;
        Ok(if left { ExitCode::SUCCESS } else { ExitCode::from(cli::exit::FAILED) })
    }

    /// Takes note until the node says that it has stopped.
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
                    self.notice(notice);
                }
                Ok(()) = self.memory.changed() => self.keep(),
            }
        }
    }

    pub(super) async fn fail(self, what: &str) -> anyhow::Result<ExitCode> {
        error!("{what}: leaving");
        self.end(what).await;
        bail!("{what}")
    }

    /// Makes sure that nothing of ours acts, whatever state the parts are in. True if that was verified.
    async fn end(mut self, reason: &str) -> bool {
        self.keep();
        // From here on other things than the loop take time.
        self.line.rest();
        let (role, term) = {
            let level = self.level.borrow();
            (level.role, level.term)
        };
        let left = self.gateway.thread.is_none() || self.gateway.finish().await;
        if !left {
            error!("leaving could not be verified");
        }
        self.journal.stop(reason.to_owned(), term, role).await;
        left
    }
}
