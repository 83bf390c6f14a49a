//! What a prober measured.

use std::fmt;
use std::time::Duration;

/// One probe. Times are CLOCK_REALTIME in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Read just before it was sent.
    pub sent: u64,
    /// How long after its time on the schedule.
    pub lateness_ns: u64,
    /// The kernel's stamp of the first answer; `None` when there was none.
    pub received: Option<u64>,
}

/// All probes of a run, by send time.
#[derive(Debug, Clone, Default)]
pub struct Probes {
    /// In order of sending.
    pub probes: Vec<Probe>,
}

/// Percentiles of a set of durations, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentiles {
    /// Half are at most this.
    pub median: u64,
    /// 99 of 100 are at most this.
    pub p99: u64,
    /// The largest.
    pub max: u64,
}

/// An outage beside the noise of the same prober.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// Longest time between two answered probes around and after the fault, by send time; `None`: no answer came any more.
    pub outage: Option<Duration>,
    /// Send time of the last probe answered before the outage.
    pub last_before: u64,
    /// Send time of the first probe answered after it.
    pub first_after: Option<u64>,
    /// The same figure over a window of equal length, before the fault or after `until`, in which nothing happened;
    /// `None` when the probes do not cover one.
    pub noise: Option<Duration>,
    /// Unanswered probes sent since the fault.
    pub lost: usize,
}

impl Probes {
    /// The outage that a fault at `fault` (CLOCK_REALTIME, ns) made, looking at probes sent until `until`.
    ///
    /// It begins at the last probe answered before and ends at the first answered after, by send time. A
    /// fault may take effect late (a handover), so the longest such gap after `fault` counts. `None`
    /// when no probe was answered before the fault.
    pub fn outage(&self, fault: u64, until: u64) -> Option<Outage> {
        let (last_before, first_after) = self.outlasting(fault, until)?;
        let quiet = self.quiet_window(fault, until).and_then(|(a, b)| self.longest_gap(a + 1, b));
        let in_window = self.probes.iter().filter(|p| (fault..=until).contains(&p.sent));
        Some(Outage {
            outage: first_after.map(|after| Duration::from_nanos(after - last_before)),
            last_before,
            first_after,
            noise: quiet.and_then(|(a, b)| b.map(|b| Duration::from_nanos(b - a))),
            lost: in_window.filter(|p| p.received.is_none()).count(),
        })
    }

    /// [`Probes::longest_gap`], or the one in which `until` is, if that is longer: to its end.
    fn outlasting(&self, from: u64, until: u64) -> Option<(u64, Option<u64>)> {
        let (begin, end) = self.longest_gap(from, until)?;
        let answered = || self.probes.iter().filter(|p| p.received.is_some()).map(|p| p.sent);
        let last = answered().rfind(|sent| *sent <= until)?;
        let next = answered().find(|sent| *sent > until);
        let longer = |next: &u64| end.is_some_and(|end| next - last > end - begin);
        Some(next.filter(longer).map_or((begin, end), |next| (last, Some(next))))
    }

    /// A window as long as the one of the fault, just before it or just after.
    fn quiet_window(&self, fault: u64, until: u64) -> Option<(u64, u64)> {
        let window = until.saturating_sub(fault);
        let (first, last) = (self.probes.first()?.sent, self.probes.last()?.sent);
        if first <= fault.saturating_sub(window) {
            return Some((fault.saturating_sub(window), fault));
        }
        (last >= until + window).then_some((until, until + window))
    }

    /// Longest gap between neighbouring answered probes of which the second, if any, was sent in `from..=until`.
    /// When none is answered at the end, that is the gap.
    fn longest_gap(&self, from: u64, until: u64) -> Option<(u64, Option<u64>)> {
        let answered: Vec<u64> = self
            .probes
            .iter()
            .filter(|p| p.received.is_some() && p.sent <= until)
            .map(|p| p.sent)
            .collect();
        let start = answered.partition_point(|&sent| sent < from).checked_sub(1)?;
        let answered = answered.get(start..)?;
        let &last = answered.last()?;
        let tail = until.saturating_sub(last);
        let longest = answered.array_windows().max_by_key(|[a, b]| b - a).copied();
        match longest {
            Some([a, b]) if b - a >= tail || self.answered_after(until) => Some((a, Some(b))),
            _ => Some((last, None)),
        }
    }

    fn answered_after(&self, until: u64) -> bool {
        self.probes.iter().rev().take_while(|p| p.sent > until).any(|p| p.received.is_some())
    }

    /// How late the sender was.
    pub fn lateness(&self) -> Option<Percentiles> {
        percentiles(self.probes.iter().map(|p| p.lateness_ns))
    }

    /// Round trips of answered probes.
    pub fn round_trips(&self) -> Option<Percentiles> {
        percentiles(self.probes.iter().filter_map(|p| Some(p.received?.saturating_sub(p.sent))))
    }

    /// Number of unanswered probes.
    pub fn lost(&self) -> usize {
        self.probes.iter().filter(|p| p.received.is_none()).count()
    }
}

fn percentiles(values: impl Iterator<Item = u64>) -> Option<Percentiles> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    let at = |percent: usize| {
        values.get((values.len().checked_sub(1)? * percent).div_ceil(100)).copied()
    };
    Some(Percentiles { median: at(50)?, p99: at(99)?, max: at(100)? })
}

/// Milliseconds with one digit.
pub(crate) fn ms(ns: u64) -> String {
    format!("{}.{} ms", ns / 1_000_000, ns / 100_000 % 10)
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "median {}, p99 {}, max {}", ms(self.median), ms(self.p99), ms(self.max))
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |d: Option<Duration>| {
            d.map_or_else(
                || "unknown".to_owned(),
                |d| ms(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
            )
        };
        match self.outage {
            Some(_) => write!(f, "outage {}", text(self.outage))?,
            None => write!(f, "no answer any more")?,
        }
        write!(f, " ({} probes lost; noise floor {})", self.lost, text(self.noise))
    }
}

#[cfg(test)]
#[path = "report/tests.rs"]
mod tests;
