//! TCP: how long a connection may last, and which host it goes to by its client's address.

mod start;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use e2e::alone::Alone;
use e2e::beside::{check_with, counters};
use e2e::netns::Namespace;

/// Each says its port.
const SERVERS: [u16; 5] = [9301, 9302, 9303, 9304, 9305];
/// Listeners, in the order of [`FIELDS`].
const FIRST: u16 = 10_000;
const PATIENCE: Duration = Duration::from_secs(20);

const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const FILTER: &str = "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";

/// Of the filter.
const FIELDS: [&str; 6] = [
    "cluster: one, max_downstream_connection_duration: 0.4s",
    "cluster: one, max_downstream_connection_duration: 0.2s, max_downstream_connection_duration_jitter_percentage: { value: 100 }",
    "cluster: one, idle_timeout: 0.3s, max_downstream_connection_duration: 100s",
    "cluster: unanswered, max_downstream_connection_duration: 0.4s",
    "cluster: ring, hash_policy: [{ source_ip: {} }]",
    "cluster: maglev, hash_policy: [{ source_ip: {} }]",
];
const RING: u16 = FIRST + 4;
const MAGLEV: u16 = FIRST + 5;

fn resources() -> String {
    let listeners = (FIRST..).zip(FIELDS).map(|(port, fields)| {
        format!(
            "  - {{ name: l{port}, address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }},
      listener_filters: [{{ name: p, typed_config: {{ \"@type\": {FILTER} }} }}],
      filter_chains: [{{ filters: [{{ name: t, typed_config: {{ \"@type\": {TCP_PROXY}, stat_prefix: s{port}, {fields},
        access_log: [{{ name: l, typed_config: {{ \"@type\": {FILE_LOG}, path: /dev/stdout, log_format: {{ text_format_source: {{
          inline_string: \"{port} %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_HOST% %UPSTREAM_CLUSTER%\\n\" }} }} }} }}] }} }}] }}] }}\n"
        )
    });
    let cluster = |name: &str, more: &str, ports: &[u16]| {
        e2e::beside::cluster(name, ports).replacen("type: STATIC", &format!("type: STATIC{more}"), 1)
    };
    // Nobody answers at this address: its packets are dropped.
    let unanswered = cluster("unanswered", "", &SERVERS[..1])
        .replace("127.0.0.1", "192.0.2.1")
        .replace("connect_timeout: 1s", "connect_timeout: 60s");
    format!(
        "  listeners:\n{}  clusters:\n  - {}\n  - {unanswered}\n  - {}\n  - {}\n",
        listeners.collect::<String>(),
        cluster("one", "", &SERVERS[..1]),
        cluster("ring", ", lb_policy: RING_HASH", &SERVERS),
        cluster("maglev", ", lb_policy: MAGLEV", &SERVERS),
    )
}

fn servers(namespace: &Namespace) {
    let route = [
        "netns",
        "exec",
        namespace.name(),
        "ip",
        "route",
        "add",
        "192.0.2.0/24",
        "dev",
        "lo",
    ];
    let added = std::process::Command::new("ip").args(route).status();
    assert!(added.is_ok_and(|status| status.success()), "ip {route:?}");
    for port in SERVERS {
        let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                thread::spawn(move || {
                    let mut byte = [0];
                    while let Ok(1) = stream.read(&mut byte) {
                        let _ = stream.write_all(port.to_string().as_bytes());
                    }
                });
            }
        });
    }
}

/// A client at `address`, as a balancer says.
fn connect(alone: &Alone, port: u16, address: Ipv4Addr) -> TcpStream {
    let mut stream = alone.connect(port);
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let header = format!("PROXY TCP4 {address} 5.6.7.8 10 20\r\n");
    stream.write_all(header.as_bytes()).expect("open");
    stream
}

#[test]
fn a_connection_ends_at_its_age_or_when_it_is_idle() {
    check_with(
        &resources(),
        |namespace, _| servers(namespace),
        |alone| {
            let each = (FIRST..RING).map(|port| {
                let mut stream = connect(alone, port, Ipv4Addr::new(1, 2, 3, 4));
                let began = Instant::now();
                stream.write_all(b"?").expect("open");
                let mut answer = String::new();
                let end = stream.read_to_string(&mut answer).map_err(|error| error.kind());
                let took = began.elapsed();
                // The timer may have begun a moment before the client's clock.
                let (least, most) = if port == FIRST + 1 {
                    (190, 3000)
                } else {
                    (280, 3000)
                };
                let is_in_time = (least..most).contains(&took.as_millis());
                let line = alone.logged(&format!("{port} "));
                format!("{port}: {answer} {end:?} in time {is_in_time} log {line}")
            });
            let mut told: Vec<_> = each.collect();
            for port in FIRST..RING {
                let names = ["max_downstream_connection_duration", "idle_timeout"];
                let names = names.map(|name| format!("tcp.s{port}.{name}"));
                told.extend(counters(alone, &names.each_ref().map(String::as_str)));
            }
            told
        },
    );
}

#[test]
fn a_client_goes_to_the_host_that_its_address_hashes_to() {
    check_with(
        &resources(),
        |namespace, _| servers(namespace),
        |alone| {
            let clients = [RING, MAGLEV]
                .into_iter()
                .flat_map(|port| (1..=40).map(move |last| (port, last)));
            let each = clients.map(|(port, last)| {
                let mut stream = connect(alone, port, Ipv4Addr::new(10, 1, 2, last));
                stream.write_all(b"?").expect("open");
                let mut answer = [0; 4];
                stream.read_exact(&mut answer).expect("a server's port");
                format!("{port} {last}: {}", answer.escape_ascii())
            });
            each.collect()
        },
    );
}
