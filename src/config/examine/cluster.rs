//! What the list of nodes is worth, and whether this machine is in it.

use super::Findings;
use crate::config::{Config, Machine};

pub(super) fn examine(config: &Config, machine: &dyn Machine, found: &mut Findings) {
    let (nodes, gateways) = (config.nodes.len(), config.gateways().count());
    if gateways == 1 {
        found.warnings.push("there is one gateway: nothing takes over when it is lost".to_owned());
    } else if nodes == 2 {
        found.warnings.push(
            "there are two nodes: when the network between them fails, both can be master; \
             a witness on a third machine tells them what it hears"
                .to_owned(),
        );
    } else if nodes.is_multiple_of(2) {
        found.warnings.push(format!(
            "the number of nodes is even: {nodes} nodes have no majority after the loss of {}, \
             as {} have not; add a witness or leave one out",
            nodes / 2,
            nodes - 1,
        ));
    }
    own_addresses(config, machine, found);
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
