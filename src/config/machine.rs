//! What reading a config needs to know of the machine it runs on.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::ifaddrs::getifaddrs;

use crate::bounded;

/// The machine, as far as configuration depends on it. Tests bring their own.
pub trait Machine {
    /// `WGHA_NODE`, if it is set and not empty.
    fn node_variable(&self) -> Option<String>;

    /// The host's name.
    fn hostname(&self) -> Option<String>;

    /// Every address of every interface.
    ///
    /// # Errors
    /// If the system does not tell.
    fn addresses(&self) -> io::Result<Vec<IpAddr>>;

    /// The names of all interfaces.
    ///
    /// # Errors
    /// If the system does not tell.
    fn interfaces(&self) -> io::Result<BTreeSet<String>>;

    /// The interfaces with a default route in the main table: of IPv6 if `v6`, else of IPv4.
    ///
    /// # Errors
    /// If the system does not tell.
    fn default_routes(&self, v6: bool) -> io::Result<BTreeSet<String>>;

    /// The text of a small file of the system, such as one in `/proc/sys`.
    ///
    /// # Errors
    /// If it cannot be read or is longer than 64 KiB.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// The paths of a directory's entries, in no order.
    ///
    /// # Errors
    /// If it cannot be read.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
}

/// This machine.
#[derive(Clone, Copy, Debug)]
pub struct System;

impl Machine for System {
    fn node_variable(&self) -> Option<String> {
        std::env::var("WGHA_NODE").ok().filter(|name| !name.is_empty())
    }

    fn hostname(&self) -> Option<String> {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
        Some(name.trim_end().to_owned())
    }

    fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        let storage = getifaddrs()?.filter_map(|interface| interface.address);
        Ok(storage
            .filter_map(|address| {
                let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
            })
            .collect())
    }

    fn interfaces(&self) -> io::Result<BTreeSet<String>> {
        Ok(nix::net::if_::if_nameindex()?
            .iter()
            .map(|interface| interface.name().to_string_lossy().into_owned())
            .collect())
    }

    fn default_routes(&self, v6: bool) -> io::Result<BTreeSet<String>> {
        if v6 {
            let routes = read_routes("/proc/thread-self/net/ipv6_route")?;
            Ok(routes.lines().filter_map(default_v6).map(str::to_owned).collect())
        } else {
            let routes = read_routes("/proc/thread-self/net/route")?;
            Ok(routes.lines().filter_map(default_v4).map(str::to_owned).collect())
        }
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        bounded::text(&File::open(path)?, MAX_FILE)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
    }
}

/// The longest file of the system that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// The kernel's list of routes; empty where the kernel has no such protocol.
fn read_routes(path: &str) -> io::Result<String> {
    match std::fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

/// The interface of a default route, from a line of `/proc/net/route`:
/// `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`.
fn default_v4(line: &str) -> Option<&str> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let is_default = *fields.get(1)? == "00000000" && *fields.get(7)? == "00000000";
    // An unreachable default has no interface: "*".
    (is_default && fields.first() != Some(&"*")).then(|| fields[0])
}

/// The same from a line of `/proc/net/ipv6_route`:
/// `destination length source length gateway metric refs use flags interface`.
fn default_v6(line: &str) -> Option<&str> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let zero = |field: &str| field.bytes().all(|b| b == b'0');
    let is_default = zero(fields.first()?) && *fields.get(1)? == "00";
    let interface = *fields.get(9)?;
    // The kernel's own "unreachable" entry of last resort stands on lo.
    (is_default && interface != "lo").then_some(interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_found_in_the_kernels_lists() {
        let v4 = "eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0";
        assert_eq!(default_v4(v4), Some("eth0"));
        let on_link = "eth0\t0001000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0";
        assert_eq!(default_v4(on_link), None);
        assert_eq!(default_v4("Iface\tDestination\tGateway \tFlags"), None);
        assert_eq!(default_v4("*\t00000000\t00000000\t0200\t0\t0\t100\t00000000\t0\t0\t0"), None);

        let zero = "0".repeat(32);
        let gateway = "fe800000000000000000000000000001";
        let rest = "00000400 00000001 00000000 00000003";
        let v6 = format!("{zero} 00 {zero} 00 {gateway} {rest} eth0");
        assert_eq!(default_v6(&v6), Some("eth0"));
        let last_resort = format!("{zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200 lo");
        assert_eq!(default_v6(&last_resort), None);
        let net = format!("{gateway} 40 {zero} 00 {zero} {rest} eth0");
        assert_eq!(default_v6(&net), None);
    }

    #[test]
    fn this_machine_has_a_loopback() {
        assert!(System.interfaces().unwrap().contains("lo"));
        let loopback = |a: &IpAddr| a.is_loopback();
        assert!(System.addresses().unwrap().iter().any(loopback));
    }
}
