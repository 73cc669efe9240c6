//! Labels in each direction. Expected values follow istio_stats' `populatePeerInfo` and Istio's own test data (testdata/metric).
mod sidecar;

use std::sync::Arc;

use ::http::{HeaderMap, HeaderValue, StatusCode};
use outrigger_model::listener::TrafficDirection::{Inbound, Outbound};
use outrigger_model::network_filter::istio_stats::{IstioStats as Config, MetricOverride};

use super::super::peer::Peer;
use super::super::response_flag::ResponseFlag;
use super::super::workload::Workload;
use super::{HttpEnd, MessageReport, TcpReport};
use crate::stats::prometheus;
use sidecar::{
    BILL, FRONT, Sidecar, check_labels, cluster, config, info, metadata, record, record_with, sent, served,
    text,
};

const SEEN_BY_BILL: [(&str, &str); 20] = [
    ("reporter", "destination"),
    ("source_workload", "front-v7"),
    ("source_canonical_service", "front-canonical"),
    ("source_canonical_revision", "r3"),
    ("source_workload_namespace", "shop"),
    ("source_principal", FRONT),
    ("source_app", "front-app"),
    ("source_version", "v7"),
    ("source_cluster", "Kubernetes"),
    ("destination_workload", "bill-v7"),
    ("destination_workload_namespace", "money"),
    ("destination_principal", BILL),
    ("destination_app", "bill-app"),
    ("destination_version", "v7"),
    ("destination_service", "bill.money.svc"),
    ("destination_canonical_service", "bill-canonical"),
    ("destination_canonical_revision", "r3"),
    ("destination_service_name", "bill"),
    ("destination_service_namespace", "money"),
    ("destination_cluster", "Kubernetes"),
];

const SEEN_BY_FRONT: [(&str, &str); 20] = [
    ("reporter", "source"),
    ("source_workload", "front-v7"),
    ("source_canonical_service", "front-canonical"),
    ("source_canonical_revision", "r3"),
    ("source_workload_namespace", "shop"),
    ("source_principal", FRONT),
    ("source_app", "front-app"),
    ("source_version", "v7"),
    ("source_cluster", "Kubernetes"),
    ("destination_workload", "bill-v7"),
    ("destination_workload_namespace", "money"),
    ("destination_principal", BILL),
    ("destination_app", "bill-app"),
    ("destination_version", "v7"),
    ("destination_service", "bill.money.svc"),
    ("destination_canonical_service", "bill-canonical"),
    ("destination_canonical_revision", "r3"),
    ("destination_service_name", "bill"),
    ("destination_service_namespace", "cash"),
    ("destination_cluster", "Kubernetes"),
];

#[test]
fn a_server_tells_every_label_in_order() {
    let bill = Sidecar::new("bill", "money", Inbound);
    record(&bill, &served());
    let end = [
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("grpc_response_status", ""),
        ("response_flags", "-"),
        ("connection_security_policy", "mutual_tls"),
    ];
    check_labels(
        &bill,
        "istio_requests_total",
        &[&SEEN_BY_BILL[..], &end[..]].concat(),
    );
    check_labels(
        &bill,
        "istio_request_duration_milliseconds_count",
        &[&SEEN_BY_BILL[..], &end[..]].concat(),
    );
    check_labels(&bill, "istio_build", &[("component", "proxy"), ("tag", "1.31.0")]);
}

#[test]
fn a_client_tells_every_label_in_order() {
    let front = Sidecar::new("front", "shop", Outbound);
    record(&front, &sent());
    let end = [
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("grpc_response_status", ""),
        ("response_flags", "-"),
        ("connection_security_policy", "unknown"),
    ];
    check_labels(
        &front,
        "istio_requests_total",
        &[&SEEN_BY_FRONT[..], &end[..]].concat(),
    );
}

