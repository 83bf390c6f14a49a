//! `wgha claim`: an operator runs the claims of the config by hand.

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;

use super::schedule::Answer;
use super::worker::job;
use super::{Marker, Mastership, Verb};
use crate::config::{Config, Places};
use crate::control::Request;
use crate::control::client::Client;
use crate::process;
use crate::run::hook_context;
use crate::status::Status;

/// What an operator asked for.
#[derive(Clone, Copy, Debug)]
pub struct ByHand {
    /// `assert` or `verify`.
    pub verb: Verb,
    /// Programs are told by `WGHA_DRY_RUN=1` to change nothing, where their API can do that.
    pub dry_run: bool,
    /// Assert although this node is not master.
    pub force: bool,
}

/// Runs all claims of the config at `path` one after the other and prints what they say. Exit code 0 if each is held
/// (or, with `assert`, was got).
///
/// # Errors
///
/// The config is wrong or has no claims; or this node would assert without being master.
pub fn by_hand(path: &Path, node: Option<&str>, ask: ByHand) -> anyhow::Result<ExitCode> {
    let config = Config::load(path, node)?;
    if config.claims.is_empty() {
        bail!("{}: there is no [[claim]]", path.display());
    }
    let socket = Places::of(path).control_socket;
    let status = status(&socket);
    let is_master = status.as_ref().is_some_and(|s| s.role == "master");
    if ask.verb == Verb::Assert && !is_master && !ask.force && !ask.dry_run {
        bail!(
            "this node is not master{}: asserting here takes the claims from whoever is; --force does it",
            if status.is_none() { ", as no daemon answers" } else { "" }
        );
    }
    let mastership =
        Mastership { term: status.map_or(0, |s| s.term), reason: "by hand".to_owned() };
    let context = hook_context(&config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut all = true;
    for claim in &config.claims {
        let mut job = job(claim, ask.verb, &context, &mastership);
        if ask.dry_run {
            job = job.env("WGHA_DRY_RUN", "1");
        }
        // One claim comes after the other, so that another node may be master meanwhile.
        if is_master && !ask.force {
            job = job.env("WGHA_TERM_FILE", &Marker::beside(&socket).path().to_string_lossy());
        }
        let name = claim.run.join(" ");
        let finished = runtime.block_on(process::run(&job, std::future::pending(), |line| {
            println!("{name}: {line}");
        }));
        let answer = Answer::of(&finished.outcome);
        let words = match answer {
            Answer::Mine => "held",
            Answer::NotMine => "not held",
            Answer::Unknown => "unknown",
            Answer::Again => "failed, trying again may help",
            Answer::GiveUp => "failed, trying again is useless",
        };
        println!("{name}: {words} ({}, {} ms)", finished.outcome, finished.duration.as_millis());
        all &= answer == Answer::Mine;
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn status(socket: &Path) -> Option<Status> {
    let mut client = Client::connect(socket).ok()?;
    client.ask(&Request::Status {}).ok()?.status.map(|status| *status)
}
