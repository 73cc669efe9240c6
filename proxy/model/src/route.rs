//! Route tables. Source: envoy/config/route/v3/{route,route_components}.proto; what Istio sets: contract §1.6.
mod forward;
mod from_proto;
mod headers;
mod internal_redirect;
mod policy;
mod retry;
mod rewrite;

pub(crate) use from_proto::query_parameter;
pub(crate) use headers::{
    addition as header_addition, additions as header_additions, header_name, removals as header_removals,
};

use std::time::Duration;

use crate::access_log::{BodyFormat, FormatPart};
use crate::bootstrap::ConfigSource;
use crate::cluster::{ClusterName, RoutingPriority};
use crate::fraction::Fraction;
use crate::hcm::Upgrade;
use crate::http_filter::cors::CorsPolicy;
use crate::http_filter::header_mutation::HeaderStep;
use crate::http_filter::rate_limit::RateLimit;
use crate::http_filter::route_config::FilterSettings;
use crate::matcher::{HeaderMatcher, StringMatcher};
use crate::metadata::Struct;

/// One `RouteConfiguration`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTableConfig {
    /// Virtual hosts in the order received; domains are unique across them.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Who has more of them (VHDS).
    pub vhds: Option<ConfigSource>,
    /// `:authority`'s port is not part of the domain match.
    pub ignore_port_in_host_matching: bool,
    /// What follows the first `;` of a path is not part of the path match.
    pub ignore_path_parameters: bool,
    /// The domain is this header's value; empty: `:authority`.
    pub vhost_header: String,
    /// Largest body of a direct response, bytes; Envoy's default 4096.
    pub max_direct_response_body_bytes: u32,
    /// Header changes for every route.
    pub headers: HeaderMutations,
    /// Header changes are made table first and route last, so that the route's stay; Envoy's default the other way round.
    pub most_specific_headers_win: bool,
    /// Settings of filters for every route.
    pub filter_settings: Vec<FilterSettings>,
    /// Copies of requests, for routes that have none of their own.
    pub mirrors: Vec<MirrorPolicy>,
    /// Only clients inside may send these headers; lower case.
    pub internal_only_headers: Vec<String>,
}

/// Whose requests have to come by TLS; others are sent to `https`. Source: route_components.proto `VirtualHost.TlsRequirementType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsRequirement {
    /// Nobody's.
    #[default]
    None,
    /// Those of clients outside.
    External,
    /// All.
    All,
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
    /// Before routes are looked at.
    pub tls_requirement: TlsRequirement,
    /// `x-envoy-attempt-count` goes upstream.
    pub include_request_attempt_count: bool,
    /// `x-envoy-attempt-count` goes to the client.
    pub include_attempt_count_in_response: bool,
    /// Retries have `x-envoy-is-timeout-retry`.
    pub include_is_timeout_retry_header: bool,
    /// Header changes.
    pub headers: HeaderMutations,
    /// Used by routes that have none.
    pub retry_policy: Option<RetryPolicy>,
    /// Used by routes that have none.
    pub hedge_policy: Option<HedgePolicy>,
    /// What requests are to rate limits.
    pub rate_limits: Vec<RateLimit>,
    /// For CORS filters without settings.
    pub cors: Option<CorsPolicy>,
    /// Settings of filters for its routes.
    pub filter_settings: Vec<FilterSettings>,
    /// For its routes.
    pub buffer_limits: BufferLimits,
    /// Copies of requests, for routes that have none of their own.
    pub mirrors: Vec<MirrorPolicy>,
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
    /// Settings of filters.
    pub filter_settings: Vec<FilterSettings>,
    /// Of request bodies.
    pub buffer_limits: BufferLimits,
}

/// How many bytes of a request's body are kept to send it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BufferLimits {
    /// Goes first, that of the route and that of the virtual host.
    pub(crate) request_body: Option<u64>,
    /// The older field.
    pub(crate) per_request: Option<u32>,
}

