//! What the list of nodes is worth, and whether this machine is in it.

use std::time::Duration;

use super::Findings;
use crate::config::{Config, Machine};

pub(super) fn examine(config: &Config, machine: &dyn Machine, found: &mut Findings) {
    let (nodes, gateways) = (config.voters(), config.gateways().count());
    if gateways == 1 && nodes > 1 && config.needs_majority() {
        found.warnings.push(
            "there is one gateway: nothing takes over when it is lost, and it needs a majority"
                .to_owned(),
        );
    } else if gateways == 1 {
        found.warnings.push("there is one gateway: nothing takes over when it is lost".to_owned());
    } else if nodes == 2 {
        found.warnings.push(
            "there are two nodes: when the network between them fails, both can be master; \
             a witness on a third machine, or an etcd, makes the master the only one"
                .to_owned(),
        );
    } else if nodes.is_multiple_of(2) {
        let voters = if config.arbiter.is_some() { "voters" } else { "nodes" };
        found.warnings.push(format!(
            "the number of {voters} is even: {nodes} {voters} have no majority after the loss of {}, \
             as {} have not; add a witness or leave one out",
            nodes / 2,
            nodes - 1,
        ));
    }
    leases(config, nodes, found);
    own_addresses(config, machine, found);
}

/// What a lease can bear: two rounds lost in a row must not cost it.
fn leases(config: &Config, nodes: usize, found: &mut Findings) {
    if !config.needs_majority() {
        if nodes > 2 {
            found.warnings.push(
                "quorum is \"none\": a partition can give two masters, whatever the number of nodes"
                    .to_owned(),
            );
        }
        return;
    }
    let (lease, interval) = (config.detection(), config.cluster.heartbeat);
    let usable = usable(lease);
    if !survives_two_losses(lease, interval) {
        found.warnings.push(format!(
            "two heartbeats lost in a row cost the lease: of its {} ms a master may act for {} ms, hardly \
             longer than two heartbeats; use misses = {} or more",
            lease.as_millis(),
            usable.as_millis(),
            least_misses(interval),
        ));
    }
}

/// L - M, as docs/protocol.md §11 has them.
fn usable(lease: Duration) -> Duration {
    lease.saturating_sub(wgha_proto::margin(lease, wgha_proto::LEAST_REACTION))
}

fn survives_two_losses(lease: Duration, interval: Duration) -> bool {
    // A quarter interval is left for the round trip.
    usable(lease) > interval * 9 / 4
}

fn least_misses(interval: Duration) -> u32 {
    (3..=255).find(|misses| survives_two_losses(interval * *misses, interval)).unwrap_or(255)
}

fn own_addresses(config: &Config, machine: &dyn Machine, found: &mut Findings) {
    let mine = match machine.addresses() {
        Ok(mine) => mine,
        Err(e) => {
            found.unseen.push(format!("addresses of this machine: {e}"));
            return;
        }
    };
    let node = config.node();
    for address in node.addresses.iter().map(|a| a.bind.ip()).filter(|ip| !mine.contains(ip)) {
        let name = &node.name;
        found
            .warnings
            .push(format!("this machine has no address {address}, which node {name} binds"));
    }
}
