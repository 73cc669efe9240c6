//! `/clusters`: every cluster, its limits and its hosts.
//!
//! `rq_pending_active` of Envoy 1.40 is missing: requests wait for a cluster here, not for one host. Limits of priority HIGH are
//! Envoy's defaults, because configured ones have no effect here.
use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use outrigger_model::cluster::{CircuitBreaker, Discovery};
use outrigger_model::endpoint::Health;
use outrigger_model::metadata::Value;
use serde::Serialize;

use super::answer::Answer;
use super::endpoint::{Param, ParamKind};
use super::json::{self, Address, is_default};
use super::query::Query;
use super::{AdminView, ListedCluster, regex};
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::{HealthFlag, Host, HostCounters};
use crate::upstream::outlier::Thresholds;

pub(super) const PARAMS: &[Param] = &[
    Param {
        name: "filter",
        help: "Regular expression for filtering clusters by name",
        kind: ParamKind::Text,
    },
    Param {
        name: "format",
        help: "File format to use",
        kind: ParamKind::OneOf(&["text", "json"]),
    },
];

/// `/clusters`.
pub(super) fn answer(view: &dyn AdminView, query: &Query) -> Answer {
    let filter = match regex::parse(query.text("filter")) {
        Ok(filter) => filter,
        Err(answer) => return answer,
    };
    let mut clusters = view.clusters();
    clusters.retain(|listed| {
        filter
            .as_ref()
            .is_none_or(|filter| filter.is_match(&listed.cluster.name))
    });
    if query.value("format") != Some("json") {
        return Answer::text(text(&clusters));
    }
    let statuses = clusters.iter().map(ClusterStatus::of).collect();
    match json::pretty(&Clusters {
        cluster_statuses: statuses,
    }) {
        Ok(text) => Answer::json(text),
        Err(error) => Answer::internal(error.to_string()),
    }
}

/// Name of the EDS service; `None` for clusters whose hosts come from elsewhere.
fn eds_service_name(cluster: &Cluster) -> Option<&str> {
    match &cluster.config.discovery {
        Discovery::Eds { service_name, .. } => Some(service_name),
        Discovery::Static(_)
        | Discovery::OriginalDst
        | Discovery::StrictDns(_)
        | Discovery::LogicalDns(_) => None,
    }
}

/// By priority, within one in the order received; hosts that clients dialled come last.
fn hosts(cluster: &Cluster) -> Vec<Arc<Host>> {
    let mut hosts = cluster.hosts().all.to_vec();
    hosts.extend(cluster.dialled_hosts());
    hosts.sort_by_key(|host| host.priority);
    hosts
}

fn text(clusters: &[ListedCluster]) -> String {
    let mut out = String::new();
    for ListedCluster {
        cluster,
        added_via_api,
    } in clusters
    {
        let mut line = |key: &str, value: &dyn Display| {
            let _infallible = writeln!(out, "{}::{key}::{value}", cluster.name);
        };
        line("observability_name", &cluster.stat_name);
        if let Some(detector) = cluster.outlier() {
            let Thresholds { external, local } = detector.thresholds();
            for (kind, threshold) in [("", external), ("local_origin_", local)] {
                line(
                    &format!("outlier::{kind}success_rate_average"),
                    &six_digits(threshold.mean),
                );
                line(
                    &format!("outlier::{kind}success_rate_ejection_threshold"),
                    &six_digits(threshold.ejection),
                );
            }
        }
        for (priority, limits) in [
            ("default", &cluster.config.circuit_breaker),
            ("high", &cluster.config.circuit_breaker_high),
        ] {
            line(
                &format!("{priority}_priority::max_connections"),
                &limits.max_connections,
            );
            line(
                &format!("{priority}_priority::max_pending_requests"),
                &limits.max_pending_requests,
            );
            line(
                &format!("{priority}_priority::max_requests"),
                &limits.max_requests,
            );
            line(&format!("{priority}_priority::max_retries"), &limits.max_retries);
        }
        line("added_via_api", added_via_api);
        if let Some(name) = eds_service_name(cluster) {
            line("eds_service_name", &name);
        }
        for host in hosts(cluster) {
            text_host(&mut out, &cluster.name, &host);
        }
    }
    out
}

