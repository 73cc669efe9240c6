//! Global rate limit: a service that all proxies ask says who may go on.
//! Source: envoy/extensions/filters/http/ratelimit/v3/rate_limit.proto, envoy/config/ratelimit/v3/rls.proto.
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::ratelimit::v3 as service;
use envoy_types::pb::envoy::extensions::filters::http::ratelimit::v3 as pb;
use envoy_types::pb::envoy::r#type::v3::HttpStatus;

use super::rate_limit::{HostLimits, RateLimit};
use crate::field::{FieldPath, Rejection, verdicts};
use crate::fraction::Fraction;
use crate::route::{HeaderAddition, header_additions};
use crate::service::{GrpcMethod, only_v3};

/// Asks a service before a request goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalRateLimit {
    /// Which of its limits; at least one character.
    pub domain: String,
    /// Of the route's rate limits, 0..=10.
    pub asked_stage: u32,
    /// Requests of other kinds are passed over.
    pub request_kind: RequestKind,
    /// Who is asked.
    pub asked_service: GrpcMethod,
    /// For the answer; `None`: no limit. Envoy's default 20 ms.
    pub rpc_timeout: Option<Duration>,
    /// Share of requests that are refused when there is no answer; Envoy's default none.
    pub failures_denied: Fraction,
    /// gRPC clients get RESOURCE_EXHAUSTED, not UNAVAILABLE.
    pub exhausts_resource: bool,
    /// `x-ratelimit-*` headers of draft 03.
    pub tells_x_ratelimit: bool,
    /// `x-envoy-ratelimited` for requests over the limit.
    pub tells_envoy_ratelimited: bool,
    /// Of refused requests; Envoy's default 429, and below 400 it is that too.
    pub limited_status: u16,
    /// To refusals.
    pub refusal_headers: Vec<HeaderAddition>,
    /// When there is no answer; Envoy's default 500.
    pub error_status: u16,
    /// Part of the names of its counters; empty: none.
    pub counter_prefix: String,
    /// Share of requests that are asked for; Envoy's default all.
    pub share_asked: Fraction,
    /// Share of those over the limit that are refused; Envoy's default all.
    pub share_enforced: Fraction,
    /// What requests are to the service; empty: the route's and virtual host's say so.
    pub own_limits: Vec<RateLimit>,
    /// `retry-after` tells when the limit is reset.
    pub tells_retry_after: bool,
}

/// What a route says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteGlobalRateLimit {
    /// Another domain; empty: the filter's.
    pub other_domain: String,
    /// When the virtual host's `rate_limits` count.
    pub of_host: HostLimits,
    /// In place of all others; empty: not.
    pub route_limits: Vec<RateLimit>,
}

/// Requests by where they come from; `x-envoy-internal` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// All.
    Both,
    /// From within.
    Internal,
    /// From outside.
    External,
}

/// Source: rate_limit.proto, `timeout`.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(20);

