//! Reading and replacing files: whole or not at all, and never over something unseen.
//!
//! A file is opened without following a symbolic link and read only if it is a regular one. It is
//! replaced by a file beside it that has its owner and mode, in one rename that exchanges the two:
//! what comes out is looked at once more before it is deleted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2};
use zeroize::Zeroizing;

use super::hash::Hash;
use crate::bounded;
use crate::wireguard::conf::MAX_FILE_LEN;

/// Longest file, in bytes.
pub const MAX_LEN: u64 = MAX_FILE_LEN;

/// In the name of a file that lost a conflict.
pub const CONFLICT: &str = ".conflict-";

/// End of the name of a file that is being written; the name begins with a dot.
const TEMPORARY: &str = ".wgha-tmp";

/// The most files of one name that lost a conflict in one second.
const MAX_SAME_NAME: u32 = 100;

/// A file as it is now.
pub struct Found {
    /// What it holds; a private key, maybe.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Of `bytes`.
    pub hash: Hash,
    /// Permission bits.
    pub mode: u32,
    /// Changes when the file is replaced or written.
    pub mark: Mark,
    owner: (u32, u32),
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark([u64; 3], [i64; 4]);

/// What became of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The new content stands.
    Done,
    /// The new content stands; an edit of the last moment came out and is kept here.
    Kept(PathBuf),
    /// The file is not what it was known to be: nothing was written.
    Changed,
}

/// Whose edit a content that is kept aside was, and when (seconds since 1970).
#[derive(Clone, Copy, Debug)]
pub struct Label<'a> {
    /// The node.
    pub node: &'a str,
    /// The time.
    pub at: u64,
}

/// What tells a file's states apart; `None` if it is missing.
///
/// # Errors
/// The system's.
pub fn mark(path: &Path) -> io::Result<Option<Mark>> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(mark_of(&meta))),
        Err(e) if is_missing(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

fn mark_of(meta: &fs::Metadata) -> Mark {
    let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
    Mark([meta.dev(), meta.ino(), meta.len()], times)
}

/// Reads a file; `None` if it is missing.
///
/// # Errors
/// It is no regular file, or too long, or the system refuses.
pub fn read(path: &Path) -> io::Result<Option<Found>> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(e) if is_missing(&e) => return Ok(None),
        // ELOOP of O_NOFOLLOW, ENXIO of a socket, and others: say what is there.
        Err(e) => return Err(refused_kind(path).unwrap_or(e)),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(refused_kind(path).unwrap_or_else(|| io::Error::other("is no regular file")));
    }
    let bytes = bounded::secret(&file, MAX_LEN)?;
    let (hash, mode) = (Hash::of(&bytes), meta.permissions().mode() & 0o7777);
    Ok(Some(Found { bytes, hash, mode, mark: mark_of(&meta), owner: (meta.uid(), meta.gid()) }))
}

/// What keeps a file of another kind from being synced.
fn refused_kind(path: &Path) -> Option<io::Error> {
    let kind = fs::symlink_metadata(path).ok()?.file_type();
    let what = if kind.is_symlink() {
        "is a symbolic link, which is not synced: name the file itself"
    } else if kind.is_dir() {
        "is a directory; one in [sync] files ends in a slash"
    } else if kind.is_file() {
        return None;
    } else {
        "is no regular file, and not synced"
    };
    Some(io::Error::other(what))
}

/// Replaces the file, if it still is what it is known to be (`None`: missing). A new file gets
/// `mode`. `me` names an edit that slips in at the last moment.
///
/// # Errors
/// The system refuses, for example to give the new file the owner of the old one: then everything
/// is as before.
pub fn replace(
    path: &Path,
    bytes: &[u8],
    known: Option<Hash>,
    mode: u32,
    me: Label<'_>,
) -> io::Result<Replaced> {
    let before = read(path)?;
    if before.as_ref().map(|found| found.hash) != known {
        return Ok(Replaced::Changed);
    }
    let temporary = beside(path, TEMPORARY)?;
    let written = write_new(&temporary, bytes, before.as_ref(), mode);
    let result = written.and_then(|()| put(&temporary, path, known, me));
    match fs::remove_file(&temporary) {
        Err(e) if !is_missing(&e) && result.is_ok() => Err(e),
        _ => result,
    }
}

