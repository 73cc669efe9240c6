//! Whether a failed attempt is made again. Source: Envoy docs, router filter, `x-envoy-retry-on`; `RetryStateImpl`.
use std::time::Duration;

use outrigger_model::route::{RetryOn, RetryPolicy};

use super::attempt::AttemptError;
use crate::codec::{ResponseHead, SendError};
use crate::telemetry::grpc::GRPC_STATUS;
use crate::upstream::connect::ConnectError;

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

/// Retries of one request.
pub(super) struct RetryState<'a> {
    policy: Option<&'a RetryPolicy>,
    left: u32,
    grpc: bool,
}

impl<'a> RetryState<'a> {
    pub(super) fn new(policy: Option<&'a RetryPolicy>, grpc: bool) -> Self {
        let policy = policy.filter(|policy| policy.retry_on != RetryOn::default());
        Self {
            policy,
            left: policy.map_or(0, |policy| policy.num_retries),
            grpc,
        }
    }

    pub(super) fn may_retry(&self) -> bool {
        self.policy.is_some() && self.left > 0
    }

    pub(super) fn avoid_previous_hosts(&self) -> bool {
        self.policy.is_some_and(|policy| policy.avoid_previous_hosts)
    }

    pub(super) fn host_selection_attempts(&self) -> u32 {
        self.policy.map_or(0, |policy| policy.host_selection_attempts)
    }

    /// Judges a response head.
    pub(super) fn on_response(&mut self, head: &ResponseHead) -> Verdict {
        let Some(policy) = self.policy else {
            return Verdict::No;
        };
        let status = head.status.as_u16();
        let on = policy.retry_on;
        let wanted = (on.five_xx && status >= 500)
            || (on.gateway_error && matches!(status, 502..=504))
            || (on.retriable_4xx && status == 409)
            || (on.retriable_status_codes && policy.retriable_status_codes.contains(&status))
            || (on.envoy_ratelimited && head.headers.contains_key("x-envoy-ratelimited"))
            || (self.grpc && grpc_wanted(on, head));
        self.spend(wanted)
    }

    /// Judges an attempt without response.
    pub(super) fn on_error(&mut self, error: &AttemptError) -> Verdict {
        let Some(policy) = self.policy else {
            return Verdict::No;
        };
        let on = policy.retry_on;
        let wanted = match error {
            AttemptError::Overflow | AttemptError::Connect(ConnectError::Overflow) => false,
            AttemptError::Connect(_) => {
                on.connect_failure || on.five_xx || on.gateway_error || on.reset || on.reset_before_request
            }
            AttemptError::Send(SendError::NotSent(_)) => {
                on.reset || on.reset_before_request || on.five_xx || on.gateway_error
            }
            AttemptError::Send(SendError::Refused(_)) => {
                on.refused_stream || on.reset || on.five_xx || on.gateway_error
            }
            AttemptError::Send(_) | AttemptError::PerTryTimeout => on.reset || on.five_xx || on.gateway_error,
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

    /// How long to wait before the next attempt: fully jittered `[0, (2^n - 1) × base)`, capped.
    /// Source: Envoy `JitteredExponentialBackOffStrategy`.
    pub(super) fn backoff(&self, attempts: u32) -> Duration {
        let Some(policy) = self.policy else {
            return Duration::ZERO;
        };
        let factor = (1_u32 << attempts.min(16)) - 1;
        let ceiling = policy.backoff_base.saturating_mul(factor).min(policy.backoff_max);
        ceiling.mul_f64(fastrand::f64())
    }
}

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
mod tests {
    use std::io;

    use super::*;

    fn policy(retry_on: RetryOn) -> RetryPolicy {
        RetryPolicy {
            retry_on,
            num_retries: 1,
            per_try_timeout: None,
            retriable_status_codes: vec![418],
            avoid_previous_hosts: true,
            previous_priorities: None,
            host_selection_attempts: 5,
            backoff_base: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
        }
    }

    fn refused() -> AttemptError {
        let host = std::net::SocketAddr::from(([10, 0, 0, 1], 80));
        AttemptError::Connect(ConnectError::Tcp {
            host,
            source: io::ErrorKind::ConnectionRefused.into(),
        })
    }

    fn closed() -> AttemptError {
        AttemptError::Send(SendError::Closed("eof".into()))
    }

    #[test]
    fn the_last_failure_says_that_the_limit_is_reached() {
        let policy = policy(RetryOn {
            connect_failure: true,
            ..RetryOn::default()
        });
        let mut state = RetryState::new(Some(&policy), false);
        assert_eq!(state.on_error(&refused()), Verdict::Retry);
        assert_eq!(state.on_error(&refused()), Verdict::LimitExceeded);
    }

    #[test]
    fn a_connection_closed_after_the_request_is_no_connect_failure() {
        let policy = policy(RetryOn {
            connect_failure: true,
            reset_before_request: true,
            ..RetryOn::default()
        });
        assert_eq!(
            RetryState::new(Some(&policy), false).on_error(&closed()),
            Verdict::No
        );
    }

    #[test]
    fn listed_status_codes_are_retried_and_others_not() {
        let policy = policy(RetryOn {
            retriable_status_codes: true,
            ..RetryOn::default()
        });
        let judge = |status: u16| {
            let head = ResponseHead {
                status: http::StatusCode::from_u16(status).expect("a status"),
                headers: http::HeaderMap::new(),
            };
            RetryState::new(Some(&policy), false).on_response(&head)
        };
        assert_eq!(judge(418), Verdict::Retry);
        assert_eq!(judge(503), Verdict::No);
    }

    #[test]
    fn backoff_stays_under_its_cap() {
        let policy = policy(RetryOn {
            reset: true,
            ..RetryOn::default()
        });
        let state = RetryState::new(Some(&policy), false);
        assert!((1..40).all(|attempts| state.backoff(attempts) <= Duration::from_millis(250)));
    }
}
