//! Which responses count against a host, and hosts that say of themselves that they are degraded.

use e2e::beside::{Case, Manager, check_with, cluster, configuration, counters, get};
use e2e::mesh::PATIENCE;
use e2e::process::until;

/// `error_matcher` by cluster; empty: there is none.
const MATCHERS: &[(&str, &str)] = &[
    ("plain", ""),
    ("missing", "STATUS404"),
    ("found", "not_match: { STATUS404 }"),
    ("all", "any_match: true"),
    ("either", "or_match: { rules: [{ STATUS404 }, { STATUS503 }] }"),
    (
        "both",
        "and_match: { rules: [{ STATUS503 }, { http_response_headers_match: { headers: [{ name: x-bad, present_match: true }] } }] }",
    ),
    (
        "regex",
        "http_response_headers_match: { headers: [{ name: x-bad, string_match: { safe_regex: { regex: \"y.*\" } } }] }",
    ),
    ("nothing", "http_response_headers_match: {}"),
    (
        "request",
        "http_request_headers_match: { headers: [{ name: x-status, present_match: true }] }",
    ),
    (
        "no-request",
        "not_match: { http_request_headers_match: { headers: [{ name: x-status, present_match: true }] } }",
    ),
    (
        "no-trailer",
        "not_match: { http_response_trailers_match: { headers: [{ name: x-status, present_match: true }] } }",
    ),
];

/// `x-status` and `x-say` of requests, each sent twice, after one that is in order.
const ANSWERS: &[&[(&str, &str)]] = &[
    &[],
    &[("x-status", "404")],
    &[("x-status", "500")],
    &[("x-status", "503")],
    &[("x-status", "503"), ("x-say", "x-bad=yes")],
    &[("x-say", "x-bad=yes")],
    &[("x-say", "x-degraded=true")],
];

/// Twice in a row is enough to be detected; nobody is ejected.
const DETECTION: &str = "outlier_detection: { consecutive_5xx: 2, consecutive_gateway_failure: 2, enforcing_consecutive_5xx: 0, \
                         enforcing_consecutive_gateway_failure: 0, enforcing_success_rate: 0, max_ejection_percent: 100, interval: 600s }, ";

fn resources() -> String {
    let status = |status: &str| {
        format!(
            "http_response_headers_match: {{ headers: [{{ name: \":status\", string_match: {{ exact: \"{status}\" }} }}] }}"
        )
    };
    let clusters = MATCHERS.iter().map(|(name, matcher)| {
        let matcher = matcher
            .replace("STATUS404", &status("404"))
            .replace("STATUS503", &status("503"));
        let options = match matcher.is_empty() {
            true => String::new(),
            false => format!("outlier_detection: {{ error_matcher: {{ {matcher} }} }}"),
        };
        let more = format!(
            "{{ {DETECTION}typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{ \"@type\": \
             type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{ \
             http_protocol_options: {{}} }}, {options} }} }}, "
        );
        cluster(name, &[e2e::beside::ECHO]).replacen("{ ", &more, 1)
    });
    let clusters: Vec<String> = clusters.collect();
    let routes = MATCHERS
        .iter()
        .map(|(name, _)| format!("{{ match: {{ prefix: /{name} }}, route: {{ cluster: {name} }} }}, "));
    let routes: String = routes.collect();
    configuration(&[Manager::with_routes(&routes)], &clusters)
}

#[test]
fn which_responses_are_errors_is_for_the_cluster_to_say() {
    check_with(
        &resources(),
        |_, _| {},
        |alone| {
            let mut lines = Vec::new();
            for (number, (name, matcher)) in MATCHERS.iter().enumerate() {
                let path: &'static str = format!("/{name}").leak();
                for &answer in ANSWERS {
                    for headers in [&[], answer, answer] {
                        get(path, headers).answer(alone, number);
                    }
                    let prefix = format!("cluster.{name}.outlier_detection.ejections_detected_");
                    let names = ["consecutive_5xx", "consecutive_gateway_failure"]
                        .map(|kind| format!("{prefix}{kind}"));
                    let names = names.each_ref().map(String::as_str);
                    lines.push(format!("{matcher} {answer:?}: {:?}", counters(alone, &names)));
                }
            }
            lines
        },
    );
}

const DEGRADED: Case = get("/degraded", &[("x-say", "x-envoy-degraded=true")]);
const DEGRADED_ERROR: Case = get(
    "/degraded",
    &[("x-say", "x-envoy-degraded=true"), ("x-status", "503")],
);

#[test]
fn a_host_that_says_it_is_degraded_has_what_others_cannot_take() {
    let detection = |detects: bool| {
        format!(
            "{{ outlier_detection: {{ detect_degraded_hosts: {detects}, consecutive_5xx: 2, enforcing_consecutive_5xx: 0, \
             base_ejection_time: 2s, interval: 0.2s }}, "
        )
    };
    let clusters = [("degraded", true), ("unheard", false)]
        .map(|(name, detects)| cluster(name, &[e2e::beside::ECHO]).replacen("{ ", &detection(detects), 1));
    let routes = ["degraded", "unheard"]
        .map(|name| format!("{{ match: {{ prefix: /{name} }}, route: {{ cluster: {name} }} }}, "))
        .concat();
    let resources = configuration(&[Manager::with_routes(&routes)], &clusters);
    check_with(
        &resources,
        |_, _| {},
        |alone| {
            let flags = |cluster: &str| {
                let text = alone.admin("/clusters").expect("the admin interface").body;
                let prefix = format!("{cluster}::127.0.0.1:{}::health_flags::", e2e::beside::ECHO);
                let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
                line.unwrap_or("none").to_owned()
            };
            let becomes = |expected: &str| {
                until(&format!("{:?}: {expected}", alone.kind), PATIENCE, || {
                    (flags("degraded") == expected).then_some(())
                });
            };
            let mut lines = Vec::new();
            for case in [DEGRADED, DEGRADED] {
                lines.push(case.answer(alone, 0));
                becomes("/degraded_outlier_detection");
                lines.extend(counters(
                    alone,
                    &[
                        "cluster.degraded.membership_degraded",
                        "cluster.degraded.membership_healthy",
                    ],
                ));
                becomes("healthy");
            }
            // An error counts as that alone.
            for case in [DEGRADED_ERROR, DEGRADED_ERROR] {
                lines.push(case.answer(alone, 0));
                lines.push(flags("degraded"));
            }
            lines.push(get("/unheard", &[("x-say", "x-envoy-degraded=true")]).answer(alone, 0));
            lines.push(flags("unheard"));
            lines.extend(counters(
                alone,
                &[
                    "cluster.degraded.outlier_detection.ejections_detected_degradation",
                    "cluster.degraded.outlier_detection.ejections_detected_consecutive_5xx",
                    "cluster.degraded.outlier_detection.ejections_overflow",
                    "cluster.degraded.outlier_detection.ejections_active",
                    "cluster.degraded.membership_healthy",
                    "cluster.unheard.outlier_detection.ejections_detected_degradation",
                    "cluster.unheard.membership_healthy",
                ],
            ));
            lines
        },
    );
}
