//! Redirects of an upstream that the proxy follows itself.

use e2e::alone::Alone;
use e2e::beside::{Case, Manager, answers, check_with, configuration, counters, get};
use e2e::mesh::PATIENCE;
use e2e::process::until;

const PREDICATES: &str = "type.googleapis.com/envoy.extensions.internal_redirect";
/// What the echo is told is for one answer: the next gets what the answer brings.
const COPIED: &str = "response_headers_to_copy: [x-status, X-Say, x-brought]";

/// Path, name and policy; `None`: redirects are the client's.
fn routes() -> Vec<(&'static str, String)> {
    let predicate = |name: &str, fields: &str| {
        let file = name.to_ascii_lowercase();
        let folder = match file.as_str() {
            "allowlistedroutes" => "allow_listed_routes",
            "previousroutes" => "previous_routes",
            _ => "safe_cross_scheme",
        };
        format!(
            "{{ name: p, typed_config: {{ \"@type\": {PREDICATES}.{folder}.v3.{name}Config, {fields} }} }}"
        )
    };
    let listed = predicate("AllowListedRoutes", "allowed_route_names: [r-once, r-listed]");
    let new = predicate("PreviousRoutes", "");
    let safe = predicate("SafeCrossScheme", "");
    let codes = "redirect_response_codes: [301, 303, 307, 308]";
    vec![
        ("/once", format!("internal_redirect_policy: {{ {COPIED} }}")),
        ("/keeps", "internal_redirect_policy: {}".into()),
        (
            "/codes",
            format!("internal_redirect_policy: {{ {codes}, {COPIED} }}"),
        ),
        (
            "/thrice",
            format!("internal_redirect_policy: {{ max_internal_redirects: 3, {COPIED} }}"),
        ),
        (
            "/never",
            format!("internal_redirect_policy: {{ max_internal_redirects: 0, {COPIED} }}"),
        ),
        (
            "/listed",
            format!("internal_redirect_policy: {{ predicates: [{listed}], {COPIED} }}"),
        ),
        (
            "/new",
            format!(
                "internal_redirect_policy: {{ max_internal_redirects: 5, predicates: [{new}], {COPIED} }}"
            ),
        ),
        (
            "/scheme",
            format!("internal_redirect_policy: {{ allow_cross_scheme_redirect: true, {COPIED} }}"),
        ),
        (
            "/safe",
            format!(
                "internal_redirect_policy: {{ allow_cross_scheme_redirect: true, predicates: [{safe}], {COPIED} }}"
            ),
        ),
        (
            "/rewrites",
            format!(
                "prefix_rewrite: /rewritten, host_rewrite_literal: other, internal_redirect_policy: {{ {COPIED} }}"
            ),
        ),
        (
            "/old",
            "internal_redirect_action: HANDLE_INTERNAL_REDIRECT, max_internal_redirects: 2".into(),
        ),
        ("/plain", String::new()),
    ]
}

/// What the connection managers do about paths.
const PATHS: [&str; 4] = [
    "",
    "normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: REJECT_REQUEST, ",
    "normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT, ",
    "normalize_path: true, path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD, ",
];

fn resources() -> String {
    let routes = routes().into_iter().map(|(path, more)| {
        let name = format!("r-{}", path.trim_start_matches('/'));
        format!(
            "{{ name: {name}, match: {{ prefix: {path} }}, route: {{ cluster: echo, {more} }},
               request_headers_to_add: [{{ header: {{ key: x-passed, value: {name} }} }}] }}, "
        )
    });
    let manager = Manager {
        routes: format!(
            "virtual_hosts: [{{ name: all, domains: [\"*\"], routes: [{} {{ name: r-direct, match: {{ prefix: /direct }}, direct_response: {{ status: 418 }} }}],
               include_request_attempt_count: true }}]",
            routes.collect::<String>()
        ),
        ..Manager::default()
    };
    let managers = PATHS.map(|settings| Manager {
        settings: settings.into(),
        ..manager.clone()
    });
    configuration(&managers, &[])
}

const TO_PLAIN: (&str, &str) = ("x-say", "location=http://b.example:81/plain/x?q=1");
const FOUND: (&str, &str) = ("x-status", "302");

