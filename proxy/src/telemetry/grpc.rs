//! The status of a gRPC call, as a response says it or as its HTTP status means it; its time limit, as a request says it.
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

/// In trailers, or in the head of a response without body.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// How long a call may take.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// For a response that says no status. Source: gRPC `http-grpc-status-mapping.md`, as Envoy `Grpc::Utility::httpToGrpcStatus`.
pub(crate) fn status_of_http(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// The value of [`GRPC_TIMEOUT`]: milliseconds, or the smallest larger unit in which it has 8 digits at most.
pub(crate) fn timeout_value(timeout: Duration) -> HeaderValue {
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
    fn grpc_timeouts_are_written_in_milliseconds_while_they_fit() {
        let check = |millis: u64, expected: &str| {
            assert_eq!(timeout_value(Duration::from_millis(millis)), expected);
        };
        check(700, "700m");
        check(99_999_999, "99999999m");
        check(100_000_000, "100000S");
        check(100_000_000_000, "1666666M");
    }
}
