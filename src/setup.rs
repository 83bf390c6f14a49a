//! Everything that the daemon reads before it begins, and again at a reload: config, keys, wg0.conf.

use std::path::Path;
use std::time::Duration;

use thiserror::Error;
use wgha_proto::{Keyring, LEAST_REACTION, NodeConfig, PeerConfig, Preempt, Quorum, WireguardKind};

use crate::config::{self, Config, Wireguard};
use crate::gateway::ledger;
use crate::keyfile;
use crate::link;
use crate::state::Applied;
use crate::user::access;
use crate::wireguard::conf::WgConf;

/// After which Linux asks for a neighbour again (`net.ipv4.neigh.*.retrans_time_ms`, `net.ipv6.neigh.*.retrans_time_ms`).
const NEIGHBOUR_RETRY: Duration = Duration::from_secs(1);

/// Files that are whole and valid, and fit each other.
#[derive(Debug)]
pub struct Setup {
    /// The config file.
    pub config: Config,
    /// The cluster keys.
    pub keys: Keyring,
    /// wg0.conf of each `[[wireguard]]`, in its order; `None`: it is not there, and the other
    /// gateways are asked for it.
    confs: Vec<Option<WgConf>>,
    /// What is allowed but seldom meant.
    pub warnings: Vec<String>,
}

/// Everything that is wrong with the files, one line each.
#[derive(Debug, Error)]
#[error("{}", .0.join("\n"))]
pub struct SetupError(pub Vec<String>);

impl Setup {
    /// Reads all files.
    ///
    /// # Errors
    ///
    /// All that is wrong with them, each with file, line and key.
    pub fn load(path: &Path, node: Option<&str>) -> Result<Setup, SetupError> {
        let config = Config::load(path, node).map_err(|e| SetupError(vec![e.to_string()]))?;
        // What they say would come again with each file, and without the cure.
        let mut errors = access::refusals(&config);
        if !errors.is_empty() {
            return Err(SetupError(errors));
        }
        let mut warnings = Vec::new();
        let witness = config.node().witness;
        let keys = keyfile::load_for(&config.cluster.key_file, witness, None)
            .map_err(|e| errors.push(e.to_string()))
            .ok();
        // A witness needs no WireGuard file, and should not have one.
        let tunnels = if witness { &[] } else { &config.wireguard[..] };
        let confs = load_confs(&config, tunnels, &mut warnings);
        let confs = confs.map_err(|all| errors.extend(all)).unwrap_or_default();
        errors.extend(tunnels.iter().zip(&confs).filter_map(|(entry, conf)| {
            access::low_port(&config, &entry.interface, conf.as_ref()?.listen_port)
        }));
        match keys {
            Some(keys) if errors.is_empty() => Ok(Setup { config, keys, confs, warnings }),
            _ => Err(SetupError(errors)),
        }
    }

    /// Each `[[wireguard]]` with its file. None on a witness.
    pub fn tunnels(&self) -> impl Iterator<Item = (&Wireguard, &WgConf)> {
        let pairs = self.config.wireguard.iter().zip(&self.confs);
        pairs.filter_map(|(entry, conf)| Some((entry, conf.as_ref()?)))
    }

