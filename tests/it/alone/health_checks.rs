//! Active health checks: what hosts are asked, what answers make of them, when they are asked again, and who has traffic then.

use e2e::alone::Alone;
use e2e::beside::{Case, Manager, check_with, configuration, counters, get};
use e2e::mesh::PATIENCE;
use e2e::process::until;

use self::host::{Host, Told, flags};

mod host;
mod http2;

/// A cluster by its health check.
struct Checked {
    name: &'static str,
    /// `timeout`, intervals, thresholds, what is asked.
    check: &'static str,
    /// Further fields of the cluster.
    more: &'static str,
    /// Priority and script of each host.
    hosts: &'static [(u32, &'static str)],
}

/// Asks as often as can be; what a script leaves open stays so.
const QUICK: &str =
    "timeout: 60s, interval: 0.02s, no_traffic_interval: 0.02s, unhealthy_threshold: 2, healthy_threshold: 2";
/// The same, and after a failure not again.
const ONCE: &str = "timeout: 1.2s, interval: 0.02s, no_traffic_interval: 60s, no_traffic_healthy_interval: 0.02s, healthy_threshold: 2";

const PATH: &str = "http_health_check: { path: /check }";
const NO_PANIC: &str = "common_lb_config: { healthy_panic_threshold: {}, update_merge_window: 0s }, ";

/// Envoy checks over gRPC only what is spoken to over HTTP/2.
const HTTP2: &str = "typed_extension_protocol_options: { envoy.extensions.upstreams.http.v3.HttpProtocolOptions: { \
                     \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
                     explicit_http_config: { http2_protocol_options: {} } } }, ";

const fn checked(name: &'static str, check: &'static str, hosts: &'static [(u32, &'static str)]) -> Checked {
    Checked {
        name,
        check,
        more: NO_PANIC,
        hosts,
    }
}

const fn with(mut checked: Checked, more: &'static str) -> Checked {
    checked.more = more;
    checked
}

