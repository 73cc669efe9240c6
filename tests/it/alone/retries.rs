//! Which failures make a proxy send a request again, how often, after how long, and what the client and the log are told.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::alone::Alone;
use e2e::beside::{Case, ECHO, FRONT, Manager, answers, check_with, cluster, configuration, counters, get};
use e2e::netns::Namespace;

/// Fails as the request says.
const FLAKY: u16 = 9002;

/// Path, further fields of the route's action, its retry policy.
const ROUTES: &[(&str, &str, &str)] = &[
    ("/none", "", "retry_on: \"\""),
    ("/5xx", "", "retry_on: 5xx, num_retries: 2"),
    ("/default", "", "retry_on: 5xx"),
    ("/zero", "", "retry_on: 5xx, num_retries: 0"),
    ("/gateway", "", "retry_on: gateway-error"),
    ("/4xx", "", "retry_on: retriable-4xx"),
    ("/reset", "", "retry_on: reset"),
    ("/before", "", "retry_on: reset-before-request, num_retries: 2"),
    ("/connect", "", "retry_on: connect-failure"),
    ("/refused", "", "retry_on: refused-stream"),
    (
        "/codes",
        "",
        "retry_on: retriable-status-codes, retriable_status_codes: [418, 425]",
    ),
    ("/limited", "", "retry_on: \"5xx, envoy-ratelimited\""),
    (
        "/no-grpc",
        "",
        "retry_on: \"unavailable,http3-post-connect-failure\"",
    ),
    (
        "/grpc",
        "",
        "retry_on: \"cancelled,deadline-exceeded,internal,resource-exhausted,unavailable\"",
    ),
    (
        "/headers",
        "",
        "retry_on: retriable-headers, retriable_headers: [{ name: x-again, string_match: { exact: \"1\" } }, { name: \":status\", string_match: { prefix: \"41\" } }]",
    ),
    (
        "/absent",
        "",
        "retry_on: retriable-headers, retriable_headers: [{ name: x-good, present_match: false }]",
    ),
    (
        "/unlisted",
        "",
        "retry_on: gateway-error, retriable_headers: [{ name: x-again }]",
    ),
    (
        "/asked",
        "",
        "retry_on: 5xx, retriable_request_headers: [{ name: \":method\", string_match: { exact: GET } }, { name: x-safe }]",
    ),
    (
        "/told",
        "",
        "retry_on: 5xx, rate_limited_retry_back_off: { max_interval: 2s, reset_headers: [{ name: Retry-After }, { name: x-reset, format: UNIX_TIMESTAMP }] }",
    ),
    (
        "/slow",
        "",
        "retry_on: \"5xx\", num_retries: 2, per_try_timeout: 0.2s",
    ),
    (
        "/slow-connect",
        "",
        "retry_on: \"connect-failure\", num_retries: 2, per_try_timeout: 0.2s",
    ),
    (
        "/idle",
        "",
        "retry_on: 5xx, num_retries: 2, per_try_idle_timeout: 0.2s",
    ),
    (
        "/idle-first",
        "",
        "retry_on: reset, per_try_timeout: 0.4s, per_try_idle_timeout: 0.2s",
    ),
    (
        "/idle-last",
        "",
        "retry_on: reset, per_try_timeout: 0.2s, per_try_idle_timeout: 0.4s",
    ),
    ("/whole", "timeout: 0.5s, ", "retry_on: 5xx, num_retries: 10"),
    ("/dead-5xx", "cluster: dead, ", "retry_on: 5xx, num_retries: 2"),
    (
        "/dead-before",
        "cluster: dead, ",
        "retry_on: reset-before-request, num_retries: 2",
    ),
    ("/dead-connect", "cluster: dead, ", "retry_on: connect-failure"),
    ("/dead-refused", "cluster: dead, ", "retry_on: refused-stream"),
    ("/empty", "cluster: empty, ", "retry_on: 5xx"),
];

/// A request to a route whose upstream does these things, one for each attempt; the last again and again.
const fn told(path: &'static str, script: &'static [(&'static str, &'static str)]) -> Case {
    get(path, script)
}

