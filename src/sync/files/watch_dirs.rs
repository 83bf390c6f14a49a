//! In which directories something happened (inotify). Files are replaced by rename, so their
//! directories are watched.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::net::unix::pipe;

/// The watched directories. What it misses, a slow look at everything finds.
pub(super) struct Watch {
    inotify: Inotify,
    /// The same descriptor, as a stream of bytes that say that something happened. What it was, a
    /// look at the files tells.
    events: pipe::Receiver,
    directories: BTreeMap<PathBuf, WatchDescriptor>,
}

impl Watch {
    /// Call inside a runtime.
    pub(super) fn open() -> io::Result<Watch> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let events = inotify.as_fd().try_clone_to_owned()?;
        let events = pipe::Receiver::from_owned_fd_unchecked(events)?;
        Ok(Watch { inotify, events, directories: BTreeMap::new() })
    }

    /// Watches these directories, and no others. One that was replaced by another of its name is
    /// found again here, so call it now and then.
    pub(super) fn set(&mut self, wanted: &BTreeSet<PathBuf>) {
        let gone: Vec<PathBuf> =
            self.directories.keys().filter(|dir| !wanted.contains(*dir)).cloned().collect();
        for dir in gone {
            if let Some(watch) = self.directories.remove(&dir) {
                // It may be gone by itself.
                let _ = self.inotify.rm_watch(watch);
            }
        }
        for dir in wanted {
            match self.inotify.add_watch(dir, flags()) {
                Ok(watch) => _ = self.directories.insert(dir.clone(), watch),
                // It may come later; the slow look sees what is in it.
                Err(_) => _ = self.directories.remove(dir),
            }
        }
    }

    /// Waits until something happened in one of them.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        // An event has at most 272 bytes; read with less room it would fail.
        let mut events = [0; 4096];
        loop {
            self.events.readable().await?;
            match self.events.try_read(&mut events) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Not merely reading, so that our own look causes no other.
fn flags() -> AddWatchFlags {
    AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR
}
