//! How much of a request's body is kept to send it again, and that copies of a request need no such room.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::{FRONT, Manager, check_with, cluster, configuration, counters};
use e2e::http::exchange;
use e2e::netns::Namespace;
use e2e::process::until;

/// Answers the first try of a request with 503, the next with 200, and how many bytes each had.
const FLAKY: u16 = 9002;
/// Gets copies.
const SHADOW: u16 = 9003;

const ROUTES: &[(&str, &str)] = &[
    ("/plain", ""),
    ("/older", "per_request_buffer_limit_bytes: 1000,"),
    ("/limit", "request_body_buffer_limit: 1000,"),
    (
        "/both",
        "request_body_buffer_limit: 3000, per_request_buffer_limit_bytes: 1000,",
    ),
    ("/much", "request_body_buffer_limit: 3000000,"),
    ("/nothing", "request_body_buffer_limit: 0,"),
    ("/nothing-older", "per_request_buffer_limit_bytes: 0,"),
];

/// Of virtual hosts; each in a listener of its own.
const HOSTS: &[&str] = &[
    "",
    "per_request_buffer_limit_bytes: 2000,",
    "request_body_buffer_limit: 2000,",
];

/// Of the last listener, which has the first virtual host again.
const LISTENER_BYTES: usize = 2500;

const SIZES: &[usize] = &[0, 1, 1000, 1001, 2001, 3001, 60_000];

type Bodies = Arc<Mutex<HashMap<String, Vec<usize>>>>;

/// Keeps the sizes of bodies by `x-case`; the first try fails.
fn sizes(namespace: &Namespace, port: u16, kept: &Bodies) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
    let kept = kept.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let kept = kept.clone();
            std::thread::spawn(move || answer(stream, &kept));
        }
    });
}

fn answer(mut stream: TcpStream, kept: &Mutex<HashMap<String, Vec<usize>>>) -> Option<()> {
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    let head_bytes = loop {
        let bytes = stream.read(&mut buffer).ok().filter(|bytes| *bytes > 0)?;
        got.extend_from_slice(&buffer[..bytes]);
        if let Some(at) = got.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8_lossy(&got[..head_bytes]).to_ascii_lowercase();
    let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let is_whole = |got: &[u8]| match value("content-length: ") {
        Some(length) => got.len() >= head_bytes + length.parse::<usize>().unwrap_or_default(),
        None => value("transfer-encoding: ").is_none() || got.ends_with(b"0\r\n\r\n"),
    };
    while !is_whole(&got) {
        let bytes = stream.read(&mut buffer).ok().filter(|bytes| *bytes > 0)?;
        got.extend_from_slice(&buffer[..bytes]);
    }
    let body = got[head_bytes..].iter().filter(|byte| **byte == b'x').count();
    let tries = {
        let mut kept = kept.lock().expect("no panic holds it");
        let tries = kept.entry(value("x-case: ")?.to_owned()).or_default();
        tries.push(body);
        tries.len()
    };
    let text = format!("try {tries} of {body} bytes");
    let status = if tries == 1 { 503 } else { 200 };
    let answer = format!(
        "HTTP/1.1 {status} Status\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(answer.as_bytes()).ok()
}

fn resources() -> String {
    let policy = "retry_policy: { retry_on: 5xx, num_retries: 1, retry_back_off: { base_interval: 0.001s } }";
    let routes: String = ROUTES
        .iter()
        .map(|(path, limits)| {
            format!(
                "{{ match: {{ path: {path} }}, {limits} route: {{ cluster: flaky, {policy}, request_mirror_policies: [{{ cluster: shadow }}] }} }}, "
            )
        })
        .collect();
    let managers = HOSTS.iter().chain(&HOSTS[..1]).map(|host| Manager {
        routes: format!("virtual_hosts: [{{ name: all, domains: [\"*\"], {host} routes: [{routes}] }}]"),
        ..Manager::default()
    });
    let managers: Vec<Manager> = managers.collect();
    // What waits for a server is not what is kept.
    let small = "{ per_connection_buffer_limit_bytes: 500, ";
    let flaky = cluster("flaky", &[FLAKY]).replacen("{ ", small, 1);
    let shadow = cluster("shadow", &[SHADOW]).replacen("{ ", small, 1);
    let last = FRONT + u16::try_from(HOSTS.len()).expect("a few");
    configuration(&managers, &[flaky, shadow]).replace(
        &format!("port_value: {last} }} }},"),
        &format!("port_value: {last} }} }}, per_connection_buffer_limit_bytes: {LISTENER_BYTES},"),
    )
}

#[test]
fn what_is_kept_of_a_request_is_limited_as_in_envoy() {
    let (tries, copies) = (Bodies::default(), Bodies::default());
    check_with(
        &resources(),
        |namespace, _| {
            for (port, kept) in [(FLAKY, &tries), (SHADOW, &copies)] {
                kept.lock().expect("no panic holds it").clear();
                sizes(namespace, port, kept);
            }
        },
        |alone| {
            let mut lines = Vec::new();
            for (listener, _) in (FRONT..).zip(HOSTS.iter().chain(&HOSTS[..1])) {
                for (path, _) in ROUTES {
                    for size in SIZES {
                        lines.push(ask(alone, listener, path, *size, false, &copies));
                    }
                }
                lines.push(ask(alone, listener, "/limit", 900, true, &copies));
                lines.push(ask(alone, listener, "/limit", 1001, true, &copies));
            }
            let names = [
                "upstream_rq_retry",
                "upstream_rq_retry_success",
                "retry_or_shadow_abandoned",
            ];
            let names = names.map(|name| format!("cluster.flaky.{name}"));
            lines.extend(counters(alone, &names.each_ref().map(String::as_str)));
            lines
        },
    );
}

/// What the client gets, and the size of the copy.
fn ask(alone: &Alone, port: u16, path: &str, size: usize, chunked: bool, copies: &Bodies) -> String {
    let name = format!("{port}{path}-{size}-{chunked}");
    let body = "x".repeat(size);
    let (length, body) = match chunked {
        true => (
            "transfer-encoding: chunked".into(),
            format!("{size:x}\r\n{body}\r\n0\r\n\r\n"),
        ),
        false => (format!("content-length: {size}"), body),
    };
    let wire = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nx-case: {name}\r\nconnection: close\r\n{length}\r\n\r\n{body}"
    );
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let response = exchange(&alone.namespace, address, wire.as_bytes()).expect("an answer");
    let copy = until(&format!("a copy of {name}"), Duration::from_secs(10), || {
        copies.lock().expect("no panic holds it").get(&name).cloned()
    });
    format!("{name}: {} {} copy {copy:?}", response.status(), response.body)
}
