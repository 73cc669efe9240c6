//! PROXY headers from a balancer in front: who the client is then, what counts as a header, and what becomes of what does not.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::{check_with, counters};
use e2e::netns::Namespace;
use e2e::process::until;

/// Passes a connection's bytes back.
const TCP_ECHO: u16 = 9100;
/// Of the filters, [`LISTENERS`] from here on.
const FIRST: u16 = 10_000;
/// More than the time limit of inspectors, for the slowest machine.
const PATIENCE: Duration = Duration::from_secs(20);

const FILTER: &str = "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";

/// Fields of the filter; stat prefixes are `l0`, `l1`, ….
const LISTENERS: &[&str] = &[
    "",
    "allow_requests_without_proxy_protocol: true, ",
    "disallowed_versions: [V1], ",
    "disallowed_versions: [V2], ",
    "disallowed_versions: [V2], allow_requests_without_proxy_protocol: true, ",
    "rules: [{ tlv_type: 2, on_tlv_present: { key: two } }, \
              { tlv_type: 3, on_tlv_present: { key: three, metadata_namespace: ns, value_string_encoding: BASE64 } }], ",
];

/// A step of a client.
#[derive(Clone, Copy, Debug)]
enum Do {
    /// Sends bytes.
    Send(&'static [u8]),
    /// Sends so many of the same byte.
    Fill(u8, usize),
    /// Sends a header of version 1 with these words, and what it has to say.
    Line(&'static str),
    /// Ends its side.
    End,
}
use Do::{End, Fill, Line, Send};

/// The listener, what the client does with a pause after each step.
type Case = (usize, &'static [Do]);

/// A header of version 2 up to its addresses.
macro_rules! v2 {
    ($($byte:literal),* ; $rest:literal) => {{
        const FIXED: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
        const AFTER: &[u8] = &[$($byte),*];
        const REST: &[u8] = $rest;
        const LENGTH: usize = FIXED.len() + AFTER.len() + REST.len();
        const WHOLE: [u8; LENGTH] = joined([FIXED, AFTER, REST]);
        Send(&WHOLE)
    }};
}

const fn joined<const N: usize>(parts: [&[u8]; 3]) -> [u8; N] {
    let mut whole = [0; N];
    let (mut part, mut at) = (0, 0);
    while part < parts.len() {
        let mut index = 0;
        while index < parts[part].len() {
            whole[at] = parts[part][index];
            (index, at) = (index + 1, at + 1);
        }
        part += 1;
    }
    whole
}

const V1: Do = Send(b"PROXY TCP4 1.2.3.4 5.6.7.8 10 20\r\nhello");
const V2: Do = v2!(0x21, 0x11, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 0, 20; b"hello");

const CASES: &[Case] = &[
    (0, &[V1]),
    (
        0,
        &[
            Send(b"PRO"),
            Send(b"XY TCP4 1.2.3.4 5.6.7.8 10 20\r"),
            Send(b"\nhello"),
        ],
    ),
    (0, &[Send(b"PROXY TCP6 2001:db8::1 ::2 10 20\r\nhello")]),
    (0, &[Send(b"PROXY UNKNOWN\r\nhello")]),
    (0, &[Send(b"PROXY UNKNOWN a b c\r\nhello")]),
    (0, &[Send(b"PROXY TCP4 1.2.3.4 5.6.7.8 10 20  \r\nhello")]),
    (0, &[Send(b"PROXY TCP4  1.2.3.4 5.6.7.8 10 20\r\nhello")]),
    (0, &[Send(b"PROXY TCP4 1.2.3.4 5.6.7.8 10 99999\r\nhello")]),
    (0, &[Send(b"PROXY TCP4 0.0.0.0 5.6.7.8 10 20\r\nhello")]),
    (0, &[Send(b"PROXY TCP4 1.2.3.4 224.0.0.1 10 20\r\nhello")]),
    (0, &[Send(b"PROXY TCP4 255.255.255.255 5.6.7.8 10 20\r\nhello")]),
    (0, &[Send(b"PROXY TCP4 ::1 5.6.7.8 10 20\r\nhello")]),
    (0, &[Send(b"PROXY TCP6 1.2.3.4 5.6.7.8 10 20\r\nhello")]),
    (0, &[Send(b"PROXY tcp4 1.2.3.4 5.6.7.8 10 20\r\nhello")]),
    (0, &[Send(b"PROXY TCP4 1.2.3.4 5.6.7.8 10 20\nhello")]),
    (0, &[Send(b"PROXY UNKNOWN "), Fill(b'x', 92), Send(b"\r\nhello")]),
    (0, &[Send(b"PROXY UNKNOWN "), Fill(b'x', 200)]),
    (0, &[Send(b"garbage")]),
    (0, &[Send(b"GET /\r\n")]),
    (0, &[Send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")]),
    (0, &[]),
    (0, &[Send(b"PROXY TCP4 1.2")]),
    (0, &[Send(b"PROXY TCP4 1.2"), End]),
    (0, &[End]),
    (0, &[Send(b"\r\nfoo")]),
    (0, &[Send(b"\r\nfoofoofoofoofoofoofoo")]),
    (0, &[V2]),
    (
        0,
        &[
            Send(b"\r\n\r\n\0\r\nQU"),
            Send(b"IT\n\x21\x11\0\x0c\x01\x02"),
            Send(b"\x03\x04\x05\x06\x07\x08\0\x0a\0\x14hello"),
        ],
    ),
    (0, &[Send(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02")]),
    (0, &[Send(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02"), End]),
    (
        0,
        &[v2!(0x21, 0x12, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 0, 20; b"hello")],
    ),
    (
        0,
        &[
            v2!(0x21, 0x21, 0, 36, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
              0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 10, 0, 20; b"hello"),
        ],
    ),
    (0, &[v2!(0x20, 0x00, 0, 0; b"hello")]),
    (
        0,
        &[v2!(0x20, 0x11, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 0, 20; b"hello")],
    ),
    (
        0,
        &[v2!(0x21, 0x01, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 0, 20; b"hello")],
    ),
    (0, &[v2!(0x21, 0x31, 0, 216; b""), Fill(b'x', 216)]),
    (
        0,
        &[v2!(0x31, 0x11, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 0, 20; b"hello")],
    ),
    (
        0,
        &[v2!(0x22, 0x11, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 0, 20; b"hello")],
    ),
    (
        0,
        &[v2!(0x21, 0x10, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 0, 20; b"hello")],
    ),
    (
        0,
        &[v2!(0x21, 0x11, 0, 11, 1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 0, 20; b"hello")],
    ),
    (
        0,
        &[v2!(0x21, 0x11, 0, 12, 0, 0, 0, 0, 5, 6, 7, 8, 0, 10, 0, 20; b"hello")],
    ),
    (
        0,
        &[v2!(0x21, 0x11, 0, 18, 1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 0, 20, 2, 0, 0, 3, 0, 0; b"hello")],
    ),
    (
        0,
        &[v2!(0x21, 0x11, 0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 0, 20, 2, 0, 5, 1, 1; b"hello")],
    ),
    (
        0,
        &[v2!(0x21, 0x11, 0, 14, 1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 0, 20, 2, 0; b"hello")],
    ),
    // 12 bytes of addresses, and a TLV of 60,000.
    (
        0,
        &[
            v2!(0x21, 0x11, 0xea, 0x6f, 1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 0, 20, 4, 0xea, 0x60; b""),
            Fill(b'x', 60_000),
            Send(b"hello"),
        ],
    ),
    (1, &[V1]),
    (1, &[V2]),
    (1, &[Send(b"hello")]),
    (1, &[Send(b"PRO")]),
    (1, &[Send(b"PROZ")]),
    (1, &[Send(b"PROXY X\r\n")]),
    (1, &[]),
    (2, &[V1]),
    (2, &[V2]),
    (2, &[Send(b"PROXY TCP9\r\nhello")]),
    (2, &[Send(b"not one of these headers")]),
    (3, &[V1]),
    (3, &[V2]),
    (
        3,
        &[v2!(0x41, 0x11, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 0, 20; b"hello")],
    ),
    (4, &[V1]),
    (4, &[V2]),
    (4, &[Send(b"hello")]),
    (5, &[V1]),
    (5, &[V2]),
    // Text with bytes that are none, and three bytes.
    (
        5,
        &[v2!(0x21, 0x11, 0, 28, 1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 0, 20,
              2, 0, 7, b'a', b'b', 0xff, b'c', 0xe2, 0x82, b'z', 3, 0, 3, 0, 1, 2; b"hello")],
    ),
    (
        5,
        &[v2!(0x21, 0x11, 0, 24, 1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 0, 20,
              2, 0, 3, b'o', b'n', b'e', 2, 0, 3, b't', b'w', b'o'; b"hello")],
    ),
    (5, &[v2!(0x20, 0x11, 0, 6, 2, 0, 3, b'o', b'n', b'e'; b"hello")]),
];

fn log(format: &str) -> String {
    format!(
        "access_log: [{{ name: l, typed_config: {{ \"@type\": {FILE_LOG}, path: /dev/stdout, \
         log_format: {{ text_format_source: {{ inline_string: \"{format}\\n\" }} }} }} }}]"
    )
}

fn filter(fields: &str) -> String {
    format!("listener_filters: [{{ name: p, typed_config: {{ \"@type\": {FILTER}, {fields} }} }}]")
}

fn resources() -> String {
    let addresses =
        "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS%";
    let metadata = "%DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:two)% %DYNAMIC_METADATA(ns:three)% %DYNAMIC_METADATA(ns:three):2%";
    let tcp = log(&format!(
        "TCP {addresses} {metadata} %BYTES_RECEIVED% %RESPONSE_FLAGS%"
    ));
    let refused = log(&format!("LISTENER {addresses} %RESPONSE_FLAGS%"));
    let listeners = LISTENERS.iter().zip(FIRST..).map(|(fields, port)| {
        format!(
            "  - {{ name: l{port}, address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}, listener_filters_timeout: 0.5s,
      {}, {refused}, filter_chains: [{{ filters: [{{ name: t, typed_config: {{ \"@type\": {TCP_PROXY}, stat_prefix: s, cluster: echo, {tcp} }} }}] }}] }}\n",
            filter(&format!("{fields}stat_prefix: l{}", port - FIRST)),
        )
    });
    format!(
        "  listeners:\n{}{}  clusters:\n  - {}\n  - {}\n",
        listeners.collect::<String>(),
        http_listener() + &matched_listener(),
        e2e::beside::cluster("echo", &[TCP_ECHO]),
        e2e::beside::cluster("http", &[e2e::beside::ECHO]),
    )
}

const HTTP: u16 = 10_100;
const MATCHED: u16 = 10_101;

/// HTTP behind a PROXY header; whose address goes into x-forwarded-for and the log.
fn http_listener() -> String {
    let tail = log(
        "HTTP %DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% \
                    %DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:two)%",
    );
    format!(
        "  - {{ name: h, address: {{ socket_address: {{ address: 127.0.0.1, port_value: {HTTP} }} }}, {},
      filter_chains: [{{ filters: [{{ name: h, typed_config: {{ \"@type\": {MANAGER}, stat_prefix: h, use_remote_address: true, {tail},
        route_config: {{ virtual_hosts: [{{ name: all, domains: [\"*\"], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: http }} }}] }}] }},
        http_filters: [{{ name: r, typed_config: {{ \"@type\": {ROUTER} }} }}] }} }}] }}] }}\n",
        filter("rules: [{ tlv_type: 2, on_tlv_present: { key: two } }]"),
    )
}

/// Chains that are chosen by source and destination, each with a name of its own in the log.
fn matched_listener() -> String {
    let chain = |name: &str, matcher: &str| {
        let log = log(&format!("CHAIN {name}"));
        format!(
            "{{ name: {name}, filter_chain_match: {{ {matcher} }}, filters: [{{ name: t, typed_config: {{ \"@type\": {TCP_PROXY}, \
             stat_prefix: {name}, cluster: echo, {log} }} }}] }}, "
        )
    };
    let prefix =
        |address: &str, length: u8| format!("[{{ address_prefix: \"{address}\", prefix_len: {length} }}]");
    let chains = [
        chain(
            "source",
            &format!(
                "source_type: EXTERNAL, source_prefix_ranges: {}",
                prefix("9.0.0.0", 8)
            ),
        ),
        chain(
            "direct",
            &format!(
                "destination_port: 888, direct_source_prefix_ranges: {}",
                prefix("127.0.0.0", 8)
            ),
        ),
        chain(
            "foreign",
            &format!(
                "destination_port: 888, direct_source_prefix_ranges: {}",
                prefix("7.0.0.0", 8)
            ),
        ),
        chain("port", "destination_port: 777"),
        chain("local", "source_type: SAME_IP_OR_LOOPBACK"),
        chain("ports", "source_type: EXTERNAL, source_ports: [4321]"),
    ];
    format!(
        "  - {{ name: m, address: {{ socket_address: {{ address: 127.0.0.1, port_value: {MATCHED} }} }}, {}, {},
      filter_chains: [{}] }}\n",
        filter(""),
        log("LISTENER %RESPONSE_FLAGS%"),
        chains.concat()
    )
}

/// Passes bytes back until the client ends its side.
fn tcp_echo(namespace: &Namespace) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, TCP_ECHO)).expect("a free port"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    let _ = stream.write_all(&buffer[..count]);
                }
            });
        }
    });
}

/// Does the steps; what comes back until the connection ends, and how it ends.
fn talk(alone: &Alone, port: u16, steps: &[Do]) -> String {
    alone.namespace.run(|| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the listener is there");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        stream.set_nodelay(true).expect("a socket");
        for step in steps {
            let done = match step {
                Send(bytes) => stream.write_all(bytes),
                Fill(byte, count) => stream.write_all(&vec![*byte; *count]),
                Line(words) => stream.write_all(format!("PROXY {words}\r\nhello").as_bytes()),
                End => stream.shutdown(Shutdown::Write),
            };
            if done.is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
        let end = loop {
            match stream.read(&mut buffer) {
                Ok(0) => break "closed".to_owned(),
                Ok(count) => got.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break "reset".to_owned(),
                Err(error) => break error.to_string(),
            }
            // Whatever was sent is back: the client has no more to say.
            if got.ends_with(b"hello") || got.ends_with(b"PROZ") {
                let _ = stream.shutdown(Shutdown::Write);
            }
        };
        format!("{} {end}", got.escape_ascii())
    })
}

/// The log's next line that begins with `kind`, without ports that the system chose.
fn next_line(alone: &Alone, kind: &str, before: usize) -> String {
    let line = until("a line in the access log", e2e::mesh::PATIENCE, || {
        let log = alone.access_log();
        let lines: Vec<_> = log.lines().filter(|line| line.starts_with(kind)).collect();
        lines.get(before).map(|line| (*line).to_owned())
    });
    let words = line.split(' ').map(|word| match word.strip_prefix("127.0.0.1:") {
        Some(port) if port.parse::<u16>().is_ok_and(|port| port > 20_000) => "127.0.0.1:any",
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_proxy_header_is_taken_off_and_believed_or_refused() {
    check_with(
        &resources(),
        |namespace, _| tcp_echo(namespace),
        |alone| {
            let mut served = 0;
            let mut told: Vec<String> = CASES
                .iter()
                .enumerate()
                .map(|(number, (listener, steps))| {
                    let port = FIRST + u16::try_from(*listener).expect("few listeners");
                    let answer = talk(alone, port, steps);
                    let line = match answer.starts_with(' ') {
                        true => String::new(),
                        false => {
                            served += 1;
                            next_line(alone, "TCP", served - 1)
                        }
                    };
                    format!("{number} {listener} {steps:?}: {answer} {line}")
                })
                .collect();
            let refused = CASES.len() - served;
            until("a line for each refused connection", e2e::mesh::PATIENCE, || {
                let log = alone.access_log();
                let lines = log.lines().filter(|line| line.starts_with("LISTENER 127.0.0.1:"));
                (lines.count() >= refused).then_some(())
            });
            told.extend(counters(alone, &stats()));
            told
        },
    );
}

/// What the filters and their listeners count.
fn stats() -> Vec<&'static str> {
    const OF_A_FILTER: [&str; 8] = [
        "not_found_allowed",
        "not_found_disallowed",
        "versions.v1.found",
        "versions.v1.disallowed",
        "versions.v1.error",
        "versions.v2.found",
        "versions.v2.disallowed",
        "versions.v2.error",
    ];
    const OF_A_LISTENER: [&str; 6] = [
        "downstream_cx_total",
        "downstream_cx_destroy",
        "downstream_pre_cx_active",
        "downstream_pre_cx_timeout",
        "downstream_listener_filter_remote_close",
        "downstream_listener_filter_error",
    ];
    let each = (0..LISTENERS.len()).flat_map(|index| {
        let filter = OF_A_FILTER
            .iter()
            .map(move |name| format!("proxy_proto.l{index}.{name}"));
        let port = usize::from(FIRST) + index;
        let listener = OF_A_LISTENER
            .iter()
            .map(move |name| format!("listener.127.0.0.1_{port}.{name}"));
        filter.chain(listener)
    });
    let names = each.chain(["downstream_cx_proxy_proto_error".to_owned()]);
    names.map(|name| &*name.leak()).collect()
}

#[test]
fn http_behind_a_proxy_header_has_the_client_it_names() {
    let request = "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 9.9.9.9\r\nconnection: close\r\n\r\n";
    let ipv4: &[u8] = b"\x21\x11\0\x12\x01\x02\x03\x04\x05\x06\x07\x08\0\x0a\0\x14\x02\0\x03one";
    let binary = [b"\r\n\r\n\0\r\nQUIT\n", ipv4].concat();
    let headers: [&[u8]; 4] = [
        b"PROXY TCP4 1.2.3.4 5.6.7.8 10 20\r\n",
        b"PROXY TCP6 2001:db8::1 ::2 10 20\r\n",
        b"PROXY UNKNOWN\r\n",
        &binary,
    ];
    check_with(
        &resources(),
        |namespace, _| tcp_echo(namespace),
        |alone| {
            let each = headers.iter().enumerate().map(|(number, header)| {
                let answer = alone.namespace.run(|| {
                    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, HTTP)).expect("listens");
                    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
                    stream
                        .write_all(&[header, request.as_bytes()].concat())
                        .expect("open");
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).expect("an answer");
                    answer
                });
                // Status and the echo; dates and times differ.
                let status = answer.lines().next().unwrap_or_default().to_owned();
                let echo = answer.lines().last().unwrap_or_default().to_owned();
                format!("{status} {echo} {}", next_line(alone, "HTTP", number))
            });
            each.collect()
        },
    );
}

#[test]
fn filter_chains_are_chosen_by_what_the_header_says() {
    const HEADERS: &[&str] = &[
        "TCP4 9.1.1.1 5.6.7.8 10 20",
        "TCP4 8.1.1.1 5.6.7.8 10 20",
        "TCP4 7.1.1.1 5.6.7.8 10 888",
        "TCP4 9.1.1.1 5.6.7.8 10 888",
        "TCP4 9.1.1.1 5.6.7.8 10 777",
        "TCP4 6.6.6.6 6.6.6.6 10 20",
        "TCP4 127.0.0.2 6.6.6.6 10 20",
        "TCP4 6.6.6.6 5.6.7.8 4321 20",
        "UNKNOWN",
    ];
    check_with(
        &resources(),
        |namespace, _| tcp_echo(namespace),
        |alone| {
            let mut served = 0;
            let each = HEADERS.iter().map(|header| {
                let answer = talk(alone, MATCHED, &[Line(header)]);
                let line = if answer.starts_with(' ') {
                    String::new()
                } else {
                    served += 1;
                    next_line(alone, "CHAIN", served - 1)
                };
                format!("{header}: {answer} {line}")
            });
            each.collect()
        },
    );
}
