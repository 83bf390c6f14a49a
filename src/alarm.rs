//! What costs clients their instant return, in words: for log, status and the answer to a handover.

use wgha_proto::Alarm;

/// The alarm about a gateway, in one line.
#[must_use]
pub fn text(name: &str, alarm: Alarm) -> String {
    match alarm {
        Alarm::Clock { offset_ns } => {
            let seconds = offset_ns.unsigned_abs() as f64 / 1e9;
            let way = if offset_ns < 0 { "behind" } else { "ahead" };
            format!(
                "the clock of {name} is {seconds:.1} s {way}: \
                 clients may refuse handshakes that long"
            )
        }
        Alarm::Wireguard => {
            format!("{name} runs another WireGuard: clients refuse handshakes for 27 s")
        }
    }
}

/// The kind of alarm in a word, as in status and metrics.
#[must_use]
pub const fn word(alarm: Alarm) -> &'static str {
    match alarm {
        Alarm::Clock { .. } => "clock",
        Alarm::Wireguard => "wireguard",
    }
}

/// The end of it, in one line.
#[must_use]
pub fn over(name: &str, alarm: Alarm) -> String {
    match alarm {
        Alarm::Clock { .. } => format!("the clock of {name} agrees with this one's again"),
        Alarm::Wireguard => format!("{name} runs the same WireGuard now"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_way_and_how_far() {
        let clock = |offset_ns| text("gw2", Alarm::Clock { offset_ns });
        assert!(clock(-12_040_000_000).contains("gw2 is 12.0 s behind"));
        assert!(clock(1_500_000_000).contains("gw2 is 1.5 s ahead"));
        for line in [clock(i64::MIN), text("gw2", Alarm::Wireguard)] {
            assert!(!line.contains('\n'));
        }
    }
}
