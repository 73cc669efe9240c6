//! The same requests through every pair of proxies: what differs from Envoy on both sides is a fault, or stands below with
//! its reason.
//!
//! Compared: status, headers and body that the client gets, method, path and headers that the application sees, response
//! flags and details in the access logs. Not compared: the order of headers, and values that no two runs share.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use e2e::http;
use e2e::mesh::{BILL, Mesh, PATIENCE, Plan, Scenario};
use e2e::process::until;
use e2e::proxy::Kind::{Envoy, Outrigger};
use serde_json::Value;

use super::{Pair, linger};

/// A difference that stays, in some aspects of one case.
struct Known {
    case: &'static str,
    aspects: &'static [&'static str],
    /// With which pairs, by their front and their bill.
    pairs: &'static [(e2e::proxy::Kind, e2e::proxy::Kind)],
    reason: &'static str,
}

const KNOWN: &[Known] = &[Known {
    case: "duplicates",
    aspects: &["application's headers"],
    pairs: &[(Outrigger, Outrigger)],
    reason: "Envoy joins some repeated headers with a comma; they are passed on as they came, which means the same \
                 (RFC 9110 5.3)",
}];

/// The pseudo-case of log lines that name no request.
const NOT_UNDERSTOOD: &str = "requests that were not understood";

/// Name, and the request's bytes after which the client waits for one response. `{case}` is the name.
const CASES: &[(&str, &str)] = &[
    ("plain", "GET /{case} HTTP/1.1\r\nHost: bill-service:9999\r\n\r\n"),
    (
        "query",
        "GET /{case}?a=1&b=%20 HTTP/1.1\r\nHost: bill-service:9999\r\n\r\n",
    ),
    (
        "fragment",
        "GET /{case}?a=1#c HTTP/1.1\r\nHost: bill-service:9999\r\n\r\n",
    ),
    ("head", "HEAD /{case} HTTP/1.1\r\nHost: bill-service:9999\r\n\r\n"),
    (
        "post",
        "POST /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "chunked",
        "POST /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "empty-post",
        "POST /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "expect",
        "POST /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "options",
        "OPTIONS /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nOrigin: http://a\r\n\r\n",
    ),
    (
        "odd-method",
        "PURGE /{case} HTTP/1.1\r\nHost: bill-service:9999\r\n\r\n",
    ),
    (
        "closing",
        "GET /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nConnection: close\r\n\r\n",
    ),
    (
        "hop-by-hop",
        "GET /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nConnection: x-mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers, gzip\r\n\r\n",
    ),
    (
        "duplicates",
        "GET /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nX-Two: a\r\nx-two: b\r\nCookie: a=1\r\nCookie: b=2\r\nAccept: x\r\nAccept: y\r\n\r\n",
    ),
    (
        "empty-header",
        "GET /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nX-Empty:\r\nX-Spaces:   a b  \r\n\r\n",
    ),
    (
        "own-request-id",
        "GET /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nX-Request-Id: 11111111-2222-4333-8444-555555555555\r\n\r\n",
    ),
    (
        "odd-request-id",
        "GET /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nX-Request-Id: mine\r\n\r\n",
    ),
    (
        "forwarded",
        "GET /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\nForwarded: for=1.2.3.4\r\n\r\n",
    ),
    (
        "bad-proto",
        "GET /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nX-Forwarded-Proto: gopher\r\n\r\n",
    ),
    (
        "forged-xfcc",
        "GET /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nX-Forwarded-Client-Cert: By=spiffe://a;URI=spiffe://b\r\n\r\n",
    ),
    (
        "forged-envoy",
        "GET /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nX-Envoy-Attempt-Count: 9\r\nX-Envoy-Internal: true\r\nX-Envoy-External-Address: 1.1.1.1\r\nX-Envoy-Decorator-Operation: o\r\nX-Envoy-Original-Path: /p\r\nX-Envoy-Upstream-Service-Time: 1\r\n\r\n",
    ),
    (
        "forged-timeout",
        "GET /slow?{case}&ms=300 HTTP/1.1\r\nHost: bill-service:9999\r\nX-Envoy-Upstream-Rq-Timeout-Ms: 50\r\n\r\n",
    ),
    (
        "retry-on",
        "GET /status/500?{case} HTTP/1.1\r\nHost: bill-service:9999\r\nX-Envoy-Retry-On: 5xx\r\nX-Envoy-Max-Retries: 1\r\n\r\n",
    ),
    (
        "trace",
        "GET /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nTraceparent: 00-11111111111111111111111111111111-2222222222222222-01\r\nX-B3-Sampled: 1\r\n\r\n",
    ),
    (
        "user-agent",
        "GET /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nUser-Agent: me\r\nServer: me\r\nDate: now\r\nVia: 1.1 me\r\n\r\n",
    ),
    (
        "dots",
        "GET /a/../{case}/./b HTTP/1.1\r\nHost: bill-service:9999\r\n\r\n",
    ),
    (
        "slashes",
        "GET //{case}//b HTTP/1.1\r\nHost: bill-service:9999\r\n\r\n",
    ),
    (
        "escaped",
        "GET /{case}%2Fb%41%20?x=%2F HTTP/1.1\r\nHost: bill-service:9999\r\n\r\n",
    ),
    (
        "absolute",
        "GET http://bill-service:9999/{case} HTTP/1.1\r\nHost: other\r\n\r\n",
    ),
    (
        "host-without-port",
        "GET /{case} HTTP/1.1\r\nHost: bill-service\r\n\r\n",
    ),
    (
        "full-host",
        "GET /{case} HTTP/1.1\r\nHost: bill-service.default.svc.cluster.local:9999\r\n\r\n",
    ),
    (
        "address-as-host",
        "GET /{case} HTTP/1.1\r\nHost: 10.96.0.10\r\n\r\n",
    ),
    (
        "upper-host",
        "GET /{case} HTTP/1.1\r\nHost: BILL-SERVICE:9999\r\n\r\n",
    ),
    (
        "status-404",
        "GET /status/404?{case} HTTP/1.1\r\nHost: bill-service:9999\r\n\r\n",
    ),
    (
        "status-503",
        "GET /status/503?{case} HTTP/1.1\r\nHost: bill-service:9999\r\n\r\n",
    ),
    (
        "status-204",
        "GET /status/204?{case} HTTP/1.1\r\nHost: bill-service:9999\r\n\r\n",
    ),
    (
        "status-304",
        "GET /status/304?{case} HTTP/1.1\r\nHost: bill-service:9999\r\n\r\n",
    ),
    (
        "big",
        "GET /big?{case}&bytes=300000 HTTP/1.1\r\nHost: bill-service:9999\r\n\r\n",
    ),
    (
        "app-resets",
        "GET /reset?{case} HTTP/1.1\r\nHost: bill-service:9999\r\n\r\n",
    ),
    (
        "app-closes",
        "GET /close?{case} HTTP/1.1\r\nHost: bill-service:9999\r\n\r\n",
    ),
    (
        "app-stops-halfway",
        "GET /half?{case} HTTP/1.1\r\nHost: bill-service:9999\r\n\r\n",
    ),
    ("no-host", "GET /{case} HTTP/1.1\r\n\r\n"),
    (
        "http-1.0",
        "GET /{case} HTTP/1.0\r\nHost: bill-service:9999\r\n\r\n",
    ),
    (
        "two-lengths",
        "POST /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "length-and-chunks",
        "POST /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "underscore",
        "GET /{case} HTTP/1.1\r\nHost: bill-service:9999\r\nX_Under: 1\r\n\r\n",
    ),
];

