//! The whole status, asked of the main thread, for however many clients want it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use crate::control::{Call, Reply, Request};
use crate::status::Status;

/// A status of this age is new enough; so it is asked for ten times a second at most.
const FRESH: Duration = Duration::from_millis(100);

/// How long the main thread may take.
const ANSWER: Duration = Duration::from_secs(3);

/// A status, or why there is none.
pub(super) type Look = Result<Arc<Status>, &'static str>;

/// Asks for the status, one question at a time.
pub(super) struct Looker {
    calls: mpsc::Sender<Call>,
    kept: Mutex<Option<(Instant, Look)>>,
}

impl Looker {
    pub(super) fn new(calls: mpsc::Sender<Call>) -> Looker {
        Looker { calls, kept: Mutex::new(None) }
    }

    /// The status of now, or of a moment ago.
    pub(super) async fn look(&self) -> Look {
        let mut kept = self.kept.lock().await;
        if let Some((_, look)) = kept.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return look.clone();
        }
        let look = self.ask().await;
        *kept = Some((Instant::now(), look.clone()));
        look
    }

    async fn ask(&self) -> Look {
        let (reply, answer) = oneshot::channel();
        let call = Call { request: Request::Status {}, reply };
        if self.calls.try_send(call).is_err() {
            return Err("the daemon is busy or stopping");
        }
        match timeout(ANSWER, answer).await {
            Ok(Ok(Reply::Status(status))) => Ok(Arc::from(status)),
            Ok(Ok(_)) => Err("the protocol does not answer"),
            Ok(Err(_)) => Err("the daemon is stopping"),
            Err(_) => Err("the daemon does not answer"),
        }
    }
}
