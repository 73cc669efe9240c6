//! `connection_limit`, and `local_ratelimit` of filter chains and of listeners: who may come in, what others see, what is counted and logged.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use e2e::alone::Alone;
use e2e::beside::{check_with, cluster, counters};
use e2e::netns::Namespace;

const SERVER: u16 = 9501;
const FIRST: u16 = 10_000;
const PATIENCE: Duration = Duration::from_secs(5);
const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const COUNT: &str = "network.connection_limit.v3.ConnectionLimit";
const RATE: &str = "network.local_ratelimit.v3.LocalRateLimit";
const LISTENER: &str = "listener.local_ratelimit.v3.LocalRateLimit";
/// Two, and no more for an hour.
const TWO: &str = "token_bucket: { max_tokens: 2, fill_interval: 3600s }";

/// The filter of each listener.
const FILTERS: [(&str, &str); 10] = [
    (COUNT, "max_connections: 2"),
    (COUNT, "max_connections: 2, delay: 0.4s"),
    (
        COUNT,
        "max_connections: 1, runtime_enabled: { default_value: false, runtime_key: none }",
    ),
    (RATE, TWO),
    (
        RATE,
        "token_bucket: { max_tokens: 2, fill_interval: 3600s }, runtime_enabled: { default_value: false, runtime_key: none }",
    ),
    // Five together, but for the last, whose bucket is another one.
    (
        RATE,
        "share_key: together, token_bucket: { max_tokens: 5, fill_interval: 3600s }",
    ),
    (
        RATE,
        "share_key: together, token_bucket: { max_tokens: 5, fill_interval: 3600s }",
    ),
    (
        RATE,
        "share_key: together, token_bucket: { max_tokens: 3, fill_interval: 3600s }",
    ),
    (LISTENER, TWO),
    (
        LISTENER,
        "token_bucket: { max_tokens: 2, fill_interval: 3600s }, runtime_enabled: { default_value: false, runtime_key: none }",
    ),
];

fn resources() -> String {
    let log = |text: &str| {
        format!(
            "access_log: [{{ name: l, typed_config: {{ \"@type\": {FILE_LOG}, path: /dev/stdout, log_format: {{ text_format_source: {{
          inline_string: \"{text} %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_HOST% %CONNECTION_TERMINATION_DETAILS%\\n\" }} }} }} }}]"
        )
    };
    let listeners = (FIRST..).zip(FILTERS).map(|(port, (kind, fields))| {
        let filter = format!(
            "{{ name: f, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.{kind}, stat_prefix: s{port}, {fields} }} }}"
        );
        let (listener, network, log_of_listener) = match kind {
            LISTENER => (filter, String::new(), log(&format!("{port} listener"))),
            _ => (String::new(), format!("{filter}, "), "access_log: []".to_owned()),
        };
        format!(
            "  - {{ name: l{port}, address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}, listener_filters: [{listener}], {},
      filter_chains: [{{ filters: [{network}{{ name: t, typed_config: {{ \"@type\": {TCP_PROXY}, stat_prefix: s{port}, cluster: server, {} }} }}] }}] }}\n",
            log_of_listener,
            log(&format!("{port} tcp"))
        )
    });
    format!(
        "  listeners:\n{}  clusters:\n  - {}\n",
        listeners.collect::<String>(),
        cluster("server", &[SERVER])
    )
}

fn server(namespace: &Namespace) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, SERVER)).expect("a free port"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut byte = [0];
                while let Ok(1) = stream.read(&mut byte) {
                    let _ = stream.write_all(&byte);
                }
            });
        }
    });
}

/// The connection, and what comes of it: it echoes, or it ends.
fn connect(alone: &Alone, port: u16) -> (TcpStream, String) {
    let mut stream = alone.connect(port);
    let began = Instant::now();
    // Asked only when there may be an answer: bytes that nobody reads make the end a reset, or not, by chance.
    let patience = if port == FIRST + 1 { 800 } else { 250 };
    stream
        .set_read_timeout(Some(Duration::from_millis(patience)))
        .expect("not zero");
    let told = match stream.read(&mut [0]) {
        Ok(_) => {
            let is_late = began.elapsed() > Duration::from_millis(350);
            format!("ended, late {is_late}")
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
            let mut byte = [0];
            let echoed = stream.write_all(b"?").and_then(|()| stream.read(&mut byte));
            format!("{echoed:?} {}", byte.escape_ascii())
        }
        Err(error) => format!("{:?}", error.kind()),
    };
    (stream, told)
}

/// One after the other to a listener: four, then one more when the first has gone.
fn tries(alone: &Alone, port: u16) -> String {
    let mut open: Vec<_> = (0..4).map(|_| connect(alone, port)).collect();
    let mut told: Vec<_> = open.iter().map(|(_, told)| told.clone()).collect();
    let name = format!("connection_limit.s{port}.active_connections");
    told.extend(counters(alone, &[&name]));
    drop(open.remove(0));
    thread::sleep(Duration::from_millis(300));
    told.push(connect(alone, port).1);
    format!("{port}: {}", told.join(", "))
}

#[test]
fn those_who_are_too_many_or_too_fast_are_closed() {
    check_with(
        &resources(),
        |namespace, _| server(namespace),
        |alone| {
            let ports = FIRST..FIRST + FILTERS.len() as u16;
            // Those that share a bucket take turns.
            let (alone_ones, together): (Vec<_>, Vec<_>) = ports
                .clone()
                .partition(|port| !(FIRST + 5..FIRST + 8).contains(port));
            let mut told: Vec<String> = thread::scope(|scope| {
                let running: Vec<_> = alone_ones
                    .iter()
                    .map(|port| scope.spawn(|| tries(alone, *port)))
                    .collect();
                let mut told: Vec<_> = together.iter().map(|port| tries(alone, *port)).collect();
                told.extend(running.into_iter().map(|each| each.join().expect("tries")));
                told
            });
            thread::sleep(Duration::from_millis(300));
            for port in ports {
                // Of a filter that is off Envoy's gauge goes below 0.
                let gauge = if port == FIRST + 2 {
                    "-"
                } else {
                    "active_connections"
                };
                let names = [
                    format!("connection_limit.s{port}.limited_connections"),
                    format!("connection_limit.s{port}.{gauge}"),
                    format!("local_rate_limit.s{port}.rate_limited"),
                    format!("listener_local_ratelimit.s{port}.rate_limited"),
                    format!("tcp.s{port}.downstream_cx_total"),
                    format!("listener.127.0.0.1_{port}.downstream_cx_total"),
                    format!("listener.127.0.0.1_{port}.downstream_cx_active"),
                ];
                told.extend(counters(alone, &names.each_ref().map(String::as_str)));
                let log = alone.access_log();
                // Envoy's listeners log what filter chains served, too.
                let is_told = |line: &&str| {
                    line.starts_with(&format!("{port} tcp"))
                        || line.starts_with(&format!("{port} listener - - 0 0"))
                };
                let mut lines: Vec<_> = log.lines().filter(is_told).collect();
                lines.sort_unstable();
                told.push(lines.join("\n"));
            }
            told
        },
    );
}
