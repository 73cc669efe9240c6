//! What comes of an attempt, and of an exchange: for outlier detection, the log, counters and the client.
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::SET_COOKIE;
use http::{HeaderValue, Method, StatusCode};

use super::attempt::{AttemptError, Attempted};
use super::retry::Verdict;
use super::{Exchange, OVERLOADED, UPSTREAM_SERVICE_TIME};
use crate::codec::{Response, ResponseHead};
use crate::http::cluster_policies;
use crate::http::local_reply::LocalReply;
use crate::http::stream::limits::Limit;
use crate::http::upgrade;
use crate::telemetry::grpc::GRPC_STATUS;
use crate::telemetry::response_flag::ResponseFlag;
use crate::time::Instant;
use crate::upstream::connect::ConnectError;
use crate::upstream::endpoint::Host;
use crate::upstream::health_check::LEAVE_OUT;
use crate::upstream::outlier::{self, Outcome};

impl Exchange<'_> {
    /// Tells outlier detection how an attempt went. An overflow is no fault of the host.
    pub(super) fn tell(&self, host: &Host, outcome: &Result<Attempted, AttemptError>) {
        if !self.cluster.learns() {
            return;
        }
        match outcome {
            Ok(attempted) => self.tell_answer(host, attempted),
            Err(error) => self.tell_error(host, error),
        }
    }

    pub(super) fn tell_answer(&self, host: &Host, attempted: &Attempted) {
        let head = &attempted.response.head;
        if head.headers.contains_key(LEAVE_OUT) {
            self.cluster.asked_to_be_left_out(host);
        }
        let status = self.status_of(head);
        let is_failure = status >= 500 || status == 429;
        self.cluster.answered(host, attempted.service_time, is_failure);
        // Anything but 5xx is a success. Source: Envoy `Router::Filter::onUpstreamHeaders`.
        let status = match cluster_policies::is_error(self.forward, self.cluster, head) {
            None => status,
            Some(true) => status.max(500),
            Some(false) => 200,
        };
        // An error counts as that alone.
        if status < 500 {
            self.cluster.said(host, &head.headers);
        }
        self.cluster.outcome(host, Outcome::Status(status));
    }

    pub(super) fn tell_error(&self, host: &Host, error: &AttemptError) {
        let outcome = match error {
            AttemptError::Overflow
            | AttemptError::BodyLost
            | AttemptError::Connect(ConnectError::Overflow | ConnectError::NoPool) => {
                return;
            }
            AttemptError::PerTryTimeout | AttemptError::PerTryIdle => Outcome::TimedOut,
            _ => Outcome::ConnectFailed,
        };
        self.cluster.answered(host, Duration::ZERO, true);
        self.cluster.outcome(host, outcome);
    }

    /// The whole exchange took too long, and the host of the last attempt had not answered.
    pub(super) fn tell_of_timeout(&self) {
        let hosts = self.cluster.hosts();
        let late = match self.hedges {
            true => self.awaited.untold.as_slice(),
            false => self.tried.last().map(std::slice::from_ref).unwrap_or_default(),
        };
        for host in late.iter().filter_map(|address| hosts.find(*address)) {
            self.cluster.outcome(host, Outcome::TimedOut);
        }
    }

    /// A response without messages has its gRPC status in the head; trailers count for nothing, as in Envoy.
    pub(super) fn status_of(&self, head: &ResponseHead) -> u16 {
        let grpc = if self.stream.request().is_grpc() {
            head.headers.get(GRPC_STATUS)
        } else {
            None
        };
        match grpc.and_then(|value| value.to_str().ok()?.parse().ok()) {
            Some(code) => outlier::status_of_grpc(code),
            None => head.status.as_u16(),
        }
    }

    /// The log says why there is no retry.
    pub(super) fn flag(&self, verdict: Verdict) {
        let flag = match verdict {
            Verdict::LimitExceeded => ResponseFlag::UpstreamRetryLimitExceeded,
            Verdict::Overflow => ResponseFlag::UpstreamOverflow,
            Verdict::Retry | Verdict::No => return,
        };
        self.stream.info.borrow_mut().set_flag(flag);
    }

    pub(super) fn accept(
        &self,
        mut response: Response,
        ends_at: Option<Instant>,
        host: &Host,
        verdict: Verdict,
    ) -> Response {
        let status = response.head.status.as_u16();
        self.stream.limits.set_try_idle(self.per_try_idle);
        self.stream.limits.set_exchange_end(ends_at);
        // As Envoy, health checks are not counted with the others.
        if !self.stream.info.borrow().is_health_check {
            self.cluster.stats.response(response.head.status);
        }
        if status >= 500 {
            host.counters.rq_error.fetch_add(1, Ordering::Relaxed);
        } else {
            host.counters.rq_success.fetch_add(1, Ordering::Relaxed);
        }
        let request = self.stream.request();
        let details = if request.is_upgrade && request.method != Method::CONNECT {
            // What comes from now on is the other protocol's.
            self.stream.limits.set_response(None);
            upgrade::answered(request, &mut response)
        } else {
            "via_upstream"
        };
        let mut info = self.stream.info.borrow_mut();
        info.response_code_details = Some(details.into());
        drop(info);
        self.flag(verdict);
        // As Envoy, there is no such time when the response comes before the end of the request.
        if !self.stream.manager.config.router.suppress_envoy_headers
            && let Some(time) = self.stream.limits.service_time()
        {
            let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            response
                .head
                .headers
                .insert(UPSTREAM_SERVICE_TIME, HeaderValue::from(millis));
        }
        for cookie in &self.hashed.set_cookies {
            response.head.headers.append(SET_COOKIE, cookie.clone());
        }
        response
    }

    pub(super) fn no_healthy_upstream(&self) -> LocalReply {
        self.cluster.stats.upstream_cx_none_healthy.inc();
        self.no_upstream()
    }

    /// As if there were no host. Source: Envoy `Router::Filter::sendNoHealthyUpstreamResponse`.
    fn no_upstream(&self) -> LocalReply {
        let flag = Some(ResponseFlag::NoHealthyUpstream);
        let refused = self
            .session_host
            .filter(|host| host.is_strict && self.attempts == 1);
        LocalReply::new(
            refused.map_or(StatusCode::SERVICE_UNAVAILABLE, |host| host.refusal_status),
            flag,
            "no_healthy_upstream",
            "no healthy upstream",
        )
    }

    /// The request cannot be sent again. Source: Envoy `Router::Filter::decodeData`.
    pub(super) fn body_lost() -> LocalReply {
        LocalReply::new(
            StatusCode::INSUFFICIENT_STORAGE,
            None,
            "request_payload_exceeded_retry_buffer_limit",
            "exceeded request buffer limit while retrying upstream",
        )
    }

    /// The reply when no attempt brought a response.
    pub(super) fn failed(&self, error: &AttemptError, verdict: Verdict) -> LocalReply {
        self.flag(verdict);
        match error {
            AttemptError::BodyLost => return Self::body_lost(),
            AttemptError::Connect(ConnectError::NoPool) => return self.no_upstream(),
            _ => {}
        }
        if matches!(error, AttemptError::Duration) {
            return self.stream.limits.reply(Limit::Exchange);
        }
        let too_late = match error {
            AttemptError::PerTryTimeout => Some("upstream_per_try_timeout"),
            AttemptError::PerTryIdle => Some("upstream_per_try_idle_timeout"),
            _ => None,
        };
        if let Some(details) = too_late {
            let flag = Some(ResponseFlag::UpstreamRequestTimeout);
            let mut reply = LocalReply::new(
                StatusCode::GATEWAY_TIMEOUT,
                flag,
                details,
                "upstream request timeout",
            );
            if let Some(steering) = self.stream.steering.get() {
                steering.change_timeout(&mut reply);
            }
            return reply;
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
        let status = match error.flag() {
            ResponseFlag::UpstreamProtocolError => StatusCode::BAD_GATEWAY,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut reply = LocalReply::new(status, Some(error.flag()), details, body);
        if error.flag() == ResponseFlag::UpstreamOverflow {
            reply.headers.push((OVERLOADED, HeaderValue::from_static("true")));
        }
        reply
    }
}
