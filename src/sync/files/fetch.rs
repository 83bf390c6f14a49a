//! One content on its way here: asked for piece by piece, and gone on with after a broken
//! connection.

use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::hash::Hash;
use super::wire::{Entry, PART, Part, Want};

/// A piece that does not come within this time is asked for again.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// So often, then another file has its turn.
pub const TRIES: u32 = 3;

/// A content of which some pieces are here.
pub struct Fetch {
    /// The file.
    pub path: String,
    /// The content.
    pub content: Hash,
    length: u64,
    bytes: Zeroizing<Vec<u8>>,
    /// The link that was asked, and when.
    asked: Option<(u64, Instant)>,
    tries: u32,
}

/// What a piece led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Not asked for, or not the next one.
    Ignored,
    /// More is to be asked for.
    More,
    /// Complete, and what it should be.
    Complete,
    /// Complete, and something else: begun anew.
    Wrong,
}

impl Fetch {
    /// Nothing is here yet. `length` is at most [`super::disk::MAX_LEN`].
    #[must_use]
    pub fn new(path: &str, content: Hash, length: u64) -> Fetch {
        // All of it at once: a vector that grows leaves copies of a key behind.
        let room = usize::try_from(length).unwrap_or(0);
        let bytes = Zeroizing::new(Vec::with_capacity(room));
        Fetch { path: path.to_owned(), content, length, bytes, asked: None, tries: 0 }
    }

    /// The next question, to be put to this link, if it is time for one. `None` too if it has been
    /// asked in vain too often: see [`is_stuck`](Fetch::is_stuck).
    pub fn ask(&mut self, link: u64, now: Instant) -> Option<Want> {
        let waits = |(asked, at): (u64, Instant)| asked == link && now < at + PATIENCE;
        if self.asked.is_some_and(waits) || self.is_stuck() {
            return None;
        }
        self.asked = Some((link, now));
        self.tries += 1;
        let (path, content) = (self.path.clone(), self.content);
        Some(Want { path, content, from: self.bytes.len() as u64 })
    }

    /// Asked in vain so often that others should have their turn.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.tries > TRIES
    }

    /// Others had their turn.
    pub fn again(&mut self) {
        (self.tries, self.asked) = (0, None);
    }

    /// When an answer is overdue.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.asked.map(|(_, at)| at + PATIENCE)
    }

    /// Takes a piece from the link that was asked.
    pub fn take(&mut self, link: u64, part: &Part) -> Step {
        let asked = self.asked.is_some_and(|(asked, _)| asked == link);
        let expected = part.path == self.path && part.content == self.content;
        if !asked || !expected || part.from != self.bytes.len() as u64 {
            return Step::Ignored;
        }
        let data = &part.data.0;
        let rest = usize::try_from(self.length).unwrap_or(usize::MAX) - self.bytes.len();
        if data.len() != rest.min(PART) {
            return Step::Ignored;
        }
        self.bytes.extend_from_slice(data);
        self.again();
        if data.len() < rest {
            return Step::More;
        }
        if Hash::of(&self.bytes) == self.content {
            return Step::Complete;
        }
        self.bytes.clear();
        // No more than once in a while.
        self.tries = TRIES + 1;
        Step::Wrong
    }

    /// It fetches the content of this file.
    #[must_use]
    pub fn is_of(&self, entry: &Entry) -> bool {
        self.path == entry.path
            && Some(self.content) == entry.state.content
            && self.length == entry.length
    }

    /// Everything is here, and is what it should be.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.bytes.len() as u64 == self.length && Hash::of(&self.bytes) == self.content
    }

    /// The bytes so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::Data;
    use super::*;

    fn content() -> Vec<u8> {
        (0..PART * 2 + 5).map(|n| u8::try_from(n % 251).unwrap()).collect()
    }

    fn part(want: &Want, all: &[u8]) -> Part {
        let from = usize::try_from(want.from).unwrap();
        let data = all[from..].iter().take(PART).copied().collect();
        let (path, data) = (want.path.clone(), Data(Zeroizing::new(data)));
        Part { path, content: want.content, from: want.from, data }
    }

    #[test]
    fn pieces_come_one_after_the_other_and_go_on_over_another_connection() {
        let (all, now) = (content(), Instant::now());
        let mut fetch = Fetch::new("/f", Hash::of(&all), all.len() as u64);
        let want = fetch.ask(1, now).unwrap();
        assert_eq!(fetch.ask(1, now), None, "one question at a time");
        assert_eq!(fetch.take(2, &part(&want, &all)), Step::Ignored, "another link");
        assert_eq!(fetch.take(1, &part(&want, &all)), Step::More);
        assert_eq!(fetch.take(1, &part(&want, &all)), Step::Ignored, "twice");
        let want = fetch.ask(1, now).unwrap();
        assert_eq!(want.from, PART as u64);
        // The connection breaks, the next one goes on.
        let want = fetch.ask(2, now).expect("at once").clone();
        assert_eq!(fetch.take(2, &part(&want, &all)), Step::More);
        let want = fetch.ask(2, now).unwrap();
        assert_eq!(fetch.take(2, &part(&want, &all)), Step::Complete);
        assert_eq!(fetch.bytes(), all);
    }

    #[test]
    fn silence_ends_it_after_some_tries() {
        let (all, mut now) = (content(), Instant::now());
        let mut fetch = Fetch::new("/f", Hash::of(&all), all.len() as u64);
        for _ in 0..=TRIES {
            assert!(!fetch.is_stuck());
            fetch.ask(1, now).unwrap();
            now += PATIENCE;
        }
        assert!(fetch.is_stuck() && fetch.ask(1, now).is_none());
        fetch.again();
        assert!(fetch.ask(1, now).is_some());
    }

    #[test]
    fn what_is_something_else_is_not_taken() {
        let all = b"right".to_vec();
        let mut fetch = Fetch::new("/f", Hash::of(&all), 5);
        let want = fetch.ask(1, Instant::now()).unwrap();
        assert_eq!(fetch.take(1, &part(&want, b"righ")), Step::Ignored, "too short");
        assert_eq!(fetch.take(1, &part(&want, b"rightly")), Step::Ignored, "too long");
        assert_eq!(fetch.take(1, &part(&want, b"wrong")), Step::Wrong);
        assert_eq!(fetch.bytes(), b"");
        let mut empty = Fetch::new("/f", Hash::of(b""), 0);
        let want = empty.ask(1, Instant::now()).unwrap();
        assert_eq!(empty.take(1, &part(&want, b"")), Step::Complete);
    }
}
