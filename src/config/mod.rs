//! The config file: read once into types that cannot be wrong.
//!
//! [`Config`] is what the rest of the program sees. The way there: `schema` says which keys exist,
//! `section` reads them with their lines, `values` turns each into its type, `tables` puts a table
//! together, `rules` compares tables with each other, `local` finds out which node this is and
//! `source` which address WireGuard's packets leave from. All errors are collected first.
//!
//! `examine` looks at the machine afterwards: an interface may come later, so what it finds
//! does not make a config wrong.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

mod error;
mod examine;
mod fingerprint;
mod local;
mod machine;
mod places;
mod rules;
pub mod schema;
mod section;
mod source;
mod tables;
#[cfg(test)]
mod tests;
mod values;

pub use error::{ConfigError, ConfigErrors};
pub use examine::{Findings, examine};
pub use fingerprint::fingerprint;
pub use local::Found;
pub use machine::{Machine, System};
pub use places::Places;

/// The longest config file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The UDP port of heartbeats where an address names none.
pub const DEFAULT_PORT: u16 = 5112;

/// The most nodes a cluster has.
pub const MAX_NODES: usize = 16;

/// The most addresses a node has.
pub const MAX_ADDRESSES: usize = 8;

/// A whole, valid config file, as the local node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it was read from.
    pub path: PathBuf,
    /// The file's name without `.toml`: names socket and state directory (`wgha@NAME.service`).
    pub instance: String,
    /// `[cluster]`.
    pub cluster: Cluster,
    /// `[[node]]`, in the order of the file.
    pub nodes: Vec<Node>,
    /// Index of the local node in `nodes`.
    pub me: usize,
    /// `[[floating_ip]]`.
    pub floating_ips: Vec<FloatingIp>,
    /// `[[wireguard]]`.
    pub wireguard: Vec<Wireguard>,
    /// `[[hook]]`.
    pub hooks: Vec<Hook>,
    /// `[[claim]]`.
    pub claims: Vec<Claim>,
    /// `[sync] files`.
    pub sync: Vec<SyncFile>,
    /// `[control] socket`.
    pub control_socket: PathBuf,
    /// `[http] listen`; `None`: no HTTP.
    pub http: Option<SocketAddr>,
}

impl Config {
    /// Reads the file at `path` as the node `node`, or as the one that this machine is.
    ///
    /// # Errors
    /// Everything that is wrong with the file, each with its line; or that it cannot be read.
    pub fn load(path: &Path, node: Option<&str>) -> Result<Config, ConfigErrors> {
        let text = read(path).map_err(|e| {
            ConfigErrors::new(
                path,
                vec![ConfigError::new(None, "", format!("cannot be read: {e}"))],
            )
        })?;
        Config::parse(&text, path, node, &System)
    }

    /// Reads `text` as [`load`](Config::load) reads a file. `path` names it in errors and gives
    /// the defaults of state directory and socket.
    ///
    /// # Errors
    /// Everything that is wrong with the text, each with its line.
    pub fn parse(
        text: &str,
        path: &Path,
        node: Option<&str>,
        machine: &dyn Machine,
    ) -> Result<Config, ConfigErrors> {
        tables::config(text, path, node, machine).map_err(|errors| ConfigErrors::new(path, errors))
    }

    /// The local node.
    ///
    /// # Panics
    /// If `me` is no index into `nodes`, which parsing rules out.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.nodes[self.me]
    }

    /// Every other node, in the order of the file.
    pub fn peers(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().enumerate().filter(|(i, _)| *i != self.me).map(|(_, node)| node)
    }

    /// The nodes that can be master, in the order of the file.
    pub fn gateways(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| !node.witness)
    }

    /// Whether mastership needs a lease from a majority of the nodes.
    #[must_use]
    pub fn needs_majority(&self) -> bool {
        match self.cluster.quorum {
            QuorumChoice::Auto => self.nodes.len() > 2,
            QuorumChoice::Majority => true,
            QuorumChoice::None => false,
        }
    }

    /// Whether `[sync] files` names this file, itself or by its directory.
    #[must_use]
    pub fn is_synced(&self, path: &Path) -> bool {
        let names = |file: &SyncFile| {
            if file.directory { path.parent() == Some(&file.path) } else { path == file.path }
        };
        self.sync.iter().any(names)
    }

    /// `misses` × `heartbeat`: after this silence a master counts as gone.
    #[must_use]
    pub fn detection(&self) -> Duration {
        self.cluster.heartbeat * u32::from(self.cluster.misses)
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other(format!("longer than {MAX_FILE} bytes")));
    }
    Ok(text)
}

