//! Checks of this machine's interfaces, and of who answers pings.

use std::net::IpAddr;
use std::time::Duration;

use super::Found;
use crate::net::{Link, Netlink, ping as icmp};

/// It answers an echo request.
pub(super) async fn ping(address: IpAddr) -> Found {
    match icmp::echo(address).await {
        Ok(took) => Ok(format!("{address} answered after {:.1} ms", took.as_secs_f64() * 1e3)),
        Err(e) => Err(format!("{address}: {e}")),
    }
}

/// It is up, has a carrier and, if given, this address.
pub(super) async fn interface(name: &str, address: Option<IpAddr>) -> Found {
    let netlink = Netlink::open().map_err(|e| e.to_string())?;
    let link = netlink.existing_link(name).await.map_err(|e| e.to_string())?;
    match link {
        Link { up: false, .. } => return Err(format!("{name} is down")),
        Link { carrier: false, .. } => return Err(format!("{name} has no carrier")),
        _ => {}
    }
    let Some(wanted) = address else { return Ok(format!("{name} is up")) };
    let addresses = netlink.addresses(Some(name)).await.map_err(|e| e.to_string())?;
    match addresses.iter().find(|a| a.address.addr() == wanted) {
        None => Err(format!("{wanted} is not on {name}")),
        Some(found) if found.tentative => Err(format!("{wanted} on {name} is not usable yet")),
        Some(_) => Ok(format!("{name} is up and has {wanted}")),
    }
}

/// The device is there; on a standby it is down, as it should be. `silent`: how long its clients may be silent, and have been, as
/// far as that is known: before the first handshake of a term there may be no client at all, and another gateway would have none either.
pub(super) async fn wireguard(name: &str, silent: Option<(Duration, Option<Duration>)>) -> Found {
    let netlink = Netlink::open().map_err(|e| e.to_string())?;
    netlink.existing_link(name).await.map_err(|e| e.to_string())?;
    match silent {
        Some((within, Some(age))) if age > within => {
            Err(format!("no client of {name} has shaken hands for {} s", age.as_secs()))
        }
        Some((_, Some(age))) => {
            Ok(format!("{name} is there, the last handshake {} s ago", age.as_secs()))
        }
        _ => Ok(format!("{name} is there")),
    }
}
