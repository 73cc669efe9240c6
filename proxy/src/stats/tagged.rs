//! Stats whose labels are known when they are registered, as Istio's: no rule has to find them in the name again.
//!
//! In `/stats` the labels stand in the name, as Envoy writes such stats: `METRIC.label.value.label.value`.
use std::sync::Arc;

use super::tags::TaggedName;
use super::{Counter, Gauge, Histogram, Registry};

/// Labels and their values, shared by the stats that have the same.
pub(crate) type Tags = Arc<[(Arc<str>, Arc<str>)]>;

impl Registry {
    /// The counter of this metric with these labels; the same id each time.
    pub(crate) fn tagged_counter(&self, metric: &Arc<str>, tags: &Tags) -> Counter {
        let counter = self.counter(full_name(metric, tags));
        if let Some(entry) = &counter.0 {
            entry.tagged.get_or_init(|| tagged(metric, tags));
        }
        counter
    }

    /// Whether [`Registry::tagged_counter`] has made it.
    pub(crate) fn has_tagged_counter(&self, metric: &Arc<str>, tags: &Tags) -> bool {
        self.lock()
            .counters
            .contains_key(full_name(metric, tags).as_str())
    }

    /// The gauge of this metric with these labels; the same id each time.
    pub(crate) fn tagged_gauge(&self, metric: &Arc<str>, tags: &Tags) -> Gauge {
        let gauge = self.gauge(full_name(metric, tags));
        if let Some(entry) = &gauge.0 {
            entry.tagged.get_or_init(|| tagged(metric, tags));
        }
        gauge
    }

    /// The histogram of this metric with these labels; the same id each time.
    pub(crate) fn tagged_histogram(&self, metric: &Arc<str>, tags: &Tags) -> Histogram {
        let histogram = self.histogram(full_name(metric, tags));
        if let Some(entry) = &histogram.0 {
            entry.tagged.get_or_init(|| tagged(metric, tags));
        }
        histogram
    }
}

fn tagged(metric: &Arc<str>, tags: &Tags) -> TaggedName {
    TaggedName {
        name: Arc::clone(metric),
        tags: Arc::clone(tags),
    }
}

fn full_name(metric: &str, tags: &Tags) -> String {
    let values = tags.iter().map(|(tag, value)| tag.len() + value.len() + 2);
    let mut name = String::with_capacity(metric.len() + values.sum::<usize>());
    name.push_str(metric);
    for part in tags.iter().flat_map(|(tag, value)| [tag, value]) {
        // Envoy's names have no empty words.
        if !part.is_empty() {
            name.push('.');
            name.push_str(part);
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::super::{TagRules, prometheus, text};
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs
            .iter()
            .map(|(tag, value)| (Arc::from(*tag), Arc::from(*value)))
            .collect()
    }

    #[test]
    fn labels_stand_in_the_name_and_are_not_looked_for_again() {
        let registry = Registry::new(TagRules::new(&[], true).unwrap());
        let tags = tags(&[("reporter", "source"), ("status", ""), ("code", "x.y_rq_200")]);
        let metric = Arc::from("istiocustom.istio_requests_total");
        assert!(!registry.has_tagged_counter(&metric, &tags));
        registry.tagged_counter(&metric, &tags).inc();
        registry.tagged_counter(&metric, &tags).inc();
        assert!(registry.has_tagged_counter(&metric, &tags));
        assert_eq!(
            text(&registry, None, true),
            "istiocustom.istio_requests_total.reporter.source.status.code.x.y_rq_200: 2\n"
        );
        assert_eq!(
            prometheus(&registry, None, true),
            "# TYPE istio_requests_total counter\n\
             istio_requests_total{reporter=\"source\",status=\"\",code=\"x.y_rq_200\"} 2\n"
        );
    }
}