/// The path of the last case; it reaches bill.
const LAST: &str = "/underscore ";

#[test]
fn outrigger_on_both_sides_answers_as_envoy() {
    compare(Pair {
        front: Outrigger,
        bill: Outrigger,
    });
}

#[test]
fn outrigger_behind_envoy_answers_as_envoy() {
    compare(Pair {
        front: Envoy,
        bill: Outrigger,
    });
}

#[test]
fn outrigger_in_front_of_envoy_answers_as_envoy() {
    compare(Pair {
        front: Outrigger,
        bill: Envoy,
    });
}

#[test]
fn envoy_answers_the_same_twice() {
    compare(Pair {
        front: Envoy,
        bill: Envoy,
    });
}

#[test]
fn a_known_difference_names_a_case_and_a_reason() {
    for known in KNOWN {
        assert!(
            CASES.iter().any(|(case, _)| *case == known.case),
            "no case {}",
            known.case
        );
        assert!(
            !known.reason.is_empty() && !known.pairs.is_empty(),
            "{}",
            known.case
        );
    }
}

/// What can be seen of one case, by aspect.
type Seen = BTreeMap<&'static str, String>;

fn compare(pair: Pair) {
    static ENVOY: LazyLock<BTreeMap<&str, Seen>> = LazyLock::new(|| {
        observe(Pair {
            front: Envoy,
            bill: Envoy,
        })
    });
    let envoy = &*ENVOY;
    let found = observe(pair);
    let mut faults = Vec::new();
    for (case, expected) in envoy {
        for (aspect, expected) in expected {
            let found = &found[case][aspect];
            let known = KNOWN.iter().find(|known| {
                known.case == *case
                    && known.aspects.contains(aspect)
                    && known.pairs.contains(&(pair.front, pair.bill))
            });
            match (found == expected, known) {
                (true, None) | (false, Some(_)) => {}
                (true, Some(known)) => {
                    faults.push(format!("{case}: {aspect}: no longer differs: {}", known.reason))
                }
                (false, None) => {
                    faults.push(format!(
                        "{case}: {aspect}\n  envoy     {expected}\n  outrigger {found}"
                    ));
                }
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} differences:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

fn observe(pair: Pair) -> BTreeMap<&'static str, Seen> {
    let mesh = Mesh::start(&Plan::new(Scenario::Bill, pair.front, pair.bill));
    let mut all: BTreeMap<&str, Seen> = BTreeMap::new();
    for (case, request) in CASES {
        let wire = request.replace("{case}", case);
        let response = http::exchange(&mesh.pod("front").namespace, BILL, wire.as_bytes());
        let seen = match response {
            Ok(response) => seen(&response),
            Err(error) => BTreeMap::from([("response", error.kind().to_string())]),
        };
        all.insert(case, seen);
    }
    // Logs are written every now and then.
    mesh.logged("front", LAST);
    until("the last request in bill's log", PATIENCE, || {
        let bills = mesh.access_log("bill-v1") + &mesh.access_log("bill-v2");
        bills.contains(LAST).then_some(())
    });
    linger(Duration::from_millis(200));
    for (case, seen) in &mut all {
        let logged = |pods: &[&str]| {
            let lines: Vec<String> = pods
                .iter()
                .filter_map(|pod| outcome_of(&mesh.access_log(pod), case))
                .collect();
            lines.join("; ")
        };
        seen.insert("front's log", logged(&["front"]));
        seen.insert("bill's log", logged(&["bill-v1", "bill-v2"]));
    }
    let log = mesh.access_log("front");
    let mut unparsed: Vec<_> = log
        .lines()
        .filter(|line| line.contains("\"- - "))
        .filter_map(outcome)
        .collect();
    unparsed.sort();
    all.insert(NOT_UNDERSTOOD, Seen::from([("front's log", unparsed.join("; "))]));
    all
}

fn seen(response: &http::Response) -> Seen {
    let app = response.seen();
    let mut seen = Seen::new();
    seen.insert("response", format!("{:?}", response.head.line));
    seen.insert("headers", headers(&response.head.headers));
    let body = if app.is_null() {
        response.body.chars().take(300).collect()
    } else {
        "of the application".to_owned()
    };
    seen.insert("body", body);
    let pairs = app["headers"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pairs: Vec<_> = pairs.map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
    seen.insert("application's headers", headers(&pairs));
    seen.insert(
        "application's request",
        format!("{} {} {}", app["method"], app["path"], app["body"]),
    );
    seen
}

/// Sorted by name; values that no two runs share are masked.
fn headers(headers: &[(String, String)]) -> String {
    let mut lines: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", masked(name, value)))
        .collect();
    lines.sort();
    lines.join(" | ")
}

fn masked(name: &str, value: &str) -> String {
    match name.to_ascii_lowercase().as_str() {
        "date" if value.ends_with(" GMT") => "DATE".to_owned(),
        "content-length" if value.len() == 3 => "LENGTH".to_owned(),
        "x-envoy-upstream-service-time" | "x-envoy-expected-rq-timeout-ms" => "MILLISECONDS".to_owned(),
        "x-request-id" if is_random_id(value) => "ID".to_owned(),
        "x-forwarded-client-cert" => {
            let parts = value.split(';').map(|part| {
                if part.starts_with("Hash=") {
                    "Hash=HASH"
                } else {
                    part
                }
            });
            parts.collect::<Vec<_>>().join(";")
        }
        _ => value.to_owned(),
    }
}

fn is_random_id(value: &str) -> bool {
    value.len() == 36 && value.split('-').count() == 5 && !value.starts_with("11111111")
}

/// Status, flags, details and failure reason of the line about a case.
fn outcome_of(log: &str, case: &str) -> Option<String> {
    outcome(
        log.lines()
            .find(|line| line.split('"').nth(1).is_some_and(|request| names(request, case)))?,
    )
}

fn outcome(line: &str) -> Option<String> {
    let after = line.split("\" ").nth(1)?;
    let reason = line.split('"').nth(3)?;
    let words: Vec<&str> = after.split(' ').take(4).collect();
    Some(format!("{} \"{reason}\"", words.join(" ")))
}

/// Whether a request line is that of a case: the name, not as part of a longer one.
fn names(request: &str, case: &str) -> bool {
    request
        .split(['/', '?', '&', ' ', '%', '#'])
        .any(|word| word == case)
}
