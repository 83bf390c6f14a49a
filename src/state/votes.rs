//! What a voter must know after a restart, as a file.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wgha_proto::{Term, VoteRecord};

/// The file. A session is 32 hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptVotes {
    /// Rounded up.
    longest_ms: u64,
    term: Term,
    session: String,
    voters: Vec<String>,
    #[serde(default)]
    before: Vec<String>,
}

impl KeptVotes {
    pub(super) fn of(votes: &VoteRecord) -> KeptVotes {
        let longest = votes.longest.as_nanos().div_ceil(1_000_000);
        KeptVotes {
            longest_ms: u64::try_from(longest).unwrap_or(u64::MAX),
            term: votes.term,
            session: votes.session.iter().map(|byte| format!("{byte:02x}")).collect(),
            voters: votes.voters.clone(),
            before: votes.before.clone(),
        }
    }

    /// `None` if it makes no sense: then there is no memory.
    pub(super) fn record(self) -> Option<VoteRecord> {
        let mut session = [0; 16];
        if self.session.len() != 32 || !self.session.is_ascii() {
            return None;
        }
        for (index, byte) in session.iter_mut().enumerate() {
            *byte = u8::from_str_radix(self.session.get(index * 2..index * 2 + 2)?, 16).ok()?;
        }
        let longest = Duration::from_millis(self.longest_ms);
        let KeptVotes { term, voters, before, .. } = self;
        Some(VoteRecord { longest, term, session, voters, before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> VoteRecord {
        VoteRecord {
            longest: Duration::from_micros(600_001),
            term: 7,
            session: [0xab; 16],
            voters: vec!["gw1".to_owned(), "w1".to_owned()],
            before: vec!["gw1".to_owned()],
        }
    }

    #[test]
    fn a_duration_is_never_kept_shorter_than_it_is() {
        let back = KeptVotes::of(&record()).record().unwrap();
        assert_eq!(back, VoteRecord { longest: Duration::from_millis(601), ..record() });
    }

    #[test]
    fn what_makes_no_sense_is_no_memory() {
        let good = KeptVotes::of(&record());
        for session in ["", "ab", &"zz".repeat(16), &"ä".repeat(16)] {
            let bad = KeptVotes { session: session.to_owned(), ..good.clone() };
            assert_eq!(bad.record(), None, "{session}");
        }
    }
}
