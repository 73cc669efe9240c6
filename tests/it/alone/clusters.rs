//! Which host gets what, and what a share of a route adds to the response.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use e2e::alone::Alone;
use e2e::http::Request;
use e2e::netns::Namespace;
use e2e::proxy::Kind;

/// Each answers with its own number.
const HOSTS: [u16; 3] = [9001, 9002, 9003];
const TCP: u16 = 10_000;
const HTTP: u16 = 10_001;

#[test]
fn tcp_connections_take_turns_over_all_hosts() {
    for kind in [Kind::Envoy, Kind::Outrigger] {
        let alone = start(kind);
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..30 {
            let answer = alone.namespace.run(|| {
                let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, TCP)).expect("the proxy listens");
                stream
                    .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                    .expect("a connection");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).expect("an answer");
                answer
            });
            let host = answer.rsplit("\r\n").next().unwrap_or_default().to_owned();
            *counts.entry(host).or_default() += 1;
        }
        // Two workers of Envoy take turns each on its own, from a random begin: 10 each, one more or less a worker.
        let fair = counts.values().all(|count| (8..=12).contains(count));
        assert!(fair && counts.len() == HOSTS.len(), "{kind:?}: {counts:?}");
    }
}

#[test]
fn a_share_of_a_route_changes_the_response_before_the_route_does() {
    for kind in [Kind::Envoy, Kind::Outrigger] {
        let alone = start(kind);
        let response = alone
            .send(
                SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP)),
                &Request::get("a", "/"),
            )
            .expect("an answer");
        let values: Vec<&str> = response
            .head
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("x-from"))
            .map(|(_, value)| value.as_str())
            .collect();
        let joined = values.join(",");
        assert_eq!(joined, "share,route,host,table", "{kind:?}");
        let kept = response
            .head
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("x-number"));
        assert!(!kept, "{kind:?}: the share removes x-number");
    }
}

fn start(kind: Kind) -> Alone {
    Alone::start(kind, &configuration(), |namespace, _| {
        HOSTS.iter().for_each(|port| host(namespace, *port))
    })
}

fn host(namespace: &Namespace, port: u16) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = [0; 1024];
            let _ = stream.read(&mut head);
            let answer = format!(
                "HTTP/1.1 200 OK\r\nx-number: {port}\r\nconnection: close\r\ncontent-length: 4\r\n\r\n{port}"
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}

fn configuration() -> String {
    let endpoints: String = HOSTS
        .iter()
        .map(|port| {
            format!(
                "        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}\n"
            )
        })
        .collect();
    format!(
        r#"  clusters:
  - name: all
    # Addresses, so nothing is to be resolved.
    type: STRICT_DNS
    connect_timeout: 1s
    lb_policy: ROUND_ROBIN
    load_assignment:
      cluster_name: all
      endpoints:
      - lb_endpoints:
{endpoints}  listeners:
  - name: tcp
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {TCP} }} }}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: all
  - name: http
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {HTTP} }} }}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            name: r
            response_headers_to_add: [{{ header: {{ key: x-from, value: table }} }}]
            virtual_hosts:
            - name: v
              domains: ["*"]
              response_headers_to_add: [{{ header: {{ key: x-from, value: host }} }}]
              routes:
              - match: {{ prefix: / }}
                response_headers_to_add: [{{ header: {{ key: x-from, value: route }} }}]
                route:
                  weighted_clusters:
                    clusters:
                    - name: all
                      weight: 1
                      response_headers_to_add: [{{ header: {{ key: x-from, value: share }} }}]
                      response_headers_to_remove: [x-number]
"#
    )
}
