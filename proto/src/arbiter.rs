//! The arbiter: an etcd as one more voter (docs/protocol.md §11, Arbiter).
//!
//! [`Agent`] makes a node's [`Wish`] true by requests to etcd, one at a time, and says what came of it. It is pure:
//! somebody else sends the requests, and gives a time to each answer.
//!
//! ```text
//!   Node --Wish--> Agent --Request--> etcd       Lease:  a new lease, each time
//!        <--Word--       <--Answer---            Write:  both keys, if neither changed since they were read
//! ```
//!
//! A grant counts from the sending of the request for the very lease that the key stands under: etcd can only have begun
//! to count after that. No lease is ever renewed: etcd answers a keepalive without asking its majority, and a leader
//! that was deposed unnoticed would promise what its successor does not know. Making a lease and writing a key both go
//! through that majority.

use std::collections::VecDeque;
use std::time::Duration;

use crate::api::{NodeName, Term, Wish, Word};
use crate::lease::{LONGEST_LEASE, drift};
use crate::time::Time;
use crate::wire::{Tag, node_tag};

mod register;
mod request;
#[cfg(test)]
mod tests;

use register::Judgement;
pub use register::{Kept, Register, Vote};
pub use request::{Answer, Change, Header, Request};

/// What the name of an arbiter in a set of voters begins with; no node's name can.
pub(crate) const PREFIX: &str = "@etcd.";

/// etcd makes no shorter leases, in seconds.
const LEAST_TTL: u32 = 2;

/// While there is nothing to ask for, whether it answers is looked at so often.
const LOOK: Duration = Duration::from_secs(2);

/// After this many conditions in a row that did not hold, a pause.
const CONTENDED: u32 = 3;

/// Words that nobody fetched. The oldest go first.
const WORDS: usize = 16;

/// The name under which etcd votes in a cluster of these nodes. It is another one for each set of nodes, and so are its
/// keys: whoever lags behind a change of nodes must not find a vote that others count by other rules.
#[must_use]
pub fn arbiter_voter<'a>(cluster: &str, nodes: impl Iterator<Item = &'a str>) -> String {
    let set = crate::lease::set::VoterSet::new(cluster, nodes);
    let hex: String = set.hash().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{PREFIX}{hex}")
}

/// A lease of etcd.
#[derive(Clone, Copy, Debug)]
struct Leased {
    id: i64,
    /// When it was asked for.
    sent: Time,
    length: Duration,
}

impl Leased {
    /// Until when etcd certainly keeps what stands under it, by my clock.
    fn end(&self) -> Time {
        self.sent + (self.length - drift(self.length))
    }

    /// Whether there is enough left of it to be of use.
    fn serves(&self, now: Time) -> bool {
        now < self.sent + self.length / 2
    }
}

/// The vote that is mine.
#[derive(Clone, Copy, Debug)]
struct Held {
    term: Term,
    lease: Leased,
}

/// What makes the wish true.
///
/// # Calling contract
///
/// Tell [`wish`](Agent::wish) what the node wishes, whenever it changed. Take [`request`](Agent::request): while one is
/// under way there is none. Give what came of it to [`answer`](Agent::answer), or that nothing came in
/// [`timeout`](Agent::timeout): later answers must not be given any more. Then fetch every [`word`](Agent::word) for
/// the node, and call `request` again at [`due`](Agent::due) at the latest. Spurious calls are harmless.
#[derive(Clone, Debug)]
pub struct Agent {
    tag: Tag,
    node: NodeName,
    session: [u8; 16],
    interval: Duration,
    seconds: u32,
    wish: Wish,
    seen: Option<Register>,
    /// `seen` is not older than the wish.
    fresh: bool,
    lease: Option<Leased>,
    held: Option<Held>,
    under_way: Option<(Request, Time)>,
    /// Nothing is asked before, unless the wish changes.
    next_at: Time,
    failed_writes: u32,
    /// The last header. Revisions only grow, unless etcd forgot something.
    header: Option<Header>,
    /// It forgot something: what others were granted before may still be counted by them.
    distrust_until: Time,
    present: Option<bool>,
    words: VecDeque<Word>,
}

