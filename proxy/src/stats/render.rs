//! The outputs of the admin endpoint: `/stats`, `/stats?format=json`, `/stats/prometheus`.
//!
//! Formats are those of Envoy 1.40, byte for byte but for the digits of a Prometheus `_sum`, which are the shortest here.
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use regex::Regex;

use super::histogram::{QUANTILES, Snapshot};
use super::ids::{CellEntry, HistogramEntry};
use super::slots::Table;
use super::tags::{TaggedName, sanitise};
use super::{Names, Registry};

/// `name: value` lines: texts, then counters and gauges, then histograms, each sorted by name.
///
/// `filter` is searched in the full name; `used_only` leaves out what was never changed or set (a gauge set to 0 stays).
pub(crate) fn text(registry: &Registry, filter: Option<&Regex>, used_only: bool) -> String {
    let View {
        texts,
        cells,
        histograms,
        tables,
    } = View::of(registry, filter, used_only);
    let mut out = String::new();
    for (name, value) in texts {
        line(&mut out, format_args!("{name}: \"{value}\""));
    }
    for cell in cells {
        line(&mut out, format_args!("{}: {}", cell.name, cell.value(&tables)));
    }
    for (entry, cumulative) in histograms {
        out.push_str(&entry.name);
        out.push_str(": ");
        text_quantiles(&mut out, &entry.interval(), &cumulative);
        out.push('\n');
    }
    out
}

/// The object of `/stats?format=json`.
pub(crate) fn json(registry: &Registry, filter: Option<&Regex>, used_only: bool) -> String {
    let View {
        texts,
        cells,
        histograms,
        tables,
    } = View::of(registry, filter, used_only);
    let mut stats: Vec<String> = Vec::with_capacity(texts.len() + cells.len() + 1);
    stats.extend(
        texts
            .iter()
            .map(|(name, value)| format!("{{\"name\":{},\"value\":{}}}", quote(name), quote(value))),
    );
    stats.extend(cells.iter().map(|cell| {
        format!(
            "{{\"name\":{},\"value\":{}}}",
            quote(&cell.name),
            cell.value(&tables)
        )
    }));
    if !histograms.is_empty() {
        let quantiles: Vec<String> = QUANTILES.iter().map(f64::to_string).collect();
        let computed: Vec<String> = histograms
            .iter()
            .map(|(entry, all)| json_histogram(entry, all))
            .collect();
        stats.push(format!(
            "{{\"histograms\":{{\"supported_quantiles\":[{}],\"computed_quantiles\":[{}]}}}}",
            quantiles.join(","),
            computed.join(",")
        ));
    }
    format!("{{\"stats\":[{}]}}", stats.join(","))
}

/// Prometheus text format 0.0.4: counters, gauges, histograms; each metric once, with all its series.
pub(crate) fn prometheus(registry: &Registry, filter: Option<&Regex>, used_only: bool) -> String {
    let View {
        cells,
        histograms,
        tables,
        ..
    } = View::of(registry, filter, used_only);
    let (mut counters, mut gauges, mut distributions) =
        (Groups::default(), Groups::default(), Groups::default());
    for cell in &cells {
        let tagged = cell.tagged.get_or_init(|| registry.tags.split(&cell.name));
        let groups = if cell.kind == super::Kind::Counter {
            &mut counters
        } else {
            &mut gauges
        };
        groups.add(tagged, |out, metric, labels| {
            line(out, format_args!("{metric}{{{labels}}} {}", cell.value(&tables)));
        });
    }
    for (entry, cumulative) in &histograms {
        let tagged = entry.tagged.get_or_init(|| registry.tags.split(&entry.name));
        distributions.add(tagged, |out, metric, labels| {
            let bounds = entry.bounds.get_or_init(|| registry.rules.bounds(&entry.name));
            buckets(out, metric, labels, bounds, cumulative)
        });
    }
    let mut out = String::new();
    counters.write(&mut out, "counter");
    gauges.write(&mut out, "gauge");
    distributions.write(&mut out, "histogram");
    out
}

