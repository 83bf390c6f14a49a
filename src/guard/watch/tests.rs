use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, send, socketpair};

use super::super::process::pidfd;
use super::*;
use crate::state::Applied;

/// Longer than any of these steps takes; and long enough to see that something does not happen.
const LONG: Duration = Duration::from_secs(10);
const A_WHILE: Duration = Duration::from_millis(300);

/// A worker that does nothing, and its watch on a thread of its own.
struct Scene {
    worker: Child,
    line: Option<OwnedFd>,
    ended: Receiver<(Option<WaitStatus>, bool)>,
}

impl Scene {
    fn new() -> Scene {
        let worker = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(worker.id().try_into().unwrap());
        let flags = SockFlag::SOCK_CLOEXEC;
        let (inbox, line) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let progress = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
        let progress = File::from(progress.as_fd().try_clone_to_owned().unwrap());
        // No signals: those of this process are the test program's.
        let pidfd = pidfd(pid).unwrap();
        let mut watch = Watch::new(pid, pidfd, inbox, progress, &SigSet::empty()).unwrap();
        let (tell, ended) = channel();
        thread::spawn(move || {
            let status = watch.until_death().unwrap();
            let will = watch.will().is_some();
            let _ = watch.reap();
            tell.send((status, will)).unwrap();
        });
        Scene { worker, line: Some(line), ended }
    }

    fn says(&self, message: &[u8]) {
        let line = self.line.as_ref().unwrap();
        send(line.as_raw_fd(), message, MsgFlags::empty()).unwrap();
    }

    /// Nobody took its life, so it lives.
    fn is_left_alone(&mut self) {
        let ended = self.ended.recv_timeout(A_WHILE);
        assert_eq!(ended, Err(RecvTimeoutError::Timeout));
        assert!(self.worker.try_wait().unwrap().is_none());
    }

    fn dies(&mut self) -> (Option<WaitStatus>, bool) {
        self.worker.kill().unwrap();
        self.ended.recv_timeout(LONG).expect("its death is noticed")
    }
}

fn will(patience: Duration) -> Vec<u8> {
    will_leaving(patience, None)
}

fn will_leaving(patience: Duration, leaving: Option<Duration>) -> Vec<u8> {
    let (state_dir, by_config) = ("/nowhere".into(), Applied::default());
    Will { state_dir, by_config, patience, leaving, letters: Vec::new() }.encode().to_vec()
}

#[test]
fn end_of_file_is_no_death() {
    let mut scene = Scene::new();
    scene.says(&will(LONG));
    scene.is_left_alone();
    scene.line = None;
    scene.is_left_alone();
    let (status, will) = scene.dies();
    assert!(matches!(status, Some(WaitStatus::Signaled(_, Signal::SIGKILL, _))), "{status:?}");
    assert!(will);
}

#[test]
fn a_line_that_stays_open_is_no_life() {
    let mut scene = Scene::new();
    scene.says(&will(LONG));
    // A child of the worker may hold it, as this test does.
    let (status, will) = scene.dies();
    assert!(matches!(status, Some(WaitStatus::Signaled(_, Signal::SIGKILL, _))), "{status:?}");
    assert!(will && scene.line.is_some());
}

#[test]
fn who_shows_no_progress_is_killed_and_who_rests_is_not() {
    let scene = Scene::new();
    scene.says(&will(Duration::ZERO));
    scene.says(&super::super::will::REST);
    assert_eq!(scene.ended.recv_timeout(Duration::from_secs(1)), Err(RecvTimeoutError::Timeout));
    scene.says(&will(Duration::ZERO));
    let (status, _) = scene.ended.recv_timeout(LONG).expect("it is killed");
    assert!(matches!(status, Some(WaitStatus::Signaled(_, Signal::SIGKILL, _))), "{status:?}");
}

#[test]
fn who_rests_for_longer_than_leaving_takes_is_killed() {
    let scene = Scene::new();
    scene.says(&will_leaving(LONG, Some(Duration::ZERO)));
    scene.says(&super::super::will::REST);
    let (status, will) = scene.ended.recv_timeout(LONG).expect("it is killed");
    assert!(matches!(status, Some(WaitStatus::Signaled(_, Signal::SIGKILL, _))), "{status:?}");
    assert!(will);
}
