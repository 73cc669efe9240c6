//! What a cluster says of requests in place of their routes: retries, hashes, copies.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::{
    Case, ECHO, Manager, Seen, answers, check_with, cluster, configuration, counters, echo, get,
};

use super::retries::{Attempts, flaky, with_attempts};

const FLAKY: u16 = 9003;
/// Gets copies.
const SHADOW: u16 = 9002;
const RING: [u16; 4] = [9011, 9012, 9013, 9014];

/// A cluster with these fields of `HttpProtocolOptions`, and more of its own.
fn with_options(name: &str, ports: &[u16], options: &str, more: &str) -> String {
    let options = format!(
        "{{ {more}typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{
             \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions,
             explicit_http_config: {{ http_protocol_options: {{}} }}, {options} }} }}, "
    );
    cluster(name, ports).replacen("{ ", &options, 1)
}

const RETRIES: &[Case] = &[
    get("/none", &[("x-script", "503 503 200")]),
    get("/none", &[("x-script", "503 503 503")]),
    get("/none", &[("x-script", "slow 200")]),
    get("/none", &[("x-script", "404")]),
    get("/none", &[("x-script", "503 200")])
        .method("POST")
        .body("sent again"),
    get("/never", &[("x-script", "503 200")]),
    get("/other", &[("x-script", "503 503 200")]),
    get("/other", &[("x-script", "409 200")]),
    get("/emptied", &[("x-script", "503 200")]),
    get("/plain", &[("x-script", "503 200")]),
    get("/timed", &[]),
];

fn retries_resources() -> String {
    let route = |path: &str, cluster: &str, more: &str| {
        format!("{{ match: {{ path: {path} }}, route: {{ cluster: {cluster}, {more} }} }}, ")
    };
    let routes = [
        route("/none", "own", ""),
        route("/never", "own", "retry_policy: {}"),
        route(
            "/other",
            "own",
            "retry_policy: { retry_on: retriable-4xx, num_retries: 4, per_try_timeout: 5s }",
        ),
        route("/emptied", "emptied", "retry_policy: { retry_on: 5xx }"),
        route("/plain", "plain", ""),
        route(
            "/timed",
            "timed",
            "retry_policy: { retry_on: 5xx, per_try_timeout: 7s }",
        ),
    ];
    let manager = Manager {
        routes: format!(
            "virtual_hosts: [{{ name: all, domains: [\"*\"], include_request_attempt_count: true,
               retry_policy: {{ retry_on: 5xx, num_retries: 1 }}, routes: [{}] }}]",
            routes.concat()
        ),
        ..Manager::default()
    };
    let own = "retry_policy: { retry_on: 5xx, num_retries: 2, per_try_timeout: 0.3s, retry_back_off: { base_interval: 0.001s } }";
    let timed = "retry_policy: { retry_on: 5xx, per_try_timeout: 3s }";
    let clusters = [
        with_options("own", &[FLAKY], own, ""),
        with_options("emptied", &[FLAKY], "retry_policy: {}", ""),
        with_options("timed", &[ECHO], timed, ""),
        cluster("plain", &[FLAKY]),
    ];
    configuration(&[manager], &clusters)
}

#[test]
fn retries_of_a_cluster_take_the_place_of_those_of_its_routes() {
    let kept = Arc::new(Mutex::new(Attempts::default()));
    check_with(
        &retries_resources(),
        |namespace, _| {
            kept.lock().expect("no panic holds it").clear();
            flaky(namespace, FLAKY, kept.clone());
        },
        |alone| {
            let answers = RETRIES.iter().enumerate();
            let answers = answers.map(|(number, case)| case.answer(alone, number));
            let mut lines = with_attempts(alone, RETRIES, answers.collect(), &kept);
            let names = [
                "upstream_rq_retry",
                "upstream_rq_retry_limit_exceeded",
                "upstream_rq_per_try_timeout",
            ];
            let names = names.map(|name| format!("cluster.own.{name}"));
            lines.extend(counters(alone, &names.each_ref().map(String::as_str)));
            lines
        },
    );
}

const KEYS: [&str; 5] = ["one", "two", "three", "four", "five"];

/// Path, cluster, hash policies of the route.
const HASHED: &[(&str, &str, &str)] = &[
    ("/none", "http", ""),
    (
        "/other",
        "http",
        "hash_policy: [{ header: { header_name: x-route } }]",
    ),
    ("/lb-none", "lb", ""),
    (
        "/lb-other",
        "lb",
        "hash_policy: [{ header: { header_name: x-route } }]",
    ),
    (
        "/both",
        "both",
        "hash_policy: [{ header: { header_name: x-route } }]",
    ),
    ("/cookie", "cookie", ""),
    ("/lb-cookie", "lb-cookie", ""),
    ("/random", "random", ""),
];

