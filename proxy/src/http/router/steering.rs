//! What a client that is inside asks of timeouts, retries and hedging, in headers that go no further.
//!
//! Whoever is not inside has none of them left (`http::head`), and a connection manager that knows nobody inside does not look.
//! Source: Envoy 1.40, `FilterUtility::finalTimeout`, `finalHedgingParams`, `RetryStateImpl`; docs, router filter, "HTTP headers
//! (consumed)"; beside it in tests/it/alone/steering.rs.
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use outrigger_model::matcher::{HeaderMatch, HeaderMatcher};
use outrigger_model::route::{RetryOn, RetryPolicy};

use super::EXPECTED_TIMEOUT;
use super::timeouts::Timeouts;
use crate::codec::RequestHead;
use crate::http::extras::FOR_THE_ROUTER;
use crate::http::local_reply::LocalReply;
use crate::http::route_table::Retries;

const TIMEOUT: &str = "x-envoy-upstream-rq-timeout-ms";
const PER_TRY: &str = "x-envoy-upstream-rq-per-try-timeout-ms";
const HEDGE: &str = "x-envoy-hedge-on-per-try-timeout";
const ALTERNATIVE: &str = "x-envoy-upstream-rq-timeout-alt-response";
const RETRY_ON: &str = "x-envoy-retry-on";
const RETRY_GRPC_ON: &str = "x-envoy-retry-grpc-on";
const MAX_RETRIES: &str = "x-envoy-max-retries";
const STATUS_CODES: &str = "x-envoy-retriable-status-codes";
const HEADER_NAMES: &str = "x-envoy-retriable-header-names";

/// What one request asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::http) struct Steering {
    /// In place of the route's timeout; inside, `None`: no limit.
    response: Option<Option<Duration>>,
    /// In place of the route's `per_try_timeout`; inside, `None`: no limit.
    per_try: Option<Option<Duration>>,
    /// In place of the route's `hedge_on_per_try_timeout`.
    hedges: Option<bool>,
    /// A timeout is told with 204.
    ends_with_no_content: bool,
    retries: Option<Box<AskedRetries>>,
}

/// What is added to a policy.
#[derive(Debug, Default, PartialEq, Eq)]
struct AskedRetries {
    on: RetryOn,
    most: Option<u32>,
    codes: Vec<u16>,
    headers: Vec<String>,
}

impl Steering {
    /// Takes out of a head what it says of times. `respects_expected`: the time that another proxy tells is kept to.
    pub(super) fn of_times(head: &mut RequestHead, respects_expected: bool) -> Self {
        let headers = &mut head.headers;
        let expected = respects_expected && headers.contains_key(EXPECTED_TIMEOUT);
        let response = match expected {
            true => limit(headers, EXPECTED_TIMEOUT.as_str()),
            false => limit(headers, TIMEOUT),
        };
        let steering = Self {
            response,
            per_try: limit(headers, PER_TRY),
            hedges: match headers.get(HEDGE).map(HeaderValue::as_bytes) {
                Some(b"true") => Some(true),
                Some(b"false") => Some(false),
                _ => None,
            },
            ends_with_no_content: headers.contains_key(ALTERNATIVE),
            retries: None,
        };
        for name in [PER_TRY, HEDGE, ALTERNATIVE] {
            headers.remove(name);
        }
        // As Envoy, the other one goes on when it does not count.
        if !expected {
            headers.remove(TIMEOUT);
        }
        steering
    }

    /// Takes out what a head says of retries, once the route has changed it.
    pub(super) fn take_retries(&mut self, headers: &mut HeaderMap) {
        let asked = AskedRetries::of(headers);
        self.retries = (asked != AskedRetries::default()).then(|| Box::new(asked));
        for name in FOR_THE_ROUTER.into_iter().filter(|name| *name != TIMEOUT) {
            headers.remove(name);
        }
    }

    /// Changes what the route says, and keeps what comes of it.
    pub(super) fn settle(&mut self, timeouts: &mut Timeouts) {
        if let Some(response) = self.response {
            timeouts.response = response;
        }
        if let Some(per_try) = self.per_try {
            timeouts.per_try = per_try;
        }
        if let Some(hedges) = self.hedges {
            timeouts.hedges = hedges;
        }
        // As Envoy, one that is not shorter than the whole is none.
        let whole = timeouts.response;
        timeouts.per_try = timeouts
            .per_try
            .filter(|per_try| whole.is_none_or(|whole| *per_try < whole));
        self.per_try = Some(timeouts.per_try);
        self.hedges = Some(timeouts.hedges);
    }

    /// `per_try_timeout`, where the route says `usual`.
    pub(super) fn per_try(&self, usual: Option<Duration>) -> Option<Duration> {
        self.per_try.unwrap_or(usual)
    }

    /// Whether the exchange hedges, where the route says `usual`.
    pub(super) fn hedges(&self, usual: bool) -> bool {
        self.hedges.unwrap_or(usual)
    }

