//! What becomes of a path before its route is sought, as the connection manager is told.

use std::net::{Ipv4Addr, SocketAddr};

use e2e::alone::Alone;
use e2e::http::Request;
use e2e::proxy::Kind;

/// One listener for each action; the first keeps slashes escaped.
const ACTIONS: [(u16, &str); 4] = [
    (10_000, "KEEP_UNCHANGED"),
    (10_001, "REJECT_REQUEST"),
    (10_002, "UNESCAPE_AND_REDIRECT"),
    (10_003, "UNESCAPE_AND_FORWARD"),
];

const PATHS: [&str; 8] = [
    "/plain",
    "/a%2Fb",
    "/a%2fb%5Cc?x=%2F",
    "/a%2F%2Fb",
    "/%2e%2e%2Fb",
    "/a/../b%2",
    "/a%252Fb",
    "/x%5c..%5cy",
];

#[test]
fn escaped_slashes_are_what_envoy_makes_of_them() {
    let [envoy, outrigger] = [Kind::Envoy, Kind::Outrigger].map(|kind| {
        let alone = Alone::start(kind, &configuration(), |_, _| {});
        let mut answers = Vec::new();
        for (port, action) in ACTIONS {
            for path in PATHS {
                for grpc in [false, true] {
                    answers.push(answer(&alone, port, action, path, grpc));
                }
            }
        }
        answers
    });
    for (envoy, outrigger) in envoy.iter().zip(&outrigger) {
        assert_eq!(envoy, outrigger);
    }
}

/// Everything about an answer that the path decides, with what the log says.
fn answer(alone: &Alone, port: u16, action: &str, path: &str, grpc: bool) -> String {
    let id = format!("{port}-{path}-{grpc}");
    let mut request = Request::get("a", path).header("x-request-id", &id);
    if grpc {
        request = request.header("content-type", "application/grpc");
    }
    let response = alone
        .send(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), &request)
        .expect("an answer");
    let location = response.head.value("location").unwrap_or("-");
    let grpc_status = response.head.value("grpc-status").unwrap_or("-");
    let connection = response.head.value("connection").unwrap_or("-");
    let line = alone.logged(&id);
    let status = response.status();
    format!(
        "{action} {path}: {status} location {location} grpc-status {grpc_status} connection {connection}; log {line}"
    )
}

fn configuration() -> String {
    let listeners = ACTIONS.map(|(port, action)| {
        format!(
            "  - name: \"{port}\"
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: paths
          normalize_path: true
          merge_slashes: true
          preserve_external_request_id: true
          path_with_escaped_slashes_action: {action}
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: /dev/stdout
              log_format: {{ text_format_source: {{ inline_string: \"%REQ(X-REQUEST-ID)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\\n\" }} }}
          route_config:
            virtual_hosts:
            - {{ name: all, domains: [\"*\"], routes: [{{ match: {{ prefix: / }}, direct_response: {{ status: 200 }} }}] }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
"
        )
    });
    format!("  listeners:\n{}", listeners.concat())
}
