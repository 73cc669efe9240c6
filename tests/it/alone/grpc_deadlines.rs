//! What `grpc-timeout` of a request is to a route's limits, and what the server is told.

use e2e::beside::{Case, Manager, check, configuration, get};

const ROUTES: &[(&str, &str)] = &[
    ("/none", ""),
    ("/timeout", "max_grpc_timeout: 10s"),
    (
        "/timeout-less",
        "max_grpc_timeout: 10s, grpc_timeout_offset: 0.5s",
    ),
    ("/any-less", "max_grpc_timeout: 0s, grpc_timeout_offset: 0.5s"),
    ("/only-less", "grpc_timeout_offset: 0.5s"),
    ("/header", "max_stream_duration: { grpc_timeout_header_max: 10s }"),
    (
        "/header-less",
        "max_stream_duration: { grpc_timeout_header_max: 10s, grpc_timeout_header_offset: 0.5s }",
    ),
    (
        "/header-any",
        "max_stream_duration: { grpc_timeout_header_max: 0s, grpc_timeout_header_offset: 0.5s, max_stream_duration: 7s }",
    ),
    (
        "/duration",
        "max_stream_duration: { max_stream_duration: 3s, grpc_timeout_header_offset: 0.5s }",
    ),
    ("/zero", "max_stream_duration: { max_stream_duration: 0s }"),
    (
        "/zero-header",
        "max_stream_duration: { max_stream_duration: 0s, grpc_timeout_header_max: 0s }",
    ),
    (
        "/both",
        "max_grpc_timeout: 10s, max_stream_duration: { grpc_timeout_header_max: 5s }",
    ),
];

const GRPC: (&str, &str) = ("content-type", "application/grpc");

const CALLS: &[&[(&str, &str)]] = &[
    &[GRPC],
    &[GRPC, ("grpc-timeout", "2S")],
    &[GRPC, ("grpc-timeout", "900m")],
    &[GRPC, ("grpc-timeout", "20S")],
    &[GRPC, ("grpc-timeout", "x")],
    &[GRPC, ("grpc-timeout", "1H")],
    &[("grpc-timeout", "2S")],
    &[],
];

/// Deadlines that leave nothing, where they count: the call is over before it goes.
const OVER: &[(&str, &[(&str, &str)])] = &[
    ("/header-less", &[GRPC, ("grpc-timeout", "400m")]),
    ("/header-less", &[GRPC, ("grpc-timeout", "500m")]),
    ("/header-less", &[("grpc-timeout", "500m")]),
    ("/header-any", &[GRPC, ("grpc-timeout", "0S")]),
    ("/header", &[GRPC, ("grpc-timeout", "0m")]),
];

/// Those that count for the response, and are not shortened to nothing.
const SHORT: &[(&str, &[(&str, &str)])] = &[
    ("/timeout-less", &[GRPC, ("grpc-timeout", "500m")]),
    ("/any-less", &[GRPC, ("grpc-timeout", "0S")]),
    ("/only-less", &[GRPC, ("grpc-timeout", "500m")]),
];

#[test]
fn deadlines_of_grpc_calls_are_those_of_envoy() {
    let routes = ROUTES
        .iter()
        .map(|(path, more)| format!("{{ match: {{ path: {path} }}, route: {{ cluster: echo, {more} }} }}, "));
    let mut cases: Vec<Case> = Vec::new();
    for (path, _) in ROUTES {
        cases.extend(CALLS.iter().map(|headers| get(path, headers)));
    }
    cases.extend(OVER.iter().chain(SHORT).map(|(path, headers)| get(path, headers)));
    let manager = Manager::with_routes(&routes.collect::<String>());
    check(&configuration(&[manager], &[]), &cases);
}
