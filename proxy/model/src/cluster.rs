//! Clusters. Source: envoy/config/cluster/v3/cluster.proto; what Istio sets: contract §1.8.
mod dns;
mod from_proto;
pub mod grpc_health;
mod health_check;
mod http;
mod lb;
mod outlier;

use std::net::SocketAddr;
use std::time::Duration;

use crate::address::Address;
use crate::bootstrap::ConfigSource;
use crate::endpoint::{Health, LoadAssignment};
use crate::fraction::Decimal;
use crate::matcher::ResponsePredicate;
use crate::metadata::{Metadata, Struct};
use crate::network_filter::metadata_exchange::MetadataExchange;
use crate::proxy_protocol::UpstreamHeader;
use crate::route::{HashPolicy, MirrorPolicy, RetryPolicy};
use crate::tls::UpstreamTls;

pub use health_check::{HealthCheck, HealthChecker};

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
    /// ORIGINAL_DST connects to this port of the dialled address; `None`: to the dialled one.
    pub original_dst_port: Option<u16>,
    /// ORIGINAL_DST connects to the address in this header of a request, lower case, if there is one; `None`: to the dialled one.
    pub original_dst_header: Option<String>,
    /// A new host's share grows over some time; `None`: at once.
    pub slow_start: Option<SlowStart>,
    /// How much active requests count against a host's weight; Envoy's default 1.
    pub active_request_bias: Option<Decimal>,
    /// Whether localities or zones have a share of their own.
    pub locality: LocalityMode,
    /// Requests may ask for hosts with some labels; `None`: all hosts are for all.
    pub subsets: Option<Box<SubsetPolicy>>,
    /// A consistent hash leaves a host that has more than this percentage of the average load, 100..; `None`: never.
    pub hash_balance_factor: Option<u32>,
    /// Consistent hashes take a host's name, not its address.
    pub hash_by_hostname: bool,
    /// Health that a host chosen by a session may have; empty: UNKNOWN, HEALTHY and DEGRADED.
    pub override_host_status: Vec<Health>,
    /// Headers, lower case, with the addresses of hosts to try first, one an attempt (`load_balancing_policies.override_host`).
    pub override_host_headers: Vec<String>,
    /// Hosts that are gone from an assignment are not kept until they fail their active checks.
    pub removes_healthy_hosts: bool,
    /// Connections are used no more when hosts come or go.
    pub closes_on_host_change: bool,
    /// Nobody may use it before its names are resolved.
    pub waits_for_names: bool,
    /// New hosts count only after their first health check.
    pub new_hosts_wait_for_health: bool,
    /// Hosts that answer badly are left out for a while; `None`: never.
    pub outlier_detection: Option<Box<OutlierDetection>>,
    /// Hosts are asked whether they are well.
    pub health_checks: Vec<HealthCheck>,
    /// Connections to hosts that fail active checks are closed.
    pub closes_on_failed_check: bool,
    /// How names are resolved.
    pub dns: Dns,
    /// Limits for the DEFAULT priority.
    pub circuit_breaker: CircuitBreaker,
    /// Limits for the HIGH priority.
    pub circuit_breaker_high: CircuitBreaker,
    /// How requests are spoken to it.
    pub http: HttpProtocol,
    /// What it says of requests in place of their routes; `None`: nothing.
    pub request_policies: Option<Box<RequestPolicies>>,
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
    /// So many connections for each request that goes to a host, 1..=3; `None`: as many as there are requests.
    pub preconnect_ratio: Option<Decimal>,
    /// Which of several addresses of a host is tried first.
    pub happy_eyeballs: HappyEyeballs,
    /// Filter metadata (`istio.services`, `istio.config`, …).
    pub metadata: Metadata,
}

/// A percentage in hundredths of a percent, 0..=10_000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u32);

/// A time that differs a little from case to case, so that what begins together does not end together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jittered {
    /// Without what is added.
    pub shortest: Duration,
    /// Of it, up to this share is added at random.
    pub added_at_most: Percent,
}

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

