//! `[cluster] user`: guard and worker run as a user of their own, with CAP_NET_ADMIN and CAP_NET_RAW (a witness without) and nothing
//! else of root.
//!
//! Root is given up before the fork, for good, and by the guard as well: it believes what the worker leaves it (a state directory,
//! PostDown lines on record), so a guard that stayed root would be the worker's way back. For the same reason `wgha
//! release`, run by root, becomes the user whose the state directory is.
//!
//! What follows from it is looked at in [`access`]: which files the user must be able to read and write, and what is to be done
//! about it. PreUp, PostUp, PreDown and PostDown get the two capabilities; hooks and claims get none.
//!
//! The other way round, `user` of a hook or claim: only root can start a program as somebody else.

use std::ffi::CString;
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, bail, ensure};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::unistd::{
    Gid, Uid, User, geteuid, getgrouplist, getresuid, setgroups, setresgid, setresuid,
};
use tokio::process::Command;

pub mod access;
mod capabilities;
#[cfg(test)]
mod tests;

use crate::config::Config;
use crate::realtime;
pub(crate) use capabilities::Lent;
use capabilities::Work;

/// Who this process became.
static ASSUMED: OnceLock<Account> = OnceLock::new();

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    name: String,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    home: PathBuf,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Account {
    /// The user of this name.
    ///
    /// # Errors
    /// There is none, or it is root; in words.
    pub fn find(name: &str) -> Result<Account, String> {
        match User::from_name(name) {
            Ok(Some(user)) if user.uid.is_root() => Err(format!("{name} is root")),
            Ok(Some(user)) => Account::of(user),
            Ok(None) => Err(format!(
                "this machine has no user {name}: \
                 useradd --system --no-create-home --shell /usr/sbin/nologin {name}"
            )),
            Err(e) => Err(format!("cannot look up the user {name}: {e}")),
        }
    }

    fn of(user: User) -> Result<Account, String> {
        let User { name, uid, gid, dir: home, .. } = user;
        let listed = CString::new(name.as_str()).map(|name| getgrouplist(&name, gid));
        match listed {
            Ok(Ok(groups)) => Ok(Account { name, uid, gid, groups, home }),
            Ok(Err(e)) => Err(format!("cannot look up the groups of {name}: {e}")),
            Err(_) => Err("no name".to_owned()),
        }
    }

    /// Its number.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    /// This process runs as this user.
    #[must_use]
    pub fn is_me(&self) -> bool {
        geteuid() == self.uid
    }

    fn environment(&self, command: &mut Command) {
        command.env("HOME", &self.home).env("USER", &self.name).env("LOGNAME", &self.name);
    }

    /// Has `command` run as this user, with all its groups and nothing of root.
    #[allow(unsafe_code)]
    fn run_as(&self, command: &mut Command) {
        self.environment(command);
        let (uid, gid, groups) = (self.uid, self.gid, self.groups.clone());
        let change = move || {
            setgroups(&groups)?;
            setresgid(gid, gid, gid)?;
            // Last: it takes the capabilities along.
            setresuid(uid, uid, uid)?;
            Ok(())
        };
        // SAFETY: between fork and exec it makes three system calls, with numbers and a list that were there before,
        // and allocates nothing: an error is a number.
        unsafe { command.pre_exec(change) };
    }
}

/// Becomes the user that the config wants, before anything else. Does nothing where it wants none, or cannot be read: whoever
/// reads it next says what is wrong.
///
/// # Errors
/// There is no such user, or this process cannot become it.
pub fn as_configured(path: &Path, node: Option<&str>) -> anyhow::Result<()> {
    let Ok(config) = Config::load(path, node) else { return Ok(()) };
    let Some(name) = &config.cluster.user else { return Ok(()) };
    let account = Account::find(name).map_err(|why| anyhow::anyhow!("[cluster] user: {why}"))?;
    if geteuid().is_root() {
        ensure!(capabilities::can_change_user(), "{}", access::cannot_become(name));
        prepare(&account, &config).with_context(|| format!("a directory for the user {name}"))?;
        raise_limits(config.cluster.realtime);
        // While it can still say all of it: the user may not even be able to read the config.
        let refused = access::refusals(&config);
        ensure!(refused.is_empty(), "{}", refused.join("\n"));
    }
    let work = if config.node().witness { Work::Voting } else { Work::Network };
    assume(account, work)
}

