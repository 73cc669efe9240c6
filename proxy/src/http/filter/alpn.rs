//! `istio.alpn`: what ALPN the upstream TLS handshake offers, by the HTTP version spoken upstream.
//! Source: envoy contrib/istio/filters/http/alpn; off for clusters with metadata `istio.alpn_override: "false"`.
use http::Version;
use outrigger_model::cluster::UpstreamHttpVersion;
use outrigger_model::http_filter::alpn::Alpn;

use super::FilterState;
use crate::codec::RequestHead;
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::AlpnOverride;

/// The three lists; the same `Arc` for every request, since pools are keyed by it.
#[derive(Debug)]
pub(crate) struct AlpnFilter {
    http10: Option<AlpnOverride>,
    http11: Option<AlpnOverride>,
    http2: Option<AlpnOverride>,
}

impl AlpnFilter {
    pub(super) fn new(config: &Alpn) -> Self {
        let list = |protocols: &Vec<String>| -> Option<AlpnOverride> {
            (!protocols.is_empty()).then(|| {
                protocols
                    .iter()
                    .map(|protocol| protocol.clone().into_bytes())
                    .collect()
            })
        };
        Self {
            http10: list(&config.http10),
            http11: list(&config.http11),
            http2: list(&config.http2),
        }
    }

    pub(super) fn decode(&self, state: &mut FilterState, head: &RequestHead, cluster: Option<&Cluster>) {
        let Some(cluster) = cluster else { return };
        let off = cluster
            .config
            .metadata
            .get("istio", "alpn_override")
            .and_then(|value| value.as_str())
            == Some("false");
        if off {
            return;
        }
        let list = match (cluster.config.http.version, head.version) {
            (UpstreamHttpVersion::Http2, _) | (UpstreamHttpVersion::Downstream, Version::HTTP_2) => {
                &self.http2
            }
            (UpstreamHttpVersion::Downstream, Version::HTTP_10) => &self.http10,
            (UpstreamHttpVersion::Http1 | UpstreamHttpVersion::Downstream, _) => &self.http11,
        };
        state.alpn.clone_from(list);
    }
}
