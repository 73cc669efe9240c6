//! Local rate limit: token buckets of this proxy alone.
//! Source: envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.proto, type/v3/token_bucket.proto.
use std::time::Duration;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3 as common;
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3 as pb;
use envoy_types::pb::envoy::r#type::v3 as types;

use super::rate_limit::{HostLimits, RateLimit};
use crate::field::{FieldPath, Rejection, verdicts};
use crate::fraction::Fraction;
use crate::route::{HeaderAddition, header_additions};
use crate::scalar::Wrapped;

/// At most so many requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRateLimit {
    /// Of its counters.
    pub stat_prefix: String,
    /// Of refused requests; Envoy's default 429, and below 400 it is that too.
    pub status: u16,
    /// For requests that no descriptor is for; `None`: no limit.
    pub bucket: Option<TokenBucket>,
    /// Share of requests that are judged; Envoy's default none.
    pub enabled: Fraction,
    /// Share of those that are refused; Envoy's default none.
    pub enforced: Fraction,
    /// To requests that go on although they should not.
    pub request_headers: Vec<HeaderAddition>,
    /// To refusals.
    pub response_headers: Vec<HeaderAddition>,
    /// Limits of their own for requests with these entries.
    pub descriptors: Vec<Descriptor>,
    /// Of the route's rate limits, 0..=10.
    pub stage: u32,
    /// Each connection has its own buckets.
    pub per_connection: bool,
    /// `x-ratelimit-*` headers of draft 03.
    pub x_ratelimit_headers: bool,
    /// The default bucket counts every request; Envoy's default true.
    pub always_consumes_default: bool,
    /// gRPC clients get RESOURCE_EXHAUSTED, not UNAVAILABLE.
    pub is_resource_exhausted: bool,
    /// `retry-after` tells when there is a token.
    pub retry_after: bool,
    /// When the virtual host's `rate_limits` count.
    pub vh_rate_limits: HostLimits,
    /// What requests are to the descriptors; empty: the route's and virtual host's say so.
    pub rate_limits: Vec<RateLimit>,
}

/// Tokens and how they come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBucket {
    /// At most, and to begin with.
    pub max_tokens: u32,
    /// So many come; 1.., Envoy's default 1.
    pub tokens_per_fill: u32,
    /// At this interval; at least 50 ms.
    pub fill_interval: Duration,
}

/// A limit for some requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Keys and values, at least one.
    pub entries: Vec<(String, String)>,
    /// Its tokens.
    pub bucket: TokenBucket,
    /// Only counted.
    pub is_shadow: bool,
}

/// The shortest `fill_interval`. Source: local_rate_limit.proto, `token_bucket`.
const SHORTEST_FILL: Duration = Duration::from_millis(50);

impl LocalRateLimit {
    /// Converts the filter, or its settings for a route.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::LocalRateLimit) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::LocalRateLimit {
            supported {
                stat_prefix, status, token_bucket, filter_enabled, filter_enforced,
                request_headers_to_add_when_not_enforced, response_headers_to_add, descriptors, stage,
                local_rate_limit_per_downstream_connection, enable_x_ratelimit_headers,
                always_consume_default_token_bucket, rate_limited_as_resource_exhausted, enable_retry_after_header,
                vh_rate_limits, rate_limits,
            }
            inert { max_dynamic_descriptors: "counts the buckets of descriptors with wildcards, which are refused" }
            unsupported { local_cluster_rate_limit: "traffic" }
        });
        let code = status.map_or(0, |types::HttpStatus { code }| code);
        let headers = |field, protos: Vec<_>| {
            let field = at.field(field);
            match protos.len() {
                0..=10 => header_additions(field, protos),
                more => Err(field.reject(format!("has {more} headers; 10 are allowed"))),
            }
        };
        let bucket = token_bucket.map(|proto| TokenBucket::from_proto(&at.field("token_bucket"), proto));
        let enabled = at.field("filter_enabled").runtime_fraction(filter_enabled)?;
        let enforced = at.field("filter_enforced").runtime_fraction(filter_enforced)?;
        let descriptors = descriptors.into_iter().enumerate();
        let descriptors = descriptors
            .map(|(index, proto)| Descriptor::from_proto(&at.field("descriptors").index(index), proto));
        let ratelimit_headers: common::XRateLimitHeadersRfcVersion =
            at.field("enable_x_ratelimit_headers")
                .enumeration(enable_x_ratelimit_headers)?;
        Ok(Self {
            stat_prefix: at.field("stat_prefix").not_empty(stat_prefix)?,
            status: u16::try_from(code)
                .ok()
                .filter(|code| (400..600).contains(code))
                .unwrap_or(429),
            bucket: bucket.transpose()?,
            enabled: enabled.unwrap_or(Fraction::NONE),
            enforced: enforced.unwrap_or(Fraction::NONE),
            request_headers: headers(
                "request_headers_to_add_when_not_enforced",
                request_headers_to_add_when_not_enforced,
            )?,
            response_headers: headers("response_headers_to_add", response_headers_to_add)?,
            descriptors: descriptors.collect::<Result<_, _>>()?,
            stage: at.field("stage").within(stage, 0..=10)?,
            per_connection: local_rate_limit_per_downstream_connection,
            x_ratelimit_headers: ratelimit_headers != common::XRateLimitHeadersRfcVersion::Off,
            always_consumes_default: always_consume_default_token_bucket.value().unwrap_or(true),
            is_resource_exhausted: rate_limited_as_resource_exhausted,
            retry_after: enable_retry_after_header,
            vh_rate_limits: HostLimits::from_proto(&at.field("vh_rate_limits"), vh_rate_limits)?,
            rate_limits: RateLimit::of_filter(at.field("rate_limits"), rate_limits)?,
        })
    }
}

impl TokenBucket {
    /// Converts one.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: types::TokenBucket) -> Result<Self, Rejection> {
        verdicts!(at, proto => types::TokenBucket { supported { max_tokens, tokens_per_fill, fill_interval } });
        let tokens = tokens_per_fill.value().unwrap_or(1);
        let field = at.field("fill_interval");
        let interval = field.required(field.duration(fill_interval)?)?;
        if interval < SHORTEST_FILL {
            return Err(field.reject("is shorter than 50ms"));
        }
        Ok(Self {
            max_tokens,
            tokens_per_fill: at.field("tokens_per_fill").within(tokens, 1..=u32::MAX)?,
            fill_interval: interval,
        })
    }
}

impl Descriptor {
    fn from_proto(at: &FieldPath<'_>, proto: common::LocalRateLimitDescriptor) -> Result<Self, Rejection> {
        verdicts!(at, proto => common::LocalRateLimitDescriptor {
            supported { entries, token_bucket, shadow_mode }
        });
        if entries.is_empty() {
            return Err(at.field("entries").reject("needs at least one entry"));
        }
        let entries = entries.into_iter().enumerate().map(|(index, proto)| {
            let at = at.field("entries").index(index);
            verdicts!(at, proto => common::rate_limit_descriptor::Entry { supported { key, value } });
            // Source: local_rate_limit.proto, `max_dynamic_descriptors`: an empty value stands for any.
            if value.is_empty() {
                let reason = "is empty, which stands for any value: that is not supported, and ignoring it would admit more requests";
                return Err(at.field("value").reject(reason));
            }
            Ok((at.field("key").not_empty(key)?, value))
        });
        let entries = entries.collect::<Result<_, Rejection>>()?;
        let field = at.field("token_bucket");
        Ok(Self {
            entries,
            bucket: TokenBucket::from_proto(&field, field.required(token_bucket)?)?,
            is_shadow: shadow_mode,
        })
    }
}
