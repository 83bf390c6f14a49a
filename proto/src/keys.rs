//! The keys of a cluster: the key file, and what is derived from its keys.
//!
//! A gateway holds *gateway keys*. From each follows, one way, a *vote key*; a witness holds only
//! that, so it can vote but not read what gateways tell each other. Two gateways seal with the
//! gateway key; to and from a witness the vote key is used.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hkdf;
use zeroize::Zeroizing;

use crate::wire::name_len;

/// Salt of every extraction (RFC 5869 §2.2).
const SALT: &[u8] = b"wgha 1";
/// What a vote key is derived with. Independent of the cluster's name, so a key file fits any.
const VOTE_LABEL: &[u8] = b"vote";

/// What secrets of other parts are derived with.
const PURPOSE_LABEL: &[u8] = b"purpose";

/// Why a key file is refused. No variant shows any part of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// A line is not of the form `gateway ID KEY` or `witness ID KEY`.
    #[error("line {line}: expected `gateway ID KEY` or `witness ID KEY`")]
    Form {
        /// The line, from 1.
        line: usize,
    },
    /// An id is not a number.
    #[error("line {line}: the id must be a number from 0 to 65535")]
    Id {
        /// The line, from 1.
        line: usize,
    },
    /// An id that another line has already.
    #[error("line {line}: a second key with id {id}")]
    DuplicateId {
        /// The line, from 1.
        line: usize,
        /// The id.
        id: u16,
    },
    /// A key is not base64.
    #[error("line {line}: the key is not base64")]
    Base64 {
        /// The line, from 1.
        line: usize,
    },
    /// A key has fewer than 32 bytes.
    #[error("line {line}: the key is too short: {bytes} bytes, 32 are needed")]
    TooShort {
        /// The line, from 1.
        line: usize,
        /// How many bytes it has.
        bytes: usize,
    },
    /// A key has more than 32 bytes.
    #[error("line {line}: the key is too long: {bytes} bytes, 32 are needed")]
    TooLong {
        /// The line, from 1.
        line: usize,
        /// How many bytes it has.
        bytes: usize,
    },
    /// Gateway and witness keys in one file.
    #[error("line {line}: gateway and witness keys cannot be in one file")]
    Mixed {
        /// The line, from 1.
        line: usize,
    },
    /// No key at all.
    #[error("no key in the file")]
    Empty,
}

/// All keys that a node accepts. It seals with the first.
///
/// Rotation without a missed heartbeat: add the new key as second everywhere, then move it to the
/// front, then remove the old one.
#[derive(Clone)]
pub struct Keyring {
    witness: bool,
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: u16,
    /// As in the file.
    secret: Zeroizing<[u8; 32]>,
    /// For gateways among themselves; none on a witness.
    gateway: Option<hkdf::Prk>,
    /// To and from witnesses.
    vote: hkdf::Prk,
    vote_secret: Zeroizing<[u8; 32]>,
}

impl Keyring {
    /// Reads the text of a key file.
    ///
    /// # Errors
    /// The first line that is wrong, or [`KeyFileError::Empty`].
    pub fn parse(text: &str) -> Result<Keyring, KeyFileError> {
        let mut ring: Option<Keyring> = None;
        for (index, raw) in text.lines().enumerate() {
            let line = index + 1;
            let content = raw.split('#').next().unwrap_or_default().trim();
            if content.is_empty() {
                continue;
            }
            let (witness, id, secret) = parse_line(line, content)?;
            let ring = ring.get_or_insert(Keyring { witness, keys: Vec::new() });
            if ring.witness != witness {
                return Err(KeyFileError::Mixed { line });
            }
            if ring.keys.iter().any(|key| key.id == id) {
                return Err(KeyFileError::DuplicateId { line, id });
            }
            ring.keys.push(Key::new(id, secret, witness));
        }
        ring.ok_or(KeyFileError::Empty)
    }

    /// A ring of one gateway key, from 32 random bytes.
    #[must_use]
    pub fn generate(id: u16, secret: [u8; 32]) -> Keyring {
        Keyring { witness: false, keys: vec![Key::new(id, Zeroizing::new(secret), false)] }
    }

    /// The ring for a witness of the same cluster. That of a witness is the same again.
    #[must_use]
    pub fn to_witness(&self) -> Keyring {
        let keys = self.keys.iter().map(|key| Key::new(key.id, key.vote_secret.clone(), true));
        Keyring { witness: true, keys: keys.collect() }
    }

