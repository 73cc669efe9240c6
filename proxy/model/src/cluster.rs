//! Clusters. Source: envoy/config/cluster/v3/cluster.proto; what Istio sets: contract §1.8.
mod from_proto;
mod http;

use std::net::SocketAddr;
use std::time::Duration;

use crate::bootstrap::ConfigSource;
use crate::endpoint::LoadAssignment;
use crate::metadata::{Metadata, Struct};
use crate::network_filter::metadata_exchange::MetadataExchange;
use crate::tls::UpstreamTls;

/// A cluster's name, the key by which everything refers to it.
pub type ClusterName = String;

/// One upstream service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Unique.
    pub name: ClusterName,
    /// Name used in stats (`alt_stat_name`, Istio ends it with `;`); the name when unset.
    pub stat_name: String,
    /// How endpoints are found.
    pub discovery: Discovery,
    /// TCP (and with TLS: handshake) time limit; Envoy's default 5 s.
    pub connect_timeout: Duration,
    /// How an endpoint is chosen.
    pub lb_policy: LbPolicy,
    /// Percent of healthy hosts below which health is ignored; 50 when unset, 0 for a present but empty `healthy_panic_threshold`
    /// (cluster.proto: `type.v3.Percent`'s default value is 0).
    pub healthy_panic_threshold_percent: Percent,
    /// Limits for the DEFAULT priority.
    pub circuit_breaker: CircuitBreaker,
    /// How requests are spoken to it.
    pub http: HttpProtocol,
    /// Source address of upstream connections (127.0.0.6 for Istio's inbound clusters; port 0: any).
    pub bind_source: Option<SocketAddr>,
    /// The first whose `criteria` all equal the endpoint's `envoy.transport_socket_match` metadata wins; empty criteria match all.
    pub transport_socket_matches: Vec<TransportSocketMatch>,
    /// Used when no match applies.
    pub transport_socket: UpstreamTransport,
    /// TCP metadata exchange on connections with ALPN `istio-peer-exchange`: a cluster filter at the client (contract §5).
    pub metadata_exchange: Option<MetadataExchange>,
    /// TCP keepalive; `None`: the system's.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Filter metadata (`istio.services`, `istio.config`, …).
    pub metadata: Metadata,
    /// Bytes of a request body that are kept for a retry; Envoy's default 1 MiB.
    pub buffer_limit_bytes: u32,
}

/// A percentage in hundredths of a percent, 0..=10_000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u32);

/// How endpoints are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// Written in the cluster.
    Static(LoadAssignment),
    /// Endpoint discovery under this service name (the cluster's name when unset).
    Eds {
        /// Name to subscribe.
        service_name: String,
        /// Who serves it.
        source: ConfigSource,
    },
    /// Each connection goes to the address that the client dialled.
    OriginalDst,
    /// Every address that DNS returns is an endpoint.
    StrictDns(LoadAssignment),
    /// One address at a time.
    LogicalDns(LoadAssignment),
}

/// Load balancing policies of this slice; others are rejected by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LbPolicy {
    /// Power of `choice_count` (default 2) choices by active requests. Source: least_request.proto.
    LeastRequest {
        /// 2..
        choice_count: u32,
    },
    /// Weighted round robin.
    RoundRobin,
    /// Uniform.
    Random,
    /// ORIGINAL_DST chooses by itself.
    ClusterProvided,
}

/// Limits; `u32::MAX` under Istio unless a DestinationRule sets them. Envoy's defaults: 1024, 1024, 1024, 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CircuitBreaker {
    pub max_connections: u32,
    pub max_pending_requests: u32,
    pub max_requests: u32,
    pub max_retries: u32,
}

/// HTTP towards the cluster. Source: envoy/extensions/upstreams/http/v3/http_protocol_options.proto.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProtocol {
    /// Which version.
    pub version: UpstreamHttpVersion,
    /// A pooled connection without requests closes after this; Envoy's default 1 h, `None`: never.
    pub idle_timeout: Option<Duration>,
    /// A connection is closed (drained) at this age.
    pub max_connection_duration: Option<Duration>,
    /// A connection serves at most this many requests; 0: no limit.
    pub max_requests_per_connection: u32,
    /// HTTP/2 settings.
    pub http2: Http2Options,
}

/// Which HTTP version is spoken upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamHttpVersion {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge or ALPN.
    Http2,
    /// What the client speaks (`use_downstream_protocol_config`).
    Downstream,
}

/// HTTP/2 settings; Envoy's defaults: 1024 streams (2^31-1 before 1.36), 16 MiB stream and 24 MiB connection window in 1.40.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Options {
    /// SETTINGS_MAX_CONCURRENT_STREAMS.
    pub max_concurrent_streams: u32,
    /// Bytes.
    pub initial_stream_window_bytes: u32,
    /// Bytes.
    pub initial_connection_window_bytes: u32,
}

/// A transport socket for endpoints with these labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportSocketMatch {
    /// All must equal.
    pub criteria: Struct,
    /// The socket.
    pub transport: UpstreamTransport,
}

/// Transport towards an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamTransport {
    /// Plaintext.
    RawBuffer,
    /// TLS.
    Tls(Box<UpstreamTls>),
}

/// TCP keepalive; unset members: the system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Probes before the connection is given up.
    pub probes: Option<u32>,
    /// Idle time before the first.
    pub time: Option<Duration>,
    /// Between probes.
    pub interval: Option<Duration>,
}