fn hash_resources() -> String {
    let routes = HASHED.iter().map(|(path, cluster, more)| {
        format!("{{ match: {{ path: {path} }}, route: {{ cluster: {cluster}, {more} }} }}, ")
    });
    let manager = Manager::with_routes(&routes.collect::<String>());
    let by = |header: &str| format!("hash_policy: [{{ header: {{ header_name: {header} }} }}]");
    let made = "hash_policy: [{ cookie: { name: made, ttl: 0s } }]";
    let lb = |policy: &str| {
        format!(
            "load_balancing_policy: {{ policies: [{{ typed_extension_config: {{ name: ring, typed_config: {{
               \"@type\": type.googleapis.com/envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash,
               consistent_hashing_lb_config: {{ {policy} }} }} }} }}] }}, "
        )
    };
    let ring = "lb_policy: RING_HASH, ";
    let clusters = [
        with_options("http", &RING, &by("x-http"), ring),
        with_options("lb", &RING, "", &lb(&by("x-lb"))),
        with_options("both", &RING, &by("x-http"), &lb(&by("x-lb"))),
        with_options("cookie", &RING, made, ring),
        with_options("lb-cookie", &RING, "", &lb(made)),
        with_options("random", &RING[..1], made, ""),
    ];
    configuration(&[manager], &clusters)
}

#[test]
fn hashes_of_a_cluster_take_the_place_of_those_of_its_routes() {
    let mut cases = Vec::new();
    let paths = HASHED.iter().map(|(path, _, _)| *path);
    for path in paths.filter(|path| !path.contains("cookie") && !path.contains("random")) {
        for key in KEYS {
            // What should not count is another each time, and would be seen.
            let other: &'static str = format!("{key}{path}").leak();
            cases.push(match path {
                "/none" | "/other" => get(path, &*vec![("x-http", key), ("x-route", other)].leak()),
                _ => get(
                    path,
                    &*vec![("x-lb", key), ("x-http", other), ("x-route", other)].leak(),
                ),
            });
        }
    }
    let known: &[_] = &[("cookie", "made=12345")];
    cases.extend(["/cookie", "/lb-cookie"].map(|path| get(path, known)));
    check_with(
        &hash_resources(),
        |namespace, _| RING.into_iter().for_each(|port| drop(echo(namespace, port))),
        |alone| {
            let mut lines = answers(alone, &cases);
            lines.extend(["/cookie", "/lb-cookie", "/random"].map(|path| makes_cookie(alone, path)));
            lines
        },
    );
}

/// Whether clients get a cookie that they do not have.
fn makes_cookie(alone: &Alone, path: &'static str) -> String {
    let answer = get(path, &[]).answer(alone, 1000);
    format!("{path}: {}", answer.contains("set-cookie: made="))
}

const COPIED: &[Case] = &[
    get("/none", &[]),
    get("/own", &[]),
    get("/none", &[]).method("POST").body("a body"),
    get("/nobody", &[]),
    get("/plain", &[]),
    get("/chain", &[]),
];

fn mirror_resources() -> String {
    let to = |host: &str| {
        format!("request_mirror_policies: [{{ cluster: shadow, host_rewrite_literal: {host} }}]")
    };
    let routes = format!(
        "{{ match: {{ path: /none }}, route: {{ cluster: mirrored }} }},
         {{ match: {{ path: /own }}, route: {{ cluster: mirrored, {} }} }},
         {{ match: {{ path: /nobody }}, route: {{ cluster: seldom, {} }} }},
         {{ match: {{ path: /chain }}, route: {{ cluster: echo, request_mirror_policies: [{{ cluster: mirrored }}] }} }},
         {{ match: {{ path: /plain }}, route: {{ cluster: echo }} }}",
        to("of-route"),
        to("of-route"),
    );
    let manager = Manager {
        routes: format!(
            "virtual_hosts: [{{ name: all, domains: [\"*\"], {}, routes: [{routes}] }}]",
            to("of-host")
        ),
        ..Manager::default()
    };
    let never = "request_mirror_policies: [{ cluster: shadow, runtime_fraction: { default_value: { numerator: 0 } } }]";
    let clusters = [
        cluster("shadow", &[SHADOW]),
        with_options("mirrored", &[ECHO], &to("of-cluster"), ""),
        with_options("seldom", &[ECHO], never, ""),
    ];
    configuration(&[manager], &clusters)
}

#[test]
fn copies_of_a_cluster_take_the_place_of_those_of_its_routes() {
    let kept: Mutex<Seen> = Mutex::default();
    check_with(
        &mirror_resources(),
        |namespace, _| *kept.lock().expect("no panic holds it") = echo(namespace, SHADOW),
        |alone| {
            let lines = COPIED.iter().enumerate().map(|(number, case)| {
                let answer = case.answer(alone, number);
                // Nothing says that no copy comes.
                std::thread::sleep(Duration::from_millis(200));
                let seen = kept.lock().expect("no panic holds it");
                let copies = seen.lock().expect("no panic holds it").split_off(0);
                format!("{}: {answer} copies {copies:?}", case.path)
            });
            lines.collect()
        },
    );
}
