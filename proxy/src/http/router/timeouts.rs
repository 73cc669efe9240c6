//! How long an exchange may take. Source: Envoy `FilterUtility::finalTimeout`, `ConnectionManagerImpl::ActiveStream::refreshDurationTimeout`;
//! gRPC over HTTP/2, `Timeout`.
use std::time::Duration;

use outrigger_model::route::{Forward, RetryPolicy};

use crate::codec::RequestHead;
use crate::telemetry::grpc::GRPC_TIMEOUT;

/// The limits of one request; `None`: no limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Timeouts {
    /// From the end of the request to the end of the response.
    pub(super) response: Option<Duration>,
    /// The whole stream.
    pub(super) duration: Option<Duration>,
    /// From the end of the request, on a connection, to the response head.
    pub(super) per_try: Option<Duration>,
    /// The upstream's `grpc-timeout` says what is expected.
    pub(super) tells_grpc: bool,
    /// An attempt goes on when its time has passed.
    hedges: bool,
}

impl Timeouts {
    /// For a request that takes this route.
    pub(super) fn new(
        config: &Forward,
        retry: Option<&RetryPolicy>,
        head: &RequestHead,
        hedges: bool,
    ) -> Self {
        let asked = || {
            let value = head.headers.get(GRPC_TIMEOUT)?;
            grpc_timeout(value.as_bytes())
        };
        let deadline = config.max_grpc_timeout.filter(|_| head.is_grpc());
        let response = match deadline {
            None => config.timeout,
            Some(bound) => at_most(asked().unwrap_or_default(), bound),
        };
        let replacement = |bound| asked().map(|asked| at_most(asked, bound));
        let duration = match config.grpc_timeout_header_max.and_then(replacement) {
            Some(limit) => limit,
            None => config.max_stream_duration,
        };
        Self {
            response,
            duration,
            per_try: retry.and_then(|policy| policy.per_try_timeout),
            tells_grpc: deadline.is_some(),
            hedges,
        }
    }

    /// What the upstream is told.
    pub(super) fn expected(&self) -> Option<Duration> {
        let limits = self.per_try.filter(|_| !self.hedges).into_iter();
        limits.chain(self.response).min()
    }
}

/// Zero, on either side, is no limit.
fn at_most(limit: Duration, bound: Duration) -> Option<Duration> {
    let limits = [limit, bound].into_iter();
    limits.filter(|limit| !limit.is_zero()).min()
}

/// `8 digits at most` and a unit: H M S m u n.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_as_grpc_writes_them() {
        let check = |text: &str, expected: Option<u64>| {
            let read = grpc_timeout(text.as_bytes());
            assert_eq!(read, expected.map(Duration::from_micros), "{text:?}");
        };
        check("1S", Some(1_000_000));
        check("99999999m", Some(99_999_999_000));
        check("5u", Some(5));
        check("2M", Some(120_000_000));
        check("100000000m", None);
        check("m", None);
        check("", None);
        check("5s", None);
        check("-5S", None);
    }

    #[test]
    fn zero_is_no_limit_on_either_side() {
        let check = |limit: u64, bound: u64, expected: Option<u64>| {
            let found = at_most(Duration::from_secs(limit), Duration::from_secs(bound));
            assert_eq!(found, expected.map(Duration::from_secs));
        };
        check(0, 0, None);
        check(5, 0, Some(5));
        check(0, 5, Some(5));
        check(7, 5, Some(5));
        check(3, 5, Some(3));
    }
}
