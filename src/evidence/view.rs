//! What status shows of the evidence.

use wgha_proto::{Evidence, Time};

use super::judge::Known;

/// A picture of the evidence.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Nothing is asked: the config says so.
    pub off: bool,
    /// What the protocol was told last.
    pub evidence: Option<Evidence>,
    /// The protocol misses a node and asks for evidence.
    pub wanted: bool,
    /// All sources.
    pub sources: Vec<Known>,
    /// Since then an authenticated packet came through a tunnel; on the master alone.
    pub tunnel: Option<Time>,
    /// What keeps this node from asking.
    pub trouble: Option<String>,
}

impl Picture {
    /// What the evidence is worth, in a word of `wgha status`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self.evidence {
            _ if self.off => "off",
            None | Some(Evidence::NoSource) => "no-source",
            Some(Evidence::Answered(_)) => "answered",
            Some(Evidence::Silent) => "silent",
        }
    }
}