#[test]
fn histograms_have_duration_and_bytes() {
    let front = Sidecar::new("front", "shop", Outbound);
    record(&front, &sent());
    let all = prometheus(&front.registry, None, true);
    let bucket = |metric: &str, bound: &str, count: u32| {
        let line = |line: &&str| {
            line.starts_with(&format!("istio_{metric}_bucket{{"))
                && line.ends_with(&format!("le=\"{bound}\"}} {count}"))
        };
        assert!(
            all.lines().find(line).is_some(),
            "{metric} {bound} {count}\n{all}"
        );
    };
    bucket("request_duration_milliseconds", "+Inf", 1);
    bucket("request_bytes", "250", 0);
    bucket("request_bytes", "500", 1);
    bucket("response_bytes", "50", 0);
    bucket("response_bytes", "100", 1);
}

#[test]
fn without_peer_and_certificates_everything_of_the_other_side_is_unknown() {
    let bill = Sidecar::new("bill", "money", Inbound);
    let mut info = info(None);
    info.response_code = Some(StatusCode::OK);
    record(&bill, &info);
    for label in [
        "source_workload",
        "source_canonical_service",
        "source_workload_namespace",
        "source_principal",
        "source_app",
        "source_version",
        "source_cluster",
        "destination_principal",
    ] {
        assert_eq!(bill.requests(label), "unknown", "{label}");
    }
    assert_eq!(bill.requests("source_canonical_revision"), "latest");
    assert_eq!(bill.requests("connection_security_policy"), "none");
    assert_eq!(bill.requests("destination_service"), "shop.example:8080");
    assert_eq!(bill.requests("destination_service_name"), "shop.example:8080");
}

#[test]
fn a_server_without_host_fallback_names_itself() {
    let disabled = Config {
        disable_host_header_fallback: true,
        ..config()
    };
    let bill = Sidecar::with(metadata("bill", "money"), Inbound, &disabled, 100);
    record(&bill, &info(None));
    assert_eq!(bill.requests("destination_service"), "bill-canonical");
    assert_eq!(bill.requests("destination_service_name"), "bill-canonical");
    assert_eq!(bill.requests("response_code"), "0");
}

#[test]
fn a_client_takes_the_namespace_from_the_certificate_and_the_workload_from_the_endpoint() {
    let front = Sidecar::new("front", "shop", Outbound);
    let mut info = sent();
    info.upstream_peer = None;
    info.upstream.workload = Workload::endpoint("bill-v1;wrong;bill;v1;other").map(Arc::new);
    record(&front, &info);
    for (label, expected) in [
        ("destination_workload", "bill-v1"),
        ("destination_workload_namespace", "money"),
        ("destination_canonical_service", "bill"),
        ("destination_canonical_revision", "v1"),
        ("destination_cluster", "other"),
        ("destination_app", "unknown"),
        ("destination_principal", BILL),
    ] {
        assert_eq!(front.requests(label), expected, "{label}");
    }
}

#[test]
fn a_client_believes_the_identity_that_a_peer_says_if_there_is_no_certificate() {
    let front = Sidecar::new("front", "shop", Outbound);
    let mut told = metadata("bill", "money");
    told.insert("IDENTITY".to_owned(), text("spiffe://d/ns/said/sa/x"));
    let peer = Peer::new("id".to_owned(), told.clone());
    let mut info = sent();
    info.upstream.principals = None;
    info.upstream_peer = Some(peer.clone());
    record(&front, &info);
    assert_eq!(front.requests("destination_principal"), "spiffe://d/ns/said/sa/x");
    assert_eq!(front.requests("destination_workload_namespace"), "said");
    let bill = Sidecar::new("bill", "money", Inbound);
    let mut info = self::info(None);
    info.downstream_peer = Some(peer);
    record(&bill, &info);
    assert_eq!(bill.requests("source_principal"), "unknown");
    assert_eq!(bill.requests("source_workload_namespace"), "money");
}