/// Puts a file that is written in the place of the one that is known.
fn put(written: &Path, path: &Path, known: Option<Hash>, me: Label<'_>) -> io::Result<Replaced> {
    // Again: writing may have waited for the disk.
    if read(path)?.map(|found| found.hash) != known {
        return Ok(Replaced::Changed);
    }
    if known.is_none() {
        return match rename(written, path, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => sync_directory(path).map(|()| Replaced::Done),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(Replaced::Changed),
            Err(e) => Err(e),
        };
    }
    rename(written, path, RenameFlags::RENAME_EXCHANGE)?;
    let kept = match read(written)? {
        Some(out) if Some(out.hash) != known => Some(keep_aside(path, &out, me)?),
        _ => None,
    };
    sync_directory(path).map(|()| kept.map_or(Replaced::Done, Replaced::Kept))
}

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, flags) {
        // A file system that cannot: what was there has just been looked at.
        Err(Errno::EINVAL | Errno::ENOSYS) => fs::rename(from, to),
        other => Ok(other?),
    }
}

/// A whole new file on the disk, with owner and mode of `like`.
fn write_new(path: &Path, bytes: &[u8], like: Option<&Found>, mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        // What an earlier run left.
        Err(e) if !is_missing(&e) => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    // The mode first: a file that is not ours any more may not be changed.
    let mode = like.map_or(mode & 0o777, |like| like.mode);
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    let mine = file.metadata()?;
    if let Some(like) = like
        && like.owner != (mine.uid(), mine.gid())
    {
        let kept = fchown(&file, Some(like.owner.0), Some(like.owner.1));
        let (uid, gid) = like.owner;
        kept.map_err(|e| io::Error::other(format!("cannot keep its owner {uid}:{gid}: {e}")))?;
    }
    file.sync_all()
}

/// Keeps a content that lost a conflict beside its file, as `NAME.conflict-NODE-TIME`. Returns where.
///
/// # Errors
/// The system's.
pub fn keep_aside(path: &Path, lost: &Found, of: Label<'_>) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let first = format!("{name}{CONFLICT}{}-{}", of.node, compact_time(of.at));
    let temporary = beside(path, ".wgha-lost")?;
    for number in 1..=MAX_SAME_NAME {
        let name = if number == 1 { first.clone() } else { format!("{first}-{number}") };
        let target = path.with_file_name(name);
        match read(&target) {
            Ok(Some(there)) if there.hash == lost.hash => return Ok(target),
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => continue,
        }
        let written = write_new(&temporary, &lost.bytes, Some(lost), 0o600)
            .and_then(|()| rename(&temporary, &target, RenameFlags::RENAME_NOREPLACE));
        match written {
            Ok(()) => return sync_directory(&target).map(|()| target),
            Err(e) => {
                let _ = fs::remove_file(&temporary);
                if e.kind() != io::ErrorKind::AlreadyExists {
                    return Err(e);
                }
            }
        }
    }
    Err(io::Error::other(format!("{first}: there are too many of this name")))
}

/// Deletes the file, if it still is what it is known to be.
///
/// # Errors
/// The system's.
pub fn delete(path: &Path, known: Hash) -> io::Result<Replaced> {
    match read(path)? {
        None => Ok(Replaced::Done),
        Some(found) if found.hash == known => {
            fs::remove_file(path)?;
            sync_directory(path).map(|()| Replaced::Done)
        }
        Some(_) => Ok(Replaced::Changed),
    }
}

/// The files in a directory that lost a conflict.
#[must_use]
pub fn lost_in(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name());
    let lost = names.filter(|name| name.to_string_lossy().contains(CONFLICT));
    let mut lost: Vec<PathBuf> = lost.map(|name| directory.join(name)).collect();
    lost.sort();
    lost
}

/// Whether a file of this name in a synced directory is nobody's: hidden, an editor's, ours.
#[must_use]
pub fn is_passed_over(name: &str) -> bool {
    name.starts_with('.') || name.ends_with('~') || name.contains(CONFLICT)
}

fn beside(path: &Path, end: &str) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    Ok(path.with_file_name(format!(".{name}{end}")))
}

/// The name itself is on the disk when this returns.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    File::open(directory)?.sync_all()
}

fn is_missing(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound
}

/// `20261122T034500Z`.
fn compact_time(at: u64) -> String {
    // humantime panics beyond the year 9999.
    let seconds = std::time::Duration::from_secs(at.min(250_000_000_000));
    let text = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + seconds).to_string();
    text.replace(['-', ':'], "")
}

#[cfg(test)]
mod tests;
