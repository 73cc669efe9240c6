//! Tests of what is retried, and after how long.
use std::io;

use http::Version;

use super::*;

fn policy(retry_on: RetryOn) -> RetryPolicy {
    RetryPolicy {
        retry_on,
        num_retries: 1,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        retriable_status_codes: vec![418, 425],
        retriable_headers: Vec::new(),
        retriable_request_headers: Vec::new(),
        avoid_previous_hosts: true,
        previous_priorities: None,
        host_selection_attempts: 5,
        backoff_base: Duration::from_millis(25),
        backoff_max: Duration::from_millis(250),
        reset_headers: vec![
            ResetHeader {
                name: "retry-after".into(),
                format: ResetFormat::Seconds,
            },
            ResetHeader {
                name: "x-ratelimit-reset".into(),
                format: ResetFormat::UnixTimestamp,
            },
        ],
        reset_max: Duration::from_secs(300),
    }
}

fn retries(retry_on: RetryOn) -> Retries {
    Retries::new(Some(&policy(retry_on)))
        .expect("no expression")
        .expect("a policy")
}

fn request(headers: &[(&'static str, &'static str)]) -> RequestHead {
    let mut head = RequestHead {
        method: http::Method::GET,
        scheme: "http",
        authority: http::HeaderValue::from_static("a"),
        path: http::uri::PathAndQuery::from_static("/"),
        version: Version::HTTP_11,
        headers: HeaderMap::new(),
        is_upgrade: false,
    };
    for (name, value) in headers {
        head.headers.append(*name, http::HeaderValue::from_static(value));
    }
    head
}

fn answer(status: u16, headers: &[(&'static str, &'static str)]) -> ResponseHead {
    ResponseHead {
        status: http::StatusCode::from_u16(status).expect("a status"),
        headers: request(headers).headers,
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
    let retries = retries(RetryOn {
        connect_failure: true,
        ..RetryOn::default()
    });
    let mut state = RetryState::new(Some(&retries), &request(&[]));
    assert_eq!(state.on_error(&refused()), Verdict::Retry);
    assert_eq!(state.on_error(&refused()), Verdict::LimitExceeded);
}

#[test]
fn a_connection_closed_after_the_request_is_no_connect_failure() {
    let retries = retries(RetryOn {
        connect_failure: true,
        reset_before_request: true,
        ..RetryOn::default()
    });
    let mut state = RetryState::new(Some(&retries), &request(&[]));
    assert_eq!(state.on_error(&closed()), Verdict::No);
}

#[test]
fn listed_status_codes_are_retried_and_others_not() {
    let retries = retries(RetryOn {
        retriable_status_codes: true,
        ..RetryOn::default()
    });
    let check = |status: u16, asked: &[(&'static str, &'static str)], expected| {
        let request = request(asked);
        let mut state = RetryState::new(Some(&retries), &request);
        let verdict = state.on_response(&request, &answer(status, &[]));
        assert_eq!(verdict, expected, "{status} {asked:?}");
    };
    check(418, &[], Verdict::Retry);
    check(503, &[], Verdict::No);
    check(425, &[], Verdict::Retry);
    check(425, &[("early-data", "1")], Verdict::No);
}

#[test]
fn a_response_that_is_rate_limited_is_only_retried_when_asked_for() {
    let check = |envoy_ratelimited: bool, expected| {
        let retries = retries(RetryOn {
            five_xx: true,
            envoy_ratelimited,
            ..RetryOn::default()
        });
        let request = request(&[]);
        let answer = answer(503, &[("x-envoy-ratelimited", "true")]);
        let verdict = RetryState::new(Some(&retries), &request).on_response(&request, &answer);
        assert_eq!(verdict, expected);
    };
    check(true, Verdict::Retry);
    check(false, Verdict::No);
}

#[test]
fn the_wait_doubles_up_to_its_longest() {
    let retries = retries(RetryOn {
        reset: true,
        ..RetryOn::default()
    });
    let ceilings = [25, 50, 100, 200, 250, 250, 250];
    let mut longest = [0; 7];
    for _ in 0..500 {
        let mut state = RetryState::new(Some(&retries), &request(&[]));
        for (ceiling, longest) in ceilings.iter().zip(&mut longest) {
            let wait = state.next_wait().duration().as_millis();
            assert!(wait < *ceiling, "{wait} of {ceiling}");
            *longest = wait.max(*longest);
        }
    }
    assert!(
        longest
            .iter()
            .zip(ceilings)
            .all(|(longest, ceiling)| *longest > ceiling * 8 / 10),
        "{longest:?}"
    );
}

#[test]
fn the_first_header_with_a_wait_that_is_not_too_long_counts() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    let check = |headers: &[(&'static str, &'static str)], expected: Option<u64>| {
        let told = told(&policy(RetryOn::default()), &answer(503, headers).headers, now);
        assert_eq!(told, expected, "{headers:?}");
    };
    check(&[], None);
    check(&[("retry-after", "2")], Some(2000));
    check(&[("retry-after", " 2 ")], Some(2000));
    check(&[("retry-after", "300")], Some(300_000));
    check(&[("retry-after", "301")], None);
    check(
        &[("retry-after", "301"), ("x-ratelimit-reset", "1003")],
        Some(3000),
    );
    check(&[("retry-after", "0"), ("x-ratelimit-reset", "1003")], None);
    check(
        &[("retry-after", "soon"), ("x-ratelimit-reset", "1003")],
        Some(3000),
    );
    check(&[("x-ratelimit-reset", "999")], None);
    check(&[("retry-after", "18446744073709551615")], None);
    check(&[("retry-after", "-1")], None);
}

#[test]
fn a_wait_that_was_told_is_kept_and_half_of_it_added_at_most() {
    let retries = retries(RetryOn {
        five_xx: true,
        ..RetryOn::default()
    });
    let request = request(&[]);
    for _ in 0..100 {
        let mut state = RetryState::new(Some(&retries), &request);
        state.on_response(&request, &answer(503, &[("retry-after", "2")]));
        let Wait::Told(wait) = state.next_wait() else {
            panic!("the header is not heeded");
        };
        assert!((2000..3000).contains(&wait.as_millis()), "{wait:?}");
        assert!(matches!(state.next_wait(), Wait::Exponential(_)));
    }
}
