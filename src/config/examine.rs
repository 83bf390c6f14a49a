//! What the machine says to a valid config: files that cannot be used, interfaces that are not
//! there, settings of the system that stand in the way.
//!
//! None of it makes the config wrong: an interface may come later, a file may be put right. `wgha
//! check` shows all of it.

use std::io;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::{Config, Machine};
use crate::keyfile::{self, Why};
use crate::wireguard::conf::WgConf;

mod cluster;
mod sync;
mod system;
#[cfg(test)]
mod tests;

/// What [`examine`] found, each a line of text.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// With these the node cannot serve or vote.
    pub errors: Vec<String>,
    /// With these it works, but not as well as it could.
    pub warnings: Vec<String>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
    /// `ListenPort` of each `[[wireguard]]`; `None` if its file cannot be used.
    pub listen_ports: Vec<Option<u16>>,
}

/// Looks at everything that `config` names on this machine.
#[must_use]
pub fn examine(config: &Config, machine: &dyn Machine) -> Findings {
    let mut found = Findings::default();
    key_file(config, &mut found);
    http(config, &mut found);
    cluster::examine(config, machine, &mut found);
    if config.node().witness {
        // Nothing of a gateway's tables concerns it.
        return found;
    }
    let files = wireguard_files(config, &mut found);
    ports(config, &mut found);
    interfaces(config, machine, &mut found);
    hooks(config, &mut found);
    sync::examine(config, &mut found);
    system::examine(config, &files, machine, &mut found);
    found
}

fn key_file(config: &Config, found: &mut Findings) {
    let Err(error) = keyfile::load_for(&config.cluster.key_file, config.node().witness) else {
        return;
    };
    match &error.why {
        Why::Read(e) if not_for_me(e) => found.unseen.push(error.to_string()),
        _ => found.errors.push(error.to_string()),
    }
}

fn http(config: &Config, found: &mut Findings) {
    if let Some(listen) = config.http.filter(|listen| !listen.ip().is_loopback()) {
        found.warnings.push(format!(
            "[http] listen = \"{listen}\": there is no password and no encryption; let a firewall \
             choose who may read the status"
        ));
    }
}

/// Whether root could have looked.
fn not_for_me(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && !nix::unistd::geteuid().is_root()
}

/// The files that can be used; their ports and everything odd about them go into `found`.
fn wireguard_files(config: &Config, found: &mut Findings) -> Vec<WgConf> {
    let mut files = Vec::new();
    for wireguard in &config.wireguard {
        let path = &wireguard.config;
        let file = if config.is_synced(path) && is_missing(path) {
            let message = "is not there: it comes from the other gateways, and until then this one \
                           cannot serve";
            found.warnings.push(format!("{}: {message}", path.display()));
            None
        } else {
            wireguard_file(&wireguard.interface, path, found)
        };
        found.listen_ports.push(file.as_ref().map(|conf| conf.listen_port));
        files.extend(file);
    }
    files
}

fn wireguard_file(interface: &str, path: &Path, found: &mut Findings) -> Option<WgConf> {
    if let Err(e) = std::fs::File::open(path) {
        let message = format!("{}: cannot be read: {e}", path.display());
        let list = if not_for_me(&e) { &mut found.unseen } else { &mut found.errors };
        list.push(message);
        return None;
    }
    match WgConf::load(interface, path) {
        Ok(parsed) => {
            let lines = parsed.warnings.iter().map(|w| format!("{}: {w}", path.display()));
            found.warnings.extend(lines);
            Some(parsed.conf)
        }
        Err(errors) => {
            found.errors.extend(errors.iter().map(|e| format!("{}: {e}", path.display())));
            None
        }
    }
}

fn is_missing(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}

/// Every UDP port belongs to one: WireGuard's sockets are bound to all addresses.
fn ports(config: &Config, found: &mut Findings) {
    let named = config.wireguard.iter().zip(found.listen_ports.clone());
    let listening: Vec<(&str, u16)> =
        named.filter_map(|(w, port)| Some((w.interface.as_str(), port?))).collect();
    for (i, (interface, port)) in listening.iter().enumerate() {
        if let Some((other, _)) = listening.iter().take(i).find(|(_, p)| p == port) {
            found.errors.push(format!("{other} and {interface} both have ListenPort {port}"));
        }
        if config.node().addresses.iter().any(|a| a.bind.port() == *port) {
            found.errors.push(format!("{interface} has ListenPort {port}, the port of heartbeats"));
        }
    }
}

fn interfaces(config: &Config, machine: &dyn Machine, found: &mut Findings) {
    let existing = match machine.interfaces() {
        Ok(existing) => existing,
        Err(e) => {
            found.unseen.push(format!("interfaces: {e}"));
            return;
        }
    };
    for floating in &config.floating_ips {
        if !existing.contains(&floating.interface) {
            found.errors.push(format!(
                "floating IP {}: there is no interface {}",
                floating.address.addr(),
                floating.interface
            ));
        }
    }
}

fn hooks(config: &Config, found: &mut Findings) {
    let hooks = config.hooks.iter().filter_map(|hook| Some(("hook", hook.run.first()?)));
    let claims = config.claims.iter().filter_map(|claim| Some(("claim", claim.run.first()?)));
    for (what, program) in hooks.chain(claims) {
        match std::fs::metadata(program) {
            Err(e) if not_for_me(&e) => found.unseen.push(format!("{what} {program}: {e}")),
            Err(e) => found.errors.push(format!("{what} {program}: {e}")),
            Ok(meta) if !meta.is_file() => {
                found.errors.push(format!("{what} {program}: is no regular file"));
            }
            Ok(_) => {
                if access(program.as_str(), AccessFlags::X_OK).is_err() {
                    found.errors.push(format!("{what} {program}: is not executable"));
                }
            }
        }
    }
}
