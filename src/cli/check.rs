//! `wgha check`: what is wrong, what could be better, and what follows from the config.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use humantime::format_duration;

use super::{Global, exit, print};
use crate::config::{BackendChoice, Config, Findings, Machine, Node, System, examine};
use crate::link::floating_routes;
use crate::wireguard;

/// Reads everything that the config names; errors go to standard error.
pub(super) fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let config = match Config::load(&global.config, global.node.as_deref()) {
        Ok(config) => config,
        Err(errors) => {
            print_errors(&errors.to_string());
            return Ok(ExitCode::from(exit::FAILED));
        }
    };
    let mut found = examine(&config, &System);
    if !config.node().witness && !config.wireguard.is_empty() {
        backends(&config, &mut found)?;
    }
    print(&report(&config, global.node.as_deref(), &System, &found))?;
    for error in &found.errors {
        print_errors(&format!("error: {error}"));
    }
    let code = if found.errors.is_empty() { exit::DONE } else { exit::FAILED };
    Ok(ExitCode::from(code))
}

/// Whether this machine has the WireGuard that each `[[wireguard]]` asks for.
fn backends(config: &Config, found: &mut Findings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let kernel = runtime.block_on(wireguard::kernel_available());
    let tun = Path::new("/dev/net/tun").exists();
    for wireguard in &config.wireguard {
        if let Err(why) = backend(wireguard.backend, kernel, tun) {
            found.errors.push(format!("{}: {why}", wireguard.interface));
        } else if wireguard.backend == BackendChoice::Auto && !kernel {
            found.warnings.push(format!(
                "{}: this kernel has no WireGuard, so wgha's own serves up to {} peers; the other \
                 gateway must use the same",
                wireguard.interface,
                wireguard::EMBEDDED_PEERS,
            ));
        }
    }
    Ok(())
}

fn backend(choice: BackendChoice, kernel: bool, tun: bool) -> Result<(), &'static str> {
    match choice {
        BackendChoice::Kernel if !kernel => {
            Err("backend \"kernel\": this kernel has no WireGuard (module wireguard)")
        }
        BackendChoice::Embedded if !tun => {
            Err("backend \"embedded\": there is no /dev/net/tun (module tun)")
        }
        BackendChoice::Auto if !kernel && !tun => {
            Err("neither the kernel's WireGuard (module wireguard) nor /dev/net/tun (module tun)")
        }
        _ => Ok(()),
    }
}

