//! Requests that do not end in time (`request_timeout` of the connection manager).

use std::io::{Read, Write};
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::{FRONT, Manager, check_with, configuration, counters};

/// What is sent, and what after longer than the timeout.
const REQUESTS: &[(&str, &str, &str)] = &[
    (
        "half",
        "POST /echo HTTP/1.1\r\nhost: a\r\nx-case: half\r\ncontent-length: 9\r\n\r\nabc",
        "",
    ),
    (
        "late",
        "POST /echo HTTP/1.1\r\nhost: a\r\nx-case: late\r\ncontent-length: 6\r\n\r\nabc",
        "def",
    ),
    (
        "whole",
        "POST /echo HTTP/1.1\r\nhost: a\r\nx-case: whole\r\ncontent-length: 3\r\n\r\nabc",
        "",
    ),
    (
        "answered",
        "POST /direct HTTP/1.1\r\nhost: a\r\nx-case: answered\r\ncontent-length: 9\r\n\r\nabc",
        "",
    ),
    (
        "slow",
        "GET /silent HTTP/1.1\r\nhost: a\r\nx-case: slow\r\n\r\n",
        "",
    ),
];

fn ask(alone: &Alone, (name, first, rest): (&str, &str, &str)) -> String {
    let mut stream = alone.connect(FRONT);
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a socket");
    stream.write_all(first.as_bytes()).expect("the proxy reads");
    std::thread::sleep(Duration::from_millis(800));
    let _ = stream.write_all(rest.as_bytes());
    let mut came = Vec::new();
    // How the connection ends is not what is asked here.
    let _ = stream.read_to_end(&mut came);
    let came = String::from_utf8_lossy(&came).into_owned();
    let lines: Vec<_> = came
        .lines()
        .filter(|line| !line.starts_with("date: ") && !line.starts_with("x-envoy-upstream-service-time"))
        .collect();
    format!("{name}: {lines:?} log {}", alone.logged(&format!("{name} ")))
}

#[test]
fn a_request_has_its_time_until_the_response_begins() {
    let routes = "{ match: { prefix: /direct }, direct_response: { status: 200, body: { inline_string: ok } } },
        { match: { prefix: /silent }, route: { cluster: dead, retry_policy: { retry_on: connect-failure, num_retries: 2, retry_back_off: { base_interval: 0.5s } } } },
        { match: { prefix: / }, route: { cluster: echo } }";
    let manager = Manager {
        settings: "request_timeout: 0.4s,".to_owned(),
        ..Manager::with_routes(routes)
    };
    check_with(
        &configuration(&[manager], &[]),
        |_, _| {},
        |alone| {
            let mut lines: Vec<_> = REQUESTS.iter().map(|request| ask(alone, *request)).collect();
            lines.extend(counters(
                alone,
                &[
                    "http.s10000.downstream_rq_timeout",
                    "http.s10000.downstream_rq_4xx",
                ],
            ));
            lines
        },
    );
}
