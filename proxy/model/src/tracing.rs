//! Tracing settings of a connection manager. Source: http_connection_manager.proto `Tracing`; contract §1.10.
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;

use crate::cluster::Percent;
use crate::field::{FieldPath, Rejection, verdicts};

/// Sampling; without a provider here or in the bootstrap no span is made, but the decision still marks `x-request-id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracing {
    /// Share of requests with `x-client-trace-id` that are traced, hundredths of a percent.
    pub client_sampling: u32,
    /// Share of others, hundredths of a percent.
    pub random_sampling: u32,
    /// Cap over all, hundredths of a percent.
    pub overall_sampling: u32,
}

impl Tracing {
    /// Converts the settings.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: hcm::Tracing) -> Result<Self, Rejection> {
        verdicts!(at, proto => hcm::Tracing {
            supported { client_sampling, random_sampling, overall_sampling }
            inert {
                verbose: "describes spans, and without a provider there is none",
                max_path_tag_length: "describes spans, and without a provider there is none",
                custom_tags: "describes spans, and without a provider there is none",
                spawn_upstream_span: "describes spans, and without a provider there is none",
                operation: "describes spans, and without a provider there is none",
                upstream_operation: "describes spans, and without a provider there is none",
                no_context_propagation: "without a provider no trace context is made to propagate",
            }
            unsupported { provider }
        });
        let percent = |field, proto| {
            at.field(field)
                .percent(proto)
                .map(|percent| percent.map_or(10_000, |Percent(p)| p))
        };
        Ok(Self {
            client_sampling: percent("client_sampling", client_sampling)?,
            random_sampling: percent("random_sampling", random_sampling)?,
            overall_sampling: percent("overall_sampling", overall_sampling)?,
        })
    }
}
