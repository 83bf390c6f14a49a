//! The daemon of wgha and its command line.
//!
//! `docs/architecture.md` says what the parts are and what they promise each other.

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod events;
pub mod hooks;
pub mod keyfile;
pub mod net;
pub mod process;
pub mod state;
pub mod status;
pub mod wireguard;
