//! What runs beside the reconciler while this node is master: the kick, and the poll that tells the
//! other gateways where the clients are.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::debug;
use wgha_proto::Term;

use self::pace::Pace;
use super::Notice;
use super::kick::{self, Limits, Round, Target};
use crate::sync::Endpoints;
use crate::wireguard::Live;

mod pace;

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
    let mut pace = Pace::default();
    loop {
        let begun = Instant::now();
        match live.peers().await {
            Ok(peers) => endpoints.publish(&interface, term, &peers),
            Err(e) => debug!("{interface}: {e}"),
        }
        sleep(pace.pause(begun.elapsed())).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use async_trait::async_trait;

    use super::*;
    use crate::wireguard::key::PublicKey;
    use crate::wireguard::{Kick, PeerState, WgError};

    /// Slow in its first answer; has a client ever after.
    #[derive(Default)]
    struct Fake(Mutex<bool>);

    #[async_trait]
    impl Live for Fake {
        async fn peers(&self) -> Result<Vec<PeerState>, WgError> {
            if !std::mem::replace(&mut *self.0.lock().unwrap(), true) {
                sleep(Duration::from_millis(400)).await;
                return Ok(Vec::new());
            }
            let endpoint = Some(([192, 0, 2, 1], 4000).into());
            let last_handshake = None;
            Ok(vec![PeerState { public_key: [1; 32], endpoint, last_handshake, received: 0 }])
        }

        async fn kick(&self, _: &[Kick]) -> Result<(), WgError> {
            Ok(())
        }

        fn settle(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_known_soon_although_a_poll_was_slow() {
        let endpoints = Endpoints::default();
        endpoints.begin("wg0", 1);
        let poll = poll("wg0".to_owned(), Arc::new(Fake::default()), 1, endpoints.clone());
        assert!(tokio::time::timeout(Duration::from_secs(1), poll).await.is_err());
        assert!(endpoints.look("wg0").peers.contains_key(&PublicKey([1; 32])));
    }
}
