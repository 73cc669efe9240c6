//! Local rate limits: who is refused, what clients and upstreams are told, what is counted; and that a limit is exact.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use e2e::alone::Alone;
use e2e::beside::{Case, FRONT, Manager, answers, check_with, configuration, counters, echo, for_route, get};
use e2e::http::Request;
use e2e::proxy::Kind;

const FILTER: &str = "envoy.filters.http.local_ratelimit";
const LIMIT: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
const ON: &str = "filter_enabled: { default_value: { numerator: 100 } }, filter_enforced: { default_value: { numerator: 100 } }";
/// So long that no token comes while the test runs.
const TWO: &str = "token_bucket: { max_tokens: 2, tokens_per_fill: 2, fill_interval: 86400s }";
const NONE: &str = "token_bucket: { max_tokens: 0, fill_interval: 86400s }";

/// Path, the limit of its route, and more of the route's action.
fn routes() -> Vec<(&'static str, String, &'static str)> {
    let limit = |name: &str, more: &str| format!("stat_prefix: {name}, {more}");
    let descriptors = "descriptors: [{ entries: [{ key: who, value: bob }], token_bucket: { max_tokens: 1, fill_interval: 86400s } },
        { entries: [{ key: who, value: eve }, { key: generic_key, value: g }], token_bucket: { max_tokens: 0, fill_interval: 86400s } },
        { entries: [{ key: who, value: sam }], token_bucket: { max_tokens: 0, fill_interval: 86400s }, shadow_mode: true },
        { entries: [{ key: destination_cluster, value: echo }, { key: m, value: fits }], token_bucket: { max_tokens: 1, fill_interval: 86400s } },
        { entries: [{ key: remote_address, value: 127.0.0.1 }], token_bucket: { max_tokens: 3, fill_interval: 86400s } }]";
    let large = "token_bucket: { max_tokens: 1000, fill_interval: 86400s }";
    let actions = "rate_limits: [{ actions: [{ request_headers: { header_name: x-who, descriptor_key: who } }] },
        { actions: [{ request_headers: { header_name: x-who, descriptor_key: who, skip_if_absent: true } }, { generic_key: { descriptor_value: g } }] },
        { actions: [{ destination_cluster: {} }, { header_value_match: { descriptor_key: m, descriptor_value: fits, headers: [{ name: x-match, present_match: true }] } }] }]";
    vec![
        ("/two", limit("two", &format!("{TWO}, {ON}")), ""),
        (
            "/status",
            limit("status", &format!("{NONE}, {ON}, status: {{ code: 503 }}")),
            "",
        ),
        (
            "/status-low",
            limit("low", &format!("{NONE}, {ON}, status: {{ code: 200 }}")),
            "",
        ),
        ("/off", limit("idle", NONE), ""),
        (
            "/counted",
            limit(
                "counted",
                &format!("{NONE}, filter_enabled: {{ default_value: {{ numerator: 100 }} }}"),
            ),
            "",
        ),
        (
            "/told",
            limit(
                "told",
                &format!(
                    "{NONE}, filter_enabled: {{ default_value: {{ numerator: 100 }} }}, \
                request_headers_to_add_when_not_enforced: [{{ header: {{ key: x-limited, value: \"%REQ(:PATH)%\" }} }}]"
                ),
            ),
            "",
        ),
        (
            "/headers",
            limit(
                "headers",
                &format!(
                    "{NONE}, {ON}, response_headers_to_add: [{{ header: {{ key: x-limit, value: \"%REQ(x-case)% no\" }} }}, \
                {{ header: {{ key: content-type, value: text/limit }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}]"
                ),
            ),
            "",
        ),
        (
            "/x-headers",
            limit(
                "x",
                &format!("{TWO}, {ON}, enable_x_ratelimit_headers: DRAFT_VERSION_03"),
            ),
            "",
        ),
        (
            "/x-status",
            limit(
                "x2",
                &format!(
                    "{NONE}, {ON}, enable_x_ratelimit_headers: DRAFT_VERSION_03, status: {{ code: 500 }}"
                ),
            ),
            "",
        ),
        (
            "/retry",
            limit(
                "retry",
                &format!("{NONE}, {ON}, rate_limited_as_resource_exhausted: true"),
            ),
            "",
        ),
        (
            "/connection",
            limit(
                "connection",
                &format!("{NONE}, {ON}, local_rate_limit_per_downstream_connection: true"),
            ),
            "",
        ),
        (
            "/described",
            limit(
                "described",
                &format!(
                    "{large}, {ON}, {descriptors}, {actions}, enable_x_ratelimit_headers: DRAFT_VERSION_03"
                ),
            ),
            "",
        ),
        (
            "/by-route",
            limit("route", &format!("{large}, {ON}, {descriptors}")),
            "route-actions",
        ),
        (
            "/stage",
            limit("stage", &format!("{large}, {ON}, {descriptors}, stage: 1")),
            "route-actions",
        ),
        (
            "/not-default",
            limit(
                "nd",
                &format!(
                    "{NONE}, {ON}, {descriptors}, {actions}, always_consume_default_token_bucket: false"
                ),
            ),
            "",
        ),
        (
            "/by-host",
            limit("host", &format!("{large}, {ON}, {descriptors}")),
            "",
        ),
        (
            "/not-by-host",
            limit(
                "nohost",
                &format!("{large}, {ON}, {descriptors}, vh_rate_limits: IGNORE"),
            ),
            "",
        ),
    ]
}

