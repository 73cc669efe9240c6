//! Local rate limit: requests take tokens; who finds none is refused, or only counted.
//!
//! Buckets belong to what they were configured in: all requests of all workers take from the same one, without a lock.
//! Source: envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.proto; Envoy `LocalRateLimitFilter`, `LocalRateLimiterImpl`.
pub(crate) mod bucket;

use std::sync::Arc;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use outrigger_model::http_filter::local_ratelimit::LocalRateLimit;
use outrigger_model::rate_limit_service::Descriptor;

use self::bucket::Bucket;
use super::descriptors::{Asker, RouteLimits};
use super::settings::RouteConfig;
use super::{Decode, Decoding, Encoding, Filter};
use crate::codec::RequestHead;
use crate::http::header_changes::Changes;
use crate::http::local_reply::LocalReply;
use crate::stats::{Counter, Registry};
use crate::telemetry::response_flag::ResponseFlag;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
/// gRPC's RESOURCE_EXHAUSTED.
const RESOURCE_EXHAUSTED: u32 = 8;

/// The filter at its place.
#[derive(Debug)]
pub(super) struct LocalRateLimitFilter {
    limit: Arc<Limit>,
}

/// A limit, of a filter or of a route.
#[derive(Debug)]
pub(in crate::http) struct Limit {
    config: LocalRateLimit,
    status: StatusCode,
    buckets: Arc<Buckets>,
    own: RouteLimits,
    request_changes: Changes,
    response_changes: Changes,
    stats: LimitStats,
}

/// `<stat_prefix>.http_local_rate_limit.*`.
#[derive(Debug)]
struct LimitStats {
    enabled: Counter,
    enforced: Counter,
    rate_limited: Counter,
    ok: Counter,
}

/// The tokens of one limit; of each connection, if it is per connection.
#[derive(Debug)]
pub(in crate::http) struct Buckets {
    default: Option<Arc<Bucket>>,
    /// Those that fill slowest first: they refuse before others are asked.
    descriptors: Vec<DescriptorBucket>,
}

#[derive(Debug)]
struct DescriptorBucket {
    entries: Vec<(String, String)>,
    bucket: Arc<Bucket>,
    is_shadow: bool,
}

/// What buckets said, until the response goes.
#[derive(Debug)]
pub(super) struct Judgement {
    limit: Arc<Limit>,
    bucket: Option<Arc<Bucket>>,
    is_refused: bool,
}

impl Buckets {
    fn new(config: &LocalRateLimit) -> Self {
        let mut descriptors: Vec<_> = config
            .descriptors
            .iter()
            .map(|descriptor| DescriptorBucket {
                entries: descriptor.entries.clone(),
                bucket: Arc::new(Bucket::new(&descriptor.bucket)),
                is_shadow: descriptor.is_shadow,
            })
            .collect();
        descriptors.sort_by_key(|descriptor| descriptor.bucket.token_nanos());
        descriptors.reverse();
        Self {
            default: config.bucket.as_ref().map(|bucket| Arc::new(Bucket::new(bucket))),
            descriptors,
        }
    }

    /// What is said of a request, and the bucket that says it.
    fn ask(&self, asked: &[Descriptor], always_default: bool) -> (Answer, Option<&Arc<Bucket>>) {
        let mut first = None;
        let mut answer = Answer::Allowed;
        let matching = self
            .descriptors
            .iter()
            .filter(|descriptor| asked.iter().any(|asked| asked.entries == descriptor.entries));
        for descriptor in matching {
            first.get_or_insert(&descriptor.bucket);
            match (descriptor.bucket.take(), descriptor.is_shadow) {
                (true, _) => {}
                (false, true) => answer = Answer::Counted,
                (false, false) => return (Answer::Refused, Some(&descriptor.bucket)),
            }
        }
        let Some(default) = self
            .default
            .as_ref()
            .filter(|_| first.is_none() || always_default)
        else {
            return (answer, first);
        };
        if default.take() {
            (answer, first.or(Some(default)))
        } else {
            // As Envoy: a bucket that never has a token says nothing about itself.
            (
                Answer::Refused,
                Some(default).filter(|default| default.max_tokens() > 0),
            )
        }
    }
}

/// What buckets say of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Allowed,
    /// It goes on, and counts as one that should not.
    Counted,
    Refused,
}

