//! The HTTP listener itself.

use std::fmt;

use super::{Families, label};
use crate::http::counts::Counts;

pub(super) fn write(families: &mut Families<'_>, counts: &Counts) -> fmt::Result {
    families.gauge("http_connections", "Connections to this page's listener", counts.open.get())?;
    let answers = counts
        .answers()
        .into_iter()
        .map(|((path, code), n)| (vec![("path", path.to_owned()), ("code", code.to_string())], n));
    families.counters("http_requests", "Answered requests", answers)?;
    let dropped = [
        ("refused", counts.refused.get()),
        ("displaced", counts.displaced.get()),
        ("quiet", counts.quiet.get()),
    ];
    let dropped = dropped.map(|(reason, n)| (label("reason", reason), n));
    let help = "Connections refused because all are busy, closed to make room, closed as they asked nothing";
    families.counters("http_connections_dropped", help, dropped)
}