const CASES: &[Case] = &[
    get("/once/a?b=c", &[FOUND, TO_PLAIN]),
    get("/once", &[FOUND, TO_PLAIN]).method("POST").body("sent again"),
    get("/once", &[FOUND, TO_PLAIN]).method("HEAD"),
    get(
        "/once",
        &[
            FOUND,
            TO_PLAIN,
            ("x-brought", "mine"),
            ("x-say", "x-brought=theirs"),
            ("x-say", "x-brought=too"),
        ],
    ),
    get("/once", &[FOUND, TO_PLAIN, ("x-brought", "mine")]),
    get("/once", &[("x-status", "301"), TO_PLAIN]),
    get("/once", &[TO_PLAIN]),
    get("/once", &[FOUND]),
    get("/once", &[FOUND, ("x-say", "location=")]),
    get("/once", &[FOUND, ("x-say", "location=/plain/relative")]),
    get("/once", &[FOUND, ("x-say", "location=//b/plain")]),
    get("/once", &[FOUND, ("x-say", "location=http://b/nowhere")]),
    get("/once", &[FOUND, ("x-say", "location=http://b")]),
    get("/once", &[FOUND, ("x-say", "location=http://b?q")]),
    get("/once", &[FOUND, ("x-say", "location=http://b/plain#part")]),
    get("/once", &[FOUND, ("x-say", "location=http://user:word@b/plain")]),
    get("/once", &[FOUND, ("x-say", "location=http://[::1]:80/plain")]),
    get("/once", &[FOUND, ("x-say", "location=http://b/direct")]),
    get("/once", &[FOUND, ("x-say", "location=https://b/plain")]),
    get("/once", &[FOUND, ("x-say", "location=HTTP://b/plain")]),
    get(
        "/once",
        &[
            FOUND,
            ("x-say", "location=http://b/once/2"),
            ("x-say", "x-status=302"),
            ("x-say", "x-say=location=http://c/plain"),
        ],
    ),
    get("/once", &[FOUND, ("x-say", "location=http://b/rewrites/2")]),
    get("/keeps", &[FOUND, TO_PLAIN]),
    get("/codes", &[("x-status", "301"), TO_PLAIN])
        .method("POST")
        .body("b"),
    get("/codes", &[("x-status", "303"), TO_PLAIN])
        .method("POST")
        .body("b"),
    get("/codes", &[("x-status", "303"), TO_PLAIN]).method("PUT"),
    get("/codes", &[("x-status", "303"), TO_PLAIN]).method("HEAD"),
    get("/codes", &[("x-status", "307"), TO_PLAIN])
        .method("POST")
        .body("b"),
    get("/codes", &[("x-status", "308"), TO_PLAIN]),
    get("/codes", &[FOUND, TO_PLAIN]),
    get(
        "/thrice",
        &[
            FOUND,
            ("x-say", "location=http://b/thrice/2"),
            ("x-say", "x-status=302"),
            ("x-say", "x-say=location=http://c/plain"),
        ],
    )
    .method("POST")
    .body("twice"),
    get("/never", &[FOUND, TO_PLAIN]),
    get("/listed", &[FOUND, TO_PLAIN]),
    get("/listed", &[FOUND, ("x-say", "location=http://b/once")]),
    get("/new", &[FOUND, TO_PLAIN]),
    get(
        "/new",
        &[
            FOUND,
            ("x-say", "location=http://b/new/2"),
            ("x-say", "x-status=302"),
            ("x-say", "x-say=location=http://c/new/3"),
        ],
    ),
    get("/scheme", &[FOUND, ("x-say", "location=https://b/plain")]),
    get("/safe", &[FOUND, ("x-say", "location=https://b/plain")]),
    get("/safe", &[FOUND, TO_PLAIN]),
    get(
        "/safe",
        &[
            FOUND,
            ("x-say", "location=https://b/plain"),
            ("x-forwarded-proto", "https"),
        ],
    ),
    get("/rewrites/a", &[FOUND, TO_PLAIN]),
    get("/old", &[FOUND, TO_PLAIN]),
    get("/plain", &[FOUND, TO_PLAIN]),
];

/// Where redirects lead whose path is not in order; for each of [`PATHS`].
const DISORDERLY: &[Case] = &[
    get(
        "/once",
        &[FOUND, ("x-say", "location=http://b/once/../plain/x?a/../b")],
    ),
    get(
        "/once",
        &[FOUND, ("x-say", "location=http://b/once/%2e%2e/plain")],
    ),
    get("/once", &[FOUND, ("x-say", "location=http://b/plain//y")]),
    get(
        "/once",
        &[FOUND, ("x-say", "location=http://b/once%2F..%2Fplain")],
    ),
    get("/once", &[FOUND, ("x-say", "location=http://b/plain%5cz")]),
    get("/once", &[FOUND, ("x-say", "location=http://b/nowhere/../plain")]),
    get("/once", &[FOUND, ("x-say", "location=http://b/plain/../nowhere")]),
    get("/listed", &[FOUND, ("x-say", "location=http://b/once/../plain")]),
    get("/listed", &[FOUND, ("x-say", "location=http://b/plain/../once")]),
    get("/plain%2Fx", &[]),
];

/// Streams of the cases together.
const STREAMS: usize = 139;

fn steps(alone: &Alone) -> Vec<String> {
    let disorderly = (0..).zip(PATHS).flat_map(|(listener, _)| {
        let cases = DISORDERLY.iter().cloned();
        cases.map(move |case| case.listener(listener))
    });
    let cases: Vec<Case> = CASES.iter().cloned().chain(disorderly).collect();
    let mut lines = answers(alone, &cases);
    let log = until("all streams in the log", PATIENCE, || {
        let log = alone.access_log();
        let streams = log.lines().filter(|line| line.starts_with("case"));
        let streams: Vec<String> = streams.map(str::to_owned).collect();
        (streams.len() >= STREAMS).then_some(streams)
    });
    let mut log = log;
    // Those of a case are in order.
    log.sort_by_key(|line| line.split(' ').next().map(str::to_owned));
    lines.extend(log);
    lines.extend(counters(
        alone,
        &[
            "cluster.echo.upstream_internal_redirect_succeeded_total",
            "cluster.echo.upstream_internal_redirect_failed_total",
            "cluster.echo.upstream_rq_total",
            "cluster.echo.upstream_rq_2xx",
            "cluster.echo.upstream_rq_3xx",
            "cluster.echo.upstream_rq_completed",
            "http.s10000.passthrough_internal_redirect_bad_location",
            "http.s10000.passthrough_internal_redirect_unsafe_scheme",
            "http.s10000.passthrough_internal_redirect_too_many_redirects",
            "http.s10000.passthrough_internal_redirect_no_route",
            "http.s10000.passthrough_internal_redirect_predicate",
            "http.s10000.downstream_rq_total",
            "http.s10000.downstream_rq_completed",
            "http.s10000.downstream_rq_2xx",
            "http.s10000.downstream_rq_3xx",
            "http.s10000.downstream_rq_active",
            "http.s10000.rq_total",
        ],
    ));
    lines
}

#[test]
fn redirects_of_an_upstream_are_followed_as_by_envoy() {
    check_with(&resources(), |_, _| {}, steps);
}
