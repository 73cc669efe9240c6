//! Clients that are inside (`internal_address_config`) steer timeouts, retries and hedging by headers; others do not.

use e2e::beside::{Case, Manager, cluster, configuration, counters, get};

use super::retries::{check_attempts, manager, with_attempts};

/// Fails as the request says.
const FLAKY: u16 = 9002;

const INSIDE: &str = "use_remote_address: true,
    internal_address_config: { cidr_ranges: [{ address_prefix: 127.0.0.0, prefix_len: 8 }] },";

/// Path, further fields of the route's action, its retry policy.
const ROUTES: &[(&str, &str, &str)] = &[
    ("/none", "", "retry_on: \"\""),
    ("/5xx", "", "retry_on: 5xx, num_retries: 2"),
    (
        "/slow",
        "",
        "retry_on: 5xx, num_retries: 2, per_try_timeout: 0.2s",
    ),
    (
        "/asked",
        "",
        "retry_on: 5xx, retriable_request_headers: [{ name: x-safe }]",
    ),
    (
        "/grpc",
        "max_grpc_timeout: 5s, ",
        "retry_on: unavailable, num_retries: 1",
    ),
    ("/echo", "cluster: echo, ", "retry_on: \"\""),
    ("/dead", "cluster: dead, ", "retry_on: \"\""),
];

