//! Header names with `_` (`headers_with_underscores_action`), in HTTP/1 and HTTP/2, in heads and trailers: what the client gets, what the
//! upstream gets, what is logged and counted.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use e2e::alone::{Alone, http_listener};
use e2e::netns::Namespace;
use e2e::proxy::Kind;

const UPSTREAM: u16 = 9001;
const FEW: u16 = 10_003;
const ACTIONS: [(u16, &str); 4] = [
    (10_000, "ALLOW"),
    (10_001, "REJECT_REQUEST"),
    (10_002, "DROP_HEADER"),
    // With room for two headers beside those that every request has.
    (FEW, "DROP_HEADER"),
];

/// What a request is called, and the names of its headers and trailers.
type Names = (&'static str, &'static [&'static str], &'static [&'static str]);

const REQUESTS: [Names; 6] = [
    ("none", &["x-a"], &[]),
    ("one", &["x_a"], &[]),
    ("several", &["x_a", "x-b", "x_a", "_"], &[]),
    ("only-trailer", &["x-a"], &["x_t", "x-t"]),
    ("both", &["x_a"], &["x_t"]),
    ("many", &["a_", "b_", "c_", "d_", "x-a"], &[]),
];

#[test]
fn underscores_are_treated_as_envoy_treats_them() {
    let [envoy, outrigger] = [Kind::Envoy, Kind::Outrigger].map(observe);
    let rejected = "HTTP/1.1 400 Bad Request";
    assert!(envoy.iter().any(|line| line.contains(rejected)), "{envoy:#?}");
    let pairs = envoy
        .iter()
        .zip(&outrigger)
        .filter(|(envoy, outrigger)| envoy != outrigger);
    let faults: Vec<_> = pairs
        .map(|(envoy, outrigger)| format!("envoy     {envoy}\noutrigger {outrigger}"))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn observe(kind: Kind) -> Vec<String> {
    let alone = Alone::start(kind, &configuration(), |namespace, _| upstream(namespace));
    let mut seen = Vec::new();
    for (port, action) in ACTIONS {
        for request in &REQUESTS {
            for (version, exchange) in [
                ("HTTP/1", http1 as fn(&mut TcpStream, &Names) -> String),
                ("HTTP/2", http2),
            ] {
                // HTTP/2 has no limit on the number of headers here yet.
                if port != FEW || version == "HTTP/1" {
                    let mut stream = connect(&alone, port);
                    let client = stream.local_addr().expect("a socket").to_string();
                    let answer = exchange(&mut stream, request);
                    seen.push((client, format!("{action} {version} {}: {answer}", request.0)));
                }
            }
        }
    }
    let with_log = |(client, answer): (String, String)| {
        format!("{answer}; log {}", alone.logged(&client).replace(&client, ""))
    };
    let mut seen: Vec<_> = seen.into_iter().map(with_log).collect();
    seen.extend(ACTIONS.map(|(port, action)| format!("{action}: {}", counted(&alone, port))));
    seen
}

/// What is counted; zeros are left out.
fn counted(alone: &Alone, port: u16) -> String {
    let filter = format!(
        "/stats?filter=^http[12].*underscores|^http.l{port}.downstream_(rq_rx_reset|cx_protocol_error|rq_..._?.?total|rq_.xx)"
    );
    let stats = alone.admin(&filter).expect("counters").body;
    let mut lines: Vec<_> = stats.lines().filter(|line| !line.ends_with(": 0")).collect();
    lines.sort_unstable();
    lines.join(", ")
}

/// Status line, and what the upstream got.
fn http1(stream: &mut TcpStream, (name, headers, trailers): &Names) -> String {
    let mut text = format!("POST /{name} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n");
    headers
        .iter()
        .for_each(|name| text.push_str(&format!("{name}: 1\r\n")));
    text.push_str("\r\n1\r\nb\r\n0\r\n");
    trailers
        .iter()
        .for_each(|name| text.push_str(&format!("{name}: 1\r\n")));
    text.push_str("\r\n");
    stream.write_all(text.as_bytes()).expect("the proxy reads");
    let mut came = Vec::new();
    let mut byte = [0];
    while !came.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        came.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&came).into_owned();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    let _ = stream.read_exact(&mut body);
    let body = String::from_utf8_lossy(&body).into_owned();
    format!("{} {}", head.lines().next().unwrap_or_default(), names(&body))
}

fn connect(alone: &Alone, port: u16) -> TcpStream {
    let stream = alone.connect(port);
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a socket");
    stream
}

/// The headers that decide, of a head that the upstream sends back.
fn names(head: &str) -> String {
    let names = head.lines().skip(1).filter_map(|line| line.split(':').next());
    let is_ours = |name: &&str| name.starts_with("x-a") || name.starts_with("x-b") || name.contains('_');
    let mut names: Vec<_> = names.filter(is_ours).collect();
    names.sort_unstable();
    names.join(",")
}

/// The same with frames made by hand: settings, a head of literals, data, trailers. Source: RFC 9113, RFC 7541 §6.2.2.
fn http2(stream: &mut TcpStream, (name, headers, trailers): &Names) -> String {
    let path = format!("/{name}");
    let mut head = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", path.as_str()),
    ] {
        literal(&mut head, name, value);
    }
    headers.iter().for_each(|name| literal(&mut head, name, "1"));
    let mut tail = Vec::new();
    trailers.iter().for_each(|name| literal(&mut tail, name, "1"));
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut bytes, SETTINGS, 0, 0, &[]);
    frame(&mut bytes, HEADERS, END_HEADERS, 1, &head);
    let last = trailers.is_empty();
    frame(&mut bytes, DATA, if last { END_STREAM } else { 0 }, 1, b"b");
    if !last {
        frame(&mut bytes, HEADERS, END_HEADERS | END_STREAM, 1, &tail);
    }
    stream.write_all(&bytes).expect("the proxy reads");
    told(stream)
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        block.push(u8::try_from(text.len()).expect("short"));
        block.extend_from_slice(text.as_bytes());
    }
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
    let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
    bytes.extend_from_slice(&[0, length[0], length[1], kind, flags, 0, 0, 0, stream]);
    bytes.extend_from_slice(payload);
}