fn print_errors(text: &str) {
    // Nowhere is left to say that standard error is closed; the exit code tells.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Everything but the errors.
fn report(config: &Config, node: Option<&str>, machine: &dyn Machine, found: &Findings) -> String {
    let mut parts = vec![summary(config, node, machine), failover(config)];
    parts.push(firewall(config, found));
    parts.push(list("Warnings", &found.warnings));
    parts.push(list("Not looked at", &found.unseen));
    parts.push(verdict(found));
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

fn summary(config: &Config, node: Option<&str>, machine: &dyn Machine) -> String {
    let kind = |node: &Node| if node.witness { "witness" } else { "gateway" };
    let me = config.node();
    let why = config.found(node, machine).map_or_else(String::new, |found| format!(" ({found})"));
    let mut text = format!(
        "{}\n  cluster   {}\n  node      {}, a {}{why}\n",
        config.path.display(),
        config.cluster.name,
        me.name,
        kind(me)
    );
    for peer in config.peers() {
        line(&mut text, &format!("peer      {}, a {}", peer.name, kind(peer)));
    }
    for floating in &config.floating_ips {
        line(&mut text, &format!("floating  {} on {}", floating.address, floating.interface));
    }
    for wireguard in &config.wireguard {
        let source: Vec<String> = wireguard.source.iter().map(ToString::to_string).collect();
        let source = if source.is_empty() { "any address".to_owned() } else { source.join(", ") };
        line(&mut text, &format!("tunnel    {}, packets leave from {source}", wireguard.interface));
    }
    let preempt = config.cluster.preempt.map_or_else(
        || "off: whoever is master stays".to_owned(),
        |delay| format!("on: a higher priority takes over after {}", format_duration(delay)),
    );
    line(&mut text, &format!("preempt   {preempt}"));
    text
}

fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  {line}");
}

/// The longest time from the loss of the master until the last of the candidates acts.
fn failover(config: &Config) -> String {
    let heartbeat = config.cluster.heartbeat;
    // One gateway is the master that was lost, one is the best candidate, of rank 0.
    let worst_rank = u32::try_from(config.gateways().count().saturating_sub(2)).unwrap_or(0);
    let rank_wait = heartbeat / 4 * worst_rank;
    // docs/guarantees.md: the voters are asked, and answer.
    let (between, why, trips) = if config.needs_majority() {
        let why = "at most one heartbeat and a half: between two of the master, and of one that asks again";
        (heartbeat * 3 / 2, why, "two round trips")
    } else {
        (
            heartbeat,
            "at most one heartbeat: the master was lost between two of them",
            "one round trip",
        )
    };
    let worst = format_duration(config.detection() + rank_wait + between);
    let mut text = format!("Worst case until another gateway takes over: {worst} and {trips}\n");
    let mut part =
        |time: Duration, why: &str| line(&mut text, &format!("{}  {why}", format_duration(time)));
    let (misses, each) = (config.cluster.misses, format_duration(heartbeat));
    part(config.detection(), &format!("{misses} heartbeats of {each} missed"));
    if worst_rank > 0 {
        part(
            rank_wait,
            &format!(
                "wait of the gateway of rank {worst_rank}, if the better ones are lost too \
                 (more if a round trip is longer than a sixth of a heartbeat)"
            ),
        );
    }
    part(between, why);
    text
}

/// What packet filters on and between the machines must let pass.
fn firewall(config: &Config, found: &Findings) -> String {
    let mut text = "Firewalls must let pass\n".to_owned();
    for (i, a) in config.nodes.iter().enumerate() {
        for b in config.nodes.iter().skip(i + 1) {
            heartbeats(&mut text, a, b);
        }
    }
    for (a, b) in pairs_by_name(config) {
        for to in &b.addresses {
            let path = format!("TCP {} -> {}  (sync, {} to {})", hosts(a), to.send, a.name, b.name);
            line(&mut text, &path);
        }
    }
    let routes = config.gateways().flat_map(|node| floating_routes(config, node));
    for to in routes.map(|(_, to)| to).collect::<BTreeSet<_>>() {
        line(&mut text, &format!("UDP all nodes -> {to}  (heartbeats, on the clients' way)"));
    }
    for (what, listen) in [("http", config.http), ("probe", config.probe)] {
        if let Some(listen) = listen.filter(|listen| !listen.ip().is_loopback()) {
            line(&mut text, &format!("TCP monitors -> {listen}  ({what})"));
        }
    }
    for endpoint in config.arbiter.iter().flat_map(|arbiter| &arbiter.endpoints) {
        line(&mut text, &format!("TCP gateways -> {endpoint}  (etcd)"));
    }
    for (wireguard, port) in config.wireguard.iter().zip(&found.listen_ports) {
        let Some(port) = port else { continue };
        let interface = &wireguard.interface;
        if wireguard.source.is_empty() {
            line(&mut text, &format!("UDP any <-> port {port} of the gateways  ({interface})"));
        }
        for source in &wireguard.source {
            let to = std::net::SocketAddr::new(*source, *port);
            line(&mut text, &format!("UDP any <-> {to}  ({interface})"));
        }
    }
    text
}

/// All pairs of gateways; the one whose name sorts first connects to the other.
fn pairs_by_name(config: &Config) -> Vec<(&Node, &Node)> {
    let mut gateways: Vec<&Node> = config.gateways().collect();
    gateways.sort_by(|a, b| a.name.cmp(&b.name));
    let later = |i: usize| gateways.iter().skip(i + 1).copied().collect::<Vec<_>>();
    let pairs =
        gateways.iter().enumerate().flat_map(|(i, a)| later(i).into_iter().map(|b| (*a, b)));
    pairs.collect()
}

/// The addresses of a node, without ports.
fn hosts(node: &Node) -> String {
    let hosts: Vec<String> = node.addresses.iter().map(|a| a.send.ip().to_string()).collect();
    hosts.join(", ")
}

/// Every path between two nodes, both ways.
fn heartbeats(text: &mut String, a: &Node, b: &Node) {
    for from in &a.addresses {
        for to in b.addresses.iter().filter(|to| to.send.is_ipv4() == from.send.is_ipv4()) {
            let mut path =
                format!("UDP {} <-> {}  (heartbeats {}, {}", from.send, to.send, a.name, b.name);
            for address in [from, to].into_iter().filter(|address| address.send != address.bind) {
                let _ = write!(path, "; {} is {} behind the NAT", address.send, address.bind);
            }
            path.push(')');
            line(text, &path);
        }
    }
}

fn list(title: &str, lines: &[String]) -> String {
    let mut text = String::new();
    if !lines.is_empty() {
        text = format!("{title}\n");
        for each in lines {
            line(&mut text, each);
        }
    }
    text
}

fn verdict(found: &Findings) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let (errors, warnings) = (found.errors.len(), found.warnings.len());
    format!("{}, {}\n", count(errors, "error"), count(warnings, "warning"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use BackendChoice::{Auto, Embedded, Kernel};

    /// (choice, kernel has WireGuard, /dev/net/tun exists) and whether an error names what is missing.
    #[test]
    fn backends_that_this_machine_lacks() {
        for (choice, kernel, tun, missing) in [
            (Auto, true, true, None),
            (Auto, true, false, None),
            (Auto, false, true, None),
            (Auto, false, false, Some("neither")),
            (Kernel, true, false, None),
            (Kernel, false, true, Some("backend \"kernel\"")),
            (Embedded, false, true, None),
            (Embedded, true, false, Some("backend \"embedded\"")),
        ] {
            let result = backend(choice, kernel, tun);
            match missing {
                None => assert_eq!(result, Ok(()), "{choice:?} {kernel} {tun}"),
                Some(start) => assert!(result.unwrap_err().starts_with(start), "{choice:?}"),
            }
        }
    }
}