fn text_host(out: &mut String, cluster: &str, host: &Host) {
    let mut line = |key: &str, value: &dyn Display| {
        let _infallible = writeln!(out, "{cluster}::{}::{key}::{value}", host.address);
    };
    let mut stats: Vec<_> = counters(&host.counters)
        .into_iter()
        .chain(gauges(&host.counters))
        .collect();
    stats.sort_unstable();
    for (name, value) in stats {
        line(name, &value);
    }
    line("hostname", &host.config.hostname);
    line("health_flags", &host.health_flags());
    line("weight", &host.weight);
    line("region", &host.locality.region);
    line("zone", &host.locality.zone);
    line("sub_zone", &host.locality.sub_zone);
    line("canary", &is_canary(host));
    line("priority", &host.priority);
    line("success_rate", &success_rate(host, false));
    line("local_origin_success_rate", &success_rate(host, true));
}

/// Percent; -1: no outlier detection, or too few requests.
fn success_rate(host: &Host, is_local: bool) -> f64 {
    host.state
        .monitor()
        .map_or(-1.0, |monitor| monitor.shown_rate(is_local))
}

/// As C's `%g`, for numbers from -1 to 100.
fn six_digits(value: f64) -> f64 {
    let digits = if value.abs() >= 100.0 {
        1e3
    } else if value.abs() >= 10.0 {
        1e4
    } else {
        1e5
    };
    (value * digits).round() / digits
}

fn counters(counters: &HostCounters) -> [(&'static str, u64); 6] {
    [
        ("cx_connect_fail", counters.cx_connect_fail.load(Relaxed)),
        ("cx_total", counters.cx_total.load(Relaxed)),
        ("rq_error", counters.rq_error.load(Relaxed)),
        ("rq_success", counters.rq_success.load(Relaxed)),
        ("rq_timeout", counters.rq_timeout.load(Relaxed)),
        ("rq_total", counters.rq_total.load(Relaxed)),
    ]
}

fn gauges(counters: &HostCounters) -> [(&'static str, u64); 2] {
    [
        ("cx_active", counters.cx_active.load(Relaxed).into()),
        ("rq_active", counters.rq_active.load(Relaxed).into()),
    ]
}

/// Envoy has no UNKNOWN and no TIMEOUT in its answer.
fn eds_health_status(health: Health) -> &'static str {
    match health {
        Health::Unknown | Health::Healthy => "HEALTHY",
        Health::Unhealthy | Health::Timeout => "UNHEALTHY",
        Health::Degraded => "DEGRADED",
        Health::Draining => "DRAINING",
    }
}

fn is_canary(host: &Host) -> bool {
    host.config
        .metadata
        .0
        .get("envoy.lb")
        .and_then(|labels| labels.get("canary"))
        == Some(&Value::Bool(true))
}

/// `envoy.admin.v3.Clusters`.
#[derive(Serialize)]
struct Clusters<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cluster_statuses: Vec<ClusterStatus<'a>>,
}

#[derive(Serialize)]
struct ClusterStatus<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    added_via_api: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    host_statuses: Vec<HostStatus>,
    circuit_breakers: CircuitBreakers,
    observability_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    eds_service_name: Option<&'a str>,
}

#[derive(Serialize)]
struct CircuitBreakers {
    thresholds: [BreakerThresholds; 2],
}

#[derive(Serialize)]
struct BreakerThresholds {
    #[serde(skip_serializing_if = "is_default")]
    priority: &'static str,
    max_connections: u32,
    max_pending_requests: u32,
    max_requests: u32,
    max_retries: u32,
}

#[derive(Serialize)]
struct HostStatus {
    address: Address,
    stats: Vec<SimpleMetric>,
    health_status: HealthStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    success_rate: Option<Percent>,
    weight: u32,
    #[serde(skip_serializing_if = "is_default")]
    hostname: String,
    #[serde(skip_serializing_if = "is_default")]
    priority: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_origin_success_rate: Option<Percent>,
    locality: Locality,
}

/// 64-bit numbers are strings in proto JSON.
#[derive(Serialize)]
struct SimpleMetric {
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    name: &'static str,
}

