//! Global rate limit: a service says whether a request is one too many.
//!
//! A request that nothing describes is not asked for. Source: envoy/extensions/filters/http/ratelimit/v3/rate_limit.proto; Envoy
//! `RateLimitFilter::Filter`, `GrpcClientImpl`, `XRateLimitHeaderUtils`.
mod headers;

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use outrigger_model::fraction::Fraction;
use outrigger_model::http_filter::global_rate_limit::{GlobalRateLimit, RequestKind, RouteGlobalRateLimit};
use outrigger_model::http_filter::rate_limit::HostLimits;
use outrigger_model::rate_limit_service::{self as service, Answer, Descriptor};

use self::headers::{ENVOY_RATELIMITED, parsed, retry_after, x_ratelimit};
use super::descriptors::{Asker, RouteLimits};
use super::settings::RouteConfig;
use super::{Answered, Decode, Decoding, Encoding, Filter, Resume, Scope, Told, draws};
use crate::codec::RequestHead;
use crate::http::extras::INTERNAL;
use crate::http::grpc_call::{CallError, GrpcCall};
use crate::http::header_changes::{self, Changes};
use crate::http::local_reply::LocalReply;
use crate::http::stream::Stream;
use crate::telemetry::response_flag::ResponseFlag;
use crate::upstream::cluster::Cluster;
use crate::upstream::stats::RateLimited;

const METHOD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// gRPC's RESOURCE_EXHAUSTED.
const RESOURCE_EXHAUSTED: u32 = 8;

/// The filter at its place.
#[derive(Debug)]
pub(super) struct GlobalRateLimitFilter {
    limit: Arc<Limit>,
    own: RouteLimits,
    refusal_changes: Changes,
}

/// Asks, and says what the answer means.
#[derive(Debug)]
struct Limit {
    config: GlobalRateLimit,
    call: GrpcCall,
    limited: StatusCode,
    error: StatusCode,
}

/// What a route says about it.
#[derive(Debug)]
pub(super) struct RouteLimit {
    config: RouteGlobalRateLimit,
    own: RouteLimits,
}

impl RouteLimit {
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &RouteGlobalRateLimit) -> Result<Self, regex::Error> {
        Ok(Self {
            own: RouteLimits::new(&config.route_limits)?,
            config: config.clone(),
        })
    }
}

impl GlobalRateLimitFilter {
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &GlobalRateLimit, scope: &Scope<'_>) -> Result<Self, regex::Error> {
        let status = |code, usual| StatusCode::from_u16(code).unwrap_or(usual);
        Ok(Self {
            own: RouteLimits::new(&config.own_limits)?,
            refusal_changes: Changes::new(&config.refusal_headers, &[]),
            limit: Arc::new(Limit {
                call: GrpcCall::new(&config.asked_service, METHOD, scope.clusters),
                limited: status(config.limited_status, StatusCode::TOO_MANY_REQUESTS),
                error: status(config.error_status, StatusCode::INTERNAL_SERVER_ERROR),
                config: config.clone(),
            }),
        })
    }

    fn descriptors(&self, request: &Decoding<'_>, route: Option<&RouteLimit>) -> Vec<Descriptor> {
        let of_route = route.map(|route| &route.own);
        let own = of_route.filter(|own| !own.is_empty()).unwrap_or(&self.own);
        if !own.is_empty() {
            return own.all(request).collect();
        }
        let of_host = route.map_or(HostLimits::Override, |route| route.config.of_host);
        request.descriptors(self.limit.config.asked_stage, of_host, Asker::Global)
    }
}

impl Filter for GlobalRateLimitFilter {
    fn decode(&self, request: &mut Decoding<'_>) -> Decode {
        let config = &self.limit.config;
        let Some(cluster) = request.cluster.filter(|_| request.is_forwarded) else {
            return Decode::Continue;
        };
        if !request.draws(config.share_asked) || !is_of(config.request_kind, request.head) {
            return Decode::Continue;
        }
        let route = match request.config {
            Some(RouteConfig::GlobalRateLimit(route)) => Some(&**route),
            _ => None,
        };
        let descriptors = self.descriptors(request, route);
        if descriptors.is_empty() {
            return Decode::Continue;
        }
        let other = route.map(|route| &route.config.other_domain);
        let domain = other
            .filter(|domain| !domain.is_empty())
            .unwrap_or(&config.domain);
        let question = service::question(domain, descriptors);
        let (limit, cluster, stream) = (self.limit.clone(), cluster.clone(), request.stream.clone());
        Decode::Wait(Box::pin(async move {
            let answer = limit.call.ask(&question, limit.config.rpc_timeout).await;
            limit.judge(answer, &cluster, &stream)
        }))
    }

