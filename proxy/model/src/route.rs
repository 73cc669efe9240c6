//! Route tables. Source: envoy/config/route/v3/{route,route_components}.proto; what Istio sets: contract §1.6.
mod forward;
mod from_proto;
mod headers;

use std::time::Duration;

use crate::cluster::ClusterName;
use crate::matcher::{HeaderMatcher, StringMatcher};

/// One `RouteConfiguration`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTableConfig {
    /// Virtual hosts in the order received; domains are unique across them.
    pub virtual_hosts: Vec<VirtualHost>,
    /// `:authority`'s port is not part of the domain match.
    pub ignore_port_in_host_matching: bool,
    /// Largest body of a direct response, bytes; Envoy's default 4096.
    pub max_direct_response_body_bytes: u32,
    /// Header changes for every route.
    pub headers: HeaderMutations,
}

/// One virtual host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualHost {
    /// `<fqdn>:<port>`, `allow_any`, `block_all`, …; unique in its table.
    pub name: String,
    /// `exact`, `*.suffix`, `prefix.*` or `*`; lower case; matched exact, then longest suffix, then longest prefix, then `*`.
    pub domains: Vec<String>,
    /// The first that matches wins.
    pub routes: Vec<Route>,
    /// `x-envoy-attempt-count` goes upstream.
    pub include_request_attempt_count: bool,
    /// Header changes.
    pub headers: HeaderMutations,
    /// Used by routes that have none.
    pub retry_policy: Option<RetryPolicy>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `%ROUTE_NAME%`.
    pub name: String,
    /// When it applies.
    pub matcher: RouteMatch,
    /// What is done.
    pub action: RouteAction,
    /// Span operation name.
    pub decorator_operation: Option<String>,
    /// Header changes.
    pub headers: HeaderMutations,
}

/// When a route applies: all parts must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    /// The path without query.
    pub path: PathMatch,
    /// ASCII case matters (default true).
    pub case_sensitive: bool,
    /// All must match.
    pub headers: Vec<HeaderMatcher>,
    /// All must match.
    pub query_parameters: Vec<(String, Option<StringMatcher>)>,
}

/// Path judgements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// Path begins with.
    Prefix(String),
    /// Path equals.
    Exact(String),
    /// Path equals, or begins with this and `/`.
    SeparatedPrefix(String),
    /// The whole path matches the RE2 expression.
    Regex(String),
}

/// What a route does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteAction {
    /// Sends the request to a cluster.
    Forward(Box<Forward>),
    /// Answers by itself.
    DirectResponse {
        /// 200..=599.
        status: u16,
        /// Body, within `max_direct_response_body_bytes`.
        body: Vec<u8>,
    },
}

/// How a request is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Where to.
    pub cluster: ClusterSpec,
    /// Status when the cluster is unknown; Envoy's default 503.
    pub cluster_not_found_status: u16,
    /// From the end of the request to the end of the response, retries included; Envoy's default 15 s, `None`: no limit (`0s`, or
    /// `max_stream_duration` is there, which takes its place).
    pub timeout: Option<Duration>,
    /// For the whole stream; `None`: no limit.
    pub max_stream_duration: Option<Duration>,
    /// A request's `grpc-timeout` takes the place of `max_stream_duration`, up to this; zero: without bound.
    pub grpc_timeout_header_max: Option<Duration>,
    /// For gRPC requests `grpc-timeout` takes the place of `timeout`, up to this; zero: without bound. Deprecated, and what Istio sends.
    pub max_grpc_timeout: Option<Duration>,
    /// Without data in either direction for this long the stream ends; zero: never, `None`: the connection manager's limit.
    pub idle_timeout: Option<Duration>,
    /// Retries; `None`: the virtual host's, else none.
    pub retry_policy: Option<RetryPolicy>,
    /// Replaces the matched prefix.
    pub prefix_rewrite: Option<String>,
    /// Replaces `:authority`.
    pub host_rewrite: Option<String>,
}

/// Target of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterSpec {
    /// One cluster.
    Single(ClusterName),
    /// One of several by weight; the sum of weights is 1..=u32::MAX.
    Weighted(Vec<WeightedCluster>),
}

/// One share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedCluster {
    /// Its cluster.
    pub name: ClusterName,
    /// Its weight; 0: gets nothing.
    pub weight: u32,
    /// Header changes of the request; those of the response are not supported here.
    pub headers: HeaderMutations,
}

/// When a failed attempt is made again. Source: route_components.proto `RetryPolicy`; router filter docs `x-envoy-retry-on`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Conditions.
    pub retry_on: RetryOn,
    /// Retries besides the first attempt; Envoy's default 1.
    pub num_retries: u32,
    /// Limit of one attempt; `None`: only the route's.
    pub per_try_timeout: Option<Duration>,
    /// For `retriable-status-codes`.
    pub retriable_status_codes: Vec<u16>,
    /// Hosts tried before are avoided (`previous_hosts` predicate).
    pub avoid_previous_hosts: bool,
    /// How often another host is drawn before one already tried is accepted; Envoy's default 1.
    pub host_selection_attempts: u32,
    /// First back-off step; default 25 ms.
    pub backoff_base: Duration,
    /// Largest back-off; default 10 × base.
    pub backoff_max: Duration,
}

/// The `retry_on` conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct RetryOn {
    pub five_xx: bool,
    pub gateway_error: bool,
    pub reset: bool,
    pub reset_before_request: bool,
    pub connect_failure: bool,
    pub refused_stream: bool,
    pub retriable_4xx: bool,
    pub retriable_status_codes: bool,
    pub envoy_ratelimited: bool,
    pub grpc_cancelled: bool,
    pub grpc_deadline_exceeded: bool,
    pub grpc_internal: bool,
    pub grpc_resource_exhausted: bool,
    pub grpc_unavailable: bool,
}

/// Header additions and removals, applied in this order: add, then remove (Envoy's HeaderParser: removals first for responses? see http::head).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderMutations {
    /// Added to the request.
    pub request_add: Vec<HeaderAddition>,
    /// Removed from the request; lower case.
    pub request_remove: Vec<String>,
    /// Added to the response.
    pub response_add: Vec<HeaderAddition>,
    /// Removed from the response; lower case.
    pub response_remove: Vec<String>,
}

/// One header to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderAddition {
    /// Lower-case name.
    pub name: String,
    /// Literal value (values with `%…%` commands are rejected in this slice, naming the traffic issue).
    pub value: String,
    /// What happens when it is there.
    pub action: AppendAction,
}

/// Source: base.proto `HeaderAppendAction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum AppendAction {
    AppendIfExistsOrAdd,
    AddIfAbsent,
    OverwriteIfExistsOrAdd,
    OverwriteIfExists,
}