/// Load balancing policies. Source: cluster.proto `LbPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LbPolicy {
    /// Power of `choice_count` (default 2) choices by active requests. Source: least_request.proto.
    LeastRequest {
        /// 2..
        choice_count: u32,
        /// All hosts are looked at instead, if their weights are equal.
        scans_all: bool,
    },
    /// Weighted round robin.
    RoundRobin,
    /// Uniform.
    Random,
    /// The quicker of two by their latest answers and active requests; of Envoy's contrib build.
    PeakEwma {
        /// Time in which a measurement fades.
        decay: Duration,
        /// Of hosts that have not answered yet.
        default_rtt: Duration,
    },
    /// ORIGINAL_DST chooses by itself.
    ClusterProvided,
    /// Ketama.
    RingHash {
        /// Entries at least, 0..=8 Mi; Envoy's default 1024.
        minimum_size: u64,
        /// Entries at most; Envoy's default 8 Mi.
        maximum_size: u64,
        /// Of hosts and keys.
        function: HashFunction,
    },
    /// Maglev.
    Maglev {
        /// A prime number; Envoy's default 65537.
        table_size: u64,
    },
}

/// Source: cluster.proto `RingHashLbConfig.HashFunction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum HashFunction {
    #[default]
    XxHash,
    MurmurHash2,
}

/// A new host's weight grows as `weight × max(min_weight, elapsed / window ^ (1 / aggression))`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowStart {
    /// Until the weight is whole.
    pub window: Duration,
    /// Above 0; Envoy's default 1: linear.
    pub aggression: Decimal,
    /// Envoy's default 10 %.
    pub min_weight: Percent,
}

/// How localities share the load of their priority. Source: cluster.proto `CommonLbConfig.locality_config_specifier`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalityMode {
    /// By their `load_balancing_weight`.
    Weighted,
    /// This proxy's own zone first, where a local cluster says who its peers are; else by their hosts alone.
    ZoneAware(ZoneAware),
}

impl Default for LocalityMode {
    fn default() -> Self {
        Self::ZoneAware(ZoneAware::default())
    }
}

/// When requests stay in this proxy's own zone. Source: cluster.proto `ZoneAwareLbConfig`; locality_lb.proto.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneAware {
    /// In panic no host is used.
    pub fail_on_panic: bool,
    /// Of this share of requests; Envoy's default 100.
    pub routing_percent: u32,
    /// With fewer healthy hosts zones do not count; Envoy's default 6.
    pub min_cluster_size: u64,
    /// With so many healthy hosts in the own zone all requests stay there; `None`: only if that is even.
    pub forced_min_size: Option<u32>,
    /// Zones are compared by the weights of their hosts, and not by their number.
    pub compares_weights: bool,
}

impl Default for ZoneAware {
    fn default() -> Self {
        Self {
            fail_on_panic: false,
            routing_percent: 100,
            min_cluster_size: 6,
            forced_min_size: None,
            compares_weights: false,
        }
    }
}

/// Hosts by their labels (`envoy.lb` metadata). Source: cluster.proto `LbSubsetConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsetPolicy {
    /// By which labels there are subsets; never empty.
    pub selectors: Vec<SubsetSelector>,
    /// For requests that ask for no subset, or for one without hosts.
    pub fallback: SubsetFallback,
    /// Labels of the hosts of [`SubsetFallback::Default`]; empty: any host.
    pub default_subset: Struct,
    /// Weights of localities count inside a subset.
    pub weighs_localities: bool,
    /// They count as far as the locality's hosts are in the subset.
    pub scales_locality_weights: bool,
    /// Any host is used when the fallback has none.
    pub panics_to_any: bool,
    /// A host whose label is a list has each value of it.
    pub list_matches_any: bool,
    /// A request may ask for labels that no selector has; the selector with the most keys counts.
    pub allows_other_labels: bool,
    /// `fallback_list` of a request's labels says what to try, one after the other.
    pub takes_fallback_list: bool,
}

/// One set of labels by which there are subsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsetSelector {
    /// Names of the labels, sorted; never empty.
    pub keys: Vec<String>,
    /// For requests with these labels for which there is no subset.
    pub fallback: SelectorFallback,
    /// A subset is the first host that has the label.
    pub is_single_host: bool,
}

/// Who gets a request without a subset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SubsetFallback {
    Nobody,
    Any,
    Default,
}

/// The same for one selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectorFallback {
    /// As the cluster says.
    OfCluster,
    /// Nobody.
    Nobody,
    /// Any host.
    Any,
    /// Those of the default subset.
    Default,
    /// Looked for once more by these labels alone, sorted.
    Fewer(Vec<String>),
}

