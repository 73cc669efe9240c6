//! Who gets a request: priorities, health, localities, weights, ejections, limits.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use e2e::alone::Alone;
use e2e::http::Request;
use e2e::mesh::PATIENCE;
use e2e::netns::Namespace;
use e2e::process::until;
use e2e::proxy::Kind;

const FRONT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10_000);
const HOSTS: [u16; 4] = [9001, 9002, 9003, 9004];
/// Enough that a share is off by less than [`CLOSE`] in all but one of ten thousand runs.
const REQUESTS: u32 = 400;
const CLOSE: f64 = 0.1;

/// A cluster by what differs from others, and the share of each host; nobody answers what is left.
struct Shares {
    name: &'static str,
    settings: &'static str,
    /// Endpoints of localities.
    endpoints: &'static str,
    expected: [f64; 4],
}

const PANIC_OFF: &str = "common_lb_config: { healthy_panic_threshold: {} }";

const SHARES: &[Shares] = &[
    Shares {
        name: "spills",
        settings: PANIC_OFF,
        endpoints: "{ lb_endpoints: [9001, 9002 UNHEALTHY] }, { priority: 1, lb_endpoints: [9003, 9004] }",
        expected: [0.7, 0.0, 0.15, 0.15],
    },
    Shares {
        name: "fails-over",
        settings: PANIC_OFF,
        endpoints: "{ lb_endpoints: [9001 UNHEALTHY, 9002 DRAINING] }, { priority: 1, lb_endpoints: [9003, 9004] }",
        expected: [0.0, 0.0, 0.5, 0.5],
    },
    Shares {
        name: "overprovisioned",
        settings: PANIC_OFF,
        endpoints: "{ lb_endpoints: [9001, 9002, 9003, 9004 UNHEALTHY] }",
        expected: [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0],
    },
    Shares {
        name: "all-down",
        settings: PANIC_OFF,
        endpoints: "{ lb_endpoints: [9001 UNHEALTHY, 9002 TIMEOUT] }",
        expected: [0.0; 4],
    },
    Shares {
        name: "panics",
        settings: "lb_policy: RANDOM",
        endpoints: "{ lb_endpoints: [9001, 9002 UNHEALTHY, 9003 UNHEALTHY] }",
        expected: [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0],
    },
    Shares {
        name: "fails-in-panic",
        settings: "common_lb_config: { zone_aware_lb_config: { fail_traffic_on_panic: true } }",
        endpoints: "{ lb_endpoints: [9001, 9002 UNHEALTHY, 9003 UNHEALTHY] }",
        expected: [0.0; 4],
    },
    Shares {
        name: "draining-is-not-counted",
        settings: "lb_policy: RANDOM",
        endpoints: "{ lb_endpoints: [9001, 9002 DRAINING, 9003 DRAINING] }",
        expected: [1.0, 0.0, 0.0, 0.0],
    },
    Shares {
        name: "degraded",
        settings: PANIC_OFF,
        endpoints: "{ lb_endpoints: [9001, 9002 DEGRADED, 9003 UNHEALTHY, 9004 UNHEALTHY] }",
        expected: [0.5, 0.5, 0.0, 0.0],
    },
    Shares {
        name: "localities",
        settings: "common_lb_config: { locality_weighted_lb_config: {} }",
        endpoints: "{ locality: { zone: a }, load_balancing_weight: 1, lb_endpoints: [9001, 9002] }, \
                    { locality: { zone: b }, load_balancing_weight: 3, lb_endpoints: [9003] }",
        expected: [0.125, 0.125, 0.75, 0.0],
    },
    Shares {
        name: "locality-without-weight",
        settings: "common_lb_config: { locality_weighted_lb_config: {} }",
        endpoints: "{ locality: { zone: a }, load_balancing_weight: 1, lb_endpoints: [9001] }, \
                    { locality: { zone: b }, lb_endpoints: [9003] }",
        expected: [1.0, 0.0, 0.0, 0.0],
    },
    Shares {
        name: "weighted-turns",
        settings: "lb_policy: ROUND_ROBIN",
        endpoints: "{ lb_endpoints: [9001 HEALTHY 1, 9002 HEALTHY 2, 9003 HEALTHY 5] }",
        expected: [0.125, 0.25, 0.625, 0.0],
    },
    Shares {
        name: "weighted-least-request",
        settings: "lb_policy: LEAST_REQUEST",
        endpoints: "{ lb_endpoints: [9001 HEALTHY 1, 9002 HEALTHY 3] }",
        expected: [0.25, 0.75, 0.0, 0.0],
    },
    Shares {
        name: "random-knows-no-weights",
        settings: "lb_policy: RANDOM",
        endpoints: "{ lb_endpoints: [9001 HEALTHY 1, 9002 HEALTHY 9] }",
        expected: [0.5, 0.5, 0.0, 0.0],
    },
    Shares {
        name: "maglev",
        settings: "lb_policy: MAGLEV",
        endpoints: "{ lb_endpoints: [9001 HEALTHY 1, 9002 HEALTHY 3] }",
        expected: [0.25, 0.75, 0.0, 0.0],
    },
    Shares {
        name: "policy-extension",
        settings: "load_balancing_policy: { policies: [{ typed_extension_config: { name: p, typed_config: { \"@type\": \
                   type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin, locality_lb_config: \
                   { locality_weighted_lb_config: {} } } } }] }",
        endpoints: "{ locality: { zone: a }, load_balancing_weight: 1, lb_endpoints: [9001] }, \
                    { locality: { zone: b }, load_balancing_weight: 3, lb_endpoints: [9003] }",
        expected: [0.25, 0.0, 0.75, 0.0],
    },
];

