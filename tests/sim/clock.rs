//! A node's own clock: its own zero, its own rate.

use wgha_proto::Time;

use crate::options::{Nanos, RATE_PPM};
use crate::rng::Rng;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    offset: Nanos,
    /// Parts per million faster than the world.
    ppm: i64,
}

impl Clock {
    pub(crate) fn draw(rng: &mut Rng) -> Clock {
        let span = RATE_PPM * 2;
        Clock {
            offset: rng.below(1_000_000_000_000),
            ppm: rng.within(0, span) as i64 - RATE_PPM as i64,
        }
    }

    /// The same zero, another rate: what a broken clock does.
    pub(crate) fn with_ppm(self, ppm: i64) -> Clock {
        Clock { ppm, ..self }
    }

    pub(crate) fn local(self, world: Nanos) -> Time {
        let drift = i128::from(world) * i128::from(self.ppm) / 1_000_000;
        Time::from_nanos((i128::from(self.offset) + i128::from(world) + drift) as u64)
    }

    /// The first instant of the world at which this clock shows at least `local`.
    pub(crate) fn world(self, local: Time) -> Nanos {
        let since = i128::from(local.as_nanos()) - i128::from(self.offset);
        if since <= 0 {
            return 0;
        }
        let world = since * 1_000_000 / (1_000_000 + i128::from(self.ppm)) + 2;
        u64::try_from(world).unwrap_or(u64::MAX)
    }
}
