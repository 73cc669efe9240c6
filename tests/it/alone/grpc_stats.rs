//! What `grpc_stats` counts for a cluster, by the statuses that come back.

use e2e::beside::{Case, Manager, answers, check_with, configuration, counters, get};

const STATUSES: &[&[(&str, &str)]] = &[
    &[("content-type", "application/grpc"), ("x-say", "grpc-status=0")],
    &[
        ("content-type", "application/grpc+proto"),
        ("x-say", "grpc-status=0"),
    ],
    &[("content-type", "application/grpc"), ("x-say", "grpc-status=14")],
    &[("content-type", "application/grpc"), ("x-say", "grpc-status=5")],
    &[("content-type", "application/grpc")],
    &[
        ("content-type", "application/grpc-web"),
        ("x-say", "grpc-status=0"),
    ],
    &[("content-type", "text/plain"), ("x-say", "grpc-status=0")],
    &[("content-type", "application/grpc"), ("x-say", "grpc-status=x")],
];

#[test]
fn grpc_calls_are_counted_as_in_envoy() {
    let manager = Manager::with_routes("{ match: { prefix: / }, route: { cluster: echo } }");
    let manager = manager.filter(
        "envoy.filters.http.grpc_stats",
        "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
        "emit_filter_state: true, stats_for_all_methods: false",
    );
    let cases: Vec<Case> = STATUSES
        .iter()
        .map(|headers| {
            get("/some.Service/Method", headers)
                .method("POST")
                .body("\0\0\0\0\u{3}abc\0\0\0\0\0")
        })
        .collect();
    check_with(
        &configuration(&[manager], &[]),
        |_, _| {},
        |alone| {
            let mut seen = answers(alone, &cases);
            let names = ["success", "failure", "total", "request_message_count"]
                .map(|name| format!("cluster.echo.grpc.{name}"));
            seen.extend(counters(alone, &names.each_ref().map(String::as_str)));
            seen
        },
    );
}
