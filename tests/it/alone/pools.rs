//! Pools of upstream connections: how many there may be, and when their connections are used no more.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::{FRONT, Manager, check_with, cluster, configuration, counters};
use e2e::netns::Namespace;
use e2e::process::until;
use e2e::proxy::Kind;

const KEEPERS: [u16; 3] = [9011, 9012, 9013];

/// One connection, on which several requests go, so that one worker has them.
struct Client(TcpStream);

impl Client {
    fn of(alone: &Alone) -> Self {
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, FRONT)).expect("the proxy listens");
        let stream = alone.namespace.run(connect);
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a socket");
        Self(stream)
    }

    /// Status and body.
    fn ask(&mut self, path: &str, headers: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
        self.0.write_all(request.as_bytes()).expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.and_then(|length| length.parse().ok()).unwrap_or(0)];
        self.0.read_exact(&mut body).expect("a body");
        let status = head.split(' ').nth(1).unwrap_or_default();
        format!("{status} {}", String::from_utf8_lossy(&body))
    }
}

/// Answers each request with its port, and keeps the connection. Counts connections.
fn keeper(namespace: &Namespace, port: u16, connections: &Arc<AtomicUsize>) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
    let connections = connections.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            connections.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || keep(stream, port));
        }
    });
}

fn keep(mut stream: TcpStream, port: u16) {
    let mut head = Vec::new();
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        head.extend_from_slice(&bytes[..count]);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n{port}");
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

#[test]
fn there_are_no_more_pools_than_allowed() {
    let hash = "hash_policy: [{ header: { header_name: x-key } }]";
    let routes = format!(
        "{{ match: {{ prefix: /one }}, route: {{ cluster: one, {hash} }} }},
         {{ match: {{ prefix: /high }}, route: {{ cluster: one, priority: HIGH, {hash} }} }},
         {{ match: {{ prefix: /none }}, route: {{ cluster: none, retry_policy: {{ retry_on: \"5xx,connect-failure\" }} }} }},
         {{ match: {{ prefix: /free }}, route: {{ cluster: free, {hash} }} }}"
    );
    let limited = |name: &str, thresholds: &str| {
        let more = format!("{{ lb_policy: RING_HASH, circuit_breakers: {{ thresholds: [{thresholds}] }}, ");
        cluster(name, &KEEPERS).replacen("{ ", &more, 1)
    };
    let clusters = [
        limited("one", "{ max_connection_pools: 1, track_remaining: true }"),
        limited("none", "{ max_connection_pools: 0 }"),
        limited("free", "{ track_remaining: true }"),
    ];
    let resources = configuration(&[Manager::with_routes(&routes)], &clusters);
    let connections = Arc::default();
    check_with(
        &resources,
        |namespace, _| {
            KEEPERS
                .into_iter()
                .for_each(|port| keeper(namespace, port, &connections))
        },
        |alone| {
            let mut client = Client::of(alone);
            let mut lines = Vec::new();
            for path in ["/one", "/high", "/free", "/none"] {
                for key in ["a", "b", "c", "d", "e", "a"] {
                    let answer = client.ask(path, &format!("x-key: {key}\r\n"));
                    lines.push(format!("{path} {key}: {answer}"));
                }
            }
            for cluster in ["one", "none", "free"] {
                let names = [
                    "upstream_cx_pool_overflow",
                    "upstream_cx_none_healthy",
                    "upstream_rq_retry",
                    "upstream_rq_503",
                    "circuit_breakers.default.cx_pool_open",
                    "circuit_breakers.default.remaining_cx_pools",
                    "circuit_breakers.high.cx_pool_open",
                ];
                let names = names.map(|name| format!("cluster.{cluster}.{name}"));
                lines.extend(counters(alone, &names.each_ref().map(String::as_str)));
            }
            lines
        },
    );
}

/// The first request makes connections for those to come; later ones find them.
#[test]
fn connections_are_made_ahead() {
    const RATIOS: [&str; 5] = ["1.0", "1.2", "1.5", "2.0", "3.0"];
    let clusters = RATIOS.map(|ratio| {
        let more = format!("{{ preconnect_policy: {{ per_upstream_preconnect_ratio: {ratio} }}, ");
        cluster(&format!("ratio-{ratio}"), &KEEPERS[..1]).replacen("{ ", &more, 1)
    });
    let routes = RATIOS
        .map(|ratio| format!("{{ match: {{ prefix: /{ratio} }}, route: {{ cluster: ratio-{ratio} }} }}, "));
    let resources = configuration(&[Manager::with_routes(&routes.concat())], &clusters);
    let connections = Arc::default();
    check_with(
        &resources,
        |namespace, _| keeper(namespace, KEEPERS[0], &connections),
        |alone| {
            let mut client = Client::of(alone);
            let names = RATIOS.map(|ratio| format!("cluster.ratio-{ratio}.upstream_cx_total"));
            let names = names.each_ref().map(String::as_str);
            let mut lines = Vec::new();
            for _ in 0..2 {
                lines.extend(RATIOS.map(|ratio| client.ask(&format!("/{ratio}"), "")));
                // What is made ahead is nobody's answer.
                std::thread::sleep(Duration::from_millis(200));
                lines.extend(counters(alone, &names));
            }
            lines
        },
    );
}

/// A second host, which gets no requests, makes connections to the first be closed; without the field they stay.
#[test]
fn connections_are_closed_when_hosts_come_and_go() {
    for kind in [Kind::Envoy, Kind::Outrigger] {
        for (field, expected) in [("false", [1, 1, 1]), ("true", [1, 2, 3])] {
            let folder = e2e::tools::open_folder("outrigger-e2e-hosts-");
            let path = folder.path().join("endpoints.yaml");
            let write = |more: &str| {
                let new = folder.path().join("new");
                fs::write(&new, assignment(more)).expect("our folder");
                fs::rename(&new, &path).expect("our folder");
            };
            write("");
            let changing = format!(
                "{{ name: changing, type: EDS, connect_timeout: 1s, common_lb_config: {{ close_connections_on_host_set_change: {field} }},
                   eds_cluster_config: {{ eds_config: {{ resource_api_version: V3, path_config_source: {{ path: {:?}, watched_directory: {{ path: {:?} }} }} }} }} }}",
                path.to_str().expect("a path"),
                folder.path().to_str().expect("a path"),
            );
            let routes = "{ match: { prefix: / }, route: { cluster: changing } }";
            let resources = configuration(&[Manager::with_routes(routes)], &[changing]);
            let connections = Arc::default();
            let alone = Alone::start(kind, &resources, |namespace, _| {
                keeper(namespace, KEEPERS[0], &connections);
            });
            let mut client = Client::of(&alone);
            let mut counts = Vec::new();
            for (more, members) in [("", 1), (SECOND, 2), ("", 1)] {
                write(more);
                until("the hosts change", Duration::from_secs(5), || {
                    let shown = counters(&alone, &["cluster.changing.membership_total"]);
                    shown[0].ends_with(&format!(": {members}")).then_some(())
                });
                // Workers hear of it a moment later.
                std::thread::sleep(Duration::from_millis(100));
                for _ in 0..2 {
                    assert_eq!(client.ask("/", ""), format!("200 {}", KEEPERS[0]), "{kind:?}");
                }
                counts.push(connections.load(Ordering::Relaxed));
            }
            assert_eq!(counts, expected, "{kind:?} {field}");
        }
    }
}

const SECOND: &str = ", { health_status: UNHEALTHY, endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 9012 } } } }";

fn assignment(more: &str) -> String {
    format!(
        "resources: [{{ \"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, cluster_name: changing,
           endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }} }} }}{more}] }}] }}]",
        KEEPERS[0]
    )
}