/// Becomes whoever the directory belongs to, if this is root and that is not.
///
/// # Errors
/// This process cannot become that user.
pub fn as_owner_of(directory: &Path) -> anyhow::Result<()> {
    let owner = fs::symlink_metadata(directory).map(|meta| meta.uid());
    let Ok(owner) = owner else { return Ok(()) };
    if !geteuid().is_root() || owner == 0 {
        return Ok(());
    }
    let user = User::from_uid(Uid::from_raw(owner)).ok().flatten();
    let user = user.with_context(|| {
        format!("{} belongs to user {owner}, whom this machine does not have", directory.display())
    })?;
    assume(Account::of(user).map_err(anyhow::Error::msg)?, Work::Network)
}

/// Whether this process is who the config wants. It is asked when the config has been read again: it may have changed.
#[must_use]
pub fn is_as_configured(config: &Config) -> bool {
    let is = ASSUMED.get().map(|account| &account.name);
    config.cluster.user.as_ref() == is
}

fn assume(account: Account, work: Work) -> anyhow::Result<()> {
    let name = &account.name;
    if account.is_me() {
        // Who changed the user for us may have forbidden the calls, and given no more than the two.
        let _ = capabilities::keep(work);
    } else {
        ensure!(geteuid().is_root(), "{}", access::is_another(name));
        become_user(&account).with_context(|| access::cannot_become(name))?;
        capabilities::keep(work).context("cannot give up capabilities")?;
    }
    prctl::set_no_new_privs().context("cannot give up new privileges")?;
    let ids = getresuid().context("cannot see who this is")?;
    let [real, effective, saved] = [ids.real, ids.effective, ids.saved];
    if [real, effective, saved] != [account.uid; 3] {
        bail!("still not {name} alone: {real}, {effective}, {saved}");
    }
    // Only a second call would find it set, and there is none.
    let _ = ASSUMED.set(account);
    Ok(())
}

/// Of this one thread: nothing else may run yet.
fn become_user(account: &Account) -> anyhow::Result<()> {
    // What changes the user would clear the permitted ones as well.
    prctl::set_keepcaps(true)?;
    setgroups(&account.groups)?;
    setresgid(account.gid, account.gid, account.gid)?;
    setresuid(account.uid, account.uid, account.uid)?;
    prctl::set_keepcaps(false)?;
    Ok(())
}

/// Makes directories that are missing, as the user cannot. What exists is left as it is.
fn prepare(account: &Account, config: &Config) -> io::Result<()> {
    make(account, &config.cluster.state_dir, 0o700)?;
    match config.control_socket.parent() {
        Some(directory) => make(account, directory, 0o755),
        None => Ok(()),
    }
}

fn make(account: &Account, directory: &Path, mode: u32) -> io::Result<()> {
    if directory.exists() {
        return Ok(());
    }
    if let Some(parent) = directory.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    DirBuilder::new().mode(mode).create(directory)?;
    std::os::unix::fs::lchown(directory, Some(account.uid()), Some(account.gid.as_raw()))
}

/// What root may have and its user could not get: the limits that stand in the unit files.
fn raise_limits(realtime: bool) {
    // Whoever is refused serves without, and says so. The limit is 20 less the nice value: -20.
    let _ = setrlimit(Resource::RLIMIT_NICE, 40, 40);
    if realtime {
        let priority = u64::from(realtime::PRIORITY.unsigned_abs());
        let _ = setrlimit(Resource::RLIMIT_RTPRIO, priority, priority);
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    }
}

/// Has the program that replaces this one keep the capabilities that this process has as another user than root: the kernel takes
/// them at its start otherwise. Keep what is returned until it runs.
pub(crate) fn pass_on() -> Option<Lent> {
    ASSUMED.get().map(|_| Lent::to_programs())
}

/// Sets up whose a program is that is about to be started by this thread: `user`'s, or this process's. `network`: it may
/// change the network where this process is no root's. Keep what is returned until it runs.
///
/// # Errors
/// There is no such user; in words.
pub(crate) fn set_up(
    command: &mut Command,
    user: Option<&str>,
    network: bool,
) -> Result<Option<Lent>, String> {
    match user.map(Account::find).transpose()? {
        Some(account) if !account.is_me() => {
            account.run_as(command);
            return Ok(None);
        }
        _ => {}
    }
    let Some(account) = ASSUMED.get() else { return Ok(None) };
    account.environment(command);
    Ok(network.then(Lent::to_programs))
}
