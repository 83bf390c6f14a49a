//! What the fuzzers feed, one function for each target. It panics when something that must hold does not.
//!
//! `tests/fuzz/run` searches for inputs; the tests here run those that are kept, in `corpus/`.

mod cluster;
mod seal;
mod text;

pub use cluster::node;
pub use seal::{opening, wire};
pub use text::{config, control, wgconf};

#[cfg(test)]
mod tests;
