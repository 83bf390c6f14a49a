//! nfnetlink as bytes: messages and attributes.
//!
//! ```text
//! 0          4     6     8        12      16      17   18       20
//! +----------+-----+-----+--------+-------+-------+----+--------+---------------
//! | length   |type |flags|sequence| port  |family | 0  | res_id | attributes ...
//! +----------+-----+-----+--------+-------+-------+----+--------+---------------
//!  a batch: begin (0x10, res_id 10, generation), messages (10 << 8 | kind), end (0x11)
//! ```
//!
//! Headers are in the machine's byte order, everything of nf_tables is big-endian
//! (linux/netfilter/nf_tables.h).

use netlink_packet_core::{
    Emitable, NLA_F_NESTED, NLA_HEADER_SIZE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NlaBuffer,
};

/// Bytes of a netlink header.
pub(super) const HEADER: usize = 16;
/// `NFNL_SUBSYS_NFTABLES`.
pub(super) const SUBSYSTEM: u16 = 10;

/// `NFPROTO_*`: which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) enum Family {
    /// Of no table in particular.
    None = 0,
    /// IPv4 and IPv6.
    Inet = 1,
    Arp = 3,
}

/// `NFT_MSG_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) enum Kind {
    NewTable = 0,
    GetTable = 1,
    DelTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
    NewSet = 9,
    GetSet = 10,
    NewElement = 12,
    GetElement = 13,
    DelElement = 14,
    NewGeneration = 15,
    GetGeneration = 16,
}

impl Kind {
    /// The message type on the wire.
    pub(super) const fn code(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }
}

/// A question: one object, or with `list` all of them.
pub(super) fn question(
    kind: Kind,
    family: Family,
    list: bool,
    body: impl FnOnce(&mut Attributes<'_>),
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    let flags = if list { NLM_F_REQUEST | NLM_F_DUMP } else { NLM_F_REQUEST };
    append(&mut bytes, kind.code(), flags, family, 0, body);
    bytes
}

/// One message at the end of `bytes`.
pub(super) fn append(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    family: Family,
    resource: u16,
    body: impl FnOnce(&mut Attributes<'_>),
) {
    let start = bytes.len();
    bytes.resize(start + HEADER, 0);
    bytes.extend([family as u8, 0]);
    bytes.extend(resource.to_be_bytes());
    body(&mut Attributes(bytes));
    let length = u32::try_from(bytes.len() - start).unwrap_or(u32::MAX);
    // The answers to a batch are read before the next one is sent, so numbers tell nothing.
    let mut header = NetlinkHeader::default();
    (header.length, header.message_type, header.flags) = (length, kind, flags);
    header.sequence_number = 1;
    if let Some(place) = bytes.get_mut(start..start + HEADER) {
        header.emit(place);
    }
}

/// The attributes of a message.
pub(in crate::net) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    /// Bytes as they are.
    pub(in crate::net) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.write(kind, |out| out.extend(value));
    }

    /// Text with its closing zero.
    pub(in crate::net) fn text(&mut self, kind: u16, value: &str) {
        self.write(kind, |out| {
            out.extend(value.as_bytes());
            out.push(0);
        });
    }

    pub(in crate::net) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Returns where the value stands in the batch.
    pub(in crate::net) fn be64(&mut self, kind: u16, value: u64) -> usize {
        self.bytes(kind, &value.to_be_bytes());
        self.0.len() - size_of::<u64>()
    }

    /// Attributes inside an attribute.
    pub(in crate::net) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        self.write(kind | NLA_F_NESTED, |out| body(&mut Attributes(out)));
    }

    fn write(&mut self, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
        let start = self.0.len();
        self.0.resize(start + NLA_HEADER_SIZE, 0);
        value(self.0);
        let length = self.0.len() - start;
        if let Some(place) = self.0.get_mut(start..start + NLA_HEADER_SIZE) {
            let mut header = NlaBuffer::new(place);
            header.set_kind(kind);
            if kind & NLA_F_NESTED != 0 {
                header.set_nested_flag();
            }
            header.set_length(u16::try_from(length).unwrap_or(u16::MAX));
        }
        self.0.resize(start + length.next_multiple_of(4), 0);
    }
}
