//! The network half of a gateway against the real kernel, in network namespaces: what is claimed
//! is there and usable, what WireGuard's port sends leaves from the floating IP or not at all, the
//! neighbours learn where the floating IP is, and what others change is noticed and put right.
//!
//! Runs as root, or as a user who may make user namespaces. Needs `ip` (iproute2) and `nft` (nftables).

// A helper of a test may fail like the test itself.
#![allow(clippy::unwrap_used)]

mod address;
mod announce;
mod barrier;
mod evidence;
mod gate;
mod namespace;
mod netlink;
mod source;
mod watch;
