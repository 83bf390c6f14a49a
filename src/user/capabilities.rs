//! The capabilities that a worker without root keeps (capabilities(7)), and how a program that it starts gets them or does not.

use std::io;

use nix::errno::Errno;
use nix::libc;

/// CAP_NET_ADMIN and CAP_NET_RAW: links, addresses, rules, nftables; ARP and NA.
const KEPT: [u32; 2] = [12, 13];

/// What starting a program as another user takes, and ending it: CAP_KILL, CAP_SETGID, CAP_SETUID.
pub(super) const TO_CHANGE_USER: [(u32, &str); 3] =
    [(5, "CAP_KILL"), (6, "CAP_SETGID"), (7, "CAP_SETUID")];

/// The highest that any kernel knows has room in the two words of version 3.
const ALL: u32 = 64;

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// One word of each set.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The capabilities that the calling thread can use now, as bits.
pub(super) fn effective() -> io::Result<u64> {
    let [low, high] = get()?;
    Ok(u64::from(low.effective) | u64::from(high.effective) << 32)
}

/// Whether this process can become somebody else: CAP_SETGID and CAP_SETUID.
pub(super) fn can_change_user() -> bool {
    effective().is_ok_and(|bits| bits >> 6 & 0b11 == 0b11)
}

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// It changes the network: [`KEPT`].
    Network,
    /// It sends heartbeats, which takes nothing.
    Voting,
}

/// Gives up all that the work does not take, and keeps of that what there is; programs that it starts get none, unless [`Lent`]. For good where
/// the kernel lets it, which `no_new_privs` makes the same thing.
pub(super) fn keep(work: Work) -> io::Result<()> {
    let kept: &[u32] = if work == Work::Network { &KEPT } else { &[] };
    for capability in (0..ALL).filter(|c| !kept.contains(c)) {
        // Beyond the highest it is EINVAL, without CAP_SETPCAP EPERM.
        let _ = prctl(libc::PR_CAPBSET_DROP, capability.into(), 0);
    }
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0)?;
    narrow(kept)
}

/// Permitted, effective and inheritable: what is permitted of these. After a change of user, which clears the effective ones.
fn narrow(kept: &[u32]) -> io::Result<()> {
    let wanted = kept.iter().fold(0, |bits, capability| bits | 1 << capability);
    let now = get()?;
    let [Word { permitted, .. }, _] = now;
    let kept = permitted & wanted;
    let then = [Word { effective: kept, permitted: kept, inheritable: kept }, Word::default()];
    // dist/systemd/wgha.service gives just that, and forbids the call.
    if now == then { Ok(()) } else { set(then) }
}

/// Programs that this thread starts get [`KEPT`] until this is dropped.
#[derive(Debug)]
pub(crate) struct Lent;

impl Lent {
    pub(super) fn to_programs() -> Lent {
        for capability in KEPT {
            // What this process does not have it cannot lend.
            let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
            let _ = prctl(libc::PR_CAP_AMBIENT, raise, capability.into());
        }
        Lent
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Takes nothing from this thread itself, and cannot fail on a kernel that could raise.
        let _ = prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0);
    }
}

#[allow(unsafe_code)]
fn get() -> io::Result<[Word; 2]> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut words = [Word::default(); 2];
    // SAFETY: version 3 writes two words, which are there; pid 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
    Errno::result(result)?;
    Ok(words)
}

#[allow(unsafe_code)]
fn set(words: [Word; 2]) -> io::Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    // SAFETY: the kernel reads two words, which live until it returns; pid 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    Errno::result(result)?;
    Ok(())
}

/// Those of its options that take numbers alone.
#[allow(unsafe_code)]
fn prctl(option: libc::c_int, a: libc::c_ulong, b: libc::c_ulong) -> io::Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: takes five numbers and touches no memory of ours.
    let result = unsafe { libc::prctl(option, a, b, zero, zero) };
    Errno::result(result)?;
    Ok(())
}
