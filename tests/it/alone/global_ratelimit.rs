//! Global rate limits: what the service is asked, what becomes of requests, what is told and counted.

mod service;

use e2e::beside::{Case, Manager, answers, check_with, configuration, counters, for_route, get};
use e2e::proxy::Kind;

use self::service::Asked;

const FILTER: &str = "envoy.filters.http.ratelimit";
const LIMIT: &str = "envoy.extensions.filters.http.ratelimit.v3.RateLimit";
const ROUTE: &str = "envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute";
const PORT: u16 = 9100;

/// A cluster that speaks HTTP/2.
fn http2(name: &str, port: u16) -> String {
    let options = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    format!(
        "{{ name: {name}, type: STATIC, connect_timeout: 1s, typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
           {{ \"@type\": {options}, explicit_http_config: {{ http2_protocol_options: {{}} }} }} }},
           load_assignment: {{ cluster_name: {name}, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}] }} }}"
    )
}

fn service(cluster: &str) -> String {
    format!(
        "rate_limit_service: {{ transport_api_version: V3, grpc_service: {{ envoy_grpc: {{ cluster_name: {cluster} }} }} }}"
    )
}

/// What a request says of itself, and what the service is to say.
const SAY: &str = "{ actions: [{ request_headers: { header_name: x-rls, descriptor_key: say } }] }";

/// Each in a descriptor of its own, and so that two of three may be missing.
const ACTIONS: &str = "rate_limits: [{ actions: [{ source_cluster: {} }] }, { actions: [{ masked_remote_address: {} }] },
    { actions: [{ masked_remote_address: { v4_prefix_mask_len: 9 } }] }, { actions: [{ masked_remote_address: { v4_prefix_mask_len: 0 } }] },
    { actions: [{ query_parameters: { query_parameter_name: q, descriptor_key: k } }] },
    { actions: [{ generic_key: { descriptor_value: g } }, { query_parameters: { query_parameter_name: q, descriptor_key: k, skip_if_absent: true } }] },
    { actions: [{ query_parameters: { query_parameter_name: q, descriptor_key: k, skip_if_absent: true } }] },
    { actions: [{ query_parameter_value_match: { descriptor_value: v, query_parameters: [{ name: m, string_match: { exact: v } }] } }] },
    { actions: [{ query_parameter_value_match: { descriptor_value: v, descriptor_key: k, expect_match: false,
        query_parameters: [{ name: m, string_match: { prefix: v } }, { name: q, present_match: true }] } }] },
    { actions: [{ query_parameter_value_match: { descriptor_value: v, descriptor_key: k, query_parameters: [{ name: m, string_match: { exact: v1 } }] } }] }]";

const OK: &[(&str, &str)] = &[("x-rls", "ok")];
const OVER: &[(&str, &str)] = &[("x-rls", "over")];
const OVER_GRPC: &[(&str, &str)] = &[
    ("x-rls", "over,body,headers"),
    ("content-type", "application/grpc"),
];
const OVER_ALL: &[(&str, &str)] = &[("x-rls", "over,limits,body,type,headers"), ("x-who", "client")];
const OVER_BODY: &[(&str, &str)] = &[("x-rls", "over,body,limits")];
const OK_ALL: &[(&str, &str)] = &[("x-rls", "limits,body,type,headers"), ("x-who", "client")];
const SILENCE: &[(&str, &str)] = &[("x-rls", "silence")];
const RESET: &[(&str, &str)] = &[("x-rls", "reset")];
const GARBAGE: &[(&str, &str)] = &[("x-rls", "garbage")];
const STATUS: &[(&str, &str)] = &[("x-rls", "status-14")];
const HTTP: &[(&str, &str)] = &[("x-rls", "http-503")];
const INTERNAL: &[(&str, &str)] = &[("x-rls", "over"), ("x-envoy-internal", "true")];

