//! gRPC statistics. Source: envoy/extensions/filters/http/grpc_stats/v3/config.proto.
use envoy_types::pb::envoy::extensions::filters::http::grpc_stats::v3::{
    self as pb, filter_config::PerMethodStatSpecifier,
};
use envoy_types::pb::google::protobuf;

use crate::field::{FieldPath, Rejection, choices, verdicts};

/// Counts gRPC requests and messages for each cluster, without their methods.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrpcStats {
    /// Message counts are told to `istio.stats`.
    pub emit_filter_state: bool,
}

impl GrpcStats {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::FilterConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::FilterConfig {
            supported { emit_filter_state }
            partly { per_method_stat_specifier: "counters without methods only; others are listed as without effect" }
            inert { replace_dots_in_grpc_service_name: "no name of a service stands in a counter" }
            unsupported { enable_upstream_stats: "telemetry" }
        });
        choices!(PerMethodStatSpecifier {
            partly {
                StatsForAllMethods: "false; true is listed as without effect",
                IndividualMethodStatsAllowlist: "listed as without effect",
            }
        });
        match per_method_stat_specifier {
            Some(PerMethodStatSpecifier::StatsForAllMethods(protobuf::BoolValue { value: true })) => {
                at.field("stats_for_all_methods").problem("has no effect here");
            }
            Some(PerMethodStatSpecifier::IndividualMethodStatsAllowlist(_)) => {
                at.field("individual_method_stats_allowlist")
                    .problem("has no effect here");
            }
            Some(PerMethodStatSpecifier::StatsForAllMethods(_)) | None => (),
        }
        Ok(Self { emit_filter_state })
    }
}
