//! The command line.
//!
//! `args` says what can be typed; one file for each group of commands does it.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::claims;
use crate::config::Places;
use crate::{log, user};

mod args;
mod check;
pub mod client;
mod keygen;
mod sign;
#[cfg(test)]
mod tests;
mod upgrade;

pub use args::{
    ClaimArgs, ClaimVerb, Cli, Command, EventsArgs, Global, HandoverArgs, KeygenArgs,
    MaintenanceArgs, ReloadArgs, RunArgs, SignArgs, SignRequest, SignScheme, StatusArgs, Switch,
    UpgradeArgs,
};

/// What the exit code of a command means.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// Failed, or refused.
    pub const FAILED: u8 = 1;
    /// The command line is wrong; of `run` also the config, or a file that it names.
    pub const WRONG_USE: u8 = 2;
    /// No daemon answers.
    pub const NO_DAEMON: u8 = 3;
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no mistake. If nobody reads the text, nobody misses it.
            let _ = error.print();
            let code = if error.use_stderr() { exit::WRONG_USE } else { exit::DONE };
            return ExitCode::from(code);
        }
    };
    run(&cli).unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "wgha: {error:#}");
        ExitCode::from(exit::FAILED)
    })
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let Global { config, node } = &cli.global;
    let socket = || Places::of(config).control_socket;
    match &cli.command {
        // Forks, so before anything else that could start a thread.
        Command::Run(args) => {
            if let Err(e) = user::as_configured(config, node.as_deref()) {
                // Starting again would not help.
                log::start();
                tracing::error!("{e:#}");
                return Ok(ExitCode::from(exit::WRONG_USE));
            }
            if args.also.is_empty() {
                return crate::guard::run(1, |mut lines| {
                    crate::run::run(config, node.as_deref(), args.take_over, lines.remove(0))
                });
            }
            let paths = [std::slice::from_ref(config), &args.also].concat();
            crate::guard::run(paths.len(), |lines| {
                crate::run::several::run(&paths, node.as_deref(), lines)
            })
        }
        Command::Check => check::run(&cli.global),
        Command::Status(args) => client::status(&socket(), args.json, args.watch),
        Command::Handover(args) => client::handover(&socket(), args.to.as_deref(), args.force),
        Command::Maintenance(args) => {
            client::maintenance(&socket(), args.switch == Switch::On, args.force)
        }
        Command::Events(args) => client::events(&socket(), args.json, args.follow),
        Command::Reload(args) => client::reload(&socket(), args.force_voters),
        Command::Upgrade(args) => upgrade::run(&socket(), args.force),
        Command::Keygen(args) => keygen::run(args),
        Command::Claim(args) => {
            let verb = match args.verb {
                ClaimVerb::Assert => claims::Verb::Assert,
                ClaimVerb::Verify => claims::Verb::Verify,
            };
            let ask = claims::ByHand { verb, dry_run: args.dry_run, force: args.force };
            user::as_configured(config, node.as_deref())?;
            claims::by_hand(config, node.as_deref(), ask)
        }
        Command::Sign(args) => sign::run(args),
        Command::Release => crate::release::run(config, node.as_deref()),
    }
}

/// Writes to standard output. A reader that went away (`wgha check | head`) is no error.
fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
