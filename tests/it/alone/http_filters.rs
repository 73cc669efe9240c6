//! Smaller HTTP filters: health_check, buffer, csrf.

use e2e::alone::Alone;
use e2e::beside::{
    Case, ECHO, Manager, answers, check_with, cluster, configuration, counters, for_route, get,
};

const FILTERS: &str = "envoy.extensions.filters.http";

fn filter(manager: Manager, name: &str, message: &str, fields: &str) -> Manager {
    manager.filter(
        &format!("envoy.filters.http.{name}"),
        &format!("{FILTERS}.{name}.v3.{message}"),
        fields,
    )
}

fn with_counters(alone: &Alone, cases: &[Case], names: &[&str]) -> Vec<String> {
    let mut lines = answers(alone, cases);
    lines.extend(counters(alone, names));
    lines
}

const HEALTH_CASES: &[Case] = &[
    get("/health", &[]),
    get("/health?q", &[]),
    get("/healthy", &[]),
    get("/health", &[]).method("HEAD"),
    get("/other", &[]),
    get("/health", &[]).listener(1),
    get("/enough", &[]).listener(1),
    get("/enough", &[("content-type", "application/grpc")]).listener(1),
    get("/empty", &[]).listener(1),
    get("/empty-is-fine", &[]).listener(1),
    get("/unknown", &[]).listener(1),
    get("/both", &[]).listener(1),
    get("/through", &[]).listener(2),
    get("/through", &[("x-status", "503")]).listener(2),
    get("/kept", &[("x-status", "503"), ("x-say", "x-envoy-degraded=1")]).listener(2),
    get("/kept", &[("x-status", "200")]).listener(2),
    get("/kept", &[("x-status", "200")])
        .listener(2)
        .method("POST")
        .body("b"),
    get("/other", &[]).listener(2),
];

#[test]
fn health_checks_are_answered_as_by_envoy() {
    let routes = "{ match: { prefix: / }, route: { cluster: echo } }";
    let at = |path: &str| format!("headers: [{{ name: \":path\", string_match: {{ exact: {path} }} }}]");
    let own = |manager, path: &str, least: &str| {
        let fields = format!(
            "pass_through_mode: false, {}, cluster_min_healthy_percentages: {{ {least} }}",
            at(path)
        );
        filter(manager, "health_check", "HealthCheck", &fields)
    };
    let by_path = filter(
        Manager::with_routes(routes),
        "health_check",
        "HealthCheck",
        &format!("pass_through_mode: false, {}", at("/health")),
    );
    let mut by_cluster = Manager::with_routes(routes);
    for (path, least) in [
        ("/enough", "echo: { value: 100.0 }"),
        ("/empty", "empty: { value: 1.0 }"),
        ("/empty-is-fine", "empty: { value: 0.5 }"),
        ("/unknown", "nobody: { value: 0.0 }"),
        ("/both", "echo: { value: 50.0 }, weak: { value: 34.0 }"),
    ] {
        by_cluster = own(by_cluster, path, least);
    }
    let through = filter(
        Manager::with_routes(routes),
        "health_check",
        "HealthCheck",
        &format!("pass_through_mode: true, {}", at("/through")),
    );
    let through = filter(
        through,
        "health_check",
        "HealthCheck",
        &format!("pass_through_mode: true, cache_time: 600s, {}", at("/kept")),
    );
    let weak = cluster("weak", &[ECHO, 9101, 9102])
        .replace(
            "port_value: 9101 } } } }",
            "port_value: 9101 } } }, health_status: UNHEALTHY }",
        )
        .replace(
            "port_value: 9102 } } } }",
            "port_value: 9102 } } }, health_status: UNHEALTHY }",
        );
    let mut names = Vec::new();
    for port in 10_000..10_003 {
        for name in [
            "health_check.request_total",
            "health_check.ok",
            "health_check.failed",
            "health_check.cached_response",
            "health_check.failed_cluster_not_found",
            "health_check.failed_cluster_empty",
            "health_check.failed_cluster_unhealthy",
            "health_check.degraded",
            "downstream_rq_total",
            "downstream_rq_completed",
            "downstream_rq_2xx",
            "downstream_rq_5xx",
        ] {
            names.push(format!("http.s{port}.{name}"));
        }
    }
    names.push("cluster.echo.upstream_rq_2xx".into());
    names.push("cluster.echo.upstream_rq_5xx".into());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    check_with(
        &configuration(&[by_path, by_cluster, through], &[weak]),
        |_, _| {},
        |alone| with_counters(alone, HEALTH_CASES, &names),
    );
}

const BUFFER_CASES: &[Case] = &[
    get("/", &[]),
    get("/", &[]).method("POST").body("123456789"),
    get("/", &[]).method("POST").body("1234567890"),
    get("/", &[]).method("POST").body("12345678901"),
    get("/", &[("content-type", "application/grpc")])
        .method("POST")
        .body("12345678901"),
    get("/wide", &[]).method("POST").body("12345678901"),
    get("/off", &[]).method("POST").body("12345678901"),
    get("/disabled", &[]).method("POST").body("12345678901"),
    get("/direct", &[]).method("POST").body("12345678901"),
    get("/dead", &[]).method("POST").body("1234"),
    get("/nowhere", &[])
        .method("POST")
        .body("12345678901")
        .listener(1),
];

