//! Sends a request to its cluster: attempts, retries, timeouts. One call per stream.
mod attempt;
mod hedge;
mod host;
pub(super) mod internal_redirect;
pub(super) mod mirror;
mod outcome;
mod overload;
mod retry;
pub(super) mod steering;
mod timeouts;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

pub(super) use self::attempt::tls_wish;
use self::attempt::{Attempt, AttemptError, Attempted};
use self::hedge::{Awaited, Hedged};
use self::internal_redirect::Redirected;
use self::retry::{RetryState, Verdict, Wait};
use self::steering::Steering;
use self::timeouts::Timeouts;
use super::cluster_policies;
use super::filter::{FilterState, SessionHost};
use super::hash_policy::Hashed;
use super::local_reply::LocalReply;
use super::route_table::{Forward, Route, Target};
use super::stream::Stream;
use super::stream::limits::Limit;
use super::upgrade;
use crate::codec::body::ReplaySource;
use crate::codec::{Body, NameCase, RequestHead, Response, ResponseHead};
use crate::telemetry::grpc;
use crate::telemetry::response_flag::ResponseFlag;
use crate::time::Instant;
use crate::upstream::circuit_breaker::{Permit, Resource};
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::{ProxiedClient, TlsWish};
use crate::upstream::endpoint::Host;
use crate::upstream::lb::Labels;

const IS_TIMEOUT_RETRY: HeaderName = HeaderName::from_static("x-envoy-is-timeout-retry");
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const UPSTREAM_SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
pub(super) const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
pub(super) const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

/// A response and what it keeps alive.
pub(super) struct Forwarded {
    /// The upstream's response.
    pub(super) response: Response,
    /// Guards to hold until the response has ended.
    pub(super) guards: Option<Guards>,
}

/// Counts of one exchange, undone when dropped.
#[derive(Debug)]
pub(super) struct Guards {
    cluster: Arc<Cluster>,
    host: Arc<Host>,
    started: Instant,
    request: Option<Permit>,
}

impl Guards {
    pub(super) fn new(cluster: &Arc<Cluster>, host: &Arc<Host>) -> Self {
        host.counters.rq_active.fetch_add(1, Ordering::Relaxed);
        cluster.stats.upstream_rq_active.inc();
        Self {
            cluster: cluster.clone(),
            host: host.clone(),
            started: Instant::now(),
            request: None,
        }
    }
}

impl Guards {
    /// The response stood still for too long.
    pub(super) fn idled(&self) {
        self.cluster.stats.upstream_rq_per_try_idle_timeout.inc();
        self.host.counters.rq_timeout.fetch_add(1, Ordering::Relaxed);
    }

    /// The exchange did not end within the cluster's limit.
    pub(super) fn took_too_long(&self) {
        self.cluster.stats.upstream_rq_max_duration_reached.inc();
    }

