//! What asks, listens and tells: the part of the evidence that has sockets and a clock.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};
use wgha_proto::{Evidence, Time};

use super::find::Found;
use super::judge::{Judge, Key, Known};
use super::{AGAIN, Parts, Settings};
use crate::clock;
use crate::config::EvidenceChoice;
use crate::net::probe::{Answer, Sockets};

/// A word that the protocol had no room for is said again after this.
const SAY_AGAIN: Duration = Duration::from_millis(10);

/// What asks, listens and tells.
pub(super) struct Asker {
    parts: Parts,
    settings: Settings,
    found: watch::Receiver<Found>,
    judge: Judge,
    sockets: Option<Sockets>,
    /// When to try to open the sockets again.
    open_at: Time,
    said: Option<Evidence>,
    tunnel: Option<Time>,
}

impl Asker {
    pub(super) fn new(parts: Parts, found: watch::Receiver<Found>) -> Asker {
        let settings = parts.settings.borrow().clone();
        let judge = Judge::new(settings.interval, parts.remembered.clone());
        Asker {
            parts,
            settings,
            found,
            judge,
            sockets: None,
            open_at: Time::ZERO,
            said: None,
            tunnel: None,
        }
    }

    /// Until the protocol is gone.
    pub(super) async fn run(mut self) {
        loop {
            let now = clock::now();
            self.open_sockets(now);
            if self.judge.ask(now) {
                self.ask_all();
            }
            let told = self.tell(now);
            self.keep();
            self.draw();
            let mut next = self.judge.next(now);
            if !told {
                next = next.min(now + SAY_AGAIN);
            }
            if !self.wait(next.since(now)).await {
                return;
            }
        }
    }

    /// The one place that waits. False when the protocol is gone.
    async fn wait(&mut self, most: Duration) -> bool {
        let answer = async {
            match &self.sockets {
                Some(sockets) => sockets.answer().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // An answer that waits counts before the time that it was waited for is over.
            biased;
            wanted = self.parts.wanted.changed() => {
                if wanted.is_err() {
                    return false;
                }
                let wanted = *self.parts.wanted.borrow_and_update();
                self.judge.want(clock::now(), wanted);
            }
            answer = answer => match answer {
                Ok(answer) => self.take(&answer),
                Err(e) => {
                    debug!("an answer was lost: {e}");
                    sleep(SAY_AGAIN).await;
                }
            },
            Ok(()) = self.found.changed() => self.take_sources(),
            Ok(()) = self.parts.settings.changed() => self.reconfigure(),
            Ok(()) = self.parts.tunnel.changed() => {
                self.tunnel = *self.parts.tunnel.borrow_and_update();
            }
            () = sleep(most) => {}
        }
        true
    }

    fn open_sockets(&mut self, now: Time) {
        if self.sockets.is_some()
            || now < self.open_at
            || self.settings.choice == EvidenceChoice::Off
        {
            return;
        }
        self.open_at = now + AGAIN;
        match Sockets::open() {
            Ok(sockets) => {
                self.sockets = Some(sockets);
                self.take_sources();
            }
            Err(e) => {
                let trouble = format!("cannot ask the router: {e}");
                self.parts.view.draw(|picture| {
                    if picture.trouble.is_none() {
                        warn!("{trouble}: an isolated gateway cannot tell that it is one");
                    }
                    picture.trouble = Some(trouble);
                });
            }
        }
    }

    fn take_sources(&mut self) {
        let found = self.found.borrow_and_update();
        // Whoever cannot be asked is no source; and the config may be newer than what was found.
        if self.sockets.is_none() || found.choice != self.settings.choice {
            return;
        }
        let keys: Vec<Key> = found.sources.iter().map(|source| source.key.clone()).collect();
        self.parts.view.draw(|picture| picture.trouble = None);
        self.judge.set_sources(clock::now(), &keys);
    }

    fn reconfigure(&mut self) {
        let new = self.parts.settings.borrow_and_update().clone();
        self.judge.set_interval(new.interval);
        if new.choice != self.settings.choice {
            self.judge.forget();
            self.found.mark_changed();
        }
        self.settings = new;
    }

    fn ask_all(&self) {
        let Some(sockets) = &self.sockets else { return };
        for source in &self.found.borrow().sources {
            // It stays unanswered, which is all that there is to say.
            if let Err(e) = sockets.ask(&source.question) {
                debug!("{} was not asked: {e}", source.question.whom);
            }
        }
    }

    fn take(&mut self, answer: &Answer) {
        let found = self.found.borrow();
        let asked =
            found.sources.iter().find(|source| answer.answers(&source.question, &found.own));
        if let Some(source) = asked {
            self.judge.answered(clock::now(), &source.key);
        }
    }

    /// Tells the protocol what is new. False if it has no room for it.
    fn tell(&mut self, now: Time) -> bool {
        let evidence = self.judge.evidence(now, self.tunnel);
        if self.said == Some(evidence) {
            return true;
        }
        // The protocol begins with this one.
        if self.said.is_none() && evidence == Evidence::NoSource {
            return true;
        }
        if !(self.parts.tell)(evidence) {
            return false;
        }
        let before = self.said.replace(evidence);
        self.note(before, evidence);
        true
    }

    fn note(&self, before: Option<Evidence>, now: Evidence) {
        let names: Vec<String> = self.usual().map(|source| source.key.1.to_string()).collect();
        let names = names.join(", ");
        match (before, now) {
            (Some(Evidence::Answered(_)), Evidence::Answered(_)) => {}
            (_, Evidence::Answered(_)) if names.is_empty() => info!("outside evidence: clients"),
            (_, Evidence::Answered(_)) => info!("outside evidence: {names} answers"),
            (_, Evidence::Silent) => warn!("outside evidence: no answer from {names}"),
            (_, Evidence::NoSource) => warn!("outside evidence: there is no source any more"),
        }
    }

    fn usual(&self) -> impl Iterator<Item = &Known> {
        self.judge.sources().iter().filter(|source| source.usual)
    }

    /// For the next run.
    fn keep(&self) {
        let usual = || self.usual().map(|source| &source.key);
        self.parts.keep.send_if_modified(|old| {
            let changed = !usual().eq(old.iter());
            if changed {
                *old = usual().cloned().collect();
            }
            changed
        });
    }

    fn draw(&self) {
        self.parts.view.draw(|picture| {
            picture.off = self.settings.choice == EvidenceChoice::Off;
            picture.evidence = self.said;
            picture.wanted = self.judge.is_wanted();
            picture.sources = self.judge.sources().to_vec();
            picture.tunnel = self.tunnel;
        });
    }
}
