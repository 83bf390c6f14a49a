//! What the gate guards on this gateway.

use crate::net::gate::{Guarded, Plan};
use crate::setup::Setup;

/// Every WireGuard port, on the addresses that its packets are kept to, and every floating IP.
#[must_use]
pub fn plan(setup: &Setup) -> Plan {
    let guarded = setup.tunnels().map(|(entry, conf)| Guarded {
        port: conf.listen_port,
        // Without the source rules packets may leave from anywhere.
        addresses: if entry.guard { entry.source.clone() } else { Vec::new() },
    });
    Plan {
        tunnels: guarded.collect(),
        floating_ips: setup.config.floating_ips.iter().map(|ip| ip.address.addr()).collect(),
    }
}
