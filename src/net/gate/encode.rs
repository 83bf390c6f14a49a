//! nfnetlink as bytes: batches, messages, attributes. Only what the gate needs.
//!
//! A change of nf_tables is a batch, which the kernel applies as a whole or not at all:
//!
//! ```text
//! 0          4     6     8        12      16      17   18       20
//! +----------+-----+-----+--------+-------+-------+----+--------+---------------
//! | length   |type |flags|sequence| port  |family | 0  | res_id | attributes ...
//! +----------+-----+-----+--------+-------+-------+----+--------+---------------
//!  begin (0x10, res_id 10, generation), messages (10 << 8 | kind), end (0x11)
//! ```
//!
//! Headers are in the machine's byte order, everything of nf_tables is big-endian
//! (linux/netfilter/nf_tables.h).

use netlink_packet_core::{
    Emitable, NLA_F_NESTED, NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader,
    NlaBuffer,
};

const HEADER: usize = 16;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`.
const BATCH: [u16; 2] = [0x10, 0x11];
/// `NFNL_BATCH_GENID`.
const BATCH_GENERATION: u16 = 1;

/// `NFPROTO_*`: which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Of no table in particular.
    None = 0,
    /// IPv4 and IPv6.
    Inet = 1,
    Arp = 3,
}

/// `NFT_MSG_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
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
    DelElement = 14,
    GetGeneration = 16,
}

impl Kind {
    /// The message type on the wire.
    pub(super) const fn code(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }
}

/// A batch in the making. Its answer is one acknowledgement, or the errors.
pub(super) struct Batch {
    bytes: Vec<u8>,
    last: usize,
}

impl Batch {
    /// Refused with `ERESTART` if the ruleset is not of this generation; 0: any.
    pub(super) fn new(generation: u32) -> Batch {
        let mut batch = Batch { bytes: Vec::with_capacity(4096), last: 0 };
        batch.raw(BATCH[0], NLM_F_REQUEST, Family::None, SUBSYSTEM, |a| {
            a.be32(BATCH_GENERATION, generation);
        });
        batch
    }

    /// One more message.
    pub(super) fn message(
        &mut self,
        kind: Kind,
        family: Family,
        flags: u16,
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.last = self.bytes.len();
        self.raw(kind.code(), NLM_F_REQUEST | flags, family, 0, body);
    }

    /// The whole batch; the last message asks for the acknowledgement.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if let Some(flags) = self.bytes.get_mut(self.last + 6..self.last + 8) {
            let both = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
            flags.copy_from_slice(&both.to_ne_bytes());
        }
        self.raw(BATCH[1], NLM_F_REQUEST, Family::None, SUBSYSTEM, |_| {});
        self.bytes
    }

    fn raw(
        &mut self,
        kind: u16,
        flags: u16,
        family: Family,
        resource: u16,
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        append(&mut self.bytes, kind, flags, family, resource, body);
    }
}

/// Where the generation of a batch stands in it.
pub(super) const GENERATION_AT: usize = HEADER + 4 + NLA_HEADER_SIZE;

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

fn append(
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
pub(super) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    /// Bytes as they are.
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.write(kind, |out| out.extend(value));
    }

    /// Text with its closing zero.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.write(kind, |out| {
            out.extend(value.as_bytes());
            out.push(0);
        });
    }

    pub(super) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Returns where the value stands in the batch.
    pub(super) fn be64(&mut self, kind: u16, value: u64) -> usize {
        self.bytes(kind, &value.to_be_bytes());
        self.0.len() - size_of::<u64>()
    }

    /// Attributes inside an attribute.
    pub(super) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_on_the_wire() {
        let mut batch = Batch::new(7);
        batch.message(Kind::NewTable, Family::Arp, 0x400, |a| {
            a.text(1, "wgha");
            a.nested(2, |a| {
                a.be64(3, 0x0102);
            });
        });
        let bytes = batch.finish();
        if cfg!(target_endian = "big") {
            return;
        }
        #[rustfmt::skip]
        let expected = [
            28, 0, 0, 0, 0x10, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 8, 0, 1, 0, 0, 0, 0, 7,
            48, 0, 0, 0, 0, 10, 5, 4, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0,
            9, 0, 1, 0, b'w', b'g', b'h', b'a', 0, 0, 0, 0,
            16, 0, 2, 0x80, 12, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 2,
            20, 0, 0, 0, 0x11, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
        ];
        assert_eq!(bytes, expected);
        assert_eq!(bytes[GENERATION_AT..GENERATION_AT + 4], [0, 0, 0, 7]);
    }
}
