//! CONNECT in HTTP/1 and HTTP/2: ended here or passed on, allowed or not. What the client gets, what the upstream gets, what is logged.

mod cases;
mod client;
pub(super) mod upstream;

use std::sync::Arc;
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::{check_with, cluster};

use self::cases::{CASES, Case};
use self::upstream::Got;

/// Answers in HTTP/1, or echoes what is no HTTP.
pub(super) const RAW: u16 = 9101;
/// The same in HTTP/2.
pub(super) const HTTP2: u16 = 9102;
/// CONNECT is allowed unless a route says otherwise.
const ALLOWED: u16 = 10_000;
/// The other way round.
const REFUSED: u16 = 10_001;
/// The port of a host goes before its virtual host is sought.
const PORT_GOES: u16 = 10_002;
/// The same for the port of this listener.
const OWN_PORT_GOES: u16 = 10_003;

#[test]
fn connect_is_answered_as_envoy_answers_it() {
    let got = Arc::new(Got::default());
    check_with(
        &configuration(),
        |namespace, _| {
            got.clear();
            upstream::start(namespace, &got);
        },
        |alone| observe(alone, &got),
    );
}

#[test]
fn cases_have_names_of_their_own() {
    let mut names: Vec<_> = CASES.iter().map(|case| case.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), CASES.len());
}

/// A line a case.
fn observe(alone: &Alone, got: &Got) -> Vec<String> {
    let answers: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = CASES
            .iter()
            .map(|case| scope.spawn(move || client::exchange(alone, case)))
            .collect();
        running
            .into_iter()
            .map(|case| case.join().expect("a case"))
            .collect()
    });
    // The last connections are being closed.
    std::thread::sleep(Duration::from_millis(500));
    let line = |(case, answer): (&Case, String)| {
        let log = match case.is_logged {
            true => alone.logged(&format!("case-{} ", case.name)),
            false => String::new(),
        };
        format!(
            "{}: {answer}\n  upstream {}\n  log {log}",
            case.name,
            got.of(case.name)
        )
    };
    CASES.iter().zip(answers).map(line).collect()
}

/// Name of a virtual host, which takes `name:80`, and its route.
const HOSTS: &[(&str, &str)] = &[
    (
        "ends",
        "{ match: { connect_matcher: {} }, route: { cluster: raw, timeout: 1s, upgrade_configs: [{ upgrade_type: CONNECT, connect_config: {} }] } }",
    ),
    (
        "passes",
        "{ match: { connect_matcher: {} }, route: { cluster: raw, timeout: 1s, upgrade_configs: [{ upgrade_type: CONNECT }] } }",
    ),
    (
        "passes2",
        "{ match: { connect_matcher: {} }, route: { cluster: http2, timeout: 1s, upgrade_configs: [{ upgrade_type: connect }] } }",
    ),
    (
        "inherits",
        "{ match: { connect_matcher: {} }, route: { cluster: raw, timeout: 1s } }",
    ),
    (
        "config-alone",
        "{ match: { connect_matcher: {} }, route: { cluster: raw, upgrade_configs: [{ upgrade_type: CONNECT, enabled: false, connect_config: {} }] } }",
    ),
    (
        "disabled",
        "{ match: { connect_matcher: {} }, route: { cluster: raw, upgrade_configs: [{ upgrade_type: CONNECT, enabled: false }] } }",
    ),
    (
        "dead",
        "{ match: { connect_matcher: {} }, route: { cluster: dead, upgrade_configs: [{ upgrade_type: CONNECT, connect_config: {} }] } }",
    ),
    (
        "dead-passes",
        "{ match: { connect_matcher: {} }, route: { cluster: dead } }",
    ),
    (
        "empty",
        "{ match: { connect_matcher: {} }, route: { cluster: empty, upgrade_configs: [{ upgrade_type: CONNECT, connect_config: {} }] } }",
    ),
    (
        "unknown",
        "{ match: { connect_matcher: {} }, route: { cluster_header: x-none, upgrade_configs: [{ upgrade_type: CONNECT, connect_config: {} }] } }",
    ),
    ("prefix", "{ match: { prefix: / }, route: { cluster: raw } }"),
    (
        "later",
        "{ match: { safe_regex: { regex: \".*\" } }, route: { cluster: raw } }, { match: { connect_matcher: {}, headers: [{ name: x-no, present_match: true }] }, route: { cluster: empty } }, { match: { connect_matcher: {} }, route: { cluster: raw, timeout: 1s, upgrade_configs: [{ upgrade_type: CONNECT, connect_config: {} }] } }",
    ),
    (
        "direct",
        "{ match: { connect_matcher: {} }, direct_response: { status: 418, body: { inline_string: told } } }",
    ),
    (
        "moved",
        "{ match: { connect_matcher: {} }, redirect: { host_redirect: other } }",
    ),
    (
        "posts",
        "{ match: { prefix: / }, route: { cluster: raw, timeout: 1s, upgrade_configs: [{ upgrade_type: CONNECT, connect_config: { allow_post: true } }] } }, { match: { connect_matcher: {} }, route: { cluster: raw, timeout: 1s, upgrade_configs: [{ upgrade_type: CONNECT, connect_config: { allow_post: true } }] } }",
    ),
    (
        "no-posts",
        "{ match: { prefix: / }, route: { cluster: raw, timeout: 1s, upgrade_configs: [{ upgrade_type: CONNECT, connect_config: {} }] } }",
    ),
    (
        "changes",
        "{ match: { connect_matcher: {} }, request_headers_to_add: [{ header: { key: x-to, value: \"%REQ(:AUTHORITY)%\" } }], response_headers_to_add: [{ header: { key: x-back, value: \"1\" } }], route: { cluster: raw, timeout: 1s, host_rewrite_literal: \"other:81\" } }",
    ),
    (
        "shares",
        "{ match: { connect_matcher: {} }, route: { timeout: 1s, weighted_clusters: { clusters: [{ name: raw, weight: 1, host_rewrite_literal: other }] } } }",
    ),
    (
        "renames",
        "{ match: { connect_matcher: {} }, route: { cluster: raw, timeout: 1s, host_rewrite_literal: other } }",
    ),
];

fn configuration() -> String {
    let hosts = HOSTS.iter().map(|(name, routes)| {
        format!("{{ name: {name}, domains: [\"{name}:80\", {name}], routes: [{routes}] }}, ")
    });
    let routes = format!("virtual_hosts: [{}]", hosts.collect::<String>());
    let manager = |settings: &str| e2e::beside::Manager {
        routes: routes.clone(),
        settings: format!("{settings} http2_protocol_options: {{ allow_connect: true }}, "),
        ..e2e::beside::Manager::default()
    };
    let options = "typed_extension_protocol_options: { envoy.extensions.upstreams.http.v3.HttpProtocolOptions: { \"@type\": \
        type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: { http2_protocol_options: { allow_connect: true } } } }, load_assignment";
    let http2 = cluster("http2", &[HTTP2]).replace("load_assignment", options);
    e2e::beside::configuration(
        &[
            manager("upgrade_configs: [{ upgrade_type: CONNECT }],"),
            manager(""),
            manager("upgrade_configs: [{ upgrade_type: CONNECT }], strip_any_host_port: true,"),
            manager("upgrade_configs: [{ upgrade_type: CONNECT }], strip_matching_host_port: true,"),
        ],
        &[cluster("raw", &[RAW]), http2],
    )
}
