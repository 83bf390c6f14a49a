//! From a body to bytes.

use super::value::{put, role_byte, wireguard_byte};
use super::{Body, Handover, field};

impl Body {
    /// Appends the body to `out`, fields in the order of their types.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put(out, field::NUMBER, &[&self.number.to_be_bytes()]);
        if let Some(e) = self.echo {
            put(out, field::ECHO, &[&e.session, &e.number.to_be_bytes(), &e.age_us.to_be_bytes()]);
        }
        put(out, field::ROLE, &[&[role_byte(self.role)], &self.term.to_be_bytes()]);
        put(out, field::PRIORITY, &[&[self.priority]]);
        put(out, field::FLAGS, &[&[self.flags.byte()]]);
        put(out, field::TIMING, &[&self.interval_us.to_be_bytes(), &[self.misses]]);
        put(out, field::FINGERPRINT, &[&self.fingerprint]);
        put(out, field::WIREGUARD, &[&[wireguard_byte(self.wireguard)]]);
        put(out, field::CLOCK, &[&self.sent_ns.to_be_bytes(), &self.wall_ns.to_be_bytes()]);
        if let Some(h) = self.hears {
            put(out, field::HEARS, &[&h.node, &h.term.to_be_bytes(), &h.age_ms.to_be_bytes()]);
        }
        let kind = [self.evidence.byte()];
        put(out, field::EVIDENCE, &[&kind, &self.evidence_age_ms.to_be_bytes()]);
        put(out, field::OBITUARY_HASH, &[&self.obituary_hash]);
        if let Some(ms) = self.health_pass_ms {
            put(out, field::HEALTH_PASS, &[&ms.to_be_bytes()]);
        }
        put(out, field::HIGHEST_TERM, &[&self.highest_term.to_be_bytes()]);
        self.encode_changes(out);
        if let Some(lost) = self.loss {
            put(out, field::LOSS, &[&[lost]]);
        }
        put(out, field::PATHS_HEARD, &[&[self.paths_heard]]);
        self.lease.encode(out);
    }

    /// The fields that only some messages have.
    fn encode_changes(&self, out: &mut Vec<u8>) {
        if let Some(r) = self.release {
            let (remaining, sequence) = (r.remaining_ms.to_be_bytes(), r.sequence.to_be_bytes());
            put(out, field::RELEASE, &[&r.term.to_be_bytes(), &r.successor, &remaining, &sequence]);
        }
        match self.handover {
            None => {}
            Some(Handover::Request { term, id, force, manual }) => {
                let flags = [u8::from(force) | u8::from(manual) << 1];
                let (term, id) = (term.to_be_bytes(), id.to_be_bytes());
                put(out, field::HANDOVER_REQUEST, &[&term, &id, &flags]);
            }
            Some(Handover::Ready { id }) => put(out, field::HANDOVER_READY, &[&id.to_be_bytes()]),
            Some(Handover::Refuse { id, reason }) => {
                put(out, field::HANDOVER_REFUSE, &[&id.to_be_bytes(), &[reason]]);
            }
        }
        if let Some((term, ago_ms)) = self.yielded {
            put(out, field::YIELDED, &[&term.to_be_bytes(), &ago_ms.to_be_bytes()]);
        }
        if self.goodbye {
            put(out, field::GOODBYE, &[]);
        }
        if self.duplicate_name {
            put(out, field::DUPLICATE_NAME, &[]);
        }
        if let Some(o) = self.obituary {
            put(out, field::OBITUARY, &[&o.node, &o.session, &o.secret]);
        }
    }
}