    /// The response did not end in time.
    pub(super) fn timed_out(&self) {
        self.cluster.stats.upstream_rq_timeout.inc();
        self.host.counters.rq_timeout.fetch_add(1, Ordering::Relaxed);
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
    (target, cluster): (Option<&Target>, Option<&Arc<Cluster>>),
    state: &FilterState,
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
    if let Some(reply) = overload::refused(stream, cluster) {
        return Err(reply);
    }
    let body = mirror::copies(stream, forward, cluster, body);
    let hashed = match cluster.wants_hash() {
        true => cluster_policies::hash(forward, cluster).hash(stream.request(), &stream.info.borrow()),
        false => Hashed::default(),
    };
    let steering = stream.steering.get();
    let usual = cluster_policies::retries(route, forward, cluster);
    let asked = steering.and_then(|steering| steering.retries(usual));
    let retries = asked.as_ref().or(usual);
    let retry = RetryState::new(retries, stream.request());
    let source = (!body.is_empty()).then(|| {
        let limit = route
            .buffer_limit_bytes
            .unwrap_or(stream.manager.buffer_limit_bytes);
        let keeps = retry.may_retry() || forward.redirects.is_some();
        ReplaySource::new(body, limit, keeps)
    });
    let mut tls = tls_wish(cluster, state.alpn.as_ref(), stream.request());
    tls.source = stream.downstream.info.original_source;
    tls.priority = forward.config.priority;
    if cluster.wants_client() {
        let made_up = stream.manager.config.adds_proxy_state;
        tls.client = ProxiedClient::of(&stream.downstream.info, made_up);
    }
    let per_try = route
        .retry
        .as_ref()
        .and_then(|retries| retries.policy.per_try_timeout);
    let mut exchange = Exchange {
        stream,
        tls,
        cluster,
        forward,
        hashed,
        labels: target.and_then(|target| target.labels.as_ref()),
        session_host: state.session_host,
        named: host::named_hosts(cluster, stream.request()).into_iter(),
        tried: SmallVec::new(),
        tried_priorities: SmallVec::new(),
        excluded_priorities: SmallVec::new(),
        retry,
        // As Envoy, those of the route, whatever the cluster's policy says.
        per_try_idle: route
            .retry
            .as_ref()
            .and_then(|retries| retries.policy.per_try_idle_timeout),
        per_try: steering.map_or(per_try, |steering| steering.per_try(per_try)),
        hedges: steering.map_or(route.hedges, |steering| steering.hedges(route.hedges)),
        route,
        timed_out: None,
        attempts: 0,
        retry_permit: None,
        is_retry: false,
        awaited: Awaited::default(),
    };
    let watched = source.clone();
    let outcome = {
        // In place: it is some kilobytes, and would be moved with each call that takes it.
        let run = std::pin::pin!(exchange.run(source));
        stream.limits.within(run).await
    };
    if watched.is_some_and(|source| source.gave_up()) {
        cluster.stats.retry_abandoned();
    }
    let mut outcome = match outcome {
        Ok(Ok((response, guards))) => Ok(Forwarded {
            response,
            guards: Some(guards),
        }),
        Ok(Err(reply)) => {
            // Envoy's `chargeUpstreamAbort`: what is answered for the cluster counts as its answer.
            cluster.stats.response(reply.status);
            Err(reply)
        }
        Err(limit) => {
            let mut reply = stream.limit_reached(limit);
            if limit == Limit::Response {
                if let Some(steering) = steering {
                    steering.change_timeout(&mut reply);
                }
                exchange.tell_of_timeout();
                for _ in 0..exchange.awaited.attempts.max(1) {
                    cluster.stats.upstream_rq_timeout.inc();
                    cluster.stats.response(reply.status);
                }
            }
            Err(reply)
        }
    };
    if route.answers_attempt_count {
        let count = HeaderValue::from(stream.info.borrow().attempt_count);
        match &mut outcome {
            Ok(forwarded) => drop(forwarded.response.head.headers.insert(ATTEMPT_COUNT, count)),
            Err(reply) => reply.headers.push((ATTEMPT_COUNT, count)),
        }
    }
    outcome
}

/// Sets the longest duration of a stream, which counts what filters do too. True: it is over.
pub(super) fn limit_duration(
    stream: &Stream,
    route: &Route,
    forward: &Forward,
    head: &mut RequestHead,
) -> bool {
    let timeouts = Timeouts::new(
        &forward.config,
        route.retry.as_ref().map(|retries| &retries.policy),
        head,
        route.hedges,
    );
    let usual = stream.manager.config.stream_duration;
    let duration = timeouts.duration.or(usual);
    // Zero is no limit, unless it is what a deadline leaves.
    let duration = duration.filter(|limit| timeouts.is_over || !limit.is_zero());
    if timeouts.tells_grpc_duration {
        match duration {
            Some(limit) => drop(
                head.headers
                    .insert(grpc::GRPC_TIMEOUT, grpc::timeout_value(limit)),
            ),
            // As Envoy: the route takes the limit of the connection manager away.
            None if usual.is_some_and(|limit| !limit.is_zero()) => {
                drop(head.headers.remove(grpc::GRPC_TIMEOUT))
            }
            None => {}
        }
    }
    if timeouts.is_over {
        return true;
    }
    stream.limits.set_duration(duration);
    false
}

/// What the request asks of times, before the route changes it; `None`: nobody here may ask for any.
pub(super) fn steering(stream: &Stream, head: &mut RequestHead) -> Option<Box<Steering>> {
    let extras = stream.manager.extras.as_ref();
    if !extras.is_some_and(|extras| extras.knows_insiders()) {
        return None;
    }
    let respects_expected = stream.manager.config.router.respects_expected_timeout;
    Some(Box::new(Steering::of_times(head, respects_expected)))
}

/// The last changes to a request head, the same for all attempts, and the limit of the response.
pub(super) fn finish_head(
    stream: &Stream,
    route: &Route,
    forward: &Forward,
    head: &mut RequestHead,
    steering: Option<Box<Steering>>,
) {
    let mut timeouts = Timeouts::new(
        &forward.config,
        route.retry.as_ref().map(|retries| &retries.policy),
        head,
        route.hedges,
    );
    if let Some(mut steering) = steering {
        steering.settle(&mut timeouts);
        steering.take_retries(&mut head.headers);
        // Once a stream.
        let _ = stream.steering.set(steering);
    }
    stream.limits.set_response(timeouts.response);
    if upgrade::is_websocket(head) {
        stream.limits.response_due();
    }
    let suppress = stream.manager.config.router.suppress_envoy_headers;
    if let Some(expected) = timeouts.expected() {
        if !suppress {
            let millis = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
            head.headers.insert(EXPECTED_TIMEOUT, HeaderValue::from(millis));
        }
        if timeouts.tells_grpc {
            head.headers
                .insert(grpc::GRPC_TIMEOUT, grpc::timeout_value(expected));
        }
    }
    if let Some(original) = stream.original_path.borrow().clone()
        && !suppress
    {
        head.headers.insert(ORIGINAL_PATH, original);
    }
}

/// One request and its attempts.
struct Exchange<'a> {
    stream: &'a Rc<Stream>,
    tls: TlsWish,
    cluster: &'a Arc<Cluster>,
    forward: &'a Forward,
    hashed: Hashed,
    labels: Option<&'a Labels>,
    /// The host of its session.
    session_host: Option<SessionHost>,
    /// Hosts that the request names, one for each attempt.
    named: smallvec::IntoIter<[SocketAddr; 1]>,
    tried: SmallVec<[SocketAddr; 4]>,
    /// Of hosts tried, since priorities are avoided.
    tried_priorities: SmallVec<[u32; 4]>,
    /// Those avoided.
    excluded_priorities: SmallVec<[u32; 4]>,
    retry: RetryState<'a>,
    per_try: Option<Duration>,
    per_try_idle: Option<Duration>,
    /// An attempt that takes too long goes on beside the next one.
    hedges: bool,
    route: &'a Route,
    /// Whether the attempt before took too long; `None`: there was none.
    timed_out: Option<bool>,
    attempts: u32,
    retry_permit: Option<Permit>,
    /// The request was sent again, and no attempt since then was good enough.
    is_retry: bool,
    /// Of an exchange that hedges.
    awaited: Awaited,
}

