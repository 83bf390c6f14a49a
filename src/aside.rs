//! Threads that run one future each, on a runtime of their own.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;
use tracing::{debug, error};

use crate::priority;

/// A thread that ends when its owner drops it. That drops the future, and waits for it.
#[derive(Debug)]
pub(crate) struct Aside {
    name: &'static str,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Aside {
    /// Runs what `work` makes, on a tokio runtime of the new thread.
    ///
    /// # Errors
    /// The system has no thread or descriptor for it.
    pub(crate) fn start<F: Future<Output = ()>>(
        name: &'static str,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<Aside> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let body = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = work() => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(body)?;
        Ok(Aside { name, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the thread {} had died", self.name);
        }
    }
}

/// Runs what `work` makes, on a thread that nobody waits for and that has the priority of the protocol's. At most so many
/// of its calls block at a time.
///
/// # Errors
/// The system has no thread or descriptor for it.
pub(crate) fn raised<F: Future<Output = ()>>(
    name: &'static str,
    blocking: usize,
    work: impl FnOnce() -> F + Send + 'static,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(blocking)
        .build()?;
    let body = move || {
        if let Err(e) = priority::raise_this_thread() {
            debug!("the thread {name} has no priority over other programs: {e}");
        }
        runtime.block_on(work());
    };
    thread::Builder::new().name(name.to_owned()).spawn(body)?;
    Ok(())
}
