//! Networks of namespaces, faults and probes for wgha.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! netns_lab::enter_user_namespace()?; // root needs nothing; others get a user namespace
//! let lab = netns_lab::Lab::builder().gateways(2).clients(1).build()?;
//! assert!(lab.client_node(1).ping(netns_lab::topology::router().v4.into()));
//! # Ok(())
//! # }
//! ```

mod audit;
mod capture;
mod clean;
mod client;
mod cloud;
mod config;
mod control;
mod daemon;
mod eve;
mod fault;
mod flood;
mod holdings;
mod keys;
mod lab;
mod mounts;
mod node;
mod observe;
mod ping;
mod privilege;
mod probe;
mod process;
mod report;
mod svg;
mod swarm;
mod sys;
mod timeline;
pub mod topology;
mod uapi;
mod wgconf;

pub use capture::{Capture, MasterFrame};
pub use clean::{Cleaned, clean, processes_of};
pub use client::{WgKind, WgPeer};
pub use cloud::{Cloud, Whereabouts, running_hooks};
pub use config::{CONFIG_PATH, ClusterOptions, etc};
pub use daemon::Cluster;
pub use eve::{Eve, Frame, Manner};
pub use fault::{
    FaultId, Filter, Traffic, flush_nft, remove_address, remove_interface, remove_rules,
};
pub use flood::{Flood, Heard, listen};
pub use holdings::{Address, Holdings, Link, Neighbour, Route, Rule};
pub use keys::{KeyPair, Keys};
pub use lab::{Builder, Lab};
pub use node::Node;
pub use observe::{Watch, mac};
pub use ping::{ping, reach};
pub use privilege::{enter_user_namespace, find_program, is_privileged};
pub use probe::{Echo, Prober};
pub use process::{Process, Spec};
pub use report::{Outage, Percentiles, Probe, Probes};
pub use svg::Picture;
pub use swarm::{Back, HandshakeRate, Swarm};
pub use sys::{ClockStep, monotonic_ns, realtime_ns};
pub use timeline::{Event, Timeline, parse_rfc3339};
pub use uapi::{PeerState, bring_up, peers};
pub use wgconf::{PeerConf, WgConf};