#[test]
fn hosts_get_the_share_that_envoy_gives_them() {
    for kind in [Kind::Envoy, Kind::Outrigger] {
        let alone = start(kind);
        for Shares { name, expected, .. } in SHARES {
            let mut counts: BTreeMap<String, u32> = BTreeMap::new();
            for _ in 0..REQUESTS {
                let (status, body) = answer(&alone, &format!("/{name}/"));
                let who = if status == 200 {
                    body
                } else {
                    format!("{status} {body}")
                };
                *counts.entry(who).or_default() += 1;
            }
            for (port, expected) in HOSTS.iter().zip(expected) {
                let share =
                    f64::from(counts.get(&port.to_string()).copied().unwrap_or(0)) / f64::from(REQUESTS);
                let is_close = (share - expected).abs() < CLOSE && (*expected > 0.0 || share == 0.0);
                assert!(
                    is_close,
                    "{kind:?} {name}: {port} has {share} instead of {expected}: {counts:?}"
                );
            }
            let nobody = expected.iter().sum::<f64>() < 0.1;
            assert_eq!(
                nobody,
                counts.contains_key("503 no healthy upstream"),
                "{kind:?} {name}: {counts:?}"
            );
        }
    }
}

#[test]
fn a_host_that_answers_badly_is_left_out_and_comes_back() {
    let [envoy, outrigger] = [Kind::Envoy, Kind::Outrigger].map(|kind| {
        let alone = start(kind);
        let mut seen = Vec::new();
        for path in [
            "/outlier/500",
            "/outlier/",
            "/outlier/500",
            "/outlier/500",
            "/outlier/500",
        ] {
            seen.push(answer(&alone, path));
        }
        // Envoy ejects on its main thread.
        until("the ejection", PATIENCE, || {
            flags(&alone).contains("failed_outlier_check").then_some(())
        });
        seen.push(answer(&alone, "/outlier/"));
        let counters = stats(&alone, "cluster.outlier.outlier_detection");
        seen.push((0, flags(&alone)));
        seen.push((0, counters));
        seen.push((0, stats(&alone, "cluster.outlier.membership_")));
        until("the end of the ejection", PATIENCE, || {
            (answer(&alone, "/outlier/").0 == 200).then_some(())
        });
        seen.push((0, flags(&alone)));
        seen
    });
    for (envoy, outrigger) in envoy.iter().zip(&outrigger) {
        assert_eq!(envoy, outrigger);
    }
}

#[test]
fn requests_beyond_a_limit_are_answered_as_envoy_answers_them() {
    let [envoy, outrigger] = [Kind::Envoy, Kind::Outrigger].map(|kind| {
        let alone = start(kind);
        // Nobody may wait for a connection, and there is none.
        let mut seen = vec![answer_and_overload(&alone, "/no-pending/")];
        // One of three at a time. Not at once: Envoy's workers look at a limit before they count, and two of them may pass it.
        let mut three: Vec<_> = std::thread::scope(|scope| {
            let ask = |place: u64| {
                let alone = &alone;
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(100 * place));
                    answer_and_overload(alone, "/one-request/slow")
                })
            };
            let asked: Vec<_> = (0..3).map(ask).collect();
            asked
                .into_iter()
                .map(|one| one.join().expect("an answer"))
                .collect()
        });
        three.sort();
        seen.extend(three);
        // A request is over for the limits a moment after its answer is.
        std::thread::sleep(Duration::from_millis(300));
        for name in ["no-pending", "one-request"] {
            let prefix = format!("cluster.{name}.");
            for counter in [
                "upstream_rq_pending_overflow",
                "upstream_rq_active_overflow",
                "upstream_rq_503",
                "upstream_rq_total",
            ] {
                seen.push(stats(&alone, &format!("{prefix}{counter}")));
            }
            // Pools are not limited here, and Envoy's figure for what is left of no limit is 2^64 less their number.
            let gauges = stats(&alone, &format!("{prefix}circuit_breakers.default"));
            // How many connections three requests at once begin is a matter of microseconds, in both.
            let gauges = gauges.lines().filter(|line| !line.contains("remaining_cx"));
            seen.push(gauges.collect::<Vec<_>>().join("\n"));
        }
        seen
    });
    for (envoy, outrigger) in envoy.iter().zip(&outrigger) {
        assert_eq!(envoy, outrigger);
    }
}

