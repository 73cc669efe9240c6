//! How listening sockets are made: what the system shows of them and of the connections that they take, and what the log says of those.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::check_with;

const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const PATIENCE: Duration = Duration::from_secs(10);
const FIRST: u16 = 10_000;

/// Address of each listener, what more is in it, and other fields.
const LISTENERS: [(&str, &str, &str); 9] = [
    ("127.0.0.1", "", ""),
    ("127.0.0.1", "", "tcp_keepalive: { keepalive_time: 6000 },"),
    // SO_KEEPALIVE, TCP_KEEPIDLE, and TCP_CONGESTION "reno".
    (
        "127.0.0.1",
        "",
        "socket_options: [{ level: 1, name: 9, int_value: 1 }, { level: 6, name: 4, int_value: 7200, state: STATE_BOUND },
           { level: 6, name: 13, buf_value: cmVubw==, state: STATE_LISTENING }, { level: 6, name: 9999, int_value: 1, type: { datagram: {} } }],",
    ),
    ("127.0.0.1", "", "tcp_backlog_size: 7,"),
    ("192.0.2.9", "", "freebind: true,"),
    ("::", "ipv4_compat: true", ""),
    ("::", "", ""),
    ("127.0.0.1", "", "tcp_fast_open_queue_length: 5,"),
    // More addresses, of which some differ from the first.
    (
        "127.0.0.1",
        "",
        "tcp_keepalive: { keepalive_time: 6000 }, socket_options: [{ level: 6, name: 13, buf_value: cmVubw== }], additional_addresses: [
           { address: { socket_address: { address: 127.0.0.2, port_value: 10008 } } },
           { address: { socket_address: { address: 127.0.0.3, port_value: 10008 } }, tcp_keepalive: { keepalive_probes: 0 } },
           { address: { socket_address: { address: 127.0.0.4, port_value: 10008 } }, tcp_keepalive: { keepalive_time: 7200 }, socket_options: {} }],",
    ),
];

fn resources() -> String {
    let listeners = (FIRST..).zip(LISTENERS).map(|(port, (address, more, fields))| {
        format!(
            "  - {{ name: l{port}, {fields} address: {{ socket_address: {{ address: \"{address}\", port_value: {port}, {more} }} }},
      filter_chains: [{{ filters: [{{ name: h, typed_config: {{ \"@type\": {MANAGER}, stat_prefix: h,
        access_log: [{{ name: l, typed_config: {{ \"@type\": {FILE_LOG}, path: /dev/stdout, log_format: {{ text_format_source: {{
          inline_string: \"%REQ(:PATH)% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS%\\n\" }} }} }} }}],
        route_config: {{ virtual_hosts: [{{ name: all, domains: [\"*\"], routes: [{{ match: {{ prefix: / }}, direct_response: {{ status: 200 }} }}] }}] }},
        http_filters: [{{ name: r, typed_config: {{ \"@type\": {ROUTER} }} }}] }} }}] }}] }}\n"
        )
    });
    format!("  listeners:\n{}", listeners.collect::<String>())
}

/// What `ss` says, a line for each socket, sorted.
fn ss(alone: &Alone, arguments: &[&str]) -> Vec<String> {
    let output = Command::new("ip")
        .args(["netns", "exec", alone.namespace.name(), "ss", "-Htn"])
        .args(arguments)
        .arg("( sport >= :10000 and sport <= :10008 )")
        .output()
        .expect("ss of iproute2");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout).replace("\n\t", " ");
    let mut lines: Vec<_> = text.lines().map(shown).collect();
    lines.sort();
    lines
}

/// Without what differs from one connection to the next.
fn shown(line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().collect();
    let is_shown = |word: &&&str| word.starts_with("timer:") || ["reno", "cubic", "bbr"].contains(*word);
    let more = words.iter().skip(5).filter(is_shown).copied();
    let known = words.iter().take(4).copied();
    known.chain(more).collect::<Vec<_>>().join(" ")
}

/// A request, whose connection stays open.
fn ask(alone: &Alone, address: IpAddr, port: u16) -> TcpStream {
    let to = SocketAddr::new(address, port);
    let mut stream = alone
        .namespace
        .run(|| TcpStream::connect(to))
        .unwrap_or_else(|error| panic!("{:?}: {to}: {error}", alone.kind));
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    write!(stream, "GET /{port}/{address} HTTP/1.1\r\nhost: a\r\n\r\n").expect("open");
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    stream
}

/// A line of the log, without the client's port.
fn logged(alone: &Alone, text: &str) -> String {
    let line = alone.logged(text);
    line.rsplit_once(':')
        .map(|(line, _)| line.to_owned())
        .unwrap_or(line)
}

#[test]
fn sockets_are_made_as_the_listener_says() {
    check_with(
        &resources(),
        |_, _| {},
        |alone| {
            let mut told = ss(alone, &["-l"]);
            let asked = [
                ("127.0.0.1", 10_000),
                ("127.0.0.1", 10_001),
                ("127.0.0.1", 10_002),
                ("127.0.0.1", 10_003),
                ("127.0.0.1", 10_005),
                ("::1", 10_005),
                ("::1", 10_006),
                ("127.0.0.1", 10_007),
                ("127.0.0.1", 10_008),
                ("127.0.0.2", 10_008),
                ("127.0.0.3", 10_008),
                ("127.0.0.4", 10_008),
            ];
            let asked = asked.map(|(address, port)| (address.parse().expect("an address"), port));
            let open = asked.map(|(address, port)| ask(alone, address, port));
            told.extend(ss(alone, &["-oi"]));
            told.extend(asked.map(|(address, port)| logged(alone, &format!("/{port}/{address} "))));
            drop(open);
            told
        },
    );
}