    /// The text of the key file. It is secret.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let kind = if self.witness { "witness" } else { "gateway" };
        // Room for all of it at once: a string that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(self.keys.len() * 64));
        for key in &self.keys {
            let secret = Zeroizing::new(STANDARD.encode(*key.secret));
            for part in [kind, " ", &key.id.to_string(), " ", &secret, "\n"] {
                text.push_str(part);
            }
        }
        text
    }

    /// Whether these are a witness's keys. A gateway cannot work with them, nor may a witness hold
    /// others.
    #[must_use]
    pub fn is_witness(&self) -> bool {
        self.witness
    }

    /// The ids of the keys, the sending one first.
    pub fn ids(&self) -> impl Iterator<Item = u16> + '_ {
        self.keys.iter().map(|key| key.id)
    }

    /// A secret for each gateway key, the sending one first, bound to `purpose` (at most 255 bytes):
    /// secrets of two purposes tell nothing of each other. A witness gets none.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Vec<(u16, Zeroizing<[u8; 32]>)> {
        let secret = |key: &Key| {
            let mut out = Zeroizing::new([0; 32]);
            let info = [PURPOSE_LABEL, &name_len(purpose), purpose.as_bytes()];
            expand(key.gateway.as_ref()?, &info, out.as_mut_slice());
            Some((key.id, out))
        };
        self.keys.iter().filter_map(secret).collect()
    }

    /// What keys to a peer are derived from: `vote` if one side is a witness.
    pub(crate) fn find(&self, id: u16, vote: bool) -> Option<&hkdf::Prk> {
        let key = self.keys.iter().find(|key| key.id == id)?;
        if vote { Some(&key.vote) } else { key.gateway.as_ref() }
    }

    /// The id of the key that seals.
    pub(crate) fn sending(&self) -> Option<u16> {
        self.keys.first().map(|key| key.id)
    }
}

impl fmt::Debug for Keyring {
    /// Shows ids, never keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("witness", &self.witness)
            .field("ids", &self.ids().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Key {
    fn new(id: u16, secret: Zeroizing<[u8; 32]>, witness: bool) -> Key {
        if witness {
            let vote = extract(&secret);
            return Key { id, vote_secret: secret.clone(), secret, gateway: None, vote };
        }
        let gateway = extract(&secret);
        let mut vote_secret = Zeroizing::new([0; 32]);
        expand(&gateway, &[VOTE_LABEL], vote_secret.as_mut_slice());
        let vote = extract(&vote_secret);
        Key { id, secret, gateway: Some(gateway), vote, vote_secret }
    }
}

fn parse_line(
    line: usize,
    content: &str,
) -> Result<(bool, u16, Zeroizing<[u8; 32]>), KeyFileError> {
    let mut words = content.split_whitespace();
    let (Some(kind), Some(id), Some(key), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(KeyFileError::Form { line });
    };
    let witness = match kind {
        "gateway" => false,
        "witness" => true,
        _ => return Err(KeyFileError::Form { line }),
    };
    let id = id.parse().map_err(|_| KeyFileError::Id { line })?;
    let bytes = Zeroizing::new(STANDARD.decode(key).map_err(|_| KeyFileError::Base64 { line })?);
    let mut secret = Zeroizing::new([0; 32]);
    match bytes.len() {
        32 => secret.copy_from_slice(&bytes),
        short if short < 32 => return Err(KeyFileError::TooShort { line, bytes: short }),
        long => return Err(KeyFileError::TooLong { line, bytes: long }),
    }
    Ok((witness, id, secret))
}

/// HKDF-Extract (RFC 5869 §2.2) with SHA-256.
fn extract(secret: &[u8; 32]) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(secret)
}

/// HKDF-Expand (RFC 5869 §2.3) with SHA-256 into `out`, at most 255 × 32 bytes.
pub(crate) fn expand(prk: &hkdf::Prk, info: &[&[u8]], out: &mut [u8]) {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    // Both calls fail only for lengths that no caller here asks for; a key left zero would be a
    // silent disaster, so this one stops the process instead.
    prk.expand(info, Len(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("fewer than 255 blocks are asked for");
}

#[cfg(test)]
mod tests;
