//! The state directory: the few facts that survive a restart, in small files written atomically.
//!
//! A file that cannot be understood is named in the log, kept aside as `NAME.corrupt` and replaced
//! by its default. Every write may wait for the disk: the protocol loop uses a [`StateWriter`].

#[cfg(test)]
pub(crate) mod tests;
mod votes;
mod writer;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wgha_proto::{Term, VoteRecord};

use crate::bounded;
use crate::config::FloatingIp;
use crate::descriptors::lift;

use votes::KeptVotes;
pub use writer::StateWriter;

/// Largest state file that is read, in bytes: the endpoints of 65,536 peers.
const MAX_FILE: u64 = 16 << 20;

/// What this node put up.
const APPLIED: &str = "applied.json";

/// What is known of votes.
const VOTES: &str = "votes.json";

/// What this node put up, written before it is put up, so that `wgha release` can undo it after a
/// crash and PostUp never runs twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Applied {
    /// WireGuard interfaces that were staged or brought up.
    pub interfaces: Vec<AppliedInterface>,
    /// Floating IPs that were set.
    pub floating_ips: Vec<AppliedAddress>,
    /// UDP ports that were added to `net.ipv4.ip_local_reserved_ports`.
    pub reserved_ports: Vec<u16>,
    /// nftables tables of the gate that were made.
    pub gates: Vec<String>,
}

impl Applied {
    /// WireGuard's UDP ports, as far as they are known.
    #[must_use]
    pub fn listen_ports(&self) -> Vec<u16> {
        self.interfaces.iter().filter_map(|interface| interface.listen_port).collect()
    }
}

/// One WireGuard interface that was put up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppliedInterface {
    /// Its name.
    pub name: String,
    /// `kernel` or `embedded`: what `backend = "auto"` chose first, and stays with.
    pub backend: String,
    /// Its UDP port.
    pub listen_port: Option<u16>,
    /// PreUp ran.
    pub pre_up_ran: bool,
    /// PostUp ran, and no PostDown since.
    pub post_up_ran: bool,
    /// The PreDown lines that belong to what was put up, even if the file has others now.
    pub pre_down: Vec<String>,
    /// The PostDown lines that belong to what was put up.
    pub post_down: Vec<String>,
}

/// One floating IP that was set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedAddress {
    /// The address.
    pub address: IpAddr,
    /// Its prefix length.
    pub prefix: u8,
    /// The interface that carries it.
    pub interface: String,
}

impl From<&FloatingIp> for AppliedAddress {
    fn from(ip: &FloatingIp) -> AppliedAddress {
        AppliedAddress {
            address: ip.address.addr(),
            prefix: ip.address.prefix_len(),
            interface: ip.interface.clone(),
        }
    }
}

impl Applied {
    /// This and another one; where both name the same thing, as it is here.
    #[must_use]
    pub fn and(mut self, other: Applied) -> Applied {
        for interface in other.interfaces {
            if !self.interfaces.iter().any(|i| i.name == interface.name) {
                self.interfaces.push(interface);
            }
        }
        let fresh = |ip: &AppliedAddress| !self.floating_ips.contains(ip);
        let ips: Vec<_> = other.floating_ips.into_iter().filter(fresh).collect();
        self.floating_ips.extend(ips);
        let fresh = |gate: &String| !self.gates.contains(gate);
        let gates: Vec<_> = other.gates.into_iter().filter(fresh).collect();
        self.gates.extend(gates);
        self
    }

    /// Whether `other` names all that acts of this.
    #[must_use]
    pub fn acts_within(&self, other: &Applied) -> bool {
        let known = |i: &AppliedInterface| {
            let same = |o: &AppliedInterface| (&o.name, o.listen_port) == (&i.name, i.listen_port);
            other.interfaces.iter().any(same)
        };
        self.gates.iter().all(|gate| other.gates.contains(gate))
            && self.floating_ips.iter().all(|ip| other.floating_ips.contains(ip))
            && self.interfaces.iter().all(known)
    }
}

