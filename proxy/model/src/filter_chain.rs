//! Filter chains and when they apply. Source: envoy/config/listener/v3/listener_components.proto.
mod from_proto;

pub(crate) use from_proto::{list, transport_config};
use std::time::Duration;

use ipnet::IpNet;

use crate::hcm::HttpConnectionManager;
use crate::network_filter::istio_stats::IstioStats;
use crate::network_filter::limits::{ConnectionLimit, ConnectionRate};
use crate::network_filter::metadata_exchange::MetadataExchange;
use crate::network_filter::mongo_proxy::MongoProxy;
use crate::network_filter::tcp_proxy::TcpProxy;
use crate::tls::DownstreamTls;

/// What is done with a downstream connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterChain {
    /// Not unique under Istio (`virtualInbound` occurs several times).
    pub name: String,
    /// When it applies.
    pub matcher: FilterChainMatch,
    /// TLS; `None`: plaintext.
    pub tls: Option<DownstreamTls>,
    /// Limit for the handshake; `None`: no limit.
    pub transport_connect_timeout: Option<Duration>,
    /// Filters before the terminal one, in order.
    pub filters: Vec<NetworkFilter>,
    /// The filter that ends the chain.
    pub terminal: TerminalFilter,
}

/// Non-terminal network filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkFilter {
    /// `istio.metadata_exchange` (TCP).
    MetadataExchange(MetadataExchange),
    /// `istio.stats`.
    IstioStats(IstioStats),
    /// At most so many connections at once.
    ConnectionLimit(ConnectionLimit),
    /// At most so many connections in a time.
    ConnectionRate(Box<ConnectionRate>),
    /// MongoDB's counters.
    MongoProxy(Box<MongoProxy>),
}

/// Terminal network filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminalFilter {
    /// Bytes to a cluster.
    TcpProxy(Box<TcpProxy>),
    /// HTTP.
    Http(Box<HttpConnectionManager>),
}

/// Criteria; an empty list or `None` means "any". Matched as a sieve in the order of the fields, see `listener::filter_chain` in the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FilterChainMatch {
    /// Port of the (restored) destination.
    pub destination_port: Option<u16>,
    /// Destination ranges.
    pub prefix_ranges: Vec<IpNet>,
    /// SNI: exact, or `*.suffix` kept as `.suffix` with `wildcard`.
    pub server_names: Vec<ServerName>,
    /// `raw_buffer` or `tls`; empty: any.
    pub transport_protocol: String,
    /// ALPN of the ClientHello, or the HTTP inspector's verdict.
    pub application_protocols: Vec<String>,
    /// Ranges of the direct peer.
    pub direct_source_prefix_ranges: Vec<IpNet>,
    /// Same host or not.
    pub source_type: SourceType,
    /// Ranges of the peer.
    pub source_prefix_ranges: Vec<IpNet>,
    /// Ports of the peer.
    pub source_ports: Vec<u16>,
}

/// An SNI pattern, lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerName {
    /// Equals.
    Exact(String),
    /// Ends with `.suffix` (stored with the dot).
    Suffix(String),
}

/// Source: listener_components.proto `ConnectionSourceType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum SourceType {
    #[default]
    Any,
    SameIpOrLoopback,
    External,
}
