//! An upgrade: another program takes this one's place, under the same process id of the guard.

use std::future::pending;
use std::time::Duration;

use tracing::info;
use wgha_proto::Role;

use super::App;
use crate::process::{self, Job, Outcome};

/// How long the new program may take to look at the config.
const LOOK: Duration = Duration::from_secs(15);

/// systemd hears of this process while it waits, so often.
const FEED: Duration = Duration::from_secs(2);

impl App {
    /// Looks whether the program that is now at this one's path accepts the config, and unless that is all, tells the
    /// guard to start it when this process has ended, which is to follow.
    pub(super) async fn upgrade(&mut self, look: bool, force: bool) -> Result<String, String> {
        if self.line.clusters() > 1 {
            return Err("this process serves several clusters: restart it".to_owned());
        }
        let said = self.look_at_program().await?;
        if look {
            return Ok(said);
        }
        if self.level.borrow().role == Role::Master && !force {
            return Err("this node is master: hand over first, or --force".to_owned());
        }
        self.line.again().map_err(|e| format!("the guard cannot be told: {e}"))?;
        info!("upgrade: {said}");
        self.upgrading = true;
        Ok("the daemon is being replaced".to_owned())
    }

    /// Its version, and that it accepts the config; or why not.
    async fn look_at_program(&mut self) -> Result<String, String> {
        let program = self.line.program().and_then(|path| path.to_str());
        let program = program.ok_or("the path of the running program is not known")?.to_owned();
        let config = self.path.to_str().ok_or("the config's path is no text")?.to_owned();
        let version = self.ask(Job::new(&program, &["--version".to_owned()], LOOK)).await?;
        let mut check =
            Job::new(&program, &["check".to_owned(), "--config".to_owned(), config], LOOK);
        if let Some(node) = &self.node {
            check = check.arg("--node").arg(node);
        }
        self.ask(check).await.map_err(|why| {
            format!(
                "{version} ({program}) does not accept the config, and nothing was changed:\n{why}"
            )
        })?;
        Ok(format!("{version} ({program}) accepts the config"))
    }

    /// What a program prints; or why it failed. systemd's watchdog is fed meanwhile.
    async fn ask(&mut self, job: Job) -> Result<String, String> {
        let mut lines = Vec::new();
        let mut run = Box::pin(process::run(&job, pending(), |line| lines.push(line.to_owned())));
        let finished = loop {
            tokio::select! {
                finished = &mut run => break finished,
                () = tokio::time::sleep(FEED) => self.watchdog.feed(),
            }
        };
        drop(run);
        let said = lines.join("\n");
        match finished.outcome {
            Outcome::Exit(0) => Ok(said),
            outcome => Err(format!("{said}\n{outcome}").trim_start().to_owned()),
        }
    }
}
