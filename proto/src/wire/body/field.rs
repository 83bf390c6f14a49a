//! Types of fields (docs/protocol.md §4).

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
pub(super) const ASK: u8 = 32;
pub(super) const GRANT: u8 = 33;
pub(super) const REFUSE: u8 = 34;
pub(super) const WITHDRAW: u8 = 35;
pub(super) const LEASE: u8 = 36;
pub(super) const VOTERS: u8 = 37;
pub(super) const VOTERS_PENDING: u8 = 38;

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