/// Why the state directory refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another process uses it.
    #[error("{} is in use by another wgha (process {pid})", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who, as it wrote itself into the lock file.
        pid: String,
    },
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A state directory, locked for this process while this value lives.
///
/// Threads may share it as long as each file has one writer.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl StateDir {
    /// Opens the directory (made with mode 0700 if missing) and locks it.
    ///
    /// # Errors
    ///
    /// [`StateError::InUse`] if another process has it; [`StateError::Io`] if it cannot be made.
    pub fn open(path: &Path) -> Result<StateDir, StateError> {
        let io = |source| StateError::Io { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io)?;
        let lock = lock(path)?;
        Ok(StateDir { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The highest term known when the process last ran; 0 if unknown.
    #[must_use]
    pub fn highest_term(&self) -> Term {
        self.load("highest_term")
    }

    /// Keeps the highest term.
    ///
    /// # Errors
    ///
    /// The disk refuses; the file is as before.
    pub fn set_highest_term(&self, term: Term) -> Result<(), StateError> {
        self.store("highest_term", &term)
    }

    /// Whether maintenance was on.
    #[must_use]
    pub fn maintenance(&self) -> bool {
        self.load("maintenance")
    }

    /// Keeps whether maintenance is on.
    ///
    /// # Errors
    ///
    /// The disk refuses; the file is as before.
    pub fn set_maintenance(&self, on: bool) -> Result<(), StateError> {
        self.store("maintenance", &on)
    }

    /// What is known of this node's votes; `None` without a memory.
    #[must_use]
    pub fn votes(&self) -> Option<VoteRecord> {
        let kept: Option<KeptVotes> = self.load(VOTES);
        kept.and_then(KeptVotes::record)
    }

    /// Keeps what must be known of this node's votes.
    ///
    /// # Errors
    ///
    /// The disk refuses; the file is as before.
    pub fn set_votes(&self, votes: &VoteRecord) -> Result<(), StateError> {
        self.store(VOTES, &Some(KeptVotes::of(votes)))
    }

    /// What this node put up; nothing if there is no record. `None`: it is damaged, which is logged, and kept aside.
    #[must_use]
    pub fn applied(&self) -> Option<Applied> {
        self.read(APPLIED).map(Option::unwrap_or_default)
    }

    /// The same, of a directory that another process may have locked: to be asked only when that is dead. `None`: it is damaged, and
    /// stays as it is.
    ///
    /// # Errors
    ///
    /// The disk's; a directory that is missing, or none, is an error as well.
    pub fn applied_of(path: &Path) -> Result<Option<Applied>, StateError> {
        let file = path.join(APPLIED);
        let bytes = fs::metadata(path.join(".")).and_then(|_| read_bounded(&file, MAX_FILE));
        match bytes {
            Ok(None) => Ok(Some(Applied::default())),
            Ok(Some(bytes)) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(source) => Err(StateError::Io { path: file, source }),
        }
    }

    /// Keeps what this node put up.
    ///
    /// # Errors
    ///
    /// The disk refuses; the file is as before.
    pub fn set_applied(&self, applied: &Applied) -> Result<(), StateError> {
        self.store(APPLIED, applied)
    }

    /// A fact of another part, as JSON in the file `name`; its default if missing or damaged.
    #[must_use]
    pub fn load<T: DeserializeOwned + Default>(&self, name: &str) -> T {
        self.read(name).flatten().unwrap_or_default()
    }

    /// `Some(None)`: missing. `None`: damaged.
    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<Option<T>> {
        let path = self.path.join(name);
        let read = read_bounded(&path, MAX_FILE).map_err(|e| e.to_string()).and_then(|bytes| {
            let value = bytes.map(|bytes| serde_json::from_slice(&bytes));
            value.transpose().map_err(|e| e.to_string())
        });
        read.map_err(|why| set_aside(&path, &why)).ok()
    }

    /// Keeps a fact as JSON in the file `name`, whole or not at all.
    ///
    /// # Errors
    ///
    /// The disk refuses; the file is as before.
    pub fn store<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let path = self.path.join(name);
        let result = serde_json::to_vec(value).map_err(io::Error::from).and_then(|mut bytes| {
            bytes.push(b'\n');
            replace(&path, &bytes)
        });
        result.map_err(|source| StateError::Io { path, source })
    }
}

fn lock(dir: &Path) -> Result<File, StateError> {
    let path = dir.join("lock");
    let io = |source| StateError::Io { path: path.clone(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Only for the message.
            let _ = (&mut file).take(16).read_to_string(&mut pid);
            let pid = pid.trim().to_owned();
            return Err(StateError::InUse { path: dir.to_owned(), pid });
        }
        Err(TryLockError::Error(e)) => return Err(io(e)),
    }
    // The number is only for the message of another process, so a full disk does not matter.
    // Always as long, so that nothing need be cut off: that may wait for the disk, and others for a guard that opens this.
    let _ = file.rewind().and_then(|()| writeln!(file, "{:<15}", std::process::id()));
    // Free when a guard hears that this process is dead.
    Ok(lift(file.into()).into())
}

/// Writes a whole file, or leaves the old one as it was.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = with_suffix(path, ".tmp");
    let result = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        // Gives its space back; the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
        return result;
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The file's bytes, `None` if it is missing, an error if it is longer than `max`.
pub(crate) fn read_bounded(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    bounded::bytes(&file, max).map(Some)
}

/// Names a damaged file and keeps it as `NAME.corrupt` for whoever wants to know.
pub(crate) fn set_aside(path: &Path, why: &str) {
    let aside = with_suffix(path, ".corrupt");
    tracing::error!(path = %path.display(), kept = %aside.display(), "damaged, and not used: {why}");
    if let Err(e) = fs::rename(path, &aside) {
        tracing::error!(path = %path.display(), "cannot be kept aside: {e}");
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
