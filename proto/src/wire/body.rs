//! The body of a datagram: fields of type, length and value, numbers big endian.
//!
//! A type that is not known here is skipped, so that newer nodes may say more. A known type that
//! comes twice, is cut off, has another length or a value out of range, or is missing where it is
//! required, makes the whole datagram malformed: half an understood state is none.

use std::time::Duration;

use super::Tag;
use crate::api::{Role, WireguardKind};
use crate::fingerprint::Printer;

mod decode;
mod encode;
mod field;
mod lease;
mod value;

pub(crate) use lease::{Ask, Grant, Held, LeaseFields, Refuse};

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
    pub(crate) lease: LeaseFields,
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

    /// What is looked at again after the message was read.
    pub(crate) fn print(&self, p: &mut Printer) {
        let Flags { healthy, maintenance, ready, leaving, settled } = self.flags;
        p.put((self.role, self.priority, self.interval_us, self.misses));
        p.put((healthy, maintenance, ready, leaving, settled));
        p.put(self.hears.map(|hears| (hears.node, hears.term)));
        p.length(Duration::from_millis(self.hears.map_or(0, |hears| hears.age_ms.into())));
        p.put((self.evidence as u8, self.fingerprint, self.wireguard));
        p.put((self.lease.held.map(|held| held.term), self.lease.voters, self.lease.pending));
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
            lease: LeaseFields::default(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
