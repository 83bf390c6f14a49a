//! Root, or root's powers in a user namespace.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;
/// Set in the re-executed program, so that a failure cannot loop.
const ENTERED: &str = "NETNS_LAB_USERNS";

/// Whether this process may make network and mount namespaces.
pub fn is_privileged() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let caps = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    caps & (CAP_NET_ADMIN | CAP_SYS_ADMIN) == CAP_NET_ADMIN | CAP_SYS_ADMIN
}

/// Returns at once for root. Otherwise runs this program again, with the same arguments, as root
/// of a new user, network and mount namespace, and exits with that program's status.
///
/// Every test and program calls it first; only one caller of a process gets as far as the re-execution.
///
/// # Errors
/// Names what is missing: user namespaces, the mode of /dev/net/tun, or a program.
pub fn enter_user_namespace() -> Result<()> {
    static ONCE: Mutex<()> = Mutex::new(());
    let _one_at_a_time = ONCE.lock();
    if is_privileged() {
        return check_tools();
    }
    if std::env::var_os(ENTERED).is_some() {
        bail!("a user namespace was made, but gives no power over networks and mounts");
    }
    check_tun()?;
    let exe = std::env::current_exe().context("the path of this program")?;
    let mut command = Command::new(exe);
    command.args(std::env::args_os().skip(1)).env(ENTERED, "1");
    crate::sys::in_user_namespace(&mut command);
    crate::sys::die_with_parent(&mut command);
    let status = command.status().context(
        "no root, and no user namespace either (kernel.unprivileged_userns_clone, user.max_user_namespaces, AppArmor): run as root",
    )?;
    std::process::exit(status.code().unwrap_or(1));
}

fn check_tun() -> Result<()> {
    let meta =
        std::fs::metadata("/dev/net/tun").context("/dev/net/tun is missing: modprobe tun")?;
    if meta.permissions().mode() & 0o006 != 0o006 {
        bail!(
            "without root /dev/net/tun must have mode 0666 (chmod 0666 /dev/net/tun), or run as root"
        );
    }
    Ok(())
}

fn check_tools() -> Result<()> {
    for (program, package) in [("ip", "iproute2"), ("nft", "nftables")] {
        if find_program(program).is_none() {
            bail!("the program {program} is missing: install {package}");
        }
    }
    Ok(())
}

/// Looks a program up in PATH and in the sbin directories.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin:/usr/local/sbin";
    path.split(':').map(|dir| std::path::Path::new(dir).join(name)).find(|p| p.is_file())
}
