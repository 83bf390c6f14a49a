//! What runs beside the reconciler while this node is master: the kick, and the poll that tells the
//! other gateways where the clients are.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::debug;
use wgha_proto::Term;

use super::Notice;
use super::kick::{self, Limits, Round, Target};
use crate::sync::Endpoints;
use crate::wireguard::Live;

/// Time between two polls: so many times what the last one cost, so that polling takes a hundredth
/// of a core; within bounds.
const POLL_COST: u32 = 100;
const POLL_MIN: Duration = Duration::from_millis(500);
const POLL_MAX: Duration = Duration::from_secs(10);

/// The tasks of one term. Dropping it ends them, at once.
#[derive(Default)]
pub struct Attendance(JoinSet<()>);

/// What attending one interface needs.
pub struct Attended {
    /// Its name.
    pub interface: String,
    /// Its device, which is up.
    pub live: Arc<dyn Live>,
    /// How fast its clients are kicked.
    pub limits: Limits,
    /// Its clients.
    pub targets: Vec<Target>,
}

impl Attendance {
    /// Begins with an interface that is up.
    pub fn begin(
        &mut self,
        attended: Attended,
        term: Term,
        round: Round,
        endpoints: &Endpoints,
        notices: Option<mpsc::Sender<Notice>>,
    ) {
        let Attended { interface, live, limits, targets } = attended;
        endpoints.begin(&interface, term);
        let poll = poll(interface.clone(), Arc::clone(&live), term, endpoints.clone());
        self.0.spawn(async move {
            // A figure that is lost because nobody takes it is no loss.
            let tell = |handshakes| {
                let notice = Notice::Handshakes(term, handshakes);
                let _ = notices.as_ref().map(|n| n.try_send(notice));
            };
            kick::run(&interface, live, limits, targets, round, tell).await;
        });
        self.0.spawn(poll);
    }

    /// Ends all of it, at once.
    pub fn end(&mut self) {
        self.0 = JoinSet::new();
    }
}

async fn poll(interface: String, live: Arc<dyn Live>, term: Term, endpoints: Endpoints) {
    loop {
        let begun = Instant::now();
        match live.peers().await {
            Ok(peers) => endpoints.publish(&interface, term, &peers),
            Err(e) => debug!("{interface}: {e}"),
        }
        sleep((begun.elapsed() * POLL_COST).clamp(POLL_MIN, POLL_MAX)).await;
    }
}