/// What is to be shown, taken under the lock; values are read afterwards.
struct View {
    texts: Vec<(Arc<str>, String)>,
    /// Counters and gauges together.
    cells: Vec<Arc<CellEntry>>,
    histograms: Vec<(Arc<HistogramEntry>, Snapshot)>,
    tables: Vec<Arc<Table>>,
}

impl View {
    fn of(registry: &Registry, filter: Option<&Regex>, used_only: bool) -> View {
        let wanted = |name: &str| filter.is_none_or(|regex| regex.is_match(name));
        let tables = registry.shared.tables();
        let names = registry.lock();
        let Names {
            counters,
            gauges,
            histograms,
            texts,
        } = &*names;
        let texts = texts
            .iter()
            .filter(|(name, _)| wanted(name))
            .map(|(k, v)| (Arc::clone(k), v.clone()))
            .collect();
        let cells = counters.values().chain(gauges.values());
        let mut cells: Vec<_> = cells
            .filter(|c| wanted(&c.name) && (!used_only || c.is_used()))
            .cloned()
            .collect();
        let mut histograms: Vec<_> = histograms
            .values()
            .filter(|entry| wanted(&entry.name))
            .cloned()
            .collect();
        let is_known = |name: &str| names.has(name);
        let shown = registry.unregistered(used_only, &wanted, &is_known);
        drop(names);
        cells.extend(shown.cells);
        histograms.extend(shown.histograms);
        cells.sort_by(|a, b| a.name.cmp(&b.name));
        histograms.sort_by(|a, b| a.name.cmp(&b.name));
        let histograms = histograms.into_iter().map(|entry| {
            let cumulative = entry.cumulative(&tables);
            (entry, cumulative)
        });
        let histograms = histograms
            .filter(|(_, all)| !used_only || !all.is_empty())
            .collect();
        View {
            texts,
            cells,
            histograms,
            tables,
        }
    }
}

/// The series of each metric, by the name they are sorted by: the one before characters are replaced.
#[derive(Default)]
struct Groups {
    by_name: BTreeMap<String, Group>,
    /// Metric to its key in `by_name`: two names may differ only in replaced characters, and a metric must not appear twice.
    keys: HashMap<String, String>,
}

struct Group {
    metric: String,
    lines: String,
}

impl Groups {
    fn add(&mut self, tagged: &TaggedName, write: impl FnOnce(&mut String, &str, &str)) {
        let metric = metric_name(&tagged.name);
        let key = self
            .keys
            .entry(metric.clone())
            .or_insert_with(|| tagged.name.to_string());
        let group = self.by_name.entry(key.clone()).or_insert_with(|| Group {
            metric,
            lines: String::new(),
        });
        write(&mut group.lines, &group.metric, &labels(&tagged.tags));
    }

    fn write(&self, out: &mut String, kind: &str) {
        for group in self.by_name.values() {
            line(out, format_args!("# TYPE {} {kind}", group.metric));
            out.push_str(&group.lines);
        }
    }
}

/// Istio's own metrics (`istiocustom.istio_requests_total`) stand without Envoy's prefix. Source: contract with Istio, metrics.
fn metric_name(name: &str) -> String {
    match name.strip_prefix("istiocustom.") {
        Some(custom) => sanitise(custom),
        None => ["envoy_", &sanitise_tail(name)].concat(),
    }
}

/// As [`sanitise`] where a leading digit is allowed.
fn sanitise_tail(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}

fn labels(tags: &[(Arc<str>, Arc<str>)]) -> String {
    let mut out = String::new();
    for (tag, value) in tags {
        let comma = if out.is_empty() { "" } else { "," };
        let value = value
            .replace('\\', "\\\\")
            .replace('\n', "\\n")
            .replace('"', "\\\"");
        append(&mut out, format_args!("{comma}{}=\"{value}\"", sanitise(tag)));
    }
    out
}