impl BufferLimits {
    /// What counts for a route in a virtual host; `None`: the listener's limit. Source: Envoy `RouteEntryImplBase`, `requestBodyBufferLimit`.
    pub fn within(self, host: Self) -> Option<u64> {
        let older = self.per_request.or(host.per_request).map(u64::from);
        self.request_body.or(host.request_body).or(older)
    }
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
    pub query_parameters: Vec<(String, QueryMatch)>,
    /// All must match.
    pub cookies: Vec<CookieMatcher>,
    /// Only gRPC requests.
    pub only_grpc: bool,
    /// Of requests that match otherwise.
    pub runtime_share: Fraction,
    /// The client showed a certificate, or did not; `None`: either.
    pub certificate_presented: Option<bool>,
    /// That was verified, or was not; `None`: either.
    pub certificate_validated: Option<bool>,
}

/// How a query parameter is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryMatch {
    /// It is there, or is not.
    Present(bool),
    /// Its first value matches.
    Value(StringMatcher),
}

/// Matches one cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieMatcher {
    /// Its name.
    pub cookie: String,
    /// Its value.
    pub test: StringMatcher,
    /// The result is negated.
    pub invert: bool,
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
    /// A CONNECT, which has no path; the others take none.
    Connect,
}

/// What a route does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteAction {
    /// Sends the request to a cluster.
    Forward(Box<Forward>),
    /// Sends the client elsewhere.
    Redirect(Box<Redirect>),
    /// Answers by itself.
    DirectResponse {
        /// 200..=599.
        status: u16,
        /// Body, within `max_direct_response_body_bytes`.
        body: Vec<u8>,
        /// What the body is made of; `None`: it goes as it is.
        format: Option<Box<BodyFormat>>,
    },
}

/// Which requests are tunnels that end here. Source: route_components.proto `RouteAction.UpgradeConfig.ConnectConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelEnd {
    /// A POST is one too.
    pub takes_posts: bool,
}

/// Where a client is sent. Source: route_components.proto `RedirectAction`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `None`: the request's.
    pub scheme: Option<String>,
    /// With a port, if it has one; `None`: the request's.
    pub host: Option<String>,
    /// Takes the place of the request's port.
    pub port: Option<u16>,
    /// `None`: the request's path.
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// The request's query does not come along.
    pub strip_query: bool,
    /// The request's port stays even if it is what its scheme has anyway.
    pub keeps_usual_port: bool,
}

/// How a path changes; the query stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// Another path, maybe with a query, which then takes the place of the request's.
    Whole(String),
    /// In place of the matched prefix.
    Prefix(String),
    /// In place of every match.
    Regex(RegexRewrite),
    /// What a format string makes takes the place of the path, unless it is empty.
    Format(Vec<FormatPart>),
}

