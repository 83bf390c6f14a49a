//! One established connection: what this node sends while it is master, and what it takes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tracing::debug;
use wgha_proto::Term;

use super::channel::{Channel, IDLE, Receiver, Refusal, Sender};
use super::endpoints::{Endpoints, Origin, Peers, Table};
use super::files::{Hub, Link};
use super::message::Message;

/// Something is said at least this often.
const ALIVE: Duration = Duration::from_secs(1);

const _: () = assert!(ALIVE.as_millis() * 3 < IDLE.as_millis());

/// Everything is sent again this often, whatever went wrong with the differences.
const SNAPSHOT: Duration = Duration::from_secs(60);

/// Runs until the connection ends, and says why.
pub(super) async fn run(channel: Channel, endpoints: &Endpoints, files: &Hub) -> Refusal {
    let Channel { peer, receiver, sender } = channel;
    // Questions to an earlier connection went with it.
    let question = endpoints.flushes.asked(&peer);
    let _session = endpoints.flushes.session(&peer);
    let wishes = Wishes::default();
    let link = files.join(&peer);
    let deliver = link.deliverer();
    tokio::select! {
        why = receive(receiver, &peer, endpoints, &wishes, deliver) => why,
        why = send(sender, &peer, endpoints, &wishes, question, link) => why,
    }
}

/// What the receiving half has the sending half do.
#[derive(Debug, Default)]
struct Wishes {
    /// The last question that is to be answered.
    owed: watch::Sender<u64>,
    /// A difference came without the whole that it belongs to: to be asked for.
    ask_whole: Notify,
    /// The other side asked for the whole.
    tell_whole: Notify,
}

/// `files` takes what is said about files.
async fn receive(
    mut receiver: Receiver,
    peer: &str,
    endpoints: &Endpoints,
    wishes: &Wishes,
    files: impl Fn(Message),
) -> Refusal {
    loop {
        match receiver.receive().await {
            Ok(Message::Endpoints(message)) => {
                let Some(update) = message.understand() else { return Refusal::Message };
                let interface = update.interface.clone();
                if !endpoints.accept(update) {
                    debug!("{peer} sends endpoints, which this node knows better");
                } else if endpoints.lacks(&interface) {
                    // It came while this node was master, too, and knew better.
                    wishes.ask_whole.notify_one();
                }
            }
            Ok(Message::Flush { number }) => _ = wishes.owed.send_replace(number),
            Ok(Message::Whole {}) => wishes.tell_whole.notify_one(),
            Ok(Message::Flushed { number }) => endpoints.flushes.answered(peer, number),
            Ok(message @ (Message::Files(_) | Message::FileWant(_) | Message::FilePart(_))) => {
                files(message)
            }
            Ok(Message::Hello { .. } | Message::Alive {} | Message::Unknown) => {}
            Err(why) => return why,
        }
    }
}

async fn send(
    mut sender: Sender,
    peer: &str,
    endpoints: &Endpoints,
    wishes: &Wishes,
    mut question: u64,
    mut files: Link,
) -> Refusal {
    let mut asked = endpoints.flushes.changed();
    let mut owed = wishes.owed.subscribe();
    let mut changed = endpoints.changed();
    changed.mark_changed();
    let mut sent = Sent::default();
    let mut alive = Instant::now() + ALIVE;
    loop {
        let mut last = None;
        tokio::select! {
            // The tables outlive the connection.
            _ = changed.changed() => {}
            _ = asked.changed() => {}
            _ = owed.changed() => {
                last = Some(Message::Flushed { number: *owed.borrow_and_update() });
            }
            () = wishes.ask_whole.notified() => last = Some(Message::Whole {}),
            () = wishes.tell_whole.notified() => sent = Sent::default(),
            () = sleep_until(alive) => {}
            file = files.next() => last = Some(file),
        }
        let now = endpoints.flushes.asked(peer);
        // Endpoints first: a takeover may need them now.
        let mut messages = sent.messages(endpoints.look_all(), Instant::now());
        // Behind the difference whose arrival it asks for.
        if now != question {
            question = now;
            messages.push(Message::Flush { number: now });
        }
        messages.extend(last);
        if messages.is_empty() && Instant::now() >= alive {
            messages.push(Message::Alive {});
        }
        for message in &messages {
            if let Err(why) = sender.send(message).await {
                return why;
            }
            alive = Instant::now() + ALIVE;
        }
    }
}

/// What the other end has from this one.
#[derive(Debug, Default)]
struct Sent(HashMap<String, SentTable>);

#[derive(Debug)]
struct SentTable {
    version: u64,
    term: Term,
    peers: Peers,
    whole_at: Instant,
}

impl Sent {
    /// What is to be sent for the other end to have `tables`, as far as they are this node's own.
    fn messages(&mut self, tables: BTreeMap<String, Table>, now: Instant) -> Vec<Message> {
        let mut messages = Vec::new();
        for (interface, table) in tables {
            // A master that has not asked its own device yet has nothing to tell.
            if table.origin != Origin::Own || table.age().is_none() {
                self.0.remove(&interface);
                continue;
            }
            let before = self.0.get(&interface).filter(|s| s.term == table.term);
            let before = before.filter(|s| now.duration_since(s.whole_at) < SNAPSHOT);
            let whole_at = match before {
                Some(sent) if sent.version == table.version => continue,
                Some(sent) => {
                    let (term, old) = (table.term, &sent.peers);
                    messages.extend(Message::difference(&interface, term, old, &table.peers));
                    sent.whole_at
                }
                None => {
                    messages.extend(Message::snapshot(&interface, table.term, &table.peers));
                    now
                }
            };
            let Table { version, term, peers, .. } = table;
            self.0.insert(interface, SentTable { version, term, peers, whole_at });
        }
        messages
    }
}

#[cfg(test)]
mod tests;
