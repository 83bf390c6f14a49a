//! The config file: read once into types that cannot be wrong.
//!
//! [`Config`] is what the rest of the program sees.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

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
    /// `[control] socket`.
    pub control_socket: PathBuf,
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
    /// Bound of a handover's preparation.
    pub handover_timeout: Duration,
    /// What survives restarts.
    pub state_dir: PathBuf,
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
