//! Addresses of machines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::config::DEFAULT_PORT;

/// A node's address with port; without one the port is `port`.
pub(in crate::config) fn socket_address(text: &str, port: u16) -> Result<SocketAddr, String> {
    let address = match text.parse::<SocketAddr>() {
        Ok(address) => address,
        Err(_) => SocketAddr::new(bare_address(text)?, port),
    };
    if address.port() == 0 {
        return Err(format!("expected a port of 1 to 65535, found {text:?}"));
    }
    if let SocketAddr::V6(v6) = address
        && v6.scope_id() != 0
    {
        return Err(format!("expected an address without a zone, found {text:?}"));
    }
    unicast(address.ip()).map_err(|why| format!("{why}, found {text:?}"))?;
    Ok(address)
}

/// An address that stands without a port: `10.0.1.10` or `[fd00::1]`.
fn bare_address(text: &str) -> Result<IpAddr, String> {
    if let Ok(v4) = text.parse::<Ipv4Addr>() {
        return Ok(v4.into());
    }
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    if let Some(v6) = inner.and_then(|t| t.parse::<Ipv6Addr>().ok()) {
        return Ok(v6.into());
    }
    // Without brackets nobody can tell whether the last group is the port.
    if !text.starts_with('[') && text.matches(':').count() > 1 {
        return Err(format!(
            "expected an IPv6 address in brackets, such as \"[fd00::1]:{DEFAULT_PORT}\", found {text:?}"
        ));
    }
    Err(format!(
        "expected an IP address and port, such as \"10.0.1.10:{DEFAULT_PORT}\", found {text:?}"
    ))
}

/// Where to listen: an address of this machine, one that it may get later, or all (`0.0.0.0`, `[::]`).
pub(in crate::config) fn listen_address(text: &str, example: &str) -> Result<SocketAddr, String> {
    let expected = || format!("expected an address and port, such as {example:?}, found {text:?}");
    let address: SocketAddr = text.parse().map_err(|_| expected())?;
    let zone = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0);
    if address.port() == 0 || zone || address.ip().is_multicast() {
        return Err(expected());
    }
    if !address.ip().is_unspecified() {
        unicast(address.ip()).map_err(|why| format!("{why}, found {text:?}"))?;
    }
    Ok(address)
}

/// A floating IP; /32 or /128 unless it has a prefix length.
pub(in crate::config) fn floating_ip(text: &str) -> Result<IpNet, String> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => text.parse::<IpAddr>().map(IpNet::from).map_err(|_| {
            format!("expected an IP address, such as \"203.0.113.10/32\", found {text:?}")
        })?,
    };
    unicast(net.addr()).map_err(|why| format!("{why}, found {text:?}"))?;
    if net.addr().is_loopback() {
        return Err(format!("expected an address that other machines can reach, found {text:?}"));
    }
    if net.prefix_len() == 0 {
        return Err(format!("expected a prefix length of 1 or more, found {text:?}"));
    }
    Ok(net)
}

/// A plain address, as in `source`.
pub(in crate::config) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        format!("expected an IP address without port or prefix, such as \"203.0.113.10\", found {text:?}")
    })
}

/// The address of one machine, in `ping`.
pub(in crate::config) fn machine(text: &str) -> Result<IpAddr, String> {
    let address = address(text)?;
    unicast(address).map_err(|why| format!("{why}, found {text:?}"))?;
    Ok(address)
}

/// Refuses what no single machine can be reached by.
fn unicast(address: IpAddr) -> Result<(), &'static str> {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_unspecified() || address.is_multicast() || broadcast {
        return Err("expected the address of one machine");
    }
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Err("expected an address that is not link-local")
        }
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err("expected an IPv4 address to be written as one")
        }
        _ => Ok(()),
    }
}
