//! Istio's peer metadata over HTTP headers: sent, read, and taken out before the application or the client sees it.
//! Source: contract §5; envoy contrib/istio/filters/http/peer_metadata.
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use outrigger_model::http_filter::peer_metadata::PeerMetadata;
use outrigger_model::metadata::Value;

use super::FilterState;
use crate::codec::{RequestHead, ResponseHead};
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

    pub(super) fn decode(&self, state: &mut FilterState, head: &mut RequestHead, cluster: Option<&Cluster>) {
        if self.config.downstream_discovery {
            state.answer_peer = head.headers.contains_key(METADATA) || head.headers.contains_key(METADATA_ID);
            state.downstream_peer = take(&mut head.headers);
        } else {
            // Never passed on, also when nobody asked for it: it tells the workload's identity.
            drop_both(&mut head.headers);
        }
        if self.config.upstream_propagation && !cluster.is_some_and(|cluster| self.is_external(cluster)) {
            self.put(&mut head.headers);
        }
    }

    pub(super) fn encode(&self, state: &mut FilterState, head: &mut ResponseHead) {
        if self.config.upstream_discovery {
            state.upstream_peer = take(&mut head.headers);
        } else {
            drop_both(&mut head.headers);
        }
        if self.config.downstream_propagation && state.answer_peer {
            self.put(&mut head.headers);
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
