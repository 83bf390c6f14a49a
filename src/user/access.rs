//! What the user of `[cluster] user` must be able to read and write, and what is to be done about it; and whether hooks can have
//! users of their own.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;
use nix::unistd::{AccessFlags, faccessat, geteuid, setfsgid, setfsuid};

use super::{Account, capabilities};
use crate::config::Config;

/// Everything that stands in the way of `[cluster] user` and of hooks with a user of their own: each a line that says what is to be done. Empty
/// where the config wants neither. To be asked by root or by that user.
#[must_use]
pub fn refusals(config: &Config) -> Vec<String> {
    let mut refused = Vec::new();
    match config.cluster.user.as_deref().map(Account::find) {
        None => programs(config, &mut refused),
        Some(Err(why)) => refused.push(format!("[cluster] user: {why}")),
        Some(Ok(account)) if !(account.is_me() || geteuid().is_root()) => {
            refused.push(is_another(&account.name));
        }
        Some(Ok(account)) if !(account.is_me() || capabilities::can_change_user()) => {
            refused.push(cannot_become(&account.name));
        }
        Some(Ok(account)) => {
            files(config, &account, &mut refused);
            ports(config, &account, &mut refused);
        }
    }
    refused
}

/// This process is neither that user nor root, which could become it.
pub(super) fn is_another(name: &str) -> String {
    let me = geteuid();
    format!(
        "[cluster] user is {name}, but this process runs as user {me}, and only root can become another"
    )
}

/// Root without the capabilities for it cannot even ask what the user may do.
pub(super) fn cannot_become(name: &str) -> String {
    format!(
        "[cluster] user: cannot become {name}, which takes CAP_SETUID and CAP_SETGID; under systemd leave it to \
         User= of the unit"
    )
}

/// What stands in the way of listening there, if this user has no CAP_NET_BIND_SERVICE.
#[must_use]
pub fn low_port(config: &Config, what: &str, port: u16) -> Option<String> {
    let name = config.cluster.user.as_deref()?;
    let free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let free = free.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
    (port < free).then(|| {
        format!("{what}: port {port} is root's, and the user {name} has ports from {free} on")
    })
}

fn ports(config: &Config, account: &Account, refused: &mut Vec<String>) {
    debug_assert_eq!(config.cluster.user.as_ref(), Some(&account.name));
    let addresses = &config.node().addresses;
    refused.extend(
        addresses.iter().filter_map(|a| low_port(config, "[[node]] addresses", a.bind.port())),
    );
    let listeners = [("[http] listen", config.http), ("[probe] listen", config.probe)];
    refused
        .extend(listeners.into_iter().filter_map(|(what, at)| low_port(config, what, at?.port())));
}

fn files(config: &Config, account: &Account, refused: &mut Vec<String>) {
    let mut say = |why: Option<String>| refused.extend(why);
    let name = &account.name;
    let give = |path: &Path| format!("chown {name}: {}", path.display());
    let open = |path: &Path| {
        format!("chgrp {} {path} && chmod g+r {path}", account.gid, path = path.display())
    };
    say(unreadable(account, &config.path, open));
    say(unreadable(account, &config.cluster.key_file, give));
    if let Some(arbiter) = config.arbiter.as_ref().filter(|_| !config.node().witness) {
        let (cert, key) = arbiter.identity.as_ref().map(|(c, k)| (&**c, &**k)).unzip();
        let password = arbiter.login.as_ref().map(|(_, file)| &**file);
        for path in [arbiter.ca_file.as_deref(), cert].into_iter().flatten() {
            say(unreadable(account, path, open));
        }
        for path in [key, password].into_iter().flatten() {
            say(unreadable(account, path, give));
        }
    }
    let tunnels = if config.node().witness { &[] } else { &config.wireguard[..] };
    for file in tunnels.iter().map(|entry| &entry.config) {
        // One that is synced may come later.
        if file.exists() || !config.is_synced(file) {
            say(unreadable(account, file, give));
        }
    }
    let all = |path: &Path| format!("chown -R {name}: {}", path.display());
    say(unwritable(account, &config.cluster.state_dir, all));
    say(foreign(account, &config.cluster.state_dir, all));
    say(config.control_socket.parent().and_then(|d| unwritable(account, d, give)));
    for file in &config.sync {
        // A file is replaced by another one, so it is the directory that is written.
        let directory = if file.directory { Some(&*file.path) } else { file.path.parent() };
        say(directory.and_then(|d| unwritable(account, d, give)));
    }
}

/// Why this user cannot read the file, and what to do. One that is missing is no matter of users.
fn unreadable(account: &Account, path: &Path, cure: impl Fn(&Path) -> String) -> Option<String> {
    if let Some(why) = barred(account, path) {
        return Some(why);
    }
    let file = path.to_owned();
    let e = as_user(account, move || File::open(file).map(drop)).err()?;
    let (name, cure) = (&account.name, cure(path));
    (e.kind() == io::ErrorKind::PermissionDenied)
        .then(|| format!("{}: the user {name} cannot read it: {cure}", path.display()))
}

