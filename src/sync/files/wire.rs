//! What gateways tell each other about files: which versions they have, and pieces of contents.
//!
//! ```text
//! both, at the start and after each change:   files      all of [sync] files, in some messages
//! who wants a content:                        file_want  path, hash, from which byte on
//! who has it:                                 file_part  at most 32 KiB of it
//! ```

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::disk::MAX_LEN;
use super::hash::Hash;
use super::lineage::{MAX_BEATEN, State};
use crate::sync::message::Message;

/// Bytes of a content in one message.
pub const PART: usize = 32 << 10;

/// The most files of a node, deleted ones among them.
pub const MAX_FILES: usize = 1024;

/// Longest path, in bytes: an entry of the config and a name in it.
pub const MAX_PATH: usize = 512 + 1 + 255;

/// Longest name of a node, in bytes.
const MAX_NODE: usize = 64;

/// Bytes of entries in one message, of 65,519.
const ROOM: usize = 48 << 10;

/// Which files a node has; a piece of its whole list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The list begins with this piece.
    pub first: bool,
    /// The list ends with this piece.
    pub last: bool,
    /// Files of this piece.
    pub files: Vec<Entry>,
}

/// One file of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its absolute path.
    pub path: String,
    /// Its version.
    #[serde(flatten)]
    pub state: State,
    /// Its length in bytes.
    #[serde(default)]
    pub length: u64,
    /// Its permission bits, for a node that does not have the file yet.
    #[serde(default)]
    pub mode: u32,
}

/// Asks for a content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// The file.
    pub path: String,
    /// The content.
    pub content: Hash,
    /// From this byte on.
    pub from: u64,
}

/// A piece of a content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The file.
    pub path: String,
    /// The content.
    pub content: Hash,
    /// The piece begins with this byte.
    pub from: u64,
    /// The bytes: [`PART`] of them, fewer at the end of the content.
    pub data: Data,
}

/// Bytes that may be a key: never shown, wiped when dropped. As text: base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Data(pub Zeroizing<Vec<u8>>);

impl List {
    /// These files, in as many messages as they need, at least one.
    #[must_use]
    pub fn messages(files: Vec<Entry>) -> Vec<Message> {
        let mut pieces: Vec<Vec<Entry>> = vec![Vec::new()];
        let mut room = ROOM;
        for entry in files {
            let size = serde_json::to_vec(&entry).map_or(0, |bytes| bytes.len() + 1);
            if size > room {
                pieces.push(Vec::new());
                room = ROOM;
            }
            room = room.saturating_sub(size);
            if let Some(piece) = pieces.last_mut() {
                piece.push(entry);
            }
        }
        let last = pieces.len() - 1;
        let list =
            |(index, files)| Message::Files(List { first: index == 0, last: index == last, files });
        pieces.into_iter().enumerate().map(list).collect()
    }

    /// Whether everything in it is what a peer may send.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.files.len() <= MAX_FILES && self.files.iter().all(Entry::is_bounded)
    }
}

impl Entry {
    fn is_bounded(&self) -> bool {
        let version = &self.state.version;
        self.path.len() <= MAX_PATH
            && self.length <= MAX_LEN
            && version.edits.is_bounded()
            && version.beaten.len() <= MAX_BEATEN
            && (1..=MAX_NODE).contains(&version.by.len())
            // It becomes part of a file's name.
            && version.by.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = Zeroizing::new(STANDARD.encode(&*self.0));
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Data, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = STANDARD.decode(text.as_bytes()).map_err(|_| "no base64");
        let bytes = bytes.map_err(serde::de::Error::custom)?;
        if bytes.len() > PART {
            return Err(serde::de::Error::custom("too long"));
        }
        Ok(Data(Zeroizing::new(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::lineage::{Edits, MAX_EDITOR, MAX_EDITORS, Version};
    use super::*;
    use crate::sync::channel::MAX_MESSAGE;

    fn entry(path: String, edits: Edits) -> Entry {
        let content = Hash::of(path.as_bytes());
        let version = Version { edits, by: "n".repeat(MAX_NODE), at: u64::MAX, beaten: Vec::new() };
        let beaten = vec![content; MAX_BEATEN];
        let state = State { version: Version { beaten, ..version }, content: Some(content) };
        Entry { path, state, length: MAX_LEN, mode: 0o600 }
    }

    fn largest(n: usize) -> Entry {
        let mut edits = Edits::root(&Hash::of(b"x"));
        for number in 0..MAX_EDITORS {
            edits = edits.edited_by(&format!("{number:0>width$}", width = MAX_EDITOR));
        }
        entry(format!("/{n:0>width$}", width = MAX_PATH - 1), edits)
    }

    #[test]
    fn the_longest_list_fits_into_messages_and_comes_back() {
        let files: Vec<Entry> = (0..40).map(largest).collect();
        let messages = List::messages(files.clone());
        assert!(messages.len() > 1);
        let mut back = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            let bytes = message.to_bytes();
            assert!(bytes.len() <= MAX_MESSAGE, "{}", bytes.len());
            let Some(Message::Files(list)) = Message::parse(&bytes) else { panic!("a list") };
            assert!(list.is_bounded());
            assert_eq!((list.first, list.last), (index == 0, index + 1 == messages.len()));
            back.extend(list.files);
        }
        assert_eq!(back, files);
        assert_eq!(List::messages(Vec::new()).len(), 1, "an empty list is said, too");
    }

    #[test]
    fn what_is_out_of_bounds_is_seen() {
        let good = entry("/etc/x".to_owned(), Edits::root(&Hash::of(b"x")));
        let list = |entry| List { first: true, last: true, files: vec![entry] };
        assert!(list(good.clone()).is_bounded());
        let mut wrong = vec![Entry { path: "x".repeat(MAX_PATH + 1), ..good.clone() }];
        wrong.push(Entry { length: MAX_LEN + 1, ..good.clone() });
        for change in [
            |v: &mut Version| v.by = "../../etc".to_owned(),
            |v: &mut Version| v.by = String::new(),
            |v: &mut Version| v.by = "x".repeat(MAX_NODE + 1),
            |v: &mut Version| v.edits = Edits::default(),
            |v: &mut Version| v.beaten = vec![Hash::of(b""); MAX_BEATEN + 1],
        ] {
            let mut entry = good.clone();
            change(&mut entry.state.version);
            wrong.push(entry);
        }
        for entry in wrong {
            assert!(!list(entry.clone()).is_bounded(), "{entry:?}");
        }
    }

    #[test]
    fn contents_are_bounded_and_never_shown() {
        let part = |length: usize| Part {
            path: "/etc/wireguard/wg0.conf".to_owned(),
            content: Hash::of(b"x"),
            from: u64::MAX,
            data: Data(Zeroizing::new(vec![b'K'; length])),
        };
        let message = Message::FilePart(part(PART));
        assert!(message.to_bytes().len() <= MAX_MESSAGE);
        assert_eq!(Message::parse(&message.to_bytes()), Some(message.clone()));
        assert_eq!(Message::parse(&Message::FilePart(part(PART + 1)).to_bytes()), None);
        let shown = format!("{message:?}");
        assert!(
            !shown.contains("KK") && !shown.contains("75, 75") && shown.contains("32768 bytes")
        );
    }
}
