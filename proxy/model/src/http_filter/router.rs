//! The router filter. Source: envoy/extensions/filters/http/router/v3/router.proto.
use envoy_types::pb::envoy::extensions::filters::http::router::v3 as pb;

use crate::field::{FieldPath, Rejection, verdicts};

/// The terminal HTTP filter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Router {
    /// No `x-envoy-*` header is added to requests or responses.
    pub suppress_envoy_headers: bool,
    /// The time that another proxy expects (`x-envoy-expected-rq-timeout-ms`) is the timeout of requests from inside.
    pub respects_expected_timeout: bool,
}

impl Router {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::Router) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::Router {
            supported { suppress_envoy_headers, respect_expected_rq_timeout }
            inert { start_child_span: "without a tracing provider there is no span" }
            unsupported {
                dynamic_stats: "telemetry", upstream_log: "telemetry", upstream_log_options: "telemetry",
                suppress_grpc_request_failure_code_stats: "telemetry",
                reject_connect_request_early_data: "traffic",
            }
            refused {
                strict_check_headers: "ignoring it would let through requests that should be answered 400",
                upstream_http_filters: "ignoring it would send requests past those filters",
            }
        });
        Ok(Self {
            suppress_envoy_headers,
            respects_expected_timeout: respect_expected_rq_timeout,
        })
    }
}
