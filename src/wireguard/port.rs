//! The listen port: kept from the ephemeral range, and seen to be free.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::thread;
use std::time::Duration;

use super::Source;

/// Ports that the kernel must not hand out by itself, of this network namespace.
pub const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Adds the port to `net.ipv4.ip_local_reserved_ports`, keeping what others put there: the default
/// port 51820 lies in the range that any socket may be given. False if it was there.
///
/// # Errors
/// The file cannot be read or written.
pub fn reserve(port: u16) -> io::Result<bool> {
    let _lock = lock()?;
    let before = fs::read_to_string(RESERVED)?;
    match with_reserved(before.trim(), port) {
        Some(after) => fs::write(RESERVED, after).map(|()| true),
        None => Ok(false),
    }
}

/// Takes a port that [`reserve`] added off the list; other entries stay.
///
/// # Errors
/// The file cannot be read or written.
pub fn unreserve(port: u16) -> io::Result<()> {
    let _lock = lock()?;
    let before = fs::read_to_string(RESERVED)?;
    match without_reserved(before.trim(), port) {
        // The kernel takes a lone newline for an empty list, and no bytes at all for no change.
        Some(after) => fs::write(RESERVED, after + "\n"),
        None => Ok(()),
    }
}

/// Keeps another instance of wgha from writing a list without what this one adds (flock(2)), until it is dropped. Whoever holds it for long is
/// no instance, and is not waited for.
fn lock() -> io::Result<File> {
    let file = File::open(RESERVED)?;
    for _ in 0..200 {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(5)),
            Err(TryLockError::Error(e)) => return Err(e),
        }
    }
    Ok(file)
}

/// The list without the port; `None` if it does not hold it. The kernel joins neighbours into
/// ranges, so a range may have to be cut.
fn without_reserved(list: &str, port: u16) -> Option<String> {
    let mut kept = Vec::new();
    let mut found = false;
    for item in items(list) {
        let Some(range) = range(item).filter(|range| range.contains(&port)) else {
            kept.push(item.to_owned());
            continue;
        };
        found = true;
        let below = port.checked_sub(1).map(|last| *range.start()..=last);
        let above = port.checked_add(1).map(|first| first..=*range.end());
        kept.extend([below, above].into_iter().flatten().filter(|r| !r.is_empty()).map(shown));
    }
    found.then(|| kept.join(","))
}

fn shown(range: RangeInclusive<u16>) -> String {
    match range.start() == range.end() {
        true => range.start().to_string(),
        false => format!("{}-{}", range.start(), range.end()),
    }
}

/// The list with the port added; `None` if it is covered.
fn with_reserved(list: &str, port: u16) -> Option<String> {
    if is_reserved(list, port) {
        return None;
    }
    let port = port.to_string();
    Some(items(list).chain([port.as_str()]).collect::<Vec<_>>().join(","))
}

