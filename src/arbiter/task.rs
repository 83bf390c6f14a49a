//! The thread's loop: the wish comes in, requests go out, words go to the protocol.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};
use wgha_proto::{Agent, Word};

use super::client::{Client, Outcome};
use super::json::Keys;
use super::{Level, Settings, View};
use crate::clock;

/// A word that the protocol had no room for is said again after this.
const SAY_AGAIN: Duration = Duration::from_millis(10);

/// What the loop is made of.
pub(super) struct Parts {
    /// The config in force; `None`: no etcd.
    pub(super) settings: watch::Receiver<Option<Settings>>,
    /// What is wanted. It all ends with the sender.
    pub(super) level: watch::Receiver<Level>,
    /// Tells the protocol; false if it has no room.
    pub(super) tell: Box<dyn FnMut(Word) -> bool + Send>,
    /// For status.
    pub(super) view: View,
}

type Pending = Pin<Box<dyn Future<Output = (Client, Outcome)>>>;

/// One etcd that is asked for one voter's vote.
struct Asking {
    settings: Settings,
    voter: String,
    session: [u8; 16],
    agent: Agent,
    /// While no request is under way.
    client: Option<Client>,
    pending: Option<Pending>,
}

impl Asking {
    fn new(settings: Settings, voter: String, session: [u8; 16]) -> Asking {
        let mut agent = Agent::new(&settings.cluster, &voter, &settings.node, session);
        agent.pace(settings.interval, settings.detection);
        let client = Client::new(settings.arbiter.clone(), Keys::new(&settings.cluster, &voter));
        Asking { settings, voter, session, agent, client: Some(client), pending: None }
    }

    /// Begins what the agent wants asked.
    fn begin(&mut self) {
        let Some(client) = self.client.take() else { return };
        match self.agent.request(clock::now()) {
            Some(request) => {
                let within = self.agent.timeout();
                self.pending = Some(Box::pin(client.perform(request, within)));
            }
            None => self.client = Some(client),
        }
    }
}

/// Until the protocol is gone.
pub(super) async fn run(mut parts: Parts) {
    let mut asking: Option<Asking> = None;
    let mut words: VecDeque<Word> = VecDeque::new();
    loop {
        follow(&mut parts, &mut asking);
        if let Some(asking) = &mut asking {
            asking.begin();
            while let Some(word) = asking.agent.word() {
                words.push_back(word);
            }
        }
        while let Some(word) = words.front() {
            if !(parts.tell)(*word) {
                break;
            }
            words.pop_front();
        }
        let mut wait = asking.as_ref().and_then(|asking| asking.agent.due());
        if !words.is_empty() {
            let again = clock::now() + SAY_AGAIN;
            wait = Some(wait.map_or(again, |due| due.min(again)));
        }
        let due = async {
            match wait {
                Some(due) => sleep(due.since(clock::now()).max(Duration::from_millis(1))).await,
                None => std::future::pending().await,
            }
        };
        let pending = asking.as_mut().and_then(|asking| asking.pending.as_mut());
        let outcome = async {
            match pending {
                Some(pending) => pending.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = parts.level.changed() => if changed.is_err() {
                return;
            },
            Ok(()) = parts.settings.changed() => {}
            (client, outcome) = outcome => if let Some(asking) = &mut asking {
                note(&parts.view, &client, &outcome);
                asking.pending = None;
                asking.client = Some(client);
                asking.agent.answer(clock::now(), outcome.ok());
            },
            () = due => {}
        }
    }
}

/// Begins anew if there is another etcd, or it votes under another name, or the node has another session; and passes the wish on.
fn follow(parts: &mut Parts, asking: &mut Option<Asking>) {
    let level = parts.level.borrow_and_update().clone();
    let settings = parts.settings.borrow_and_update().clone();
    let (Some(settings), Some(session)) = (settings, level.session) else {
        if asking.take().is_some() {
            parts.view.draw(|picture| *picture = super::Picture::default());
        }
        return;
    };
    let voter = level.voter.clone().unwrap_or_else(|| settings.voter.clone());
    let same = |asking: &Asking| {
        asking.settings == settings && asking.voter == voter && asking.session == session
    };
    if !asking.as_ref().is_some_and(same) {
        let new = Asking::new(settings, voter, session);
        let endpoint = new.client.as_ref().and_then(Client::endpoint).map(ToString::to_string);
        parts.view.draw(|picture| picture.endpoint = endpoint.unwrap_or_default());
        *asking = Some(new);
    }
    if let Some(asking) = asking {
        asking.agent.wish(level.wish);
    }
}

/// For status, and for the log when it changes.
fn note(view: &View, client: &Client, outcome: &Outcome) {
    let before = view.look();
    match outcome {
        Ok(_) if before.reachable != Some(true) => info!("etcd answers: {}", before.endpoint),
        Err(why) if before.reachable != Some(false) => warn!("etcd does not vote: {why}"),
        _ => {}
    }
    view.draw(|picture| {
        picture.requests.0 += 1;
        picture.requests.1 += u64::from(outcome.is_err());
        picture.reachable = Some(outcome.is_ok());
        picture.last_error = outcome.as_ref().err().cloned();
        picture.endpoint = client.endpoint().map(ToString::to_string).unwrap_or_default();
    });
}
