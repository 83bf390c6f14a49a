//! That no role changes.

use std::time::{Duration, Instant};

use netns_lab::Node;

use crate::pair::Pair;

impl Pair {
    /// The role changes that a node went through since it started first.
    pub(crate) fn changes(&self, node: &Node) -> usize {
        self.wgha(node, &["events", "--json"]).lines().count()
    }

    /// Role changes, and how often a daemon did not run for longer than its detection time: then roles change by right.
    pub(crate) fn changes_of(&self, nodes: &[&Node]) -> (usize, usize) {
        let log = |node: &Node| {
            let log = std::fs::read_to_string(node.dir().join("log/wgha.log"));
            log.unwrap_or_default().matches("a new session: did not run for ").count()
        };
        let changes = nodes.iter().map(|node| self.changes(node)).sum();
        (changes, self.lab.members().map(log).sum())
    }

    /// No role has changed since, but by right.
    pub(crate) fn none_changed(&self, nodes: &[&Node], before: (usize, usize), when: &str) {
        let now = self.changes_of(nodes);
        assert!(now.0 == before.0 || now.1 > before.1, "{when}: {before:?}, {now:?}");
    }

    /// For so long each of the nodes says its role, and none changes but by right.
    pub(crate) fn stay(&self, roles: &[(&Node, &str)], time: Duration, when: &str) {
        let nodes: Vec<_> = roles.iter().map(|(node, _)| *node).collect();
        let (before, end) = (self.changes_of(&nodes), Instant::now() + time);
        while Instant::now() < end {
            let said: Vec<_> = nodes.iter().map(|n| self.status(n)["role"].clone()).collect();
            if said.iter().zip(roles).any(|(said, (_, role))| said != role) {
                // Its log comes a moment later.
                std::thread::sleep(Duration::from_secs(1));
                self.none_changed(&nodes, before, &format!("{when}: {said:?}"));
                let master = roles.iter().find(|(_, role)| *role == "master");
                self.is_master(master.expect("one is master").0, when);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
