//! The clients of the tunnels: called when a tunnel comes up, and again where nobody is back.

use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tracing::warn;
use wgha_proto::Term;

use super::Machine;
use crate::gateway::Notice;
use crate::gateway::kick::Round;

/// A cloud's network may follow its API later: where nobody is back clients are called again, so often and so far apart. A look
/// comes each second.
pub(super) const RECALLS: u8 = 10;
pub(super) const RECALL: Duration = Duration::from_millis(900);

impl Machine {
    /// Begins to attend to a tunnel that is up now: first of all its clients are kicked. `notices`: where it is told how they
    /// come back, if that is a part of the change of role.
    pub(super) fn attend(
        &mut self,
        index: usize,
        term: Term,
        round: Round,
        notices: Option<mpsc::Sender<Notice>>,
    ) {
        let Some(tunnel) = self.tunnels.get(index) else { return };
        let Some(attended) = tunnel.attended(&self.endpoints) else { return };
        self.attendance.begin(attended, term, round, &self.endpoints, notices);
    }

    /// A device that went down or away lost its sessions, so all clients are kicked again.
    pub(super) fn attend_again(&mut self, term: Term) {
        self.attendance.end();
        for index in 0..self.tunnels.len() {
            let round = Round { entered: SystemTime::now(), again: false };
            self.attend(index, term, round, None);
        }
    }

    /// Calls those that are not back.
    pub(super) async fn call_again(&mut self, term: Term) {
        self.attendance.end();
        let round = Round { entered: self.back_since, again: true };
        // What is counted from elsewhere is no part of the change of role.
        let notices = (self.back_since == self.entered).then(|| self.notices.clone());
        for index in 0..self.tunnels.len() {
            let Some(tunnel) = self.tunnels.get_mut(index) else { continue };
            if let Err(e) = tunnel.forget_unanswered(round.entered, &self.endpoints).await {
                warn!("handshakes begin in up to 5 s: {e}");
            }
            self.attend(index, term, round, notices.clone());
        }
    }

    /// Calls them once more if it is time and nobody is back.
    pub(super) async fn recall(&mut self, term: Term) {
        let Some((at, left)) = self.recall.filter(|(at, _)| *at <= Instant::now()) else { return };
        self.recall = (left > 1).then_some((at + RECALL, left - 1));
        let mut nobody = false;
        for tunnel in &mut self.tunnels {
            nobody |= tunnel.nobody_is_back(self.back_since, &self.endpoints).await;
        }
        if nobody {
            self.call_again(term).await;
        } else {
            self.recall = None;
        }
    }
}