impl Limit {
    /// Compiles a limit with full buckets.
    ///
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &LocalRateLimit, registry: &Registry) -> Result<Self, regex::Error> {
        let counter =
            |name: &str| registry.counter(format!("{}.http_local_rate_limit.{name}", config.stat_prefix));
        Ok(Self {
            status: StatusCode::from_u16(config.status).unwrap_or(StatusCode::TOO_MANY_REQUESTS),
            buckets: Arc::new(Buckets::new(config)),
            own: RouteLimits::new(&config.rate_limits)?,
            request_changes: Changes::new(&config.request_headers, &[]),
            response_changes: Changes::new(&config.response_headers, &[]),
            stats: LimitStats {
                enabled: counter("enabled"),
                enforced: counter("enforced"),
                rate_limited: counter("rate_limited"),
                ok: counter("ok"),
            },
            config: config.clone(),
        })
    }

    fn decode(self: &Arc<Self>, request: &mut Decoding<'_>) -> Decode {
        if !request.draws(self.config.enabled) {
            return Decode::Continue;
        }
        self.stats.enabled.inc();
        let asked = self.asked(request);
        let buckets = match self.config.per_connection {
            true => request.stream.downstream.limits.of(self),
            false => self.buckets.clone(),
        };
        let (answer, bucket) = buckets.ask(&asked, self.config.always_consumes_default);
        if answer != Answer::Refused {
            match answer {
                Answer::Counted => self.stats.rate_limited.inc(),
                _ => self.stats.ok.inc(),
            }
            self.remember(request, bucket, false);
            return Decode::Continue;
        }
        self.stats.rate_limited.inc();
        if !request.draws(self.config.enforced) {
            self.remember(request, bucket, false);
            let info = request.stream.info.borrow();
            self.request_changes.change_request(request.head, &info);
            return Decode::Continue;
        }
        self.stats.enforced.inc();
        self.remember(request, bucket, true);
        let flag = Some(ResponseFlag::RateLimited);
        let mut reply = LocalReply::new(self.status, flag, "local_rate_limited", "local_rate_limited");
        reply.grpc_status = self.config.is_resource_exhausted.then_some(RESOURCE_EXHAUSTED);
        Decode::Reply(Box::new(reply))
    }

    fn asked(&self, request: &Decoding<'_>) -> Vec<Descriptor> {
        if self.config.descriptors.is_empty() {
            return Vec::new();
        }
        if self.own.is_empty() {
            return request.descriptors(self.config.stage, self.config.vh_rate_limits, Asker::Local);
        }
        self.own.all(request).collect()
    }

    fn remember(
        self: &Arc<Self>,
        request: &mut Decoding<'_>,
        bucket: Option<&Arc<Bucket>>,
        is_refused: bool,
    ) {
        if self.config.x_ratelimit_headers || is_refused {
            let judgement = Judgement {
                limit: self.clone(),
                bucket: bucket.cloned(),
                is_refused,
            };
            request.state.limits.push((request.place, judgement));
        }
    }
}

impl Judgement {
    fn tell(&self, response: &mut Encoding<'_>) {
        if self.is_refused {
            let info = response.stream.info.borrow();
            let request = response.stream.request_if_any();
            let changes = &self.limit.response_changes;
            changes.change_response(response.head, &info, request);
            // What gRPC clients get is one of theirs whatever is added.
            if request.is_some_and(RequestHead::is_grpc) {
                let grpc = HeaderValue::from_static("application/grpc");
                response.head.headers.insert(CONTENT_TYPE, grpc);
            }
        }
        let headers = &mut response.head.headers;
        if let (true, Some(bucket)) = (self.is_refused, &self.bucket) {
            self.tell_when(bucket, headers);
        }
        let Some(bucket) = &self.bucket else { return };
        if self.limit.config.x_ratelimit_headers {
            headers.append(LIMIT, HeaderValue::from(bucket.max_tokens()));
            headers.append(REMAINING, HeaderValue::from(bucket.tokens()));
            headers.append(RESET, HeaderValue::from(bucket.seconds_to_next()));
        }
    }

    fn tell_when(&self, bucket: &Bucket, headers: &mut HeaderMap) {
        let wants = self.limit.config.retry_after && self.limit.status == StatusCode::TOO_MANY_REQUESTS;
        if wants && !headers.contains_key(RETRY_AFTER) {
            headers.insert(RETRY_AFTER, HeaderValue::from(bucket.seconds_to_next().max(1)));
        }
    }
}

impl LocalRateLimitFilter {
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &LocalRateLimit, registry: &Registry) -> Result<Self, regex::Error> {
        Ok(Self {
            limit: Arc::new(Limit::new(config, registry)?),
        })
    }
}

impl Filter for LocalRateLimitFilter {
    fn decode(&self, request: &mut Decoding<'_>) -> Decode {
        match request.config {
            Some(RouteConfig::LocalRateLimit(limit)) => limit.decode(request),
            _ => self.limit.decode(request),
        }
    }

    fn encode(&self, response: &mut Encoding<'_>) {
        let limits = &mut response.state.limits;
        let Some(index) = limits.iter().position(|(place, _)| *place == response.place) else {
            return;
        };
        let (_, judgement) = limits.remove(index);
        judgement.tell(response);
    }
}

/// Buckets of one connection, for limits that are per connection.
#[derive(Debug, Default)]
pub(in crate::http) struct ConnectionLimits(std::cell::RefCell<Vec<(Arc<Limit>, Arc<Buckets>)>>);

impl ConnectionLimits {
    /// The buckets of a limit; full when it was not asked for before.
    fn of(&self, limit: &Arc<Limit>) -> Arc<Buckets> {
        let mut known = self.0.borrow_mut();
        if let Some((_, buckets)) = known.iter().find(|(known, _)| Arc::ptr_eq(known, limit)) {
            return buckets.clone();
        }
        let buckets = Arc::new(Buckets::new(&limit.config));
        known.push((limit.clone(), buckets.clone()));
        buckets
    }
}
