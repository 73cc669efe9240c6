//! Clusters with subsets: which hosts a request gets by the labels that its route asks for, and who gets it when there are none.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use e2e::alone::Alone;
use e2e::beside::{FRONT, Manager, check_with, configuration, counters, echo};
use e2e::http::Request;

/// Port, labels, health and zone.
const HOSTS: [(u16, &str, &str, &str); 7] = [
    (9011, "{ version: v1, stage: prod, one: x }", "HEALTHY", "a"),
    (9012, "{ version: v1, stage: dev, one: x }", "HEALTHY", "a"),
    (9013, "{ version: v2, stage: prod, one: y }", "HEALTHY", "a"),
    (9014, "{ version: v2, stage: dev }", "UNHEALTHY", "b"),
    (
        9015,
        "{ version: [v3, v4], stage: prod, number: 1, deep: { a: [1] } }",
        "HEALTHY",
        "b",
    ),
    (9016, "{}", "HEALTHY", "b"),
    (9017, "{ version: ill }", "UNHEALTHY", "b"),
];

/// A cluster by its subsets, and label sets that routes ask it for.
const CLUSTERS: &[(&str, &str, &[&str])] = &[
    (
        "nobody",
        "lb_subset_config: { subset_selectors: [{ keys: [version] }, { keys: [stage, version] }] }",
        &[
            "",
            "{ version: v1 }",
            "{ version: v2 }",
            "{ version: v9 }",
            "{ version: ill }",
            "{ stage: prod }",
            "{ stage: prod, version: v1 }",
            "{ stage: dev, version: v2 }",
            "{ stage: prod, version: v1, more: 1 }",
            "{ version: v3 }",
            "{ version: [v3, v4] }",
        ],
    ),
    (
        "any",
        "lb_subset_config: { fallback_policy: ANY_ENDPOINT, subset_selectors: [{ keys: [version] }, { keys: [number] }, { keys: [deep] }] }",
        &[
            "",
            "{ version: v2 }",
            "{ version: v9 }",
            "{ number: 1 }",
            "{ number: 1.5 }",
            "{ number: \"1\" }",
            "{ deep: { a: [1] } }",
            "{ deep: { a: [2] } }",
        ],
    ),
    (
        "default",
        "lb_subset_config: { fallback_policy: DEFAULT_SUBSET, default_subset: { stage: prod }, subset_selectors: [{ keys: [version] }] }",
        &["", "{ version: v1 }", "{ version: v9 }", "{ other: v9 }"],
    ),
    (
        "default-without-labels",
        "lb_subset_config: { fallback_policy: DEFAULT_SUBSET, subset_selectors: [{ keys: [version] }] }",
        &["", "{ version: v9 }"],
    ),
    (
        "panics",
        "lb_subset_config: { fallback_policy: DEFAULT_SUBSET, default_subset: { version: none }, panic_mode_any: true, \
         subset_selectors: [{ keys: [version] }] }",
        &["", "{ version: v1 }", "{ version: v9 }"],
    ),
    (
        "by-selector",
        "lb_subset_config: { fallback_policy: ANY_ENDPOINT, default_subset: { version: v2 }, subset_selectors: [\
         { keys: [version], fallback_policy: NO_FALLBACK }, { keys: [stage], fallback_policy: DEFAULT_SUBSET }, \
         { keys: [one], fallback_policy: ANY_ENDPOINT }, \
         { keys: [stage, version], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [stage] }, \
         { keys: [one, stage, version], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [stage, version] }] }",
        &[
            "{ version: v9 }",
            "{ stage: v9 }",
            "{ one: v9 }",
            "{ stage: prod, version: v9 }",
            "{ stage: none, version: v9 }",
            "{ one: z, stage: dev, version: v1 }",
            "{ one: z, stage: dev, version: v9 }",
            "{ one: x, stage: dev, version: v1 }",
            "{ one: x, version: v1 }",
        ],
    ),
    (
        "prefix-selector",
        "lb_subset_config: { fallback_policy: ANY_ENDPOINT, subset_selectors: [{ keys: [stage, version] }, \
         { keys: [stage], fallback_policy: NO_FALLBACK }] }",
        &["{ stage: none }", "{ stage: dev }"],
    ),
    (
        "lists",
        "lb_subset_config: { list_as_any: true, fallback_policy: DEFAULT_SUBSET, default_subset: { version: v4 }, \
         subset_selectors: [{ keys: [version] }, { keys: [stage, version] }] }",
        &[
            "",
            "{ version: v3 }",
            "{ version: v4 }",
            "{ version: [v3, v4] }",
            "{ stage: prod, version: v4 }",
        ],
    ),
    (
        "one-host",
        "lb_subset_config: { subset_selectors: [{ keys: [one], single_host_per_subset: true }, { keys: [version], single_host_per_subset: true }] }",
        &["{ one: x }", "{ one: y }", "{ one: z }", "{ version: ill }"],
    ),
    (
        "tries",
        "lb_subset_config: { metadata_fallback_policy: FALLBACK_LIST, subset_selectors: [{ keys: [version] }, { keys: [stage, version] }] }",
        &[
            "{ fallback_list: [{ version: v9 }, { version: v2 }] }",
            "{ version: v1, fallback_list: [{ stage: prod }, { stage: dev }] }",
            "{ stage: none, fallback_list: [{ version: v9 }, { version: v1, stage: dev }] }",
            "{ version: v1, fallback_list: [] }",
            "{ version: v1, fallback_list: no-list }",
            "{ version: v9, fallback_list: [{}] }",
        ],
    ),
    (
        "no-tries",
        "lb_subset_config: { fallback_policy: ANY_ENDPOINT, subset_selectors: [{ keys: [version] }] }",
        &["{ fallback_list: [{ version: v2 }] }"],
    ),
    (
        "no-selectors",
        "lb_subset_config: { fallback_policy: NO_FALLBACK }",
        &["", "{ version: v1 }"],
    ),
    (
        "extension",
        "load_balancing_policy: { policies: [{ typed_extension_config: { name: s, typed_config: { \"@type\": \
         type.googleapis.com/envoy.extensions.load_balancing_policies.subset.v3.Subset, allow_redundant_keys: true, \
         subset_selectors: [{ keys: [version] }, { keys: [stage, version] }], subset_lb_policy: { policies: [{ typed_extension_config: { \
         name: r, typed_config: { \"@type\": \
         type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin } } }] } } } }] }",
        &[
            "",
            "{ version: v1 }",
            "{ version: v1, more: 1 }",
            "{ stage: dev, version: v1, more: 1 }",
            "{ more: 1 }",
        ],
    ),
];

