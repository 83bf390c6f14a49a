//! Which paths are synced: those that the local config names, whatever peers say.

use std::fs;
use std::path::{Path, PathBuf};

use super::disk::is_passed_over;
use crate::config::SyncFile;

/// The most files of one directory.
pub const MAX_IN_DIRECTORY: usize = 256;

/// How a synced path is named in the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// By itself: it is always there.
    Named,
    /// By its directory: it may come and go.
    InDirectory,
}

/// How the config names this path; `None`: it does not, so it is not ours to touch.
#[must_use]
pub fn place(files: &[SyncFile], path: &str) -> Option<Place> {
    let named = |file: &SyncFile, text: &str| file.path.as_os_str() == text;
    if files.iter().any(|file| !is_directory(file) && named(file, path)) {
        return Some(Place::Named);
    }
    let (directory, name) = path.rsplit_once('/')?;
    let plain = !name.is_empty() && !name.contains('\0') && !is_passed_over(name);
    let inside = |file: &SyncFile| named(file, directory) && is_directory(file);
    (plain && files.iter().any(inside)).then_some(Place::InDirectory)
}

/// Written with a slash, or one on this machine.
#[must_use]
pub fn is_directory(file: &SyncFile) -> bool {
    file.directory || fs::symlink_metadata(&file.path).is_ok_and(|meta| meta.is_dir())
}

/// The files in a directory, by name, and how many there are too many.
///
/// # Errors
/// It is missing, is a symbolic link, or cannot be read.
pub fn list(directory: &Path) -> std::io::Result<(Vec<PathBuf>, usize)> {
    let meta = fs::symlink_metadata(directory)?;
    if !meta.is_dir() {
        let what = if meta.is_symlink() { "is a symbolic link" } else { "is no directory" };
        return Err(std::io::Error::other(what));
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        // Names in another encoding cannot travel.
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if !is_passed_over(&name) {
            names.push(name);
        }
    }
    names.sort();
    let too_many = names.len().saturating_sub(MAX_IN_DIRECTORY);
    names.truncate(MAX_IN_DIRECTORY);
    Ok((names.into_iter().map(|name| directory.join(name)).collect(), too_many))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_can_name_no_other_path() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::create_dir(&real).unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        let at = |path: &str| path.replace("DIR", &dir.path().to_string_lossy());
        let file = |path: &str, directory| SyncFile { path: at(path).into(), directory };
        let files = [
            file("/etc/a", false),
            file("/etc/d", true),
            file("DIR/real", false),
            file("DIR/file", false),
        ];
        use Place::{InDirectory, Named};
        for (path, expected) in [
            ("/etc/a", Some(Named)),
            ("/etc/d/x.conf", Some(InDirectory)),
            ("DIR/real/x", Some(InDirectory)),
            ("/etc/d", None),
            ("DIR/real", None),
            ("DIR/file/x", None),
            ("/etc/b", None),
            ("/etc/d/", None),
            ("/etc/d/..", None),
            ("/etc/d/../passwd", None),
            ("/etc/d/sub/x", None),
            ("/etc//d/x", None),
            ("/etc/d/./x", None),
            ("/etc/d/.hidden", None),
            ("/etc/d/x\0", None),
            ("etc/a", None),
            ("", None),
            ("/", None),
            ("/etc/a/x", None),
        ] {
            assert_eq!(place(&files, &at(path)), expected, "{path:?}");
        }
    }

    #[test]
    fn a_directory_is_listed_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..MAX_IN_DIRECTORY + 3 {
            fs::write(dir.path().join(format!("{number:04}")), "").unwrap();
        }
        for name in [".hidden", "backup~", "x.conflict-gw1-20260101T000000Z"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let (found, too_many) = list(dir.path()).unwrap();
        assert_eq!((found.len(), too_many), (MAX_IN_DIRECTORY, 3));
        assert_eq!(found[1], dir.path().join("0001"));
        let link = dir.path().join(".link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(list(&link).unwrap_err().to_string().contains("symbolic link"));
        assert!(list(&dir.path().join("none")).is_err());
    }
}
