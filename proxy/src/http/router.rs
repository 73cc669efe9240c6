//! Sends a request to its cluster: attempts, retries, timeouts. One call per stream.
mod attempt;
mod retry;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

use self::attempt::{Attempt, AttemptError, Attempted};
use self::retry::{RetryState, Verdict};
use super::filter::FilterState;
use super::local_reply::LocalReply;
use super::route_table::{Forward, Route};
use super::stream::Stream;
use crate::codec::body::ReplaySource;
use crate::codec::{Body, RequestHead, Response};
use crate::telemetry::response_flag::ResponseFlag;
use crate::time::{self, Instant};
use crate::upstream::circuit_breaker::{Permit, Resource};
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::Host;
use crate::upstream::lb::{self, Cursor};

const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const UPSTREAM_SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

/// What the response keeps alive, and how long it may take.
pub(super) struct Forwarded {
    /// The upstream's response.
    pub(super) response: Response,
    /// When the whole exchange has to be over.
    pub(super) deadline: Option<Instant>,
    /// Guards to hold until the response has ended.
    pub(super) guards: Option<Guards>,
}

/// Counts of one exchange, undone when dropped.
#[derive(Debug)]
pub(super) struct Guards {
    cluster: Arc<Cluster>,
    host: Arc<Host>,
    started: Instant,
    _request: Permit,
}

impl Guards {
    fn new(cluster: &Arc<Cluster>, host: &Arc<Host>, request: Permit) -> Self {
        host.counters.rq_active.fetch_add(1, Ordering::Relaxed);
        host.counters.rq_total.fetch_add(1, Ordering::Relaxed);
        cluster.stats.upstream_rq_total.inc();
        cluster.stats.upstream_rq_active.inc();
        Self {
            cluster: cluster.clone(),
            host: host.clone(),
            started: Instant::now(),
            _request: request,
        }
    }
}

impl Drop for Guards {
    fn drop(&mut self) {
        self.host.counters.rq_active.fetch_sub(1, Ordering::Relaxed);
        self.cluster.stats.upstream_rq_active.dec();
        let elapsed = self.started.elapsed().as_millis();
        self.cluster
            .stats
            .upstream_rq_time
            .record(u64::try_from(elapsed).unwrap_or(u64::MAX));
    }
}

/// Forwards one request.
///
/// # Errors
/// The local reply to give when no response could be had.
pub(super) async fn forward(
    stream: &Rc<Stream>,
    route: &Route,
    forward: &Forward,
    cluster: Option<Arc<Cluster>>,
    state: &FilterState,
    mut head: RequestHead,
    body: Body,
) -> Result<Forwarded, LocalReply> {
    let Some(cluster) = cluster else {
        stream.manager.stats.no_cluster.inc();
        let status = StatusCode::from_u16(forward.config.cluster_not_found_status)
            .unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        return Err(LocalReply::new(
            status,
            Some(ResponseFlag::NoClusterFound),
            "cluster_not_found",
            "",
        ));
    };
    stream.info.borrow_mut().upstream_cluster = Some(cluster.stat_name.clone());
    let timeout = timeout(forward, &head);
    finalize_head(stream, forward, timeout, &mut head);
    let mut exchange = Exchange {
        stream,
        state,
        cluster: &cluster,
        tried: SmallVec::new(),
        retry: RetryState::new(route.retry.as_ref(), head.is_grpc()),
        include_attempt_count: route.include_attempt_count,
        attempts: 0,
        retry_permit: None,
    };
    let limit = u64::from(cluster.config.buffer_limit_bytes);
    let source = Source::new(
        body,
        exchange.retry.may_retry(),
        usize::try_from(limit).unwrap_or(usize::MAX),
    );
    // Envoy starts the route timeout when the request has arrived whole; here it runs from the first attempt, which differs only
    // for requests whose body takes long to arrive: those get the idle timeout instead.
    let deadline = timeout
        .filter(|_| !source.is_streaming())
        .map(|timeout| Instant::now() + timeout);
    match time::until(deadline, exchange.run(head, source)).await {
        Ok(Ok((response, guards))) => Ok(Forwarded {
            response,
            deadline,
            guards: Some(guards),
        }),
        Ok(Err(reply)) => Err(reply),
        Err(time::Elapsed) => {
            cluster.stats.upstream_rq_timeout.inc();
            let flag = Some(ResponseFlag::UpstreamRequestTimeout);
            Err(LocalReply::new(
                StatusCode::GATEWAY_TIMEOUT,
                flag,
                "response_timeout",
                "upstream request timeout",
            ))
        }
    }
}