const CHECKS: &[Checked] = &[
    // Thresholds, and which answers count how.
    checked(
        "statuses",
        "QUICK PATH",
        &[(0, "200 503 200 503 200 200 404 200 200 200")],
    ),
    checked("begins-ill", "QUICK PATH", &[(0, "503 200 200 200")]),
    checked("stays-ill", "QUICK PATH", &[(0, "503 200 500 200 500")]),
    checked(
        "retriable",
        "QUICK http_health_check: { path: /check, retriable_statuses: [{ start: 429, end: 430 }, { start: 500, end: 504 }] }",
        &[(0, "200 429 200 429 503 200 503 200 200 429 504 200")],
    ),
    checked(
        "expected",
        "QUICK http_health_check: { path: /check, expected_statuses: [{ start: 200, end: 206 }, { start: 404, end: 405 }] }",
        &[(0, "200 203 404 205 404 203 405 404 404"), (0, "500 404")],
    ),
    checked(
        "lost",
        "QUICK PATH",
        &[(0, "200 close 200 close close 200 200 cut 200 cut cut 200")],
    ),
    checked(
        "garbage",
        "QUICK PATH",
        &[(0, "200 garbage 200 garbage garbage 200")],
    ),
    checked(
        "late",
        "ONCE unhealthy_threshold: 1, PATH",
        &[(0, "200 200 slow"), (0, "200 503"), (0, "200 close")],
    ),
    checked(
        "late-once",
        "ONCE unhealthy_threshold: 2, PATH",
        &[(0, "200 slow"), (0, "slow")],
    ),
    checked(
        "late-again",
        "timeout: 1.2s, interval: 0.02s, no_traffic_interval: 0.02s, no_traffic_healthy_interval: 60s, unhealthy_threshold: 1, \
         healthy_threshold: 2, PATH",
        &[
            (0, "slow close slow 503 slow 200 200"),
            (0, "503 close slow close 200 200"),
        ],
    ),
    checked(
        "refused",
        "ONCE unhealthy_threshold: 1, PATH",
        &[(0, "refused"), (0, "200 500")],
    ),
    // What is asked.
    checked(
        "asked",
        "QUICK http_health_check: { path: \"/check?deep=1&x=%20\", host: h.example, method: HEAD }",
        &[(0, "200 200 503")],
    ),
    checked(
        "posted",
        "QUICK http_health_check: { path: /check, method: POST }",
        &[(0, "200 200")],
    ),
    checked(
        "anew",
        "QUICK PATH, reuse_connection: false",
        &[(0, "200 200 503 200")],
    ),
    checked(
        "server-closes",
        "QUICK PATH",
        &[
            (0, "200+connection=close+closes 200 200+connection=close 200"),
            (0, "200 503 200"),
        ],
    ),
    // Envoy's text has this field and Envoy does nothing with it.
    checked("not-elsewhere", "QUICK PATH, alt_port: 1", &[(0, "200 503 200")]),
    checked(
        "with-headers",
        "QUICK http_health_check: { path: /check, request_headers_to_add: [{ header: { key: x-one, value: a } }, \
         { header: { key: X-Two, value: \"100%%\" } }, { header: { key: user-agent, value: me }, append_action: OVERWRITE_IF_EXISTS }, \
         { header: { key: x-none, value: none }, append_action: OVERWRITE_IF_EXISTS }], request_headers_to_remove: [x-one] }",
        &[(0, "200 503")],
    ),
    checked(
        "without-agent",
        "QUICK http_health_check: { path: /check, request_headers_to_remove: [user-agent] }",
        &[(0, "200 503")],
    ),
    checked(
        "with-body",
        "QUICK http_health_check: { path: /check, method: POST, send: { text: \"6869\" } }",
        &[(0, "200 503 200")],
    ),
    checked(
        "elsewhere",
        "QUICK http_health_check: { path: /check, host: h.example }",
        &[(0, "at:200 503 200"), (0, "200 200"), (0, "off")],
    ),
    checked("nobody-is-asked", "QUICK PATH", &[(0, "off")]),
    // What a host says of itself.
    checked(
        "degraded",
        "QUICK PATH",
        &[(
            0,
            "200+x-envoy-degraded=1 200 200+x-envoy-degraded= 200+x-envoy-degraded=false 503+x-envoy-degraded=1 \
             200+x-envoy-degraded=1 200+x-envoy-degraded=1 200 200+x-envoy-degraded=1",
        )],
    ),
    checked(
        "at-once",
        "QUICK http_health_check: { path: /check, retriable_statuses: [{ start: 500, end: 501 }] }",
        &[(
            0,
            "200 503+x-envoy-immediate-health-check-fail=1 200 200 200+x-envoy-immediate-health-check-fail=1 \
             500+x-envoy-immediate-health-check-fail=1 200 500+x-envoy-immediate-health-check-fail=1 500 200 503 200 200",
        )],
    ),
    checked("at-once-in-traffic", "QUICK PATH", &[(0, "200"), (0, "200")]),
    // Who has traffic.
    checked("some", "QUICK PATH", &[(0, "200"), (0, "503"), (0, "200 503")]),
    checked("nobody", "QUICK PATH", &[(0, "503"), (0, "200 503")]),
    with(
        checked("panic", "QUICK PATH", &[(0, "503"), (0, "200 503"), (0, "200")]),
        "common_lb_config: { update_merge_window: 0s }, ",
    ),
    checked("next", "QUICK PATH", &[(0, "503"), (1, "200")]),
    checked("first", "QUICK PATH", &[(0, "200"), (1, "200")]),
    checked(
        "degraded-last",
        "QUICK PATH",
        &[(0, "200"), (0, "200"), (0, "200"), (0, "200+x-envoy-degraded=1")],
    ),
    checked(
        "degraded-alone",
        "QUICK PATH",
        &[(0, "200+x-envoy-degraded=1"), (0, "503")],
    ),
    with(
        checked("ignored", "QUICK PATH", &[(0, "503"), (0, "200")]),
        "common_lb_config: { healthy_panic_threshold: {}, update_merge_window: 0s, ignore_new_hosts_until_first_hc: true }, ",
    ),
    // When.
    checked(
        "seldom-without-traffic",
        "timeout: 60s, interval: 0.02s, no_traffic_interval: 1.8s, unhealthy_threshold: 2, healthy_threshold: 2, PATH",
        &[(0, "200 200+wait 200 close close 200 200")],
    ),
    checked(
        "at-the-edges",
        "timeout: 60s, interval: 1.8s, no_traffic_interval: 0.02s, unhealthy_threshold: 2, healthy_threshold: 2, \
         unhealthy_interval: 1.8s, unhealthy_edge_interval: 0.02s, healthy_edge_interval: 0.03s, PATH",
        &[(0, "200 200+wait 200 close close 200 200")],
    ),
    checked(
        "other-edges",
        "timeout: 60s, interval: 0.02s, no_traffic_interval: 0.02s, no_traffic_healthy_interval: 1.8s, unhealthy_threshold: 2, \
         healthy_threshold: 2, unhealthy_interval: 0.02s, unhealthy_edge_interval: 1.8s, healthy_edge_interval: 1.8s, PATH",
        &[(0, "close 200 200 200+wait 200 close close 200 200")],
    ),
    // HTTP/2 and gRPC.
    checked(
        "http2",
        "QUICK http_health_check: { path: /check, codec_client_type: HTTP2 }",
        &[(
            0,
            "200 503 200 200 reset 200 close close 200+x-envoy-degraded=1 200",
        )],
    ),
    checked(
        "grpc",
        "QUICK grpc_health_check: {}",
        &[
            (
                0,
                "serving not-serving serving serving service-unknown serving serving unknown serving",
            ),
            (
                0,
                "not-serving serving serving no-message serving serving serving+grpc-status=13 serving",
            ),
            (
                0,
                "serving trailers-only+grpc-status=12 serving trailers-only+grpc-status=0 serving twice",
            ),
            (
                0,
                "serving more-fields not-serving serving compressed serving serving",
            ),
        ],
    ),
    checked(
        "grpc-lost",
        "QUICK grpc_health_check: {}",
        &[(
            0,
            "serving reset serving reset reset serving serving close serving close close serving",
        )],
    ),
    checked(
        "grpc-http",
        "QUICK grpc_health_check: {}",
        &[(0, "serving 503 serving serving 200 serving")],
    ),
    checked(
        "grpc-of-a-service",
        "QUICK grpc_health_check: { service_name: shop.Cart, authority: h.example }",
        &[(
            0,
            "serving+x-envoy-degraded=1 goaway serving goaway goaway serving",
        )],
    ),
    checked(
        "grpc-with-metadata",
        "QUICK grpc_health_check: { initial_metadata: [{ header: { key: x-one, value: a } }, { header: { key: x-one, value: b } }] }",
        &[(0, "serving not-serving")],
    ),
    checked(
        "grpc-damaged",
        "QUICK grpc_health_check: {}",
        &[(0, "serving damaged serving")],
    ),
    // Bytes.
    checked(
        "tcp",
        "ONCE unhealthy_threshold: 1, tcp_health_check: {}",
        &[(0, "refused")],
    ),
    checked(
        "tcp-open",
        "timeout: 1s, interval: 0.02s, no_traffic_interval: 60s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}",
        &[(0, "open")],
    ),
    checked(
        "tcp-asked",
        "QUICK tcp_health_check: { send: { text: \"50494e47\" }, receive: [{ text: \"504f4e47\" }] }",
        &[(0, "PONG x-PONG-x PO|NG NO! NO! PONG NOPONG PONG NO! PONG PONG")],
    ),
    checked(
        "tcp-blocks",
        "QUICK tcp_health_check: { send: { text: \"50494e47\" }, receive: [{ text: \"41\" }, { text: \"4243\" }] }",
        &[(0, "ABC AxxBC BCA|BC B!")],
    ),
    checked(
        "tcp-late",
        "ONCE unhealthy_threshold: 1, tcp_health_check: { send: { text: \"50\" }, receive: [{ text: \"51\" }] }",
        &[(0, "Q R")],
    ),
    // A kept connection that ends between two checks counts as a failure.
    checked(
        "tcp-closes",
        "timeout: 60s, interval: 0.4s, no_traffic_interval: 0.4s, unhealthy_threshold: 1, healthy_threshold: 2, \
         tcp_health_check: { send: { text: \"50\" }, receive: [{ text: \"51\" }] }",
        &[(0, "Q Q! Q Q")],
    ),
    checked(
        "tcp-anew",
        "QUICK tcp_health_check: { send: { text: \"50\" }, receive: [{ text: \"51\" }] }, reuse_connection: false",
        &[(0, "Q Q Q! Q")],
    ),
];

