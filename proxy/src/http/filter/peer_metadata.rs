//! Istio's peer metadata over HTTP headers: sent, read, and taken out before the application or the client sees it.
//! Source: contract §5; envoy contrib/istio/filters/http/peer_metadata.
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use outrigger_model::http_filter::peer_metadata::PeerMetadata;
use outrigger_model::metadata::Value;

use super::{Decode, Decoding, Encoding, Filter};
use crate::telemetry::peer::{LocalPeer, LocalPeers, Peer};
use crate::upstream::cluster::Cluster;

const METADATA: HeaderName = HeaderName::from_static("x-envoy-peer-metadata");
const METADATA_ID: HeaderName = HeaderName::from_static("x-envoy-peer-metadata-id");

/// The filter.
#[derive(Debug)]
pub(crate) struct PeerMetadataFilter {
    config: PeerMetadata,
    local: Arc<LocalPeer>,
}

impl PeerMetadataFilter {
    pub(super) fn new(config: &PeerMetadata, local: &LocalPeers) -> Self {
        Self {
            config: config.clone(),
            local: local.with_labels(&config.additional_labels),
        }
    }

    fn put(&self, headers: &mut HeaderMap) {
        headers.insert(METADATA, self.local.metadata.clone());
        headers.insert(METADATA_ID, self.local.id.clone());
    }

    fn is_external(&self, cluster: &Cluster) -> bool {
        let marked = |key| matches!(cluster.config.metadata.get("istio", key), Some(Value::Bool(true)));
        &*cluster.name == "PassthroughCluster"
            || marked("disable_mx")
            || (self.config.skip_external_clusters && marked("external"))
    }
}

impl Filter for PeerMetadataFilter {
    fn decode(&self, request: &mut Decoding<'_>) -> Decode {
        let (state, headers) = (&mut *request.state, &mut request.head.headers);
        if self.config.downstream_discovery {
            state.answer_peer = headers.contains_key(METADATA) || headers.contains_key(METADATA_ID);
            state.downstream_peer = take(headers);
        } else {
            // Never passed on, also when nobody asked for it: it tells the workload's identity.
            drop_both(headers);
        }
        let is_external = request.cluster.is_some_and(|cluster| self.is_external(cluster));
        if self.config.upstream_propagation && !is_external {
            self.put(headers);
        }
        Decode::Continue
    }

    fn encode(&self, response: &mut Encoding<'_>) {
        let headers = &mut response.head.headers;
        if self.config.upstream_discovery {
            response.state.upstream_peer = take(headers);
        } else {
            drop_both(headers);
        }
        if self.config.downstream_propagation && response.state.answer_peer {
            self.put(headers);
        }
    }
}

/// Removes both headers; the peer when both could be read.
fn take(headers: &mut HeaderMap) -> Option<Arc<Peer>> {
    let metadata = headers.remove(METADATA);
    let id = headers.remove(METADATA_ID);
    Peer::of_headers(&id?, &metadata?)
}

fn drop_both(headers: &mut HeaderMap) {
    headers.remove(METADATA);
    headers.remove(METADATA_ID);
}
