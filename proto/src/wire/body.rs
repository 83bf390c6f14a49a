//! The body of a datagram: fields of type, length and value, numbers big endian.
//!
//! A type that is not known here is skipped, so that newer nodes may say more. A known type that
//! comes twice, is cut off, has another length or a value out of range, or is missing where it is
//! required, makes the whole datagram malformed: half an understood state is none.

use super::{Tag, array};
use crate::api::{Role, WireguardKind};
use value::{
    exact, nonzero, put, role_byte, role_of, tail_u32, u8_of, u64_of, wireguard_byte, wireguard_of,
};

mod value;

/// Types of fields. Numbers 32..=38 are reserved for leases; their layout is in docs/protocol.md.
mod field {
    pub(super) const NUMBER: u8 = 1;
    pub(super) const ECHO: u8 = 2;
    pub(super) const ROLE: u8 = 3;
    pub(super) const PRIORITY: u8 = 4;
    pub(super) const FLAGS: u8 = 5;
    pub(super) const TIMING: u8 = 6;
    pub(super) const FINGERPRINT: u8 = 7;
    pub(super) const WIREGUARD: u8 = 8;
    pub(super) const CLOCK: u8 = 9;
    pub(super) const HEARS: u8 = 10;
    pub(super) const EVIDENCE: u8 = 11;
    pub(super) const OBITUARY_HASH: u8 = 12;
    pub(super) const HEALTH_PASS: u8 = 13;
    pub(super) const HIGHEST_TERM: u8 = 14;
    pub(super) const RELEASE: u8 = 15;
    pub(super) const HANDOVER_REQUEST: u8 = 16;
    pub(super) const HANDOVER_READY: u8 = 17;
    pub(super) const HANDOVER_REFUSE: u8 = 18;
    pub(super) const YIELDED: u8 = 19;
    pub(super) const GOODBYE: u8 = 20;
    pub(super) const DUPLICATE_NAME: u8 = 21;
    pub(super) const OBITUARY: u8 = 22;
    pub(super) const LOSS: u8 = 23;
    pub(super) const PATHS_HEARD: u8 = 24;

    /// Without one of these there is no heartbeat.
    pub(super) const REQUIRED: [u8; 12] = [
        NUMBER,
        ROLE,
        PRIORITY,
        FLAGS,
        TIMING,
        FINGERPRINT,
        WIREGUARD,
        CLOCK,
        EVIDENCE,
        OBITUARY_HASH,
        HIGHEST_TERM,
        PATHS_HEARD,
    ];
}

/// "The newest message of yours that I have", and for how long I have had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Echo {
    pub(crate) session: [u8; 16],
    pub(crate) number: u64,
    /// Microseconds from its receipt to the sending of this echo.
    pub(crate) age_us: u32,
}

/// "The master that I hear."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hears {
    pub(crate) node: Tag,
    pub(crate) term: u64,
    /// Milliseconds since its last timely claim; 0 if it is the sender itself.
    pub(crate) age_ms: u32,
}

/// Outside evidence, as the sender has it about the time since it last lost the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EvidenceKind {
    /// It has nothing to ask.
    NoSource,
    /// Something outside answered a probe sent since then.
    Answered,
    /// Nothing did.
    Silent,
}

/// "I am master no longer": said only after all effects are off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    pub(crate) term: u64,
    /// Who may act at once; zeros: whoever is the best candidate.
    pub(crate) successor: Tag,
    /// How long the successor is preferred to others, ms.
    pub(crate) remaining_ms: u32,
    /// Grows with every release of a session.
    pub(crate) sequence: u32,
}

/// One step of a handover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handover {
    /// From the master: "can you take over?"
    Request { term: u64, id: u32, force: bool, manual: bool },
    /// From the successor-to-be.
    Ready { id: u32 },
    /// From the one asked; the reason is a [`crate::handover::Objection`] by number.
    Refuse { id: u32, reason: u8 },
}

/// Bits of the flags field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) healthy: bool,
    pub(crate) maintenance: bool,
    pub(crate) ready: bool,
    /// Claims the role still, but is about to give it up: effects are being taken off.
    pub(crate) leaving: bool,
    /// Past `init` for at least its detection time, so its word about the cluster has weight.
    pub(crate) settled: bool,
}

