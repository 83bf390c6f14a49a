//! Who did what when, from several sources, in one order.

use std::fmt::Write as _;

use crate::report::ms;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// CLOCK_REALTIME in nanoseconds.
    pub at: u64,
    /// The node that did or saw it; `lab` for what the lab did.
    pub node: String,
    /// In words.
    pub what: String,
}

impl Event {
    /// Something that happens now.
    pub fn now(node: &str, what: impl Into<String>) -> Self {
        Self { at: crate::sys::realtime_ns(), node: node.to_owned(), what: what.into() }
    }
}

/// Events by time.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    events: Vec<Event>,
}

impl Timeline {
    /// Adds events of one source.
    pub fn add(&mut self, events: impl IntoIterator<Item = Event>) {
        self.events.extend(events);
        self.events.sort();
    }

    /// Those in a window of CLOCK_REALTIME, ns.
    pub fn between(&self, from: u64, until: u64) -> Vec<Event> {
        self.events.iter().filter(|e| (from..=until).contains(&e.at)).cloned().collect()
    }

    /// Lines with times relative to `zero`.
    pub fn text(&self, zero: u64, from: u64, until: u64) -> String {
        let mut text = String::new();
        for event in self.between(from, until) {
            let (sign, distance) =
                if event.at < zero { ('-', zero - event.at) } else { ('+', event.at - zero) };
            let _ =
                writeln!(text, "  {sign}{:>11}  {:<8} {}", ms(distance), event.node, event.what);
        }
        text
    }
}

/// Nanoseconds since 1970 of an RFC 3339 time in UTC (`2026-11-22T01:02:03.004Z`).
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut clock = clock.splitn(3, ':').map(str::parse::<u64>);
    let (h, m, s) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970-01-01, counting years from March so that the leap day is the last.
    let (y, mp) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (mp * 153 + 2) / 5 + day - 1 - 719_468;
    let nanos: u64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some((((days * 24 + h) * 60 + m) * 60 + s) * 1_000_000_000 + nanos)
}

/// The stamp at the start of a line in a [`Process`](crate::Process) log, and the rest.
pub(crate) fn stamped(line: &str) -> Option<(u64, &str)> {
    let (stamp, rest) = line.split_once(' ')?;
    let (seconds, micros) = stamp.split_once('.')?;
    Some((seconds.parse::<u64>().ok()? * 1_000_000_000 + micros.parse::<u64>().ok()? * 1000, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(parse_rfc3339("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_rfc3339("2000-02-29T12:34:56.789Z"), Some(951_827_696_789_000_000));
        assert_eq!(parse_rfc3339("2026-11-22T00:00:00.5Z"), Some(1_795_305_600_500_000_000));
        for bad in ["", "2026-11-22", "2026-13-01T00:00:00Z", "2026-11-22T00:00:00+01:00"] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
        assert_eq!(stamped("12.000345 hello you"), Some((12_000_345_000, "hello you")));
    }

    #[test]
    fn text_is_in_order_and_relative() {
        let event = |at, what: &str| Event { at, node: "gw1".into(), what: what.into() };
        let mut line = Timeline::default();
        line.add([event(3_500_000, "late"), event(500_000, "early")]);
        line.add([event(9_000_000, "outside")]);
        let text = line.text(1_000_000, 0, 5_000_000);
        assert!(text.find("early") < text.find("late") && !text.contains("outside"), "{text}");
        assert!(text.contains("-     0.5 ms") && text.contains("+     2.5 ms"), "{text}");
    }
}