/// When a host is left out, and for how long. Percentages are 0..=100.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct OutlierDetection {
    pub consecutive_5xx: u32,
    pub consecutive_gateway_failure: u32,
    pub consecutive_local_origin_failure: u32,
    pub interval: Duration,
    pub base_ejection_time: Duration,
    pub max_ejection_time: Duration,
    pub max_ejection_time_jitter: Duration,
    pub max_ejection_percent: u32,
    pub enforcing_consecutive_5xx: u32,
    pub enforcing_consecutive_gateway_failure: u32,
    pub enforcing_consecutive_local_origin_failure: u32,
    pub enforcing_success_rate: u32,
    pub enforcing_local_origin_success_rate: u32,
    pub success_rate_minimum_hosts: u32,
    pub success_rate_request_volume: u32,
    /// Thousandths.
    pub success_rate_stdev_factor: u32,
    pub failure_percentage_threshold: u32,
    pub enforcing_failure_percentage: u32,
    pub enforcing_failure_percentage_local_origin: u32,
    pub failure_percentage_minimum_hosts: u32,
    pub failure_percentage_request_volume: u32,
    /// Errors of this side count apart from those of the server.
    pub splits_local_origin_errors: bool,
    /// A passed health check ends an ejection.
    pub successful_health_check_unejects: bool,
    /// One host may be left out whatever `max_ejection_percent` says.
    pub always_ejects_one_host: bool,
    /// A host that says of itself that it is degraded is taken for that for a while.
    pub detects_degraded_hosts: bool,
}

/// How names are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Time between two questions; Envoy's default 5 s.
    pub refresh_rate: Duration,
    /// First and longest time until the next question after a failure.
    pub failure_refresh_rate: (Duration, Duration),
    /// At most so much is added to the time until the next question.
    pub jitter: Duration,
    /// The answer's TTL takes the place of `refresh_rate`.
    pub respects_ttl: bool,
    /// Which addresses are wanted.
    pub family: DnsLookupFamily,
    /// Who is asked.
    pub resolver: DnsResolver,
}

/// Who is asked for names, and how. Source: cares_dns_resolver.proto; resolver.proto `DnsResolverOptions`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsResolver {
    /// Name servers; empty: the system's.
    pub servers: Vec<Address>,
    /// The system's servers go first, where it has some.
    pub is_fallback: bool,
    /// Never over UDP.
    pub uses_tcp: bool,
    /// The system's search domains are not tried.
    pub is_absolute: bool,
    /// For one answer of one server; `None`: as the system says.
    pub query_timeout: Option<Duration>,
    /// How often all servers are asked; `None`: as the system says.
    pub query_tries: Option<u32>,
    /// Begins with any of the servers, not with the first.
    pub rotates: bool,
    /// Bytes of an answer over UDP that this end takes (EDNS); `None`: 512.
    pub edns_payload: Option<u16>,
}

/// Source: cluster.proto `DnsLookupFamily`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum DnsLookupFamily {
    #[default]
    Auto,
    V4Only,
    V6Only,
    V4Preferred,
    All,
}

/// In which order the addresses of a host are tried: so many of the first family, then one of the other, and so on. Source: cluster.proto
/// `HappyEyeballsConfig`; RFC 8305, section 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HappyEyeballs {
    /// The first family is IPv6, or is not; `None`: that of the first address.
    pub first_is_v6: Option<bool>,
    /// 1..; Envoy's default 1.
    pub first_count: u32,
}

/// What a cluster says of the requests to it; it counts, and not what their route says. Source: http_protocol_options.proto;
/// `ConsistentHashingLbConfig.hash_policy`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestPolicies {
    /// Copies; empty: the route's.
    pub mirrors: Vec<MirrorPolicy>,
    /// What load balancers that hash go by; empty: the route's.
    pub hash_policies: Vec<HashPolicy>,
    /// Retries; `None`: the route's.
    pub retry_policy: Option<RetryPolicy>,
    /// Which responses are errors for outlier detection; `None`: those with 5xx.
    pub errors: Option<ResponsePredicate>,
}

/// Which limits and connections a request has. Source: core/v3/base.proto `RoutingPriority`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs)]
pub enum RoutingPriority {
    #[default]
    Default,
    High,
}

