//! Which kinds of faults come when: all of them before any comes again.

use super::fault::{Kind, Whom};

/// What costs most if it goes wrong: first in every run, however short.
const GRAVE: [Kind; 10] = [
    Kind::Kill(Whom::Worker),
    Kind::Kill(Whom::Guard),
    Kind::Kill(Whom::Both),
    Kind::Stop(Whom::Worker),
    Kind::Stop(Whom::Guard),
    Kind::Stop(Whom::Both),
    Kind::Flush,
    Kind::Alone,
    Kind::Interface,
    Kind::Clock,
];

const OTHERS: [Kind; 13] = [
    Kind::Terminate,
    Kind::Handover,
    Kind::Maintenance,
    Kind::Reload,
    Kind::Address,
    Kind::Rules,
    Kind::Routes,
    Kind::Loss,
    Kind::HeartbeatLoss,
    Kind::Mute,
    Kind::Deaf,
    Kind::OneWay,
    Kind::Link,
];

/// Every kind.
pub(super) fn all() -> impl Iterator<Item = Kind> {
    GRAVE.into_iter().chain(OTHERS)
}

/// Kinds in the order of chance, each once.
pub(super) struct Deck(Vec<Kind>);

impl Deck {
    /// The first one: the grave kinds on top.
    pub(super) fn new(rng: &mut fastrand::Rng) -> Deck {
        let (mut grave, mut others) = (GRAVE, OTHERS);
        rng.shuffle(&mut grave);
        rng.shuffle(&mut others);
        Deck(others.into_iter().chain(grave).collect())
    }

    /// One, or two for the same moment. A new deck follows the last card.
    pub(super) fn draw(&mut self, rng: &mut fastrand::Rng) -> Vec<Kind> {
        let count = if rng.u8(0..4) == 0 { 2 } else { 1 };
        (0..count).filter_map(|_| self.card(rng)).collect()
    }

    fn card(&mut self, rng: &mut fastrand::Rng) -> Option<Kind> {
        if self.0.is_empty() {
            self.0 = all().collect();
            rng.shuffle(&mut self.0);
        }
        self.0.pop()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(kinds: &[Kind]) -> BTreeSet<&'static str> {
        kinds.iter().map(|kind| kind.name()).collect()
    }

    #[test]
    fn every_deck_has_every_kind_once_and_the_first_begins_with_the_grave_ones() {
        for seed in 0..100 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut deck = Deck::new(&mut rng);
            let mut drawn = Vec::new();
            while drawn.len() < 2 * 23 {
                let round = deck.draw(&mut rng);
                assert!(matches!(round.len(), 1 | 2));
                drawn.extend(round);
            }
            let all = names(&all().collect::<Vec<_>>());
            assert_eq!(all.len(), 23, "two kinds of one name");
            assert_eq!(names(&drawn[..10]), names(&GRAVE));
            assert_eq!(names(&drawn[..23]), all);
            assert_eq!(names(&drawn[23..46]), all);
        }
    }
}
