//! What an upstream is told of a client that is not trusted (`use_remote_address`).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use e2e::alone::Alone;
use e2e::http::Request;
use e2e::netns::Namespace;
use e2e::proxy::Kind;

const UPSTREAM: u16 = 9001;
/// Replaces request ids; keeps them.
const LISTENERS: [(u16, bool); 2] = [(10_000, false), (10_001, true)];

#[test]
fn what_a_client_says_of_itself_is_replaced() {
    let said: [&[(&str, &str)]; 4] = [
        &[],
        &[
            ("x-forwarded-for", "1.2.3.4, 5.6.7.8"),
            ("x-forwarded-proto", "https"),
        ],
        &[
            ("x-request-id", "mine"),
            ("x-envoy-decorator-operation", "forged"),
        ],
        &[
            ("x-forwarded-for", "no address"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-envoy-external-address", "7.7.7.7"),
            ("x-envoy-internal", "true"),
            ("x-envoy-max-retries", "9"),
            ("x-envoy-downstream-service-cluster", "forged"),
            ("x-envoy-downstream-service-node", "forged"),
        ],
    ];
    let [envoy, outrigger] = [Kind::Envoy, Kind::Outrigger].map(|kind| {
        let alone = Alone::start(kind, &configuration(), |namespace, _| upstream(namespace));
        let mut seen = Vec::new();
        for (port, _) in LISTENERS {
            for headers in said {
                let request = headers
                    .iter()
                    .fold(Request::get("a", "/"), |request, (name, value)| {
                        request.header(name, value)
                    });
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                let body = alone.send(address, &request).expect("an answer").body;
                seen.push((port, headers, told(&body)));
            }
        }
        seen
    });
    for (envoy, outrigger) in envoy.iter().zip(&outrigger) {
        assert_eq!(envoy, outrigger);
    }
}

/// The header lines, sorted; a request id that was made is any.
fn told(head: &str) -> Vec<String> {
    let lines = head.lines().skip(1).filter(|line| !line.is_empty());
    let mut lines: Vec<String> = lines
        .map(|line| match line.split_once(": ") {
            Some(("x-request-id", id)) if id.len() == 36 => "x-request-id: made".to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    lines.sort();
    lines
}

/// Answers with the head that it got.
fn upstream(namespace: &Namespace) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, UPSTREAM)).expect("a free port"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let length = head.len();
            let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.write_all(&head);
        }
    });
}

fn configuration() -> String {
    let listeners = LISTENERS.map(|(port, preserves)| {
        format!(
            "  - name: \"{port}\"
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          use_remote_address: true
          preserve_external_request_id: {preserves}
          route_config:
            virtual_hosts:
            - {{ name: all, domains: [\"*\"], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: echo }} }}] }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
"
        )
    });
    format!(
        "  clusters:
  - name: echo
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: echo
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {UPSTREAM} }} }} }} }}] }}]
  listeners:\n{}",
        listeners.concat()
    )
}