#[derive(Serialize)]
struct HealthStatus {
    #[serde(skip_serializing_if = "is_default")]
    failed_active_health_check: bool,
    #[serde(skip_serializing_if = "is_default")]
    failed_outlier_check: bool,
    eds_health_status: &'static str,
    #[serde(skip_serializing_if = "is_default")]
    failed_active_degraded_check: bool,
    #[serde(skip_serializing_if = "is_default")]
    pending_dynamic_removal: bool,
    #[serde(skip_serializing_if = "is_default")]
    pending_active_hc: bool,
    #[serde(skip_serializing_if = "is_default")]
    excluded_via_immediate_hc_fail: bool,
    #[serde(skip_serializing_if = "is_default")]
    active_hc_timeout: bool,
    #[serde(skip_serializing_if = "is_default")]
    failed_degraded_outlier_detection: bool,
}

/// `envoy.type.v3.Percent`.
#[derive(Serialize)]
struct Percent {
    #[serde(skip_serializing_if = "is_default")]
    value: f64,
}

impl Percent {
    /// `None`: negative, which is unknown.
    fn known(value: f64) -> Option<Self> {
        (value >= 0.0).then_some(Self { value })
    }
}

#[derive(Serialize)]
struct Locality {
    #[serde(skip_serializing_if = "is_default")]
    region: String,
    #[serde(skip_serializing_if = "is_default")]
    zone: String,
    #[serde(skip_serializing_if = "is_default")]
    sub_zone: String,
}

impl<'a> ClusterStatus<'a> {
    fn of(listed: &'a ListedCluster) -> Self {
        let ListedCluster {
            cluster,
            added_via_api,
        } = listed;
        Self {
            name: &cluster.name,
            added_via_api: *added_via_api,
            host_statuses: hosts(cluster).iter().map(|host| HostStatus::of(host)).collect(),
            circuit_breakers: CircuitBreakers {
                thresholds: [
                    BreakerThresholds::of("", &cluster.config.circuit_breaker),
                    BreakerThresholds::of("HIGH", &cluster.config.circuit_breaker_high),
                ],
            },
            observability_name: &cluster.stat_name,
            eds_service_name: eds_service_name(cluster),
        }
    }
}

impl BreakerThresholds {
    fn of(priority: &'static str, limits: &CircuitBreaker) -> Self {
        let CircuitBreaker {
            max_connections,
            max_pending_requests,
            max_requests,
            max_retries,
            ..
        } = *limits;
        Self {
            priority,
            max_connections,
            max_pending_requests,
            max_requests,
            max_retries,
        }
    }
}

impl HostStatus {
    fn of(host: &Host) -> Self {
        let counters = counters(&host.counters).map(|(name, value)| SimpleMetric::new("", name, value));
        let gauges = gauges(&host.counters).map(|(name, value)| SimpleMetric::new("GAUGE", name, value));
        Self {
            address: host.address.into(),
            stats: counters.into_iter().chain(gauges).collect(),
            health_status: HealthStatus {
                failed_active_health_check: host.state.has(HealthFlag::FailedActiveCheck),
                failed_outlier_check: host.state.has(HealthFlag::FailedOutlierCheck),
                eds_health_status: eds_health_status(host.health),
                failed_active_degraded_check: host.state.has(HealthFlag::DegradedActiveCheck),
                pending_dynamic_removal: host.state.has(HealthFlag::PendingRemoval),
                pending_active_hc: host.state.has(HealthFlag::PendingActiveCheck),
                excluded_via_immediate_hc_fail: host.state.has(HealthFlag::ExcludedByImmediateFailure),
                active_hc_timeout: host.state.has(HealthFlag::ActiveCheckTimeout),
                failed_degraded_outlier_detection: host.state.has(HealthFlag::DegradedOutlierCheck),
            },
            success_rate: Percent::known(success_rate(host, false)),
            weight: host.weight,
            hostname: host.config.hostname.clone(),
            priority: host.priority,
            local_origin_success_rate: Percent::known(success_rate(host, true)),
            locality: Locality {
                region: host.locality.region.clone(),
                zone: host.locality.zone.clone(),
                sub_zone: host.locality.sub_zone.clone(),
            },
        }
    }
}

impl SimpleMetric {
    fn new(kind: &'static str, name: &'static str, value: u64) -> Self {
        Self {
            kind,
            value: (value > 0).then(|| value.to_string()),
            name,
        }
    }
}
