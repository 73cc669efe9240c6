//! Routes with the priority HIGH: limits, gauges and connections of their own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::{Case, FRONT, Manager, answers, check, check_with, cluster, configuration, counters, get};
use e2e::http::Request;
use e2e::netns::Namespace;
use e2e::process::until;

/// Keeps its connections, and answers all but what asks it to be silent.
const KEEPER: u16 = 9003;

/// Clusters by what their limits are.
const LIMITS: &[(&str, &str)] = &[
    (
        "requests-high",
        "thresholds: [{ priority: HIGH, max_requests: 0 }]",
    ),
    (
        "requests-low",
        "thresholds: [{ priority: DEFAULT, max_requests: 0 }]",
    ),
    (
        "pending-high",
        "thresholds: [{ priority: HIGH, max_pending_requests: 0 }]",
    ),
    ("pending-low", "thresholds: [{ max_pending_requests: 0 }]"),
    (
        "first-wins",
        "thresholds: [{ priority: HIGH, max_requests: 0 }, { priority: HIGH, max_requests: 9 }, { priority: DEFAULT, max_requests: 9 }]",
    ),
    (
        "both",
        "thresholds: [{ priority: HIGH, max_requests: 5, track_remaining: true }, { max_requests: 0, track_remaining: true }]",
    ),
    ("retries-high", "thresholds: [{ priority: HIGH, max_retries: 0 }]"),
    ("retries-low", "thresholds: [{ max_retries: 0 }]"),
];

const CASES: &[Case] = &[
    get("/low/requests-high", &[]),
    get("/high/requests-high", &[]),
    get("/low/requests-low", &[]),
    get("/high/requests-low", &[]),
    get("/low/pending-high", &[]),
    get("/high/pending-high", &[]),
    get("/low/pending-low", &[]),
    get("/high/pending-low", &[]),
    get("/low/first-wins", &[]),
    get("/high/first-wins", &[]),
    get("/low/both", &[]),
    get("/high/both", &[]),
    get("/low/retries-high", &[("x-status", "503")]),
    get("/high/retries-high", &[("x-status", "503")]),
    get("/low/retries-low", &[("x-status", "503")]),
    get("/high/retries-low", &[("x-status", "503")]),
];

/// A route of either priority to each cluster.
fn manager(clusters: &[&str]) -> Manager {
    let routes = clusters.iter().flat_map(|name| {
        [("low", "DEFAULT"), ("high", "HIGH")].map(|(path, priority)| {
            format!(
                "{{ match: {{ prefix: /{path}/{name} }}, route: {{ cluster: {name}, priority: {priority},
                     retry_policy: {{ retry_on: 5xx, retry_back_off: {{ base_interval: 0.001s }} }} }} }}, "
            )
        })
    });
    Manager::with_routes(&routes.collect::<String>())
}

fn limited(name: &str, port: u16, limits: &str) -> String {
    cluster(name, &[port]).replacen("{ ", &format!("{{ circuit_breakers: {{ {limits} }}, "), 1)
}

#[test]
fn each_priority_has_limits_of_its_own() {
    let names: Vec<_> = LIMITS.iter().map(|(name, _)| *name).collect();
    let clusters: Vec<_> = LIMITS
        .iter()
        .map(|(name, limits)| limited(name, e2e::beside::ECHO, limits))
        .collect();
    let resources = configuration(&[manager(&names)], &clusters);
    check(&resources, CASES);
    check_with(
        &resources,
        |_, _| {},
        |alone| {
            let _ = answers(alone, CASES);
            let mut lines = Vec::new();
            for name in &names {
                let names = [
                    "upstream_rq_active_overflow",
                    "upstream_rq_pending_overflow",
                    "upstream_rq_retry_overflow",
                ];
                let names = names.map(|counter| format!("cluster.{name}.{counter}"));
                lines.extend(counters(alone, &names.each_ref().map(String::as_str)));
            }
            lines.extend(limits_shown(alone));
            lines
        },
    );
}

/// What `/clusters` says of limits, sorted.
fn limits_shown(alone: &Alone) -> Vec<String> {
    let text = alone.admin("/clusters").expect("the admin interface").body;
    let mut lines: Vec<_> = text
        .lines()
        .filter(|line| line.contains("_priority::"))
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

#[test]
fn requests_of_both_priorities_are_counted_and_connected_apart() {
    let limits = "thresholds: [{ max_requests: 2, track_remaining: true }, { priority: HIGH, max_requests: 1, track_remaining: true }]";
    let resources = configuration(&[manager(&["kept"])], &[limited("kept", KEEPER, limits)]);
    check_with(&resources, |namespace, _| keeper(namespace), steps);
}

fn steps(alone: &Alone) -> Vec<String> {
    const SILENT: &[(&str, &str)] = &[("x-silent", "1")];
    let mut lines = vec!["one silent request of HIGH:".to_owned()];
    let first = begin(alone, "/high/kept", SILENT);
    active(alone, 1);
    lines.extend(seen(alone, &["/high/kept", "/low/kept"]));
    lines.push("and two of DEFAULT:".to_owned());
    let others = [(); 2].map(|()| begin(alone, "/low/kept", SILENT));
    active(alone, 3);
    lines.extend(seen(alone, &["/low/kept", "/high/kept"]));
    lines.push("HIGH is free again:".to_owned());
    drop(first);
    active(alone, 2);
    lines.extend(seen(alone, &["/high/kept", "/low/kept"]));
    drop(others);
    active(alone, 0);
    lines.extend(seen(alone, &["/low/kept"]));
    lines
}

/// Status and overload header of each, then gauges.
fn seen(alone: &Alone, paths: &[&str]) -> Vec<String> {
    let answers = paths.iter().map(|path| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FRONT));
        let answer = alone.send(address, &Request::get("a", path)).expect("an answer");
        let overloaded = answer
            .head
            .headers
            .iter()
            .any(|(name, _)| name == "x-envoy-overloaded");
        format!("{path} {} {overloaded}", answer.status())
    });
    let mut lines: Vec<_> = answers.collect();
    let gauges = ["default", "high"].map(|priority| {
        [
            "cx_open",
            "rq_open",
            "rq_pending_open",
            "rq_retry_open",
            "remaining_rq",
        ]
        .map(|gauge| format!("cluster.kept.circuit_breakers.{priority}.{gauge}"))
    });
    let gauges = gauges.as_flattened();
    let names: Vec<_> = gauges.iter().map(String::as_str).collect();
    lines.extend(counters(alone, &names));
    lines
}

fn active(alone: &Alone, count: usize) {
    until("requests in flight", Duration::from_secs(5), || {
        let shown = counters(alone, &["cluster.kept.upstream_rq_active"]);
        (shown == [format!("cluster.kept.upstream_rq_active: {count}")]).then_some(())
    });
}

/// Sends a request, and does not wait for its answer.
fn begin(alone: &Alone, path: &str, headers: &[(&str, &str)]) -> TcpStream {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let mut stream = alone.connect(FRONT);
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("a connection");
    stream
}

fn keeper(namespace: &Namespace) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, KEEPER)).expect("a free port"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            std::thread::spawn(move || keep(stream));
        }
    });
}

fn keep(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        head.extend_from_slice(&bytes[..count]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        if !head.windows(8).any(|name| name == b"x-silent")
            && stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .is_err()
        {
            return;
        }
        head.clear();
    }
}
