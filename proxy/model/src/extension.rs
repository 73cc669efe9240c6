//! Extensions of Envoy that istiod or users of EnvoyFilter may send and that have no behaviour here. What has one is refused by name,
//! with what will build it, or why nothing will; `docs/compat.md` lists them.

/// What becomes of an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builder {
    /// The issue that builds it.
    Issue(&'static str),
    /// Why nothing will.
    Never(&'static str),
}

use Builder::{Issue, Never};

const DATABASE: Builder = Never("it only counts, and Istio leaves it off");
const GATEWAY: Builder = Never("Istio sets it at gateways only");
const RARE: Builder = Never("Istio does not send it");

/// Message types by name, in alphabetical order.
pub(crate) const EXTENSIONS: [(&str, Builder); 47] = [
    (
        "envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
        RARE,
    ),
    (
        "envoy.extensions.filters.http.admission_control.v3.AdmissionControl",
        RARE,
    ),
    (
        "envoy.extensions.filters.http.bandwidth_limit.v3.BandwidthLimit",
        RARE,
    ),
    (
        "envoy.extensions.filters.http.basic_auth.v3.BasicAuth",
        Issue("security"),
    ),
    ("envoy.extensions.filters.http.cache.v3.CacheConfig", RARE),
    ("envoy.extensions.filters.http.composite.v3.Composite", RARE),
    (
        "envoy.extensions.filters.http.connect_grpc_bridge.v3.FilterConfig",
        RARE,
    ),
    (
        "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
        GATEWAY,
    ),
    (
        "envoy.extensions.filters.http.custom_response.v3.CustomResponse",
        RARE,
    ),
    (
        "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig",
        Issue("traffic"),
    ),
    (
        "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
        Issue("extensions"),
    ),
    (
        "envoy.extensions.filters.http.gcp_authn.v3.GcpAuthnFilterConfig",
        RARE,
    ),
    (
        "envoy.extensions.filters.http.grpc_http1_bridge.v3.Config",
        Issue("traffic"),
    ),
    (
        "envoy.extensions.filters.http.grpc_http1_reverse_bridge.v3.FilterConfig",
        RARE,
    ),
    (
        "envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        Issue("extensions"),
    ),
    (
        "envoy.extensions.filters.http.header_to_metadata.v3.Config",
        Issue("traffic"),
    ),
    ("envoy.extensions.filters.http.ip_tagging.v3.IPTagging", RARE),
    (
        "envoy.extensions.filters.http.json_to_metadata.v3.JsonToMetadata",
        RARE,
    ),
    ("envoy.extensions.filters.http.lua.v3.Lua", Issue("extensions")),
    (
        "envoy.extensions.filters.http.oauth2.v3.OAuth2",
        Issue("security"),
    ),
    (
        "envoy.extensions.filters.http.on_demand.v3.OnDemand",
        Never("istiod serves nothing on demand"),
    ),
    ("envoy.extensions.filters.http.original_src.v3.OriginalSrc", RARE),
    (
        "envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig",
        RARE,
    ),
    (
        "envoy.extensions.filters.http.set_filter_state.v3.Config",
        Issue("traffic"),
    ),
    (
        "envoy.extensions.filters.http.set_metadata.v3.Config",
        Issue("traffic"),
    ),
    ("envoy.extensions.filters.http.tap.v3.Tap", RARE),
    ("envoy.extensions.filters.http.wasm.v3.Wasm", Issue("extensions")),
    ("envoy.extensions.filters.network.direct_response.v3.Config", RARE),
    ("envoy.extensions.filters.network.dubbo_proxy.v3.DubboProxy", RARE),
    ("envoy.extensions.filters.network.echo.v3.Echo", RARE),
    (
        "envoy.extensions.filters.network.ext_proc.v3.NetworkExternalProcessor",
        RARE,
    ),
    (
        "envoy.extensions.filters.network.mysql_proxy.v3.MySQLProxy",
        DATABASE,
    ),
    (
        "envoy.extensions.filters.network.postgres_proxy.v3alpha.PostgresProxy",
        DATABASE,
    ),
    (
        "envoy.extensions.filters.network.ratelimit.v3.RateLimit",
        Issue("traffic"),
    ),
    (
        "envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
        Never("Istio leaves it off"),
    ),
    (
        "envoy.extensions.filters.network.set_filter_state.v3.Config",
        Issue("traffic"),
    ),
    (
        "envoy.extensions.filters.network.sni_cluster.v3.SniCluster",
        GATEWAY,
    ),
    (
        "envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
        Issue("traffic"),
    ),
    (
        "envoy.extensions.filters.network.thrift_proxy.v3.ThriftProxy",
        RARE,
    ),
    (
        "envoy.extensions.filters.network.wasm.v3.Wasm",
        Issue("extensions"),
    ),
    (
        "envoy.extensions.filters.network.zookeeper_proxy.v3.ZooKeeperProxy",
        DATABASE,
    ),
    (
        "envoy.extensions.filters.udp.dns_filter.v3.DnsFilterConfig",
        Never("names are resolved by the agent's DNS server"),
    ),
    (
        "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
        Never("it serves HBONE, which sidecars leave off"),
    ),
    (
        "envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport",
        Never("HTTP/3, which Istio does not configure"),
    ),
    (
        "envoy.extensions.transport_sockets.starttls.v3.StartTlsConfig",
        RARE,
    ),
    ("envoy.extensions.transport_sockets.tap.v3.Tap", RARE),
    (
        "envoy.extensions.transport_sockets.tcp_stats.v3.Config",
        Issue("telemetry"),
    ),
];

/// What becomes of the extension of this type; `None`: nobody knows it.
pub(crate) fn builder(type_name: &str) -> Option<Builder> {
    let place = EXTENSIONS.iter().find(|(known, _)| *known == type_name)?;
    Some(place.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_extension_in_the_list_stands_once() {
        assert!(
            EXTENSIONS.is_sorted_by(|left, right| left.0 < right.0),
            "sorted, and no name twice"
        );
    }
}
