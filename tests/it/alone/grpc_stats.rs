//! What `grpc_stats` counts for a cluster, by the methods that are called and the statuses that come back.

use e2e::alone::Alone;
use e2e::beside::{Case, ECHO, Manager, answers, check_with, cluster, configuration, get};

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
        ("content-type", "application/grpc"),
        ("x-say", "content-type=application/grpc"),
        ("x-say", "grpc-status=0"),
    ],
    &[
        ("content-type", "application/grpc-web"),
        ("x-say", "grpc-status=0"),
    ],
    &[("content-type", "text/plain"), ("x-say", "grpc-status=0")],
    &[("content-type", "application/grpc"), ("x-say", "grpc-status=x")],
    &[("content-type", "application/grpc"), ("x-say", "grpc-status=00")],
];

const PATHS: &[&str] = &[
    "/some.Service/Method",
    "/some.Service/Other",
    "/some_Service/Method",
    "/One/Method?x=1/2",
    "//a//b/",
    "/a/b/c",
    "/a",
    "/",
];

/// Those of each listener; each has a cluster of its own.
const OPTIONS: &[&str] = &[
    "emit_filter_state: true, stats_for_all_methods: false",
    "enable_upstream_stats: true",
    "stats_for_all_methods: true",
    "stats_for_all_methods: true, replace_dots_in_grpc_service_name: true, enable_upstream_stats: true",
    "individual_method_stats_allowlist: { services: [
       { name: some.Service, method_names: [Method, Else] }, { name: a, method_names: [b] }, { name: One, method_names: [method] }] },
     replace_dots_in_grpc_service_name: true, enable_upstream_stats: true",
];

#[test]
fn grpc_calls_are_counted_as_in_envoy() {
    let managers = OPTIONS.iter().enumerate().map(|(number, options)| {
        let routes = format!(
            "{{ match: {{ path: /dead.Service/Method }}, route: {{ cluster: dead }} }},
             {{ match: {{ prefix: / }}, route: {{ cluster: echo{number} }} }}"
        );
        Manager::with_routes(&routes).filter(
            "envoy.filters.http.grpc_stats",
            "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
            options,
        )
    });
    let clusters: Vec<String> = (0..OPTIONS.len())
        .map(|number| cluster(&format!("echo{number}"), &[ECHO]))
        .collect();
    let mut cases = Vec::new();
    for (listener, _) in (0..).zip(OPTIONS) {
        let call = |path, headers| -> Case {
            let case = get(path, headers).listener(listener).method("POST");
            case.body("\0\0\0\0\u{3}abc\0\0\0\0\0")
        };
        cases.extend(PATHS.iter().map(|path| call(path, STATUSES[0])));
        cases.extend(
            STATUSES
                .iter()
                .map(|headers| call("/some.Service/Method", headers)),
        );
        // Its answer ends with its head.
        cases.push(call("/some.Service/Method", STATUSES[0]).method("HEAD"));
        cases.push(call("/dead.Service/Method", STATUSES[0]));
    }
    let managers: Vec<Manager> = managers.collect();
    check_with(
        &configuration(&managers, &clusters),
        |_, _| {},
        |alone| {
            let mut seen = answers(alone, &cases);
            seen.push(grpc_stats(alone));
            seen
        },
    );
}

/// All of them; of times only that there are some, which Envoy shows late.
fn grpc_stats(alone: &Alone) -> String {
    let text = alone.admin("/stats").expect("the admin interface").body;
    let lines = text.lines().filter(|line| line.contains(".grpc."));
    let lines = lines.map(|line| match line.split_once("upstream_rq_time: ") {
        Some((name, _)) => format!("\n{name} has times"),
        None => format!("\n{line}"),
    });
    lines.collect()
}
