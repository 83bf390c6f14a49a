//! `/metrics`: the status as OpenMetrics. docs/operations.md lists all of them.
//!
//! Labels hold names from the config and words of the program. Nothing that another node or a
//! client says becomes a label, so the number of series is bounded by the config.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::counts::Counts;
use crate::status::Status;

mod machine;
mod node;
mod own;
mod peers;
#[cfg(test)]
mod tests;

/// The whole exposition, with its end mark.
pub(super) fn exposition(status: Arc<Status>, counts: Arc<Counts>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("wgha");
    registry.register_collector(Box::new(Snapshot { status, counts }));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

#[derive(Debug)]
struct Snapshot {
    status: Arc<Status>,
    counts: Arc<Counts>,
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        node::write(&mut families, &self.status)?;
        peers::write(&mut families, &self.status)?;
        machine::write(&mut families, &self.status)?;
        own::write(&mut families, &self.counts)
    }
}

/// A family by its name, its help, and how it is read from what it is about.
type Reading<T, V> = (&'static str, &'static str, fn(&T) -> V);

/// The labels of one sample.
type Labels = Vec<(&'static str, String)>;

/// Writes families, each with its help, type and unit. A family without samples is left out.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    /// One gauge without labels.
    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.gauges(name, help, [(Labels::new(), value)])
    }

    /// A gauge with labels.
    fn gauges<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        let samples = samples.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value)));
        self.family(name, help, MetricType::Gauge, samples)
    }

    /// A counter with labels. `_total` is added to the name.
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let samples = samples.into_iter().map(|(labels, n)| (labels, ConstCounter::new(n)));
        self.family(name, help, MetricType::Counter, samples)
    }

    /// Words about something. `_info` is added to the name.
    fn info(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Labels>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().map(Info::new).peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let help = sentence(help);
        let mut family = self.0.encode_descriptor(name, &help, None, MetricType::Info)?;
        samples.try_for_each(|info| info.encode(family.encode_family(&Labels::new())?))
    }

    fn family<M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl Iterator<Item = (Labels, M)>,
    ) -> fmt::Result {
        let mut samples = samples.peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let (name, unit) = split_unit(name);
        let help = sentence(help);
        let mut family = self.0.encode_descriptor(name, &help, unit.as_ref(), kind)?;
        // Two of one name would spoil the whole page.
        let mut seen = HashSet::new();
        for (labels, metric) in samples {
            if labels.is_empty() {
                return metric.encode(family);
            }
            if seen.insert(labels.clone()) {
                metric.encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// A unit at the end of a name is announced as such.
fn split_unit(name: &str) -> (&str, Option<Unit>) {
    let units = [("_seconds", Unit::Seconds), ("_ratio", Unit::Other("ratio".to_owned()))];
    for (suffix, unit) in units {
        if let Some(stem) = name.strip_suffix(suffix) {
            return (stem, Some(unit));
        }
    }
    (name, None)
}

fn sentence(help: &str) -> String {
    format!("{help}.")
}

/// One label.
fn label(key: &'static str, value: &str) -> Labels {
    vec![(key, value.to_owned())]
}

fn flag(holds: bool) -> i64 {
    i64::from(holds)
}

fn seconds(millis: u64) -> f64 {
    std::time::Duration::from_millis(millis).as_secs_f64()
}

/// Seconds since 1970 of a time in RFC 3339.
fn timestamp(at: &str) -> Option<f64> {
    let at = humantime::parse_rfc3339(at).ok()?;
    Some(at.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs_f64())
}
