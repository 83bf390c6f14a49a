//! The network half of a gateway: floating IPs, the source of WireGuard's packets, announcements,
//! and notice of changes that others make.
//!
//! Every function compares with what the kernel has now and does the least, so that the gateway
//! task may call it again and again. The [`gate`] alone has a thread of its own, and a deadline.

pub mod address;
pub mod announce;
pub mod barrier;
pub mod gate;
pub mod listen;
pub mod netlink;
mod nft;
pub mod ping;
pub mod probe;
pub(crate) mod raw;
pub mod source;
mod types;
pub mod watch;

pub use netlink::{Change, Netlink};
pub use types::{Action, Address, Family, Lifetime, Link, Route, Rule, Scope};

use std::io;
use std::net::IpAddr;

/// Why the machine's network could not be brought to a state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The interface is not on this machine (now).
    #[error("interface {0} does not exist")]
    NoInterface(String),
    /// The address is not on the interface, or still tentative, and something needs it there.
    #[error("address {address} is not usable on {interface}")]
    NoAddress {
        /// The missing address.
        address: IpAddr,
        /// Where it should be.
        interface: String,
    },
    /// Netlink cannot be used at all.
    #[error("cannot open netlink: {0}")]
    Open(io::Error),
    /// The kernel did not answer in time, or the connection's task is gone.
    #[error("cannot {0}: no answer from the kernel")]
    NoAnswer(String),
    /// The kernel refused.
    #[error("cannot {what}: {source}")]
    Refused {
        /// The step, with its interface or address.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Listing failed again and again because others kept changing the list.
    #[error("cannot {0}: the list changes all the time")]
    Restless(String),
    /// What was set did not stay: someone else changes it at the same time.
    #[error("{0} did not stay as set")]
    DidNotStay(String),
    /// A frame could not be sent.
    #[error("cannot announce on {interface}: {source}")]
    Announce {
        /// Where.
        interface: String,
        /// What the system said.
        source: io::Error,
    },
}

impl NetError {
    /// The kernel's error number, if it was the kernel that refused.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetError::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
