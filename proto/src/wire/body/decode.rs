//! From bytes to a body, or nothing: what is half understood is not believed.

use super::super::array;
use super::value::{exact, nonzero, role_of, tail_u32, u8_of, u64_of, wireguard_of};
use super::{Body, Echo, EvidenceKind, Flags, Handover, Hears, Obituary, Release, field};
use crate::api::Role;

impl Body {
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
            _ => return self.lease.read(kind, v),
        }
        Some(true)
    }

    /// A message carries at most one step of a handover.
    fn set_handover(&mut self, step: Handover) -> Option<()> {
        self.handover.replace(step).is_none().then_some(())
    }
}
