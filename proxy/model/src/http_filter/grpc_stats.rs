//! gRPC statistics. Source: envoy/extensions/filters/http/grpc_stats/v3/config.proto.
use envoy_types::pb::envoy::extensions::filters::http::grpc_stats::v3 as pb;

use crate::field::{FieldPath, Rejection, verdicts};

/// The filter at its place in the chain. Its counters come with Istio's standard metrics; until then it passes requests on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrpcStats {}

impl GrpcStats {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::FilterConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::FilterConfig {
            unsupported {
                emit_filter_state, per_method_stat_specifier, enable_upstream_stats, replace_dots_in_grpc_service_name,
            }
        });
        Ok(Self {})
    }
}
