//! The protocol of wgha: wire format, sealing, freshness, election, timers.
//!
//! Pure: no sockets, files, clock, log or async. Time comes in as an argument. See `docs/protocol.md`.
#![forbid(unsafe_code)]

mod api;
mod time;

pub use api::*;
pub use time::Time;
