//! Single values: text in, type out, or what was expected.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::{BackendChoice, DEFAULT_PORT, HookState, QuorumChoice, SyncFile};

/// The longest name of an interface, in bytes (the kernel's `IFNAMSIZ` less its end mark).
const MAX_INTERFACE: usize = 15;

/// The longest path of a unix socket, in bytes (`sun_path` less its end mark).
pub(super) const MAX_SOCKET_PATH: usize = 107;

const NAME: &str = "1 to 64 letters, digits, '.', '_' or '-'";

/// The name of a cluster, a node or an instance.
pub(super) fn name(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && text != "."
        && text != "..";
    if fits { Ok(text.to_owned()) } else { Err(format!("expected {NAME}, found {text:?}")) }
}

/// A duration between two bounds, as `"200ms"`.
pub(super) fn duration(text: &str, low: Duration, high: Duration) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(d) if (low..=high).contains(&d) => Ok(d),
        _ => Err(format!("expected {}, found {text:?}", duration_expected(low, high))),
    }
}

/// What [`duration`] expects.
pub(super) fn duration_expected(low: Duration, high: Duration) -> String {
    let (low, high) = (humantime::format_duration(low), humantime::format_duration(high));
    format!("a duration of {low} to {high}, such as \"200ms\"")
}

/// An absolute path.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') && !text.contains('\0') && text.len() < 4096 {
        Ok(PathBuf::from(text))
    } else {
        Err(format!("expected an absolute path, found {text:?}"))
    }
}

/// The longest path of a synced file, in bytes: it goes over the wire with each version.
const MAX_SYNC_PATH: usize = 512;

/// One entry of `[sync] files`.
pub(super) fn sync_file(text: &str) -> Result<SyncFile, String> {
    let inner = text.strip_suffix('/').unwrap_or(text);
    let mut parts = inner.split('/');
    let absolute = parts.next() == Some("") && inner.len() > 1;
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if text.len() > MAX_SYNC_PATH || !absolute || !parts.all(plain) {
        return Err(format!(
            "expected an absolute path of at most {MAX_SYNC_PATH} bytes, without \".\" and \"..\", \
             found {text:?}"
        ));
    }
    Ok(SyncFile { path: PathBuf::from(inner), directory: inner.len() < text.len() })
}

/// The absolute path of a unix socket.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, String> {
    if text.len() > MAX_SOCKET_PATH {
        return Err(format!("expected a path of at most {MAX_SOCKET_PATH} bytes, found {text:?}"));
    }
    path(text)
}

/// The name of an interface that the kernel would accept.
pub(super) fn interface(text: &str) -> Result<String, String> {
    let bad = |b: u8| b.is_ascii_whitespace() || b.is_ascii_control() || b"/:%".contains(&b);
    let fits = (1..=MAX_INTERFACE).contains(&text.len())
        && !text.bytes().any(bad)
        && text != "."
        && text != "..";
    if fits {
        return Ok(text.to_owned());
    }
    Err(format!("expected an interface name of 1 to {MAX_INTERFACE} bytes, found {text:?}"))
}

/// The name of a WireGuard interface, with the letters that wg-quick(8) allows.
pub(super) fn wireguard_interface(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_=+.-".contains(&b);
    if !text.bytes().all(allowed) {
        return Err(format!("expected letters, digits and _=+.- alone, found {text:?}"));
    }
    interface(text)
}

/// A node's address with port; without one the port is `port`.
pub(super) fn socket_address(text: &str, port: u16) -> Result<SocketAddr, String> {
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
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let expected =
        || format!("expected an address and port, such as \"127.0.0.1:9112\", found {text:?}");
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
pub(super) fn floating_ip(text: &str) -> Result<IpNet, String> {
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
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        format!("expected an IP address without port or prefix, such as \"203.0.113.10\", found {text:?}")
    })
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

/// `backend`.
pub(super) fn backend(text: &str) -> Result<BackendChoice, String> {
    match text {
        "auto" => Ok(BackendChoice::Auto),
        "kernel" => Ok(BackendChoice::Kernel),
        "embedded" => Ok(BackendChoice::Embedded),
        _ => Err(format!("expected \"auto\", \"kernel\" or \"embedded\", found {text:?}")),
    }
}

/// One word of a hook's `on`.
pub(super) fn hook_state(text: &str) -> Result<HookState, String> {
    match text {
        "master" => Ok(HookState::Master),
        "backup" => Ok(HookState::Backup),
        "fault" => Ok(HookState::Fault),
        "stop" => Ok(HookState::Stop),
        _ => Err(format!("expected \"master\", \"backup\", \"fault\" or \"stop\", found {text:?}")),
    }
}

/// `quorum`.
pub(super) fn quorum(text: &str) -> Result<QuorumChoice, String> {
    match text {
        "auto" => Ok(QuorumChoice::Auto),
        "majority" => Ok(QuorumChoice::Majority),
        "none" => Ok(QuorumChoice::None),
        _ => Err(format!("expected \"auto\", \"majority\" or \"none\", found {text:?}")),
    }
}

/// `gate`: whether it is used where there is one.
pub(super) fn gate(text: &str) -> Result<bool, String> {
    match text {
        "auto" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("expected \"auto\" or \"off\", found {text:?}")),
    }
}

/// `dead_man`: whether floating IPs have a lifetime.
pub(super) fn dead_man(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("expected \"on\" or \"off\", found {text:?}")),
    }
}