/// What came on the stream: an answer with the names that the upstream got, or a reset.
fn told(stream: &mut TcpStream) -> String {
    let (mut kinds, mut body) = (Vec::new(), Vec::new());
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        if stream.read_exact(&mut payload).is_err() {
            break;
        }
        match head[3] {
            HEADERS => kinds.push("answer".to_owned()),
            DATA => body.extend_from_slice(&payload),
            RST_STREAM => kinds.push(format!("reset {payload:?}")),
            GOAWAY => kinds.push("goaway".to_owned()),
            _ => continue,
        }
        if head[3] == RST_STREAM || head[3] == GOAWAY || head[4] & END_STREAM != 0 {
            break;
        }
    }
    format!("{} {}", kinds.join("+"), names(&String::from_utf8_lossy(&body)))
}

/// Answers with the head that it got.
fn upstream(namespace: &Namespace) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, UPSTREAM)).expect("a free port"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut text = Vec::new();
                let mut byte = [0];
                while !text.ends_with(b"0\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                    text.push(byte[0]);
                }
                let head = text
                    .windows(4)
                    .position(|four| four == b"\r\n\r\n")
                    .unwrap_or(text.len());
                let answer =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {head}\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes());
                let _ = stream.write_all(&text[..head]);
            });
        }
    });
}

fn configuration() -> String {
    let listeners = ACTIONS.map(|(port, action)| {
        let count = if port == FEW { 4 } else { 100 };
        let manager = format!(
            "common_http_protocol_options: {{ headers_with_underscores_action: {action}, max_headers_count: {count} }}"
        );
        http_listener(port, &manager, "{ match: { prefix: / }, route: { cluster: echo } }", "%DOWNSTREAM_REMOTE_ADDRESS%")
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
