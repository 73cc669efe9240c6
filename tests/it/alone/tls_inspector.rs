//! The TLS inspector: how long a ClientHello may be, and what becomes of clients that say something else.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::thread;
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::{check_with, cluster};
use e2e::netns::Namespace;

const FIRST: u16 = 10_000;
/// Say which they are, after a byte.
const SERVERS: [u16; 2] = [9501, 9502];
const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const INSPECTOR: &str = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";

const FIELDS: [&str; 4] = [
    "",
    "max_client_hello_size: 1000",
    "close_connection_on_client_hello_parsing_errors: true",
    "max_client_hello_size: 16384, close_connection_on_client_hello_parsing_errors: true",
];

fn resources() -> String {
    let listeners = (FIRST..).zip(FIELDS).map(|(port, fields)| {
        let proxy = |cluster: &str| {
            format!("filters: [{{ name: t, typed_config: {{ \"@type\": {TCP_PROXY}, stat_prefix: s, cluster: {cluster} }} }}]")
        };
        format!(
            "  - {{ name: l{port}, address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }},
      listener_filters: [{{ name: i, typed_config: {{ \"@type\": {INSPECTOR}, {fields} }} }}],
      filter_chains: [{{ filter_chain_match: {{ transport_protocol: tls, server_names: [a.example] }}, {} }}], default_filter_chain: {{ {} }} }}\n",
            proxy("named"),
            proxy("other"),
        )
    });
    format!(
        "  listeners:\n{}  clusters:\n  - {}\n  - {}\n",
        listeners.collect::<String>(),
        cluster("named", &SERVERS[..1]),
        cluster("other", &SERVERS[1..]),
    )
}

fn servers(namespace: &Namespace) {
    for port in SERVERS {
        let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                thread::spawn(move || {
                    let mut all = Vec::new();
                    let _ = stream.read_to_end(&mut all);
                    let _ = stream.write_all(format!("{port} got {}", all.len()).as_bytes());
                });
            }
        });
    }
}

fn vector(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("short").to_be_bytes();
    [&length, bytes].concat()
}

/// A ClientHello in records, for `a.example`, with so many bytes of padding.
fn hello(padding: usize) -> Vec<u8> {
    let name = vector(&[&[0], &vector(b"a.example")[..]].concat());
    let extensions = [&[0, 0][..], &vector(&name), &[0, 21], &vector(&vec![0; padding])].concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &vector(&[0x13, 1]),
        &[1, 0],
        &vector(&extensions),
    ]
    .concat();
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    let message = [&[1], &length[1..], &body].concat();
    let records = message
        .chunks(16_384)
        .map(|part| [&[22, 3, 1][..], &vector(part)].concat());
    records.collect::<Vec<_>>().concat()
}

fn say(alone: &Alone, port: u16, bytes: &[u8]) -> String {
    let mut stream = alone.connect(port);
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("not zero");
    let _ = stream.write_all(bytes);
    // Envoy closes a connection whose end comes with its first bytes.
    thread::sleep(Duration::from_millis(100));
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    // Whether what came late is reset or lost is chance.
    let end = stream.read_to_end(&mut answer).is_ok_and(|count| count > 0);
    format!("served {end}: {}", answer.escape_ascii())
}

#[test]
fn client_hellos_are_read_as_far_as_in_envoy() {
    let mut broken = hello(10);
    // The length of the host name.
    broken[5 + 4 + 2 + 32 + 1 + 4 + 2 + 2 + 2 + 2 + 2 + 1] = 0xff;
    let mut cases = vec![
        ("plaintext", b"hello".to_vec()),
        ("http", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("begins well", b"\x16\x03\x01\x00\x05abcde".to_vec()),
        ("wrong name", broken),
        ("followed", [hello(10), vec![0; 5000]].concat()),
    ];
    for size in [0, 800, 920, 924, 925, 926, 927, 928, 930, 2000, 15_000] {
        cases.push(("hello", hello(size)));
    }
    check_with(
        &resources(),
        |namespace, _| servers(namespace),
        |alone| {
            let ports = (FIRST..).zip(FIELDS);
            let each = ports.flat_map(|(port, fields)| {
                cases.iter().map(move |(name, bytes)| {
                    format!("{fields} {name} of {}: {}", bytes.len(), say(alone, port, bytes))
                })
            });
            each.collect()
        },
    );
}
