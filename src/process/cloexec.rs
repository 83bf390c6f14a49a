//! Keeps the daemon's descriptors out of the programs it starts.

/// Marks every open descriptor above standard error close-on-exec.
///
/// Libraries open sockets and devices of their own, not all of them with `CLOEXEC`; a hook that
/// stays behind must not hold the daemon's lock, sockets or tun device. Best effort: kernels before
/// 5.11 do not know the call, and there every descriptor of ours is opened close-on-exec anyway.
#[allow(unsafe_code)]
pub(super) fn mark_all() {
    const FIRST: nix::libc::c_uint = 3;
    // SAFETY: the call touches no memory; with CLOSE_RANGE_CLOEXEC it closes nothing and only sets
    // a flag that matters at exec.
    unsafe {
        nix::libc::syscall(
            nix::libc::SYS_close_range,
            FIRST,
            nix::libc::c_uint::MAX,
            nix::libc::CLOSE_RANGE_CLOEXEC,
        );
    }
}
