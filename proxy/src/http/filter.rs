//! HTTP filters: called in order with the request head, in reverse with the response head.
//!
//! `fault` and `cors` have no rule in this slice (the model refuses rules); `grpc_stats` and `istio.stats` count, which is the stream's
//! (`stream::metrics`). A filter that does nothing with heads is not in the list at run time.
mod alpn;
mod peer_metadata;

use std::sync::Arc;

use outrigger_model::http_filter::HttpFilter;

use crate::codec::{RequestHead, ResponseHead};
use crate::telemetry::peer::{LocalPeers, Peer};
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::AlpnOverride;

/// One filter at run time.
#[derive(Debug)]
pub(crate) enum Filter {
    /// Peer metadata over headers.
    PeerMetadata(peer_metadata::PeerMetadataFilter),
    /// Upstream ALPN.
    Alpn(alpn::AlpnFilter),
}

/// What filters of one stream tell each other and the router.
#[derive(Debug, Default)]
pub(crate) struct FilterState {
    /// Replaces the ALPN protocols of the upstream TLS context.
    pub(crate) alpn: Option<AlpnOverride>,
    /// The client sent peer metadata, so the response carries ours.
    answer_peer: bool,
    /// Who the client is.
    pub(crate) downstream_peer: Option<Arc<Peer>>,
    /// Who the server is.
    pub(crate) upstream_peer: Option<Arc<Peer>>,
}

impl Filter {
    /// Builds the runtime filter; `None`: it does nothing with heads.
    pub(crate) fn new(config: &HttpFilter, local: &LocalPeers) -> Option<Self> {
        match config {
            HttpFilter::PeerMetadata(config) => Some(Self::PeerMetadata(
                peer_metadata::PeerMetadataFilter::new(config, local),
            )),
            HttpFilter::Alpn(config) => Some(Self::Alpn(alpn::AlpnFilter::new(config))),
            HttpFilter::GrpcStats(_)
            | HttpFilter::Fault(_)
            | HttpFilter::Cors(_)
            | HttpFilter::LocalRateLimit(_)
            | HttpFilter::StatefulSession(_)
            | HttpFilter::GrpcWeb
            | HttpFilter::IstioStats(_) => None,
        }
    }

    /// The request on its way up. `cluster` is where it will go, if that is known.
    pub(crate) fn decode(&self, state: &mut FilterState, head: &mut RequestHead, cluster: Option<&Cluster>) {
        match self {
            Self::PeerMetadata(filter) => filter.decode(state, head, cluster),
            Self::Alpn(filter) => filter.decode(state, head, cluster),
        }
    }

    /// The response on its way down.
    pub(crate) fn encode(&self, state: &mut FilterState, head: &mut ResponseHead) {
        match self {
            Self::PeerMetadata(filter) => filter.encode(state, head),
            Self::Alpn(_) => {}
        }
    }
}
