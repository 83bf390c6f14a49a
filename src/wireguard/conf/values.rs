//! Values of single keys.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::Table;

/// A name from the file, cut to a length that a message can hold.
pub(super) fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(32).collect()
}

pub(super) fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// `ADDRESS` or `ADDRESS/LENGTH`.
pub(super) fn net(item: &str) -> Option<IpNet> {
    if item.contains('/') {
        return item.parse().ok();
    }
    item.parse::<IpAddr>().ok().map(IpNet::from)
}

pub(super) fn bad_net(item: &str) -> String {
    format!("expected ADDRESS or ADDRESS/LENGTH, found {:?}", shown(item))
}

pub(super) fn fwmark(value: &str) -> Result<u32, &'static str> {
    if value.eq_ignore_ascii_case("off") {
        return Ok(0);
    }
    let hex = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X"));
    hex.map_or_else(|| value.parse().ok(), |digits| u32::from_str_radix(digits, 16).ok())
        .ok_or("expected off, a number, or 0x and a hexadecimal number, below 2^32")
}

/// 576 is the least that IPv4 must carry, 65455 the most that fits WireGuard's packets.
pub(super) fn mtu(value: &str) -> Result<u32, &'static str> {
    value
        .parse()
        .ok()
        .filter(|mtu| (576..=65_455).contains(mtu))
        .ok_or("expected a number of bytes, 576 to 65455")
}

pub(super) fn table(value: &str) -> Result<Table, &'static str> {
    match value.to_ascii_lowercase().as_str() {
        "auto" => Ok(Table::Auto),
        "off" => Ok(Table::Off),
        "main" => Ok(Table::Number(254)),
        "default" => Ok(Table::Number(253)),
        "local" => Ok(Table::Number(255)),
        number => match number.parse() {
            Ok(n) if n > 0 => Ok(Table::Number(n)),
            _ => Err("expected auto, off, main, or the number of a table"),
        },
    }
}

pub(super) fn save_config(value: &str) -> Result<(), &'static str> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Err("must not be true: wgha never writes this file, and the nodes' copies \
                       would differ"),
        "false" => Ok(()),
        _ => Err("expected true or false"),
    }
}

pub(super) fn keepalive(value: &str) -> Result<u16, &'static str> {
    if value.eq_ignore_ascii_case("off") {
        return Ok(0);
    }
    value.parse().or(Err("expected off or a number of seconds, 0 to 65535"))
}

fn is_name(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        && !host.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

fn is_port(port: &str) -> bool {
    port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// `Some(None)` is a name, which is not resolved.
pub(super) fn endpoint(value: &str) -> Option<Option<SocketAddr>> {
    if let Ok(address) = value.parse::<SocketAddr>() {
        return (address.port() != 0).then_some(Some(address));
    }
    let (host, port) = value.rsplit_once(':')?;
    (is_name(host) && is_port(port)).then_some(None)
}
