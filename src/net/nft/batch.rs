//! A change of nf_tables is a batch, which the kernel applies as a whole or not at all.

use netlink_packet_core::{NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST};

use super::encode::{Attributes, Family, HEADER, Kind, SUBSYSTEM, append};
use super::expression::Expressions;

/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`.
const EDGES: [u16; 2] = [0x10, 0x11];
/// `NFNL_BATCH_GENID`.
const GENERATION: u16 = 1;
/// Where the generation of a batch stands in it.
pub(in crate::net) const GENERATION_AT: usize = HEADER + 4 + NLA_HEADER_SIZE;

/// A batch in the making. Its answer is one acknowledgement, or the errors.
pub(in crate::net) struct Batch {
    bytes: Vec<u8>,
    last: usize,
}

impl Batch {
    /// Refused with `ERESTART` if the ruleset is not of this generation; 0: any.
    pub(in crate::net) fn new(generation: u32) -> Batch {
        let mut batch = Batch { bytes: Vec::with_capacity(4096), last: 0 };
        batch.raw(EDGES[0], NLM_F_REQUEST, Family::None, SUBSYSTEM, |a| {
            a.be32(GENERATION, generation);
        });
        batch
    }

    /// A table, if there is none.
    pub(in crate::net) fn table(&mut self, family: Family, name: &str) {
        self.message(Kind::NewTable, family, NLM_F_CREATE, |a| {
            a.text(1, name);
            a.be32(2, 0);
        });
    }

    /// Takes a table off with all that is in it; one that is not there is an error.
    pub(in crate::net) fn delete_table(&mut self, family: Family, name: &str) {
        self.message(Kind::DelTable, family, 0, |a| a.text(1, name));
    }

    /// A base chain, which accepts what none of its rules drops.
    pub(in crate::net) fn chain(
        &mut self,
        family: Family,
        table: &str,
        name: &str,
        (hook, priority): (u32, i32),
    ) {
        self.message(Kind::NewChain, family, NLM_F_CREATE, |a| {
            a.text(1, table);
            a.text(3, name);
            a.nested(4, |a| {
                a.be32(1, hook);
                a.bytes(2, &priority.to_be_bytes());
            });
            // NF_ACCEPT.
            a.be32(5, 1);
            a.text(7, "filter");
        });
    }

    /// A rule at the end of a chain, with data for whoever lists it (`NFTA_RULE_USERDATA`).
    pub(in crate::net) fn rule(
        &mut self,
        family: Family,
        (table, chain): (&str, &str),
        note: Option<&[u8]>,
        body: impl FnOnce(&mut Expressions<'_, '_>),
    ) {
        self.message(Kind::NewRule, family, NLM_F_CREATE | NLM_F_APPEND, |a| {
            a.text(1, table);
            a.text(2, chain);
            a.nested(4, |a| body(&mut Expressions(a)));
            if let Some(note) = note {
                a.bytes(7, note);
            }
        });
    }

    /// Any other message.
    pub(in crate::net) fn message(
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
    pub(in crate::net) fn finish(mut self) -> Vec<u8> {
        if let Some(flags) = self.bytes.get_mut(self.last + 6..self.last + 8) {
            let both = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
            flags.copy_from_slice(&both.to_ne_bytes());
        }
        self.raw(EDGES[1], NLM_F_REQUEST, Family::None, SUBSYSTEM, |_| {});
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