/// The time the exchange may take. Source: Envoy `FilterUtility::finalTimeout`.
fn timeout(forward: &Forward, head: &RequestHead) -> Option<Duration> {
    let config = &forward.config;
    let configured = config
        .max_stream_duration
        .filter(|limit| !limit.is_zero())
        .or(config.timeout);
    let (Some(max), true) = (config.grpc_timeout_max, head.is_grpc()) else {
        return configured;
    };
    let asked = head
        .headers
        .get("grpc-timeout")
        .and_then(|value| grpc_timeout(value.as_bytes()));
    match asked {
        Some(asked) if max.is_zero() => Some(asked),
        Some(asked) => Some(asked.min(max)),
        None => configured,
    }
    .filter(|limit| !limit.is_zero())
}

/// `8 digits at most` and a unit: H M S m u n. Source: gRPC over HTTP/2, `Timeout`.
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The last changes to a request head, the same for all attempts.
fn finalize_head(stream: &Stream, forward: &Forward, timeout: Option<Duration>, head: &mut RequestHead) {
    if let Some(host) = forward
        .config
        .host_rewrite
        .as_deref()
        .and_then(|host| HeaderValue::from_str(host).ok())
    {
        head.authority = host;
    }
    let suppress = stream.manager.config.router.suppress_envoy_headers;
    if !suppress && let Some(timeout) = timeout {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        head.headers.insert(EXPECTED_TIMEOUT, HeaderValue::from(millis));
    }
    if let Some(original) = stream.original_path.borrow().clone()
        && !suppress
    {
        head.headers.insert(ORIGINAL_PATH, original);
    }
}

/// The request body, kept for retries if there may be any.
enum Source {
    Empty,
    Once(Option<Body>),
    Replay(ReplaySource),
}

impl Source {
    fn new(body: Body, may_retry: bool, limit_bytes: usize) -> Self {
        if body.is_empty() {
            Self::Empty
        } else if may_retry {
            Self::Replay(ReplaySource::new(body, limit_bytes))
        } else {
            Self::Once(Some(body))
        }
    }

    fn is_streaming(&self) -> bool {
        !matches!(self, Self::Empty)
    }

    fn attempt(&mut self) -> Body {
        match self {
            Self::Empty => Body::empty(),
            Self::Once(body) => body.take().unwrap_or_else(Body::empty),
            Self::Replay(source) => source.attempt(),
        }
    }

    /// Another attempt can send the request from its first byte.
    fn replayable(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Once(body) => body.is_some(),
            Self::Replay(source) => source.replayable(),
        }
    }

    fn forget(&self) {
        if let Self::Replay(source) = self {
            source.forget();
        }
    }
}

/// One request and its attempts.
struct Exchange<'a> {
    stream: &'a Rc<Stream>,
    state: &'a FilterState,
    cluster: &'a Arc<Cluster>,
    tried: SmallVec<[SocketAddr; 4]>,
    retry: RetryState<'a>,
    include_attempt_count: bool,
    attempts: u32,
    retry_permit: Option<Permit>,
}