/// Of a case's host.
fn port_of(case: usize, host: usize) -> u16 {
    u16::try_from(20_000 + 10 * case + host).expect("few cases")
}

/// Where a host is checked, and its script: `at:` is for another port, `off` for a host that is not checked.
fn asked_at(case: usize, host: usize, script: &'static str) -> (u16, &'static str) {
    let port = port_of(case, host);
    match script.strip_prefix("at:") {
        Some(script) => (port + 5, script),
        None => (port, script),
    }
}

fn cluster(number: usize, checked: &Checked) -> String {
    let Checked {
        name,
        check,
        more,
        hosts,
        ..
    } = checked;
    let check = check
        .replace("QUICK ", &format!("{QUICK}, "))
        .replace("ONCE ", &format!("{ONCE}, "))
        .replace("PATH", PATH);
    let endpoints = hosts.iter().enumerate().map(|(host, (priority, script))| {
        let port = port_of(number, host);
        let own = match *script {
            "off" => "health_check_config: { disable_active_health_check: true }, ".to_owned(),
            script if script.starts_with("at:") => format!(
                "health_check_config: {{ port_value: {}, hostname: own.example }}, ",
                asked_at(number, host, script).0
            ),
            _ => String::new(),
        };
        format!(
            "{{ priority: {priority}, lb_endpoints: [{{ endpoint: {{ {own}address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}, "
        )
    });
    let version = if check.contains("grpc") { HTTP2 } else { "" };
    format!(
        "{{ name: {name}, type: STATIC, connect_timeout: 60s, {more}{version}health_checks: [{{ {check} }}], load_assignment: {{ cluster_name: {name}, endpoints: [{}] }} }}",
        endpoints.collect::<String>()
    )
}