impl GlobalRateLimit {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::RateLimit) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::RateLimit {
            supported {
                domain, stage, request_type, timeout, failure_mode_deny, rate_limited_as_resource_exhausted, rate_limit_service,
                enable_x_ratelimit_headers, disable_x_envoy_ratelimited_header, rate_limited_status, response_headers_to_add,
                status_on_error, stat_prefix, filter_enabled, filter_enforced, failure_mode_deny_percent, rate_limits,
                enable_retry_after_header,
            }
            never { metadata_namespace: "what the service says as dynamic metadata is dropped" }
        });
        let share = |field: &str, proto: Option<core::RuntimeFractionalPercent>| {
            at.field(field).runtime_fraction(proto)
        };
        let field = at.field("timeout");
        let rpc_timeout = match field.duration(timeout)? {
            None => Some(ANSWER_TIMEOUT),
            Some(limit) => Some(limit).filter(|limit| !limit.is_zero()),
        };
        let field = at.field("response_headers_to_add");
        if response_headers_to_add.len() > 10 {
            return Err(field.reject(format!(
                "has {} headers; 10 are allowed",
                response_headers_to_add.len()
            )));
        }
        let refusal_headers = header_additions(field, response_headers_to_add)?;
        let denied = if failure_mode_deny {
            Fraction::ALL
        } else {
            Fraction::NONE
        };
        let headers: pb::rate_limit::XRateLimitHeadersRfcVersion = at
            .field("enable_x_ratelimit_headers")
            .enumeration(enable_x_ratelimit_headers)?;
        Ok(Self {
            domain: at.field("domain").not_empty(domain)?,
            asked_stage: at.field("stage").within(stage, 0..=10)?,
            request_kind: RequestKind::new(&at.field("request_type"), &request_type)?,
            asked_service: asked_service(&at.field("rate_limit_service"), rate_limit_service)?,
            rpc_timeout,
            failures_denied: share("failure_mode_deny_percent", failure_mode_deny_percent)?.unwrap_or(denied),
            exhausts_resource: rate_limited_as_resource_exhausted,
            tells_x_ratelimit: headers != pb::rate_limit::XRateLimitHeadersRfcVersion::Off,
            tells_envoy_ratelimited: !disable_x_envoy_ratelimited_header,
            limited_status: status(rate_limited_status)
                .filter(|code| *code >= 400)
                .unwrap_or(429),
            refusal_headers,
            error_status: status(status_on_error).unwrap_or(500),
            counter_prefix: stat_prefix,
            share_asked: share("filter_enabled", filter_enabled)?.unwrap_or(Fraction::ALL),
            share_enforced: share("filter_enforced", filter_enforced)?.unwrap_or(Fraction::ALL),
            own_limits: RateLimit::of_filter(at.field("rate_limits"), rate_limits)?,
            tells_retry_after: enable_retry_after_header,
        })
    }
}

impl RouteGlobalRateLimit {
    /// Converts the settings of a route.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::RateLimitPerRoute) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::RateLimitPerRoute {
            supported { vh_rate_limits, rate_limits, domain }
            never { override_option: "Envoy does not read it either" }
        });
        use pb::rate_limit_per_route::VhRateLimitsOptions;
        Ok(Self {
            other_domain: domain,
            of_host: match at.field("vh_rate_limits").enumeration(vh_rate_limits)? {
                VhRateLimitsOptions::Override => HostLimits::Override,
                VhRateLimitsOptions::Include => HostLimits::Include,
                VhRateLimitsOptions::Ignore => HostLimits::Ignore,
            },
            route_limits: RateLimit::of_filter(at.field("rate_limits"), rate_limits)?,
        })
    }
}

impl RequestKind {
    fn new(at: &FieldPath<'_>, name: &str) -> Result<Self, Rejection> {
        match name {
            "" | "both" => Ok(Self::Both),
            "internal" => Ok(Self::Internal),
            "external" => Ok(Self::External),
            _ => Err(at.reject_name("is no type of requests", name, ["both", "internal", "external"])),
        }
    }
}

/// A status that is one; Envoy takes what is none for its default.
fn status(proto: Option<HttpStatus>) -> Option<u16> {
    let code = proto.map_or(0, |HttpStatus { code }| code);
    u16::try_from(code).ok().filter(|code| (200..600).contains(code))
}

fn asked_service(
    at: &FieldPath<'_>,
    proto: Option<service::RateLimitServiceConfig>,
) -> Result<GrpcMethod, Rejection> {
    verdicts!(at, at.required(proto)? => service::RateLimitServiceConfig {
        supported { grpc_service }
        partly { transport_api_version: "V3 only; others are refused, as in Envoy" }
    });
    only_v3(&at.field("transport_api_version"), transport_api_version)?;
    GrpcMethod::from_proto(&at.field("grpc_service"), grpc_service)
}