    fn encode(&self, response: &mut Encoding<'_>) {
        let told = &mut response.state.told;
        let Some(index) = told.iter().position(|(place, _)| *place == response.place) else {
            return;
        };
        let (_, told) = told.remove(index);
        // As Envoy, what the service says its body is counts.
        if told.is_refusal && told.headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
            response.head.headers.remove(CONTENT_TYPE);
        }
        for (name, value) in told.headers {
            header_changes::append(&mut response.head.headers, &name, value);
        }
        if !told.is_refusal {
            return;
        }
        let info = response.stream.info.borrow();
        let request = response.stream.request_if_any();
        self.refusal_changes
            .change_response(response.head, &info, request);
        // What gRPC clients get is one of theirs whatever is added.
        if request.is_some_and(RequestHead::is_grpc) {
            let grpc = HeaderValue::from_static("application/grpc");
            response.head.headers.insert(CONTENT_TYPE, grpc);
        }
    }
}

/// `x-envoy-internal` says where a request is from.
fn is_of(kind: RequestKind, head: &RequestHead) -> bool {
    let is_internal = || head.headers.get(INTERNAL).is_some_and(|value| value == "true");
    match kind {
        RequestKind::Both => true,
        RequestKind::Internal => is_internal(),
        RequestKind::External => !is_internal(),
    }
}

fn drawn(share: Fraction, stream: &Stream) -> bool {
    draws(share, &mut stream.random.borrow_mut())
}

impl Limit {
    /// What becomes of the request.
    fn judge(&self, answer: Result<Bytes, CallError>, cluster: &Cluster, stream: &Stream) -> Resume {
        let count = |what| cluster.stats.rate_limited(&self.config.counter_prefix, what);
        let answer = answer.and_then(|message| service::answer(&message).ok_or(CallError::Malformed));
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, "the rate limit service was asked in vain");
                count(RateLimited::Error);
                if !drawn(self.config.failures_denied, stream) {
                    count(RateLimited::FailureModeAllowed);
                    return Resume::Continue;
                }
                let flag = Some(ResponseFlag::RateLimitServiceError);
                let reply = LocalReply::new(self.error, flag, "rate_limiter_error", "");
                return Resume::Reply(Box::new(reply));
            }
        };
        if answer.is_over {
            count(RateLimited::OverLimit);
            // As Envoy, refused or not: it counts as an answer of the cluster.
            cluster.stats.response(self.limited);
        } else {
            count(RateLimited::Ok);
        }
        let is_refused = answer.is_over && drawn(self.config.share_enforced, stream);
        Resume::Answered(Box::new(self.answered(answer, is_refused)))
    }

    fn answered(&self, answer: Answer, is_refused: bool) -> Answered {
        let mut headers = parsed(&answer.response_headers);
        if answer.is_over && self.config.tells_envoy_ratelimited {
            headers.retain(|(name, _)| name != ENVOY_RATELIMITED);
            headers.push((ENVOY_RATELIMITED, HeaderValue::from_static("true")));
        }
        if self.config.tells_x_ratelimit {
            headers.extend(x_ratelimit(&answer.statuses));
        }
        if is_refused && self.config.tells_retry_after && self.limited == StatusCode::TOO_MANY_REQUESTS {
            let is_there = headers.iter().any(|(name, _)| name == http::header::RETRY_AFTER);
            headers.extend(retry_after(&answer.statuses).filter(|_| !is_there));
        }
        let reply = is_refused.then(|| {
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            let flag = Some(ResponseFlag::RateLimited);
            let mut reply = LocalReply::new(self.limited, flag, "request_rate_limited", body);
            reply.grpc_status = self.config.exhausts_resource.then_some(RESOURCE_EXHAUSTED);
            reply
        });
        Answered {
            request: parsed(&answer.request_headers),
            response: Told {
                headers,
                is_refusal: is_refused,
            },
            reply,
        }
    }
}
