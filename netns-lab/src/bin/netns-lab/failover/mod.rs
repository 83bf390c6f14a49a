//! How long clients are without their tunnel: wgha, and keepalived with wg-quick beside it.

mod crowd;
mod idle;
mod keepalived;
mod outage;
mod stage;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use netns_lab::{Lab, WgKind};

use outage::Fault;
use table::Table;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The program `wgha`; unless given, the one beside this program.
    #[arg(long)]
    wgha: Option<PathBuf>,
    /// The gateways' WireGuard: auto, kernel or embedded.
    #[arg(long, default_value = "auto")]
    backend: String,
    /// Between heartbeats, in milliseconds; keepalived's adverts, too.
    #[arg(long, default_value_t = 50)]
    heartbeat_ms: u64,
    /// Link cuts also with heartbeats of so many milliseconds; 0 for none.
    #[arg(long, default_value_t = 20)]
    fast_heartbeat_ms: u64,
    /// Heartbeats missed before a takeover.
    #[arg(long, default_value_t = 3)]
    misses: u32,
    /// Rounds of each figure, but for those that have their own number.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Rounds with keepalived and wg-quick, of some 25 s each.
    #[arg(long, default_value_t = 5)]
    keepalived_rounds: usize,
    /// Rounds with a crowd of clients.
    #[arg(long, default_value_t = 5)]
    peers_rounds: usize,
    /// The clients' WireGuard, kernel, go or embedded, one or several; unless given: the kernel's or wireguard-go, and embedded.
    #[arg(long, value_parser = kind)]
    client: Vec<WgKind>,
    /// Only clients behind NAT.
    #[arg(long)]
    nat: bool,
    /// Only these figures.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Figure>,
    /// Only a crowd of so many simulated clients; else 1,000 with an address each, and 500 behind one NAT.
    #[arg(long)]
    peers: Option<u16>,
    /// That crowd is behind one NAT.
    #[arg(long, requires = "peers")]
    behind_nat: bool,
    /// How long idle clients are idle. From 180 s on the one without keepalive has no session any more.
    #[arg(long, default_value_t = 3)]
    idle_seconds: u64,
    /// Writes all figures of all rounds to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// The master's link is cut; clients are active.
    Cut,
    /// `wgha handover`; clients are active.
    Handover,
    /// The master's link is cut; clients are idle.
    Idle,
    /// The master's link is cut; there are a thousand clients.
    Peers,
    /// The link cut of keepalived and wg-quick.
    Keepalived,
}

fn kind(name: &str) -> Result<WgKind> {
    if name == "go" { Ok(WgKind::WireguardGo) } else { name.parse() }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut table = Table::begin(options);
    let done = figures(options, &mut table);
    // What was measured before something went wrong is shown, too.
    table.end();
    if let Some(path) = &options.json {
        std::fs::write(path, table.json()?).with_context(|| path.display().to_string())?;
    }
    done
}

fn figures(options: &Options, table: &mut Table) -> Result<()> {
    if options.wants(Figure::Cut) || options.wants(Figure::Handover) {
        let heartbeat = options.heartbeat();
        let mut faults = Vec::new();
        if options.wants(Figure::Cut) {
            faults.push(Fault::Cut);
        }
        if options.wants(Figure::Handover) {
            faults.push(Fault::Handover);
        }
        outage::run(options, heartbeat, &faults, table)?;
    }
    if options.wants(Figure::Cut) && options.fast_heartbeat_ms > 0 {
        let heartbeat = Duration::from_millis(options.fast_heartbeat_ms);
        outage::run(options, heartbeat, &[Fault::Cut], table)?;
    }
    if options.wants(Figure::Keepalived) && options.keepalived_rounds > 0 {
        keepalived::run(options, table)?;
    }
    if options.wants(Figure::Idle) {
        idle::run(options, table)?;
    }
    match (options.peers, options.wants(Figure::Peers)) {
        (Some(peers), _) => crowd::run(options, peers, options.behind_nat, table),
        (None, true) => {
            crowd::run(options, 1_000, false, table)?;
            crowd::run(options, 500, true, table)
        }
        (None, false) => Ok(()),
    }
}

impl Options {
    fn wants(&self, figure: Figure) -> bool {
        match self.only.as_slice() {
            [] => self.peers.is_none(),
            only => only.contains(&figure),
        }
    }

    fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    fn pair(&self, heartbeat: Duration) -> super::Pair {
        super::Pair {
            wgha: self.wgha.clone(),
            heartbeat_ms: u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX),
            misses: self.misses,
            backend: self.backend.clone(),
        }
    }

    /// The clients' implementations.
    fn kinds(&self, lab: &Lab) -> Result<Vec<WgKind>> {
        if !self.client.is_empty() {
            return Ok(self.client.clone());
        }
        let mut kinds = vec![WgKind::choose(lab.client_node(1))?];
        if kinds != [WgKind::Embedded] {
            kinds.push(WgKind::Embedded);
        }
        Ok(kinds)
    }
}