const CASES: &[Case] = &[
    get("/", &[]),
    get("/", OK),
    get("/", OK).method("POST").body("a body"),
    get("/", OVER),
    get("/", OVER).method("HEAD"),
    get("/", OVER_GRPC),
    get("/", OVER_ALL),
    get("/", OK_ALL),
    get("/", SILENCE),
    get("/", RESET),
    get("/", GARBAGE),
    get("/", STATUS),
    get("/", HTTP),
    get("/direct", OVER),
    get("/redirect", OVER),
    get("/nowhere", OVER),
    get("/dead", OVER),
    get("/no-cluster", OVER),
    // Those of the virtual host besides, or not.
    get("/own", OK),
    get("/own-and-host", OK),
    get("/per-route-include", OK),
    get("/per-route-ignore", OK),
    get("/per-route-own", OK),
    get("/other-stage", OK),
    get("/switch", OK),
    get("/limit", OK),
    get("/off", OVER),
    get("/actions", OK),
    get("/actions?q=a%20b&q=c", OK),
    get("/actions?%71=x", OK),
    get("/actions?m=v", OK),
    get("/actions?m=other&q", OK),
    get("/actions?q=a+b&m=v%31", OK),
    // More told, and failures are the client's.
    get("/", OVER_ALL).listener(1),
    get("/", OVER_BODY).listener(1),
    get("/", OK_ALL).listener(1),
    get("/", OVER_GRPC).listener(1),
    get("/", SILENCE).listener(1),
    get("/", GARBAGE).listener(1),
    get("/", INTERNAL).listener(1),
    // Only from outside; counted and not enforced.
    get("/", OVER_ALL).listener(2),
    get("/", INTERNAL).listener(2),
    // Nobody there.
    get("/", OK).listener(3),
    get("/", OK).listener(4),
    // Not asked for at all.
    get("/", OVER).listener(5),
    // The filter's own descriptors, its metadata, and statuses that are none.
    get("/", OVER).listener(6),
    get("/", STATUS).listener(6),
    get("/per-route-own", OK).listener(6),
];

fn routes() -> String {
    let own = "rate_limits: [{ actions: [{ generic_key: { descriptor_value: own } }] }]";
    let named = |name: &str, more: &str, action: &str| {
        format!("{{ match: {{ path: {name} }}, {more} route: {{ cluster: echo, {action} }} }}, ")
    };
    let route = |name: &str, settings: &str| named(name, &for_route(FILTER, ROUTE, settings), own);
    let off = for_route(FILTER, "envoy.config.route.v3.FilterConfig", "disabled: true");
    [
        "{ match: { path: /direct }, direct_response: { status: 200 } }, ".to_owned(),
        "{ match: { path: /redirect }, redirect: { path_redirect: /b } }, ".to_owned(),
        "{ match: { path: /dead }, route: { cluster: dead } }, ".to_owned(),
        "{ match: { path: /no-cluster }, route: { cluster_header: x-no } }, ".to_owned(),
        named("/own", "", own),
        named("/own-and-host", "", &format!("{own}, include_vh_rate_limits: true")),
        route("/per-route-include", "vh_rate_limits: INCLUDE"),
        route("/per-route-ignore", "vh_rate_limits: IGNORE, domain: other"),
        route("/per-route-own", "rate_limits: [{ actions: [{ generic_key: { descriptor_value: r, descriptor_key: k } }, { remote_address: {} }] }, { actions: [{ destination_cluster: {} }] }]"),
        named("/other-stage", "", "rate_limits: [{ stage: 1, actions: [{ remote_address: {} }] }, { stage: 2, actions: [{ generic_key: { descriptor_value: two } }] }]"),
        named("/switch", "", "rate_limits: [{ disable_key: k, actions: [{ generic_key: { descriptor_value: switched } }] }]"),
        named("/limit", "", "rate_limits: [{ limit: { rate_limit: { requests_per_unit: 5, unit: HOUR } }, actions: [{ generic_key: { descriptor_value: limited } }] }]"),
        named("/off", &off, own),
        named("/actions", "", ACTIONS),
        "{ match: { path: / }, route: { cluster: echo } }".to_owned(),
    ]
    .concat()
}