fn buckets(out: &mut String, metric: &str, labels: &str, bounds: &[f64], all: &Snapshot) {
    let comma = if labels.is_empty() { "" } else { "," };
    for bound in bounds {
        line(
            out,
            format_args!(
                "{metric}_bucket{{{labels}{comma}le=\"{bound}\"}} {}",
                all.count_up_to(*bound)
            ),
        );
    }
    line(
        out,
        format_args!("{metric}_bucket{{{labels}{comma}le=\"+Inf\"}} {}", all.count()),
    );
    line(out, format_args!("{metric}_sum{{{labels}}} {}", all.sum()));
    line(out, format_args!("{metric}_count{{{labels}}} {}", all.count()));
}

fn text_quantiles(out: &mut String, interval: &Snapshot, cumulative: &Snapshot) {
    if cumulative.is_empty() {
        out.push_str("No recorded values");
        return;
    }
    let number = |value: Option<f64>| value.map_or_else(|| "nan".to_owned(), |value| value.to_string());
    for (index, percent) in QUANTILES.into_iter().enumerate() {
        let space = if index == 0 { "" } else { " " };
        let (now, all) = (
            number(interval.quantile(percent)),
            number(cumulative.quantile(percent)),
        );
        append(out, format_args!("{space}P{percent}({now},{all})"));
    }
}

fn json_histogram(entry: &HistogramEntry, cumulative: &Snapshot) -> String {
    let interval = entry.interval();
    let number = |value: Option<f64>| value.map_or_else(|| "null".to_owned(), |value| value.to_string());
    let values: Vec<String> = QUANTILES
        .iter()
        .map(|percent| {
            let (all, now) = (
                number(cumulative.quantile(*percent)),
                number(interval.quantile(*percent)),
            );
            format!("{{\"cumulative\":{all},\"interval\":{now}}}")
        })
        .collect();
    format!(
        "{{\"name\":{},\"values\":[{}]}}",
        quote(&entry.name),
        values.join(",")
    )
}

fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn line(out: &mut String, line: std::fmt::Arguments<'_>) {
    append(out, line);
    out.push('\n');
}

fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String has no error.
    let _infallible = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::super::TagRules;
    use super::*;
    use outrigger_model::bootstrap::{StatsTag, StatsTagValue};

    const CLUSTER: &str = "cluster.outbound|80||a.default.svc.cluster.local;";

    fn registry() -> Arc<Registry> {
        let value = StatsTagValue::Regex(r"^cluster(\.(.+);)".to_owned());
        let code = StatsTagValue::Regex(r"_rq(_(\d{3}))$".to_owned());
        let tags = [("cluster_name", value), ("response_code", code)];
        let tags = tags.map(|(name, value)| StatsTag {
            name: name.to_owned(),
            value,
        });
        let registry = Registry::new(TagRules::new(&tags, false).unwrap());
        registry.counter(format!("{CLUSTER}.upstream_rq_503")).add(2);
        registry.counter(format!("{CLUSTER}.upstream_rq_200")).add(5);
        registry.counter("cluster_manager.cluster_added").inc();
        registry.counter("http2.tx_reset");
        registry.gauge("server.state").set(0);
        registry.gauge("server.unset");
        registry.histogram("cluster.a.upstream_cx_length_ms");
        registry.set_text("cluster_manager.cds.version_text", "v\"1");
        registry
    }

    #[test]
    fn text_is_sorted_and_used_only_keeps_a_gauge_set_to_0() {
        let registry = registry();
        let used = format!(
            "cluster_manager.cds.version_text: \"v\"1\"\n{CLUSTER}.upstream_rq_200: 5\n{CLUSTER}.upstream_rq_503: 2\n\
             cluster_manager.cluster_added: 1\nserver.state: 0\n"
        );
        assert_eq!(text(&registry, None, true), used);
        let all = text(&registry, None, false);
        assert!(
            all.ends_with("server.unset: 0\ncluster.a.upstream_cx_length_ms: No recorded values\n"),
            "{all}"
        );
        let ready = Regex::new(r"^(server\.state|listener_manager\.workers_started)").unwrap();
        assert_eq!(text(&registry, Some(&ready), true), "server.state: 0\n");
    }

    #[test]
    fn quantiles_have_interval_and_total() {
        let registry = registry();
        let filter = Regex::new("length_ms").unwrap();
        registry.histogram("cluster.a.upstream_cx_length_ms").record(7803);
        let total = "cluster.a.upstream_cx_length_ms: P0(nan,7850) P25(nan,7850) P50(nan,7850) P75(nan,7850) P90(nan,7850) \
                     P95(nan,7850) P99(nan,7850) P99.5(nan,7850) P99.9(nan,7850) P100(nan,7850)\n";
        assert_eq!(text(&registry, Some(&filter), true), total);
        registry.flush();
        assert_eq!(text(&registry, Some(&filter), true), total.replace("nan", "7850"));
        registry.flush();
        assert_eq!(text(&registry, Some(&filter), true), total);
    }

    #[test]
    fn json_has_values_and_quantiles() {
        let registry = registry();
        let out = json(
            &registry,
            Some(&Regex::new("server.state|length_ms|text").unwrap()),
            false,
        );
        let values = [r#"{"cumulative":null,"interval":null}"#; 10].join(",");
        let expected = format!(
            "{{\"stats\":[{{\"name\":\"cluster_manager.cds.version_text\",\"value\":\"v\\\"1\"}},\
             {{\"name\":\"server.state\",\"value\":0}},{{\"histograms\":{{\
             \"supported_quantiles\":[0,25,50,75,90,95,99,99.5,99.9,100],\"computed_quantiles\":[\
             {{\"name\":\"cluster.a.upstream_cx_length_ms\",\"values\":[{values}]}}]}}}}]}}"
        );
        assert_eq!(out, expected);
    }

    #[test]
    fn prometheus_groups_series_by_metric() {
        let registry = registry();
        registry
            .histogram(format!("{CLUSTER}.upstream_rq_time"))
            .record(253);
        let out = prometheus(&registry, None, true);
        let labels = "cluster_name=\"outbound|80||a.default.svc.cluster.local\"";
        let head = format!(
            "# TYPE envoy_cluster_upstream_rq counter\nenvoy_cluster_upstream_rq{{{labels},response_code=\"200\"}} 5\n\
             envoy_cluster_upstream_rq{{{labels},response_code=\"503\"}} 2\n\
             # TYPE envoy_cluster_manager_cluster_added counter\nenvoy_cluster_manager_cluster_added{{}} 1\n\
             # TYPE envoy_server_state gauge\nenvoy_server_state{{}} 0\n\
             # TYPE envoy_cluster_upstream_rq_time histogram\n\
             envoy_cluster_upstream_rq_time_bucket{{{labels},le=\"0.5\"}} 0\n"
        );
        assert!(out.starts_with(&head), "{out}");
        let bucket = |le, n| format!("envoy_cluster_upstream_rq_time_bucket{{{labels},le=\"{le}\"}} {n}\n");
        assert!(out.contains(&(bucket("100", 0) + &bucket("250", 1))), "{out}");
        assert!(out.contains(&bucket("3600000", 1)), "{out}");
        assert!(
            out.ends_with(&format!("envoy_cluster_upstream_rq_time_count{{{labels}}} 1\n")),
            "{out}"
        );
    }

    #[test]
    fn labels_are_escaped_and_colliding_names_share_one_metric() {
        let tag = StatsTag {
            name: "a.b".to_owned(),
            value: StatsTagValue::Fixed("q\"\\\n".to_owned()),
        };
        let registry = Registry::new(TagRules::new(&[tag], false).unwrap());
        registry.counter("x.y;z").inc();
        registry.counter("x.y_z").inc();
        registry.counter("istiocustom.istio_requests_total").inc();
        let label = r#"{a_b="q\"\\\n"}"#;
        let expected = format!(
            "# TYPE istio_requests_total counter\nistio_requests_total{label} 1\n\
             # TYPE envoy_x_y_z counter\nenvoy_x_y_z{label} 1\nenvoy_x_y_z{label} 1\n"
        );
        assert_eq!(prometheus(&registry, None, true), expected);
    }
}
