//! Is a datagram new, and is it of now? Without any clock that two nodes share.
//!
//! *New*: its counter was not seen before on this path in this session ([`Window`]). *Timely*: it
//! echoes a message that I sent within the detection time ([`SendLog`]), so it was made after that.

use std::collections::VecDeque;
use std::time::Duration;

use crate::fingerprint::Printer;
use crate::time::Time;
use crate::wire::MAX_PATHS;

/// Messages to one peer whose sending times are kept. At 10 ms heartbeats with 255 misses and
/// changes between them that is a whole detection time; beyond it, an echo just is not timely.
const LOG_LEN: usize = 1024;

/// How far ahead of the newest counter the next one is looked for: minutes of heartbeats. Whoever was away for longer is heard as soon
/// as one of its datagrams is opened.
const AHEAD: u64 = 1024;

/// Which counters were seen: the newest and the 63 before it (the scheme of RFC 6479 and RFC 4303 §3.4.3,
/// with one word).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    newest: u64,
    /// The first counter: what came before it was not for this window to see.
    first: u64,
    /// Bit i: counter `newest - i` was seen.
    seen: u64,
}

impl Window {
    /// Whether this counter was not seen and is not too old to tell. Counters start at 1.
    pub(crate) fn is_new(self, counter: u64) -> bool {
        if counter > self.newest {
            return true;
        }
        let age = self.newest - counter;
        counter != 0 && age < 64 && self.seen & (1 << age) == 0
    }

    /// Notes that this counter was seen.
    pub(crate) fn mark(&mut self, counter: u64) {
        if self.newest == 0 {
            self.first = counter;
        }
        if counter > self.newest {
            let ahead = u32::try_from(counter - self.newest).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.newest = counter;
        } else if let Some(bit) = bit(self.newest - counter) {
            self.seen |= bit;
        }
    }

    /// How many of the last 64 counters did not arrive; `None` before the first.
    pub(crate) fn lost(self) -> Option<u8> {
        let expected = (self.newest - self.first).saturating_add(1).min(64);
        let arrived = u64::from(self.seen.count_ones());
        (self.newest > 0).then(|| u8::try_from(expected.saturating_sub(arrived)).unwrap_or(64))
    }
}

fn bit(age: u64) -> Option<u64> {
    1_u64.checked_shl(u32::try_from(age).ok()?)
}

/// What I keep about one run of a peer's process.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: [u8; 16],
    windows: [Window; MAX_PATHS as usize],
    /// The newest message number and when it arrived: what I echo.
    pub(crate) newest: u64,
    pub(crate) newest_at: Time,
}

impl Session {
    pub(crate) fn new(id: [u8; 16]) -> Session {
        Session { id, windows: Default::default(), newest: 0, newest_at: Time::ZERO }
    }

    pub(crate) fn is_new(&self, path: u8, counter: u64) -> bool {
        self.windows.get(usize::from(path)).is_some_and(|window| window.is_new(counter))
    }

    /// Whether this counter can be the next on its path: new, and no further ahead than what may have been lost.
    pub(crate) fn is_next(&self, path: u8, counter: u64) -> bool {
        let window = self.windows.get(usize::from(path));
        window.is_some_and(|w| w.is_new(counter) && counter <= w.newest.saturating_add(AHEAD))
    }

    pub(crate) fn mark(&mut self, path: u8, counter: u64) {
        if let Some(window) = self.windows.get_mut(usize::from(path)) {
            window.mark(counter);
        }
    }

    /// Notes the message number; whether it is the newest so far.
    pub(crate) fn advance(&mut self, number: u64, now: Time) -> bool {
        let newer = number > self.newest;
        if newer {
            self.newest = number;
            self.newest_at = now;
        }
        newer
    }

    /// Lost datagrams of the last 64 on the path that lost least.
    pub(crate) fn lost(&self) -> Option<u8> {
        self.windows.iter().filter_map(|window| window.lost()).min()
    }
}

/// When I sent which message to one peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct SendLog {
    last: u64,
    /// (number, when), oldest first, at most [`LOG_LEN`].
    sent: VecDeque<(u64, Time)>,
}

/// What an echo of one of my messages says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EchoOf {
    /// A message that I sent at this time, no longer ago than asked.
    Recent(Time),
    /// An older one, or none.
    Stale,
    /// One that I never sent.
    NeverSent,
}

impl SendLog {
    /// The number of the message that is sent now.
    pub(crate) fn next(&mut self, now: Time) -> u64 {
        self.last += 1;
        if self.sent.len() >= LOG_LEN {
            self.sent.pop_front();
        }
        self.sent.push_back((self.last, now));
        self.last
    }

    /// The number of the last message.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The messages of which an echo still counts, from the last back.
    pub(crate) fn print(&self, p: &mut Printer, now: Time, within: Duration) {
        let recent = self.sent.iter().rev().take_while(|(_, at)| now.since(*at) <= within);
        for (number, at) in recent {
            p.put(self.last - number);
            p.at(*at);
        }
    }

    /// What an echo of message `number` is worth, if one of `within` ago still counts.
    pub(crate) fn echo_of(&self, number: u64, now: Time, within: Duration) -> EchoOf {
        if number > self.last {
            return EchoOf::NeverSent;
        }
        match self.sent.binary_search_by_key(&number, |(n, _)| *n) {
            Ok(i) => match self.sent.get(i) {
                Some((_, at)) if now.since(*at) <= within => EchoOf::Recent(*at),
                _ => EchoOf::Stale,
            },
            Err(_) => EchoOf::Stale,
        }
    }
}

/// A peer's wall clock minus mine, from its stamps, as NTP does it (RFC 5905 §10): of the last
/// samples the one with the shortest round trip errs least.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClockFilter {
    /// (round trip, offset in ns), oldest first, at most 8.
    samples: VecDeque<(Duration, i64)>,
}

impl ClockFilter {
    pub(crate) fn add(&mut self, rtt: Duration, offset_ns: i64) {
        if self.samples.len() >= 8 {
            self.samples.pop_front();
        }
        self.samples.push_back((rtt, offset_ns));
    }

    pub(crate) fn offset_ns(&self) -> Option<i64> {
        self.samples.iter().min_by_key(|(rtt, _)| *rtt).map(|(_, offset)| *offset)
    }
}

/// From this offset on clients refuse handshakes of the gateway whose clock is behind, for as long.
const APART_NS: u64 = 1_000_000_000;
/// Below this one it is over; between the two nothing changes.
const TOGETHER_NS: u64 = 800_000_000;

/// Whether two clocks are too far apart.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClockWatch {
    pub(crate) apart: bool,
}

impl ClockWatch {
    /// Looks at an offset; true if the answer is another one now.
    pub(crate) fn look(&mut self, offset_ns: i64) -> bool {
        let apart = match offset_ns.unsigned_abs() {
            APART_NS.. => true,
            TOGETHER_NS.. => self.apart,
            _ => false,
        };
        std::mem::replace(&mut self.apart, apart) != apart
    }
}

#[cfg(test)]
mod tests;