const CASES: &[Case] = &[
    told("/none", &[("x-script", "503 200")]),
    told("/5xx", &[("x-script", "503 200")]),
    told("/5xx", &[("x-script", "500 501 200")]),
    told("/5xx", &[("x-script", "503")]),
    told("/5xx", &[("x-script", "404 200")]),
    told("/5xx", &[("x-script", "close 200")]),
    told("/5xx", &[("x-script", "close")]),
    told("/5xx", &[("x-script", "503 200")])
        .method("POST")
        .body("a body"),
    told("/5xx", &[("x-script", "503 200")]).method("HEAD"),
    told("/default", &[("x-script", "503 503 200")]),
    told("/zero", &[("x-script", "503 200")]),
    told("/gateway", &[("x-script", "500 200")]),
    told("/gateway", &[("x-script", "502 200")]),
    told("/gateway", &[("x-script", "504 503")]),
    told("/gateway", &[("x-script", "505 200")]),
    told("/gateway", &[("x-script", "close 200")]),
    told("/4xx", &[("x-script", "409 200")]),
    told("/4xx", &[("x-script", "404 200")]),
    told("/4xx", &[("x-script", "close 200")]),
    told("/reset", &[("x-script", "close 200")]),
    told("/reset", &[("x-script", "503 200")]),
    told("/before", &[("x-script", "close 200")]),
    told("/before", &[("x-script", "503 200")]),
    told("/connect", &[("x-script", "close 200")]),
    told("/refused", &[("x-script", "close 200")]),
    told("/codes", &[("x-script", "418 200")]),
    told("/codes", &[("x-script", "425 200")]),
    told("/codes", &[("x-script", "425 200"), ("early-data", "1")]),
    told("/codes", &[("x-script", "503 200")]),
    told("/limited", &[("x-script", "429+x-envoy-ratelimited=true 200")]),
    told("/limited", &[("x-script", "429 200")]),
    told("/5xx", &[("x-script", "503+x-envoy-ratelimited=true 200")]),
    told("/5xx", &[("x-script", "503+x-envoy-overloaded=true 200")]),
    told("/grpc", &[("x-script", "200+grpc-status=14 200+grpc-status=0")]),
    told(
        "/grpc",
        &[
            ("x-script", "200+grpc-status=14 200+grpc-status=0"),
            ("content-type", "application/grpc"),
        ],
    ),
    told(
        "/grpc",
        &[
            ("x-script", "200+grpc-status=2 200"),
            ("content-type", "application/grpc"),
        ],
    ),
    told(
        "/grpc",
        &[
            ("x-script", "200+grpc-status=1 200+grpc-status=4"),
            ("content-type", "application/grpc"),
        ],
    ),
    told(
        "/no-grpc",
        &[
            ("x-script", "200+grpc-status=13 200"),
            ("content-type", "application/grpc"),
        ],
    ),
    told("/headers", &[("x-script", "200+x-again=1 200")]),
    told("/headers", &[("x-script", "200+x-again=2 200")]),
    told("/headers", &[("x-script", "418 503")]),
    told("/headers", &[("x-script", "503 200")]),
    told("/absent", &[("x-script", "200 200+x-good=1")]),
    told("/absent", &[("x-script", "200+x-good= 200")]),
    told("/unlisted", &[("x-script", "200+x-again=1 200")]),
    told("/asked", &[("x-script", "503 200")]),
    told("/asked", &[("x-script", "503 200")])
        .method("POST")
        .body("b"),
    told("/asked", &[("x-script", "503 200"), ("x-safe", "")])
        .method("POST")
        .body("b"),
    told("/told", &[("x-script", "503+retry-after=1 200")]),
    told("/told", &[("x-script", "503+retry-after=3 200")]),
    told("/told", &[("x-script", "503+retry-after=0 200")]),
    told(
        "/told",
        &[("x-script", "503+retry-after=Wed,21Oct2015+x-reset=5 200")],
    ),
    told("/told", &[("x-script", "503+x-reset=9999999999 200")]),
    told("/slow", &[("x-script", "slow 200")]),
    told("/slow", &[("x-script", "slow")]),
    told("/slow-connect", &[("x-script", "slow 200")]),
    told("/idle", &[("x-script", "slow 200")]),
    told("/idle", &[("x-script", "slow")]),
    told("/idle", &[("x-script", "200")]),
    told("/idle", &[("x-script", "steady")]),
    told("/idle-first", &[("x-script", "slow 200")]),
    told("/idle-first", &[("x-script", "slow")]),
    told("/idle-last", &[("x-script", "slow")]),
    told("/whole", &[("x-script", "503 slow")]),
    told("/dead-5xx", &[]),
    told("/dead-before", &[]),
    told("/dead-connect", &[]),
    told("/dead-refused", &[]),
    told("/empty", &[]),
    // What a client says of retries counts for nothing.
    told(
        "/none",
        &[
            ("x-script", "503 200"),
            ("x-envoy-retry-on", "5xx"),
            ("x-envoy-max-retries", "3"),
        ],
    ),
    told(
        "/5xx",
        &[
            ("x-script", "503"),
            ("x-envoy-max-retries", "0"),
            ("x-envoy-retriable-status-codes", "404"),
        ],
    ),
];

