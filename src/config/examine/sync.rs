//! What is to be synced, and is not what it should be.

use std::fs;
use std::path::Path;

use super::Findings;
use crate::config::{Config, SyncFile};
use crate::sync::files::check::is_same;
use crate::sync::files::disk::{CONFLICT, lost_in};

pub(super) fn examine(config: &Config, found: &mut Findings) {
    for file in &config.sync {
        kind(file, found);
        behind_link(&file.path, found);
        lost(file, found);
    }
    for wireguard in config.wireguard.iter().filter(|w| !config.is_synced(&w.config)) {
        let mut files = config.sync.iter().filter(|file| !file.directory);
        let other = files.find(|file| is_same(&file.path, &wireguard.config));
        if let Some(other) = other {
            found.warnings.push(format!(
                "{} is {}, which is synced, behind a symbolic link; name it the same way in \
                 [[wireguard]] and [sync]",
                wireguard.config.display(),
                other.path.display()
            ));
        }
    }
}

fn kind(file: &SyncFile, found: &mut Findings) {
    let path = file.path.display();
    // What is not there comes from the other gateways.
    let Ok(meta) = fs::symlink_metadata(&file.path) else { return };
    if meta.is_symlink() {
        let to = fs::read_link(&file.path).unwrap_or_default();
        found.errors.push(format!(
            "{path} is a symbolic link to {}, which is not synced: name the file itself",
            to.display()
        ));
    } else if meta.is_dir() && !file.directory {
        found.warnings.push(format!("{path} is a directory: write {path}/ in [sync] files"));
    } else if file.directory && !meta.is_dir() {
        found.errors.push(format!("{path}/ in [sync] files is no directory"));
    } else if !meta.is_dir() && !meta.is_file() {
        found.errors.push(format!("{path} is no regular file, and not synced"));
    }
}

/// The other gateways write to the path, wherever it leads there.
fn behind_link(path: &Path, found: &mut Findings) {
    let Some(parent) = path.parent() else { return };
    let Ok(real) = parent.canonicalize() else { return };
    if real != parent {
        found.warnings.push(format!(
            "{} lies in {}, behind a symbolic link: that must be so on every gateway; better name \
             the real directory",
            path.display(),
            real.display()
        ));
    }
}

fn lost(file: &SyncFile, found: &mut Findings) {
    let directory = if file.directory { Some(file.path.as_path()) } else { file.path.parent() };
    let start = format!("{}{CONFLICT}", file.path.display());
    let lost = directory.map(lost_in).unwrap_or_default();
    let of_file =
        |path: &&std::path::PathBuf| file.directory || path.to_string_lossy().starts_with(&start);
    for path in lost.iter().filter(of_file) {
        found.warnings.push(format!(
            "{} is an edit that lost against another: take over what is missing, then remove it",
            path.display()
        ));
    }
}
