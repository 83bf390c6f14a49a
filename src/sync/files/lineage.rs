//! Which version of a file is newer: a pure table of decisions, without files and clocks.
//!
//! A version says which edits it contains: of each editor (a node, since it last lost its state
//! directory) how many. One that contains all edits of another is newer; two that each contain an
//! edit which the other lacks are in conflict. The wall clock has no say.
//!
//! ```text
//! found on disk, never seen before    root-HASH:1                       the same on every node that has it
//! edited on gw1                       root-HASH:1 gw1-5c1f:1            newer
//! edited on gw2 meanwhile             root-HASH:1 gw2-90aa:1            conflict
//! gw1's wins                          root-HASH:1 gw1-5c1f:1 gw2-90aa:1
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::hash::Hash;

/// The most editors of one version: gateways, and their lost state directories.
pub const MAX_EDITORS: usize = 64;

/// Longest name of an editor, in bytes.
pub const MAX_EDITOR: usize = 80;

/// The most lost contents that a version remembers.
pub const MAX_BEATEN: usize = 16;

/// The editor of contents that nobody has seen being made begins with this.
const ROOT: &str = "root-";

/// How many edits of each editor a version contains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Edits(BTreeMap<String, u64>);

/// How one version relates to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Both contain the same edits.
    Same,
    /// The other contains all of its edits, and more.
    Older,
    /// It contains all edits of the other, and more.
    Newer,
    /// Each has an edit that the other lacks.
    Conflict,
}

/// Where a content comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The edits that it contains.
    pub edits: Edits,
    /// The node of the last edit.
    pub by: String,
    /// When that was, by that node's clock, in seconds since 1970: for people alone.
    pub at: u64,
    /// Contents that lost a conflict against it: whoever has one keeps it aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beaten: Vec<Hash>,
}

/// A version and what it is a version of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where the content comes from.
    pub version: Version,
    /// The content; `None`: the file was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Hash>,
}

/// Whose content wins a conflict, by the roles of the two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Favour {
    /// The local node's: it is master.
    Mine,
    /// The other one's: it is master.
    Theirs,
    /// Neither is known to be master, and nobody else is.
    Nobody,
    /// Another one is master, or may soon be: it is left to that one.
    Wait,
}

/// What the local node does when it hears of another one's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It has that, or knows better: the other one acts.
    Nothing,
    /// The contents are the same: the version takes up what the other one knows.
    Agree(Version),
    /// The other one's content is taken, as this version.
    Take {
        /// The version from now on.
        version: Version,
        /// The local content lost a conflict: it is kept aside.
        keep: bool,
    },
    /// A conflict that is not decided yet.
    Open,
}

impl Edits {
    /// Of a content that was found, not seen being made: the same wherever it is found.
    #[must_use]
    pub fn root(content: &Hash) -> Edits {
        Edits(BTreeMap::from([(format!("{ROOT}{}", content.short()), 1)]))
    }

    /// With one more edit of this editor.
    #[must_use]
    pub fn edited_by(&self, editor: &str) -> Edits {
        let mut edits = self.0.clone();
        *edits.entry(editor.to_owned()).or_default() += 1;
        while edits.len() > MAX_EDITORS {
            // Forgetting an editor can make a conflict of what was none, and loses nothing.
            let Some(other) = edits.keys().find(|name| *name != editor).cloned() else { break };
            edits.remove(&other);
        }
        Edits(edits)
    }

    /// How it relates to `other`.
    #[must_use]
    pub fn compare(&self, other: &Edits) -> Order {
        let lacks = |a: &Edits, b: &Edits| {
            b.0.iter().any(|(name, count)| a.0.get(name).is_none_or(|mine| mine < count))
        };
        match (lacks(self, other), lacks(other, self)) {
            (false, false) => Order::Same,
            (true, false) => Order::Older,
            (false, true) => Order::Newer,
            (true, true) => Order::Conflict,
        }
    }

    /// With all edits of both.
    #[must_use]
    pub fn join(&self, other: &Edits) -> Edits {
        let mut all = self.0.clone();
        for (name, count) in &other.0 {
            let mine = all.entry(name.clone()).or_default();
            *mine = (*mine).max(*count);
        }
        while all.len() > MAX_EDITORS {
            all.pop_first();
        }
        Edits(all)
    }