/// Whether a list as in [`RESERVED`] has the port.
#[must_use]
pub fn is_reserved(list: &str, port: u16) -> bool {
    items(list).filter_map(range).any(|range| range.contains(&port))
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn range(item: &str) -> Option<RangeInclusive<u16>> {
    match item.split_once('-') {
        Some((from, to)) => Some(from.trim().parse().ok()?..=to.trim().parse().ok()?),
        None => item.parse().ok().map(|port| port..=port),
    }
}

/// Whether WireGuard could have the UDP port: no socket of this network namespace is bound to it
/// on an address that `source` would need. Opens no socket, so it takes nothing away from anybody.
/// Meaningful while the device is down: its own socket counts as any other.
///
/// # Errors
/// The kernel's list of sockets cannot be read.
pub fn is_free(port: u16, source: Source) -> io::Result<bool> {
    // Of the thread, not of the process: they may live in different network namespaces.
    let v4 = fs::read_to_string("/proc/thread-self/net/udp")?;
    let v6 = match fs::read_to_string("/proc/thread-self/net/udp6") {
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    let any = source == Source::default();
    let wanted_v4 = source.v4.or(any.then_some(Ipv4Addr::UNSPECIFIED)).map(IpAddr::V4);
    let wanted_v6 = source.v6.or(any.then_some(Ipv6Addr::UNSPECIFIED)).map(IpAddr::V6);
    let sockets: Vec<(IpAddr, u16)> =
        v4.lines().chain(v6.lines()).filter_map(local_address).collect();
    let taken = |wanted: IpAddr| sockets.iter().any(|s| s.1 == port && conflict(wanted, s.0));
    Ok(!wanted_v4.into_iter().chain(wanted_v6).any(taken))
}

/// Whether one port on both addresses cannot be had. A socket on `::` may be of both families.
fn conflict(wanted: IpAddr, bound: IpAddr) -> bool {
    match (wanted, bound) {
        (_, IpAddr::V6(any)) if any.is_unspecified() => true,
        (IpAddr::V4(_), IpAddr::V6(v6)) => {
            v6.to_ipv4_mapped().is_some_and(|v4| conflict(wanted, IpAddr::V4(v4)))
        }
        (IpAddr::V6(_), IpAddr::V4(_)) => false,
        (wanted, bound) => wanted == bound || wanted.is_unspecified() || bound.is_unspecified(),
    }
}

/// The second column of a line of /proc/net/udp: `0100007F:CA6C`, words in host order.
fn local_address(line: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = line.split_whitespace().nth(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok();
    let address = match address.len() {
        8 => IpAddr::from(word(0)?.to_ne_bytes()),
        32 => {
            let mut octets = [0; 16];
            for (at, chunk) in octets.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?.to_ne_bytes());
            }
            IpAddr::from(octets)
        }
        _ => return None,
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserving_keeps_what_is_there() {
        let table = [
            ("", 51820, Some("51820")),
            ("51820", 51820, None),
            ("8080,50000-52000", 51820, None),
            ("8080,50000-51000", 51820, Some("8080,50000-51000,51820")),
            ("8080", 51820, Some("8080,51820")),
        ];
        for (before, port, after) in table {
            assert_eq!(with_reserved(before, port).as_deref(), after, "{before}");
        }
    }

    #[test]
    fn sockets_of_the_kernels_list() {
        let v4 = "  123: 0100007F:CA6C 00000000:0000 07 00000000:00000000 00:00000000 00000000";
        let v6 = "  1: 00000000000000000000000001000000:CA6C 0:0 07";
        let loopback = |ip: &str| Some((ip.parse().unwrap(), 51820));
        if cfg!(target_endian = "little") {
            assert_eq!(local_address(v4), loopback("127.0.0.1"));
            assert_eq!(local_address(v6), loopback("::1"));
        }
        assert_eq!(local_address("  sl  local_address rem_address   st tx_queue rx_queue"), None);
        assert_eq!(local_address(""), None);
    }

    #[test]
    fn which_sockets_stand_in_the_way() {
        let table = [
            ("0.0.0.0", "10.0.0.1", true),
            ("10.0.0.1", "0.0.0.0", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.1", "::", true),
            ("10.0.0.1", "::1", false),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("fd00::1", "0.0.0.0", false),
            ("fd00::1", "::", true),
            ("::", "fd00::1", true),
        ];
        for (wanted, bound, expected) in table {
            let got = conflict(wanted.parse().unwrap(), bound.parse().unwrap());
            assert_eq!(got, expected, "{wanted} beside {bound}");
        }
    }

    #[test]
    fn a_bound_port_is_not_free() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(!is_free(port, Source::default()).unwrap());
        let elsewhere = Source { v4: Some(Ipv4Addr::new(127, 9, 9, 9)), v6: None };
        assert!(is_free(port, elsewhere).unwrap());
        drop(socket);
        assert!(is_free(port, Source::default()).unwrap());
    }
}
