//! What a node sees of the file system: its own /run, /etc/wgha, /etc/wireguard, /var/lib/wgha.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

/// (directory of the node, where the node sees it)
const DIRS: [(&str, &str); 3] =
    [("etc-wgha", "/etc/wgha"), ("etc-wireguard", "/etc/wireguard"), ("state", "/var/lib/wgha")];

/// Makes the node's directories outside.
pub(crate) fn make_dirs(dir: &Path) -> Result<()> {
    for (name, _) in DIRS {
        fs::create_dir_all(dir.join(name))?;
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o700))?;
    }
    fs::create_dir_all(dir.join("log"))?;
    Ok(())
}

/// To be called in the node's fresh mount namespace.
pub(crate) fn set_up(dir: &Path) -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("making mounts private")?;
    tmpfs("/run")?;
    // The interfaces of this network namespace. Refused in some containers; nothing in the lab needs it.
    let _ = mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none);
    writable("/etc", "/run/.etc", &["wgha", "wireguard"])?;
    writable("/var/lib", "/run/.var-lib", &["wgha"])?;
    for (name, at) in DIRS {
        fs::create_dir_all(at)?;
        bind(&dir.join(name), Path::new(at))?;
    }
    Ok(())
}

/// Covers `path` with a tmpfs that shows the old entries except `hidden`, so that directories can be made there
/// without touching the machine.
fn writable(path: &str, old: &str, hidden: &[&str]) -> Result<()> {
    fs::create_dir(old)?;
    bind(Path::new(path), Path::new(old))?;
    tmpfs(path)?;
    for entry in fs::read_dir(old)? {
        let entry = entry?;
        let name = entry.file_name();
        if hidden.iter().any(|&h| name == h) {
            continue;
        }
        let target = if entry.file_type()?.is_symlink() {
            fs::read_link(entry.path())?
        } else {
            entry.path()
        };
        symlink(target, Path::new(path).join(&name))?;
    }
    Ok(())
}

fn tmpfs(at: &str) -> Result<()> {
    let size = Some("mode=0755,size=64m");
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), size)
        .with_context(|| format!("tmpfs on {at}"))
}

fn bind(from: &Path, at: &Path) -> Result<()> {
    let none = None::<&str>;
    mount(Some(from), at, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .with_context(|| format!("{} on {}", from.display(), at.display()))
}