    /// All edits: a number that grows with every version of a file.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.0.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Whether it is what a peer may send.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let name = |name: &String| (1..=MAX_EDITOR).contains(&name.len());
        (1..=MAX_EDITORS).contains(&self.0.len()) && self.0.keys().all(name)
    }

    /// Nobody has edited it since it was found.
    fn is_root(&self) -> bool {
        self.0.len() == 1 && self.0.keys().all(|name| name.starts_with(ROOT))
    }
}

impl State {
    /// A file that is there without any history.
    #[must_use]
    pub fn found(content: Hash, me: &str, at: u64) -> State {
        let edits = Edits::root(&content);
        let version = Version { edits, by: me.to_owned(), at, beaten: Vec::new() };
        State { version, content: Some(content) }
    }

    /// The next version, with this content.
    #[must_use]
    pub fn edited(&self, content: Option<Hash>, editor: &str, me: &str, at: u64) -> State {
        let edits = self.version.edits.edited_by(editor);
        let beaten = self.version.beaten.clone();
        let version = Version { edits, by: me.to_owned(), at, beaten };
        State { version, content }
    }
}

/// What to do about `theirs` with `mine` (`None`: the file is not here).
#[must_use]
pub fn decide(mine: Option<&State>, theirs: &State, favour: Favour) -> Decision {
    let Some(mine) = mine else {
        return Decision::Take { version: theirs.version.clone(), keep: false };
    };
    let order = mine.version.edits.compare(&theirs.version.edits);
    if mine.content == theirs.content {
        return match order {
            Order::Same | Order::Newer => Decision::Nothing,
            Order::Older | Order::Conflict => Decision::Agree(joined(mine, theirs)),
        };
    }
    match order {
        Order::Newer => Decision::Nothing,
        Order::Older => {
            let beaten = mine.content.is_some_and(|c| theirs.version.beaten.contains(&c));
            Decision::Take { version: theirs.version.clone(), keep: beaten }
        }
        // The same edits and another content: two nodes decided at once, each for the other.
        Order::Same | Order::Conflict => conflict(mine, theirs, favour),
    }
}

fn conflict(mine: &State, theirs: &State, favour: Favour) -> Decision {
    let root = |state: &State| state.version.edits.is_root();
    let wins = match (mine.content.is_some(), theirs.content.is_some()) {
        // Who edits wants the file, whoever deleted it.
        (true, false) => true,
        (false, true) => false,
        _ if root(mine) != root(theirs) => root(theirs),
        _ => match favour {
            Favour::Mine => true,
            Favour::Theirs => false,
            Favour::Wait => return Decision::Open,
            Favour::Nobody => rank(mine) > rank(theirs),
        },
    };
    if wins {
        // The loser keeps its own aside, and then its version contains both.
        return Decision::Open;
    }
    let mut version = joined(theirs, mine);
    if let Some(lost) = mine.content {
        version.beaten.retain(|hash| *hash != lost);
        version.beaten.insert(0, lost);
        version.beaten.truncate(MAX_BEATEN);
    }
    Decision::Take { version, keep: mine.content.is_some() }
}

/// An order that all nodes agree on.
fn rank(state: &State) -> (u64, Option<Hash>) {
    (state.version.edits.number(), state.content)
}

/// The version of `of`'s content that knows the edits of both.
fn joined(of: &State, other: &State) -> Version {
    let (a, b) = (&of.version, &other.version);
    let edits = a.edits.join(&b.edits);
    let mut beaten = a.beaten.clone();
    let same = of.content == other.content;
    beaten.extend(b.beaten.iter().filter(|hash| same && !a.beaten.contains(hash)));
    beaten.retain(|hash| Some(*hash) != of.content);
    beaten.truncate(MAX_BEATEN);
    // Which of two equal edits is named must not depend on who asks.
    let named = if same && (b.at, &b.by) > (a.at, &a.by) { b } else { a };
    Version { edits, by: named.by.clone(), at: named.at, beaten }
}

/// Whom a conflict between `me` and `peer` favours. `settled`: nobody has been master for so long
/// that nobody will be soon.
#[must_use]
pub fn favour(me: &str, peer: &str, master: Option<&str>, settled: bool) -> Favour {
    match master {
        Some(master) if master == me => Favour::Mine,
        Some(master) if master == peer => Favour::Theirs,
        None if settled => Favour::Nobody,
        Some(_) | None => Favour::Wait,
    }
}

#[cfg(test)]
mod tests;
