//! `wgha release`: takes off whatever a daemon left on this machine. Run by systemd after every stop,
//! clean or not, and by hand.
//!
//! What there is to undo is in the state directory (`applied.json`); the config is not needed, so
//! that it works after the config was broken or removed. Only where the record itself is damaged, or cannot be read, the config
//! says what there may be.

use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use ipnet::IpNet;
use tracing::{info, warn};

use crate::config::{Config, FloatingIp, Places};
use crate::gateway::ledger::{self, Ledger};
use crate::gateway::scripts;
use crate::log;
use crate::net::{NetError, Netlink, address, barrier, gate, source};
use crate::state::{Applied, AppliedInterface, StateDir, StateError};
use crate::user;
use crate::wireguard::conf::WgConf;
use crate::wireguard::port;

/// Undoes what is on record in the state directory of the config at `config`, verifies it, and says what it did. Exit code 1 if
/// something is left, or may be, as the record cannot be read.
///
/// # Errors
///
/// The daemon runs (its state directory is locked), or netlink cannot be used; or the record is damaged, or cannot be read, and the
/// config as well.
pub fn run(config: &Path, node: Option<&str>) -> anyhow::Result<ExitCode> {
    log::start();
    let state_dir = &Places::of(config).state_dir;
    // What cannot be looked at is there.
    if matches!(state_dir.try_exists(), Ok(false)) {
        println!("nothing on record in {}", state_dir.display());
        return Ok(ExitCode::SUCCESS);
    }
    // The lines on record are that user's, and run as nobody else.
    user::as_owner_of(state_dir).context("nothing was released")?;
    let state = match StateDir::open(state_dir) {
        Err(why @ StateError::Io { .. }) => return without_record(config, node, &why),
        // In use.
        opened => {
            opened.context("nothing was released; stop the daemon first, it releases by itself")?
        }
    };
    let ledger = Ledger::open(Arc::new(state), || anyhow::Ok(puts_up(&load(config, node)?)))?;
    let left = with_netlink(async |netlink| undo(netlink, &ledger).await)?;
    tell(&left);
    if left.is_empty() {
        println!("released");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

/// The record cannot be read, as the disk may be gone: takes off at least what acts of all that the config names.
fn without_record(path: &Path, node: Option<&str>, why: &StateError) -> anyhow::Result<ExitCode> {
    let config = load(path, node).with_context(|| format!("nothing was released: {why}"))?;
    // Nor can the lock say whether the daemon runs.
    match UnixStream::connect(&config.control_socket) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
        Ok(_) => bail!("nothing was released: {why}; and the daemon runs: stop it first"),
        Err(e) => bail!("nothing was released: {why}; and whether the daemon runs: {e}"),
    }
    let named = puts_up(&config);
    let left = with_netlink(async |netlink| silence(netlink, &named).await)?;
    tell(&left);
    eprintln!(
        "wgha: {why}: what is on record is not known, so only what the config names was taken off"
    );
    Ok(ExitCode::FAILURE)
}

fn load(path: &Path, node: Option<&str>) -> anyhow::Result<Config> {
    Config::load(path, node)
        .context("the record of what was put up cannot be used, so the config would have to say it")
}

fn puts_up(config: &Config) -> Applied {
    ledger::by_config(config, |entry| {
        WgConf::load(&entry.interface, &entry.config).ok().map(|file| file.conf.listen_port)
    })
}

fn with_netlink<T>(work: impl AsyncFnOnce(&Netlink) -> T) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { anyhow::Ok(work(&Netlink::open()?).await) })
}

fn tell(left: &[String]) {
    for what in left {
        eprintln!("wgha: still there: {what}");
    }
}

/// WireGuard down, rules, floating IPs, PostDown, the gate; in this order. Returns what is left.
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
        match source::purge_rules(netlink, port).await {
            Ok(true) => info!("rules of UDP port {port} removed"),
            Ok(false) => {}
            Err(e) => left.push(format!("rules of UDP port {port}: {e}")),
        }
    }
    left.extend(release_addresses(netlink, applied).await);
    left
}

/// The rest, which hurts nobody while it stands: PreDown and PostDown, reserved ports, and, if nothing is left, the
/// gate, the barriers of WireGuard's ports and the record. `left`: what [`silence`] returned. Returns all that is left.
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
    // Last, and only if nothing acts any more: until then they stand shut in front of what is left.
    if left.is_empty() {
        for port in applied.listen_ports() {
            if barrier::remove(port) {
                say(&format!("nftables table {} removed", barrier::table_of(port)));
            }
        }
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
