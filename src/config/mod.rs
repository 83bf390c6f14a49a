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
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bounded;

mod error;
mod examine;
mod fingerprint;
mod gateway;
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
pub use gateway::{
    BackendChoice, Check, CheckKind, Claim, FloatingIp, Hook, HookState, HttpCheck, SyncFile,
    Target, Wireguard,
};
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
    /// `[[check]]`.
    pub checks: Vec<Check>,
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
    /// `[probe] listen`; `None`: no responder.
    pub probe: Option<SocketAddr>,
    /// `[arbiter]`.
    pub arbiter: Option<Arbiter>,
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

    /// How many voters there are: the nodes, and etcd.
    #[must_use]
    pub fn voters(&self) -> usize {
        self.nodes.len() + usize::from(self.arbiter.is_some())
    }

    /// Whether mastership needs a lease from a majority of the nodes.
    #[must_use]
    pub fn needs_majority(&self) -> bool {
        self.cluster.quorum.needs_majority(self.voters())
    }

    /// Whether `[sync] files` names this file, itself or by its directory.
    #[must_use]
    pub fn is_synced(&self, path: &Path) -> bool {
        let names = |file: &SyncFile| {
            if file.directory { path.parent() == Some(&file.path) } else { path == file.path }
        };
        self.sync.iter().any(names)
    }

    /// See [`Cluster::detection`].
    #[must_use]
    pub fn detection(&self) -> Duration {
        self.cluster.detection()
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    bounded::text(&File::open(path)?, MAX_FILE)
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
    /// Who guard and worker are; `None`: whoever started them.
    pub user: Option<String>,
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

impl Cluster {
    /// `misses` × `heartbeat`: after this silence a master counts as gone.
    #[must_use]
    pub fn detection(&self) -> Duration {
        self.heartbeat * u32::from(self.misses)
    }
}

impl QuorumChoice {
    /// What it is for so many voters.
    pub(crate) fn needs_majority(self, voters: usize) -> bool {
        match self {
            QuorumChoice::Auto => voters > 2,
            QuorumChoice::Majority => true,
            QuorumChoice::None => false,
        }
    }
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

/// `[arbiter]`: an etcd that votes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arbiter {
    /// Members of one etcd cluster, all by https or all by http.
    pub endpoints: Vec<Endpoint>,
    /// Who signs its certificate; `None`: those that this system trusts.
    pub ca_file: Option<PathBuf>,
    /// The files of my certificate and of its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// User, and the file with its password.
    pub login: Option<(String, PathBuf)>,
}

/// Where a member of etcd listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// By https.
    pub tls: bool,
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}