/// Shares of the three hosts with the label in clusters with localities.
const SHARES: &[(&str, &str, &str, [f64; 3])] = &[
    (
        "no-weights",
        "common_lb_config: { locality_weighted_lb_config: {} }, lb_subset_config: { subset_selectors: [{ keys: [stage] }] }",
        "{ stage: prod }",
        [1.0 / 3.0; 3],
    ),
    (
        "weights",
        "common_lb_config: { locality_weighted_lb_config: {} }, lb_subset_config: { locality_weight_aware: true, subset_selectors: [{ keys: [stage] }] }",
        "{ stage: prod }",
        [1.0 / 18.0, 1.0 / 18.0, 8.0 / 9.0],
    ),
    (
        "scaled-weights",
        "common_lb_config: { locality_weighted_lb_config: {} }, lb_subset_config: { locality_weight_aware: true, scale_locality_weight: true, \
         subset_selectors: [{ keys: [stage] }] }",
        "{ stage: prod }",
        [0.125, 0.125, 0.75],
    ),
];

/// A weighted share that has labels of its own, and connections.
const WEIGHTED: &str = "{ match: { prefix: /weighted/ }, route: { metadata_match: { filter_metadata: { envoy.lb: { stage: dev, version: v2 } } }, \
                        weighted_clusters: { clusters: [{ name: nobody, weight: 1, metadata_match: { filter_metadata: { envoy.lb: { version: v1 } } } }] } } }, \
                        { match: { prefix: /share/ }, route: { metadata_match: { filter_metadata: { envoy.lb: { stage: dev, version: v1 } } }, \
                        weighted_clusters: { clusters: [{ name: nobody, weight: 1 }] } } }, ";

const TCP: [(u16, &str); 3] = [
    (
        10_100,
        "cluster: nobody, metadata_match: { filter_metadata: { envoy.lb: { version: v2 } } }",
    ),
    (
        10_101,
        "cluster: nobody, metadata_match: { filter_metadata: { other: { version: v2 } } }",
    ),
    (
        10_102,
        "metadata_match: { filter_metadata: { envoy.lb: { stage: prod, version: v2 } } }, weighted_clusters: { clusters: [{ name: nobody, weight: 1, \
         metadata_match: { filter_metadata: { envoy.lb: { version: v1 } } } }] }",
    ),
];

const REQUESTS: u32 = 12;