const ROUTE_ACTIONS: &str = "rate_limits: [{ actions: [{ request_headers: { header_name: x-who, descriptor_key: who } }] }, { stage: 1, actions: [{ remote_address: {} }] }]";

const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc")];
const BOB: &[(&str, &str)] = &[("x-who", "bob")];
const EVE: &[(&str, &str)] = &[("x-who", "eve")];
const SAM: &[(&str, &str)] = &[("x-who", "sam")];
const MATCH: &[(&str, &str)] = &[("x-match", "1")];

const CASES: &[Case] = &[
    get("/two", &[]),
    get("/two", &[]).method("POST").body("a body"),
    get("/two", &[]),
    get("/two", GRPC),
    get("/two", &[]).method("HEAD"),
    get("/two", &[]).method("POST").body("a body"),
    get("/status", &[]),
    get("/status", GRPC),
    get("/status-low", &[]),
    get("/off", &[]),
    get("/counted", &[]),
    get("/told", &[]),
    get("/headers", &[]),
    get("/headers", GRPC),
    get("/x-headers", &[]),
    get("/x-headers", &[("x-say", "x-ratelimit-limit=7")]),
    get("/x-status", &[]),
    get("/retry", &[]),
    get("/retry", GRPC),
    get("/connection", &[]),
    get("/described", &[]),
    get("/described", BOB),
    get("/described", BOB),
    get("/described", EVE),
    get("/described", SAM),
    get("/described", MATCH),
    get("/described", MATCH),
    get("/described", &[]),
    get("/by-route", BOB),
    get("/by-route", BOB),
    get("/by-route", EVE),
    get("/stage", BOB),
    get("/stage", BOB),
    get("/stage", BOB),
    get("/stage", BOB),
    get("/not-default", BOB),
    get("/not-default", BOB),
    get("/not-default", &[]),
    get("/by-host", BOB),
    get("/by-host", BOB),
    get("/not-by-host", BOB),
    get("/not-by-host", BOB),
    // The listener's own; its bucket has one token.
    get("/", &[]).listener(1),
    get("/", &[]).listener(1),
    get("/direct", &[]).listener(1),
    get("/nowhere", &[]).listener(1),
    get("/unlimited", &[]).listener(1),
    // One bucket for all routes of a virtual host.
    get("/one", &[]).listener(2),
    get("/two", &[]).listener(2),
    get("/three", &[]).listener(2),
    // Off by itself, and on for a route.
    get("/on", &[]).listener(3),
    get("/", &[]).listener(3),
];

