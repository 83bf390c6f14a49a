//! `wgha release`: takes off whatever a daemon left on this machine. Run by systemd after every stop,
//! clean or not, and by hand.
//!
//! What there is to undo is in the state directory (`applied.json`); the config is not needed, so
//! that it works after the config was broken or removed.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use ipnet::IpNet;
use tracing::{info, warn};

use crate::config::FloatingIp;
use crate::gateway::ledger::Ledger;
use crate::gateway::scripts;
use crate::log;
use crate::net::{Netlink, address, gate, source};
use crate::state::{Applied, AppliedInterface, StateDir};
use crate::wireguard::port;

/// Undoes what is on record in `state_dir`, verifies it, and says what it did. Exit code 1 if
/// something is left.
///
/// # Errors
///
/// The daemon runs (its state directory is locked), or netlink cannot be used.
pub fn run(state_dir: &Path) -> anyhow::Result<ExitCode> {
    log::start();
    if !state_dir.exists() {
        println!("nothing on record in {}", state_dir.display());
        return Ok(ExitCode::SUCCESS);
    }
    let state = StateDir::open(state_dir)
        .context("nothing was released; stop the daemon first, it releases by itself")?;
    let ledger = Ledger::open(std::sync::Arc::new(state));
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

/// WireGuard down, rules, floating IPs, PostDown, the gate; in this order (design §6). Returns what is left.
async fn undo(netlink: &Netlink, ledger: &Ledger) -> Vec<String> {
    let applied = ledger.applied();
    let (mut left, mut gates) = (Vec::new(), Vec::new());
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
    left.extend(release_addresses(netlink, &applied).await);
    for interface in applied.interfaces.iter().filter(|i| i.post_up_ran) {
        scripts::run_down_lines(&interface.name, &interface.pre_down, &interface.post_down).await;
    }
    for port in &applied.reserved_ports {
        if let Err(e) = port::unreserve(*port) {
            left.push(format!("reserved UDP port {port}: {e}"));
        }
    }
    // Last, and only if nothing acts any more: until then it stands shut in front of what is left.
    for name in applied.gates.iter().filter(|_| left.is_empty()) {
        match gate::remove(name) {
            Ok(true) => println!("nftables table {name} removed"),
            Ok(false) => {}
            Err(e) => gates.push(format!("nftables table {name}: {e}")),
        }
    }
    left.append(&mut gates);
    if left.is_empty()
        && let Err(e) = ledger.update(forget)
    {
        warn!("the record cannot be cleared: {e}");
    }
    left
}

/// The device stays, down: it knows the clients' endpoints, and the time stamps that stop replays.
async fn down(netlink: &Netlink, interface: &AppliedInterface) -> Result<(), String> {
    let name = &interface.name;
    match netlink.link(name).await {
        Ok(None) => return Ok(()),
        Ok(Some(link)) if !link.up => {}
        Ok(Some(_)) => {
            netlink.set_up(name, false).await.map_err(|e| format!("{name}: {e}"))?;
            println!("{name}: down");
        }
        Err(e) => return Err(format!("{name}: {e}")),
    }
    let addresses = netlink.addresses(Some(name)).await.map_err(|e| format!("{name}: {e}"))?;
    for address in addresses {
        // Those of a link that is down are harmless; the next start wants none all the same.
        let _ = netlink.remove_address(name, address.address).await;
    }
    match netlink.link(name).await {
        Ok(Some(link)) if link.up => Err(format!("{name} is up")),
        _ => Ok(()),
    }
}

async fn release_addresses(netlink: &Netlink, applied: &Applied) -> Vec<String> {
    let mut left = Vec::new();
    for entry in &applied.floating_ips {
        let Ok(net) = IpNet::new(entry.address, entry.prefix) else { continue };
        let ip = FloatingIp { address: net, interface: entry.interface.clone() };
        // An interface that is gone took its addresses along.
        if !matches!(netlink.link(&ip.interface).await, Ok(Some(_))) {
            continue;
        }
        match address::release(netlink, &ip).await {
            Ok(true) => println!("{} removed from {}", entry.address, entry.interface),
            Ok(false) => {}
            Err(e) => left.push(format!("{} on {}: {e}", entry.address, entry.interface)),
        }
    }
    left
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
