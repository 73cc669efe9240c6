//! Whether a failed attempt is made again. Source: Envoy docs, router filter, `x-envoy-retry-on`; `RetryStateImpl`.
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, StatusCode};
use outrigger_model::route::{ResetFormat, ResetHeader, RetryOn, RetryPolicy};

use super::attempt::AttemptError;
use crate::codec::{RequestHead, ResponseHead, SendError};
use crate::http::route_table::Retries;
use crate::telemetry::grpc::GRPC_STATUS;
use crate::upstream::connect::ConnectError;

const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const EARLY_DATA: HeaderName = HeaderName::from_static("early-data");

/// The answer to "once more?".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Yes.
    Retry,
    /// The policy does not ask for it.
    No,
    /// The policy asks for it, but all retries are used up.
    LimitExceeded,
    /// The circuit breaker has no room for it.
    Overflow,
}

/// How long to wait before the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// By the policy.
    Exponential(Duration),
    /// By the response.
    Told(Duration),
    /// There is none.
    None,
}

impl Wait {
    pub(super) fn duration(self) -> Duration {
        match self {
            Self::Exponential(wait) | Self::Told(wait) => wait,
            Self::None => Duration::ZERO,
        }
    }
}

/// Retries of one request.
pub(super) struct RetryState<'a> {
    retries: Option<&'a Retries>,
    left: u32,
    /// The next wait is shorter than this; milliseconds.
    ceiling: u64,
    /// What the last response said of when to come again; milliseconds.
    told: Option<u64>,
    /// The last response is retried without a wait.
    at_once: bool,
}

impl<'a> RetryState<'a> {
    pub(super) fn new(retries: Option<&'a Retries>, request: &RequestHead) -> Self {
        let retries = retries.filter(|retries| retries.wants(request));
        Self {
            retries,
            left: retries.map_or(0, |retries| retries.policy.num_retries),
            ceiling: retries.map_or(0, |retries| millis(retries.policy.backoff_base)),
            told: None,
            at_once: false,
        }
    }

    pub(super) fn may_retry(&self) -> bool {
        self.retries.is_some() && self.left > 0
    }

    /// There is a policy, and it is meant for this request.
    pub(super) fn may_ever(&self) -> bool {
        self.retries.is_some()
    }

    pub(super) fn avoid_previous_hosts(&self) -> bool {
        self.retries
            .is_some_and(|retries| retries.policy.avoid_previous_hosts)
    }

    /// After so many attempts their priorities are avoided; `None`: never.
    pub(super) fn previous_priorities(&self) -> Option<usize> {
        let every = self.retries?.policy.previous_priorities?;
        usize::try_from(every).ok()
    }

    pub(super) fn host_selection_attempts(&self) -> u32 {
        self.retries
            .map_or(0, |retries| retries.policy.host_selection_attempts)
    }

    /// Judges a response head. Source: Envoy `RetryStateImpl::wouldRetryFromHeaders`.
    pub(super) fn on_response(&mut self, request: &RequestHead, head: &ResponseHead) -> Verdict {
        let Some(retries) = self.retries else {
            return Verdict::No;
        };
        let wanted = is_wanted(retries, request, head);
        if wanted {
            // Envoy's `RetryDecision::RetryImmediately`.
            self.at_once =
                head.status == StatusCode::TOO_EARLY && retries.policy.retry_on.retriable_status_codes;
            self.told = told(&retries.policy, &head.headers, SystemTime::now());
        }
        self.spend(wanted)
    }

    /// Such a response is no answer while there are retries.
    pub(super) fn would(&self, request: &RequestHead, head: &ResponseHead) -> bool {
        self.retries
            .is_some_and(|retries| is_wanted(retries, request, head))
    }

    /// Judges an attempt that takes too long and goes on. As Envoy, whatever the conditions of the policy.
    pub(super) fn on_slow(&mut self) -> Verdict {
        self.spend(self.retries.is_some())
    }

    /// Judges an attempt without response.
    pub(super) fn on_error(&mut self, error: &AttemptError) -> Verdict {
        let Some(retries) = self.retries else {
            return Verdict::No;
        };
        let on = retries.policy.retry_on;
        let wanted = match error {
            AttemptError::Overflow
            | AttemptError::BodyLost
            | AttemptError::Connect(ConnectError::Overflow | ConnectError::NoPool) => false,
            AttemptError::Connect(_) => {
                on.connect_failure || on.five_xx || on.gateway_error || on.reset || on.reset_before_request
            }
            AttemptError::Send(SendError::NotSent(_)) => {
                on.reset || on.reset_before_request || on.five_xx || on.gateway_error
            }
            AttemptError::Send(SendError::Refused(_)) => {
                on.refused_stream || on.reset || on.five_xx || on.gateway_error
            }
            AttemptError::Send(_)
            | AttemptError::PerTryTimeout
            | AttemptError::PerTryIdle
            | AttemptError::Duration => on.reset || on.five_xx || on.gateway_error,
        };
        self.spend(wanted)
    }

