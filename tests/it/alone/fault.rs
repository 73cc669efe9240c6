//! Faults: who waits, who is answered by the proxy, and what is counted.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use e2e::alone::Alone;
use e2e::beside::{
    self, Case, FRONT, Manager, answers, check_with, configuration, counters, for_route, from, get,
};
use e2e::http::Request;

const FILTER: &str = "envoy.filters.http.fault";
const FAULT: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
const ALL: &str = "percentage: { numerator: 100 }";

/// Path and the fault of its route.
fn routes() -> Vec<(&'static str, String)> {
    let abort = |what: &str| format!("abort: {{ {what}, {ALL} }}");
    vec![
        ("/status", abort("http_status: 418")),
        ("/ok", abort("http_status: 200")),
        ("/unavailable", abort("http_status: 503")),
        ("/grpc", abort("grpc_status: 14")),
        ("/grpc-large", abort("grpc_status: 1000")),
        (
            "/body",
            format!("abort: {{ http_status: 555, {ALL}, response_body: \"go away\" }}"),
        ),
        (
            "/never",
            "abort: { http_status: 418, percentage: { numerator: 0 } }".into(),
        ),
        ("/unset", "abort: { http_status: 418 }".into()),
        (
            "/million",
            "abort: { http_status: 418, percentage: { numerator: 1000000, denominator: MILLION } }".into(),
        ),
        (
            "/more",
            "abort: { http_status: 418, percentage: { numerator: 1000 } }".into(),
        ),
        ("/by-header", abort("header_abort: {}")),
        (
            "/by-header-never",
            "abort: { header_abort: {}, percentage: { numerator: 0 } }".into(),
        ),
        (
            "/by-header-few",
            "abort: { header_abort: {}, percentage: { numerator: 100, denominator: TEN_THOUSAND } }".into(),
        ),
        ("/delay", format!("delay: {{ fixed_delay: 0.3s, {ALL} }}")),
        (
            "/delay-by-header",
            format!("delay: {{ header_delay: {{}}, {ALL} }}"),
        ),
        (
            "/both",
            format!(
                "delay: {{ fixed_delay: 0.3s, {ALL} }}, {}",
                abort("http_status: 429")
            ),
        ),
        (
            "/cluster",
            format!("{}, upstream_cluster: echo", abort("http_status: 418")),
        ),
        (
            "/other-cluster",
            format!("{}, upstream_cluster: dead", abort("http_status: 418")),
        ),
        (
            "/node",
            format!("{}, downstream_nodes: [one, two]", abort("http_status: 418")),
        ),
        (
            "/header",
            format!(
                "{}, headers: [{{ name: x-fail, string_match: {{ prefix: ye }} }}]",
                abort("http_status: 418")
            ),
        ),
        (
            "/path",
            format!(
                "{}, headers: [{{ name: \":path\", string_match: {{ suffix: fail }} }}]",
                abort("http_status: 418")
            ),
        ),
        (
            "/none-active",
            format!("{}, max_active_faults: 0", abort("http_status: 418")),
        ),
        (
            "/one-active",
            format!("{}, max_active_faults: 1", abort("http_status: 418")),
        ),
        (
            "/rate-by-header",
            format!("response_rate_limit: {{ header_limit: {{}}, {ALL} }}"),
        ),
    ]
}

const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc")];