fn resources() -> String {
    let manager = manager(ROUTES, "include_attempt_count_in_response: true");
    configuration(&[manager], &[cluster("flaky", &[FLAKY])])
}

/// One that serves `routes`, as [`ROUTES`] are written, of cluster `flaky` unless they say otherwise; attempts are told upstream.
pub(super) fn manager(routes: &[(&str, &str, &str)], more: &str) -> Manager {
    let routes = routes.iter().map(|(path, more, policy)| {
        let cluster = if more.contains("cluster:") {
            ""
        } else {
            "cluster: flaky, "
        };
        format!("{{ match: {{ path: {path} }}, route: {{ {cluster}{more}retry_policy: {{ {policy} }} }} }}, ")
    });
    Manager {
        routes: format!(
            "virtual_hosts: [{{ name: all, domains: [\"*\"], include_request_attempt_count: true, include_is_timeout_retry_header: true,
               {more}, routes: [{}] }}]",
            routes.collect::<String>()
        ),
        ..Manager::default()
    }
}

/// Runs `steps` with each proxy, in front of an upstream on `port` that fails as it is asked to and notes every attempt.
pub(super) fn check_attempts(
    resources: &str,
    port: u16,
    steps: impl Fn(&Alone, &Mutex<Attempts>) -> Vec<String>,
) {
    let kept = Arc::new(Mutex::new(Attempts::default()));
    check_with(
        resources,
        |namespace, _| {
            kept.lock().expect("no panic holds it").clear();
            flaky(namespace, port, kept.clone());
        },
        |alone| steps(alone, &kept),
    );
}

#[test]
fn requests_are_sent_again_as_by_envoy() {
    check_attempts(&resources(), FLAKY, steps);
}

fn steps(alone: &Alone, kept: &Mutex<Attempts>) -> Vec<String> {
    let answers: Vec<_> = CASES
        .iter()
        .enumerate()
        .map(|(number, case)| case.answer(alone, number))
        .collect();
    let mut lines = with_attempts(alone, CASES, answers, kept);
    lines.push(stalled(alone));
    let names = [
        "upstream_rq_retry",
        "upstream_rq_retry_success",
        "upstream_rq_retry_limit_exceeded",
        "upstream_rq_retry_backoff_exponential",
        "upstream_rq_retry_backoff_ratelimited",
        "upstream_rq_per_try_timeout",
        "upstream_rq_per_try_idle_timeout",
    ];
    let names = names.map(|name| format!("cluster.flaky.{name}"));
    lines.extend(counters(alone, &names.each_ref().map(String::as_str)));
    lines
}

/// The answers with the log and what the upstream got.
pub(super) fn with_attempts(
    alone: &Alone,
    cases: &[Case],
    answers: Vec<String>,
    kept: &Mutex<Attempts>,
) -> Vec<String> {
    let answered = cases.iter().zip(answers).enumerate();
    answered
        .map(|(number, (case, answer))| {
            let name = format!("case{number}");
            let log = alone.logged(&format!("{name} "));
            let mut line = format!(
                "{} {} {:?}: {answer} log {log}",
                case.method, case.path, case.headers
            );
            let kept = kept.lock().expect("no panic holds it");
            for (_, told) in kept.get(&name).into_iter().flatten() {
                let _ = write!(line, "\n    got {told}");
            }
            line
        })
        .collect()
}

/// What comes of a response that stands still: too late for another attempt.
fn stalled(alone: &Alone) -> String {
    let mut stream = alone.connect(FRONT);
    stream
        .write_all(b"GET /idle HTTP/1.1\r\nhost: a\r\nx-case: stalled\r\nx-script: stalls\r\n\r\n")
        .expect("the proxy reads");
    let mut got = Vec::new();
    let end = stream
        .read_to_end(&mut got)
        .map(|_| "end")
        .map_err(|error| error.kind());
    let got = String::from_utf8_lossy(&got);
    let first = got.lines().next().unwrap_or_default();
    let body = got.split("\r\n\r\n").nth(1);
    format!("{first} {body:?} {end:?} log {}", alone.logged("stalled "))
}