/// Whoever shows the secret whose hash a session announced ends that session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Obituary {
    pub(crate) node: Tag,
    pub(crate) session: [u8; 16],
    pub(crate) secret: [u8; 32],
}

/// A heartbeat, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    /// Grows with every message of this session to this receiver; the same on all paths.
    pub(crate) number: u64,
    pub(crate) echo: Option<Echo>,
    pub(crate) role: Role,
    /// The term held if the role is master, else 0.
    pub(crate) term: u64,
    pub(crate) priority: u8,
    pub(crate) flags: Flags,
    pub(crate) interval_us: u32,
    pub(crate) misses: u8,
    pub(crate) fingerprint: [u8; 16],
    pub(crate) wireguard: WireguardKind,
    /// When this was sent, ns of the sender's monotonic clock.
    pub(crate) sent_ns: u64,
    /// When this was sent, ns since 1970 by the clock that stamps the sender's handshakes.
    pub(crate) wall_ns: i64,
    pub(crate) hears: Option<Hears>,
    pub(crate) evidence: EvidenceKind,
    /// Milliseconds since the probe that the evidence is about; 0 without.
    pub(crate) evidence_age_ms: u32,
    pub(crate) obituary_hash: [u8; 32],
    /// Milliseconds since the last successful pass of all checks began.
    pub(crate) health_pass_ms: Option<u32>,
    pub(crate) highest_term: u64,
    pub(crate) release: Option<Release>,
    pub(crate) handover: Option<Handover>,
    /// The term that I gave up because another master stays, and how many ms ago.
    pub(crate) yielded: Option<(u64, u32)>,
    pub(crate) goodbye: bool,
    pub(crate) duplicate_name: bool,
    pub(crate) obituary: Option<Obituary>,
    /// How many of the receiver's last 64 datagrams did not arrive, on the best path.
    pub(crate) loss: Option<u8>,
    /// Bit i: your path i reached me within my detection time.
    pub(crate) paths_heard: u8,
}

/// Whether two config fingerprints agree: a witness knows nothing of WireGuard, so its second half
/// is zero and agrees with all.
pub(crate) fn same_config(a: &[u8; 16], b: &[u8; 16]) -> bool {
    let ((a_cluster, a_gateway), (b_cluster, b_gateway)) = (a.split_at(8), b.split_at(8));
    let unknown = [0; 8];
    a_cluster == b_cluster
        && (a_gateway == b_gateway || a_gateway == unknown || b_gateway == unknown)
}

impl Body {
    /// Whether something outside answered its sender since it last lost me.
    pub(crate) fn has_evidence(&self) -> bool {
        self.evidence == EvidenceKind::Answered
    }

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

