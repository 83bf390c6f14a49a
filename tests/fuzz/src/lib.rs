//! What the fuzzers feed, one function for each target. It panics when something that must hold does not.
//!
//! `tests/fuzz/run` searches for inputs; the tests here run those that are kept, in `corpus/`.

mod cluster;
mod seal;
mod text;

/// What is done with an input.
pub type Target = fn(&[u8]);

/// All targets, by the names that `tests/fuzz/run` takes.
pub const TARGETS: [(&str, Target); 6] = [
    ("wire", seal::wire),
    ("opening", seal::opening),
    ("node", cluster::node),
    ("config", text::config),
    ("wgconf", text::wgconf),
    ("control", text::control),
];

#[cfg(test)]
mod tests;
