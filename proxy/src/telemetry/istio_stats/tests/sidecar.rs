//! A sidecar's filter, its requests, and what Prometheus sees of them.
use std::net::SocketAddr;
use std::sync::Arc;

use ::http::{HeaderMap, HeaderValue, StatusCode, Version};
use outrigger_model::listener::TrafficDirection;
use outrigger_model::metadata::{Metadata, Struct, Value};
use outrigger_model::network_filter::istio_stats::IstioStats as Config;
use outrigger_model::node::Node;

use super::super::super::peer::Peer;
use super::super::super::stream_info::{ConnectionInfo, StreamInfo};
use super::super::super::workload::Principals;
use super::super::{Destination, HttpEnd, IstioMetrics, IstioStats};
use crate::stats::{Registry, TagRules, prometheus};

pub(super) const FRONT: &str = "spiffe://cluster.local/ns/shop/sa/front";
pub(super) const BILL: &str = "spiffe://cluster.local/ns/money/sa/bill";

pub(super) fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

pub(super) fn metadata(name: &str, namespace: &str) -> Struct {
    let labels = [
        ("app", format!("{name}-app")),
        ("version", "v7".to_owned()),
        ("service.istio.io/canonical-name", format!("{name}-canonical")),
        ("service.istio.io/canonical-revision", "r3".to_owned()),
    ];
    let labels = labels.map(|(label, value)| (label.to_owned(), Value::String(value)));
    Struct::from([
        ("WORKLOAD_NAME".to_owned(), text(&format!("{name}-v7"))),
        ("NAMESPACE".to_owned(), text(namespace)),
        ("CLUSTER_ID".to_owned(), text("Kubernetes")),
        ("ISTIO_VERSION".to_owned(), text("1.31.0")),
        ("LABELS".to_owned(), Value::Struct(labels.into())),
    ])
}

pub(super) fn config() -> Config {
    Config {
        disable_host_header_fallback: false,
        reporting_interval: None,
        overrides: Vec::new(),
    }
}

/// A filter of the workload `name` and what it counts into.
pub(super) struct Sidecar {
    pub(super) registry: Arc<Registry>,
    pub(super) stats: IstioStats,
}

impl Sidecar {
    pub(super) fn new(name: &str, namespace: &str, direction: TrafficDirection) -> Sidecar {
        Sidecar::with(metadata(name, namespace), direction, &config(), 100)
    }

    pub(super) fn with(
        metadata: Struct,
        direction: TrafficDirection,
        config: &Config,
        limit: usize,
    ) -> Sidecar {
        let registry = Registry::new(TagRules::new(&[], false).expect("no rule"));
        let node = Node {
            metadata,
            ..Node::default()
        };
        let metrics = IstioMetrics::with_limit(&registry, &node, limit);
        let stats = IstioStats::new(config, direction, &metrics);
        Sidecar { registry, stats }
    }

    /// Lines of one metric, as Prometheus sees them.
    pub(super) fn lines(&self, metric: &str) -> Vec<String> {
        let all = prometheus(&self.registry, None, true);
        let lines = all
            .lines()
            .filter(|line| line.starts_with(&format!("{metric}{{")));
        lines.map(str::to_owned).collect()
    }

    /// The only line of a metric: its labels in order, and its value.
    #[track_caller]
    pub(super) fn line(&self, metric: &str) -> (Vec<(String, String)>, String) {
        let lines = self.lines(metric);
        let [line] = lines.as_slice() else {
            panic!("{metric}: {lines:#?}")
        };
        let (labels, value) = line[metric.len() + 1..]
            .rsplit_once("} ")
            .expect("a line has labels and a value");
        let labels = labels.split("\",").map(|label| {
            let (name, value) = label.split_once("=\"").expect("a label");
            (name.to_owned(), value.trim_end_matches('"').to_owned())
        });
        (labels.collect(), value.to_owned())
    }

    #[track_caller]
    pub(super) fn label(&self, metric: &str, label: &str) -> String {
        let (labels, _) = self.line(metric);
        let found = labels.iter().find(|(name, _)| name == label);
        found
            .unwrap_or_else(|| panic!("no {label} in {labels:?}"))
            .1
            .clone()
    }

    #[track_caller]
    pub(super) fn requests(&self, label: &str) -> String {
        self.label("istio_requests_total", label)
    }
}

#[track_caller]
pub(super) fn check_labels(sidecar: &Sidecar, metric: &str, expected: &[(&str, &str)]) {
    let (labels, value) = sidecar.line(metric);
    let labels: Vec<_> = labels
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(labels, expected, "{metric}");
    assert_eq!(value, "1", "{metric}");
}

pub(super) fn info(downstream: Option<Arc<Principals>>) -> StreamInfo {
    let address = SocketAddr::from(([127, 0, 0, 1], 80));
    let mut connection = ConnectionInfo::new(0, address, address);
    connection.principals = downstream;
    StreamInfo::new(Arc::new(connection), Some(Version::HTTP_11))
}

pub(super) fn cluster(name: &str, services: &[(&str, &str)]) -> Arc<Destination> {
    let service: Struct = services
        .iter()
        .map(|(key, value)| ((*key).to_owned(), text(value)))
        .collect();
    let mut metadata = Metadata::default();
    if !service.is_empty() {
        let services = Value::List(vec![Value::Struct(service)]);
        metadata.0.insert(
            "istio".to_owned(),
            Struct::from([("services".to_owned(), services)]),
        );
    }
    Arc::new(Destination::of_cluster(name, &metadata))
}

pub(super) fn bill_cluster() -> Arc<Destination> {
    cluster(
        "outbound|9999||bill.money",
        &[
            ("host", "bill.money.svc"),
            ("name", "bill"),
            ("namespace", "cash"),
        ],
    )
}

pub(super) fn served() -> StreamInfo {
    let mut info = info(Some(Principals::of(Some(FRONT), Some(BILL))));
    info.downstream_peer = Some(Peer::new("id".to_owned(), metadata("front", "other")));
    info.destination = Some(cluster(
        "inbound|9999||",
        &[("host", "bill.money.svc"), ("name", "bill")],
    ));
    info.response_code = Some(StatusCode::OK);
    info
}

pub(super) fn sent() -> StreamInfo {
    let mut info = info(None);
    info.destination = Some(bill_cluster());
    info.upstream_peer = Some(Peer::new("id".to_owned(), metadata("bill", "money")));
    info.upstream.principals = Some(Principals::of(Some(BILL), Some(FRONT)));
    info.response_code = Some(StatusCode::OK);
    info
}

pub(super) fn record(sidecar: &Sidecar, info: &StreamInfo) {
    record_with(sidecar, info, false, &HeaderMap::new());
}

pub(super) fn record_with(sidecar: &Sidecar, info: &StreamInfo, is_grpc: bool, headers: &HeaderMap) {
    let mut info = info.clone();
    info.finish();
    sidecar.stats.record_http(&HttpEnd {
        info: &info,
        host: Some(&HeaderValue::from_static("shop.example:8080")),
        is_grpc,
        headers,
        trailers: None,
        request_bytes: 300,
        response_bytes: 70,
    });
}