impl Exchange<'_> {
    async fn run(&mut self, source: Option<ReplaySource>) -> Result<(Response, Guards), LocalReply> {
        if self.hedges {
            // In a box: few routes do.
            return Box::pin(Hedged::new(self, source).run()).await;
        }
        loop {
            self.attempts += 1;
            let Some(host) = self.pick() else {
                self.stream.info.borrow_mut().attempt_count = self.attempts;
                return Err(self.no_healthy_upstream());
            };
            self.note_tried(&host);
            let head = self.head_for(&host);
            let mut guards = Guards::new(self.cluster, &host);
            let attempt = Attempt {
                cluster: self.cluster,
                host: &host,
                tls: &self.tls,
                info: &self.stream.info,
                limits: &self.stream.limits,
                feedback: self.stream.feedback.as_ref().filter(|_| self.uses_feedback()),
                per_try: self.per_try,
                per_try_idle: self.per_try_idle,
                tunnel_end: self.forward.config.tunnel_end,
                goes_on: None,
            };
            let outcome = attempt.run(head, source.as_ref()).await;
            if matches!(outcome, Err(AttemptError::Duration)) {
                self.cluster.stats.upstream_rq_max_duration_reached.inc();
            }
            let timed_out = matches!(
                outcome,
                Err(AttemptError::PerTryTimeout | AttemptError::PerTryIdle)
            );
            if timed_out {
                match outcome {
                    Err(AttemptError::PerTryIdle) => {
                        self.cluster.stats.upstream_rq_per_try_idle_timeout.inc()
                    }
                    _ => self.cluster.stats.upstream_rq_per_try_timeout.inc(),
                }
                host.counters.rq_timeout.fetch_add(1, Ordering::Relaxed);
            }
            self.retry_permit = None;
            self.tell(&host, &outcome);
            match outcome {
                Ok(attempted) => match self.judge_response(&attempted, source.as_ref()) {
                    Verdict::Retry => {
                        host.counters.rq_error.fetch_add(1, Ordering::Relaxed);
                        drop((attempted, guards));
                    }
                    verdict => {
                        let Attempted {
                            response,
                            permit,
                            ends_at,
                            ..
                        } = attempted;
                        guards.request = Some(permit);
                        if self.redirect(&response.head, source.as_ref()) {
                            let head = response.head;
                            let body = Body::empty();
                            return Ok((Response { head, body }, guards));
                        }
                        if let Some(source) = &source {
                            source.forget();
                        }
                        let response = self.accept(response, ends_at, &host, verdict);
                        return Ok((response, guards));
                    }
                },
                Err(error) => {
                    host.counters.rq_error.fetch_add(1, Ordering::Relaxed);
                    drop(guards);
                    match self.judge_error(&error, source.as_ref()) {
                        Verdict::Retry => {}
                        verdict => return Err(self.failed(&error, verdict)),
                    }
                }
            }
            self.timed_out = Some(timed_out);
            if let Some(source) = &source {
                source.supersede();
            }
            let wait = self.next_wait();
            tokio::time::sleep(wait).await;
        }
    }

    /// Counts a retry; it comes after this time.
    fn next_wait(&mut self) -> Duration {
        let stats = &self.cluster.stats;
        stats.upstream_rq_retry.inc();
        let wait = self.retry.next_wait();
        match wait {
            Wait::None => {}
            Wait::Exponential(_) => stats.upstream_rq_retry_backoff_exponential.inc(),
            Wait::Told(_) => stats.upstream_rq_retry_backoff_ratelimited.inc(),
        }
        wait.duration()
    }

    /// The request as this attempt sends it.
    fn head_for(&self, host: &Host) -> RequestHead {
        let mut head = self.stream.request().clone();
        let extras = self.stream.manager.extras.as_ref();
        if extras.is_some_and(|extras| extras.takes_scheme_of_server()) {
            let is_tls = self.cluster.is_tls(host);
            head.scheme = if is_tls { "https" } else { "http" };
        }
        let tells = !self.stream.manager.config.router.suppress_envoy_headers;
        if self
            .forward
            .rewrite_host_to(&host.config.hostname, &mut head, tells)
        {
            *self.stream.picked_authority.borrow_mut() = Some(head.authority.clone());
        }
        if let Some(timed_out) = self.timed_out.filter(|_| self.route.tells_timeout_retry) {
            let value = HeaderValue::from_static(if timed_out { "true" } else { "false" });
            head.headers.insert(IS_TIMEOUT_RETRY, value);
        }
        if self.attempts > 1 && head.headers.contains_key(EXPECTED_TIMEOUT) {
            self.shorten_expectation(&mut head);
        }
        if self.route.include_attempt_count {
            head.headers
                .insert(ATTEMPT_COUNT, HeaderValue::from(self.attempts));
        }
        head
    }

    /// More passes between client and upstream than a request and a response.
    fn uses_feedback(&self) -> bool {
        let manager = &self.stream.manager.config;
        let preserves = |case| matches!(case, NameCase::Preserve { .. });
        manager.passes_100_continue
            || preserves(manager.http1.name_case)
            || preserves(self.cluster.config.http.http1.name_case)
    }

    /// A retry has what is left of the time. Source: Envoy `FilterUtility::setTimeoutHeaders`.
    fn shorten_expectation(&self, head: &mut RequestHead) {
        let left = self.stream.limits.response_left();
        let left = left.map(|left| left.max(Duration::from_millis(1)));
        let per_try = self.per_try.filter(|_| !self.hedges);
        let Some(expected) = left.into_iter().chain(per_try).min() else {
            return;
        };
        let millis = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
        head.headers.insert(EXPECTED_TIMEOUT, HeaderValue::from(millis));
    }

    fn judge_response(&mut self, attempted: &Attempted, source: Option<&ReplaySource>) -> Verdict {
        let verdict = self
            .retry
            .on_response(self.stream.request(), &attempted.response.head);
        self.allow(verdict, source)
    }

    /// The response is a redirect that is followed here: the stream has its next pass.
    fn redirect(&self, response: &ResponseHead, body: Option<&ReplaySource>) -> bool {
        let redirects = self.forward.redirects.as_deref();
        let Some(redirects) = redirects.filter(|redirects| redirects.are(response.status)) else {
            return false;
        };
        let redirected = Redirected {
            stream: self.stream,
            route: self.route,
            redirects,
            response,
            body,
        };
        let counters = self.cluster.stats.internal_redirects();
        match redirected.follow() {
            Some(next) => {
                counters.succeeded.inc();
                self.stream.pass_on_to(next);
                true
            }
            None => {
                counters.failed.inc();
                false
            }
        }
    }

    fn judge_error(&mut self, error: &AttemptError, source: Option<&ReplaySource>) -> Verdict {
        let verdict = self.retry.on_error(error);
        self.allow(verdict, source)
    }

    /// A wanted retry also needs a whole request and room in the circuit breaker.
    fn allow(&mut self, verdict: Verdict, source: Option<&ReplaySource>) -> Verdict {
        match verdict {
            // As Envoy: what is not sent again after a retry is its success, whatever it is.
            Verdict::No if std::mem::take(&mut self.is_retry) => {
                self.cluster.stats.upstream_rq_retry_success.inc();
                Verdict::No
            }
            Verdict::Retry if source.is_some_and(|source| !source.replayable()) => Verdict::No,
            Verdict::Retry => match self.cluster.permit(self.tls.priority, Resource::Retries) {
                Some(permit) => {
                    self.retry_permit = Some(permit);
                    self.is_retry = true;
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
}
