//! The worker's end of what ties it to the guard.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::sys::eventfd::EventFd;
use nix::sys::socket::{MsgFlags, send};
use tokio::sync::oneshot;

use super::process;
use super::will::{self, Note, Will};

/// The worker's end, as one cluster in it has it.
pub struct Line {
    ends: Arc<Ends>,
    /// Which of the clusters.
    cluster: usize,
}

/// What all clusters of this process share.
struct Ends {
    socket: OwnedFd,
    progress: EventFd,
    guard: OwnedFd,
    guard_id: u32,
    program: Option<PathBuf>,
    clusters: Vec<Cluster>,
    /// How often all of them have turned.
    rounds: Arc<AtomicU64>,
}

struct Cluster {
    /// Its loop has turned since the last round.
    turned: AtomicBool,
    /// No progress is expected of it.
    rests: AtomicBool,
    will: Mutex<Option<Will>>,
}

// Wills have no Debug: they are secret.
impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Line {
    /// One for each of so many clusters.
    pub(super) fn all(
        socket: OwnedFd,
        progress: EventFd,
        guard: OwnedFd,
        guard_id: u32,
        program: Option<PathBuf>,
        clusters: usize,
    ) -> Vec<Arc<Line>> {
        let cluster = |_| Cluster {
            turned: AtomicBool::new(false),
            rests: AtomicBool::new(true),
            will: Mutex::new(None),
        };
        let (clusters, rounds) = ((0..clusters).map(cluster).collect(), Arc::default());
        let ends = Arc::new(Ends { socket, progress, guard, guard_id, program, clusters, rounds });
        let line = |cluster| Arc::new(Line { ends: Arc::clone(&ends), cluster });
        (0..ends.clusters.len()).map(line).collect()
    }

    /// Where the program was when it was started, and what the guard starts for an upgrade; `None`: the system did not say.
    #[must_use]
    pub fn program(&self) -> Option<&Path> {
        self.ends.program.as_deref()
    }

    /// This process is about to end, and the program at [`Line::program`] is to be started in its place.
    ///
    /// # Errors
    /// The guard is gone, or does not read.
    pub fn again(&self) -> io::Result<()> {
        self.send(&will::AGAIN)
    }

    /// Has the guard tell systemd. Never waits.
    ///
    /// # Errors
    /// The guard is gone, or does not read.
    pub fn tell_systemd(&self, note: &Note) -> io::Result<()> {
        self.send(&note.encode())
    }

    /// Tells the guard what to do after this process; replaces what it was told before. Never waits.
    ///
    /// # Errors
    /// The guard is gone, or does not read, or it is more than it would read.
    pub fn hand_over(&self, will: &Will) -> io::Result<()> {
        let message = match self.ends.clusters.as_slice() {
            [_] => will.encode(),
            _ => self.joint(will).encode(),
        };
        if message.len() > will::MOST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} bytes, and at most {} can be", message.len(), will::MOST),
            ));
        }
        self.send(&message)?;
        if let Some(me) = self.mine() {
            me.rests.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// With this one's, the will of all clusters. They put nothing up, so one state directory stands for all.
    fn joint(&self, mine: &Will) -> Will {
        let mut joint: Option<Will> = None;
        for (index, cluster) in self.ends.clusters.iter().enumerate() {
            let mut kept = cluster.will.lock().unwrap_or_else(PoisonError::into_inner);
            if index == self.cluster {
                *kept = Some(mine.clone());
            }
            let Some(will) = kept.as_ref() else { continue };
            match &mut joint {
                None => joint = Some(will.clone()),
                Some(all) => {
                    all.patience = all.patience.max(will.patience);
                    all.letters.extend(will.letters.iter().cloned());
                }
            }
        }
        // All may rest for long, and begin again.
        Will { leaving: None, ..joint.unwrap_or_else(|| mine.clone()) }
    }

    /// The loop ends on purpose: no progress is expected any more, but the end of the process.
    pub fn rest(&self) {
        if let Some(me) = self.mine() {
            me.rests.store(true, Ordering::Relaxed);
        }
        if self.ends.clusters.iter().all(|c| c.rests.load(Ordering::Relaxed)) {
            // A guard that is gone expects nothing either.
            let _ = self.send(&will::REST);
        }
    }

    /// The protocol's loop has turned. Never waits.
    pub fn beat(&self) {
        if let Some(me) = self.mine() {
            me.turned.store(true, Ordering::Relaxed);
        }
        // One that hangs is not covered by the others.
        let done =
            |c: &Cluster| c.turned.load(Ordering::Relaxed) || c.rests.load(Ordering::Relaxed);
        if !self.ends.clusters.iter().all(done) {
            return;
        }
        for cluster in &self.ends.clusters {
            cluster.turned.store(false, Ordering::Relaxed);
        }
        self.ends.rounds.fetch_add(1, Ordering::Relaxed);
        // Full after 2^64 turns that nobody looked at.
        let _ = self.ends.progress.write(1);
    }

    /// How often the loops of all clusters have turned.
    #[must_use]
    pub fn rounds(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.ends.rounds)
    }

    /// How many clusters this process serves.
    #[must_use]
    pub fn clusters(&self) -> usize {
        self.ends.clusters.len()
    }

    /// Tells when the guard is dead, from a thread that does nothing else.
    ///
    /// # Errors
    /// The system has no descriptor or thread for us.
    pub fn guard_died(&self) -> io::Result<oneshot::Receiver<()>> {
        let (tell, told) = oneshot::channel();
        let guard = self.ends.guard.try_clone()?;
        thread::Builder::new().name("guard".to_owned()).spawn(move || {
            process::wait_death(&guard);
            // The process may be ending anyway.
            let _ = tell.send(());
        })?;
        Ok(told)
    }

    /// The guard's process id: what systemd takes for this daemon's.
    #[must_use]
    pub fn guard_id(&self) -> u32 {
        self.ends.guard_id
    }

    fn mine(&self) -> Option<&Cluster> {
        self.ends.clusters.get(self.cluster)
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        send(self.ends.socket.as_raw_fd(), message, flags)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::will::Letter;
    use super::super::will::tests::{lines, read};
    use super::*;

    fn will(name: &str, patience: u64, letters: usize) -> Will {
        let letter = |n: usize| Letter {
            from: "10.0.3.10:5112".parse().unwrap(),
            to: format!("10.0.1.{n}:5112").parse().unwrap(),
            bytes: name.as_bytes().to_vec().into(),
        };
        Will {
            state_dir: name.into(),
            by_config: Default::default(),
            patience: Duration::from_millis(patience),
            leaving: None,
            letters: (0..letters).map(letter).collect(),
        }
    }

    #[test]
    fn one_will_for_all_clusters() {
        let (lines, guard) = lines(2);
        lines[1].hand_over(&will("b", 600, 2)).unwrap();
        assert!(read(&guard).is_some_and(|w| w == will("b", 600, 2)));
        lines[0].hand_over(&will("a", 900, 1)).unwrap();
        let joint = read(&guard).unwrap();
        assert_eq!((joint.patience, joint.letters.len()), (Duration::from_millis(900), 3));
        // Said again it takes the place of what was said before.
        lines[1].hand_over(&will("b", 600, 1)).unwrap();
        assert_eq!(read(&guard).unwrap().letters.len(), 2);
    }

    #[test]
    fn one_that_hangs_is_not_covered_by_the_others() {
        let (lines, _guard) = lines(2);
        let rounds = || lines[0].rounds().load(Ordering::Relaxed);
        lines[0].hand_over(&will("a", 600, 0)).unwrap();
        lines[0].beat();
        assert_eq!(rounds(), 1, "the other one has not begun");
        lines[1].hand_over(&will("b", 600, 0)).unwrap();
        (0..5).for_each(|_| lines[0].beat());
        assert_eq!(rounds(), 1, "the other one hangs");
        lines[1].beat();
        assert_eq!(rounds(), 2);
        lines[1].rest();
        lines[0].beat();
        assert_eq!(rounds(), 3, "the other one rests");
    }
}
