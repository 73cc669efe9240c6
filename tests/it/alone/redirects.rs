//! Where clients are sent, and what becomes of a path and a host on their way up.

use std::net::{Ipv4Addr, SocketAddr};

use e2e::alone::Alone;
use e2e::http::Request;
use e2e::proxy::Kind;

const FRONT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10_000);

/// Prefix and what is done, as Envoy's YAML has it.
const ROUTES: [(&str, &str); 14] = [
    ("/https/", "redirect: { https_redirect: true }"),
    (
        "/scheme/",
        "redirect: { scheme_redirect: ftp, response_code: FOUND }",
    ),
    (
        "/host/",
        "redirect: { host_redirect: other.example, response_code: SEE_OTHER }",
    ),
    (
        "/port/",
        "redirect: { port_redirect: 8443, response_code: TEMPORARY_REDIRECT }",
    ),
    (
        "/path/",
        "redirect: { path_redirect: /new, response_code: PERMANENT_REDIRECT }",
    ),
    (
        "/query/",
        "redirect: { path_redirect: \"/new?own=1\", strip_query: true }",
    ),
    ("/strip/", "redirect: { host_redirect: b, strip_query: true }"),
    ("/prefix/", "redirect: { prefix_rewrite: /new/ }"),
    (
        "/regex/",
        "redirect: { regex_rewrite: { pattern: { regex: \"([0-9]+)/([a-z]+)\" }, substitution: \"\\\\2-\\\\1\" } }",
    ),
    (
        "/created/",
        "direct_response: { status: 201, body: { inline_string: made } }",
    ),
    ("/moved/", "direct_response: { status: 301 }"),
    (
        "/up/regex/",
        "route: { cluster: self, regex_rewrite: { pattern: { regex: \"/items/([0-9]+)\" }, substitution: \"/i/\\\\1\" } }",
    ),
    ("/up/prefix/", "route: { cluster: self, prefix_rewrite: \"/\" }"),
    (
        "/up/share/",
        "route: { weighted_clusters: { clusters: [{ name: self, weight: 1, host_rewrite_literal: share.example }] } }",
    ),
];

/// What is asked for: authority and the rest of the path.
const REQUESTS: [(&str, &str); 5] = [
    ("a", ""),
    ("a:80", "x?q=1"),
    ("a:8080", "42/abc?z=42/abc"),
    ("[::1]:80", "items/7?p=/items/8"),
    ("[::1]", "$1"),
];

#[test]
fn redirects_and_rewrites_are_what_envoy_makes_of_them() {
    let [envoy, outrigger] = [Kind::Envoy, Kind::Outrigger].map(|kind| {
        let alone = Alone::start(kind, &configuration(), |_, _| {});
        let mut answers = Vec::new();
        for (prefix, _) in ROUTES {
            for (number, (authority, rest)) in REQUESTS.iter().enumerate() {
                answers.push(answer(&alone, prefix, number, authority, rest));
            }
        }
        answers
    });
    for (envoy, outrigger) in envoy.iter().zip(&outrigger) {
        assert_eq!(envoy, outrigger);
    }
}

/// Status, headers and body that the route decides, and what the log of whoever answered says.
fn answer(alone: &Alone, prefix: &str, number: usize, authority: &str, rest: &str) -> String {
    let id = format!("{}{number}", prefix.replace('/', "."));
    let path = format!("{prefix}{rest}");
    let request = Request::get(authority, &path).header("x-request-id", &id);
    let response = alone.send(FRONT, &request).expect("an answer");
    let location = response.head.value("location").unwrap_or("-");
    let status = response.status();
    let line = alone.logged(&id);
    format!("{authority}{path}: {status} location {location}; log {line}")
}

fn configuration() -> String {
    let routes = ROUTES
        .map(|(prefix, action)| format!("              - {{ match: {{ prefix: {prefix} }}, {action} }}\n"));
    let up = "              - { match: { prefix: / }, direct_response: { status: 200 } }\n";
    // Requests that go up are logged above only, the others here.
    let front = listener(
        10_000,
        &routes.concat(),
        "filter: { status_code_filter: { comparison: { op: NE, value: { default_value: 200, runtime_key: none } } } },",
    );
    let above = listener(10_001, up, "");
    format!(
        "  listeners:\n{front}{above}  clusters:
  - name: self
    type: STATIC
    load_assignment:
      cluster_name: self
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 10001 }} }} }} }}] }}]
"
    )
}

fn listener(port: u16, routes: &str, filter: &str) -> String {
    format!(
        "  - name: \"{port}\"
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: redirects
          preserve_external_request_id: true
          access_log:
          - {{ name: envoy.access_loggers.file, {filter} typed_config: {{
              \"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/stdout,
              log_format: {{ text_format_source: {{ inline_string: \"%REQ(X-REQUEST-ID)% %REQ(:AUTHORITY)% %REQ(:PATH)% %REQ(X-ENVOY-ORIGINAL-PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_SENT%\\n\" }} }} }} }}
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes:
{routes}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
"
    )
}
