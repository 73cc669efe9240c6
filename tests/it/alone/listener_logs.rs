//! `access_log` of listeners: a line for every connection, whatever served it, or did not.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::{check_with, cluster, counters};
use e2e::netns::Namespace;

const SERVER: u16 = 9501;
const FIRST: u16 = 10_000;
const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const LIMIT: &str =
    "type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit";
const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const GET: &str = "GET /x HTTP/1.1\r\nhost: a\r\n\r\n";

/// What serves, and what clients say, each on a connection of its own; nothing: they leave at once.
const CASES: &[(&str, &[&str])] = &[
    ("http", &[GET]),
    (
        "http",
        &["GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"],
    ),
    ("http", &[""]),
    ("http", &["rubbish\r\n\r\n"]),
    ("tcp server", &["abc"]),
    ("tcp server", &[""]),
    ("tcp dead", &["abc"]),
    ("tcp nowhere", &[""]),
    ("limit http", &[GET]),
    ("limit tcp", &["abc"]),
    ("unmatched", &["abc"]),
];

fn resources() -> String {
    let listeners = (FIRST..).zip(CASES).map(|(port, (kind, _))| {
        let log = |tag: &str| {
            format!(
                "access_log: [{{ name: l, typed_config: {{ \"@type\": {FILE_LOG}, path: /dev/stdout, log_format: {{ text_format_source: {{ inline_string: \"{port} {tag} %RESPONSE_FLAGS% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% %PROTOCOL% %FILTER_CHAIN_NAME% %UPSTREAM_CLUSTER% %UPSTREAM_HOST% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\\n\" }} }} }} }}]"
            )
        };
        let http = format!(
            "{{ name: h, typed_config: {{ \"@type\": {MANAGER}, stat_prefix: s{port}, {}, route_config: {{ virtual_hosts: [{{ name: a, domains: [\"*\"], routes: [{{ match: {{ prefix: / }}, direct_response: {{ status: 200, body: {{ inline_string: hello }} }} }}] }}] }}, http_filters: [{{ name: r, typed_config: {{ \"@type\": {ROUTER} }} }}] }} }}",
            log("http")
        );
        let tcp = |cluster: &str| {
            format!(
                "{{ name: t, typed_config: {{ \"@type\": {TCP_PROXY}, stat_prefix: s{port}, cluster: {cluster}, {} }} }}",
                log("tcp")
            )
        };
        // The first connection is one too many.
        let limit = format!(
            "{{ name: c, typed_config: {{ \"@type\": {LIMIT}, stat_prefix: s{port}, max_connections: 1 }} }}"
        );
        let filters = match *kind {
            "http" | "unmatched" => http,
            "limit http" => format!("{limit}, {http}"),
            "limit tcp" => format!("{limit}, {}", tcp("server")),
            _ => tcp(kind.trim_start_matches("tcp ")),
        };
        let matching = match *kind {
            "unmatched" => "filter_chain_match: { source_ports: [1] }, ",
            _ => "",
        };
        format!(
            "  - {{ name: l{port}, address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}, {}, filter_chains: [{{ name: chain, {matching}filters: [{filters}] }}] }}\n",
            log("listener")
        )
    });
    format!(
        "  listeners:\n{}  clusters:\n  - {}\n  - {}\n",
        listeners.collect::<String>(),
        cluster("server", &[SERVER]),
        cluster("dead", &[1]),
    )
}

fn server(namespace: &Namespace) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, SERVER)).expect("a free port"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut all = Vec::new();
                let _ = stream.read_to_end(&mut all);
                let _ = stream.write_all(b"answer");
            });
        }
    });
}

fn say(alone: &Alone, port: u16, is_limited: bool, words: &str) {
    // The one that fills the limit; it ends when the other has been turned away.
    let first = is_limited.then(|| alone.connect(port));
    std::thread::sleep(Duration::from_millis(100));
    let mut stream = alone.connect(port);
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("not zero");
    if !is_limited {
        let _ = stream.write_all(words.as_bytes());
        if words.starts_with("GET") {
            // All of the answers, before the end.
            let mut heard = Vec::new();
            let mut piece = [0; 1000];
            let answers = words.matches("GET").count();
            while heard.windows(5).filter(|five| five == b"hello").count() < answers {
                match stream.read(&mut piece) {
                    Ok(count) if count > 0 => heard.extend_from_slice(&piece[..count]),
                    other => panic!("{port}: {other:?}"),
                }
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
    }
    let _ = stream.read_to_end(&mut Vec::new());
    drop(first);
}

#[test]
fn every_connection_has_its_line_in_the_log_of_its_listener() {
    check_with(
        &resources(),
        |namespace, _| server(namespace),
        |alone| {
            let ports = || (FIRST..).zip(CASES);
            for (port, (kind, words)) in ports() {
                for words in *words {
                    say(alone, port, kind.starts_with("limit"), words);
                }
            }
            std::thread::sleep(Duration::from_millis(500));
            let log = alone.access_log();
            let told = ports().map(|(port, (kind, _))| {
                let is_told = |line: &&str| line.starts_with(&format!("{port} "));
                let mut lines: Vec<_> = log.lines().filter(is_told).collect();
                lines.sort_unstable();
                let names = [
                    format!("http.s{port}.downstream_cx_total"),
                    format!("http.s{port}.downstream_cx_active"),
                    format!("tcp.s{port}.downstream_cx_total"),
                ];
                let counts = counters(alone, &names.each_ref().map(String::as_str));
                format!("{kind}: {}\n  {}", lines.join("\n  "), counts.join(", "))
            });
            told.collect()
        },
    );
}