#[test]
fn requests_get_the_hosts_with_their_labels() {
    check_with(
        &resources(),
        |namespace, _| {
            for (port, ..) in HOSTS {
                echo(namespace, port);
            }
        },
        |alone| {
            let mut seen = Vec::new();
            for (name, _, asked) in CLUSTERS {
                for (index, labels) in asked.iter().enumerate() {
                    let hosts = hosts(alone, FRONT, &format!("/{name}-{index}/"), REQUESTS);
                    seen.push(format!("{name} {labels}: {:?}", hosts.keys()));
                }
            }
            for path in ["/weighted/", "/share/"] {
                seen.push(format!("{path} {:?}", hosts(alone, FRONT, path, REQUESTS).keys()));
            }
            for (port, settings) in TCP {
                seen.push(format!(
                    "{settings}: {:?}",
                    hosts(alone, port, "/", REQUESTS).keys()
                ));
            }
            for (name, _, _, expected) in SHARES {
                let counts = hosts(alone, FRONT, &format!("/{name}/"), 90);
                for (host, expected) in [9011, 9013, 9015].iter().zip(expected) {
                    let count = counts.get(&host.to_string()).copied().unwrap_or(0);
                    let is_close = (f64::from(count) / 90.0 - expected).abs() < 0.08;
                    assert!(is_close, "{:?} {name}: {counts:?}", alone.kind);
                }
            }
            for (name, ..) in CLUSTERS {
                let counted = [
                    "selected",
                    "fallback",
                    "fallback_panic",
                    "single_host_per_subset_duplicate",
                ];
                let names = counted.map(|counter| format!("cluster.{name}.lb_subsets_{counter}"));
                let values = counters(alone, &names.each_ref().map(String::as_str));
                // Those of other clusters are not there, which is 0.
                seen.push(values.join(" ").replace(": -", ": 0"));
            }
            seen
        },
    );
}

/// How often each host answered, or what came instead.
fn hosts(alone: &Alone, port: u16, path: &str, requests: u32) -> BTreeMap<String, u32> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut hosts = BTreeMap::new();
    for _ in 0..requests {
        let who = match alone.send(address, &Request::get("a", path)) {
            Ok(response) if response.status() == 200 => {
                response.body.split(' ').next().unwrap_or_default().to_owned()
            }
            Ok(response) => format!("{} {}", response.status(), response.body),
            Err(_) => "no answer".to_owned(),
        };
        *hosts.entry(who).or_default() += 1;
    }
    hosts
}

fn resources() -> String {
    let mut routes = String::from(WEIGHTED);
    let mut clusters = Vec::new();
    for (name, settings, asked) in CLUSTERS {
        for (index, labels) in asked.iter().enumerate() {
            routes.push_str(&route(&format!("/{name}-{index}/"), name, labels));
        }
        clusters.push(cluster(name, settings));
    }
    for (name, settings, labels, _) in SHARES {
        routes.push_str(&route(&format!("/{name}/"), name, labels));
        clusters.push(cluster(name, settings));
    }
    let tcp = TCP.map(|(port, settings)| {
        format!(
            "  - {{ name: tcp{port}, address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}, filter_chains: [{{ filters: [{{ name: tcp, \
             typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, {settings} }} }}] }}] }}\n"
        )
    });
    let resources = configuration(&[Manager::with_routes(&routes)], &clusters);
    resources.replacen("  clusters:\n", &format!("{}  clusters:\n", tcp.concat()), 1)
}

fn route(path: &str, cluster: &str, labels: &str) -> String {
    let labels = match labels {
        "" => String::new(),
        labels => format!(", metadata_match: {{ filter_metadata: {{ envoy.lb: {labels} }} }}"),
    };
    format!("{{ match: {{ prefix: {path} }}, route: {{ cluster: {cluster}{labels} }} }}, ")
}

fn cluster(name: &str, settings: &str) -> String {
    let in_zone = |wanted: &str| {
        let hosts = HOSTS.iter().filter(|(.., zone)| *zone == wanted);
        let endpoints = hosts.map(|(port, labels, health, _)| {
            format!(
                "{{ health_status: {health}, metadata: {{ filter_metadata: {{ envoy.lb: {labels} }} }}, endpoint: {{ address: {{ socket_address: \
                 {{ address: 127.0.0.1, port_value: {port} }} }} }} }}, "
            )
        });
        endpoints.collect::<String>()
    };
    format!(
        "{{ name: {name}, type: STATIC, connect_timeout: 1s, {settings}, load_assignment: {{ cluster_name: {name}, endpoints: [\
         {{ locality: {{ zone: a }}, load_balancing_weight: 30, lb_endpoints: [{}] }}, {{ locality: {{ zone: b }}, load_balancing_weight: 240, lb_endpoints: [{}] }}] }} }}",
        in_zone("a"),
        in_zone("b"),
    )
}
