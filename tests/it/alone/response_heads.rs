//! Heads of responses that are longer than Envoy takes, by default and as clusters say, in both versions of HTTP.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use e2e::alone::Alone;
use e2e::beside::{Case, Manager, answers, check_with, configuration, counters, get};
use e2e::netns::Namespace;
use http::Response;

const HTTP1: u16 = 9011;
const HTTP2: u16 = 9012;

/// Paths end with the length of one header, and the number of others.
const CASES: &[Case] = &[
    get("/one/81000/1", &[]),
    get("/one/83000/1", &[]),
    get("/one/1/95", &[]),
    get("/one/1/101", &[]),
    get("/one-set/900/1", &[]),
    get("/one-set/1100/1", &[]),
    get("/one-set/1/30", &[]),
    get("/two/60000/1", &[]),
    get("/two/62000/1", &[]),
    get("/two/1/95", &[]),
    get("/two/1/101", &[]),
    get("/two-set/900/1", &[]),
    get("/two-set/1100/1", &[]),
    get("/two-set/9000/1", &[]),
    get("/two-set/1/30", &[]),
];

/// The headers that a path asks for.
fn asked(path: &str) -> Vec<(String, String)> {
    let mut numbers = path
        .split('/')
        .skip(2)
        .filter_map(|part| part.parse::<usize>().ok());
    let length = numbers.next().unwrap_or(0);
    let count = numbers.next().unwrap_or(0);
    let others = (0..count).map(|number| (format!("x-{number}"), "1".to_owned()));
    let long = ("x-long".to_owned(), "a".repeat(length));
    std::iter::once(long).chain(others).collect()
}

fn serve(namespace: &Namespace) {
    let listen =
        |port| namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
    let listener = listen(HTTP1);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            std::thread::spawn(move || http1(stream));
        }
    });
    let listener = listen(HTTP2);
    listener.set_nonblocking(true).expect("a socket");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(http2(stream));
            }
        });
    });
}

fn http1(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let lines: String = asked(path)
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    // Whoever is gone took enough of it.
    let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{lines}content-length: 0\r\n\r\n").as_bytes());
}

async fn http2(stream: tokio::net::TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let mut response = Response::builder();
        for (name, value) in asked(request.uri().path()) {
            response = response.header(name, value);
        }
        let _ = respond.send_response(response.body(()).expect("a response"), true);
    }
}

fn cluster(name: &str, port: u16, common: &str) -> String {
    let version = if port == HTTP1 { "http" } else { "http2" };
    format!(
        "{{ name: {name}, type: STATIC, connect_timeout: 1s,
          typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{
            \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions,
            common_http_protocol_options: {{ {common} }}, explicit_http_config: {{ {version}_protocol_options: {{}} }} }} }},
          load_assignment: {{ cluster_name: {name}, endpoints: [{{ lb_endpoints: [
            {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}] }} }}"
    )
}

fn steps(alone: &Alone) -> Vec<String> {
    let mut lines: Vec<_> = answers(alone, CASES)
        .into_iter()
        .map(|line| line.replace(&"a".repeat(100), ""))
        .collect();
    let names = ["one", "one-set", "two", "two-set"].map(|cluster| {
        [
            format!("cluster.{cluster}.upstream_rq_502"),
            format!("cluster.{cluster}.upstream_rq_503"),
            format!("cluster.{cluster}.upstream_rq_200"),
        ]
    });
    let names: Vec<_> = names.iter().flatten().map(String::as_str).collect();
    lines.extend(counters(alone, &names));
    lines
}

#[test]
fn heads_of_responses_may_be_as_long_as_with_envoy() {
    let routes = ["one-set", "one", "two-set", "two"]
        .map(|name| format!("{{ match: {{ prefix: /{name} }}, route: {{ cluster: {name} }} }}, "));
    let set = "max_response_headers_kb: 1, max_headers_count: 20";
    let clusters = [
        cluster("one", HTTP1, ""),
        cluster("one-set", HTTP1, set),
        cluster("two", HTTP2, ""),
        cluster("two-set", HTTP2, set),
    ];
    check_with(
        &configuration(&[Manager::with_routes(&routes.concat())], &clusters),
        |namespace, _| serve(namespace),
        steps,
    );
}
