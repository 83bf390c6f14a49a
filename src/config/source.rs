//! Which floating IPs WireGuard's packets leave from.

use std::net::IpAddr;

use super::section::{At, Sink};
use super::{FloatingIp, Machine};

const KEY: &str = "[[wireguard]] source";

/// The addresses that `source` names, if they are floating IPs and at most one of a family.
pub(super) fn named(
    sink: &mut Sink<'_>,
    source: &[At<IpAddr>],
    floating: &[FloatingIp],
) -> Vec<IpAddr> {
    let mut chosen: Vec<IpAddr> = Vec::new();
    for At { line, value } in source {
        if !floating.iter().any(|f| f.address.addr() == *value) {
            sink.at(*line, KEY, format!("expected one of the floating IPs, found \"{value}\""));
        } else if let Some(other) = chosen.iter().find(|c| c.is_ipv4() == value.is_ipv4()) {
            let message =
                format!("expected at most one address of a family, found {other} and {value}");
            sink.at(*line, KEY, message);
        } else {
            chosen.push(*value);
        }
    }
    chosen
}

/// The default: of each family the only floating IP on an interface with a default route.
///
/// Where the machine has no default route of a family (yet), all floating IPs of the family count.
pub(super) fn default(
    sink: &mut Sink<'_>,
    line: usize,
    floating: &[FloatingIp],
    machine: &dyn Machine,
) -> Vec<IpAddr> {
    let mut chosen = Vec::new();
    for v6 in [false, true] {
        let family: Vec<_> = floating.iter().filter(|f| f.address.addr().is_ipv6() == v6).collect();
        let routes = machine.default_routes(v6).unwrap_or_default();
        let candidates: Vec<IpAddr> = family
            .iter()
            .filter(|f| routes.is_empty() || routes.contains(&f.interface))
            .map(|f| f.address.addr())
            .collect();
        match candidates.as_slice() {
            [] => {}
            [one] => chosen.push(*one),
            [a, b, ..] => {
                let message = format!(
                    "ambiguous: {a} and {b} both could be it; \
                     expected source to name at most one floating IP of each family"
                );
                sink.at(line, KEY, message);
            }
        }
    }
    chosen
}