const CASES: &[Case] = &[
    get("/status", &[]),
    get("/status", GRPC),
    get("/status", &[]).method("HEAD"),
    get("/status", &[]).method("POST").body("some body"),
    get("/ok", &[]),
    get("/unavailable", &[]),
    get("/unavailable", GRPC),
    get("/grpc", &[]),
    get("/grpc", GRPC),
    get("/grpc-large", GRPC),
    get("/body", &[]),
    get("/body", GRPC),
    get("/never", &[]),
    get("/unset", &[]),
    get("/million", &[]),
    get("/more", &[]),
    get("/by-header", &[]),
    get("/by-header", &[("x-envoy-fault-abort-request", "418")]),
    get("/by-header", &[("x-envoy-fault-abort-request", "no number")]),
    get("/by-header", &[("x-envoy-fault-abort-request", "100")]),
    get("/by-header", &[("x-envoy-fault-abort-request", "600")]),
    get(
        "/by-header",
        &[
            ("x-envoy-fault-abort-grpc-request", "5"),
            ("content-type", "application/grpc"),
        ],
    ),
    get("/by-header", &[("x-envoy-fault-abort-grpc-request", "5")]),
    get(
        "/by-header",
        &[
            ("x-envoy-fault-abort-request", "418"),
            ("x-envoy-fault-abort-grpc-request", "5"),
            ("content-type", "application/grpc"),
        ],
    ),
    get(
        "/by-header",
        &[
            ("x-envoy-fault-abort-request", "418"),
            ("x-envoy-fault-abort-request-percentage", "0"),
        ],
    ),
    get(
        "/by-header",
        &[
            ("x-envoy-fault-abort-request", "418"),
            ("x-envoy-fault-abort-request-percentage", "100"),
        ],
    ),
    get(
        "/by-header",
        &[
            ("x-envoy-fault-abort-request", "418"),
            ("x-envoy-fault-abort-request-percentage", "many"),
        ],
    ),
    get(
        "/by-header-never",
        &[
            ("x-envoy-fault-abort-request", "418"),
            ("x-envoy-fault-abort-request-percentage", "100"),
        ],
    ),
    get(
        "/by-header-few",
        &[
            ("x-envoy-fault-abort-request", "418"),
            ("x-envoy-fault-abort-request-percentage", "0"),
        ],
    ),
    get("/status", &[("x-envoy-fault-abort-request", "503")]),
    get("/delay", &[]),
    get("/delay", &[]).method("POST").body("some body"),
    get("/delay-by-header", &[]),
    get("/delay-by-header", &[("x-envoy-fault-delay-request", "300")]),
    get("/delay-by-header", &[("x-envoy-fault-delay-request", "0")]),
    get("/delay-by-header", &[("x-envoy-fault-delay-request", "-1")]),
    get(
        "/delay-by-header",
        &[
            ("x-envoy-fault-delay-request", "300"),
            ("x-envoy-fault-delay-request-percentage", "0"),
        ],
    ),
    get("/both", &[]),
    get("/both", GRPC),
    get("/cluster", &[]),
    get("/other-cluster", &[]),
    get("/node", &[]),
    get("/node", &[("x-envoy-downstream-service-node", "two")]),
    get("/node", &[("x-envoy-downstream-service-node", "three")]),
    get("/header", &[]),
    get("/header", &[("x-fail", "yes")]),
    get("/header", &[("x-fail", "no")]),
    get("/path/fail", &[]),
    get("/path/pass", &[]),
    get("/none-active", &[]),
    get("/one-active", &[]),
    get(
        "/rate-by-header",
        &[("x-envoy-fault-throughput-response", "1000")],
    ),
    get("/rate-by-header", &[("x-envoy-fault-throughput-response", "0")]),
    // The listener's own fault: for routes without one, direct responses, and requests without a route.
    get("/plain", &[]).listener(1),
    get("/plain-direct", &[]).listener(1),
    get("/plain-redirect", &[]).listener(1),
    get("/off", &[]).listener(1),
    get("/own", &[]).listener(1),
    get("/empty", &[]).listener(1),
    from("nobody", "/", &[]).listener(1),
    get("/shares", &[]).listener(1),
    // The upstream's time begins after the delay; the stream's does not.
    get("/late", &[]).listener(1),
    get("/too-late", &[]).listener(1),
    get("/idle", &[]).listener(1),
];