impl Exchange<'_> {
    async fn run(&mut self, head: RequestHead, mut source: Source) -> Result<(Response, Guards), LocalReply> {
        loop {
            self.attempts += 1;
            let Some(host) = self.pick() else {
                return Err(self.no_healthy_upstream());
            };
            self.tried.push(host.address);
            let mut head = head.clone();
            if self.include_attempt_count {
                head.headers
                    .insert(ATTEMPT_COUNT, HeaderValue::from(self.attempts));
            }
            let Some(permit) = self
                .cluster
                .breaker
                .acquire(Resource::Requests, &self.cluster.config.circuit_breaker)
            else {
                return Err(self.overflow());
            };
            let guards = Guards::new(self.cluster, &host, permit);
            let attempt = Attempt {
                cluster: self.cluster,
                host: &host,
                alpn: self.state.alpn.as_ref(),
                info: &self.stream.info,
            };
            let limit = self.retry.per_try_timeout();
            let outcome = match time::within(limit, attempt.run(head, source.attempt())).await {
                Ok(outcome) => outcome,
                Err(time::Elapsed) => {
                    self.cluster.stats.upstream_rq_per_try_timeout.inc();
                    host.counters.rq_timeout.fetch_add(1, Ordering::Relaxed);
                    Err(AttemptError::PerTryTimeout)
                }
            };
            self.retry_permit = None;
            match outcome {
                Ok(attempted) => match self.judge_response(&attempted, &source) {
                    Verdict::Retry => drop((attempted, guards)),
                    verdict => {
                        source.forget();
                        return Ok((self.accept(attempted, &host, verdict), guards));
                    }
                },
                Err(error) => {
                    host.counters.rq_error.fetch_add(1, Ordering::Relaxed);
                    drop(guards);
                    match self.judge_error(&error, &source) {
                        Verdict::Retry => {}
                        verdict => return Err(self.failed(&error, verdict)),
                    }
                }
            }
            self.cluster.stats.upstream_rq_retry.inc();
            tokio::time::sleep(self.retry.backoff(self.attempts)).await;
        }
    }

    fn pick(&self) -> Option<Arc<Host>> {
        if self.cluster.is_original_dst() {
            return Some(self.cluster.dialled_host(self.stream.downstream.local_address()));
        }
        thread_local! {
            static CURSOR: Cursor = Cursor::default();
        }
        let avoid = self.retry.avoid_previous_hosts();
        let tried = if avoid { self.tried.as_slice() } else { &[] };
        let attempts = self.retry.host_selection_attempts();
        CURSOR.with(|cursor| {
            self.cluster.with_hosts(|hosts| {
                let random = &mut self.stream.random.borrow_mut();
                lb::pick_untried(
                    hosts,
                    &self.cluster.config.lb_policy,
                    cursor,
                    random,
                    tried,
                    attempts,
                )
            })
        })
    }

    fn judge_response(&mut self, attempted: &Attempted, source: &Source) -> Verdict {
        let verdict = self.retry.on_response(&attempted.response.head);
        self.allow(verdict, source)
    }

    fn judge_error(&mut self, error: &AttemptError, source: &Source) -> Verdict {
        let verdict = self.retry.on_error(error);
        self.allow(verdict, source)
    }

    /// A wanted retry also needs a whole request and room in the circuit breaker.
    fn allow(&mut self, verdict: Verdict, source: &Source) -> Verdict {
        match verdict {
            Verdict::Retry if !source.replayable() => Verdict::No,
            Verdict::Retry => match self
                .cluster
                .breaker
                .acquire(Resource::Retries, &self.cluster.config.circuit_breaker)
            {
                Some(permit) => {
                    self.retry_permit = Some(permit);
                    Verdict::Retry
                }
                None => {
                    self.cluster.stats.upstream_rq_retry_overflow.inc();
                    Verdict::Overflow
                }
            },
            Verdict::LimitExceeded => {
                self.cluster.stats.upstream_rq_retry_limit_exceeded.inc();
                Verdict::LimitExceeded
            }
            verdict => verdict,
        }
    }

    fn accept(&self, attempted: Attempted, host: &Host, verdict: Verdict) -> Response {
        let Attempted {
            mut response,
            service_time,
        } = attempted;
        let status = response.head.status.as_u16();
        self.cluster.stats.response(response.head.status);
        if status >= 500 {
            host.counters.rq_error.fetch_add(1, Ordering::Relaxed);
        } else {
            host.counters.rq_success.fetch_add(1, Ordering::Relaxed);
            if self.attempts > 1 {
                self.cluster.stats.upstream_rq_retry_success.inc();
            }
        }
        let mut info = self.stream.info.borrow_mut();
        info.response_code_details = Some("via_upstream".into());
        if verdict == Verdict::LimitExceeded {
            info.set_flag(ResponseFlag::UpstreamRetryLimitExceeded);
        }
        drop(info);
        if !self.stream.manager.config.router.suppress_envoy_headers {
            let millis = u64::try_from(service_time.as_millis()).unwrap_or(u64::MAX);
            response
                .head
                .headers
                .insert(UPSTREAM_SERVICE_TIME, HeaderValue::from(millis));
        }
        response
    }

    fn no_healthy_upstream(&self) -> LocalReply {
        self.cluster.stats.upstream_cx_none_healthy.inc();
        let flag = Some(ResponseFlag::NoHealthyUpstream);
        LocalReply::new(
            StatusCode::SERVICE_UNAVAILABLE,
            flag,
            "no_healthy_upstream",
            "no healthy upstream",
        )
    }

    fn overflow(&self) -> LocalReply {
        self.cluster.stats.upstream_rq_pending_overflow.inc();
        self.failed(&AttemptError::Overflow, Verdict::No)
    }

    /// The reply when no attempt brought a response.
    fn failed(&self, error: &AttemptError, verdict: Verdict) -> LocalReply {
        if verdict == Verdict::LimitExceeded {
            self.stream
                .info
                .borrow_mut()
                .set_flag(ResponseFlag::UpstreamRetryLimitExceeded);
        }
        if matches!(error, AttemptError::PerTryTimeout) {
            let flag = Some(ResponseFlag::UpstreamRequestTimeout);
            return LocalReply::new(
                StatusCode::GATEWAY_TIMEOUT,
                flag,
                "upstream_per_try_timeout",
                "upstream request timeout",
            );
        }
        let reason = error.reset_reason();
        let transport = error.transport_failure_reason();
        let retried = if self.attempts > 1 {
            "retried and the latest reset reason"
        } else {
            "reset reason"
        };
        let body = format!("upstream connect error or disconnect/reset before headers. {retried}: {reason}");
        let mut details = format!(
            "upstream_reset_before_response_started{{{}",
            reason.replace(' ', "_")
        );
        if !transport.is_empty() {
            details.push_str(&format!("|{}", transport.replace(' ', "_")));
            self.stream.info.borrow_mut().upstream.transport_failure_reason = Some(transport.into());
        }
        details.push('}');
        let mut reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, Some(error.flag()), details, body);
        if matches!(error, AttemptError::Overflow) {
            reply.headers.push((OVERLOADED, HeaderValue::from_static("true")));
        }
        reply
    }
}
