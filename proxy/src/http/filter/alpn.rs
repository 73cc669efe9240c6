//! `istio.alpn`: what ALPN the upstream TLS handshake offers, by the HTTP version spoken upstream.
//! Source: envoy contrib/istio/filters/http/alpn; off for clusters with metadata `istio.alpn_override: "false"`.
use http::Version;
use outrigger_model::cluster::UpstreamHttpVersion;
use outrigger_model::http_filter::alpn::Alpn;

use super::{Decode, Decoding, Filter};
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
}

impl Filter for AlpnFilter {
    fn decode(&self, request: &mut Decoding<'_>) -> Decode {
        let Some(cluster) = request.cluster else {
            return Decode::Continue;
        };
        let off = cluster
            .config
            .metadata
            .get("istio", "alpn_override")
            .and_then(|value| value.as_str())
            == Some("false");
        if off {
            return Decode::Continue;
        }
        let list = match (cluster.config.http.version, request.head.version) {
            (UpstreamHttpVersion::Http2, _) | (UpstreamHttpVersion::Downstream, Version::HTTP_2) => {
                &self.http2
            }
            (UpstreamHttpVersion::Downstream, Version::HTTP_10) => &self.http10,
            (UpstreamHttpVersion::Http1 | UpstreamHttpVersion::Downstream, _) => &self.http11,
        };
        request.state.alpn.clone_from(list);
        Decode::Continue
    }
}
