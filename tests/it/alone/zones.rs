//! Zone aware routing: requests stay in this proxy's zone as far as that is even, by what the local cluster says of its peers.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use e2e::alone::Alone;
use e2e::beside::{FRONT, Manager, configuration, echo};
use e2e::http::Request;
use e2e::proxy::Kind;

/// A cluster: settings, endpoints of the zones `home`, `b` and `c` as `health weight`, and the share of each zone.
struct Case {
    name: &'static str,
    settings: &'static str,
    zones: [&'static [&'static str]; 3],
    expected: [f64; 3],
    /// A counter that goes up with requests.
    counter: &'static str,
}

const H: &str = "HEALTHY 1";
const TWO: &[&str] = &[H, H];
const THREE: &[&str] = &[H, H, H];

const CASES: &[Case] = &[
    Case {
        name: "enough-at-home",
        settings: "",
        zones: [THREE, THREE, &[]],
        expected: [1.0, 0.0, 0.0],
        counter: "lb_zone_routing_all_directly",
    },
    Case {
        name: "too-small",
        settings: "",
        zones: [TWO, TWO, &[]],
        expected: [0.5, 0.5, 0.0],
        counter: "upstream_rq_total",
    },
    Case {
        name: "rest-elsewhere",
        settings: "common_lb_config: { zone_aware_lb_config: { min_cluster_size: 4 } },",
        zones: [&[H], THREE, &[]],
        expected: [0.5, 0.5, 0.0],
        counter: "lb_zone_routing_sampled",
    },
    Case {
        name: "rest-by-capacity",
        settings: "lb_policy: RANDOM, common_lb_config: { zone_aware_lb_config: { min_cluster_size: 1 } },",
        zones: [&[], TWO, TWO],
        expected: [0.0, 0.0, 1.0],
        counter: "lb_zone_routing_cross_zone",
    },
    Case {
        name: "nobody-well-at-home",
        settings: "lb_policy: LEAST_REQUEST, common_lb_config: { healthy_panic_threshold: {}, zone_aware_lb_config: { min_cluster_size: 1 } },",
        zones: [&["UNHEALTHY 1"], TWO, &[]],
        expected: [0.0, 1.0, 0.0],
        counter: "lb_zone_routing_cross_zone",
    },
    Case {
        name: "switched-off",
        settings: "common_lb_config: { zone_aware_lb_config: { min_cluster_size: 1, routing_enabled: { value: 0 } } },",
        zones: [TWO, TWO, &[]],
        expected: [0.5, 0.5, 0.0],
        counter: "upstream_rq_total",
    },
    Case {
        name: "for-half-of-them",
        settings: "lb_policy: RANDOM, common_lb_config: { zone_aware_lb_config: { min_cluster_size: 1, routing_enabled: { value: 50 } } },",
        zones: [TWO, TWO, &[]],
        expected: [0.75, 0.25, 0.0],
        counter: "lb_zone_routing_all_directly",
    },
    Case {
        name: "weighted-instead",
        settings: "common_lb_config: { locality_weighted_lb_config: {} },",
        zones: [THREE, THREE, &[]],
        expected: [0.5, 0.5, 0.0],
        counter: "upstream_rq_total",
    },
    Case {
        name: "forced",
        settings: "load_balancing_policy: { policies: [{ typed_extension_config: { name: p, typed_config: { \"@type\": \
                   type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest, locality_lb_config: \
                   { zone_aware_lb_config: { min_cluster_size: 1, force_local_zone: {} } } } } }] },",
        zones: [&[H], THREE, &[]],
        expected: [1.0, 0.0, 0.0],
        counter: "lb_zone_routing_all_directly",
    },
    Case {
        name: "not-enough-to-force",
        settings: "load_balancing_policy: { policies: [{ typed_extension_config: { name: p, typed_config: { \"@type\": \
                   type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin, locality_lb_config: \
                   { zone_aware_lb_config: { min_cluster_size: 1, force_local_zone: { min_size: 2 } } } } } }] },",
        zones: [&[H], THREE, &[]],
        expected: [0.5, 0.5, 0.0],
        counter: "lb_zone_routing_sampled",
    },
    Case {
        name: "by-weight",
        settings: "load_balancing_policy: { policies: [{ typed_extension_config: { name: p, typed_config: { \"@type\": \
                   type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random, locality_lb_config: \
                   { zone_aware_lb_config: { min_cluster_size: 1, locality_basis: HEALTHY_HOSTS_WEIGHT } } } } }] },",
        zones: [&["HEALTHY 3"], THREE, &[]],
        expected: [1.0, 0.0, 0.0],
        counter: "lb_zone_routing_all_directly",
    },
];