#[test]
fn hosts_are_checked_as_by_envoy() {
    let route = |checked: &Checked| {
        let name = checked.name;
        format!("{{ match: {{ path: /{name} }}, route: {{ cluster: {name} }} }}, ")
    };
    let manager = Manager::with_routes(&CHECKS.iter().map(route).collect::<String>());
    let clusters: Vec<_> = CHECKS
        .iter()
        .enumerate()
        .map(|(number, checked)| cluster(number, checked))
        .collect();
    let told = Told::default();
    check_with(
        &configuration(&[manager], &clusters),
        |namespace, _| {
            told.clear();
            for (number, checked) in CHECKS.iter().enumerate() {
                let host = |port, script| Host {
                    port,
                    script,
                    is_hasty: !stays_open(checked),
                    told: told.clone(),
                };
                let start = match checked.check {
                    check if check.contains("grpc") || check.contains("HTTP2") => http2::serve,
                    check if check.contains("tcp") => host::tcp,
                    _ => host::http1,
                };
                for (index, (_, script)) in checked.hosts.iter().enumerate() {
                    let (port, words) = asked_at(number, index, script);
                    if *script != "refused" {
                        start(namespace, host(port, words));
                    }
                    if port != port_of(number, index) {
                        start(namespace, host(port_of(number, index), ""));
                    }
                }
            }
        },
        |alone| {
            told.go();
            let case = |checked: &Checked| format!("/{}", checked.name).leak();
            let paths: Vec<&'static str> = CHECKS.iter().map(|checked| &*case(checked)).collect();
            wake(alone, &paths);
            let mut lines = Vec::new();
            for (number, checked) in CHECKS.iter().enumerate() {
                lines.extend(findings(alone, &told, number, checked));
            }
            for (number, checked) in CHECKS.iter().enumerate() {
                if !checked.check.contains("tcp")
                    && !checked.check.contains("grpc")
                    && !checked.check.contains("HTTP2")
                {
                    lines.push(traffic(alone, number, checked.name, paths[number]));
                }
            }
            lines.push(told_in_traffic(alone));
            lines
        },
    );
}