/// `[cluster]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Bound into every key.
    pub name: String,
    /// The key file.
    pub key_file: PathBuf,
    /// Time between heartbeats, 10 ms ..= 10 s.
    pub heartbeat: Duration,
    /// Missed heartbeats until a master counts as silent, 2..=255.
    pub misses: u8,
    /// `preempt` and `preempt_delay`: `None` if off.
    pub preempt: Option<Duration>,
    /// Whether a majority must agree to a master.
    pub quorum: QuorumChoice,
    /// Bound of a handover's preparation.
    pub handover_timeout: Duration,
    /// The gate in the kernel is used where there is one.
    pub gate: bool,
    /// What survives restarts.
    pub state_dir: PathBuf,
    /// Whom to ask whether this node is cut off.
    pub evidence: EvidenceChoice,
    /// The kernel removes floating IPs by itself unless they are renewed.
    pub dead_man: bool,
    /// The protocol's thread is real-time and memory is locked, where allowed.
    pub realtime: bool,
}

/// `evidence`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum EvidenceChoice {
    /// The default routers.
    #[default]
    Auto,
    /// Nobody.
    Off,
    /// These neighbours.
    Addresses(Vec<IpAddr>),
}

/// `quorum`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuorumChoice {
    /// With three nodes or more.
    Auto,
    /// Whatever the number of nodes.
    Majority,
    /// Never.
    None,
}

/// `[[node]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique name.
    pub name: String,
    /// One path for each.
    pub addresses: Vec<NodeAddress>,
    /// 1..=255.
    pub priority: u8,
    /// Only votes.
    pub witness: bool,
}

/// One address of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// Where others send to.
    pub send: SocketAddr,
    /// What the node itself binds; differs from `send` behind a 1:1 NAT.
    pub bind: SocketAddr,
}

/// `[[floating_ip]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatingIp {
    /// The address with its prefix length; /32 or /128 unless given.
    pub address: IpNet,
    /// The interface that carries it.
    pub interface: String,
}

/// `[[wireguard]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wireguard {
    /// The interface's name, at most 15 bytes.
    pub interface: String,
    /// A file in the format of wg-quick(8).
    pub config: PathBuf,
    /// Which WireGuard to use.
    pub backend: BackendChoice,
    /// The floating IPs that WireGuard's packets leave from, at most one a family; resolved (the
    /// default is applied). Empty: no source rules.
    pub source: Vec<IpAddr>,
    /// Rules that let WireGuard's packets leave from `source` alone.
    pub guard: bool,
}

/// `backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BackendChoice {
    /// The kernel's if it has one, else the embedded one; the first choice is kept.
    #[default]
    Auto,
    /// The kernel's module.
    Kernel,
    /// gotatun inside wgha.
    Embedded,
}

/// One entry of `[sync] files`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncFile {
    /// Absolute, without `.`, `..` and a slash at the end.
    pub path: PathBuf,
    /// It was written with a slash at the end: all regular files in it.
    pub directory: bool,
}

/// `[[hook]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// When to run.
    pub on: Vec<HookState>,
    /// Program and arguments; never a shell line.
    pub run: Vec<String>,
    /// After which the process group is ended.
    pub timeout: Duration,
}

/// `[[claim]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Program and arguments; never a shell line. The verb comes last.
    pub run: Vec<String>,
    /// Between two looks whether it is still held, 1 s ..= 1 day.
    pub verify_every: Duration,
    /// After which the program's process group is ended.
    pub timeout: Duration,
    /// Quick tries after a failure, 0 ..= 100; then one each `verify_every`.
    pub retries: u32,
    /// Give it up when this node is master no more.
    pub release: bool,
}

/// What a hook is told: a role, or the end of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookState {
    /// Became master.
    Master,
    /// Became backup (after `init`, `master` or `fault`).
    Backup,
    /// Cannot serve.
    Fault,
    /// The daemon ends.
    Stop,
}

impl HookState {
    /// The state in one lower-case word, as in the config file.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            HookState::Master => "master",
            HookState::Backup => "backup",
            HookState::Fault => "fault",
            HookState::Stop => "stop",
        }
    }
}