    /// What keeps this gateway from serving until the other gateways sent it, in words.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        let pairs = self.config.wireguard.iter().zip(&self.confs);
        let mut missing = pairs.filter(|(_, conf)| conf.is_none());
        missing.next().map(|(entry, _)| {
            let (name, file) = (&entry.interface, entry.config.display());
            format!("{name}: {file} is not there, and no gateway has sent it yet")
        })
    }

    /// With the WireGuard files as they are now, and everything else as it was; `None` if they are
    /// the same. A file that is gone counts as it was.
    ///
    /// # Errors
    ///
    /// As [`load`](Setup::load).
    pub fn with_files_of_now(&self) -> Result<Option<Setup>, SetupError> {
        let mut warnings = Vec::new();
        let tunnels = self.config.wireguard.get(..self.confs.len()).unwrap_or_default();
        let mut confs = load_confs(&self.config, tunnels, &mut warnings).map_err(SetupError)?;
        for (new, old) in confs.iter_mut().zip(&self.confs) {
            if new.is_none() {
                new.clone_from(old);
            }
        }
        if confs == self.confs {
            return Ok(None);
        }
        let (config, keys) = (self.config.clone(), self.keys.clone());
        Ok(Some(Setup { config, keys, confs, warnings }))
    }

    /// All that this gateway may put up.
    #[must_use]
    pub fn puts_up(&self) -> Applied {
        ledger::by_config(&self.config, |entry| {
            let conf = self.tunnels().find(|(e, _)| e.interface == entry.interface);
            conf.map(|(_, conf)| conf.listen_port)
        })
    }

    /// What the protocol needs to know. `wireguard` is what this node runs.
    #[must_use]
    pub fn node_config(&self, wireguard: WireguardKind) -> NodeConfig {
        let config = &self.config;
        let me = config.node();
        let material: Vec<_> =
            self.tunnels().map(|(_, conf)| conf.fingerprint_material()).collect();
        let peers = config.peers().map(|peer| PeerConfig {
            name: peer.name.clone(),
            witness: peer.witness,
            paths: path_count(me.addresses.len(), peer.addresses.len()),
        });
        NodeConfig {
            cluster: config.cluster.name.clone(),
            name: me.name.clone(),
            witness: me.witness,
            priority: me.priority,
            interval: config.cluster.heartbeat,
            misses: config.cluster.misses,
            preempt: config.cluster.preempt.map(|delay| Preempt { delay }),
            handover_timeout: config.cluster.handover_timeout,
            neighbour_retry: NEIGHBOUR_RETRY,
            fingerprint: config::fingerprint(config, (!me.witness).then_some(&material[..])),
            wireguard,
            quorum: if config.needs_majority() {
                Quorum::Majority { reaction: LEAST_REACTION, arbiter: config.arbiter.is_some() }
            } else {
                Quorum::None
            },
            peers: peers.collect(),
        }
    }
}

fn path_count(mine: usize, theirs: usize) -> u8 {
    // The config has at most 8 addresses a node.
    u8::try_from(link::path_count(mine, theirs)).unwrap_or(u8::MAX)
}

/// The files of these interfaces; `None` for one that is missing and synced.
fn load_confs(
    config: &Config,
    tunnels: &[Wireguard],
    warnings: &mut Vec<String>,
) -> Result<Vec<Option<WgConf>>, Vec<String>> {
    let mut errors = Vec::new();
    let mut confs = Vec::new();
    for entry in tunnels {
        let file = entry.config.display();
        if config.is_synced(&entry.config) && is_missing(&entry.config) {
            confs.push(None);
            continue;
        }
        match WgConf::load(&entry.interface, &entry.config) {
            Ok(parsed) => {
                warnings.extend(parsed.warnings.iter().map(|w| format!("{file}: {w}")));
                confs.push(Some(parsed.conf));
            }
            Err(all) => errors.extend(all.iter().map(|e| format!("{file}: {e}"))),
        }
    }
    if errors.is_empty() {
        errors = same_port(config, &confs);
    }
    if errors.is_empty() { Ok(confs) } else { Err(errors) }
}

fn is_missing(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

/// Two interfaces cannot listen on one port.
fn same_port(config: &Config, confs: &[Option<WgConf>]) -> Vec<String> {
    let port = |conf: &Option<WgConf>| conf.as_ref().map(|conf| conf.listen_port);
    let mut errors = Vec::new();
    for (index, conf) in confs.iter().enumerate() {
        let Some(mine) = port(conf) else { continue };
        let Some(other) = confs.iter().take(index).position(|c| port(c) == Some(mine)) else {
            continue;
        };
        let name = |i: usize| config.wireguard.get(i).map_or("?", |w| w.interface.as_str());
        errors.push(format!(
            "{} and {} both have ListenPort {mine}: each interface needs its own",
            name(other),
            name(index),
        ));
    }
    errors
}

#[cfg(test)]
mod tests;