    /// Reads a body; `None` if it is malformed.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Body> {
        let mut body = Body::blank();
        // One bit for each known type: all are below 64.
        let mut seen = 0_u64;
        while let [kind, len, rest @ ..] = bytes {
            let (value, rest) = rest.split_at_checked(usize::from(*len))?;
            bytes = rest;
            if body.read(*kind, value)? {
                let bit = 1_u64.checked_shl(u32::from(*kind))?;
                if seen & bit != 0 {
                    return None;
                }
                seen |= bit;
            }
        }
        let complete = field::REQUIRED.iter().all(|kind| seen & (1 << kind) != 0);
        // A term belongs to a master, and a master to a term.
        let consistent = (body.role == Role::Master) == (body.term > 0);
        (bytes.is_empty() && complete && consistent).then_some(body)
    }

    /// Takes one field; `Some(false)` if its type is not known, `None` if it is malformed.
    fn read(&mut self, kind: u8, v: &[u8]) -> Option<bool> {
        match kind {
            field::NUMBER => self.number = nonzero(u64_of(v)?)?,
            field::ECHO => {
                let number = u64::from_be_bytes(array(v, 16)?);
                self.echo = Some(Echo { session: array(v, 0)?, number, age_us: tail_u32(v, 24)? });
            }
            field::ROLE => {
                self.role = role_of(*v.first()?)?;
                self.term = u64_of(v.get(1..)?)?;
            }
            field::PRIORITY => self.priority = u8_of(v)?,
            field::FLAGS => self.flags = Flags::of(u8_of(v)?),
            field::TIMING => {
                self.interval_us = u32::from_be_bytes(array(v, 0)?);
                self.misses = u8_of(v.get(4..)?)?;
                // 10 ms ..= 10 s, 2 ..= 255: else a peer could stretch my timers at will.
                if !(10_000..=10_000_000).contains(&self.interval_us) || self.misses < 2 {
                    return None;
                }
            }
            field::FINGERPRINT => self.fingerprint = exact(v)?,
            field::WIREGUARD => self.wireguard = wireguard_of(u8_of(v)?)?,
            field::CLOCK => {
                self.sent_ns = u64::from_be_bytes(array(v, 0)?);
                self.wall_ns = i64::from_be_bytes(exact(v.get(8..)?)?);
            }
            field::HEARS => {
                let term = u64::from_be_bytes(array(v, 8)?);
                self.hears = Some(Hears { node: array(v, 0)?, term, age_ms: tail_u32(v, 16)? });
            }
            field::EVIDENCE => {
                self.evidence = EvidenceKind::of(*v.first()?)?;
                self.evidence_age_ms = tail_u32(v, 1)?;
            }
            field::OBITUARY_HASH => self.obituary_hash = exact(v)?,
            field::HEALTH_PASS => self.health_pass_ms = Some(u32::from_be_bytes(exact(v)?)),
            field::HIGHEST_TERM => self.highest_term = u64_of(v)?,
            field::LOSS => self.loss = Some(u8_of(v).filter(|lost| *lost <= 64)?),
            field::PATHS_HEARD => self.paths_heard = u8_of(v)?,
            _ => return self.read_change(kind, v),
        }
        Some(true)
    }

    /// The rest of [`Body::read`]: the fields that only some messages have.
    fn read_change(&mut self, kind: u8, v: &[u8]) -> Option<bool> {
        match kind {
            field::RELEASE => {
                self.release = Some(Release {
                    term: nonzero(u64::from_be_bytes(array(v, 0)?))?,
                    successor: array(v, 8)?,
                    remaining_ms: u32::from_be_bytes(array(v, 16)?),
                    sequence: tail_u32(v, 20)?,
                });
            }
            field::HANDOVER_REQUEST => {
                let id = u32::from_be_bytes(array(v, 8)?);
                let flags = u8_of(v.get(12..)?)?;
                let (force, manual) = (flags & 1 != 0, flags & 2 != 0);
                let term = nonzero(u64::from_be_bytes(array(v, 0)?))?;
                self.set_handover(Handover::Request { term, id, force, manual })?;
            }
            field::HANDOVER_READY => self.set_handover(Handover::Ready { id: tail_u32(v, 0)? })?,
            field::HANDOVER_REFUSE => {
                let id = u32::from_be_bytes(array(v, 0)?);
                self.set_handover(Handover::Refuse { id, reason: u8_of(v.get(4..)?)? })?;
            }
            field::YIELDED => {
                let term = nonzero(u64::from_be_bytes(array(v, 0)?))?;
                self.yielded = Some((term, tail_u32(v, 8)?));
            }
            field::GOODBYE if v.is_empty() => self.goodbye = true,
            field::DUPLICATE_NAME if v.is_empty() => self.duplicate_name = true,
            field::GOODBYE | field::DUPLICATE_NAME => return None,
            field::OBITUARY => {
                let secret = exact(v.get(24..)?)?;
                self.obituary =
                    Some(Obituary { node: array(v, 0)?, session: array(v, 8)?, secret });
            }
            // Said by a newer version.
            _ => return Some(false),
        }
        Some(true)
    }

    /// A message carries at most one step of a handover.
    fn set_handover(&mut self, step: Handover) -> Option<()> {
        self.handover.replace(step).is_none().then_some(())
    }

    /// A body in which nothing has been said yet.
    pub(crate) fn blank() -> Body {
        Body {
            number: 0,
            echo: None,
            role: Role::Init,
            term: 0,
            priority: 0,
            flags: Flags::default(),
            interval_us: 0,
            misses: 0,
            fingerprint: [0; 16],
            wireguard: WireguardKind::None,
            sent_ns: 0,
            wall_ns: 0,
            hears: None,
            evidence: EvidenceKind::NoSource,
            evidence_age_ms: 0,
            obituary_hash: [0; 32],
            health_pass_ms: None,
            highest_term: 0,
            release: None,
            handover: None,
            yielded: None,
            goodbye: false,
            duplicate_name: false,
            obituary: None,
            loss: None,
            paths_heard: 0,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
