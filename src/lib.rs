//! The daemon of wgha and its command line.
//!
//! `docs/architecture.md` says what the parts are and what they promise each other.

pub mod alarm;
pub mod arbiter;
mod aside;
mod bounded;
pub mod checks;
pub mod claims;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod copies;
pub mod daemon;
mod descriptors;
pub mod events;
pub mod evidence;
pub mod gateway;
pub mod guard;
pub mod hooks;
pub mod http;
pub mod keyfile;
pub mod link;
pub mod log;
pub mod net;
pub mod priority;
pub mod probe;
pub mod process;
pub mod realtime;
pub mod release;
pub mod run;
pub mod setup;
pub mod shared;
pub mod sign;
pub mod state;
pub mod status;
pub mod sync;
pub mod user;
pub mod wireguard;
