//! Servers that are told who the client is by a PROXY header: its bytes, and that no connection speaks for two clients.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::check_with;
use e2e::netns::Namespace;
use e2e::process::until;

/// Tells what each connection begins with.
const SERVER: u16 = 9200;
/// As it; only health checks come here.
const CHECKED: u16 = 9201;
const PATIENCE: Duration = Duration::from_secs(20);

const SOCKET: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";
const RAW: &str = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const FILTER: &str = "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// What a cluster's header is; cluster `c0` has the first.
const HEADERS: &[&str] = &[
    "version: V1",
    "version: V2",
    "version: V2, pass_through_tlvs: {}",
    "version: V2, pass_through_tlvs: { match_type: INCLUDE, tlv_type: [3] }",
    "version: V2, pass_through_tlvs: {}, added_tlvs: [{ type: 3, value: b3du }, { type: 240, value: bW9yZQ== }]",
    "version: V1, added_tlvs: [{ type: 3, value: b3du }]",
];

/// Listeners of TCP begin here, one a cluster, then those of HTTP, one a cluster; the last ones add no state.
const TCP: u16 = 10_000;
const HTTP: u16 = 10_100;
const STATELESS: u16 = 10_200;

fn cluster(name: &str, header: &str, inner: &str, port: u16, more: &str) -> String {
    format!(
        "  - {{ name: {name}, type: STATIC, connect_timeout: 5s, {more}
      transport_socket: {{ name: p, typed_config: {{ \"@type\": {SOCKET}, config: {{ {header} }}, transport_socket: {{ name: i, typed_config: {{ \"@type\": {inner} }} }} }} }},
      load_assignment: {{ cluster_name: {name}, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}] }} }}\n"
    )
}

/// `filter`: what is in the chain.
fn listener(port: u16, filter: &str) -> String {
    format!(
        "  - {{ name: l{port}, address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }},
      listener_filters: [{{ name: p, typed_config: {{ \"@type\": {FILTER}, allow_requests_without_proxy_protocol: true, pass_through_tlvs: {{}} }} }}],
      filter_chains: [{{ filters: [{{ name: f, typed_config: {{ {filter} }} }}] }}] }}\n"
    )
}

fn resources() -> String {
    let mut listeners = String::new();
    let mut clusters = String::new();
    let http = |cluster: &str, more: &str| {
        format!(
            "\"@type\": {MANAGER}, stat_prefix: h, use_remote_address: true, {more} \
             route_config: {{ virtual_hosts: [{{ name: all, domains: [\"*\"], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: {cluster} }} }}] }}] }}, \
             http_filters: [{{ name: r, typed_config: {{ \"@type\": {ROUTER} }} }}]"
        )
    };
    for (index, header) in (0..).zip(HEADERS) {
        let name = format!("c{index}");
        clusters += &cluster(&name, header, RAW, SERVER, "");
        let tcp = format!("\"@type\": {TCP_PROXY}, stat_prefix: t, cluster: {name}");
        listeners += &listener(TCP + index, &tcp);
        listeners += &listener(HTTP + index, &http(&name, ""));
        let stateless = http(&name, "add_proxy_protocol_connection_state: false,");
        listeners += &listener(STATELESS + index, &stateless);
    }
    clusters += &cluster("tls", HEADERS[0], TLS, SERVER, "");
    let tls = format!("\"@type\": {TCP_PROXY}, stat_prefix: t, cluster: tls");
    listeners += &listener(TCP + 50, &tls);
    for (index, header) in HEADERS[..2].iter().enumerate() {
        let check = "health_checks: [{ timeout: 1s, interval: 60s, healthy_threshold: 1, unhealthy_threshold: 1, \
                     tcp_health_check: { send: { text: \"6869\" }, receive: [{ text: \"6869\" }] } }],";
        clusters += &cluster(&format!("checked{index}"), header, RAW, CHECKED, check);
    }
    format!("  listeners:\n{listeners}  clusters:\n{clusters}")
}

type Seen = Arc<Mutex<Vec<String>>>;

/// Reads the header of each connection and notes it. To what follows it answers, as HTTP if it is that, with the header; a TLS client
/// is left alone.
fn server(namespace: &Namespace, port: u16) -> Seen {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
    let seen = Seen::default();
    let kept = seen.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let kept = kept.clone();
            thread::spawn(move || serve(stream, &kept));
        }
    });
    seen
}

fn serve(mut stream: TcpStream, seen: &Seen) -> Option<()> {
    let mut header = vec![0; 16];
    stream.read_exact(&mut header).ok()?;
    if header.starts_with(b"PROXY ") {
        while !header.ends_with(b"\r\n") {
            header.push(byte(&mut stream)?);
        }
    } else {
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).ok()?;
        header.extend(rest);
    }
    let header = header.escape_ascii().to_string();
    let mut first = byte(&mut stream)?;
    seen.lock()
        .expect("no panic holds it")
        .push(format!("{header} {first}"));
    loop {
        match first {
            b'G' => {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(byte(&mut stream)?);
                }
                let length = header.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{header}");
                stream.write_all(answer.as_bytes()).ok()?;
            }
            // What a health check waits for.
            b'h' => stream.write_all(b"hi").ok()?,
            b'?' => stream.write_all(header.as_bytes()).ok()?,
            _ => return None,
        }
        if first == b'?' {
            return None;
        }
        first = byte(&mut stream)?;
    }
}

