//! Requests that are sent again while the first is still waited for.

use std::sync::Mutex;

use e2e::alone::Alone;
use e2e::beside::{Case, cluster, configuration, counters, get};

use super::retries::{Attempts, check_attempts, manager, with_attempts};

const FLAKY: u16 = 9003;

/// Path, more of the route, its retry policy.
const ROUTES: &[(&str, &str, &str)] = &[
    ("/one", "", "retry_on: 5xx, per_try_timeout: 0.2s"),
    ("/two", "", "retry_on: 5xx, num_retries: 2, per_try_timeout: 0.2s"),
    ("/connect", "", "retry_on: connect-failure, per_try_timeout: 0.2s"),
    ("/never", "", "per_try_timeout: 0.2s"),
    (
        "/off",
        "hedge_policy: { hedge_on_per_try_timeout: false }, ",
        "retry_on: 5xx, per_try_timeout: 0.2s",
    ),
    (
        "/whole",
        "timeout: 0.5s, ",
        "retry_on: 5xx, per_try_timeout: 0.2s",
    ),
    ("/idle", "", "retry_on: 5xx, per_try_idle_timeout: 0.2s"),
    ("/full", "cluster: full, ", "retry_on: 5xx, per_try_timeout: 0.2s"),
];

/// What the upstream does with each attempt; `slow` is slower than any attempt may be.
const CASES: &[Case] = &[
    get("/one", &[("x-script", "200")]),
    get("/one", &[("x-script", "slow 200")]),
    get("/one", &[("x-script", "slow 200")])
        .method("POST")
        .body("sent to both"),
    get("/one", &[("x-script", "slow slow")]),
    get("/one", &[("x-script", "slow 503")]),
    get("/one", &[("x-script", "slow 404")]),
    get("/one", &[("x-script", "slow close")]),
    get("/one", &[("x-script", "slow503 slow")]),
    get("/one", &[("x-script", "slow503 slow503")]),
    get("/one", &[("x-script", "503 200")]),
    get("/one", &[("x-script", "503 slow")]),
    get("/two", &[("x-script", "slow503 503 200")]),
    get("/two", &[("x-script", "slow close 200")]),
    get("/two", &[("x-script", "slow slow 200")]),
    get("/connect", &[("x-script", "slow 200")]),
    get("/connect", &[("x-script", "slow 503")]),
    get("/never", &[("x-script", "slow 200")]),
    get("/off", &[("x-script", "slow 200")]),
    get("/off", &[("x-script", "slow slow")]),
    get("/whole", &[("x-script", "slow slow")]),
    get("/whole", &[("x-script", "slow 200")]),
    get("/idle", &[("x-script", "slow 200")]),
    get("/full", &[("x-script", "slow 200")]),
    get("/full", &[("x-script", "503 200")]),
];

fn resources() -> String {
    let manager = manager(ROUTES, "hedge_policy: { hedge_on_per_try_timeout: true }");
    let full = cluster("full", &[FLAKY]).replacen(
        "{ ",
        "{ circuit_breakers: { thresholds: [{ max_retries: 0 }] }, ",
        1,
    );
    configuration(&[manager], &[cluster("flaky", &[FLAKY]), full])
}

#[test]
fn slow_attempts_go_on_beside_others_as_in_envoy() {
    check_attempts(&resources(), FLAKY, steps);
}

fn steps(alone: &Alone, kept: &Mutex<Attempts>) -> Vec<String> {
    let answers = CASES.iter().enumerate();
    let answers = answers.map(|(number, case)| case.answer(alone, number));
    let mut lines = with_attempts(alone, CASES, answers.collect(), kept);
    let names = [
        "upstream_rq_total",
        "upstream_rq_retry",
        "upstream_rq_retry_success",
        "upstream_rq_retry_limit_exceeded",
        "upstream_rq_retry_overflow",
        "upstream_rq_retry_backoff_exponential",
        "upstream_rq_per_try_timeout",
        "upstream_rq_per_try_idle_timeout",
        "upstream_rq_timeout",
        "upstream_rq_2xx",
        "upstream_rq_5xx",
        "upstream_rq_active",
    ];
    for cluster in ["flaky", "full"] {
        let names = names.map(|name| format!("cluster.{cluster}.{name}"));
        lines.extend(counters(alone, &names.each_ref().map(String::as_str)));
    }
    lines
}
