//! Sessions that keep to a host, and hosts that requests name.

use std::net::{Ipv4Addr, SocketAddr};

use e2e::alone::Alone;
use e2e::beside::{FRONT, Manager, check_with, configuration, counters, echo, for_route};
use e2e::http::Request;

const FILTER: &str = "envoy.filters.http.stateful_session";
const MESSAGE: &str = "envoy.extensions.filters.http.stateful_session.v3.StatefulSession";
const PER_ROUTE: &str = "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute";

/// Base64 of a message with this address, and of the address alone.
const OF_9012: &str = "Cg4xMjcuMC4wLjE6OTAxMg==";
const PLAIN_9012: &str = "MTI3LjAuMC4xOjkwMTI=";
const PLAIN_9013_DRAINING: &str = "MTI3LjAuMC4xOjkwMTM=";
const PLAIN_9014_UNHEALTHY: &str = "MTI3LjAuMC4xOjkwMTQ=";
const PLAIN_9015_DEGRADED: &str = "MTI3LjAuMC4xOjkwMTU=";
const PLAIN_9099_GONE: &str = "MTI3LjAuMC4xOjkwOTk=";
const PLAIN_GARBAGE: &str = "Z2FyYmFnZQ==";
const LEADING_ZERO: &str = "MTI3LjAuMC4xOjA5MDEy";
/// The address with an expiry of 1 s after the machine began.
const EXPIRED_9012: &str = "Cg4xMjcuMC4wLjE6OTAxMhAB";

fn session(state: &str, more: &str) -> String {
    format!("session_state: {{ {state} }}, {more}")
}

fn cookie(fields: &str) -> String {
    format!(
        "name: envoy.http.stateful_session.cookie, typed_config: {{ \"@type\": \
         type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState, cookie: {{ {fields} }} }}"
    )
}

fn header(name: &str) -> String {
    format!(
        "name: envoy.http.stateful_session.header, typed_config: {{ \"@type\": \
         type.googleapis.com/envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState, name: {name} }}"
    )
}

/// Paths, headers; on all listeners.
fn requests() -> Vec<(&'static str, String, String)> {
    let mut requests = vec![("/", String::new(), String::new())];
    for value in [
        OF_9012,
        PLAIN_9012,
        PLAIN_9013_DRAINING,
        PLAIN_9014_UNHEALTHY,
        PLAIN_9015_DEGRADED,
        PLAIN_9099_GONE,
        PLAIN_GARBAGE,
        LEADING_ZERO,
        EXPIRED_9012,
        "no-base64!",
        "",
    ] {
        requests.push(("/", "cookie".into(), format!("a=b; session={value}")));
        requests.push(("/", "x-session".into(), value.into()));
    }
    for path in [
        "/a/b", "/ab", "/a?x=y", "/off", "/other", "/lenient", "/strict", "/one",
    ] {
        requests.push((path, "cookie".into(), format!("session=\"{PLAIN_9012}\"")));
        requests.push((path, "cookie".into(), format!("session=\"{PLAIN_9099_GONE}\"")));
        requests.push((path, "x-session".into(), PLAIN_9012.into()));
    }
    requests
}

#[test]
fn sessions_keep_to_their_host_as_in_envoy() {
    check_with(
        &resources(),
        |namespace, _| {
            for port in 9011..=9015 {
                echo(namespace, port);
            }
        },
        |alone| {
            let mut seen = Vec::new();
            for listener in 0..5 {
                for (path, name, value) in requests() {
                    let (answer, head) = ask(alone, FRONT + listener, path, &[(&name, &value)]);
                    seen.push(format!("{listener} {path} {name}: {value}: {answer} {head}"));
                }
            }
            let prefix = |listener: u16, name: &str| {
                format!("http.s{}.stateful_session.counted.{name}", FRONT + listener)
            };
            for listener in [0, 2] {
                let names = ["routed", "failed_open", "failed_closed", "no_session"]
                    .map(|name| prefix(listener, name));
                seen.extend(counters(alone, &names.each_ref().map(String::as_str)));
            }
            seen
        },
    );
}

#[test]
fn a_session_that_a_host_began_goes_back_to_it() {
    for kind in [e2e::proxy::Kind::Envoy, e2e::proxy::Kind::Outrigger] {
        let alone = Alone::start(kind, &resources(), |namespace, _| {
            for port in 9011..=9015 {
                echo(namespace, port);
            }
        });
        // Listener 1 has a cookie with a time to live, 3 a header.
        for (listener, header, reply) in [
            (0, "cookie", "set-cookie"),
            (1, "cookie", "set-cookie"),
            (3, "x-session", "x-session"),
        ] {
            let send = |headers: &[(&str, &str)]| {
                let mut request = Request::get("a", "/a");
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FRONT + listener));
                alone.send(address, &request).expect("an answer")
            };
            let first = send(&[]);
            let session = first.head.value(reply).expect("a session");
            let session = session.split(';').next().unwrap_or_default().to_owned();
            for _ in 0..6 {
                let again = send(&[(header, &session)]);
                assert_eq!(
                    again.body.split(' ').next(),
                    first.body.split(' ').next(),
                    "{kind:?} {session}"
                );
                assert_eq!(again.head.value(reply), None, "{kind:?} {session}");
            }
        }
    }
}