#[test]
fn hosts_that_the_mesh_does_not_know_have_the_name_of_where_they_went() {
    for (route, destination, name) in [
        ("block_all", None, "BlackHoleCluster"),
        (
            "allow_any",
            Some(cluster("PassthroughCluster", &[])),
            "PassthroughCluster",
        ),
        (
            "x",
            Some(cluster("PassthroughCluster", &[])),
            "PassthroughCluster",
        ),
        (
            "x",
            Some(cluster("InboundPassthroughCluster", &[])),
            "InboundPassthroughCluster",
        ),
        ("x", None, "shop.example:8080"),
        ("x", Some(cluster("other", &[])), "shop.example:8080"),
    ] {
        let front = Sidecar::new("front", "shop", Outbound);
        let mut info = info(None);
        info.route_name = Some(route.into());
        info.destination = destination;
        record(&front, &info);
        assert_eq!(
            front.requests("destination_service"),
            "shop.example:8080",
            "{route}"
        );
        assert_eq!(front.requests("destination_service_name"), name, "{route}");
        assert_eq!(
            front.requests("destination_service_namespace"),
            "unknown",
            "{route}"
        );
    }
}

#[test]
fn a_service_without_a_name_has_the_first_word_of_its_host() {
    let front = Sidecar::new("front", "shop", Outbound);
    let mut info = info(None);
    info.destination = Some(cluster("c", &[("host", "bill.money.svc")]));
    record(&front, &info);
    assert_eq!(front.requests("destination_service_name"), "bill");
}

#[test]
fn response_flags_are_short_and_joined() {
    let front = Sidecar::new("front", "shop", Outbound);
    let mut info = sent();
    info.response_code = Some(StatusCode::SERVICE_UNAVAILABLE);
    info.set_flag(ResponseFlag::UpstreamRetryLimitExceeded);
    info.set_flag(ResponseFlag::UpstreamConnectionFailure);
    record(&front, &info);
    assert_eq!(front.requests("response_flags"), "URX,UF");
    assert_eq!(front.requests("response_code"), "503");
}

#[track_caller]
fn check_grpc(code: u16, headers: &[(&'static str, &'static str)], expected: &str) {
    let front = Sidecar::new("front", "shop", Outbound);
    let mut info = sent();
    info.response_code = StatusCode::from_u16(code).ok();
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, HeaderValue::from_static(value));
    }
    record_with(&front, &info, true, &map);
    assert_eq!(front.requests("request_protocol"), "grpc");
    assert_eq!(
        front.requests("grpc_response_status"),
        expected,
        "{code} {headers:?}"
    );
}

#[test]
fn a_grpc_status_is_that_of_the_response_or_follows_from_its_code() {
    check_grpc(200, &[("grpc-status", "0")], "0");
    check_grpc(200, &[("grpc-status", "14")], "14");
    check_grpc(200, &[("grpc-status", "17")], "-1");
    check_grpc(200, &[("grpc-status", "x")], "-1");
    check_grpc(200, &[], "2");
    check_grpc(503, &[], "14");
    check_grpc(404, &[], "12");
}

#[test]
fn messages_are_told_as_they_come_without_labels_of_the_end() {
    let front = Sidecar::new("front", "shop", Outbound);
    let mut report = MessageReport::default();
    report.report(&front.stats, &sent(), None, (1, 1));
    check_labels(&front, "istio_request_messages_total", &SEEN_BY_FRONT);
    report.report(&front.stats, &sent(), None, (3, 1));
    assert_eq!(front.line("istio_request_messages_total").1, "3");
    assert_eq!(front.line("istio_response_messages_total").1, "1");
}

#[test]
fn a_connection_is_told_with_the_labels_of_its_first_report() {
    let bill = Sidecar::new("bill", "money", Inbound);
    let mut info = served();
    let mut report = TcpReport::default();
    (info.bytes_received, info.bytes_sent) = (10, 5);
    report.report(&bill.stats, &info);
    let end = [
        ("request_protocol", "tcp"),
        ("response_flags", "-"),
        ("connection_security_policy", "mutual_tls"),
    ];
    check_labels(
        &bill,
        "istio_tcp_connections_opened_total",
        &[&SEEN_BY_BILL[..], &end[..]].concat(),
    );
    assert!(bill.lines("istio_tcp_connections_closed_total").is_empty());
    (info.bytes_received, info.bytes_sent) = (12, 50);
    info.set_flag(ResponseFlag::UpstreamConnectionTermination);
    report.end(&bill.stats, &info);
    assert_eq!(bill.line("istio_tcp_received_bytes_total").1, "12");
    assert_eq!(bill.line("istio_tcp_sent_bytes_total").1, "50");
    assert_eq!(
        bill.label("istio_tcp_connections_closed_total", "response_flags"),
        "-"
    );
    assert_eq!(bill.line("istio_tcp_connections_opened_total").1, "1");
}