fn answer(alone: &Alone, path: &str) -> (u16, String) {
    let response = alone.send(FRONT, &Request::get("a", path)).expect("an answer");
    (response.status(), response.body)
}

fn answer_and_overload(alone: &Alone, path: &str) -> String {
    let response = alone.send(FRONT, &Request::get("a", path)).expect("an answer");
    let overloaded = response.head.value("x-envoy-overloaded").unwrap_or("-");
    format!("{} {overloaded} {}", response.status(), response.body)
}

/// Health of the host of the cluster `outlier`.
fn flags(alone: &Alone) -> String {
    let clusters = alone.admin("/clusters").expect("admin");
    let line = clusters
        .body
        .lines()
        .find(|line| line.starts_with("outlier::127.0.0.1:9001::health_flags"));
    line.unwrap_or_default().to_owned()
}

/// Lines of `/stats` that begin with `prefix`.
fn stats(alone: &Alone, prefix: &str) -> String {
    let stats = alone.admin("/stats").expect("admin");
    let mut lines: Vec<_> = stats
        .body
        .lines()
        .filter(|line| line.starts_with(prefix))
        .collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn start(kind: Kind) -> Alone {
    Alone::start(kind, &configuration(), |namespace, _| {
        HOSTS.iter().for_each(|port| host(namespace, *port));
    })
}

/// Answers with its port: 500 for paths that end with that, and slowly for `slow`.
fn host(namespace: &Namespace, port: u16) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if reader.read_line(&mut head).unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let path = head.split(' ').nth(1).unwrap_or_default();
                    if path.ends_with("slow") {
                        std::thread::sleep(Duration::from_millis(700));
                    }
                    let status = if path.ends_with("500") {
                        "500 Error"
                    } else {
                        "200 OK"
                    };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\n\r\n{port}");
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// Other clusters: name, settings.
const OTHERS: [(&str, &str); 3] = [
    (
        "outlier",
        "common_lb_config: { healthy_panic_threshold: {} }, outlier_detection: { consecutive_5xx: 3, interval: 0.5s, \
         base_ejection_time: 2s, max_ejection_percent: 100 }",
    ),
    (
        "no-pending",
        "circuit_breakers: { thresholds: [{ max_pending_requests: 0, track_remaining: true }] }",
    ),
    (
        "one-request",
        "circuit_breakers: { thresholds: [{ max_requests: 1, track_remaining: true }] }",
    ),
];

/// `9001 UNHEALTHY 3` as an endpoint of Envoy's YAML.
fn endpoint(text: &str) -> String {
    let mut words = text.split_whitespace();
    let port = words.next().unwrap_or_default();
    let health = words.next().unwrap_or("UNKNOWN");
    let weight = words.next().unwrap_or("1");
    format!(
        "{{ health_status: {health}, load_balancing_weight: {weight}, endpoint: {{ address: {{ socket_address: \
         {{ address: 127.0.0.1, port_value: {port} }} }} }} }}"
    )
}

fn cluster(name: &str, settings: &str, localities: &str) -> String {
    let mut endpoints = String::new();
    let mut rest = localities;
    while let Some((before, after)) = rest.split_once("lb_endpoints: [") {
        let (hosts, after) = after.split_once(']').expect("a list");
        let hosts: Vec<_> = hosts.split(',').map(endpoint).collect();
        endpoints.push_str(&format!("{before}lb_endpoints: [{}]", hosts.join(", ")));
        rest = after;
    }
    endpoints.push_str(rest);
    format!(
        "  - {{ name: {name}, type: STATIC, connect_timeout: 1s, {settings}, load_assignment: {{ cluster_name: {name}, \
         endpoints: [{endpoints}] }} }}\n"
    )
}

fn configuration() -> String {
    let names = SHARES
        .iter()
        .map(|shares| shares.name)
        .chain(OTHERS.map(|(name, _)| name));
    let routes: String = names
        .map(|name| {
            format!("              - {{ match: {{ prefix: /{name}/ }}, route: {{ cluster: {name} }} }}\n")
        })
        .collect();
    let shares = SHARES
        .iter()
        .map(|shares| cluster(shares.name, shares.settings, shares.endpoints));
    let others = OTHERS.map(|(name, settings)| cluster(name, settings, "{ lb_endpoints: [9001] }"));
    let clusters: String = shares.chain(others).collect();
    format!(
        "  clusters:
{clusters}  listeners:
  - name: front
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 10000 }} }}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes:
{routes}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
"
    )
}
