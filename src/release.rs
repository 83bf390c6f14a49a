//! `wgha release`: takes off whatever a daemon left on this machine. Run by systemd after every stop,
//! clean or not, and by hand.
//!
//! What there is to undo is in the state directory (`applied.json`); the config is not needed, so
//! that it works after the config was broken or removed. Only where the record itself is damaged the config says what
//! there may be.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use ipnet::IpNet;
use tracing::{info, warn};

use crate::config::{Config, FloatingIp, Places};
use crate::gateway::ledger::{self, Ledger};
use crate::gateway::scripts;
use crate::log;
use crate::net::{NetError, Netlink, address, gate, source};
use crate::state::{Applied, AppliedInterface, StateDir};
use crate::wireguard::conf::WgConf;
use crate::wireguard::port;

/// Undoes what is on record in the state directory of the config at `config`, verifies it, and says what it did. Exit code 1 if
/// something is left.
///
/// # Errors
///
/// The daemon runs (its state directory is locked), or netlink cannot be used; or the record is damaged, and the config as well.
pub fn run(config: &Path, node: Option<&str>) -> anyhow::Result<ExitCode> {
    log::start();
    let state_dir = &Places::of(config).state_dir;
    if !state_dir.exists() {
        println!("nothing on record in {}", state_dir.display());
        return Ok(ExitCode::SUCCESS);
    }
    let state = StateDir::open(state_dir)
        .context("nothing was released; stop the daemon first, it releases by itself")?;
    let ledger = Ledger::open(Arc::new(state), || by_config(config, node))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let left = runtime.block_on(async {
        let netlink = Netlink::open()?;
        anyhow::Ok(undo(&netlink, &ledger).await)
    })?;
    for what in &left {
        eprintln!("wgha: still there: {what}");
    }
    if left.is_empty() {
        println!("released");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

fn by_config(path: &Path, node: Option<&str>) -> anyhow::Result<Applied> {
    let config = Config::load(path, node)
        .context("the record of what was put up is damaged, so the config would have to say it")?;
    Ok(ledger::by_config(&config, |entry| {
        WgConf::load(&entry.interface, &entry.config).ok().map(|file| file.conf.listen_port)
    }))
}

/// WireGuard down, rules, floating IPs, PostDown, the gate; in this order (design §6). Returns what is left.
async fn undo(netlink: &Netlink, ledger: &Ledger) -> Vec<String> {
    let left = silence(netlink, &ledger.applied()).await;
    tidy(ledger, left).await
}

/// Takes off what acts: the gate shut, WireGuard down, rules, floating IPs; in this order. Returns what a look finds to
/// act still, or could not find out. Runs nothing and waits for no disk: a successor may wait for it.
pub async fn silence(netlink: &Netlink, applied: &Applied) -> Vec<String> {
    let mut left = Vec::new();
    for name in &applied.gates {
        left.extend(gate::shut(name).err().map(|e| format!("gate {name}: {e}")));
    }
    for interface in &applied.interfaces {
        left.extend(down(netlink, interface).await.err());
    }
    for port in applied.interfaces.iter().filter_map(|i| i.listen_port) {
        match source::purge(netlink, port).await {
            Ok(true) => info!("rules of UDP port {port} removed"),
            Ok(false) => {}
            Err(e) => left.push(format!("rules of UDP port {port}: {e}")),
        }
    }
    left.extend(release_addresses(netlink, applied).await);
    left
}

/// The rest, which hurts nobody while it stands: PreDown and PostDown, reserved ports, and, if nothing is left, the
/// gate and the record. `left`: what [`silence`] returned. Returns all that is left.
pub async fn tidy(ledger: &Ledger, mut left: Vec<String>) -> Vec<String> {
    let applied = ledger.applied();
    for interface in applied.interfaces.iter().filter(|i| i.post_up_ran) {
        scripts::run_down_lines(&interface.name, &interface.pre_down, &interface.post_down).await;
    }
    for port in &applied.reserved_ports {
        if let Err(e) = port::unreserve(*port) {
            left.push(format!("reserved UDP port {port}: {e}"));
        }
    }
    // Last, and only if nothing acts any more: until then it stands shut in front of what is left.
    if left.is_empty() {
        left.extend(applied.gates.iter().filter_map(|name| remove_gate(name).err()));
    }
    if left.is_empty()
        && let Err(e) = ledger.update(forget)
    {
        warn!("the record cannot be cleared: {e}");
    }
    left
}

fn remove_gate(name: &str) -> Result<(), String> {
    if gate::remove(name).map_err(|e| format!("nftables table {name}: {e}"))? {
        say(&format!("nftables table {name} removed"));
    }
    Ok(())
}

/// The device stays, down: it knows the clients' endpoints, and the time stamps that stop replays.
async fn down(netlink: &Netlink, interface: &AppliedInterface) -> Result<(), String> {
    let name = &interface.name;
    let Err(why) = take_down(netlink, name).await else { return Ok(()) };
    match netlink.link(name).await {
        // Meanwhile: the embedded backend's device goes with its process.
        Ok(None) => Ok(()),
        Ok(Some(_)) | Err(_) => Err(format!("{name}: {why}")),
    }
}

async fn take_down(netlink: &Netlink, name: &str) -> Result<(), NetError> {
    let Some(link) = netlink.link(name).await? else { return Ok(()) };
    if link.up {
        netlink.set_up(name, false).await?;
        say(&format!("{name}: down"));
    }
    for address in netlink.addresses(Some(name)).await? {
        // Those of a link that is down are harmless; the next start wants none all the same.
        let _ = netlink.remove_address(name, address.address).await;
    }
    match netlink.link(name).await? {
        Some(link) if link.up => Err(NetError::DidNotStay("the state of the link".to_owned())),
        _ => Ok(()),
    }
}

async fn release_addresses(netlink: &Netlink, applied: &Applied) -> Vec<String> {
    let mut left = Vec::new();
    for entry in &applied.floating_ips {
        let Ok(net) = IpNet::new(entry.address, entry.prefix) else { continue };
        let ip = FloatingIp { address: net, interface: entry.interface.clone() };
        if let Err(why) = release_address(netlink, &ip).await {
            left.push(format!("{} on {}: {why}", entry.address, entry.interface));
        }
    }
    left
}

async fn release_address(netlink: &Netlink, ip: &FloatingIp) -> Result<(), String> {
    // An interface that is gone took its addresses along.
    if !address::release(netlink, ip).await.map_err(|e| e.to_string())? {
        return Ok(());
    }
    say(&format!("{} removed from {}", ip.address.addr(), ip.interface));
    match address::held(netlink, ip).await {
        Ok(false) => Ok(()),
        Ok(true) => Err("somebody else put it back".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

/// One line for whoever runs `wgha release`. That nobody reads it is no reason to leave anything standing: a
/// guard may have outlived the program that its output went to.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Keeps only which backend was chosen first, and that PreUp ran on a device that stays.
fn forget(record: &mut Applied) {
    record.floating_ips.clear();
    record.reserved_ports.clear();
    record.gates.clear();
    for interface in &mut record.interfaces {
        interface.post_up_ran = false;
        interface.pre_down.clear();
        interface.post_down.clear();
    }
}
