//! Nodes on virtual time: one test for each reason, and for what must change nothing.
#![allow(clippy::unwrap_used, reason = "all of this is tests")]

mod arbiter;
mod elections;
mod handover;
mod leases;
mod random;
mod stamps;
mod world;
