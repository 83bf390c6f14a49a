//! What a lab that was killed leaves behind: a directory and, at worst, processes. Namespaces go with their processes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::LAB_VARIABLE;

const PREFIX: &str = "netns-lab-";

/// Of a lab's directory: the id of the process that owns it is part of the name.
pub(crate) fn dir_prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// What [`clean`] removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Killed processes.
    pub processes: Vec<i32>,
    /// Removed directories.
    pub dirs: Vec<PathBuf>,
}

/// Kills processes and removes directories of labs whose owner is gone.
///
/// # Errors
/// When /proc or the temporary directory cannot be read.
pub fn clean() -> Result<Cleaned> {
    let mut cleaned = Cleaned::default();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        if lab_of(pid).is_some_and(|dir| is_stale(&dir))
            && kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()
        {
            cleaned.processes.push(pid);
        }
    }
    for entry in fs::read_dir(std::env::temp_dir())? {
        let path = entry?.path();
        if is_stale(&path) && fs::remove_dir_all(&path).is_ok() {
            cleaned.dirs.push(path);
        }
    }
    Ok(cleaned)
}

/// Processes that belong to the lab in `dir`.
///
/// # Errors
/// When /proc cannot be read.
pub fn processes_of(dir: &Path) -> Result<Vec<i32>> {
    let pids =
        fs::read_dir("/proc")?.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    Ok(pids.filter(|&pid| lab_of(pid).is_some_and(|d| d == dir)).collect())
}

fn lab_of(pid: i32) -> Option<PathBuf> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{LAB_VARIABLE}=");
    let value = environ.split(|&b| b == 0).find_map(|v| v.strip_prefix(prefix.as_bytes()))?;
    Some(PathBuf::from(String::from_utf8_lossy(value).into_owned()))
}

fn is_stale(dir: &Path) -> bool {
    let name = dir.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    owner
        .and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}