/// The attempts of each case: when, and what.
pub(super) type Attempts = HashMap<String, Vec<(Instant, String)>>;

/// An upstream that does what `x-script` of a request says for its attempt: `close`, `slow`, `slow503`, `steady`, `stalls`, or a status with `+name=value` for headers.
pub(super) fn flaky(namespace: &Namespace, port: u16, kept: Arc<Mutex<Attempts>>) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let kept = kept.clone();
            std::thread::spawn(move || serve(stream, &kept));
        }
    });
}

fn serve(mut stream: TcpStream, kept: &Mutex<Attempts>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let value = |name: &str| {
        let line = head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_default()
    };
    let mut body = vec![0; value("content-length").parse().unwrap_or(0)];
    if stream.read_exact(&mut body).is_err() {
        return;
    }
    let attempt = {
        let mut kept = kept.lock().expect("no panic holds it");
        let attempts = kept.entry(value("x-case").to_owned()).or_default();
        let now = Instant::now();
        // Only whether a wait of a second was kept, which no exponential one here is.
        let waited = attempts
            .last()
            .is_some_and(|(last, _)| now - *last >= Duration::from_secs(1));
        let told = format!(
            "{} attempt {} after timeout {:?} {:?} waited {waited}",
            head.lines().next().unwrap_or_default(),
            value("x-envoy-attempt-count"),
            value("x-envoy-is-timeout-retry"),
            String::from_utf8_lossy(&body),
        );
        attempts.push((now, told));
        attempts.len()
    };
    let script = value("x-script")
        .split(' ')
        .take(attempt)
        .last()
        .unwrap_or_default();
    if script == "close" {
        return;
    }
    let mut parts = script.split('+');
    let mut status = parts.next().unwrap_or_default();
    if let Some(late) = status.strip_prefix("slow") {
        std::thread::sleep(Duration::from_millis(800));
        status = if late.is_empty() { "200" } else { late };
    }
    let headers: String = parts
        .filter_map(|part| part.split_once('='))
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let text = format!("attempt {attempt}");
    if status == "steady" {
        steady(&mut stream, Duration::from_millis(80));
        return;
    }
    if status == "stalls" {
        steady(&mut stream, Duration::from_millis(700));
        return;
    }
    let _ = write!(
        stream,
        "HTTP/1.1 {status} Status\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{}",
        text.len(),
        if head.starts_with("head ") { "" } else { &text }
    );
}

/// A response that takes longer than any limit of one attempt, with such pauses.
fn steady(stream: &mut TcpStream, pause: Duration) {
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\n"
    );
    for _ in 0..6 {
        if stream.write_all(b"x").is_err() {
            return;
        }
        std::thread::sleep(pause);
    }
}

/// Of five requests one may be sent again; those before count only where the budget looks back.
#[test]
fn budgets_look_back_as_far_as_they_are_told() {
    let limited = |name: &str, interval: &str| {
        let budget = format!("budget_percent: {{ value: 20 }}, min_retry_concurrency: 0, {interval}");
        let more = format!("{{ circuit_breakers: {{ thresholds: [{{ retry_budget: {{ {budget} }} }}] }}, ");
        cluster(name, &[ECHO]).replacen("{ ", &more, 1)
    };
    let routes = ["now", "back"].map(|name| {
        format!("{{ match: {{ path: /{name} }}, route: {{ cluster: {name}, retry_policy: {{ retry_on: 5xx }} }} }}, ")
    });
    let clusters = [limited("now", ""), limited("back", "budget_interval: 60s")];
    let cases: Vec<Case> = ["/now", "/back"]
        .iter()
        .flat_map(|path| std::iter::repeat_n(get(path, &[("x-status", "503")]), 8))
        .collect();
    check_with(
        &configuration(&[Manager::with_routes(&routes.concat())], &clusters),
        |_, _| {},
        |alone| {
            let mut lines = answers(alone, &cases);
            for name in ["now", "back"] {
                let names = [
                    "upstream_rq_retry",
                    "upstream_rq_retry_overflow",
                    "upstream_rq_total",
                ];
                let names = names.map(|counter| format!("cluster.{name}.{counter}"));
                lines.extend(counters(alone, &names.each_ref().map(String::as_str)));
            }
            lines
        },
    );
}
