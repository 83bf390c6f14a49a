//! The only place that reads clocks.

use nix::time::{ClockId, clock_gettime};
use wgha_proto::Time;

/// Now, by the clock that the protocol runs on: `CLOCK_BOOTTIME`, which counts suspends.
#[must_use]
pub fn now() -> Time {
    Time::from_nanos(u64::try_from(nanos(ClockId::CLOCK_BOOTTIME)).unwrap_or(0))
}

/// Now, by the wall clock: nanoseconds since 1970.
#[must_use]
pub fn wall() -> i64 {
    nanos(ClockId::CLOCK_REALTIME)
}

fn nanos(clock: ClockId) -> i64 {
    // clock_gettime fails only for an unknown clock or a bad pointer.
    clock_gettime(clock).map_or(0, |t| t.tv_sec() * 1_000_000_000 + t.tv_nsec())
}
