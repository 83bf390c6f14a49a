//! Times as the headers have them. `unix` is in seconds since 1970, UTC.

use std::time::{Duration, SystemTime};

use super::SignError;

const DAY: u64 = 86_400;
/// 1970-01-01 was a Thursday.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `2026-11-22T10:00:00Z` (RFC 3339).
pub(super) fn rfc3339(unix: u64) -> Result<String, SignError> {
    // Year 9999 is the last that can be written.
    const END: u64 = 253_402_300_800;
    if unix >= END {
        return Err(SignError::Time);
    }
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(unix);
    Ok(humantime::format_rfc3339_seconds(at).to_string())
}

/// `2026-11-22`.
pub(super) fn date(unix: u64) -> Result<String, SignError> {
    let mut text = rfc3339(unix)?;
    text.truncate("2026-11-22".len());
    Ok(text)
}

/// `Sun, 22 Nov 2026 10:00:00 GMT` (RFC 9110 §5.6.7).
pub(super) fn http_date(unix: u64) -> Result<String, SignError> {
    let text = rfc3339(unix)?;
    let part = |from: usize, to: usize| text.get(from..to).ok_or(SignError::Time);
    let weekday =
        WEEKDAYS.get(usize::try_from(unix / DAY % 7).unwrap_or(0)).ok_or(SignError::Time)?;
    let month: usize = part(5, 7)?.parse().map_err(|_| SignError::Time)?;
    let month = month.checked_sub(1).and_then(|index| MONTHS.get(index)).ok_or(SignError::Time)?;
    let (day, year, clock) = (part(8, 10)?, part(0, 4)?, part(11, 19)?);
    Ok(format!("{weekday}, {day} {month} {year} {clock} GMT"))
}
