//! The two text forms that Prometheus reads.

use std::fmt::Write as _;

use prometheus::proto::{LabelPair, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

/// The form of the metrics page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// `OpenMetrics` 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What the `Accept` headers prefer; the older form where they do not say.
    #[must_use]
    pub fn negotiate<'a>(accepts: impl Iterator<Item = &'a str>) -> Self {
        let (mut open, mut text) = (0.0_f32, 0.0_f32);
        for range in accepts.flat_map(|v| v.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let (mut quality, mut version) = (1.0, "");
            for (name, value) in parts.filter_map(|p| p.split_once('=')) {
                match name.trim() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => version = value.trim(),
                    _ => {}
                }
            }
            match media {
                "application/openmetrics-text" if matches!(version, "" | "1.0.0" | "0.0.1") => open = open.max(quality),
                "text/plain" | "text/*" | "*/*" => text = text.max(quality),
                _ => {}
            }
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// What to say of the page.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The page.
    pub(super) fn encode(self, families: &[MetricFamily]) -> String {
        match self {
            Self::Text => {
                let mut page = Vec::new();
                // A vector takes everything, and there is no family without a series: `gather` leaves those out.
                let _ = TextEncoder::new().encode(families, &mut page);
                String::from_utf8(page).unwrap_or_default()
            }
            Self::OpenMetrics => {
                let mut page = String::new();
                for family in families {
                    open_metrics(&mut page, family);
                }
                page.push_str("# EOF\n");
                page
            }
        }
    }
}

fn open_metrics(page: &mut String, family: &MetricFamily) {
    let counter = family.get_field_type() == MetricType::COUNTER;
    // In OpenMetrics `_total` belongs to a counter's samples, not to its name.
    let name = if counter { family.name().trim_end_matches("_total") } else { family.name() };
    let kind = match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY | MetricType::UNTYPED => "unknown",
    };
    line(page, format_args!("# HELP {name} {}", escape(family.help())));
    line(page, format_args!("# TYPE {name} {kind}"));
    for metric in family.get_metric() {
        let labels = metric.get_label();
        match family.get_field_type() {
            MetricType::COUNTER => sample(page, name, "_total", labels, None, metric.get_counter().get_value()),
            MetricType::GAUGE => sample(page, name, "", labels, None, metric.get_gauge().get_value()),
            MetricType::HISTOGRAM => {
                let histogram = metric.get_histogram();
                for bucket in histogram.get_bucket() {
                    let le = number(bucket.upper_bound());
                    sample(page, name, "_bucket", labels, Some(&le), bucket.cumulative_count());
                }
                let count = histogram.get_sample_count();
                sample(page, name, "_bucket", labels, Some("+Inf"), count);
                sample(page, name, "_count", labels, None, count);
                sample(page, name, "_sum", labels, None, histogram.get_sample_sum());
            }
            // We have none.
            MetricType::SUMMARY | MetricType::UNTYPED => {}
        }
    }
}

/// A value of a sample.
trait Value {
    fn text(self) -> String;
}

impl Value for f64 {
    fn text(self) -> String {
        number(self)
    }
}

impl Value for u64 {
    fn text(self) -> String {
        self.to_string()
    }
}

fn sample(page: &mut String, name: &str, suffix: &str, labels: &[LabelPair], le: Option<&str>, value: impl Value) {
    let own = labels.iter().map(|l| format!("{}=\"{}\"", l.name(), escape(l.value())));
    let labels: Vec<_> = own.chain(le.map(|le| format!("le=\"{le}\""))).collect();
    let value = value.text();
    if labels.is_empty() {
        line(page, format_args!("{name}{suffix} {value}"));
    } else {
        line(page, format_args!("{name}{suffix}{{{}}} {value}", labels.join(",")));
    }
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(page, "{text}");
}

/// A float in the canonical form of `OpenMetrics`: `1.0`, not `1`.
fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        format!("{value:?}")
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}
