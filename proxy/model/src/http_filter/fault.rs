//! Fault injection. Without rules it passes requests on. Source: envoy/extensions/filters/http/fault/v3/fault.proto.
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as pb;

use crate::field::{FieldPath, Rejection, verdicts};

/// The filter at its place in the chain; no listener-level rule is supported in this slice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fault {}

impl Fault {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::HttpFault) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::HttpFault {
            inert {
                max_active_faults: "without a rule no fault is active",
                headers: "says which requests a rule is for, and every rule is listed as unsupported",
                upstream_cluster: "says which requests a rule is for, and every rule is listed as unsupported",
                downstream_nodes: "says which requests a rule is for, and every rule is listed as unsupported",
                delay_percent_runtime: "names a runtime key, and there is no runtime",
                abort_percent_runtime: "names a runtime key, and there is no runtime",
                delay_duration_runtime: "names a runtime key, and there is no runtime",
                abort_http_status_runtime: "names a runtime key, and there is no runtime",
                max_active_faults_runtime: "names a runtime key, and there is no runtime",
                response_rate_limit_percent_runtime: "names a runtime key, and there is no runtime",
                abort_grpc_status_runtime: "names a runtime key, and there is no runtime",
                disable_downstream_cluster_stats: "without a rule no fault is counted",
                filter_metadata: "goes with a fault, and without a rule there is none",
            }
            unsupported { delay, abort, response_rate_limit }
        });
        Ok(Self {})
    }
}