/// Those who wait for traffic have it.
fn wake(alone: &Alone, paths: &[&'static str]) {
    let cases = CHECKS.iter().zip(paths);
    for (number, (_, path)) in cases
        .enumerate()
        .filter(|(_, (checked, _))| checked.hosts[0].1.contains("wait"))
    {
        until(&format!("{path} has a host"), PATIENCE, || {
            let answer = get(path, &[]).answer(alone, number);
            answer.starts_with("200 ").then_some(())
        });
    }
}

/// Words of a script, and whether a check is left open after them.
fn expected(checked: &Checked, script: &str) -> (usize, bool) {
    (script.split(' ').count(), stays_open(checked))
}

/// A check that is not answered does not end.
fn stays_open(checked: &Checked) -> bool {
    checked.check.starts_with("QUICK") || checked.check.contains("timeout: 60s")
}

/// What came of the checks of a cluster when nothing changes any more.
fn findings(alone: &Alone, told: &Told, number: usize, checked: &Checked) -> Vec<String> {
    let Checked { name, hosts, .. } = checked;
    let (mut done, mut open) = (0, 0);
    for (host, (_, script)) in hosts.iter().enumerate() {
        let (port, script) = asked_at(number, host, script);
        if script == "off" {
            continue;
        }
        let (words, leaves_open) = expected(checked, script);
        (done, open) = (done + words, open + usize::from(leaves_open));
        if script != "refused" && script != "open" {
            let all = words + usize::from(leaves_open);
            until(&format!("{name}: {all} checks of {port}"), PATIENCE, || {
                (told.checks(port).len() >= all).then_some(())
            });
        }
    }
    let stat = |what: &str| format!("cluster.{name}.{what}");
    let ended = until(&format!("{name}: {done} results"), PATIENCE, || {
        let counted = counters(
            alone,
            &[
                &stat("health_check.success"),
                &stat("health_check.failure"),
                &stat("health_check.attempt"),
            ],
        );
        let value = |line: &String| line.rsplit(' ').next()?.parse::<usize>().ok();
        let [success, failure, attempt] = counted.iter().map(value).collect::<Option<Vec<_>>>()?[..] else {
            return None;
        };
        (success + failure >= done && attempt >= done + open).then_some(counted)
    });
    let mut lines = vec![format!("{name}: {ended:?}")];
    let clusters = alone.admin("/clusters").expect("the admin interface").body;
    for (host, (_, script)) in hosts.iter().enumerate() {
        let port = port_of(number, host);
        let shown = flags(&clusters, port);
        let mut asked = told.checks(asked_at(number, host, script).0).join("\n    ");
        if script.contains("goaway") {
            // The first GOAWAY of two allows another stream: whether there is one depends on who is quicker.
            asked = asked.replace(" kept: ", " new: ");
        }
        lines.push(format!("{name} {script:?}: {shown}\n    {asked}"));
    }
    let names = [
        "health_check.network_failure",
        "health_check.passive_failure",
        "health_check.verify_cluster",
        "health_check.healthy",
        "membership_total",
        "membership_healthy",
        "membership_degraded",
        "membership_excluded",
    ];
    let names = names.map(stat);
    let values = counters(alone, &names.each_ref().map(String::as_str));
    lines.push(format!("{name}: {}", values.join(", ")));
    lines
}

/// Who answers, of a dozen requests.
fn traffic(alone: &Alone, number: usize, name: &str, path: &'static str) -> String {
    let case: Case = get(path, &[]);
    let mut answers: Vec<_> = (0..12).map(|_| case.answer(alone, number)).collect();
    answers.sort();
    answers.dedup();
    format!("{name} answers {answers:?}")
}

/// A host that asks for no more traffic in an answer has none, and is not counted.
fn told_in_traffic(alone: &Alone) -> String {
    let name = "at-once-in-traffic";
    let number = CHECKS
        .iter()
        .position(|checked| checked.name == name)
        .expect("in the table");
    let case = get(
        "/at-once-in-traffic",
        &[("x-say", "x-envoy-immediate-health-check-fail=1")],
    );
    let first = case.answer(alone, number);
    let ports = [0, 1].map(|host| port_of(number, host));
    let chosen = ports
        .iter()
        .position(|port| first.contains(&format!("\"{port}\"")));
    let chosen = ports[chosen.expect("one of them answered")];
    let shown = until("the host is out", PATIENCE, || {
        let clusters = alone.admin("/clusters").ok()?.body;
        Some(flags(&clusters, chosen)).filter(|flags| flags != "healthy")
    });
    until("it has no traffic", PATIENCE, || {
        let answers = traffic(alone, number, name, "/at-once-in-traffic");
        (!answers.contains(&format!("\"{chosen}\""))).then_some(())
    });
    let names = [
        "attempt",
        "success",
        "failure",
        "passive_failure",
        "network_failure",
        "healthy",
    ];
    let names = names.map(|stat| format!("cluster.{name}.health_check.{stat}"));
    let values = counters(alone, &names.each_ref().map(String::as_str));
    let excluded = counters(alone, &[&format!("cluster.{name}.membership_excluded")]);
    format!(
        "{} {shown} {values:?} {excluded:?}",
        first.replace(&chosen.to_string(), "PORT")
    )
}
