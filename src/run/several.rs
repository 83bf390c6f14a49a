//! Several clusters in one process, which is a witness of each: one keyring, state directory, control socket and thread of the
//! protocol for each, one guard for all.
//!
//! What befalls one of them does not touch the others: one that fails is begun again after a while, and one whose config is not good is
//! tried again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info_span, warn};

use super::start;
use crate::cli;
use crate::config::Config;
use crate::guard::Line;
use crate::log;
use crate::setup::Setup;
use crate::state::StateDir;

/// How long one that failed waits, doubled each time.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Runs a witness of each cluster until told to stop, or the guard at the other end of the lines dies.
///
/// # Errors
///
/// The system has no thread or descriptor for us.
pub fn run(
    paths: &[PathBuf],
    node: Option<&str>,
    lines: Vec<Arc<Line>>,
) -> anyhow::Result<ExitCode> {
    log::start();
    let configs: Vec<_> = paths.iter().map(|path| (path, Config::load(path, node))).collect();
    let good = configs.iter().filter_map(|(path, config)| Some((*path, config.as_ref().ok()?)));
    let mut wrong = conflicts(&good.collect::<Vec<_>>());
    if configs.iter().all(|(_, config)| config.is_err()) {
        wrong.extend(
            configs.iter().filter_map(|(_, config)| Some(config.as_ref().err()?.to_string())),
        );
    }
    if !wrong.is_empty() {
        error!("{}", wrong.join("\n"));
        return Ok(ExitCode::from(cli::exit::WRONG_USE));
    }
    let members: Vec<_> = paths
        .iter()
        .zip(lines)
        .map(|(path, line)| {
            Member { path: path.clone(), node: node.map(str::to_owned), line }.start()
        })
        .collect::<Result<_, _>>()?;
    let ended = members.into_iter().map(thread::JoinHandle::join);
    let well = ended.filter(|end| matches!(end, Ok(Ok(true)))).count();
    Ok(if well == paths.len() { ExitCode::SUCCESS } else { ExitCode::from(cli::exit::FAILED) })
}

/// What keeps these from being served by one process.
fn conflicts(configs: &[(&PathBuf, &Config)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (index, (path, config)) in configs.iter().enumerate() {
        let (path, me) = (path.display(), config.node());
        if !me.witness {
            wrong.push(format!(
                "{path}: {} is a gateway of {}: a process with --also serves witnesses alone",
                me.name, config.cluster.name
            ));
        }
        for (other, before) in configs.iter().take(index) {
            let both = format!("{} and {path}", other.display());
            if config.cluster.user != before.cluster.user {
                wrong.push(format!(
                    "{both}: one process has one user: the same [cluster] user in both"
                ));
            }
            if config.control_socket == before.control_socket {
                let socket = config.control_socket.display();
                wrong.push(format!(
                    "{both}: each needs a [control] socket of its own, not {socket}"
                ));
            }
            if config.cluster.state_dir == before.cluster.state_dir {
                let dir = config.cluster.state_dir.display();
                wrong.push(format!("{both}: each needs a state_dir of its own, not {dir}"));
            }
            if let (Some(mine), true) = (config.http, config.http == before.http) {
                wrong.push(format!("{both}: each needs an [http] address of its own, not {mine}"));
            }
            let taken: Vec<SocketAddr> = binds(before).collect();
            for address in binds(config).filter(|address| taken.contains(address)) {
                wrong.push(format!("{both}: each needs a port of its own, not {address}"));
            }
        }
    }
    wrong
}

fn binds(config: &Config) -> impl Iterator<Item = SocketAddr> + '_ {
    config.node().addresses.iter().map(|address| address.bind)
}

/// One of the clusters.
struct Member {
    path: PathBuf,
    node: Option<String>,
    line: Arc<Line>,
}

impl Member {
    /// Starts its thread, which ends when it is told to stop; true: nothing is left.
    fn start(self) -> anyhow::Result<thread::JoinHandle<anyhow::Result<bool>>> {
        let name = self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let body = move || {
            // Who of them speaks.
            let _span = info_span!("cluster", %name).entered();
            self.live()
        };
        let thread = thread::Builder::new().name("cluster".to_owned());
        thread.spawn(body).context("cannot start a cluster's thread")
    }

    fn live(self) -> anyhow::Result<bool> {
        let (waits, mut pause) = (runtime()?, PAUSE);
        let mut told = waits.block_on(async { Told::new() })?;
        loop {
            let began = Instant::now();
            match self.serve() {
                Ok(code) => return Ok(code == ExitCode::SUCCESS),
                Err(why) => error!("{why:#}"),
            }
            if began.elapsed() > LONGEST_PAUSE {
                pause = PAUSE;
            }
            warn!("begun again after {} s, or at a SIGHUP", pause.as_secs());
            if waits.block_on(told.stops_within(pause)) {
                return Ok(true);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Until it is told to stop, or fails. With a runtime of its own, so that nothing of it goes on afterwards.
    fn serve(&self) -> anyhow::Result<ExitCode> {
        let node = self.node.as_deref();
        let setup = Setup::load(&self.path, node)?;
        ensure!(setup.config.node().witness, "{} is no witness", setup.config.node().name);
        for warning in &setup.warnings {
            warn!("{warning}");
        }
        let state = Arc::new(StateDir::open(&setup.config.cluster.state_dir)?);
        let (runtime, line) = (runtime()?, Arc::clone(&self.line));
        let ended = runtime.block_on(async {
            start(&self.path, node, setup, state, false, line).await?.run().await
        });
        runtime.shutdown_background();
        ended
    }
}

fn runtime() -> anyhow::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")
}

/// Signals, kept from the beginning on: none is missed while a cluster ends by itself.
struct Told {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Told {
    fn new() -> std::io::Result<Told> {
        Ok(Told {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits, for a SIGHUP at most. True if it was told to stop, now or meanwhile.
    async fn stops_within(&mut self, pause: Duration) -> bool {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
            _ = self.hangup.recv() => false,
            () = tokio::time::sleep(pause) => false,
        }
    }
}

#[cfg(test)]
mod tests;
