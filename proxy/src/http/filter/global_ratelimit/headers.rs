//! Headers for what a rate limit service said. Source: Envoy `XRateLimitHeaderUtils::create`; draft-polli-ratelimit-headers-03.
use std::fmt::Write as _;

use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue};
use outrigger_model::rate_limit_service::{CurrentLimit, LimitStatus};

/// The request was one too many.
pub(super) const ENVOY_RATELIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// A header and its value.
type Header = (HeaderName, HeaderValue);

/// Headers as the service says them; what is none is left out.
pub(super) fn parsed(headers: &[(String, String)]) -> Vec<Header> {
    let parse = |(name, value): &(String, String)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    };
    headers.iter().filter_map(parse).collect()
}

/// The limit that is nearest to its end, and all windows.
pub(super) fn x_ratelimit(statuses: &[LimitStatus]) -> Vec<Header> {
    let told = statuses
        .iter()
        .filter_map(|status| Some((status, status.limit.as_ref()?)));
    let mut windows = String::new();
    for (_, limit) in told.clone() {
        write_window(limit, &mut windows);
    }
    // The first of equals.
    let Some((status, limit)) = told.min_by_key(|(status, _)| status.remaining) else {
        return Vec::new();
    };
    let mut headers = vec![
        (REMAINING, HeaderValue::from(status.remaining)),
        (RESET, HeaderValue::from(status.reset_seconds)),
    ];
    // The service may give names that no header can have.
    if let Ok(value) = HeaderValue::try_from(format!("{}{windows}", limit.requests_per_unit)) {
        headers.insert(0, (LIMIT, value));
    }
    headers
}

fn write_window(limit: &CurrentLimit, windows: &mut String) {
    if limit.window_seconds == 0 {
        return;
    }
    let CurrentLimit {
        name,
        requests_per_unit,
        window_seconds,
    } = limit;
    // A string takes all that is written.
    let _ = write!(windows, ", {requests_per_unit};w={window_seconds}");
    if !name.is_empty() {
        let _ = write!(windows, ";name=\"{name}\"");
    }
}

/// When the last of the limits that are used up is there again; `None`: none of them says so.
pub(super) fn retry_after(statuses: &[LimitStatus]) -> Option<Header> {
    let over = statuses.iter().filter(|status| status.is_over);
    let seconds = over.map(|status| status.reset_seconds).max()?;
    Some((RETRY_AFTER, HeaderValue::from(seconds.max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(remaining: u32, limit: Option<(&str, u32, u32)>) -> LimitStatus {
        LimitStatus {
            is_over: remaining == 0,
            limit: limit.map(|(name, requests_per_unit, window_seconds)| CurrentLimit {
                name: name.to_owned(),
                requests_per_unit,
                window_seconds,
            }),
            remaining,
            reset_seconds: i64::from(remaining) + 10,
        }
    }

    #[track_caller]
    fn check(statuses: &[LimitStatus], expected: &[&str]) {
        let headers: Vec<_> = x_ratelimit(statuses)
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        assert_eq!(headers, expected);
    }

    #[test]
    fn the_limit_nearest_to_its_end_is_told_with_all_windows() {
        check(&[], &[]);
        check(&[status(3, None)], &[]);
        let two = [status(5, Some(("day", 9, 86400))), status(4, Some(("", 8, 60)))];
        let told = "x-ratelimit-limit: 8, 9;w=86400;name=\"day\", 8;w=60";
        check(&two, &[told, "x-ratelimit-remaining: 4", "x-ratelimit-reset: 14"]);
        let unknown = [status(5, Some(("n", 9, 0)))];
        check(
            &unknown,
            &[
                "x-ratelimit-limit: 9",
                "x-ratelimit-remaining: 5",
                "x-ratelimit-reset: 15",
            ],
        );
        let odd = [status(5, Some(("a\nb", 9, 1)))];
        check(&odd, &["x-ratelimit-remaining: 5", "x-ratelimit-reset: 15"]);
    }

    #[test]
    fn requests_may_come_again_when_all_limits_are_reset() {
        assert_eq!(retry_after(&[status(3, None)]), None);
        let seconds = retry_after(&[status(0, None), status(9, None)]);
        assert_eq!(seconds, Some((RETRY_AFTER, HeaderValue::from(10))));
    }
}