/// An expression and what takes the place of every match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegexRewrite {
    /// Compiles.
    pub pattern: String,
    /// `${1}` stands for a group, `$$` for a dollar sign.
    pub substitution: String,
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
    /// For the whole stream; zero: no limit, `None`: the connection manager's.
    pub max_stream_duration: Option<Duration>,
    /// A request's `grpc-timeout` takes the place of `max_stream_duration`, up to this; zero: without bound.
    pub grpc_timeout_header_max: Option<Duration>,
    /// For gRPC requests `grpc-timeout` takes the place of `timeout`, up to this; zero: without bound. Deprecated, and what Istio sends.
    pub max_grpc_timeout: Option<Duration>,
    /// `max_stream_duration` is there: gRPC servers are told how long a stream may last.
    pub tells_stream_duration: bool,
    /// Taken from a request's `grpc-timeout` where that takes the place of `max_stream_duration`.
    pub grpc_timeout_header_offset: Option<Duration>,
    /// Taken from a request's `grpc-timeout` where that takes the place of `timeout`, if something is left then.
    pub grpc_timeout_offset: Option<Duration>,
    /// Without data in either direction for this long the stream ends; zero: never, `None`: the connection manager's limit.
    pub idle_timeout: Option<Duration>,
    /// Labels that its hosts have to have, for clusters with subsets; empty: any host will do. Weighted clusters have them each.
    pub subset_labels: Struct,
    /// Whose limits and connections of the cluster it has.
    pub priority: RoutingPriority,
    /// Retries; `None`: the virtual host's, else none.
    pub retry_policy: Option<RetryPolicy>,
    /// Requests that are sent again while the first is waited for; `None`: the virtual host's, else none.
    pub hedge_policy: Option<HedgePolicy>,
    /// Replaces the matched prefix.
    pub prefix_rewrite: Option<String>,
    /// Replaces what matches in the path.
    pub regex_rewrite: Option<RegexRewrite>,
    /// Replaces the path by what a format string makes, unless that is empty.
    pub path_format: Option<Vec<FormatPart>>,
    /// Replaces `:authority`.
    pub host_rewrite: Option<HostRewrite>,
    /// What `:authority` was before goes upstream as `x-forwarded-host`.
    pub appends_forwarded_host: bool,
    /// What requests are to rate limits; the virtual host's too, if `includes_host_limits`.
    pub rate_limits: Vec<RateLimit>,
    /// See `rate_limits`.
    pub includes_host_limits: bool,
    /// For CORS filters without settings; goes before the virtual host's.
    pub cors: Option<CorsPolicy>,
    /// Protocols that may, or may not, be changed to here; others as the connection manager says.
    pub upgrades: Vec<Upgrade>,
    /// What is in a CONNECT goes to the cluster as it is; `None`: the CONNECT is passed on.
    pub tunnel_end: Option<TunnelEnd>,
    /// What consistent hashing hashes; the first that is there counts, more are mixed in.
    pub hash_policies: Vec<HashPolicy>,
    /// Copies of requests; empty: the virtual host's, else the table's.
    pub mirrors: Vec<MirrorPolicy>,
    /// Redirects that are followed here; `None`: they are the client's.
    pub internal_redirects: Option<Box<InternalRedirects>>,
}

/// Redirects of an upstream that are followed here, so that the client sees only where they lead to.
/// Source: route_components.proto `InternalRedirectPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalRedirects {
    /// As many of one request; Envoy's default 1.
    pub max_redirects: u32,
    /// Of 301, 302, 303, 307 and 308; Envoy's default 302.
    pub statuses: Vec<u16>,
    /// All have to agree.
    pub predicates: Vec<RedirectPredicate>,
    /// From `http` to `https`, or back.
    pub allows_other_scheme: bool,
    /// Lower case: a header of the redirect takes the place of the request's, also when it has none.
    pub copied_headers: Vec<String>,
}

/// Which redirects are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectPredicate {
    /// To a route of one of these names.
    Listed(Vec<String>),
    /// To a route to which no redirect of the same route led before.
    NewRoute,
    /// To `https` only for clients that came by it.
    SafeScheme,
}

/// What becomes of `:authority`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRewrite {
    /// This takes its place.
    Literal(String),
    /// The name of the endpoint does, if it has one.
    Endpoint,
    /// The value of this header does, if it is there; lower case.
    Header(String),
    /// What an expression makes of the path does.
    PathRegex(RegexRewrite),
    /// What a format string makes does, unless it is empty.
    Format(Vec<FormatPart>),
}

/// One part of a request's hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashPolicy {
    /// What is hashed.
    pub key: HashKey,
    /// If it is there, later ones do not count.
    pub is_terminal: bool,
}

/// What of a request is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// A header's value.
    Header {
        /// Lower case.
        name: String,
        /// Changes the value before.
        rewrite: Option<RegexRewrite>,
    },
    /// A cookie's value.
    Cookie {
        /// Its name.
        name: String,
        /// One is made for clients that have none, with this age (zero: a session's); `None`: none is made.
        ttl: Option<Duration>,
        /// Of the cookie that is made.
        path: String,
        /// Of the cookie that is made.
        attributes: Vec<(String, String)>,
    },
    /// The client's address, if true.
    SourceIp(bool),
    /// A query parameter's value.
    QueryParameter(String),
    /// An object of filter state; routes refuse it.
    FilterState(String),
}

