//! The figures: a table for people, JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};
use netns_lab::Outage;
use serde_json::{Value, json};

use super::Options;

/// What a figure should be at most.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) median_ms: f64,
    pub(super) worst_ms: Option<f64>,
}

/// One figure, of several rounds. All in milliseconds.
pub(super) struct Row {
    name: String,
    values: Vec<f64>,
    noise: Vec<f64>,
    target: Option<Target>,
}

impl Row {
    pub(super) fn new(name: impl Into<String>, target: Option<Target>) -> Self {
        Self { name: name.into(), values: Vec::new(), noise: Vec::new(), target }
    }

    pub(super) fn add(&mut self, value: Duration) {
        self.values.push(ms(value));
    }

    /// An outage that did not end is an error.
    pub(super) fn add_outage(&mut self, outage: &Outage) -> Result<()> {
        self.add(outage.outage.with_context(|| format!("{}: no answer any more", self.name))?);
        self.noise.extend(outage.noise.map(ms));
        Ok(())
    }

    fn line(&self) -> String {
        let mut line = format!("{:<52} {:>3}", self.name, self.values.len());
        for values in [&self.values, &self.noise] {
            match summary(values) {
                Some((median, worst)) => {
                    let _ = write!(line, " {median:>9.1} {worst:>9.1}");
                }
                None => line += "         -         -",
            }
        }
        match self.target {
            Some(Target { median_ms, worst_ms: Some(worst) }) => {
                let _ = write!(line, "   {median_ms:.0} / {worst:.0}");
            }
            Some(Target { median_ms, worst_ms: None }) => {
                let _ = write!(line, "   {median_ms:.0}");
            }
            None => {}
        }
        line
    }

    fn json(&self) -> Value {
        let both = |values: &[f64]| {
            summary(values).map(|(median, worst)| json!({ "median": median, "worst": worst }))
        };
        json!({
            "name": self.name,
            "rounds": self.values.len(),
            "ms": both(&self.values),
            "noise_ms": both(&self.noise),
            "target_ms": self.target.map(|t| json!({ "median": t.median_ms, "worst": t.worst_ms })),
            "values_ms": self.values,
        })
    }
}

/// Everything of one run. Rows are printed as they come.
pub(super) struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
    /// Endpoints of clients that were looked at after a round, all of them the floating IP.
    endpoints: usize,
    load: [String; 2],
    options: Value,
}

impl Table {
    pub(super) fn begin(options: &Options) -> Self {
        let load = load();
        println!(
            "heartbeat {} ms, misses {}; load average {load}",
            options.heartbeat_ms, options.misses
        );
        println!(
            "{:<52} {:>3} {:>9} {:>9} {:>9} {:>9}   target",
            "milliseconds", "n", "median", "worst", "noise", "worst"
        );
        let options = json!({
            "heartbeat_ms": options.heartbeat_ms,
            "misses": options.misses,
            "backend": options.backend,
        });
        Self {
            rows: Vec::new(),
            notes: Vec::new(),
            endpoints: 0,
            load: [load, String::new()],
            options,
        }
    }

    pub(super) fn add(&mut self, row: Row) {
        println!("{}", row.line());
        self.rows.push(row);
    }

    pub(super) fn note(&mut self, note: String) {
        println!("{note}");
        self.notes.push(note);
    }

    /// So many more endpoints were the floating IP.
    pub(super) fn endpoints_right(&mut self, number: usize) {
        self.endpoints += number;
    }

    pub(super) fn end(&mut self) {
        let load = load();
        println!(
            "{} endpoints of clients looked at after a round: all are the floating IP",
            self.endpoints
        );
        println!("load average at the end {load}");
        self.load[1] = load;
    }

    pub(super) fn json(&self) -> Result<String> {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        Ok(serde_json::to_string_pretty(&json!({
            "options": self.options,
            "cores": cores,
            "load_average": self.load,
            "figures": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "endpoints_right": self.endpoints,
            "notes": self.notes,
        }))?)
    }
}

/// Median and largest.
fn summary(values: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let high = *sorted.get(middle)?;
    let median = match middle.checked_sub(1).and_then(|m| sorted.get(m)) {
        Some(low) if sorted.len().is_multiple_of(2) => f64::midpoint(*low, high),
        _ => high,
    };
    Some((median, *sorted.last()?))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Of the last minute, the last five, the last fifteen.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[3.0]), Some((3.0, 3.0)));
        assert_eq!(summary(&[9.0, 1.0, 2.0]), Some((2.0, 9.0)));
        assert_eq!(summary(&[4.0, 1.0, 2.0, 9.0]), Some((3.0, 9.0)));
    }

    #[test]
    fn an_outage_without_end_is_an_error() {
        let mut row = Row::new("x", None);
        let mut outage = Outage {
            outage: Some(Duration::from_millis(250)),
            last_before: 0,
            first_after: None,
            noise: None,
            lost: 0,
        };
        row.add_outage(&outage).unwrap();
        assert!(row.line().contains("250.0"), "{}", row.line());
        outage.outage = None;
        assert!(row.add_outage(&outage).is_err());
    }
}