    /// The policy for this request, if it asks for another than `usual`.
    pub(super) fn retries(&self, usual: Option<&Retries>) -> Option<Retries> {
        let asked = self.retries.as_ref()?;
        let has_conditions = |on: RetryOn| on != RetryOn::default();
        if !has_conditions(asked.on) && !usual.is_some_and(|usual| has_conditions(usual.policy.retry_on)) {
            return None;
        }
        let usual = match usual {
            Some(usual) => usual.clone(),
            None => Retries::new(Some(&RetryPolicy::default())).ok().flatten()?,
        };
        let headers = asked.headers.iter().map(|name| HeaderMatcher {
            name: name.clone(),
            kind: HeaderMatch::Present(true),
            invert: false,
            treat_missing_as_empty: false,
        });
        Some(usual.with(asked.on, asked.most, &asked.codes, headers))
    }

    /// What is answered when a time has passed.
    pub(super) fn change_timeout(&self, reply: &mut LocalReply) {
        if self.ends_with_no_content {
            reply.status = StatusCode::NO_CONTENT;
            reply.body = String::new().into();
        }
    }
}

impl AskedRetries {
    fn of(headers: &HeaderMap) -> Self {
        let mut on = RetryOn::default();
        for name in list(headers, RETRY_ON) {
            on.add_of_http(name);
        }
        for name in list(headers, RETRY_GRPC_ON) {
            on.add_of_grpc(name);
        }
        Self {
            on,
            most: number(headers, MAX_RETRIES).map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
            codes: list(headers, STATUS_CODES)
                .filter_map(|code| code.parse().ok())
                .collect(),
            headers: list(headers, HEADER_NAMES).map(str::to_ascii_lowercase).collect(),
        }
    }
}

/// Milliseconds; zero is no limit, and what is no number counts for nothing.
fn limit(headers: &HeaderMap, name: &str) -> Option<Option<Duration>> {
    let limit = Duration::from_millis(number(headers, name)?);
    Some(Some(limit).filter(|limit| !limit.is_zero()))
}

/// Of several lines none counts, as Envoy joins them.
fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(one), None) => one.to_str().ok()?.trim().parse().ok(),
        _ => None,
    }
}

fn list<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    let parts = lines.flat_map(|line| line.split(',')).map(str::trim);
    parts.filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use http::uri::PathAndQuery;
    use http::{HeaderName, Method, Version};

    use super::*;

    fn head(headers: &[(&'static str, &'static str)]) -> RequestHead {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        RequestHead {
            method: Method::GET,
            path: PathAndQuery::from_static("/"),
            authority: HeaderValue::from_static("a"),
            scheme: "http",
            version: Version::HTTP_11,
            headers: headers.collect(),
            is_upgrade: false,
        }
    }

    #[test]
    fn times_are_milliseconds_and_zero_is_none() {
        let check = |headers: &[(&'static str, &'static str)], respects, expected, left: &[&str]| {
            let mut head = head(headers);
            let steering = Steering::of_times(&mut head, respects);
            assert_eq!(steering.response, expected, "{headers:?}");
            let names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
            assert_eq!(names, left, "{headers:?}");
        };
        let millis = |millis| Some(Some(Duration::from_millis(millis)));
        let name = EXPECTED_TIMEOUT;
        let expected = name.as_str();
        check(&[], false, None, &[]);
        check(&[(TIMEOUT, "500")], false, millis(500), &[]);
        check(&[(TIMEOUT, "0")], false, Some(None), &[]);
        check(&[(TIMEOUT, "soon")], false, None, &[]);
        check(&[(TIMEOUT, "-1")], false, None, &[]);
        let both = [(TIMEOUT, "500"), ("x-envoy-expected-rq-timeout-ms", "300")];
        check(&both, false, millis(500), &[expected]);
        check(&both, true, millis(300), &[TIMEOUT, expected]);
    }

    #[test]
    fn retries_are_asked_for_beside_those_of_the_route() {
        let mut head = head(&[
            (RETRY_ON, "5xx, cancelled,retriable-status-codes"),
            (RETRY_GRPC_ON, "cancelled,5xx"),
            (MAX_RETRIES, "3"),
            (STATUS_CODES, "404, many,418"),
            ("x-stays", "1"),
        ]);
        let mut steering = Steering::default();
        steering.take_retries(&mut head.headers);
        let policy = steering.retries(None).expect("a policy").policy;
        let on = RetryOn {
            five_xx: true,
            retriable_status_codes: true,
            grpc_cancelled: true,
            ..RetryOn::default()
        };
        assert_eq!((policy.retry_on, policy.num_retries), (on, 3));
        assert_eq!(policy.retriable_status_codes, [404, 418]);
        assert_eq!(head.headers.len(), 1, "{head:?}");
    }

    #[test]
    fn a_number_of_retries_asks_for_none() {
        let mut head = head(&[(MAX_RETRIES, "3")]);
        let mut steering = Steering::default();
        steering.take_retries(&mut head.headers);
        assert!(steering.retries(None).is_none());
    }
}
