//! Values of fields: between types and bytes.

use super::{EvidenceKind, Flags};
use crate::api::{Role, WireguardKind};

impl Flags {
    pub(super) fn byte(self) -> u8 {
        u8::from(self.healthy)
            | u8::from(self.maintenance) << 1
            | u8::from(self.ready) << 2
            | u8::from(self.leaving) << 3
            | u8::from(self.settled) << 4
    }

    /// Bits that are not known are ignored: a newer version says more.
    pub(super) fn of(byte: u8) -> Flags {
        Flags {
            healthy: byte & 1 != 0,
            maintenance: byte & 2 != 0,
            ready: byte & 4 != 0,
            leaving: byte & 8 != 0,
            settled: byte & 16 != 0,
        }
    }
}

impl EvidenceKind {
    pub(super) fn byte(self) -> u8 {
        match self {
            EvidenceKind::NoSource => 0,
            EvidenceKind::Answered => 1,
            EvidenceKind::Silent => 2,
        }
    }

    pub(super) fn of(byte: u8) -> Option<EvidenceKind> {
        match byte {
            0 => Some(EvidenceKind::NoSource),
            1 => Some(EvidenceKind::Answered),
            2 => Some(EvidenceKind::Silent),
            _ => None,
        }
    }
}

pub(super) fn role_byte(role: Role) -> u8 {
    match role {
        Role::Init => 0,
        Role::Backup => 1,
        Role::Master => 2,
        Role::Fault => 3,
    }
}

pub(super) fn role_of(byte: u8) -> Option<Role> {
    match byte {
        0 => Some(Role::Init),
        1 => Some(Role::Backup),
        2 => Some(Role::Master),
        3 => Some(Role::Fault),
        _ => None,
    }
}

pub(super) fn wireguard_byte(kind: WireguardKind) -> u8 {
    match kind {
        WireguardKind::None => 0,
        WireguardKind::Kernel => 1,
        WireguardKind::Embedded => 2,
    }
}

pub(super) fn wireguard_of(byte: u8) -> Option<WireguardKind> {
    match byte {
        0 => Some(WireguardKind::None),
        1 => Some(WireguardKind::Kernel),
        2 => Some(WireguardKind::Embedded),
        _ => None,
    }
}

/// Appends one field. All values are far shorter than 255 bytes.
pub(super) fn put(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&[kind, u8::try_from(len).unwrap_or(u8::MAX)]);
    for part in parts {
        out.extend_from_slice(part);
    }
}

pub(super) fn exact<const N: usize>(v: &[u8]) -> Option<[u8; N]> {
    v.try_into().ok()
}

pub(super) fn u8_of(v: &[u8]) -> Option<u8> {
    exact::<1>(v).map(|[byte]| byte)
}

pub(super) fn u64_of(v: &[u8]) -> Option<u64> {
    exact(v).map(u64::from_be_bytes)
}

/// The last four bytes of a value, from offset `at` to its end.
pub(super) fn tail_u32(v: &[u8], at: usize) -> Option<u32> {
    exact(v.get(at..)?).map(u32::from_be_bytes)
}

pub(super) fn nonzero(n: u64) -> Option<u64> {
    (n != 0).then_some(n)
}
