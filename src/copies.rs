//! Word of the kernel that this machine is a copy, or was set back: VMGENID.
//!
//! A hypervisor that restores or clones a machine gives it another generation id; the kernel's driver `vmgenid` reseeds the
//! random numbers and then tells user space, by a uevent of its device, `change` with `NEW_VMGENID=1` (Linux 6.10 and later). The id
//! itself is not shown. Where there is no such device, or the process is in a container with a user namespace of its own, nothing comes,
//! and a copy shows by its echoes alone (docs/protocol.md §5).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt,
    socket, sockopt::RcvBuf,
};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::daemon::Input;

/// The kernel's own notices; group 2 is udev's.
const KERNEL_GROUP: u32 = 1;

/// The kernel's limit for one (`UEVENT_BUFFER_SIZE`) is 2048, and the path before it.
const MOST: usize = 8192;

/// A storm of devices must not push out the one that counts.
const BUFFER: usize = 1024 * 1024;

/// The thread does one thing.
const STACK: usize = 128 * 1024;

/// Tells the protocol's loop when this machine was copied, from a thread that does nothing else. That it cannot is logged: it is no
/// reason not to serve.
pub fn watch(inputs: &mpsc::Sender<Input>) {
    let inputs = inputs.downgrade();
    let started = Uevents::open().and_then(|mut uevents| {
        let listen = move || listen(|| uevents.receive(), &inputs);
        thread::Builder::new().name("copies".to_owned()).stack_size(STACK).spawn(listen)
    });
    if let Err(e) = started {
        info!("that this machine is copied shows by heartbeats alone: {e}");
    }
}

/// Reads notices until there are no more, or nobody is left to tell.
fn listen(mut next: impl FnMut() -> io::Result<Vec<u8>>, inputs: &mpsc::WeakSender<Input>) {
    loop {
        match next() {
            Ok(notice) if is_new_generation(&notice) => {
                warn!("the hypervisor says that this machine is a copy, or was set back");
                let Some(inputs) = inputs.upgrade() else { return };
                if inputs.blocking_send(Input::Copied).is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(e) => {
                warn!("that this machine is copied shows by heartbeats alone from now on: {e}");
                return;
            }
        }
    }
}

/// Whether a notice says that the machine has another generation id.
///
/// It is text: `ACTION@DEVPATH`, then `KEY=VALUE`, each behind a zero byte. What root makes the kernel say by writing to
/// a device's `uevent` file has other keys (`SYNTH_ARG_...`).
fn is_new_generation(notice: &[u8]) -> bool {
    let mut parts = notice.split(|byte| *byte == 0);
    let change = parts.next().is_some_and(|head| head.starts_with(b"change@"));
    change && parts.any(|part| part == b"NEW_VMGENID=1")
}

/// The kernel's notices of devices.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Uevents {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system has no such socket for us.
    pub fn open() -> io::Result<Uevents> {
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        // Cut by the kernel to what is allowed.
        let _ = setsockopt(&socket, RcvBuf, &BUFFER);
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Uevents { socket, buffer: vec![0; MOST] })
    }

    /// Waits for the next one that the kernel itself sent.
    ///
    /// # Errors
    /// The socket is no longer of use.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut self.buffer) {
                // A process may send here too, if it is root; but not as number 0.
                Ok((length, Some(from))) if from.pid() == 0 => {
                    return Ok(self.buffer.get(..length).unwrap_or_default().to_vec());
                }
                // Some were lost, most likely of other devices.
                Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(lines: &[&str]) -> Vec<u8> {
        lines.iter().flat_map(|line| line.bytes().chain([0])).collect()
    }

    const HEAD: &str = "change@/devices/platform/QEMUVGID:00";

    #[test]
    fn notices() {
        let rest = ["ACTION=change", "DEVPATH=/devices/platform/QEMUVGID:00", "SUBSYSTEM=platform"];
        let with = |head, line| notice(&[&[head], &rest[..], &[line, "SEQNUM=4711"]].concat());
        for (notice, new) in [
            (with(HEAD, "NEW_VMGENID=1"), true),
            (with("change@/devices/LNXSYSTM:00/QEMUVGID:00", "NEW_VMGENID=1"), true),
            (with(HEAD, "NEW_VMGENID=0"), false),
            (with(HEAD, "NEW_VMGENID=12"), false),
            (with(HEAD, "SYNTH_ARG_NEW_VMGENID=1"), false),
            (with(HEAD, "DRIVER=vmgenid"), false),
            (with("add@/devices/platform/QEMUVGID:00", "NEW_VMGENID=1"), false),
            (with("libudev", "NEW_VMGENID=1"), false),
            (b"NEW_VMGENID=1".to_vec(), false),
            (b"change@NEW_VMGENID=1".to_vec(), false),
            (Vec::new(), false),
            (vec![0; 20], false),
            (vec![255; 2000], false),
        ] {
            let text = String::from_utf8_lossy(&notice).into_owned();
            assert_eq!(is_new_generation(&notice), new, "{text:?}");
        }
    }

    /// From a notice to the protocol's loop; an end of the notices ends the thread.
    #[test]
    fn the_loop_is_told() {
        let (inputs, mut told) = mpsc::channel(4);
        let mut notices = vec![notice(&[HEAD, "NEW_VMGENID=1"]), notice(&["add@/devices/x"])];
        let next = || notices.pop().ok_or_else(|| io::Error::other("no more"));
        listen(next, &inputs.downgrade());
        assert!(matches!(told.try_recv(), Ok(Input::Copied)));
        assert!(told.try_recv().is_err(), "of the other device nothing is said");
    }

    #[test]
    fn a_loop_that_is_gone_ends_it() {
        let (inputs, told) = mpsc::channel(4);
        let weak = inputs.downgrade();
        drop((inputs, told));
        listen(|| Ok(notice(&[HEAD, "NEW_VMGENID=1"])), &weak);
    }
}