#[test]
fn a_connection_that_never_was_is_opened_and_closed_with_its_flags() {
    let front = Sidecar::new("front", "shop", Outbound);
    let mut info = info(None);
    info.destination = Some(cluster("BlackHoleCluster", &[]));
    info.set_flag(ResponseFlag::NoHealthyUpstream);
    TcpReport::default().end(&front.stats, &info);
    let metric = "istio_tcp_connections_closed_total";
    assert_eq!(front.label(metric, "response_flags"), "UH");
    assert_eq!(front.label(metric, "destination_service"), "unknown");
    assert_eq!(
        front.label(metric, "destination_service_name"),
        "BlackHoleCluster"
    );
    assert_eq!(front.line("istio_tcp_connections_opened_total").1, "1");
}

#[test]
fn overrides_drop_metrics_and_labels() {
    let change = |metric: Option<&str>, is_dropped, labels: &[&str]| MetricOverride {
        dimensions: Vec::new(),
        metric: metric.map(str::to_owned),
        is_dropped,
        labels_removed: labels.iter().map(|label| (*label).to_owned()).collect(),
    };
    let changed = Config {
        overrides: vec![
            change(Some("request_bytes"), true, &[]),
            change(Some("requests_total"), false, &["source_app", "no_such_label"]),
            change(None, false, &["source_version"]),
            change(None, true, &[]),
        ],
        ..config()
    };
    let front = Sidecar::with(metadata("front", "shop"), Outbound, &changed, 100);
    record(&front, &sent());
    assert!(front.lines("istio_request_bytes_count").is_empty());
    let names = |metric| {
        front
            .line(metric)
            .0
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    let (requests, responses) = (names("istio_requests_total"), names("istio_response_bytes_count"));
    assert_eq!((requests.len(), responses.len()), (23, 24));
    assert!(!requests.iter().any(|name| name == "source_app"));
    assert!(!responses.iter().any(|name| name == "source_version"));
}

#[test]
fn what_clients_choose_makes_no_more_label_sets_than_the_limit() {
    let front = Sidecar::with(metadata("front", "shop"), Outbound, &config(), 3);
    for code in 200..210 {
        let mut info = sent();
        info.response_code = StatusCode::from_u16(code).ok();
        record(&front, &info);
        record(&front, &info);
    }
    let lines = front.lines("istio_requests_total");
    assert_eq!(lines.len(), 4, "{lines:#?}");
    let over: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("response_code=\"over_limit\""))
        .collect();
    assert!(
        over[0].contains("{reporter=\"source\",source_workload=\"over_limit\"") && over[0].ends_with(" 14"),
        "{over:?}"
    );
    let all = prometheus(&front.registry, None, true);
    assert!(all.contains("istio_label_sets_over_limit_total{} 7\n"), "{all}");
}

#[test]
fn a_long_host_is_cut() {
    let front = Sidecar::new("front", "shop", Outbound);
    let mut info = info(None);
    info.finish();
    let host = HeaderValue::from_str(&"h".repeat(5000)).expect("letters");
    let headers = HeaderMap::new();
    for _ in 0..2 {
        front.stats.record_http(&HttpEnd {
            info: &info,
            host: Some(&host),
            is_grpc: false,
            headers: &headers,
            trailers: None,
            request_bytes: 0,
            response_bytes: 0,
        });
    }
    assert_eq!(front.requests("destination_service").len(), super::VALUE_BYTES);
    assert_eq!(front.line("istio_requests_total").1, "2");
}
