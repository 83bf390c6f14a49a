//! Everything that the daemon reads before it begins, and again at a reload: config, keys, wg0.conf.

use std::path::Path;

use thiserror::Error;
use wgha_proto::{Keyring, LEAST_REACTION, NodeConfig, PeerConfig, Preempt, Quorum, WireguardKind};

use crate::config::{self, Config, Wireguard};
use crate::keyfile;
use crate::link;
use crate::wireguard::conf::WgConf;

/// Files that are whole and valid, and fit each other.
#[derive(Debug)]
pub struct Setup {
    /// The config file.
    pub config: Config,
    /// The cluster keys.
    pub keys: Keyring,
    /// wg0.conf of each `[[wireguard]]`, in its order.
    confs: Vec<WgConf>,
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
        let mut errors = Vec::new();
        let mut warnings = Vec::new();
        let witness = config.node().witness;
        let keys = keyfile::load_for(&config.cluster.key_file, witness)
            .map_err(|e| errors.push(e.to_string()))
            .ok();
        let mut confs = Vec::new();
        // A witness needs no WireGuard file, and should not have one.
        for entry in config.wireguard.iter().filter(|_| !witness) {
            let file = entry.config.display();
            match WgConf::load(&entry.interface, &entry.config) {
                Ok(parsed) => {
                    warnings.extend(parsed.warnings.iter().map(|w| format!("{file}: {w}")));
                    confs.push(parsed.conf);
                }
                Err(all) => errors.extend(all.iter().map(|e| format!("{file}: {e}"))),
            }
        }
        errors.extend(same_port(&config, &confs));
        match keys {
            Some(keys) if errors.is_empty() => Ok(Setup { config, keys, confs, warnings }),
            _ => Err(SetupError(errors)),
        }
    }

    /// Each `[[wireguard]]` with its file. None on a witness.
    pub fn tunnels(&self) -> impl Iterator<Item = (&Wireguard, &WgConf)> {
        self.config.wireguard.iter().zip(&self.confs)
    }

    /// What the protocol needs to know. `wireguard` is what this node runs.
    #[must_use]
    pub fn node_config(&self, wireguard: WireguardKind) -> NodeConfig {
        let config = &self.config;
        let me = config.node();
        let material: Vec<_> = self.confs.iter().map(WgConf::fingerprint_material).collect();
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
            fingerprint: config::fingerprint(config, (!me.witness).then_some(&material[..])),
            wireguard,
            quorum: if config.needs_majority() {
                Quorum::Majority { reaction: LEAST_REACTION }
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

/// Two interfaces cannot listen on one port.
fn same_port(config: &Config, confs: &[WgConf]) -> Vec<String> {
    let mut errors = Vec::new();
    for (index, conf) in confs.iter().enumerate() {
        let Some(other) = confs.iter().take(index).position(|c| c.listen_port == conf.listen_port)
        else {
            continue;
        };
        let name = |i: usize| config.wireguard.get(i).map_or("?", |w| w.interface.as_str());
        errors.push(format!(
            "{} and {} both have ListenPort {}: each interface needs its own",
            name(other),
            name(index),
            conf.listen_port
        ));
    }
    errors
}
