//! Who votes: the set in force, and its hash.

use ring::digest;

use crate::wire::{Tag, name_len, node_tag};

/// What is said of a set on the wire.
pub(crate) type SetHash = [u8; 16];

/// A set of voters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VoterSet {
    /// Sorted.
    names: Vec<String>,
    tags: Vec<Tag>,
    /// Of the arbiter, if there is one: which of the names.
    arbiter: Option<usize>,
    hash: SetHash,
}

impl VoterSet {
    pub(crate) fn new<'a>(cluster: &str, names: impl Iterator<Item = &'a str>) -> VoterSet {
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        names.dedup();
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"wgha 1 voters");
        for name in std::iter::once(cluster).chain(names.iter().map(String::as_str)) {
            context.update(&name_len(name));
            context.update(name.as_bytes());
        }
        let mut hash = SetHash::default();
        hash.copy_from_slice(&context.finish().as_ref()[..16]);
        let tags = names.iter().map(|name| node_tag(cluster, name)).collect();
        let arbiter = names.iter().position(|name| name.starts_with(crate::arbiter::PREFIX));
        VoterSet { names, tags, arbiter, hash }
    }

    /// The names, sorted: kept on disk.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The nodes, sorted.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &String> {
        self.names.iter().enumerate().filter(|(i, _)| Some(*i) != self.arbiter).map(|(_, n)| n)
    }

    /// The name and the tag of the arbiter, if one votes.
    pub(crate) fn arbiter(&self) -> Option<(&str, Tag)> {
        let index = self.arbiter?;
        Some((self.names.get(index)?, *self.tags.get(index)?))
    }

    pub(crate) fn hash(&self) -> SetHash {
        self.hash
    }

    /// k: how many votes a lease needs.
    pub(crate) fn majority(&self) -> usize {
        self.names.len() / 2 + 1
    }

    /// Whether every majority of this set has a node in common with every majority of the other. Only then may one
    /// follow the other: while some nodes have the one in force and some the other, no two can both win.
    pub(crate) fn overlaps(&self, other: &VoterSet) -> bool {
        let added = other.tags.iter().filter(|tag| !self.contains(tag)).count();
        self.majority() + other.majority() > self.names.len() + added
    }

    pub(crate) fn contains(&self, node: &Tag) -> bool {
        self.tags.contains(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> VoterSet {
        VoterSet::new("edge", names.iter().copied())
    }

    #[test]
    fn a_majority_is_more_than_half() {
        let names = ["a", "b", "c", "d", "e"];
        let majorities: Vec<usize> = (1..=5).map(|n| set(&names[..n]).majority()).collect();
        assert_eq!(majorities, [1, 2, 2, 3, 3]);
    }

    #[test]
    fn one_node_more_or_less_keeps_majorities_overlapping() {
        let all = ["a", "b", "c", "d", "e", "f"];
        for n in 1..6 {
            let (less, more) = (set(&all[..n]), set(&all[..=n]));
            assert!(less.overlaps(&more) && more.overlaps(&less) && less.overlaps(&less), "{n}");
        }
        // a and c of the one, b and d of the other.
        assert!(!set(&["a", "b", "c"]).overlaps(&set(&["a", "b", "d"])));
        assert!(!set(&all[..3]).overlaps(&set(&all[..5])));
        assert!(set(&all[..4]).overlaps(&set(&["a", "b", "c", "e"])));
    }

    #[test]
    fn the_order_of_the_config_does_not_matter_but_every_name_and_the_cluster_do() {
        assert_eq!(set(&["b", "a"]), set(&["a", "b"]));
        assert_ne!(set(&["a", "b"]).hash(), set(&["a", "c"]).hash());
        assert_ne!(set(&["a", "b"]).hash(), set(&["ab"]).hash());
        let other = VoterSet::new("core", ["a", "b"].into_iter());
        assert_ne!(set(&["a", "b"]).hash(), other.hash());
        assert!(set(&["a", "b"]).contains(&node_tag("edge", "a")));
        assert!(!set(&["a", "b"]).contains(&node_tag("edge", "c")));
    }
}
