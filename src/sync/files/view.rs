//! What `wgha status` shows of files.

use std::collections::BTreeSet;

/// The files now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// Each file, those in directories too.
    pub files: Vec<FileView>,
    /// Gateways that are connected and have the same contents.
    pub agreeing: BTreeSet<String>,
    /// Messages of peers that nobody had time for.
    pub dropped: u64,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileView {
    /// Its path.
    pub file: String,
    /// Its version; 0 if it has none yet.
    pub version: u64,
    /// Every other gateway is connected and has the same.
    pub in_sync: bool,
    /// What is wrong with it.
    pub problem: Option<String>,
}
