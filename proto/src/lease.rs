//! Leases: a majority's permission to be master until a time. Pure state machines, time as argument.
//!
//! ```text
//!   candidate / holder                       voter
//!     │ ask(term) in a heartbeat ────────────► │  no live grant to another, timely, same voters,
//!     │                                        │  term not below the highest granted?
//!     │ ◄───────────── grant(ask, duration)    │  bound to this session until receipt + L
//!     │   or refuse(remaining)                 │
//!     ▼
//!   part of this voter = sending of exactly that ask + min(L, duration)
//!   lease = the k-th latest part; acts only before lease − M
//! ```
//!
//! L is the detection time. Clock rates of two nodes may each be wrong by 1 % (ρ); M = 2.5 ρ L + the time
//! that the effects need to go off. docs/protocol.md §11 has the rules and their reasons.

use std::time::Duration;

pub(crate) mod candidate;
pub(crate) mod holder;
pub(crate) mod set;
pub(crate) mod voter;

/// The longest lease that a config may ask for: a voter that lost its memory abstains for that long.
pub const LONGEST_LEASE: Duration = Duration::from_secs(30);

/// The shortest time that effects are given to go off after the permission ends.
pub const LEAST_REACTION: Duration = Duration::from_millis(20);

/// M: how long before the end of its lease a holder stops to act. `reaction`: the time its effects need to go off, taken
/// for [`LEAST_REACTION`] if it is less.
#[must_use]
pub fn margin(lease: Duration, reaction: Duration) -> Duration {
    drift(lease) + reaction.max(LEAST_REACTION)
}

/// A session of a node: one run of its process.
pub(crate) type SessionId = [u8; 16];

/// What two clocks may differ by over a duration that is handed from one to the other: 2.5 ρ.
pub(crate) fn drift(duration: Duration) -> Duration {
    duration / 40
}

/// How long a voter that may have granted `longest` abstains after its start: × (1 + 2 ρ).
pub(crate) fn abstention(longest: Duration) -> Duration {
    longest + longest / 50
}

/// The durations of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// L: how long a grant binds its voter.
    pub(crate) lease: Duration,
    /// M: how long before the end of its lease a holder stops to act.
    pub(crate) margin: Duration,
    /// I.
    pub(crate) interval: Duration,
}

impl Timing {
    /// Of a detection time and the bound for effects to go off.
    pub(crate) fn new(detection: Duration, interval: Duration, reaction: Duration) -> Timing {
        Timing { lease: detection, margin: margin(detection, reaction), interval }
    }
}
