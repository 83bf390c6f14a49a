//! `/`: the table of `wgha status` for a browser. No scripts, nothing from elsewhere.

use std::time::SystemTime;

use crate::status::{self, Status};

/// The page.
pub(super) fn page(status: &Status, now: SystemTime) -> String {
    let title = escaped(&format!("{} / {}: {}", status.cluster, status.node, status.role));
    let table = escaped(&status::table(status, now));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body>\n<pre>{table}</pre>\n\
         <p><a href=\"/status\">/status</a> <a href=\"/metrics\">/metrics</a></p>\n</body>\n</html>\n"
    )
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
