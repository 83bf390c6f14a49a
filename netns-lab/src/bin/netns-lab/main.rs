//! `netns-lab`: the lab's demonstration and measurements.

mod cloud;
mod demo;
mod failover;
mod flood;
mod idle;
mod load;
mod overlap;
mod soak;
mod takeover;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use netns_lab::{ClusterOptions, Lab};

/// Networks of namespaces for wgha: a demonstration, measurements, and cleaning up.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Two gateways, a client, a link cut and a handover; exit 0 when the tunnel came back in both.
    Demo(demo::Options),
    /// Measurements.
    #[command(subcommand)]
    Bench(Bench),
    /// Random faults on real daemons, and a look at everything after each.
    Soak(soak::Options),
    /// Random faults between daemon, hook and a fake cloud; after each the address is at the master.
    Cloud(cloud::Options),
    /// Removes what killed labs left behind.
    Clean,
}

#[derive(Subcommand)]
enum Bench {
    /// Cuts the master's link, or kills its worker, again and again: how long until the floating IP has moved.
    Takeover(takeover::Options),
    /// How long clients are without their tunnel: link cuts, handovers, idle clients, a thousand clients, keepalived.
    Failover(failover::Options),
    /// Memory and processor time of the idle daemon beside keepalived's.
    Idle(idle::Options),
    /// Cuts the master off from all who vote, again and again: is it silent before the next one speaks?
    Overlap(overlap::Options),
    /// Keeps every core busy, or the tunnel; fails if a role changes.
    Load(load::Options),
    /// Garbage, forged headers and replays at a gateway's heartbeat socket; fails if a role changes or memory grows.
    Flood(flood::Options),
}

/// How the pair is set up.
#[derive(Args, Clone)]
struct Pair {
    /// The program `wgha`; unless given, the one beside this program.
    #[arg(long)]
    wgha: Option<PathBuf>,
    /// Between heartbeats, in milliseconds.
    #[arg(long, default_value_t = 100)]
    heartbeat_ms: u64,
    /// Heartbeats missed before a takeover.
    #[arg(long, default_value_t = 3)]
    misses: u32,
    /// auto, kernel or embedded.
    #[arg(long, default_value = "auto")]
    backend: String,
}

impl Pair {
    fn program(&self) -> Result<PathBuf> {
        let beside = || Ok::<_, std::io::Error>(std::env::current_exe()?.with_file_name("wgha"));
        let path = self.wgha.clone().map_or_else(beside, Ok)?;
        path.canonicalize()
            .with_context(|| format!("{}: build it, or name it with --wgha", path.display()))
    }

    fn cluster(&self) -> ClusterOptions {
        ClusterOptions {
            heartbeat: Duration::from_millis(self.heartbeat_ms),
            misses: self.misses,
            backend: self.backend.clone(),
            ..ClusterOptions::default()
        }
    }
}

/// Adds the last lines of each daemon's log to an error.
fn with_logs(lab: &Lab, error: anyhow::Error) -> anyhow::Error {
    error.context(logs(lab))
}

/// The last lines of each daemon's log.
fn logs(lab: &Lab) -> String {
    let mut text = String::new();
    for node in lab.members() {
        let log = std::fs::read_to_string(node.dir().join("log/wgha.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default();
        text += &format!("\nlog of {}:\n{}", node.name(), tail.join("\n"));
    }
    text
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netns-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    if !matches!(cli.command, Command::Clean) {
        netns_lab::enter_user_namespace()?;
    }
    match cli.command {
        Command::Demo(options) => demo::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Cloud(options) => cloud::run(&options),
        Command::Bench(Bench::Takeover(options)) => takeover::run(&options),
        Command::Bench(Bench::Failover(options)) => failover::run(&options),
        Command::Bench(Bench::Overlap(options)) => overlap::run(&options),
        Command::Bench(Bench::Idle(options)) => idle::run(&options),
        Command::Bench(Bench::Load(options)) => load::run(&options),
        Command::Bench(Bench::Flood(options)) => flood::run(&options),
        Command::Clean => {
            let cleaned = netns_lab::clean()?;
            println!(
                "{} processes killed, {} directories removed",
                cleaned.processes.len(),
                cleaned.dirs.len()
            );
            Ok(())
        }
    }
}
