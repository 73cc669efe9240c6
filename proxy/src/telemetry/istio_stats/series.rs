//! Metrics, what filters change of them, and making stats of labels.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use outrigger_model::network_filter::istio_stats::MetricOverride;

use super::labels::{Labels, NAMES, REPORTER, REQUEST_PROTOCOL};
use super::{IstioMetrics, IstioStats};
use crate::stats::{Counter, Histogram, Tags};

/// The standard metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metric {
    Requests,
    RequestDuration,
    RequestBytes,
    ResponseBytes,
    RequestMessages,
    ResponseMessages,
    TcpOpened,
    TcpClosed,
    TcpSent,
    TcpReceived,
}

/// Their names as configurations write them, in the order of [`Metric`].
const METRICS: [&str; 10] = [
    "requests_total",
    "request_duration_milliseconds",
    "request_bytes",
    "response_bytes",
    "request_messages_total",
    "response_messages_total",
    "tcp_connections_opened_total",
    "tcp_connections_closed_total",
    "tcp_sent_bytes_total",
    "tcp_received_bytes_total",
];

/// Their names as stats. `istiocustom` is the namespace whose Prometheus names have no `envoy_` before them.
pub(super) fn metric_names() -> Box<[Arc<str>]> {
    let name = |metric: &str| Arc::from(format!("istiocustom.istio_{metric}"));
    METRICS.map(name).into()
}

/// What a filter changes of each metric.
#[derive(Debug, Default)]
pub(super) struct Overrides([Override; METRICS.len()]);

#[derive(Debug, Default, Clone, Copy)]
struct Override {
    is_dropped: bool,
    /// A bit for each label, by its place in [`NAMES`].
    removed: u32,
}

impl Overrides {
    pub(super) fn new(configs: &[MetricOverride]) -> Overrides {
        let mut overrides = Overrides::default();
        for config in configs {
            let mut removed = 0;
            for label in &config.labels_removed {
                match NAMES.iter().position(|name| name == label) {
                    Some(place) => removed |= 1 << place,
                    None => tracing::info!(label, "istio.stats: tags_to_remove names no standard label"),
                }
            }
            let named = |metric: &str| config.metric.as_deref().is_none_or(|wanted| wanted == metric);
            for (one, _) in overrides
                .0
                .iter_mut()
                .zip(METRICS)
                .filter(|(_, metric)| named(metric))
            {
                // As Envoy: a drop needs a name, and the rest of its message then says nothing.
                if config.is_dropped {
                    one.is_dropped |= config.metric.is_some();
                } else {
                    one.removed |= removed;
                }
            }
        }
        overrides
    }

    fn of(&self, metric: Metric) -> Override {
        self.0.get(metric as usize).copied().unwrap_or_default()
    }
}

/// Registers the metrics of one set of labels.
pub(super) struct Registrar<'a> {
    stats: &'a IstioStats,
    labels: Labels,
    made: Vec<(u32, Tags)>,
}

impl<'a> Registrar<'a> {
    /// `first`: the metric by which a set is known, if the filter does not drop it.
    pub(super) fn new(stats: &'a IstioStats, labels: Labels, first: Metric) -> Registrar<'a> {
        let mut registrar = Registrar {
            stats,
            labels,
            made: Vec::new(),
        };
        let metrics = &stats.metrics;
        let tags = registrar.tags(first);
        let is_known = metrics.registry.has_tagged_counter(metrics.name(first), &tags);
        // Two workers may both be the last to fit: that is one set too many, once.
        if !is_known && metrics.sets.load(Ordering::Relaxed) >= metrics.limit {
            metrics.count_over_limit();
            registrar.made.clear();
            over_limit(&mut registrar.labels);
        } else if !is_known {
            metrics.sets.fetch_add(1, Ordering::Relaxed);
        }
        registrar
    }

    pub(super) fn counter(&mut self, metric: Metric) -> Counter {
        if self.stats.overrides.of(metric).is_dropped {
            return Counter::none();
        }
        let tags = self.tags(metric);
        let metrics = &self.stats.metrics;
        metrics.registry.tagged_counter(metrics.name(metric), &tags)
    }

    pub(super) fn histogram(&mut self, metric: Metric) -> Histogram {
        if self.stats.overrides.of(metric).is_dropped {
            return Histogram::none();
        }
        let tags = self.tags(metric);
        let metrics = &self.stats.metrics;
        metrics.registry.tagged_histogram(metrics.name(metric), &tags)
    }

    /// One list for the metrics that lose the same labels.
    fn tags(&mut self, metric: Metric) -> Tags {
        let removed = self.stats.overrides.of(metric).removed;
        if let Some((_, tags)) = self.made.iter().find(|(mask, _)| *mask == removed) {
            return Arc::clone(tags);
        }
        let kept = self
            .labels
            .iter()
            .filter(|(place, _)| removed & (1 << *place) == 0);
        let names = &self.stats.metrics.label_names;
        let tags: Tags = kept
            .filter_map(|(place, value)| Some((Arc::clone(names.get(*place)?), Arc::clone(value))))
            .collect();
        self.made.push((removed, Arc::clone(&tags)));
        tags
    }
}

impl IstioMetrics {
    fn name(&self, metric: Metric) -> &Arc<str> {
        // `METRICS` has a name for each.
        self.metric_names.get(metric as usize).unwrap_or(&self.version)
    }

    fn count_over_limit(&self) {
        static WARNED: std::sync::Once = std::sync::Once::new();
        self.over_limit.inc();
        WARNED.call_once(|| {
            tracing::warn!(
                limit = self.limit,
                "istio.stats: more sets of labels than there may be; later ones are counted with the value over_limit"
            );
        });
    }
}

/// Labels of which there are few, whatever clients send.
fn over_limit(labels: &mut Labels) {
    let value: Arc<str> = "over_limit".into();
    for (place, label) in labels {
        if !matches!(*place, REPORTER | REQUEST_PROTOCOL) {
            *label = Arc::clone(&value);
        }
    }
}
