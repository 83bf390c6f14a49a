//! What the guard is to do after this process, said until it has it.

use std::sync::Arc;

use tokio::sync::watch;
use wgha_proto::Node;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::guard::Line;
use crate::guard::will::{Letter, Will};
use crate::link::Link;
use crate::run::longest_end;
use crate::state::Applied;

/// The will in force, and whether the guard has it.
pub(super) struct Testament {
    line: Arc<Line>,
    will: Will,
    handed_over: bool,
    /// Why it has not; for the log, which the loop does not write.
    unheard: watch::Sender<Option<String>>,
}

impl Testament {
    pub(super) fn new(line: Arc<Line>, will: Will) -> Testament {
        Testament { line, will, handed_over: false, unheard: watch::Sender::new(None) }
    }

    /// Why the guard does not know what to do; `None` when it does, or was not told yet.
    pub(super) fn unheard(&self) -> watch::Receiver<Option<String>> {
        self.unheard.subscribe()
    }

    /// Another will, said at once.
    pub(super) fn change(&mut self, will: Will) {
        self.will = will;
        self.handed_over = false;
        self.say();
    }

    /// Another session, whose obituaries these are; said at once.
    pub(super) fn renew(&mut self, node: &Node, link: &Link) {
        self.will.letters = letters(node, link);
        self.handed_over = false;
        self.say();
    }

    /// Says it, if the guard has it not yet. Never waits.
    pub(super) fn say(&mut self) {
        if self.handed_over {
            return;
        }
        let why = self.line.hand_over(&self.will).err().map(|e| e.to_string());
        self.handed_over = why.is_none();
        // Once for each reason, however often it is tried.
        self.unheard.send_if_modified(|old| {
            let changed = *old != why;
            *old = why;
            changed
        });
    }
}

/// What the guard needs to know to end this session when the process is dead. `by_config`: all that the config may put up.
pub(super) fn will(config: &Config, by_config: Applied, node: &Node, link: &Link) -> Will {
    Will {
        state_dir: config.cluster.state_dir.clone(),
        by_config,
        patience: config.detection(),
        leaving: Some(longest_end(config)),
        letters: letters(node, link),
    }
}

fn letters(node: &Node, link: &Link) -> Vec<Letter> {
    let letter = |(peer, path, bytes)| {
        let route = link.route(peer, path)?;
        let bytes = Zeroizing::new(bytes);
        Some(Letter { from: link.local(route)?, to: route.remote, bytes })
    };
    node.obituaries().into_iter().filter_map(letter).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::guard::will::tests::{line, read};

    fn empty() -> Will {
        let (state_dir, by_config) = ("/nowhere".into(), Applied::default());
        let patience = Duration::from_secs(1);
        Will { state_dir, by_config, patience, leaving: None, letters: Vec::new() }
    }

    #[test]
    fn what_the_guard_does_not_take_is_told_once_for_each_reason_and_tried_again() {
        let (worker, guard) = line();
        let mut testament = Testament::new(worker, empty());
        let mut unheard = testament.unheard();
        testament.say();
        testament.say();
        assert!(read(&guard) == Some(empty()) && read(&guard).is_none(), "said once");
        assert!(!unheard.has_changed().unwrap(), "it was heard");

        let letter = Letter {
            from: "10.0.0.1:1".parse().unwrap(),
            to: "10.0.0.2:1".parse().unwrap(),
            bytes: Zeroizing::new(vec![0; 200 * 1024]),
        };
        testament.change(Will { letters: vec![letter], ..empty() });
        let why = unheard.borrow_and_update().clone().expect("a reason");
        assert!(why.contains("at most 196608"), "{why}");
        testament.say();
        assert!(!unheard.has_changed().unwrap(), "the same again");

        testament.change(empty());
        assert_eq!(*unheard.borrow_and_update(), None);
        assert!(read(&guard) == Some(empty()));
        drop(guard);
        testament.change(empty());
        assert!(unheard.borrow_and_update().is_some(), "nobody is there");
    }
}
