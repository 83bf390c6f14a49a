//! Key files: read only if nobody else can, written once.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use ring::rand::{SecureRandom, SystemRandom};
use wgha_proto::{KeyFileError, Keyring};
use zeroize::Zeroizing;

use crate::bounded;

#[cfg(test)]
mod tests;

/// The longest key file that is read, in bytes: some hundred keys.
const MAX_FILE: u64 = 16 * 1024;

/// Why a key file cannot be used. No variant shows any part of a key.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct KeyError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: Why,
}

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// It is missing, or this user must not read it.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// It is a directory, a device or a pipe.
    #[error("is no regular file")]
    NoFile,
    /// Somebody else can put keys into it.
    #[error("belongs to user {0}; expected root or the user that runs wgha")]
    Owner(u32),
    /// Somebody else can read it.
    #[error("can be read or written by others (mode {0:04o}); expected mode 0600")]
    Mode(u32),
    /// No key file is that long.
    #[error("is longer than {0} bytes")]
    TooLong(u64),
    /// Its text is wrong.
    #[error(transparent)]
    Text(KeyFileError),
    /// A witness must not be able to read what gateways tell each other.
    #[error(
        "holds a gateway key, but this node is a witness; expected the output of wgha keygen --witness-from"
    )]
    GatewayKeyOnWitness,
    /// Gateways talk to each other with gateway keys.
    #[error("holds a witness key, but this node is a gateway; expected the output of wgha keygen")]
    WitnessKeyOnGateway,
    /// A new key file must not replace anything.
    #[error("exists already; keys are never overwritten")]
    Exists,
    /// The new file cannot be written.
    #[error("cannot be written: {0}")]
    Write(io::Error),
}

/// Reads the key file at `path`, which must belong to root or me and be closed to everybody else.
///
/// # Errors
/// What is wrong with the file or its text.
pub fn load(path: &Path) -> Result<Keyring, KeyError> {
    read(path, None).map_err(|why| KeyError { path: path.to_owned(), why })
}

/// As [`load`], for a node that is a witness or not: the file must hold keys of that kind. It may also belong to `user`, who is
/// to run wgha.
///
/// # Errors
/// As [`load`], and if the keys are of the other kind.
pub fn load_for(path: &Path, witness: bool, user: Option<u32>) -> Result<Keyring, KeyError> {
    let ring = read(path, user).map_err(|why| KeyError { path: path.to_owned(), why })?;
    let why = match (witness, ring.is_witness()) {
        (true, false) => Why::GatewayKeyOnWitness,
        (false, true) => Why::WitnessKeyOnGateway,
        _ => return Ok(ring),
    };
    Err(KeyError { path: path.to_owned(), why })
}

/// A ring of one new gateway key from the system's random numbers.
///
/// # Errors
/// If the system has none.
pub fn generate(id: u16) -> io::Result<Keyring> {
    let mut secret = Zeroizing::new([0; 32]);
    SystemRandom::new()
        .fill(secret.as_mut_slice())
        .map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(Keyring::generate(id, *secret))
}

/// Writes the keys into a new file of mode 0600, which is on disk when this returns.
///
/// # Errors
/// If `path` exists or cannot be written; nothing of a file that was begun remains.
pub fn create(path: &Path, ring: &Keyring) -> Result<(), KeyError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let file = options.open(path).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => Why::Exists,
        _ => Why::Write(e),
    });
    let written = file.and_then(|file| {
        let result = write(file, path, ring);
        if result.is_err() {
            // The file is this call's own: half a key is of no use. Why it failed is told anyway.
            let _ = std::fs::remove_file(path);
        }
        result.map_err(Why::Write)
    });
    written.map_err(|why| KeyError { path: path.to_owned(), why })
}

fn write(mut file: File, path: &Path, ring: &Keyring) -> io::Result<()> {
    file.write_all(ring.to_text().as_bytes())?;
    file.sync_all()?;
    // The name is on disk only with its directory.
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// The text of a file of at most `max` bytes, which must belong to root, me or `user`, and be closed to everybody else.
///
/// # Errors
/// What is wrong with the file.
pub fn read_secret(
    path: &Path,
    max: u64,
    user: Option<u32>,
) -> Result<Zeroizing<String>, KeyError> {
    text(path, max, user).map_err(|why| KeyError { path: path.to_owned(), why })
}

fn read(path: &Path, user: Option<u32>) -> Result<Keyring, Why> {
    Keyring::parse(&text(path, MAX_FILE, user)?).map_err(Why::Text)
}

fn text(path: &Path, max: u64, user: Option<u32>) -> Result<Zeroizing<String>, Why> {
    let file = open(path, user)?;
    bounded::secret_text(&file, max).map_err(|e| match e.kind() {
        io::ErrorKind::FileTooLarge => Why::TooLong(max),
        _ => Why::Read(e),
    })
}

/// Opens a file that nobody else can read or change. What is looked at is what was opened.
fn open(path: &Path, user: Option<u32>) -> Result<File, Why> {
    let mut options = OpenOptions::new();
    // Without O_NONBLOCK a pipe in the file's place would make the program hang.
    options.read(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits());
    let file = options.open(path).map_err(Why::Read)?;
    let meta = file.metadata().map_err(Why::Read)?;
    if !meta.is_file() {
        return Err(Why::NoFile);
    }
    let mine = [0, nix::unistd::geteuid().as_raw()].contains(&meta.uid());
    if !mine && user != Some(meta.uid()) {
        return Err(Why::Owner(meta.uid()));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(Why::Mode(meta.mode() & 0o7777));
    }
    Ok(file)
}
