//! The only place that reads clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

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

/// Whole milliseconds, as status and events have them.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock that stamps handshakes, as an offset from the protocol's clock. The embedded
/// WireGuard reads the wall clock when it makes its device and stamps from that ever after; the
/// kernel's reads it each time. Clones share it.
#[derive(Clone, Debug)]
pub struct Stamps(Arc<AtomicI64>);

/// Not frozen: the wall clock itself.
const LIVE: i64 = i64::MIN;

impl Default for Stamps {
    fn default() -> Stamps {
        Stamps(Arc::new(AtomicI64::new(LIVE)))
    }
}

impl Stamps {
    /// Stamps come from a reading of the wall clock: nanoseconds since 1970 minus [`now`]'s.
    pub fn freeze(&self, offset_ns: i64) {
        self.0.store(offset_ns, Ordering::Relaxed);
    }

    /// Nanoseconds since 1970 minus [`now`]'s, by the clock that stamps.
    #[must_use]
    pub fn offset_ns(&self) -> i64 {
        match self.0.load(Ordering::Relaxed) {
            LIVE => wall().saturating_sub_unsigned(now().as_nanos()),
            frozen => frozen,
        }
    }
}

fn nanos(clock: ClockId) -> i64 {
    // clock_gettime fails only for an unknown clock or a bad pointer.
    clock_gettime(clock).map_or(0, |t| t.tv_sec() * 1_000_000_000 + t.tv_nsec())
}
