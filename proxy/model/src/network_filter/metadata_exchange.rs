//! TCP metadata exchange (`envoy.tcp.metadataexchange.config.MetadataExchange`, a TypedStruct under Istio). Source: contract §5.
use crate::field::{FieldPath, Rejection, verdicts};
use crate::istio;

/// Both sides write who they are before the stream's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataExchange {
    /// The ALPN protocol that asks for it: `istio-peer-exchange`.
    pub protocol: String,
    /// Labels sent besides the usual ones.
    pub additional_labels: Vec<String>,
}

impl MetadataExchange {
    /// Converts the filter of a listener or of a cluster.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: istio::MetadataExchange) -> Result<Self, Rejection> {
        verdicts!(at, proto => istio::MetadataExchange {
            supported { protocol, additional_labels }
            inert { enable_discovery: "asks a workload table that only exists with the bootstrap extension for it" }
        });
        Ok(Self {
            protocol: at.field("protocol").not_empty(protocol)?,
            additional_labels,
        })
    }
}