/// Adds headers that steer: of retries, which Envoy heeds, and of times, which come too late.
const ADDS: &str = "{ match: { prefix: / }, route: { cluster: flaky }, request_headers_to_add: [
    { header: { key: x-envoy-retry-on, value: 5xx } },
    { header: { key: x-envoy-upstream-rq-per-try-timeout-ms, value: \"100\" } }] }";

const CASES: &[Case] = &[
    get("/none", &[("x-script", "503 200"), ("x-envoy-retry-on", "5xx")]),
    get("/none", &[("x-script", "503 200"), ("x-envoy-max-retries", "3")]),
    get(
        "/none",
        &[
            ("x-script", "503 503 200"),
            ("x-envoy-retry-on", "gateway-error, reset"),
            ("x-envoy-max-retries", "2"),
        ],
    ),
    get(
        "/none",
        &[("x-script", "close 200"), ("x-envoy-retry-on", "reset,5xx")],
    ),
    get(
        "/none",
        &[("x-script", "503 200"), ("x-envoy-retry-on", "whatever")],
    ),
    get(
        "/none",
        &[("x-script", "503 200"), ("x-envoy-retry-on", "cancelled")],
    ),
    get("/5xx", &[("x-script", "503"), ("x-envoy-max-retries", "0")]),
    get("/5xx", &[("x-script", "503"), ("x-envoy-max-retries", "many")]),
    get("/5xx", &[("x-script", "503"), ("x-envoy-max-retries", " 1 ")]),
    get(
        "/5xx",
        &[
            ("x-script", "503"),
            ("x-envoy-max-retries", "1"),
            ("x-envoy-max-retries", "1"),
        ],
    ),
    get(
        "/none",
        &[
            ("x-script", "418 200"),
            ("x-envoy-retry-on", "retriable-status-codes"),
            ("x-envoy-retriable-status-codes", "404, 418,x"),
        ],
    ),
    get(
        "/5xx",
        &[("x-script", "418 200"), ("x-envoy-retriable-status-codes", "418")],
    ),
    get(
        "/none",
        &[
            ("x-script", "200+x-again=1 200"),
            ("x-envoy-retry-on", "retriable-headers"),
            ("x-envoy-retriable-header-names", "x-other, X-Again"),
        ],
    ),
    get(
        "/none",
        &[
            ("x-script", "200+grpc-status=14 200"),
            ("x-envoy-retry-grpc-on", "unavailable"),
        ],
    ),
    get(
        "/none",
        &[("x-script", "503 200"), ("x-envoy-retry-grpc-on", "5xx")],
    ),
    get("/asked", &[("x-script", "503 200"), ("x-envoy-retry-on", "5xx")]),
    get(
        "/asked",
        &[
            ("x-script", "503 200"),
            ("x-envoy-max-retries", "1"),
            ("x-safe", "1"),
        ],
    ),
    get(
        "/dead",
        &[
            ("x-envoy-retry-on", "connect-failure"),
            ("x-envoy-max-retries", "2"),
        ],
    ),
    // Times.
    get(
        "/none",
        &[("x-script", "slow"), ("x-envoy-upstream-rq-timeout-ms", "300")],
    ),
    get(
        "/none",
        &[("x-script", "slow"), ("x-envoy-upstream-rq-timeout-ms", "soon")],
    ),
    get(
        "/none",
        &[
            ("x-script", "slow"),
            ("x-envoy-upstream-rq-timeout-ms", "300"),
            ("x-envoy-upstream-rq-timeout-alt-response", "0"),
        ],
    ),
    get(
        "/none",
        &[
            ("x-script", "slow"),
            ("x-envoy-upstream-rq-per-try-timeout-ms", "200"),
            ("x-envoy-upstream-rq-timeout-alt-response", "1"),
        ],
    ),
    get(
        "/none",
        &[
            ("x-script", "slow 200"),
            ("x-envoy-retry-on", "5xx"),
            ("x-envoy-upstream-rq-per-try-timeout-ms", "200"),
        ],
    ),
    get(
        "/none",
        &[
            ("x-script", "slow 200"),
            ("x-envoy-retry-on", "5xx"),
            ("x-envoy-upstream-rq-timeout-ms", "200"),
            ("x-envoy-upstream-rq-per-try-timeout-ms", "200"),
        ],
    ),
    get(
        "/slow",
        &[("x-script", "slow"), ("x-envoy-upstream-rq-timeout-ms", "100")],
    ),
    get(
        "/slow",
        &[
            ("x-script", "slow"),
            ("x-envoy-upstream-rq-per-try-timeout-ms", "0"),
        ],
    ),
    get(
        "/slow",
        &[
            ("x-script", "slow 200"),
            ("x-envoy-hedge-on-per-try-timeout", "true"),
        ],
    ),
    get(
        "/slow",
        &[
            ("x-script", "slow 200"),
            ("x-envoy-hedge-on-per-try-timeout", "yes"),
        ],
    ),
    // What the upstream is told.
    get("/echo", &[("x-envoy-upstream-rq-timeout-ms", "700")]),
    get("/echo", &[("x-envoy-upstream-rq-timeout-ms", "0")]),
    get(
        "/echo",
        &[
            ("x-envoy-upstream-rq-timeout-ms", "700"),
            ("x-envoy-upstream-rq-per-try-timeout-ms", "300"),
        ],
    ),
    get(
        "/echo",
        &[
            ("x-envoy-upstream-rq-timeout-ms", "700"),
            ("x-envoy-upstream-rq-per-try-timeout-ms", "300"),
            ("x-envoy-hedge-on-per-try-timeout", "true"),
        ],
    ),
    get(
        "/echo",
        &[
            ("x-envoy-max-retries", "3"),
            ("x-envoy-retriable-header-names", "a"),
            ("x-envoy-upstream-alt-stat-name", "a"),
            ("x-envoy-upstream-rq-timeout-alt-response", "1"),
        ],
    ),
    get("/echo", &[("x-envoy-expected-rq-timeout-ms", "300")]),
    // Who is not inside asks for nothing.
    get(
        "/none",
        &[
            ("x-script", "503 200"),
            ("x-envoy-retry-on", "5xx"),
            ("x-forwarded-for", "1.2.3.4"),
        ],
    ),
    get(
        "/echo",
        &[
            ("x-envoy-upstream-rq-timeout-ms", "700"),
            ("x-envoy-expected-rq-timeout-ms", "300"),
            ("x-forwarded-for", "1.2.3.4"),
        ],
    ),
    // The time that another proxy tells.
    get("/echo", &[("x-envoy-expected-rq-timeout-ms", "300")]).listener(1),
    get(
        "/echo",
        &[
            ("x-envoy-expected-rq-timeout-ms", "300"),
            ("x-envoy-upstream-rq-timeout-ms", "700"),
        ],
    )
    .listener(1),
    get("/echo", &[("x-envoy-upstream-rq-timeout-ms", "700")]).listener(1),
    get(
        "/none",
        &[("x-script", "slow"), ("x-envoy-expected-rq-timeout-ms", "300")],
    )
    .listener(1),
    get(
        "/none",
        &[("x-script", "slow"), ("x-envoy-expected-rq-timeout-ms", "300")],
    ),
    get("/", &[("x-script", "503 200")]).listener(2),
    get("/", &[("x-script", "slow")]).listener(2),
];

fn resources() -> String {
    let settings = INSIDE.to_owned();
    let plain = Manager {
        settings: settings.clone(),
        ..manager(ROUTES, "include_attempt_count_in_response: true")
    };
    let adds = Manager {
        settings,
        ..Manager::with_routes(ADDS)
    };
    let text = configuration(&[plain.clone(), plain, adds], &[cluster("flaky", &[FLAKY])]);
    let router = "http.router.v3.Router";
    let mut parts = text.splitn(4, router);
    let mut part = || parts.next().expect("a router of each listener");
    let (first, second, third, rest) = (part(), part(), part(), part());
    format!("{first}{router}{second}{router}, respect_expected_rq_timeout: true{third}{router}{rest}")
}

#[test]
fn clients_that_are_inside_steer_the_router_as_envoys() {
    check_attempts(&resources(), FLAKY, |alone, kept| {
        let answers: Vec<_> = CASES
            .iter()
            .enumerate()
            .map(|(number, case)| case.answer(alone, number))
            .collect();
        let mut lines = with_attempts(alone, CASES, answers, kept);
        let names = [
            "upstream_rq_retry",
            "upstream_rq_retry_success",
            "upstream_rq_retry_limit_exceeded",
            "upstream_rq_timeout",
            "upstream_rq_per_try_timeout",
            "upstream_rq_204",
            "upstream_rq_504",
        ];
        let names = names.map(|name| format!("cluster.flaky.{name}"));
        lines.extend(counters(alone, &names.each_ref().map(String::as_str)));
        lines
    });
}
