//! HTTP peer metadata (`io.istio.http.peer_metadata.Config`, a TypedStruct under Istio). Source: contract §5.
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::istio::{self, Discovery, Propagation};

/// Who tells whom by the headers `x-envoy-peer-metadata` and `x-envoy-peer-metadata-id`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerMetadata {
    /// The request's headers tell who the client is (inbound).
    pub downstream_discovery: bool,
    /// The response tells the client who this is, if it asked (inbound).
    pub downstream_propagation: bool,
    /// The response's headers tell who the server is (outbound).
    pub upstream_discovery: bool,
    /// The request tells the server who this is (outbound).
    pub upstream_propagation: bool,
    /// Not to clusters with metadata `istio.external`.
    pub skip_external_clusters: bool,
    /// Labels sent besides the usual ones.
    pub additional_labels: Vec<String>,
}

impl PeerMetadata {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: istio::PeerMetadata) -> Result<Self, Rejection> {
        verdicts!(at, proto => istio::PeerMetadata {
            supported {
                downstream_discovery, upstream_discovery, downstream_propagation, upstream_propagation, additional_labels,
            }
            inert { shared_with_upstream: "shares with internal listeners, and there are none" }
        });
        let downstream = propagation(at.field("downstream_propagation"), downstream_propagation);
        let upstream = propagation(at.field("upstream_propagation"), upstream_propagation);
        Ok(Self {
            downstream_discovery: discovery(at.field("downstream_discovery"), downstream_discovery),
            downstream_propagation: downstream.headers,
            upstream_discovery: discovery(at.field("upstream_discovery"), upstream_discovery),
            upstream_propagation: upstream.headers,
            skip_external_clusters: upstream.skip_external_clusters,
            additional_labels,
        })
    }
}

/// True if the headers are read.
fn discovery(at: FieldPath<'_>, protos: Vec<istio::DiscoveryMethod>) -> bool {
    choices!(Discovery {
        supported { IstioHeaders }
        partly {
            Baggage: "listed as without effect",
            WorkloadDiscovery: "asks a workload table that only exists with the bootstrap extension for it",
        }
    });
    let mut headers = false;
    for (index, proto) in protos.into_iter().enumerate() {
        let at = at.index(index);
        verdicts!(at, proto => istio::DiscoveryMethod { supported { method_specifier } });
        match method_specifier {
            Some(Discovery::IstioHeaders(_)) => headers = true,
            Some(Discovery::Baggage(_)) => at.field("baggage").problem("has no effect here"),
            Some(Discovery::WorkloadDiscovery(_)) | None => (),
        }
    }
    headers
}

#[derive(Default)]
struct Told {
    headers: bool,
    skip_external_clusters: bool,
}

fn propagation(at: FieldPath<'_>, protos: Vec<istio::PropagationMethod>) -> Told {
    choices!(Propagation {
        supported { IstioHeaders }
        partly { Baggage: "listed as without effect" }
    });
    let mut told = Told::default();
    for (index, proto) in protos.into_iter().enumerate() {
        let at = at.index(index);
        verdicts!(at, proto => istio::PropagationMethod { supported { method_specifier } });
        match method_specifier {
            Some(Propagation::IstioHeaders(proto)) => {
                verdicts!(at, proto => istio::IstioHeaders { supported { skip_external_clusters } });
                told = Told {
                    headers: true,
                    skip_external_clusters,
                };
            }
            Some(Propagation::Baggage(_)) => at.field("baggage").problem("has no effect here"),
            None => (),
        }
    }
    told
}