#[test]
fn hosts_that_requests_name_go_first() {
    let cases: &[&[(&str, &str)]] = &[
        &[("x-host", "127.0.0.1:9012")],
        &[("x-host", "127.0.0.1:9099, 127.0.0.1:9012")],
        &[("x-host", "127.0.0.1:9014")],
        &[("x-host", "garbage,,127.0.0.1:9012")],
        &[("x-other", "127.0.0.1:9012")],
        &[("x-host", "127.0.0.1:9099"), ("x-other", "127.0.0.1:9012")],
        // The first answers 503; the retry has the second.
        &[("x-host", "127.0.0.1:9012,127.0.0.1:9013"), ("x-status", "503")],
    ];
    check_with(
        &resources(),
        |namespace, _| {
            for port in 9011..=9015 {
                echo(namespace, port);
            }
        },
        |alone| {
            let seen = cases.iter().map(|headers| {
                let (answer, _) = ask(alone, FRONT + 4, "/named", headers);
                format!("{headers:?}: {answer}")
            });
            seen.collect()
        },
    );
}

/// Who answered what, and what the session is told.
fn ask(alone: &Alone, port: u16, path: &str, headers: &[(&str, &str)]) -> (String, String) {
    let mut request = Request::get("a", path);
    for (name, value) in headers.iter().filter(|(name, _)| !name.is_empty()) {
        request = request.header(name, value);
    }
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let response = alone.send(address, &request).expect("an answer");
    let all = response.head.headers.iter();
    let told =
        all.filter(|(name, _)| ["set-cookie", "x-session"].contains(&name.to_ascii_lowercase().as_str()));
    let told: Vec<String> = told
        // The time of expiry is another each time.
        .map(|(name, value)| match value.split_once(';') {
            Some((_, rest)) if rest.contains("Max-Age") => format!("{name}: …;{rest}"),
            _ => format!("{name}: {value}"),
        })
        .collect();
    let who = response.body.split(" HTTP").next().unwrap_or_default();
    (format!("{} {who}", response.status()), format!("{told:?}"))
}

fn resources() -> String {
    let per_route = |fields: &str| for_route(FILTER, PER_ROUTE, fields);
    let routes = format!(
        "{{ match: {{ prefix: /off }}, {} route: {{ cluster: hosts }} }}, \
         {{ match: {{ prefix: /lenient }}, {} route: {{ cluster: draining }} }}, \
         {{ match: {{ prefix: /strict }}, {} route: {{ cluster: hosts }} }}, \
         {{ match: {{ prefix: /one }}, direct_response: {{ status: 201 }} }}, \
         {{ match: {{ prefix: /named }}, route: {{ cluster: named, retry_policy: {{ retry_on: 5xx }} }} }}, \
         {{ match: {{ prefix: / }}, route: {{ cluster: hosts }} }}",
        per_route("disabled: true"),
        per_route(&format!(
            "stateful_session: {{ {} }}",
            session(&header("x-session"), "")
        )),
        per_route(&format!(
            "stateful_session: {{ {} }}",
            session(
                &cookie("name: session"),
                "strict: true, status_on_strict_destination_not_found: 410"
            )
        )),
    );
    let manager = |fields: String| Manager::with_routes(&routes).filter(FILTER, MESSAGE, &fields);
    let managers = [
        manager(session(&cookie("name: session, path: /"), "stat_prefix: counted")),
        manager(session(
            &cookie(
                "name: session, path: /a, ttl: 120s, attributes: [{ name: SameSite, value: Lax }, { name: Secure }]",
            ),
            "",
        )),
        manager(session(
            &cookie("name: session"),
            "strict: true, stat_prefix: counted",
        )),
        manager(session(&header("X-Session"), "")),
        manager(String::new()),
    ];
    let clusters = [
        cluster("hosts", ""),
        cluster(
            "draining",
            "common_lb_config: { override_host_status: { statuses: [HEALTHY, DRAINING] } },",
        ),
        cluster(
            "named",
            "load_balancing_policy: { policies: [{ typed_extension_config: { name: o, typed_config: { \"@type\": \
             type.googleapis.com/envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost, override_host_sources: \
             [{ header: X-Host }, { header: x-other }], fallback_policy: { policies: [{ typed_extension_config: { name: r, typed_config: { \"@type\": \
             type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin } } }] } } } }] },",
        ),
    ];
    configuration(&managers, &clusters)
}

fn cluster(name: &str, settings: &str) -> String {
    // The first gets all that is not for another.
    let hosts = [
        (9011, "HEALTHY", 0),
        (9012, "HEALTHY", 1),
        (9013, "DRAINING", 0),
        (9014, "UNHEALTHY", 0),
        (9015, "DEGRADED", 0),
    ];
    let endpoints = hosts.map(|(port, health, priority)| {
        format!(
            "{{ priority: {priority}, lb_endpoints: [{{ health_status: {health}, endpoint: {{ address: {{ socket_address: \
             {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}, "
        )
    });
    format!(
        "{{ name: {name}, type: STATIC, connect_timeout: 1s, common_lb_config: {{ healthy_panic_threshold: {{}} }}, {settings} load_assignment: \
         {{ cluster_name: {name}, policy: {{ overprovisioning_factor: 1000 }}, endpoints: [{}] }} }}",
        endpoints.concat()
    )
    .replace(
        "common_lb_config: { healthy_panic_threshold: {} }, common_lb_config: {",
        "common_lb_config: { healthy_panic_threshold: {},",
    )
}
