//! Floating IPs: claim, release, held.

use std::net::IpAddr;

use super::{Address, Family, Lifetime, NetError, Netlink};
use crate::config::FloatingIp;

/// Puts a floating IP on its interface, usable at once. `true`: it was not there (so).
///
/// IPv6 addresses get no duplicate address detection (the old master may still answer), and
/// preferred lifetime 0 (the machine's own traffic keeps its own address).
///
/// # Errors
/// [`NetError::NoInterface`]; the kernel refused or did not answer.
pub async fn claim(netlink: &Netlink, ip: &FloatingIp) -> Result<bool, NetError> {
    claim_for(netlink, ip, Lifetime::Forever).await
}

/// As [`claim`], for a time: the kernel removes it by itself unless it is [renewed](renew). One that is there
/// with a lifetime of another kind is set again.
///
/// # Errors
/// As [`claim`].
pub async fn claim_for(
    netlink: &Netlink,
    ip: &FloatingIp,
    valid: Lifetime,
) -> Result<bool, NetError> {
    let found = find(netlink, ip).await?;
    let lasts = |a: &Address| (a.valid == Lifetime::Forever) == (valid == Lifetime::Forever);
    if found.iter().any(|address| serves(address, ip) && lasts(address)) {
        return Ok(false);
    }
    // A tentative or failed address does not become usable by being set again.
    for address in found.iter().filter(|a| a.address == ip.address && a.tentative) {
        netlink.remove_address(&ip.interface, address.address).await?;
    }
    // Given a lifetime while it is there, an IPv6 address gives it to the route of its prefix, which the machine's own
    // addresses may share.
    if ip.address.addr().is_ipv6() && valid != Lifetime::Forever {
        for address in found.iter().filter(|a| a.valid == Lifetime::Forever && !a.tentative) {
            netlink.remove_address(&ip.interface, address.address).await?;
        }
    }
    netlink.put_address(&ip.interface, ip.address, valid, true).await?;
    Ok(true)
}

/// Lets the lifetime of a floating IP begin anew. It must be there: else it would be put there.
///
/// # Errors
/// As [`claim`].
pub async fn renew(netlink: &Netlink, ip: &FloatingIp, valid: Lifetime) -> Result<(), NetError> {
    netlink.put_address(&ip.interface, ip.address, valid, true).await
}

/// Removes a floating IP from its interface, with whatever prefix length. `true`: it was there.
///
/// Only its configured interface is touched: the same address elsewhere (an anycast address on
/// `lo`, say) was put there by someone else. A missing interface holds nothing.
///
/// # Errors
/// The kernel refused or did not answer.
pub async fn release(netlink: &Netlink, ip: &FloatingIp) -> Result<bool, NetError> {
    let before = match netlink.addresses(Some(&ip.interface)).await {
        Err(NetError::NoInterface(_)) => return Ok(false),
        other => other?,
    };
    let mut changed = false;
    for address in before.iter().filter(|a| a.address.addr() == ip.address.addr()) {
        changed |= netlink.remove_address(&ip.interface, address.address).await?;
    }
    if changed && ip.address.addr().is_ipv4() {
        put_back_secondaries(netlink, ip, &before).await?;
    }
    Ok(changed)
}

/// Whether the floating IP is on its interface and usable. A missing interface holds nothing.
///
/// # Errors
/// The kernel refused or did not answer.
pub async fn held(netlink: &Netlink, ip: &FloatingIp) -> Result<bool, NetError> {
    match find(netlink, ip).await {
        Ok(found) => Ok(found.iter().any(|address| serves(address, ip))),
        Err(NetError::NoInterface(_)) => Ok(false),
        Err(e) => Err(e),
    }
}

async fn find(netlink: &Netlink, ip: &FloatingIp) -> Result<Vec<Address>, NetError> {
    let mut addresses = netlink.addresses(Some(&ip.interface)).await?;
    addresses.retain(|a| a.address.addr() == ip.address.addr());
    Ok(addresses)
}

/// With the right prefix, usable, and (IPv6) not a source for the machine's own traffic.
fn serves(address: &Address, ip: &FloatingIp) -> bool {
    address.address == ip.address
        && !address.tentative
        && (address.deprecated || Family::of(ip.address.addr()) == Family::V4)
}

/// With the first IPv4 address of a subnet the kernel removes all others of it, unless
/// `promote_secondaries` is set. A floating IP with a prefix shorter than /32 may have become the
/// first one while DHCP renewed the machine's own address.
async fn put_back_secondaries(
    netlink: &Netlink,
    ip: &FloatingIp,
    before: &[Address],
) -> Result<(), NetError> {
    let after = netlink.addresses(Some(&ip.interface)).await?;
    let kept = |ip: IpAddr| after.iter().any(|a| a.address.addr() == ip);
    let subnet = ip.address.trunc();
    for lost in before {
        let own = lost.address.addr() != ip.address.addr() && lost.address.trunc() == subnet;
        if own && !kept(lost.address.addr()) {
            netlink.put_address(&ip.interface, lost.address, lost.valid, false).await?;
        }
    }
    Ok(())
}