fn configured() -> String {
    let by_route = routes().into_iter().map(|(path, fault)| {
        let settings = for_route(FILTER, FAULT, &fault);
        format!("{{ match: {{ prefix: {path} }}, {settings} route: {{ cluster: echo, prefix_rewrite: /rewritten }} }}, ")
    });
    // A longer path stands before those that it begins with.
    let mut by_route: Vec<String> = by_route.collect();
    by_route.reverse();
    let first = Manager::with_routes(&by_route.concat()).filter(FILTER, FAULT, "");
    let own = for_route(
        FILTER,
        FAULT,
        "abort: { http_status: 420, percentage: { numerator: 100 } }",
    );
    let empty = for_route(FILTER, FAULT, "");
    let late = for_route(
        FILTER,
        FAULT,
        "delay: { fixed_delay: 0.3s, percentage: { numerator: 100 } }",
    );
    let off = for_route(FILTER, "envoy.config.route.v3.FilterConfig", "disabled: true");
    let host = for_route(
        FILTER,
        FAULT,
        "abort: { http_status: 421, percentage: { numerator: 100 } }",
    );
    let second = Manager {
        routes: format!(
            "virtual_hosts: [{{ name: a, domains: [a], routes: [
               {{ match: {{ prefix: /plain-direct }}, direct_response: {{ status: 200 }} }},
               {{ match: {{ prefix: /plain-redirect }}, redirect: {{ host_redirect: b }} }},
               {{ match: {{ prefix: /plain }}, route: {{ cluster: echo }} }},
               {{ match: {{ prefix: /off }}, {off} route: {{ cluster: echo }} }},
               {{ match: {{ prefix: /own }}, {own} route: {{ cluster: echo }} }},
               {{ match: {{ prefix: /empty }}, {empty} route: {{ cluster: echo }} }},
               {{ match: {{ prefix: /late }}, {late} route: {{ cluster: echo, timeout: 0.2s }} }},
               {{ match: {{ prefix: /too-late }}, {late} route: {{ cluster: echo, timeout: 0s, max_stream_duration: {{ max_stream_duration: 0.1s }} }} }},
               {{ match: {{ prefix: /idle }}, {late} route: {{ cluster: echo, timeout: 0s, idle_timeout: 0.1s }} }},
               {{ match: {{ prefix: /shares }}, route: {{ weighted_clusters: {{ clusters: [{{ name: echo, weight: 1, {own} }}] }} }} }}] }},
             {{ name: b, domains: [b], {host} routes: [{{ match: {{ prefix: / }}, route: {{ cluster: echo }} }}] }}]"
        ),
        ..Manager::default()
    };
    let second = second.filter(
        FILTER,
        FAULT,
        "abort: { http_status: 419, percentage: { numerator: 100 } }",
    );
    configuration(&[first, second], &[])
}

#[test]
fn faults_are_envoys() {
    check_with(
        &configured(),
        |_, _| {},
        |alone| {
            let mut seen = answers(alone, CASES);
            seen.push(
                beside::Case {
                    host: "b",
                    ..get("/", &[]).listener(1)
                }
                .answer(alone, 900),
            );
            seen.push(left(alone));
            for path in ["/delay", "/both", "/delay-by-header", "/status"] {
                seen.push(format!("{path} waits: {}", waits(alone, path)));
            }
            let names = [
                "aborts_injected",
                "delays_injected",
                "faults_overflow",
                "active_faults",
                "response_rl_injected",
            ]
            .map(|name| format!("http.s{FRONT}.fault.{name}"));
            seen.extend(counters(alone, &names.each_ref().map(String::as_str)));
            seen
        },
    );
}

/// What the log says of a client that does not wait for the end of its delay.
fn left(alone: &Alone) -> String {
    alone.namespace.run(|| {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, FRONT)).expect("the proxy listens");
        let request = b"GET /delay HTTP/1.1\r\nhost: a\r\nx-case: left\r\n\r\n";
        client.write_all(request).expect("a connection");
        std::thread::sleep(Duration::from_millis(100));
    });
    alone.logged("left ")
}

/// Whether a request that asks for 300 ms takes them.
fn waits(alone: &Alone, path: &str) -> bool {
    let request = Request::get("a", path).header("x-envoy-fault-delay-request", "300");
    let start = Instant::now();
    let _ = alone
        .send(SocketAddr::from((Ipv4Addr::LOCALHOST, FRONT)), &request)
        .expect("an answer");
    // Envoy's timers may be a millisecond early.
    start.elapsed() >= Duration::from_millis(290)
}
