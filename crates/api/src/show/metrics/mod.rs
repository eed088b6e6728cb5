//! `/metrics`: Patroni's names as they are, and `standfast_*` beside them.

mod ours;
mod patroni;

use crate::office::Office;
use crate::router::Context;
use crate::served::{Metric, MetricKind, Sample};
use std::fmt::Write;

/// Text in the exposition format; every sample is labelled with scope and name.
struct Page {
    text: String,
    labels: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, extra: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = write!(self.text, "{name}{{{}", self.labels);
        for (label, text) in extra {
            let _ = write!(self.text, ",{label}=\"{}\"", escape(text));
        }
        let _ = writeln!(self.text, "}} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn flag(&mut self, name: &str, help: &str, value: bool) {
        self.gauge(name, help, u8::from(value));
    }

    fn counter(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, "counter", help);
        self.sample(name, &[], value);
    }
}

pub(crate) fn text(context: &Context, office: &Office<'_>) -> String {
    let served = office.served;
    let labels = format!(
        "scope=\"{}\",name=\"{}\"",
        escape(&served.scope),
        escape(served.name.as_str())
    );
    let mut page = Page {
        text: String::with_capacity(12 << 10),
        labels,
    };
    patroni::write(&mut page, office);
    patroni::role(&mut page, office);
    ours::write(&mut page, context, office);
    for metric in &served.metrics {
        agents(&mut page, metric);
    }
    page.text
}

fn agents(page: &mut Page, metric: &Metric) {
    let kind = match metric.kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    };
    page.head(metric.name, kind, metric.help);
    for Sample {
        suffix,
        labels,
        value,
    } in &metric.samples
    {
        let labels: Vec<(&str, &str)> = labels
            .iter()
            .map(|(label, text)| (*label, text.as_str()))
            .collect();
        page.sample(&format!("{}{suffix}", metric.name), &labels, value);
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
