//! Requests that are refused because the policy of a cluster's endpoints says so (`drop_overloads`).

use e2e::beside::{Case, Manager, answers, check_with, cluster, configuration, counters, get};

/// Clusters and what their policy drops.
const SHARES: &[(&str, &str)] = &[
    ("all", "{ numerator: 100 }"),
    ("million", "{ numerator: 1000000, denominator: MILLION }"),
    ("none", "{ numerator: 0 }"),
    ("unset", "{}"),
    ("half", "{ numerator: 50 }"),
];

const CASES: &[Case] = &[
    get("/all", &[]),
    get("/all", &[("x-envoy-drop-overload", "sent")]),
    get("/all/retried", &[]),
    get("/all/copied", &[]),
    get("/million", &[]),
    get("/none", &[]),
    get("/unset", &[]),
    get("/all", &[]).listener(1),
    get("/all", &[]).method("POST").body("some"),
];

fn resources() -> String {
    let clusters: Vec<String> = SHARES
        .iter()
        .map(|(name, share)| {
            let policy = format!("cluster_name: {name}, policy: {{ drop_overloads: [{{ category: c, drop_percentage: {share} }}] }},");
            cluster(name, &[e2e::beside::ECHO]).replacen(&format!("cluster_name: {name},"), &policy, 1)
        })
        .collect();
    let retried = "{ match: { path: /all/retried }, route: { cluster: all, retry_policy: { retry_on: 5xx, num_retries: 2 } } }, \
                   { match: { path: /all/copied }, route: { cluster: all, request_mirror_policies: [{ cluster: none }] } }, ";
    let routes = SHARES
        .iter()
        .map(|(name, _)| format!("{{ match: {{ prefix: /{name} }}, route: {{ cluster: {name} }} }}, "));
    let routes = format!("{retried}{}", routes.collect::<String>());
    let plain = Manager::with_routes(&routes);
    let mut counted = Manager::with_routes(&routes);
    counted.routes =
        counted
            .routes
            .replacen("domains:", "include_attempt_count_in_response: true, domains:", 1);
    configuration(&[plain, counted], &clusters)
}

#[test]
fn a_share_of_the_requests_is_refused_and_never_sent() {
    check_with(
        &resources(),
        |_, _| {},
        |alone| {
            let mut lines = answers(alone, CASES);
            let refused = (0..400)
                .filter(|_| get("/half", &[]).answer(alone, 900).starts_with("503"))
                .count();
            lines.push(format!("about half refused: {}", (130..=270).contains(&refused)));
            let names = ["all", "none"].map(|name| {
                ["upstream_rq_total", "upstream_cx_total", "upstream_rq_503"]
                    .map(|stat| format!("cluster.{name}.{stat}"))
            });
            let names: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
            lines.extend(counters(alone, &names));
            lines
        },
    );
}

const NAMED: &[Case] = &[
    get("/usual", &[]),
    get("/usual", &[("x-envoy-original-dst-host", "127.0.0.1:9001")]),
    get(
        "/usual",
        &[
            ("X-Envoy-Original-Dst-Host", "127.0.0.1:9001"),
            ("x-envoy-original-dst-host", "127.0.0.1:1"),
        ],
    ),
    get("/usual", &[("x-envoy-original-dst-host", "127.0.0.1:1")]),
    get("/usual", &[("x-envoy-original-dst-host", "127.0.0.1")]),
    get("/usual", &[("x-envoy-original-dst-host", "localhost:9001")]),
    get("/usual", &[("x-envoy-original-dst-host", "127.0.0.1:99999")]),
    get(
        "/usual",
        &[("x-envoy-original-dst-host", "127.0.0.1:9001, 127.0.0.1:1")],
    ),
    get("/usual", &[("x-envoy-original-dst-host", "")]),
    get("/own", &[("x-envoy-original-dst-host", "127.0.0.1:9001")]),
    get("/own", &[("x-where", "127.0.0.1:9001")]),
    get("/port", &[("x-envoy-original-dst-host", "127.0.0.1:1")]),
    get("/port", &[("x-envoy-original-dst-host", "nowhere")]),
    get("/unheard", &[("x-envoy-original-dst-host", "127.0.0.1:9001")]),
];

#[test]
fn a_header_says_where_a_cluster_without_endpoints_connects() {
    let settings = [
        ("usual", "use_http_header: true"),
        ("own", "use_http_header: true, http_header_name: X-Where"),
        ("port", "use_http_header: true, upstream_port_override: 9001"),
        ("unheard", "use_http_header: false"),
    ];
    let clusters = settings.map(|(name, settings)| {
        format!("{{ name: {name}, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, connect_timeout: 1s, original_dst_lb_config: {{ {settings} }} }}")
    });
    let routes = settings
        .map(|(name, _)| format!("{{ match: {{ prefix: /{name} }}, route: {{ cluster: {name} }} }}, "));
    let resources = configuration(&[Manager::with_routes(&routes.concat())], &clusters);
    check_with(
        &resources,
        |_, _| {},
        |alone| {
            let mut lines = answers(alone, NAMED);
            lines.extend(counters(
                alone,
                &[
                    "cluster.usual.original_dst_host_invalid",
                    "cluster.port.original_dst_host_invalid",
                ],
            ));
            lines
        },
    );
}