/// Why this user cannot make files in the directory or change what is there, and what to do.
fn unwritable(account: &Account, path: &Path, cure: impl Fn(&Path) -> String) -> Option<String> {
    if let Some(why) = barred(account, path) {
        return Some(why);
    }
    let e = may(account, path, AccessFlags::W_OK | AccessFlags::X_OK).err()?;
    let (name, cure) = (&account.name, cure(path));
    (e.kind() == io::ErrorKind::PermissionDenied)
        .then(|| format!("{}: the user {name} cannot write it: {cure}", path.display()))
}

/// What an earlier run as root left in the directory, and what to do.
fn foreign(account: &Account, path: &Path, cure: impl Fn(&Path) -> String) -> Option<String> {
    let is_foreign =
        |entry: &fs::DirEntry| entry.metadata().is_ok_and(|meta| meta.uid() != account.uid());
    let file = fs::read_dir(path).ok()?.flatten().find(is_foreign)?.path();
    let name = &account.name;
    Some(format!("{}: does not belong to the user {name}: {}", file.display(), cure(path)))
}

/// The first directory on the way that this user cannot pass, and what to do.
fn barred(account: &Account, path: &Path) -> Option<String> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    let closed = above.into_iter().find(|directory| {
        let result = may(account, directory, AccessFlags::X_OK);
        result.is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
    })?;
    let (name, gid, closed) = (&account.name, account.gid, closed.display());
    Some(format!(
        "{}: the user {name} cannot pass {closed}: chgrp {gid} {closed} && chmod g+x {closed}",
        path.display()
    ))
}

/// Whether a user may use this file so, as the kernel says it.
///
/// # Errors
/// It may not, or there is no such file.
pub fn may(account: &Account, path: &Path, how: AccessFlags) -> io::Result<()> {
    let path = path.to_owned();
    as_user(account, move || Ok(faccessat(AT_FDCWD, &path, how, AtFlags::AT_EACCESS)?))
}

/// Asks the file system as this user, in a thread of its own: for files each thread has a user. Root gives up its capabilities over
/// files with that.
fn as_user<T: Send>(
    account: &Account,
    ask: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let (uid, gid, groups) = (account.uid, account.gid, &account.groups);
    let ask = move || {
        if uid != geteuid() {
            set_groups_of_this_thread(groups)?;
            setfsgid(gid);
            setfsuid(uid);
            // They return who it was before, also when refused; so it is asked again.
            if setfsuid(uid) != uid || setfsgid(gid) != gid {
                return Err(io::Error::other("cannot ask as that user"));
            }
        }
        ask()
    };
    let ended = thread::scope(|scope| scope.spawn(ask).join());
    ended.unwrap_or_else(|_| Err(io::Error::other("the question panicked")))
}

/// The C library's own would change those of all threads.
#[allow(unsafe_code)]
fn set_groups_of_this_thread(groups: &[nix::unistd::Gid]) -> io::Result<()> {
    let groups: Vec<libc::gid_t> = groups.iter().map(|gid| gid.as_raw()).collect();
    // SAFETY: the kernel reads so many numbers, which live until it returns.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    Errno::result(result)?;
    Ok(())
}

/// `user` of hooks and claims, where the worker has no user of its own.
fn programs(config: &Config, refused: &mut Vec<String>) {
    let hooks = config.hooks.iter().filter_map(|hook| Some(("[[hook]]", hook.user.as_ref()?)));
    let claims = config.claims.iter().filter_map(|claim| Some(("[[claim]]", claim.user.as_ref()?)));
    for (table, name) in hooks.chain(claims) {
        let why = match Account::find(name) {
            Err(why) => why,
            Ok(account) if account.is_me() => continue,
            Ok(_) => match missing_to_change_user() {
                Some(why) => format!("starting a program as {name} takes {why}"),
                None => continue,
            },
        };
        let line = format!("{table} user: {why}");
        if !refused.contains(&line) {
            refused.push(line);
        }
    }
}

/// What a process that is to start programs as others lacks.
fn missing_to_change_user() -> Option<String> {
    // Whose capabilities cannot be seen has none to speak of.
    let effective = capabilities::effective().unwrap_or_default();
    let lacks = |(bit, _): &&(u32, &str)| effective >> bit & 1 == 0;
    let missing: Vec<&str> =
        capabilities::TO_CHANGE_USER.iter().filter(lacks).map(|(_, name)| *name).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "{}, which this process lacks: under systemd add CapabilityBoundingSet={} (systemctl edit wgha)",
            missing.join(", "),
            missing.join(" ")
        )
    })
}
