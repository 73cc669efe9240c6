//! Hosts with several addresses: which one a request goes to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use e2e::beside::{Case, Manager, answers, check_with, configuration, counters, get};
use e2e::netns::Namespace;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, socket};

/// Where somebody answers.
const LIVE: [&str; 4] = ["127.0.0.1:9011", "127.0.0.1:9012", "[::1]:9013", "[::1]:9014"];
/// Accepts no connection: its queue is full.
const DEAF: &str = "127.0.0.1:9019";

/// Cluster, addresses, `happy_eyeballs_config`. Nobody listens on ports below 10.
const CLUSTERS: &[(&str, &str, &str)] = &[
    ("live", "127.0.0.1:9011 [::1]:9013", ""),
    ("live6", "[::1]:9013 127.0.0.1:9011", ""),
    ("second", "127.0.0.1:1 [::1]:9013", ""),
    ("second4", "[::1]:1 127.0.0.1:9011", ""),
    ("turns", "127.0.0.1:1 127.0.0.1:9011 [::1]:9013", ""),
    (
        "turns2",
        "127.0.0.1:1 127.0.0.1:9011 [::1]:9013",
        "first_address_family_count: 2",
    ),
    (
        "prefers6",
        "127.0.0.1:9011 [::1]:9013",
        "first_address_family_version: V6",
    ),
    (
        "prefers4",
        "[::1]:9013 127.0.0.1:9011",
        "first_address_family_version: V4",
    ),
    (
        "has-no-6",
        "127.0.0.1:9011 127.0.0.1:9012",
        "first_address_family_version: V6",
    ),
    (
        "prefers6-twice",
        "127.0.0.1:9011 [::1]:1 [::1]:2 [::1]:9013",
        "first_address_family_version: V6, first_address_family_count: 2",
    ),
    (
        "turns-again",
        "127.0.0.1:1 127.0.0.1:2 127.0.0.1:9011 [::1]:1 [::1]:9013",
        "first_address_family_count: 2",
    ),
    (
        "turns-on",
        "127.0.0.1:1 127.0.0.1:2 127.0.0.1:9011 [::1]:1 [::1]:9014",
        "",
    ),
    ("all-dead", "127.0.0.1:1 [::1]:2", ""),
    ("one", "127.0.0.1:9012", "first_address_family_version: V6"),
];

fn host(addresses: &str) -> String {
    let mut addresses = addresses.split(' ').map(|address| {
        let address: SocketAddr = address.parse().expect("an address");
        format!(
            "address: {{ socket_address: {{ address: \"{}\", port_value: {} }} }}",
            address.ip(),
            address.port()
        )
    });
    let first = addresses.next().expect("an address");
    let more: Vec<_> = addresses.map(|address| format!("{{ {address} }}")).collect();
    format!(
        "{{ endpoint: {{ {first}, additional_addresses: [{}] }} }}",
        more.join(", ")
    )
}

fn cluster(name: &str, addresses: &str, config: &str) -> String {
    format!(
        "{{ name: {name}, type: STATIC, connect_timeout: 2s, upstream_connection_options: {{ happy_eyeballs_config: {{ {config} }} }},
           load_assignment: {{ cluster_name: {name}, endpoints: [{{ lb_endpoints: [{}] }}] }} }}",
        host(addresses)
    )
}

#[test]
fn requests_go_to_the_address_that_they_go_to_in_envoy() {
    let names: Vec<_> = CLUSTERS.iter().map(|(name, ..)| *name).chain(["slow"]).collect();
    let routes = names
        .iter()
        .map(|name| format!("{{ match: {{ path: /{name} }}, route: {{ cluster: {name} }} }}, "));
    let clusters = CLUSTERS
        .iter()
        .map(|(name, addresses, config)| cluster(name, addresses, config))
        .chain([cluster("slow", &format!("{DEAF} [::1]:9013"), "")]);
    let resources = configuration(
        &[Manager::with_routes(&routes.collect::<String>())],
        &clusters.collect::<Vec<_>>(),
    );
    let cases: Vec<Case> = CLUSTERS
        .iter()
        .map(|(name, ..)| get(format!("/{name}").leak(), &[]))
        .collect();
    let deaf = Mutex::default();
    check_with(
        &resources,
        |namespace, _| {
            for address in LIVE {
                answer(namespace, address);
            }
            *deaf.lock().expect("no panic holds it") = Some(fill(namespace));
        },
        |alone| {
            let mut lines = answers(alone, &cases);
            let start = Instant::now();
            let slow = get("/slow", &[]).answer(alone, 1000);
            let millis = start.elapsed().as_millis();
            // A busy machine is late, never early.
            let is_in_time = (290..900).contains(&millis);
            lines.push(format!("{slow} after 300 ms: {is_in_time}"));
            for name in &names {
                let names = [
                    "upstream_cx_total",
                    "upstream_cx_connect_fail",
                    "upstream_cx_connect_timeout",
                ];
                let names = names.map(|counter| format!("cluster.{name}.{counter}"));
                lines.extend(counters(alone, &names.each_ref().map(String::as_str)));
            }
            lines
        },
    );
}

/// Answers with its address.
fn answer(namespace: &Namespace, address: &'static str) {
    let listener = namespace.run(|| TcpListener::bind(address).expect("a free port"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            let length = address.len();
            let text =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{address}");
            let _ = stream.write_all(text.as_bytes());
        }
    });
}

/// What keeps the queue of [`DEAF`] full: two connections fill a queue of one.
fn fill(namespace: &Namespace) -> (Vec<std::io::Result<TcpStream>>, std::os::fd::OwnedFd) {
    let address: SocketAddr = DEAF.parse().expect("an address");
    namespace.run(|| {
        let socket = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .expect("a socket");
        let name = SockaddrIn::new(127, 0, 0, 1, address.port());
        bind(socket.as_raw_fd(), &name).expect("a free port");
        listen(&socket, Backlog::new(0).expect("none")).expect("a bound socket");
        let wait = Duration::from_millis(300);
        let fill = (0..2).map(|_| TcpStream::connect_timeout(&address, wait));
        (fill.collect(), socket)
    })
}