/// A copy of a request whose response nobody sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorPolicy {
    /// Where to; empty: what `cluster_header` says.
    pub cluster: ClusterName,
    /// Lower-case name of the header that names the cluster.
    pub cluster_header: String,
    /// Of requests; Envoy's default all.
    pub share: Fraction,
    /// `-shadow` is not added to the host.
    pub keeps_host: bool,
    /// Replaces `:authority`; empty: it stays.
    pub host: String,
    /// Changes of the copy's headers, in order.
    pub header_steps: Vec<HeaderStep>,
}

/// Target of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterSpec {
    /// One cluster.
    Single(ClusterName),
    /// One of several by weight; the sum of weights is 1..=u32::MAX.
    Weighted {
        /// The shares.
        shares: Vec<WeightedCluster>,
        /// Which.
        by: ShareChoice,
    },
    /// What this header says, lower case; not found without it.
    Header(String),
}

/// What chooses among shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShareChoice {
    /// Chance.
    Random,
    /// The number in this header, lower case; chance for requests without.
    Header(String),
    /// The hash of the hash policies; chance for requests without.
    Hash,
}

/// One share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedCluster {
    /// Its cluster; empty: what `cluster_header` says.
    pub name: ClusterName,
    /// Lower-case name of the header that names the cluster.
    pub cluster_header: String,
    /// Its weight; 0: gets nothing.
    pub weight: u32,
    /// Header changes.
    pub headers: HeaderMutations,
    /// Replaces `:authority`.
    pub host_rewrite: Option<String>,
    /// Labels that its hosts have to have, the route's and its own; empty: any host will do.
    pub subset_labels: Struct,
    /// Settings of filters.
    pub filter_settings: Vec<FilterSettings>,
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
    /// How long nothing may come of an attempt's response; `None`: no such limit.
    pub per_try_idle_timeout: Option<Duration>,
    /// For `retriable-status-codes`.
    pub retriable_status_codes: Vec<u16>,
    /// For `retriable-headers`: of the response one has to match.
    pub retriable_headers: Vec<HeaderMatcher>,
    /// Only requests that one of these matches are sent again; empty: all.
    pub retriable_request_headers: Vec<HeaderMatcher>,
    /// Hosts tried before are avoided (`previous_hosts` predicate).
    pub avoid_previous_hosts: bool,
    /// Priorities tried before are avoided; the load is computed anew after so many attempts.
    pub previous_priorities: Option<u32>,
    /// How often another host is drawn before one already tried is accepted; Envoy's default 1.
    pub host_selection_attempts: u32,
    /// First back-off step; default 25 ms.
    pub backoff_base: Duration,
    /// Largest back-off; default 10 × base.
    pub backoff_max: Duration,
    /// Response headers that say how long to wait instead, in order.
    pub reset_headers: Vec<ResetHeader>,
    /// A longer wait in one of [`Self::reset_headers`] is passed over; Envoy's default 300 s.
    pub reset_max: Duration,
}

/// When a request is sent again while the first is still waited for. Source: route_components.proto `HedgePolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HedgePolicy {
    /// When `per_try_timeout` passes: whoever answers well first wins.
    pub on_per_try_timeout: bool,
}

/// A response header that says when the next attempt may come. Source: route_components.proto `RetryPolicy.ResetHeader`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetHeader {
    /// Lower case.
    pub name: String,
    /// What its number is.
    pub format: ResetFormat,
}

/// The meaning of the number in a [`ResetHeader`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetFormat {
    /// Seconds from now.
    Seconds,
    /// Seconds since 1970.
    UnixTimestamp,
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
    pub retriable_headers: bool,
    pub envoy_ratelimited: bool,
    pub grpc_cancelled: bool,
    pub grpc_deadline_exceeded: bool,
    pub grpc_internal: bool,
    pub grpc_resource_exhausted: bool,
    pub grpc_unavailable: bool,
}

/// Header removals and additions, applied in this order.
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
    /// Literal text and commands; a header whose value comes out empty is not added, unless `keeps_empty`.
    pub value: Vec<FormatPart>,
    /// An empty value is one.
    pub keeps_empty: bool,
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
