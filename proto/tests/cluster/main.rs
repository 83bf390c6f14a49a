//! Nodes on virtual time: one test for each reason, and for what must change nothing.

mod elections;
mod random;
mod world;
