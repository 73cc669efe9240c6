//! The bootstrap file. Source: envoy/config/bootstrap/v3/bootstrap.proto; contract §2.2.
mod config_source;
mod from_proto;
mod limits;
mod stats;

pub use limits::ConnectionLimits;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::{Cluster, ClusterName};
use crate::listener::Listener;
use crate::matcher::StringMatcher;
use crate::node::Node;
use crate::secret::Secret;
use crate::socket::SocketOption;

/// What the process starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// Who this proxy is.
    pub node: Node,
    /// Admin endpoint; `None`: no admin server.
    pub admin: Option<SocketAddr>,
    /// Of the admin endpoint's socket.
    pub admin_socket_options: Vec<SocketOption>,
    /// Static listeners.
    pub listeners: Vec<Listener>,
    /// Static clusters; EDS is allowed here.
    pub clusters: Vec<Cluster>,
    /// Static secrets.
    pub secrets: Vec<Secret>,
    /// The cluster of the proxies that are like this one, for zone aware routing; one of the static ones.
    pub local_cluster_name: Option<ClusterName>,
    /// The aggregated discovery service.
    pub ads: Option<AdsConfig>,
    /// Who serves listeners; `None`: only static ones.
    pub lds: Option<ConfigSource>,
    /// Who serves clusters; `None`: only static ones.
    pub cds: Option<ConfigSource>,
    /// Tag extraction for stats (`stats_config.stats_tags`), in order.
    pub stats_tags: Vec<StatsTag>,
    /// How many downstream connections there may be.
    pub connection_limits: ConnectionLimits,
    /// Which stats there are.
    pub stats_inclusion: StatsInclusion,
    /// Bounds of histograms in Prometheus' format; the first that matches the whole name counts.
    pub histogram_buckets: Vec<HistogramBuckets>,
}

/// Which stats there are, by their whole names. Source: stats.proto `StatsMatcher`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StatsInclusion {
    /// Every one.
    #[default]
    All,
    /// Those that one of these matches.
    Only(Vec<StringMatcher>),
    /// Those that none of these matches.
    AllBut(Vec<StringMatcher>),
}

/// Bounds of some histograms. Source: stats.proto `HistogramBucketSettings`.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramBuckets {
    /// Whole names of histograms.
    pub matcher: StringMatcher,
    /// Upper bounds, above 0 and rising.
    pub bounds: Vec<f64>,
}

/// Bounds are finite.
impl Eq for HistogramBuckets {}

/// One tag rule. Source: envoy/config/metrics/v3/stats.proto `TagSpecifier`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsTag {
    /// Label name.
    pub name: String,
    /// What gives its value.
    pub value: StatsTagValue,
}

/// Where a tag's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatsTagValue {
    /// Group 1 is removed from the name, group 2 (else 1) is the value. May use look-ahead: Rust's `regex` cannot run it.
    Regex(String),
    /// Always this.
    Fixed(String),
}

/// How ADS is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdsConfig {
    /// Delta or state of the world.
    pub mode: AdsMode,
    /// The control plane.
    pub server: GrpcServer,
}

/// A server of configuration that is asked over gRPC. Source: envoy/config/core/v3/grpc_service.proto.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrpcServer {
    /// Static cluster of the control plane.
    pub cluster: ClusterName,
    /// Headers of every stream: names in lower case, and values (`initial_metadata`).
    pub metadata: Vec<(String, String)>,
}

impl GrpcServer {
    /// One that gets no headers of ours.
    pub fn of(cluster: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            metadata: Vec::new(),
        }
    }
}

/// Source: config_source.proto `ApiType` GRPC and DELTA_GRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum AdsMode {
    Delta,
    Sotw,
}

/// Who serves a resource. Source: envoy/config/core/v3/config_source.proto.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConfigSource {
    /// The server.
    pub server: ConfigServer,
    /// How long warming waits for it; Envoy's default 15 s; `None`: for ever (`0s`).
    pub initial_fetch_timeout: Option<Duration>,
}

/// Who serves a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConfigServer {
    /// The ADS stream.
    Ads,
    /// A gRPC stream of its own, SotW.
    Grpc(GrpcServer),
    /// A gRPC stream of its own, delta.
    DeltaGrpc(GrpcServer),
    /// HTTP requests again and again to a static cluster.
    Rest(RestServer),
    /// A file that holds a `DiscoveryResponse`.
    Path(PathBuf),
}

/// A server that is polled. Source: config_source.proto `ApiType` REST.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RestServer {
    /// Static cluster of the control plane.
    pub cluster: ClusterName,
    /// Between polls; above 0.
    pub refresh_delay: Duration,
    /// Limit of one poll; Envoy's default 1 s.
    pub request_timeout: Duration,
}