const REQUESTS: u32 = 200;

#[test]
fn requests_stay_in_the_zone_as_in_envoy() {
    for kind in [Kind::Envoy, Kind::Outrigger] {
        let alone = Alone::start(kind, &resources(), |namespace, _| {
            for zone in 0..3 {
                for host in 0..3 {
                    echo(namespace, port(zone, host));
                }
            }
        });
        for Case {
            name,
            expected,
            counter,
            ..
        } in CASES
        {
            let mut counts: BTreeMap<u16, u32> = BTreeMap::new();
            for _ in 0..REQUESTS {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FRONT));
                let response = alone
                    .send(address, &Request::get("a", &format!("/{name}/")))
                    .expect("an answer");
                let port: u16 = response
                    .body
                    .split(' ')
                    .next()
                    .and_then(|port| port.parse().ok())
                    .unwrap_or(0);
                *counts.entry((port / 10).saturating_sub(901)).or_default() += 1;
            }
            for (zone, expected) in (0..).zip(expected) {
                let count = counts.get(&zone).copied().unwrap_or(0);
                let share = f64::from(count) / f64::from(REQUESTS);
                let is_close = (share - expected).abs() < 0.16 && (*expected > 0.0 || count == 0);
                assert!(is_close, "{kind:?} {name}: {counts:?}");
            }
            let name = format!("cluster.{name}.{counter}: ");
            let stats = alone.admin("/stats").expect("admin").body;
            let value = stats.lines().find_map(|line| line.strip_prefix(&name));
            assert!(
                value.is_some_and(|value| value != "0"),
                "{kind:?} {name}{value:?}"
            );
        }
    }
}

fn port(zone: u16, host: u16) -> u16 {
    9011 + 10 * zone + host
}

fn resources() -> String {
    let routes = CASES.iter().map(|case| {
        format!(
            "{{ match: {{ prefix: /{0}/ }}, route: {{ cluster: {0} }} }}, ",
            case.name
        )
    });
    let peers = cluster("peers", "", [TWO, TWO, &[]]);
    let clusters = CASES
        .iter()
        .map(|case| cluster(case.name, case.settings, case.zones));
    let clusters: Vec<_> = clusters.chain([peers]).collect();
    let manager = Manager::with_routes(&routes.collect::<String>());
    format!(
        "{}cluster_manager: {{ local_cluster_name: peers }}\n",
        configuration(&[manager], &clusters)
    )
}

fn cluster(name: &str, settings: &str, zones: [&[&str]; 3]) -> String {
    let zones = ["home", "b", "c"].into_iter().zip(zones).zip(0..);
    let zones = zones.filter(|((_, hosts), _)| !hosts.is_empty());
    let localities = zones.map(|((zone, hosts), index)| {
        let endpoints = hosts.iter().zip(0..).map(|(host, place)| {
            let (health, weight) = host.split_once(' ').expect("health and weight");
            format!(
                "{{ health_status: {health}, load_balancing_weight: {weight}, endpoint: {{ address: {{ socket_address: \
                 {{ address: 127.0.0.1, port_value: {} }} }} }} }}, ",
                port(index, place)
            )
        });
        format!(
            "{{ locality: {{ zone: {zone} }}, load_balancing_weight: 1, lb_endpoints: [{}] }}, ",
            endpoints.collect::<String>()
        )
    });
    format!(
        "{{ name: {name}, type: STATIC, connect_timeout: 1s, {settings} load_assignment: {{ cluster_name: {name}, endpoints: [{}] }} }}",
        localities.collect::<String>()
    )
}