fn byte(stream: &mut TcpStream) -> Option<u8> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok()?;
    Some(byte[0])
}

/// What a client says before its own bytes. Addresses differ: Envoy, other than we, lets clients that differ in TLVs only share.
const CLIENTS: &[&[u8]] = &[
    b"",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 10 20\r\n",
    b"PROXY TCP6 2001:db8::1 ::2 10 20\r\n",
    b"PROXY UNKNOWN\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x1a\x01\x02\x03\x05\x05\x06\x07\x08\0\x0a\0\x14\x02\0\x03two\x03\0\x05three",
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
];

fn connect(alone: &Alone, port: u16, client: &[u8]) -> TcpStream {
    let mut stream = alone.connect(port);
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream.write_all(client).expect("open");
    stream
}

/// One request on a connection that stays open; the body of its answer.
fn ask(stream: &mut TcpStream) -> String {
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .expect("open");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(byte(stream).expect("an answer"));
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.and_then(|length| length.parse().ok()).expect("a length")];
    stream.read_exact(&mut body).expect("a body");
    String::from_utf8_lossy(&body).into_owned()
}

/// A header without this connection's own port, as text or as two bytes.
fn without_port(header: &str, stream: &TcpStream) -> String {
    let port = stream.local_addr().expect("connected").port();
    let bytes = port.to_be_bytes().escape_ascii().to_string();
    let text = header.replace(&format!(" {port} "), " port ");
    // Where the port of the source stands in version 2.
    text.replace(
        &format!("\\x7f\\x00\\x00\\x01\\x7f\\x00\\x00\\x01{bytes}"),
        "loopback port ",
    )
}

#[test]
fn a_server_behind_tcp_is_told_the_client() {
    check_with(
        &resources(),
        |namespace, _| {
            server(namespace, SERVER);
            server(namespace, CHECKED);
        },
        |alone| {
            let ports = (TCP..).take(HEADERS.len());
            let each = ports.flat_map(|port| CLIENTS.iter().map(move |client| (port, *client)));
            let each = each.map(|(port, client)| {
                let mut stream = connect(alone, port, client);
                stream.write_all(b"?").expect("open");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).expect("an answer");
                format!(
                    "{port} {}: {}",
                    client.escape_ascii(),
                    without_port(&answer, &stream)
                )
            });
            each.collect()
        },
    );
}

#[test]
fn no_connection_of_http_speaks_for_two_clients() {
    check_with(
        &resources(),
        |namespace, _| {
            server(namespace, SERVER);
            server(namespace, CHECKED);
        },
        |alone| {
            let starts = [HTTP, STATELESS].into_iter();
            let ports = starts.flat_map(|start| (start..).take(HEADERS.len()));
            let each = ports.flat_map(|port| {
                let mut streams: Vec<_> = CLIENTS
                    .iter()
                    .map(|client| connect(alone, port, client))
                    .collect();
                // Again and again, so that there are idle connections of each client to be mistaken for another's.
                let rounds = (0..3).flat_map(|round| {
                    let answers = streams.iter_mut().zip(CLIENTS).map(|(stream, client)| {
                        let answer = ask(stream);
                        let answer = without_port(&answer, stream);
                        // Without state, version 1 has our own addresses.
                        let answer = match (port >= STATELESS, answer.contains(" 127.0.0.1 ")) {
                            (true, true) => "of our own".to_owned(),
                            _ => answer,
                        };
                        format!("{port} {round} {}: {answer}", client.escape_ascii())
                    });
                    answers.collect::<Vec<_>>()
                });
                rounds.collect::<Vec<_>>()
            });
            each.collect()
        },
    );
}

#[test]
fn the_header_goes_before_tls_and_before_health_checks() {
    let seen: Mutex<Vec<[Seen; 2]>> = Mutex::default();
    check_with(
        &resources(),
        |namespace, _| {
            let servers = [SERVER, CHECKED].map(|port| server(namespace, port));
            seen.lock().expect("no panic holds it").push(servers);
        },
        |alone| {
            let mut stream = connect(alone, TCP + 50, CLIENTS[1]);
            stream.write_all(b"?").expect("open");
            let last = seen
                .lock()
                .expect("no panic holds it")
                .last()
                .expect("just made")
                .clone();
            let [tls, checks] = last;
            let first = until("a ClientHello", PATIENCE, || {
                tls.lock().expect("no panic").first().cloned()
            });
            let mut checks = until("both checks", PATIENCE, || {
                let seen = checks.lock().expect("no panic");
                (seen.len() == 2).then(|| seen.clone())
            });
            for check in &mut checks {
                let words = check.split(' ').enumerate();
                // Of version 1 the source's port, which the system chose.
                *check = words
                    .map(|(at, word)| if at == 4 { "port" } else { word })
                    .collect::<Vec<_>>()
                    .join(" ");
            }
            checks.sort();
            checks.push(first);
            checks
        },
    );
}
