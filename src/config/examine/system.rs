//! Settings of the system, and other programs that want the same interfaces.

use std::collections::BTreeSet;
use std::path::Path;

use super::Findings;
use crate::config::{Config, Machine};
use crate::wireguard::conf::WgConf;
use crate::wireguard::port;

const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const FORWARD_V4: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARD_V6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// Ports below this one need a capability to be bound.
const FIRST_FREE_PORT: u16 = 1024;

/// Where other programs keep what they know of interfaces: (directory, end of the files' names,
/// the key that names an interface, the program).
const MANAGERS: [(&str, &str, &str, &str); 6] = [
    ("/etc/systemd/network", ".netdev", "Name", "systemd-networkd"),
    ("/run/systemd/network", ".netdev", "Name", "systemd-networkd"),
    ("/etc/NetworkManager/system-connections", ".nmconnection", "interface-name", "NetworkManager"),
    ("/run/NetworkManager/system-connections", ".nmconnection", "interface-name", "NetworkManager"),
    ("/etc/systemd/network", ".network", "Name", "systemd-networkd"),
    ("/run/systemd/network", ".network", "Name", "systemd-networkd"),
];

/// Where systemd keeps what starts at boot.
const WANTED: &str = "/etc/systemd/system/multi-user.target.wants";

pub(super) fn examine(
    config: &Config,
    files: &[WgConf],
    machine: &dyn Machine,
    found: &mut Findings,
) {
    ephemeral_ports(config, machine, found);
    low_ports(config, found);
    sources(config, machine, found);
    forwarding(files, machine, found);
    for wireguard in &config.wireguard {
        managed(&wireguard.interface, machine, found);
    }
}

/// Heartbeats' and WireGuard's ports, each with whose it is, every one once.
fn listening(config: &Config, found: &Findings) -> Vec<(u16, String)> {
    let heartbeats =
        config.node().addresses.iter().map(|a| (a.bind.port(), "heartbeats".to_owned()));
    let tunnels = config.wireguard.iter().zip(&found.listen_ports);
    let tunnels = tunnels.filter_map(|(w, port)| Some(((*port)?, w.interface.clone())));
    let mut all: Vec<_> = heartbeats.chain(tunnels).collect();
    all.sort();
    all.dedup();
    all
}

/// The kernel gives ports of this range to any socket, unless they are reserved, as WireGuard's is by the daemon itself.
fn ephemeral_ports(config: &Config, machine: &dyn Machine, found: &mut Findings) {
    let text = |path: &str| machine.read(Path::new(path));
    let (range, reserved) = match (text(PORT_RANGE), text(port::RESERVED)) {
        (Ok(range), Ok(reserved)) => (range, reserved),
        (Err(e), _) => return found.unseen.push(format!("{PORT_RANGE}: {e}")),
        (_, Err(e)) => return found.unseen.push(format!("{}: {e}", port::RESERVED)),
    };
    let mut ends = range.split_ascii_whitespace().filter_map(|end| end.parse::<u16>().ok());
    let (Some(low), Some(high)) = (ends.next(), ends.next()) else { return };
    let heartbeats: BTreeSet<u16> = config.node().addresses.iter().map(|a| a.bind.port()).collect();
    for port in heartbeats {
        if (low..=high).contains(&port) && !port::is_reserved(&reserved, port) {
            found.warnings.push(format!(
                "UDP port {port} (heartbeats) lies in the range that any program may be given \
                 ({low} to {high}); reserve it with net.ipv4.ip_local_reserved_ports in \
                 /etc/sysctl.d"
            ));
        }
    }
}

fn low_ports(config: &Config, found: &mut Findings) {
    let low: Vec<_> =
        listening(config, found).into_iter().filter(|(port, _)| *port < FIRST_FREE_PORT).collect();
    for (port, whose) in low {
        found.warnings.push(format!(
            "UDP port {port} ({whose}) is below {FIRST_FREE_PORT}, where other services have theirs; \
             wgha needs CAP_NET_BIND_SERVICE for it, which its systemd unit gives"
        ));
    }
}

/// Clients answer to the source address, so its interface must lead to them.
fn sources(config: &Config, machine: &dyn Machine, found: &mut Findings) {
    for wireguard in &config.wireguard {
        if wireguard.source.is_empty() && !config.floating_ips.is_empty() {
            found.warnings.push(format!(
                "{}: no floating IP is its source, so its packets leave from any address of the \
                 gateway, and clients follow them there",
                wireguard.interface
            ));
        }
        for source in &wireguard.source {
            let carrier = config.floating_ips.iter().find(|f| f.address.addr() == *source);
            let Some(carrier) = carrier.map(|f| f.interface.as_str()) else { continue };
            match machine.default_routes(source.is_ipv6()) {
                Ok(routes) if routes.contains(carrier) => {}
                Ok(_) => found.warnings.push(format!(
                    "{}: its source {source} is on {carrier}, which has no default route",
                    wireguard.interface
                )),
                Err(e) => found.unseen.push(format!("default routes: {e}")),
            }
        }
    }
}

/// A gateway that does not forward is none.
fn forwarding(files: &[WgConf], machine: &dyn Machine, found: &mut Findings) {
    let inner = || files.iter().flat_map(|f| f.peers.iter().flat_map(|p| p.allowed_ips.iter()));
    for (needed, path, name) in [
        (inner().any(|net| net.addr().is_ipv4()), FORWARD_V4, "net.ipv4.ip_forward"),
        (inner().any(|net| net.addr().is_ipv6()), FORWARD_V6, "net.ipv6.conf.all.forwarding"),
    ] {
        if !needed {
            continue;
        }
        match machine.read(Path::new(path)) {
            Ok(value) if value.trim() == "0" => found.warnings.push(format!(
                "{name} is 0: clients reach the gateway itself and nothing behind it"
            )),
            Ok(_) => {}
            Err(e) => found.unseen.push(format!("{path}: {e}")),
        }
    }
}

/// Another program that brings the interface up works against wgha.
fn managed(interface: &str, machine: &dyn Machine, found: &mut Findings) {
    let unit = format!("wg-quick@{interface}.service");
    let wanted = machine.list(Path::new(WANTED)).unwrap_or_default();
    if wanted.iter().any(|path| path.ends_with(&unit)) {
        found.warnings.push(format!(
            "{unit} is enabled and would bring {interface} up at boot; disable it: \
             systemctl disable {unit}"
        ));
    }
    for (directory, end, key, program) in MANAGERS {
        let files = match machine.list(Path::new(directory)) {
            Ok(files) => files,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => {
                found.unseen.push(format!("{directory}: {e}"));
                continue;
            }
        };
        for path in files.iter().filter(|path| path.to_string_lossy().ends_with(end)) {
            match machine.read(path) {
                Ok(text) if names(&text, key, interface) => found.warnings.push(format!(
                    "{interface} is also configured by {program}, in {}",
                    path.display()
                )),
                Ok(_) => {}
                Err(e) => found.unseen.push(format!("{}: {e}", path.display())),
            }
        }
    }
}

/// Whether a line of `text` is `key=interface`; a list of names counts.
fn names(text: &str, key: &str, interface: &str) -> bool {
    text.lines().filter_map(|line| line.split_once('=')).any(|(k, values)| {
        k.trim() == key && values.split_ascii_whitespace().any(|value| value == interface)
    })
}