fn configured() -> String {
    let manager = |fields: &str| {
        let manager = Manager {
            routes: format!(
                "virtual_hosts: [{{ name: a, domains: [\"*\"], rate_limits: [{SAY}], routes: [{}] }}]",
                routes()
            ),
            ..Manager::default()
        };
        manager.filter(FILTER, LIMIT, &format!("domain: d, {fields}"))
    };
    let rls = service("rls");
    let none = "default_value: { numerator: 0 }";
    configuration(
        &[
            manager(&format!("timeout: 2s, {rls}")),
            manager(&format!(
                "timeout: 2s, {rls}, failure_mode_deny: true, status_on_error: {{ code: 502 }}, rate_limited_status: {{ code: 429 }}, \
                 enable_x_ratelimit_headers: DRAFT_VERSION_03, enable_retry_after_header: true, rate_limited_as_resource_exhausted: true, \
                 response_headers_to_add: [{{ header: {{ key: x-limited, value: \"%REQ(x-case)% %RESPONSE_CODE%\" }} }}], stat_prefix: second, stage: 0"
            )),
            manager(&format!(
                "timeout: 5s, {rls}, request_type: external, filter_enforced: {{ {none} }}, disable_x_envoy_ratelimited_header: true, \
                 enable_x_ratelimit_headers: DRAFT_VERSION_03, enable_retry_after_header: true"
            )),
            manager(&format!(
                "timeout: 5s, {}, failure_mode_deny: true",
                service("gone")
            )),
            manager(&format!(
                "timeout: 5s, {}, failure_mode_deny: true, failure_mode_deny_percent: {{ {none} }}",
                service("nobody")
            )),
            manager(&format!("timeout: 5s, {rls}, filter_enabled: {{ {none} }}")),
            manager(&format!(
                "timeout: 5s, rate_limited_status: {{ code: 200 }}, failure_mode_deny: true, rate_limits: [{SAY}, {{ actions: [{{ remote_address: {{}} }}] }}], \
                 rate_limit_service: {{ transport_api_version: V3, grpc_service: {{ timeout: 9s, initial_metadata: [{{ key: X-Meta, value: m }}], \
                   envoy_grpc: {{ cluster_name: rls, authority: limits, skip_envoy_headers: true }} }} }}"
            )),
        ],
        &[
            http2("rls", PORT),
            http2("gone", 1),
            "{ name: nobody, type: STATIC, connect_timeout: 1s }".to_owned(),
        ],
    )
}

#[test]
fn global_rate_limits_are_envoys() {
    let asked = [Asked::default(), Asked::default()];
    let of = |kind: Kind| &asked[usize::from(kind == Kind::Outrigger)];
    check_with(
        &configured(),
        |namespace, kind| {
            of(kind).lock().expect("no panic holds it").clear();
            service::serve(namespace, PORT, of(kind));
        },
        |alone| {
            let mut seen = answers(alone, CASES);
            seen.extend(of(alone.kind).lock().expect("no panic holds it").iter().cloned());
            let counted = ["ok", "error", "over_limit", "failure_mode_allowed"];
            let named = |prefix: &str| counted.map(|name| format!("cluster.echo.ratelimit.{prefix}{name}"));
            let names = [named(""), named("second.")].concat();
            seen.extend(counters(
                alone,
                &names.iter().map(String::as_str).collect::<Vec<_>>(),
            ));
            let more = ["upstream_rq_429", "upstream_rq_200", "upstream_rq_503"]
                .map(|name| format!("cluster.echo.{name}"));
            seen.extend(counters(alone, &more.each_ref().map(String::as_str)));
            let more = [
                "upstream_rq_total",
                "upstream_rq_200",
                "upstream_rq_503",
                "upstream_rq_504",
                "upstream_rq_timeout",
                "upstream_rq_rx_reset",
            ]
            .map(|name| format!("cluster.rls.{name}"));
            seen.extend(counters(alone, &more.each_ref().map(String::as_str)));
            seen.extend(counters(
                alone,
                &[
                    "cluster.nobody.upstream_cx_none_healthy",
                    "cluster.gone.upstream_rq_503",
                ],
            ));
            seen
        },
    );
}
