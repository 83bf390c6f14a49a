//! What is known of each file, kept in the state directory: versions, never contents.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use tracing::error;

use super::lineage::State;
use crate::state::StateDir;

/// The file's name in the state directory.
const FILE: &str = "files.json";

/// The index of one node.
pub struct Index {
    state: Arc<StateDir>,
    kept: Kept,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    /// Who edits here: the node's name, and a number that a lost state directory changes, so that
    /// counts never begin anew.
    editor: String,
    files: BTreeMap<String, Known>,
}

/// What is known of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its version, and what it holds.
    #[serde(flatten)]
    pub state: State,
    /// What is about to be written over it. If that stands after a crash, it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coming: Option<State>,
}

impl Index {
    /// The index as an earlier run left it.
    #[must_use]
    pub fn open(state: Arc<StateDir>, me: &str) -> Index {
        let mut kept: Kept = state.load(FILE);
        if !kept.editor.strip_prefix(me).is_some_and(|rest| rest.starts_with('-')) {
            kept.editor = format!("{me}-{}", random_digits());
        }
        Index { state, kept }
    }

    /// Who edits here.
    #[must_use]
    pub fn editor(&self) -> &str {
        &self.kept.editor
    }

    /// What is known of a file.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Known> {
        self.kept.files.get(path)
    }

    /// All files by path.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Known)> {
        self.kept.files.iter()
    }

    /// Forgets all files in a directory.
    pub fn forget_below(&mut self, directory: &Path) {
        self.forget(|path, _| Path::new(path).parent() == Some(directory));
    }

    /// Remembers this many deleted files, and no more.
    pub fn forget_deleted(&mut self, most: usize) {
        let deleted = self.kept.files.iter().filter(|(_, known)| known.state.content.is_none());
        let mut deleted: Vec<_> =
            deleted.map(|(path, known)| (known.state.version.at, path.clone())).collect();
        deleted.sort();
        deleted.truncate(deleted.len().saturating_sub(most));
        self.forget(|path, _| deleted.iter().any(|(_, old)| old == path));
    }

    fn forget(&mut self, which: impl Fn(&str, &Known) -> bool) {
        let paths = self.kept.files.iter().filter(|(path, known)| which(path, known));
        for path in paths.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.set(&path, None);
        }
    }

    /// Takes note of a file's state, on the disk. False if the disk refuses: then nothing that
    /// depends on it may be done.
    pub fn set(&mut self, path: &str, known: Option<Known>) -> bool {
        if self.kept.files.get(path) == known.as_ref() {
            return true;
        }
        let before = match known {
            Some(known) => self.kept.files.insert(path.to_owned(), known),
            None => self.kept.files.remove(path),
        };
        let stored = self.state.store(FILE, &self.kept);
        let Err(e) = stored else { return true };
        error!("versions of files not kept: {e}");
        match before {
            Some(known) => _ = self.kept.files.insert(path.to_owned(), known),
            None => _ = self.kept.files.remove(path),
        }
        false
    }
}

impl Known {
    /// A state that stands.
    #[must_use]
    pub fn new(state: State) -> Known {
        Known { state, coming: None }
    }
}

fn random_digits() -> String {
    let mut bytes = [0; 4];
    // Without random numbers the daemon has not started.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::hash::Hash;
    use super::*;

    #[test]
    fn it_is_kept_for_root_alone_and_a_lost_one_is_another_editor() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(dir.path()).unwrap());
        let mut index = Index::open(Arc::clone(&state), "gw1");
        let editor = index.editor().to_owned();
        assert!(editor.starts_with("gw1-") && editor.len() == "gw1-".len() + 8, "{editor}");
        let found = State::found(Hash::of(b"x"), "gw1", 5);
        let known = Known { state: found.clone(), coming: Some(found) };
        assert!(index.set("/etc/x", Some(known.clone())));
        assert!(index.set("/etc/y", Some(known.clone())));
        assert!(index.set("/etc/y", None));
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Index::open(Arc::clone(&state), "gw1");
        assert_eq!(again.editor(), editor);
        assert_eq!(again.iter().collect::<Vec<_>>(), [(&"/etc/x".to_owned(), &known)]);
        assert_ne!(Index::open(Arc::clone(&state), "gw2").editor()[..4], editor[..4]);
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        assert_ne!(Index::open(state, "gw1").editor(), editor);
    }
}