fn configured() -> String {
    let mut by_route: Vec<String> = routes()
        .into_iter()
        .map(|(path, limit, action)| {
            let settings = for_route(FILTER, LIMIT, &limit);
            let action = if action.is_empty() { "" } else { ROUTE_ACTIONS };
            format!("{{ match: {{ prefix: {path} }}, {settings} route: {{ cluster: echo, {action} }} }}, ")
        })
        .collect();
    by_route.reverse();
    let first = Manager {
        routes: format!(
            "virtual_hosts: [{{ name: a, domains: [\"*\"], {ROUTE_ACTIONS}, routes: [{}] }}]",
            by_route.concat()
        ),
        ..Manager::default()
    };
    let one = "token_bucket: { max_tokens: 1, fill_interval: 86400s }";
    let off = for_route(FILTER, "envoy.config.route.v3.FilterConfig", "disabled: true");
    let second = Manager::with_routes(&format!(
        "{{ match: {{ path: / }}, route: {{ cluster: echo }} }}, {{ match: {{ path: /direct }}, direct_response: {{ status: 200 }} }},
         {{ match: {{ path: /unlimited }}, {off} route: {{ cluster: echo }} }}"
    ));
    let third = Manager {
        routes: format!(
            "virtual_hosts: [{{ name: a, domains: [\"*\"], {} routes: [{{ match: {{ path: /one }}, route: {{ cluster: echo }} }},
               {{ match: {{ prefix: / }}, route: {{ cluster: echo }} }}] }}]",
            for_route(FILTER, LIMIT, &format!("stat_prefix: vh, {TWO}, {ON}"))
        ),
        ..Manager::default()
    };
    let own = for_route(FILTER, LIMIT, &format!("stat_prefix: own, {NONE}, {ON}"));
    let fourth = Manager {
        filters: vec![format!(
            "{{ name: {FILTER}, disabled: true, typed_config: {{ \"@type\": type.googleapis.com/{LIMIT}, stat_prefix: disabled, {NONE}, {ON} }} }}"
        )],
        ..Manager::with_routes(&format!(
            "{{ match: {{ path: /on }}, {own} route: {{ cluster: echo }} }}, {{ match: {{ prefix: / }}, route: {{ cluster: echo }} }}"
        ))
    };
    configuration(
        &[
            first.filter(FILTER, LIMIT, "stat_prefix: none"),
            second.filter(FILTER, LIMIT, &format!("stat_prefix: listener, {one}, {ON}")),
            third.filter(FILTER, LIMIT, "stat_prefix: none"),
            fourth,
        ],
        &[],
    )
}

#[test]
fn local_rate_limits_are_envoys() {
    check_with(
        &configured(),
        |_, _| {},
        |alone| {
            let mut seen = answers(alone, CASES);
            for prefix in [
                "two",
                "off",
                "counted",
                "told",
                "described",
                "listener",
                "vh",
                "none",
            ] {
                let names = ["enabled", "enforced", "rate_limited", "ok"]
                    .map(|name| format!("{prefix}.http_local_rate_limit.{name}"));
                seen.extend(counters(alone, &names.each_ref().map(String::as_str)));
            }
            seen
        },
    );
}

/// As the traffic capture has it: one a second.
#[test]
fn one_request_a_second_is_one_whoever_asks() {
    let manager = Manager::with_routes("{ match: { prefix: / }, direct_response: { status: 200 } }");
    let bucket = "token_bucket: { max_tokens: 1, tokens_per_fill: 1, fill_interval: 1s }";
    let manager = manager.filter(FILTER, LIMIT, &format!("stat_prefix: one, {bucket}, {ON}"));
    let alone = Alone::start(
        Kind::Outrigger,
        &configuration(&[manager], &[]),
        |namespace, _| {
            let _ = echo(namespace, 9001);
        },
    );
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FRONT));
    let start = Instant::now();
    let end = start + Duration::from_millis(3500);
    let let_through: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut through = 0;
                    while Instant::now() < end {
                        let response = alone.send(address, &Request::get("a", "/")).expect("an answer");
                        through += usize::from(response.status() == 200);
                    }
                    through
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("no panic"))
            .sum()
    });
    // At 0, 1, 2 and 3 seconds from the first.
    assert_eq!(let_through, 4);
}
