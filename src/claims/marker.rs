//! A small file that says who is master now, for programs that are about to change something outside.
//!
//! A claim's program that hung in the cloud for half a minute may go on when another node has long taken over. The
//! daemon ends such a program, but cannot while it is stopped itself; so a program looks here before each call that
//! changes something: it goes on only while the line is still that of its own term and node.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::warn;
use wgha_proto::Term;

/// The file: one line, `TERM NODE`; the node is `-` while none is known. On a file system in memory.
#[derive(Debug)]
pub struct Marker {
    path: PathBuf,
    /// Said once that it cannot be written.
    failed: AtomicBool,
}

impl Marker {
    /// A file beside the control socket: `wgha.term` for `wgha.sock`.
    #[must_use]
    pub fn beside(control_socket: &Path) -> Marker {
        Marker { path: control_socket.with_extension("term"), failed: AtomicBool::new(false) }
    }

    /// Where it is: `WGHA_TERM_FILE` of a claim's program.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes who is master in which term: whole or not at all.
    pub fn write(&self, term: Term, master: Option<&str>) {
        let line = format!("{term} {}\n", master.unwrap_or("-"));
        let aside = self.path.with_extension("term.new");
        let written = fs::write(&aside, line).and_then(|()| fs::rename(&aside, &self.path));
        let failed = written.is_err();
        if let Err(e) = written
            && !self.failed.load(Ordering::Relaxed)
        {
            warn!("{}: {e}: claims cannot look who is master before they act", self.path.display());
        }
        self.failed.store(failed, Ordering::Relaxed);
    }

    /// Removes it: programs that look then do nothing more.
    pub fn remove(&self) {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                warn!("{}: {e}", self.path.display());
            }
            _ => {}
        }
    }
}
