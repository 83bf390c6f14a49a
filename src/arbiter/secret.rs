//! The password of a user of etcd.

use std::path::Path;

use zeroize::Zeroizing;

use crate::keyfile;

/// The longest file, in bytes.
const MAX_FILE: u64 = 4096;

/// The password in `path`, which must belong to root, me or `user`, and be closed to everybody else: its first line.
///
/// # Errors
/// What is wrong with the file. No error shows any part of it.
pub fn password(path: &Path, user: Option<u32>) -> Result<Zeroizing<String>, String> {
    let text = keyfile::read_secret(path, MAX_FILE, user).map_err(|e| e.to_string())?;
    let line = text.split('\n').next().unwrap_or_default();
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(format!("{}: has no password in its first line", path.display()));
    }
    Ok(Zeroizing::new(line.to_owned()))
}
