//! Whole daemons (`wgha run`) in networks of namespaces, with a WireGuard client: after every fault,
//! and after every order of an operator, exactly one gateway serves, and nothing is left elsewhere.
//!
//! `WGHA_TEST_BACKEND=kernel` runs the gateways on the kernel's WireGuard (tests/kernel-lab does so in
//! the kernel lab); else they run the embedded one. Waits are bounded, no time is asserted: how
//! fast a failover is, `netns-lab` measures.

mod audit;
mod checks;
mod claims;
mod clients;
mod clock;
mod cloud;
mod etcd;
mod eve;
mod files;
mod gate;
mod guard;
mod handover;
mod ipv6;
mod isolation;
mod larger;
mod leases;
mod links;
mod meddling;
mod mismatch;
mod nat;
mod operator;
mod pair;
mod preempt;
mod reload;
mod scripts;
mod signals;
mod silence;
mod source;
mod steady;
mod trouble;
mod upgrade;
mod uplink;