#[test]
fn requests_wait_to_be_whole_as_in_envoy() {
    let name = "envoy.filters.http.buffer";
    let per_route = |fields: &str| for_route(name, &format!("{FILTERS}.buffer.v3.BufferPerRoute"), fields);
    let routes = format!(
        "{{ match: {{ prefix: /wide }}, {} route: {{ cluster: echo }} }},
         {{ match: {{ prefix: /off }}, {} route: {{ cluster: echo }} }},
         {{ match: {{ prefix: /disabled }}, {} route: {{ cluster: echo }} }},
         {{ match: {{ prefix: /direct }}, direct_response: {{ status: 200 }} }},
         {{ match: {{ prefix: /dead }}, route: {{ cluster: dead }} }},
         {{ match: {{ prefix: / }}, route: {{ cluster: echo }} }}",
        per_route("buffer: { max_request_bytes: 100 }"),
        per_route("disabled: true"),
        for_route(name, "envoy.config.route.v3.FilterConfig", "disabled: true"),
    );
    let limited = |manager| filter(manager, "buffer", "Buffer", "max_request_bytes: 10");
    let managers = [
        limited(Manager::with_routes(&routes)),
        limited(Manager::with_routes(
            "{ match: { prefix: /some }, route: { cluster: echo } }",
        )),
    ];
    let names = [
        "http.s10000.downstream_rq_too_large",
        "http.s10001.downstream_rq_too_large",
        "http.s10000.downstream_rq_4xx",
        "cluster.echo.upstream_rq_total",
    ];
    check_with(
        &configuration(&managers, &[]),
        |_, _| {},
        |alone| {
            let mut lines = with_counters(alone, BUFFER_CASES, &names);
            lines.extend(pieces(alone));
            lines
        },
    );
}

/// A request in chunks, the last of which comes late.
fn pieces(alone: &Alone) -> Vec<String> {
    let ask = |name: &str, chunks: &[&str]| {
        use std::io::{Read, Write};
        let mut stream = alone.connect(e2e::beside::FRONT);
        let head = format!(
            "POST / HTTP/1.1\r\nhost: a\r\nx-case: {name}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("the proxy reads");
        for chunk in chunks {
            std::thread::sleep(std::time::Duration::from_millis(100));
            let chunk = match *chunk {
                "broken" => "zz\r\n".to_owned(),
                chunk => format!("{:x}\r\n{chunk}\r\n", chunk.len()),
            };
            let _ = stream.write_all(chunk.as_bytes());
        }
        let patience = Some(std::time::Duration::from_secs(10));
        stream.set_read_timeout(patience).expect("a time");
        let mut got = Vec::new();
        // It may be cut off when not all that was sent was read.
        let _ = stream.read_to_end(&mut got);
        let got = String::from_utf8_lossy(&got);
        let lines: Vec<&str> = got
            .lines()
            .filter(|line| !line.starts_with("date:") && !line.starts_with("x-envoy-upstream-service-time"))
            .collect();
        format!("{lines:?} log {}", alone.logged(&format!("{name} ")))
    };
    vec![
        ask("fits", &["12345", "6789", ""]),
        ask("grows", &["123456", "123456", ""]),
        ask("broken", &["12345", "broken"]),
    ]
}

/// Origin and referer.
const SOURCES: &[&[(&str, &str)]] = &[
    &[],
    &[("origin", "http://a")],
    &[("origin", "https://a")],
    &[("origin", "https://a:80")],
    &[("origin", "a")],
    &[("origin", "null")],
    &[("origin", "null"), ("referer", "http://a/")],
    &[("origin", "")],
    &[("origin", "http://evil.example")],
    &[("referer", "http://a/page?q")],
    &[("referer", "http://evil.example/a")],
    &[("origin", "http://evil.example"), ("referer", "http://a/")],
    &[("origin", "http://one.example:8080")],
    &[("origin", "http://x.two.example")],
];

#[test]
fn requests_of_other_origins_are_refused_as_by_envoy() {
    let policy = format!("{FILTERS}.csrf.v3.CsrfPolicy");
    let route = |fields: &str| for_route("envoy.filters.http.csrf", &policy, fields);
    let some = "additional_origins: [{ exact: \"one.example:8080\" }, { suffix: .two.example }]";
    let routes = format!(
        "{{ match: {{ prefix: /off }}, {} route: {{ cluster: echo }} }},
         {{ match: {{ prefix: /shadow }}, {} route: {{ cluster: echo }} }},
         {{ match: {{ prefix: /more }}, {} route: {{ cluster: echo }} }},
         {{ match: {{ prefix: /direct }}, direct_response: {{ status: 200 }} }},
         {{ match: {{ prefix: / }}, route: {{ cluster: echo }} }}",
        route("filter_enabled: { default_value: { numerator: 0 } }"),
        route(
            "filter_enabled: { default_value: { numerator: 0 } }, shadow_enabled: { default_value: { numerator: 100 } }"
        ),
        route(&format!(
            "filter_enabled: {{ default_value: {{ numerator: 100 }} }}, {some}"
        )),
    );
    let manager = filter(
        Manager::with_routes(&routes),
        "csrf",
        "CsrfPolicy",
        "filter_enabled: { default_value: { numerator: 100 } }",
    );
    let mut cases = Vec::new();
    for path in ["/", "/off", "/shadow", "/more"] {
        for headers in SOURCES {
            cases.push(get(path, headers).method("POST"));
        }
    }
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"] {
        cases.push(get("/", &[("origin", "http://b")]).method(method));
    }
    cases.push(get("/direct", &[]).method("POST"));
    cases.push(Case {
        host: "a:8080",
        ..get("/", &[("origin", "http://a:8080")]).method("PUT")
    });
    let names = ["missing_source_origin", "request_invalid", "request_valid"];
    let names = names.map(|name| format!("http.s10000.csrf.{name}"));
    let names = names.each_ref().map(String::as_str);
    check_with(
        &configuration(&[manager], &[]),
        |_, _| {},
        |alone| with_counters(alone, &cases, &names),
    );
}
