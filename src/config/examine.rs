//! What the machine says to a valid config: files that cannot be used, interfaces that are not
//! there, settings of the system that stand in the way.
//!
//! None of it makes the config wrong: an interface may come later, a file may be put right. `wgha
//! check` shows all of it.

use std::io;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::{self as config, CheckKind, Config, Machine};
use crate::keyfile::{self, Why};
use crate::user::{Account, access};
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
    user(config, &mut found);
    key_file(config, &mut found);
    http(config, &mut found);
    arbiter(config, &mut found);
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

/// What `[cluster] user`, or hooks with users of their own, may not do.
fn user(config: &Config, found: &mut Findings) {
    let refused = access::refusals(config);
    if nix::unistd::geteuid().is_root() || account(config).is_some_and(|account| account.is_me()) {
        found.errors.extend(refused);
    } else {
        found.unseen.extend(refused);
    }
}

/// Who `[cluster] user` is.
fn account(config: &Config) -> Option<Account> {
    Account::find(config.cluster.user.as_deref()?).ok()
}

fn key_file(config: &Config, found: &mut Findings) {
    let owner = account(config).map(|account| account.uid());
    let witness = config.node().witness;
    let Err(error) = keyfile::load_for(&config.cluster.key_file, witness, owner) else { return };
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

/// Only gateways ask etcd, so only they need its files.
fn arbiter(config: &Config, found: &mut Findings) {
    let Some(arbiter) = config.arbiter.as_ref().filter(|_| !config.node().witness) else { return };
    let owner = account(config).map(|account| account.uid());
    let loopback = |host: &str| {
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    };
    let plain = |endpoint: &&config::Endpoint| !endpoint.tls && !loopback(&endpoint.host);
    if let Some(endpoint) = arbiter.endpoints.iter().find(plain) {
        let password = if arbiter.login.is_some() { ", and read the password" } else { "" };
        found.warnings.push(format!(
            "[arbiter] etcd = \"{endpoint}\": without TLS whoever is on the way can vote as etcd{password}"
        ));
    }
    if arbiter.endpoints.iter().any(|endpoint| endpoint.tls)
        && let Err(why) = crate::arbiter::connector(arbiter, owner)
    {
        found.errors.push(format!("[arbiter]: {why}"));
    }
    if let Some((_, file)) = &arbiter.login
        && let Err(why) = crate::arbiter::password(file, owner)
    {
        found.errors.push(format!("[arbiter]: {why}"));
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
        found.errors.extend(access::low_port(config, interface, *port));
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

/// Programs that hooks, claims and checks name.
fn hooks(config: &Config, found: &mut Findings) {
    let hooks = config.hooks.iter().map(|hook| ("hook", &hook.run, hook.user.as_ref()));
    let claims = config.claims.iter().map(|claim| ("claim", &claim.run, claim.user.as_ref()));
    let checks = config.checks.iter().filter_map(|check| match &check.kind {
        CheckKind::Script(run) => Some(("check", run, None)),
        _ => None,
    });
    let all = hooks.chain(claims).chain(checks);
    for (what, program, user) in
        all.filter_map(|(what, run, user)| Some((what, run.first()?, user)))
    {
        match std::fs::metadata(program) {
            Err(e) if not_for_me(&e) => found.unseen.push(format!("{what} {program}: {e}")),
            Err(e) => found.errors.push(format!("{what} {program}: {e}")),
            Ok(meta) if !meta.is_file() => {
                found.errors.push(format!("{what} {program}: is no regular file"));
            }
            Ok(_) => {
                let user = user.or(config.cluster.user.as_ref());
                let user = user.filter(|_| nix::unistd::geteuid().is_root());
                // A user that is not there has been named.
                let account = user.and_then(|name| Account::find(name).ok());
                let result = match &account {
                    Some(account) => access::may(account, Path::new(program), AccessFlags::X_OK),
                    None => access(program.as_str(), AccessFlags::X_OK).map_err(Into::into),
                };
                if result.is_err() {
                    let whom = account.map_or_else(String::new, |account| format!(" by {account}"));
                    found.errors.push(format!("{what} {program}: is not executable{whom}"));
                }
            }
        }
    }
}
