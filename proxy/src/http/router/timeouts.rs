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
    /// The whole stream; zero: no limit, although the connection manager may have one.
    pub(super) duration: Option<Duration>,
    /// From the end of the request, on a connection, to the response head.
    pub(super) per_try: Option<Duration>,
    /// The upstream's `grpc-timeout` says what is expected.
    pub(super) tells_grpc: bool,
    /// `duration` is what a gRPC server is told.
    pub(super) tells_grpc_duration: bool,
    /// The client's deadline leaves no time: the stream is at its end.
    pub(super) is_over: bool,
    /// An attempt goes on when its time has passed.
    pub(super) hedges: bool,
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
            Some(bound) => at_most(
                shortened(asked().unwrap_or_default(), config.grpc_timeout_offset),
                bound,
            ),
        };
        let replacement = |bound| Some(deadline_of(asked()?, bound, config.grpc_timeout_header_offset));
        let replaced = config.grpc_timeout_header_max.and_then(replacement);
        let duration = replaced.or(config.max_stream_duration);
        Self {
            response,
            duration,
            per_try: retry.and_then(|policy| policy.per_try_timeout),
            tells_grpc: deadline.is_some(),
            tells_grpc_duration: config.tells_stream_duration && head.is_grpc(),
            is_over: replaced.is_some_and(|limit| limit.is_zero()),
            hedges,
        }
    }

    /// What the upstream is told.
    pub(super) fn expected(&self) -> Option<Duration> {
        let limits = self.per_try.filter(|_| !self.hedges).into_iter();
        limits.chain(self.response).min()
    }
}

/// As Envoy, what would leave nothing is not taken away.
fn shortened(limit: Duration, offset: Option<Duration>) -> Duration {
    match offset {
        Some(offset) if offset < limit => limit - offset,
        _ => limit,
    }
}

/// What a client's deadline leaves a stream; zero: nothing. A bound of zero is none. Source: Envoy
/// `ActiveStream::refreshDurationTimeout`.
fn deadline_of(asked: Duration, bound: Duration, offset: Option<Duration>) -> Duration {
    let limit = if bound.is_zero() { asked } else { asked.min(bound) };
    limit.saturating_sub(offset.unwrap_or_default())
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
    fn offsets_shorten_deadlines() {
        let millis = Duration::from_millis;
        let check = |asked, bound, offset: Option<u64>, expected: [u64; 2]| {
            let offset = offset.map(millis);
            let found = [
                shortened(millis(asked), offset),
                deadline_of(millis(asked), millis(bound), offset),
            ];
            assert_eq!(found, expected.map(millis), "{asked} of {bound} less {offset:?}");
        };
        check(2000, 10_000, Some(500), [1500, 1500]);
        check(2000, 1000, Some(500), [1500, 500]);
        check(500, 1000, Some(500), [500, 0]);
        check(400, 0, Some(500), [400, 0]);
        check(400, 0, None, [400, 400]);
        check(0, 1000, None, [0, 0]);
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