impl Agent {
    /// An agent for this session of the node `node`, at the arbiter that votes as `voter` in `cluster`.
    #[must_use]
    pub fn new(cluster: &str, voter: &str, node: &str, session: [u8; 16]) -> Agent {
        Agent {
            tag: node_tag(cluster, voter),
            node: node.to_owned(),
            session,
            interval: LOOK,
            seconds: LEAST_TTL,
            wish: Wish::Keep,
            seen: None,
            fresh: false,
            lease: None,
            held: None,
            under_way: None,
            next_at: Time::ZERO,
            failed_writes: 0,
            header: None,
            distrust_until: Time::ZERO,
            present: None,
            words: VecDeque::new(),
        }
    }

    /// The interval of heartbeats, and the detection time. The leases at etcd are four times as long as the latter, and
    /// at least 2 s.
    pub fn pace(&mut self, interval: Duration, detection: Duration) {
        let seconds = (detection * 4).as_nanos().div_ceil(1_000_000_000);
        let longest = u32::try_from(LONGEST_LEASE.as_secs()).unwrap_or(u32::MAX);
        self.interval = interval;
        self.seconds = u32::try_from(seconds).unwrap_or(u32::MAX).clamp(LEAST_TTL, longest);
    }

    /// How long to wait for an answer.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.seconds.into()) / 5
    }

    /// The node wishes this now.
    pub fn wish(&mut self, wish: Wish) {
        if self.wish != wish {
            self.wish = wish;
            self.fresh = false;
            self.next_at = Time::ZERO;
        }
    }

    /// What to ask now, if anything.
    pub fn request(&mut self, now: Time) -> Option<Request> {
        if self.under_way.is_some() || now < self.next_at {
            return None;
        }
        let request = match self.wish {
            Wish::Keep => Some(self.look(now)),
            Wish::Free { withdrawn } => Some(self.free(now, withdrawn)),
            Wish::Ask { term, of } => self.ask(now, term, of),
        };
        self.under_way = request.clone().map(|request| (request, now));
        request
    }

    /// What came of the request that is under way; `None`: nothing came, or nothing that could be understood.
    pub fn answer(&mut self, now: Time, answer: Option<(Header, Answer)>) {
        let Some((request, sent)) = self.under_way.take() else { return };
        let Some((header, answer)) = answer else { return self.failed(now) };
        if !self.trusts(now, header) {
            return;
        }
        if self.present != Some(true) {
            self.present = Some(true);
            self.say(Word::Present);
        }
        match (request, answer) {
            (Request::Lease { .. }, Answer::Leased { id, seconds }) => {
                // What a node that restarts knows nothing of must be over when it votes again.
                let length = Duration::from_secs(seconds.into()).min(LONGEST_LEASE);
                self.lease = Some(Leased { id, sent, length });
            }
            (Request::Write { change: Change::Take { vote, .. }, .. }, Answer::Written) => {
                self.taken(header, vote);
            }
            (Request::Write { change: Change::Free { .. }, .. }, Answer::Written) => {
                self.failed_writes = 0;
                self.seen = None;
                self.next_at = now;
            }
            (Request::Look, Answer::Seen(register)) => {
                self.see(register);
                if let Wish::Free { withdrawn } = self.wish
                    && self.left_over(withdrawn).is_some()
                {
                    self.next_at = now;
                }
            }
            (Request::Write { .. }, Answer::Seen(register)) => {
                self.see(register);
                self.failed_writes += 1;
                if self.failed_writes >= CONTENDED {
                    self.failed_writes = 0;
                    self.next_at = now + self.interval / 4;
                }
            }
            // No answer to this request.
            _ => self.failed(now),
        }
    }

    /// The next word for the node, oldest first.
    pub fn word(&mut self) -> Option<Word> {
        self.words.pop_front()
    }

    /// When `request` is wanted at the latest; `None`: when there is an answer, or another wish.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        if self.under_way.is_some() { None } else { Some(self.next_at) }
    }

    fn look(&mut self, now: Time) -> Request {
        self.next_at = now + LOOK;
        Request::Look
    }

    fn free(&mut self, now: Time, withdrawn: Term) -> Request {
        self.held = None;
        match self.left_over(withdrawn) {
            Some(write) => write,
            None => self.look(now),
        }
    }

    /// What frees all that is mine, as far as is known.
    fn left_over(&self, withdrawn: Term) -> Option<Request> {
        let register = self.seen.as_ref()?;
        let highest = register.freed(&self.session, withdrawn)?;
        let expected = register.revisions();
        Some(Request::Write { expected, change: Change::Free { highest } })
    }

    fn ask(&mut self, now: Time, term: Term, of: Option<([u8; 16], Term)>) -> Option<Request> {
        if now < self.distrust_until {
            return Some(self.look(now));
        }
        if let Some(held) = self.held.filter(|held| held.term == term)
            && held.lease.serves(now)
        {
            self.next_at = held.lease.sent + held.lease.length / 2;
            return None;
        }
        let Some(register) = &self.seen else { return Some(Request::Look) };
        let judgement = register.judge(&self.session, term, of);
        if judgement != Judgement::Free && !self.fresh {
            return Some(Request::Look);
        }
        if judgement != Judgement::Free {
            let taken = match judgement {
                Judgement::Taken(by) => Some(by),
                Judgement::Free | Judgement::Bound => None,
            };
            self.say(Word::Refused { term, taken });
            self.seen = None;
            self.held = None;
            self.next_at = now + self.interval / 3;
            return None;
        }
        let Some(lease) = self.lease.filter(|lease| lease.serves(now)) else {
            return Some(Request::Lease { seconds: self.seconds });
        };
        let (node, session) = (self.node.clone(), self.session);
        let vote = Vote { term, session, heir: true, node };
        let change = Change::Take { lease: lease.id, vote };
        Some(Request::Write { expected: register.revisions(), change })
    }

    fn see(&mut self, register: Register) {
        self.seen = Some(register);
        self.fresh = true;
    }

    /// The vote is mine.
    fn taken(&mut self, header: Header, vote: Vote) {
        self.failed_writes = 0;
        let Some(lease) = self.lease else { return };
        let term = vote.term;
        let kept = Some(Kept { vote: Some(vote), revision: header.revision });
        self.seen = Some(Register { bound: kept.clone(), highest: kept });
        self.held = Some(Held { term, lease });
        self.say(Word::Granted { voter: self.tag, term, until: lease.end() });
    }

    /// Nothing came. Whether it was done is not known, so both keys are read before anything else.
    fn failed(&mut self, now: Time) {
        self.seen = None;
        self.lease = None;
        self.next_at = now + self.interval / 4;
        if self.present != Some(false) {
            self.present = Some(false);
            self.say(Word::Lost);
        }
    }

    /// Whether this etcd still knows all that it once told. If not, nothing is taken from it for as long as others may
    /// count what it has forgotten.
    fn trusts(&mut self, now: Time, header: Header) -> bool {
        let known = self.header.replace(header);
        let same = known.is_none_or(|known| {
            header.cluster == known.cluster && header.revision >= known.revision
        });
        if !same {
            self.seen = None;
            self.lease = None;
            self.held = None;
            self.distrust_until = now + (LONGEST_LEASE + LONGEST_LEASE / 50);
            self.next_at = now + self.interval / 4;
            self.say(Word::Void);
        }
        same
    }

    fn say(&mut self, word: Word) {
        if self.words.len() >= WORDS {
            self.words.pop_front();
        }
        self.words.push_back(word);
    }
}
