//! `istio.stats` (`stats.PluginConfig`). Source: contract §5; envoy contrib/istio istio_stats config.proto.
use std::time::Duration;

use crate::field::{FieldPath, Rejection, verdicts};
use crate::istio;

/// `tcp_reporting_duration` when unset.
const REPORTING_INTERVAL: Duration = Duration::from_secs(5);
/// `stats.Reporter.UNSPECIFIED`: the direction of the listener says who reports.
const UNSPECIFIED: i32 = 0;

/// Istio's standard metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IstioStats {
    /// `destination_service` is not taken from the Host header where the cluster does not say it.
    pub disable_host_header_fallback: bool,
    /// Time between two reports of an open TCP connection or gRPC stream; Istio's default 5 s, `None`: only at its end.
    pub reporting_interval: Option<Duration>,
    /// Changes to metrics, in order.
    pub overrides: Vec<MetricOverride>,
}

/// What is changed of one metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricOverride {
    /// `requests_total`; `None`: every metric.
    pub metric: Option<String>,
    /// The metric is not counted. Without effect if there is no `metric`, as in Envoy.
    pub is_dropped: bool,
    /// Labels that it does not have.
    pub labels_removed: Vec<String>,
    /// Labels and the CEL expressions of their values, in the order of the names. Awaits the telemetry issue.
    pub dimensions: Vec<(String, String)>,
}

impl IstioStats {
    /// Converts the filter of either kind of chain.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: istio::StatsConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => istio::StatsConfig {
            supported { disable_host_header_fallback, tcp_reporting_duration }
            partly {
                metrics: "each one's fields are listed below",
                reporter: "the listener's direction; SERVER_GATEWAY, which is for waypoints, is listed as without effect",
            }
            inert {
                rotation_interval: "Envoy ignores it since it evicts stats by itself",
                graceful_deletion_interval: "Envoy ignores it since it evicts stats by itself",
            }
            unsupported { definitions: "telemetry" }
        });
        if reporter != UNSPECIFIED {
            at.field("reporter").problem("has no effect here");
        }
        let overrides = metrics.into_iter().enumerate();
        Ok(Self {
            disable_host_header_fallback,
            reporting_interval: at
                .field("tcp_reporting_duration")
                .limit(tcp_reporting_duration, REPORTING_INTERVAL)?,
            overrides: overrides
                .map(|(index, proto)| MetricOverride::from_proto(&at.field("metrics").index(index), proto))
                .collect(),
        })
    }
}

impl MetricOverride {
    fn from_proto(at: &FieldPath<'_>, proto: istio::MetricConfig) -> Self {
        verdicts!(at, proto => istio::MetricConfig {
            supported { name, tags_to_remove, drop }
            inert { r#match: "Envoy does not read it" }
            unsupported { dimensions: "telemetry" }
        });
        let mut dimensions: Vec<_> = dimensions.into_iter().collect();
        dimensions.sort();
        Self {
            dimensions,
            metric: (!name.is_empty()).then_some(name),
            is_dropped: drop,
            labels_removed: tags_to_remove,
        }
    }
}
