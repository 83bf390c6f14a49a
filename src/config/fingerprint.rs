//! What the nodes' configs must agree on, hashed.

use std::time::Duration;

use ring::digest::{Context, SHA256};

use super::{Config, Node};

/// What must agree between the nodes of a cluster, in two halves of a SHA-256 each: cluster name,
/// timing, nodes and floating IPs; then the sources and `wireguard_material`, one entry for each
/// `[[wireguard]]` that stands for identity and peers. A witness reads no WireGuard file: for it
/// (`None`) the second half is zero, which agrees with all.
///
/// Left out is what may differ without harm: paths, sockets, hooks, what a node binds, and the
/// names of interfaces.
#[must_use]
pub fn fingerprint(config: &Config, wireguard_material: Option<&[Vec<u8>]>) -> [u8; 16] {
    let mut both = [0; 16];
    both[..8].copy_from_slice(&cluster_half(config));
    if let Some(material) = wireguard_material {
        both[8..].copy_from_slice(&wireguard_half(config, material));
    }
    both
}

fn cluster_half(config: &Config) -> [u8; 8] {
    let mut hash = Hash::new("wgha config fingerprint 1: cluster");
    let cluster = &config.cluster;
    hash.text(&cluster.name);
    hash.duration(cluster.heartbeat);
    hash.number(u64::from(cluster.misses));
    hash.number(u64::from(cluster.preempt.is_some()));
    hash.duration(cluster.preempt.unwrap_or_default());
    hash.duration(cluster.handover_timeout);

    // The order of tables means nothing, that of a node's addresses does: it numbers the paths.
    let mut nodes: Vec<&Node> = config.nodes.iter().collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    hash.count(nodes.len());
    for node in nodes {
        hash_node(&mut hash, node);
    }
    let mut floating: Vec<String> =
        config.floating_ips.iter().map(|f| f.address.to_string()).collect();
    floating.sort();
    hash.texts(&floating);
    // Of a cluster without leases it is as it was before there were any.
    if config.needs_majority() {
        hash.text("majority");
    }
    // Where one's own member stands in the list may differ, the members may not: they are one etcd.
    if let Some(arbiter) = &config.arbiter {
        let mut endpoints: Vec<String> =
            arbiter.endpoints.iter().map(ToString::to_string).collect();
        endpoints.sort();
        hash.text("etcd");
        hash.texts(&endpoints);
    }
    hash.finish()
}

fn wireguard_half(config: &Config, material: &[Vec<u8>]) -> [u8; 8] {
    let mut hash = Hash::new("wgha config fingerprint 1: wireguard");
    hash.count(config.wireguard.len());
    for wireguard in &config.wireguard {
        let sources: Vec<String> = wireguard.source.iter().map(ToString::to_string).collect();
        hash.texts(&sources);
    }
    hash.count(material.len());
    for one in material {
        hash.bytes(one);
    }
    hash.finish()
}

fn hash_node(hash: &mut Hash, node: &Node) {
    hash.text(&node.name);
    hash.number(u64::from(node.priority));
    hash.number(u64::from(node.witness));
    let addresses: Vec<String> = node.addresses.iter().map(|a| a.send.to_string()).collect();
    hash.texts(&addresses);
}

/// A hash over parts, each with its length, so that no two lists of parts look the same.
struct Hash(Context);

impl Hash {
    fn new(label: &str) -> Hash {
        let mut hash = Hash(Context::new(&SHA256));
        hash.text(label);
        hash
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn texts(&mut self, texts: &[String]) {
        self.count(texts.len());
        for text in texts {
            self.text(text);
        }
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_be_bytes());
    }

    fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    fn duration(&mut self, duration: Duration) {
        self.0.update(&duration.as_nanos().to_be_bytes());
    }

    fn finish(self) -> [u8; 8] {
        let digest = self.0.finish();
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_ref()[..8]);
        first
    }
}
