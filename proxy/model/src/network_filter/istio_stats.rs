//! `istio.stats` (`stats.PluginConfig`). Source: contract §5; envoy contrib/istio istio_stats config.proto.
use crate::field::{FieldPath, Rejection, verdicts};
use crate::istio;

/// Istio's standard metrics; metric overrides are listed as without effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IstioStats {}

impl IstioStats {
    /// Converts the filter of either kind of chain.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: istio::StatsConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => istio::StatsConfig {
            unsupported {
                disable_host_header_fallback,
                tcp_reporting_duration, metrics, definitions, reporter, rotation_interval, graceful_deletion_interval,
            }
        });
        Ok(Self {})
    }
}
