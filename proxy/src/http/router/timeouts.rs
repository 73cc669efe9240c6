//! How long an exchange may take. Source: Envoy `FilterUtility::finalTimeout`, `ConnectionManagerImpl::ActiveStream::refreshDurationTimeout`;
//! gRPC over HTTP/2, `Timeout`.
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use outrigger_model::route::{Forward, RetryPolicy};

use crate::codec::RequestHead;

/// `grpc-timeout`.
pub(super) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

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

/// The value of `grpc-timeout`: milliseconds, or the smallest larger unit in which it has 8 digits at most.
pub(super) fn grpc_value(timeout: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let millis = timeout.as_millis();
    let units = [(1, 'm'), (1000, 'S'), (60_000, 'M')];
    let fits = units.into_iter().find(|(size, _)| millis / size <= MOST);
    let (size, unit) = fits.unwrap_or((3_600_000, 'H'));
    let text = format!("{}{unit}", (millis / size).min(MOST));
    HeaderValue::try_from(text).expect("digits and a letter")
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
    fn grpc_timeouts_are_written_in_milliseconds_while_they_fit() {
        let check = |millis: u64, expected: &str| {
            assert_eq!(grpc_value(Duration::from_millis(millis)), expected);
        };
        check(700, "700m");
        check(99_999_999, "99999999m");
        check(100_000_000, "100000S");
        check(100_000_000_000, "1666666M");
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