    fn spend(&mut self, wanted: bool) -> Verdict {
        match (wanted, self.left) {
            (false, _) => Verdict::No,
            (true, 0) => Verdict::LimitExceeded,
            (true, _) => {
                self.left -= 1;
                Verdict::Retry
            }
        }
    }

    /// Fully jittered: below the base at first, below twice as much each time, at most below the longest interval; what a response
    /// asked for is kept to, and up to half of it added. Source: Envoy 1.40, `JitteredExponentialBackOffStrategy` and
    /// `JitteredLowerBoundBackOffStrategy`. (The documentation's `(2^N - 1) * B` is an older formula.)
    pub(super) fn next_wait(&mut self) -> Wait {
        let told = self.told.take();
        if std::mem::take(&mut self.at_once) {
            return Wait::None;
        }
        if let Some(told) = told {
            return Wait::Told(Duration::from_millis(told + fastrand::u64(..told / 2)));
        }
        let ceiling = self.ceiling;
        let most = self
            .retries
            .map_or(0, |retries| millis(retries.policy.backoff_max));
        self.ceiling = if ceiling < most / 2 { ceiling * 2 } else { most };
        let wait = if ceiling == 0 { 0 } else { fastrand::u64(..ceiling) };
        Wait::Exponential(Duration::from_millis(wait))
    }
}

/// Whole milliseconds; a shorter time is one.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2).max(1)
}

/// The first of the headers that holds a wait of at most the longest; a wait that is over is none. Source: Envoy
/// `ResetHeaderParserImpl::parseInterval`, `RetryStateImpl::shouldRetryHeaders`.
fn told(policy: &RetryPolicy, headers: &HeaderMap, now: SystemTime) -> Option<u64> {
    let seconds = |header: &ResetHeader| {
        let value = headers.get(&header.name)?.to_str().ok()?.trim();
        let number: u64 = value.parse().ok()?;
        match header.format {
            ResetFormat::Seconds => Some(number),
            ResetFormat::UnixTimestamp => {
                number.checked_sub(now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())
            }
        }
    };
    let most = policy.reset_max.as_millis();
    let waits = policy.reset_headers.iter().filter_map(seconds);
    let millis = waits.map(|seconds| seconds.saturating_mul(1000));
    let first = millis.into_iter().find(|millis| u128::from(*millis) <= most);
    first.filter(|millis| *millis > 1)
}

fn is_wanted(retries: &Retries, request: &RequestHead, head: &ResponseHead) -> bool {
    match head.headers.contains_key(RATE_LIMITED) {
        true => retries.policy.retry_on.envoy_ratelimited,
        false => wanted(retries, request, head),
    }
}

/// A response without `x-envoy-ratelimited` is no answer yet.
fn wanted(retries: &Retries, request: &RequestHead, head: &ResponseHead) -> bool {
    let policy = &retries.policy;
    let status = head.status.as_u16();
    let on = policy.retry_on;
    (on.five_xx && status >= 500)
        || (on.gateway_error && matches!(status, 502..=504))
        || (on.retriable_4xx && status == 409)
        || (on.retriable_status_codes
            && policy.retriable_status_codes.contains(&status)
            // RFC 8470, section 5.1: who is behind a proxy that took early data sends again, not the proxy.
            && !(head.status == StatusCode::TOO_EARLY && request.headers.contains_key(EARLY_DATA)))
        || (on.retriable_headers && retries.is_retriable(head))
        || grpc_wanted(on, head)
}

/// The status may be in the head of any response. Source: Envoy, as [`wanted`].
fn grpc_wanted(on: RetryOn, head: &ResponseHead) -> bool {
    let status = head
        .headers
        .get(GRPC_STATUS)
        .and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    match status {
        Some(1) => on.grpc_cancelled,
        Some(4) => on.grpc_deadline_exceeded,
        Some(8) => on.grpc_resource_exhausted,
        Some(13) => on.grpc_internal,
        Some(14) => on.grpc_unavailable,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
