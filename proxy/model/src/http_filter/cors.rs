//! CORS. Without a policy on the route it passes requests on. Source: envoy/extensions/filters/http/cors/v3/cors.proto.
use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as pb;

use crate::field::verdicts;

/// The filter at its place in the chain; no listener-level rule is supported in this slice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cors {}

impl Cors {
    /// Converts the filter.
    pub(crate) fn from_proto(proto: pb::Cors) -> Self {
        verdicts!((), proto => pb::Cors {});
        Self {}
    }
}