/// Limits of one priority; `u32::MAX` under Istio unless a DestinationRule sets them. Envoy's defaults: 1024, 1024, 1024, 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CircuitBreaker {
    pub max_connections: u32,
    pub max_pending_requests: u32,
    pub max_requests: u32,
    pub max_retries: u32,
    /// To one host, of any priority; `None`: no limit of its own.
    pub max_connections_per_host: Option<u32>,
    /// Takes the place of `max_retries`.
    pub retry_budget: Option<RetryBudget>,
    /// Pools at a time, over all workers; `None`: no limit.
    pub max_connection_pools: Option<u32>,
    /// What is left of the limits is shown.
    pub tracks_remaining: bool,
}

/// Retries as a share of what is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// Envoy's default 20 %.
    pub budget: Percent,
    /// Retries that are allowed whatever the share is; Envoy's default 3.
    pub min_concurrency: u32,
    /// Requests that began within this time count as well as active ones; `None`: only active ones do.
    pub budget_interval: Option<Duration>,
}

/// HTTP towards the cluster. Source: envoy/extensions/upstreams/http/v3/http_protocol_options.proto.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProtocol {
    /// Which version.
    pub version: UpstreamHttpVersion,
    /// A pooled connection without requests closes after this; Envoy's default 1 h, `None`: never.
    pub idle_timeout: Option<Duration>,
    /// A connection is closed (drained) at this age.
    pub max_connection_duration: Option<Jittered>,
    /// A request ends this long after it was sent on a connection, whatever came by then; `None`: no limit.
    pub exchange_duration: Option<Duration>,
    /// What the head of a response may have.
    pub response_head: ResponseHeadLimits,
    /// A connection serves at most this many requests; 0: no limit.
    pub max_requests_per_connection: u32,
    /// HTTP/1 settings.
    pub http1: Http1Options,
    /// HTTP/2 settings.
    pub http2: Http2Options,
    /// What the TLS of a connection takes from the request that it is made for.
    pub tls_names: Option<Box<TlsNames>>,
}

/// Limits of a response head. Source: protocol.proto `HttpProtocolOptions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHeadLimits {
    /// Of names and values together; `None`: what the version's codec takes.
    pub most_bytes: Option<u32>,
    /// Envoy's default 100.
    pub most_headers: u32,
}

/// A name that a request brings to the TLS of its connection: its authority without the port. Source: protocol.proto
/// `UpstreamHttpProtocolOptions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsNames {
    /// It is the SNI, if it is no address.
    pub sni: bool,
    /// The server's certificate must be for it.
    pub san: bool,
    /// This header has it in place of the authority, if it is there; lower case.
    pub header: Option<String>,
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

/// HTTP/1 settings of either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Http1Options {
    /// Trailers go on, in both directions; else they end here.
    pub passes_trailers: bool,
    /// How names of headers are written.
    pub name_case: NameCase,
    /// Of requests to servers: the target is a whole URL.
    pub writes_whole_url: bool,
}

/// How names of HTTP/1 headers are written. Source: protocol.proto `HeaderKeyFormat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameCase {
    /// In lower case.
    #[default]
    Lower,
    /// Each word begins with a capital.
    Proper,
    /// As the other side wrote them: here names of messages that come are remembered.
    Preserve {
        /// Names that the other side did not write begin words with capitals; else they are in lower case.
        others_proper: bool,
    },
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
    /// Clients may ask for tunnels and protocol changes by extended CONNECT (RFC 8441).
    pub allows_connect: bool,
    /// SETTINGS_HEADER_TABLE_SIZE; `None`: what HPACK has, 4096 bytes.
    pub header_table_bytes: Option<u32>,
    /// How it is found out that the other side is gone; `None`: it is not asked.
    pub keepalive: Option<Keepalive>,
}

/// PINGs on a connection. Source: protocol.proto `KeepaliveSettings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// From one answer to the next question; `None`: only when [`Self::idle_interval`] says so.
    pub interval: Option<Jittered>,
    /// The connection ends when nothing comes for so long after a question.
    pub timeout: Duration,
    /// Before a new stream, when nothing came for longer than this; `None`: never.
    pub idle_interval: Option<Duration>,
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpstreamTransport {
    /// Goes before everything else.
    pub proxy_header: Option<UpstreamHeader>,
    /// TLS; `None`: plaintext.
    pub tls_context: Option<Box<UpstreamTls>>,
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
