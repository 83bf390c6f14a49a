//! The protocol of wgha: wire format, sealing, freshness, election, timers.
//!
//! Pure: no sockets, files, clock, log or async. Time comes in as an argument. See `docs/protocol.md`.
#![forbid(unsafe_code)]

mod api;
mod arbiter;
mod budget;
mod direction;
mod election;
mod fingerprint;
mod freshness;
mod handover;
mod keys;
mod lease;
mod node;
mod peer;
mod refusal;
mod seal;
mod time;
#[cfg(test)]
mod vectors;
mod wire;

pub use api::*;
pub use arbiter::{
    Agent, Answer, Change, Header as ArbiterHeader, Kept, Register, Request, Vote, arbiter_voter,
};
pub use keys::{KeyFileError, Keyring};
pub use lease::{LEAST_REACTION, LONGEST_LEASE, margin};
pub use node::floating::{MAX_FLOATING, floating_path};
pub use node::{Destination, Node};
pub use refusal::Refusal;
pub use time::Time;
pub use wire::{MAX_DATAGRAM, MAX_PATHS, MIN_DATAGRAM, Tag, cluster_tag, node_tag};
