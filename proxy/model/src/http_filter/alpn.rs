//! `istio.alpn` (`istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig`). Source: envoy contrib/istio/filters/http/alpn.
use crate::field::{FieldPath, Rejection, verdicts};
use crate::istio;

/// ALPN offered upstream by the protocol of the upstream request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Alpn {
    /// For HTTP/1.0 requests.
    pub http10: Vec<String>,
    /// For HTTP/1.1 requests.
    pub http11: Vec<String>,
    /// For HTTP/2 requests.
    pub http2: Vec<String>,
}

impl Alpn {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: istio::AlpnConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => istio::AlpnConfig { supported { alpn_override } });
        let mut alpn = Self::default();
        for (index, proto) in alpn_override.into_iter().enumerate() {
            let at = at.field("alpn_override").index(index);
            verdicts!(at, proto => istio::AlpnOverride { supported { upstream_protocol, alpn_override } });
            // As in Envoy the last entry of a protocol wins.
            match upstream_protocol {
                0 => alpn.http10 = alpn_override,
                1 => alpn.http11 = alpn_override,
                2 => alpn.http2 = alpn_override,
                other => {
                    let reason = format!("{other} is none of HTTP10 (0), HTTP11 (1) and HTTP2 (2)");
                    return Err(at.field("upstream_protocol").reject(reason));
                }
            }
        }
        Ok(alpn)
    }
}
