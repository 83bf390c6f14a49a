//! The datagram: a header in clear, a sealed body. The drawing is in `docs/protocol.md`.
//!
//! ```text
//!  0       4  5  6    8           16          24           32        48        56      68      n-16
//!  | "WgHA" |v |p |key |cluster tag|sender tag |receiver tag|session  |counter  |nonce  | body …| tag |
//! ```
//!
//! Everything before the body is authenticated with it. The fields that a filter needs (length, magic,
//! cluster tag) stand at fixed offsets, so that strangers can be dropped before the process wakes.

use ring::digest;

pub(crate) mod body;

/// The first four bytes of every datagram.
pub(crate) const MAGIC: [u8; 4] = *b"WgHA";
/// The only version so far.
pub(crate) const VERSION: u8 = 1;
/// Length of the header, nonce included.
pub(crate) const HEADER_LEN: usize = 68;
/// Length of the header without the nonce: what the nonce is computed from.
pub(crate) const NONCE_AT: usize = 56;
/// Length of the ChaCha20-Poly1305 tag behind the body.
pub(crate) const TAG_LEN: usize = 16;
/// No datagram is shorter: a header and an empty sealed body.
pub const MIN_DATAGRAM: usize = HEADER_LEN + TAG_LEN;
/// No datagram is longer: it fits every path without fragments.
pub const MAX_DATAGRAM: usize = 1200;
/// More paths than this between two nodes are not counted.
pub const MAX_PATHS: u8 = 8;

/// A short hash that stands for a name on the wire.
pub type Tag = [u8; 8];

/// The tag of a cluster: bytes 8..16 of each of its datagrams.
#[must_use]
pub fn cluster_tag(cluster: &str) -> Tag {
    tag(b"wgha 1 cluster", &[cluster])
}

/// The tag of a node. Two nodes of one cluster must not have the same; the caller checks that.
#[must_use]
pub fn node_tag(cluster: &str, name: &str) -> Tag {
    tag(b"wgha 1 node", &[cluster, name])
}

/// SHA-256 of the label and the names, each behind its length, cut to eight bytes.
fn tag(label: &[u8], names: &[&str]) -> Tag {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(label);
    for name in names {
        context.update(&name_len(name));
        context.update(name.as_bytes());
    }
    let mut tag = Tag::default();
    tag.copy_from_slice(&context.finish().as_ref()[..8]);
    tag
}

/// The length of a name as two bytes, big endian: what bounds it in hashes and key derivation.
pub(crate) fn name_len(name: &str) -> [u8; 2] {
    u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes()
}

/// The part of a datagram that is in clear, without the nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The sender's number of the path that it sent this on.
    pub(crate) path: u8,
    /// Which key of the key file seals the body.
    pub(crate) key: u16,
    pub(crate) cluster: Tag,
    pub(crate) sender: Tag,
    pub(crate) receiver: Tag,
    /// The sender's session.
    pub(crate) session: [u8; 16],
    /// Grows with every datagram of this session to this receiver on this path.
    pub(crate) counter: u64,
}

impl Header {
    /// Appends the header and room for the nonce.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, self.path]);
        out.extend_from_slice(&self.key.to_be_bytes());
        out.extend_from_slice(&self.cluster);
        out.extend_from_slice(&self.sender);
        out.extend_from_slice(&self.receiver);
        out.extend_from_slice(&self.session);
        out.extend_from_slice(&self.counter.to_be_bytes());
        out.extend_from_slice(&[0; HEADER_LEN - NONCE_AT]);
    }

    /// Reads the header of a datagram whose length, magic and version were checked; `None` if it is too short.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Header> {
        Some(Header {
            path: *bytes.get(5)?,
            key: u16::from_be_bytes(array(bytes, 6)?),
            cluster: array(bytes, 8)?,
            sender: array(bytes, 16)?,
            receiver: array(bytes, 24)?,
            session: array(bytes, 32)?,
            counter: u64::from_be_bytes(array(bytes, 48)?),
        })
    }
}

/// `N` bytes from offset `at`, if there are as many.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}
