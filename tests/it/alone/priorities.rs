//! Retries that avoid priorities tried before, and what makes a priority healthy.

use e2e::beside::{Case, Manager, answers, check_with, configuration, counters, echo, get};

/// After how many attempts, and how many retries.
const POLICIES: [(u32, u32); 9] = [
    (1, 1),
    (1, 2),
    // All have been tried: from the first again.
    (1, 3),
    (1, 4),
    (2, 1),
    (2, 2),
    (2, 3),
    (2, 4),
    (3, 5),
];

#[test]
fn retries_go_to_priorities_that_were_not_tried() {
    let route = |(every, retries): &(u32, u32)| {
        format!(
            "{{ match: {{ prefix: /{every}-{retries}/ }}, route: {{ cluster: hosts, retry_policy: {{ retry_on: 5xx, num_retries: {retries}, \
             retry_back_off: {{ base_interval: 0.001s }}, retry_priority: {{ name: envoy.retry_priorities.previous_priorities, typed_config: \
             {{ \"@type\": type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig, \
             update_frequency: {every} }} }} }} }} }}, "
        )
    };
    let hosts = [(9011, 0), (9012, 1), (9013, 2), (9014, 3)].map(|(port, priority)| {
        // Nobody is asked who is not well, and where all would be tried it begins anew.
        let health = if port == 9013 { "UNHEALTHY" } else { "HEALTHY" };
        format!(
            "{{ priority: {priority}, lb_endpoints: [{{ health_status: {health}, endpoint: {{ address: {{ socket_address: \
             {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}, "
        )
    });
    let cluster = format!(
        "{{ name: hosts, type: STATIC, connect_timeout: 1s, common_lb_config: {{ healthy_panic_threshold: {{}} }}, load_assignment: \
         {{ cluster_name: hosts, endpoints: [{}] }} }}",
        hosts.concat()
    );
    let manager = Manager::with_routes(&POLICIES.iter().map(route).collect::<String>());
    let cases: Vec<Case> = POLICIES
        .iter()
        .map(|(every, retries)| Case {
            path: format!("/{every}-{retries}/").leak(),
            ..get("", &[("x-status", "503")])
        })
        .collect();
    check_with(
        &configuration(&[manager], &[cluster]),
        |namespace, _| {
            for port in 9011..=9014 {
                echo(namespace, port);
            }
        },
        |alone| answers(alone, &cases),
    );
}

/// A hash chooses the priority too, so it shows how much of the load each has.
#[test]
fn a_priority_is_as_healthy_as_its_hosts_or_their_weights() {
    let clusters = [("counted", "false"), ("weighed", "true")].map(|(kind, weighs)| {
        // Of priority 0 one host of two is well, which has most of the weight, or little.
        [("heavy", 9), ("light", 1)].map(|(name, weight)| {
            let host = |port, weight, health: &str| {
                format!(
                    "{{ health_status: {health}, load_balancing_weight: {weight}, endpoint: {{ address: {{ socket_address: \
                     {{ address: 127.0.0.1, port_value: {port} }} }} }} }}, "
                )
            };
            format!(
                "{{ name: {kind}-{name}, type: STATIC, connect_timeout: 1s, lb_policy: RING_HASH, load_assignment: {{ \
                 cluster_name: hosts, policy: {{ weighted_priority_health: {weighs} }}, endpoints: [ \
                 {{ lb_endpoints: [{}{}] }}, {{ priority: 1, lb_endpoints: [{}] }}] }} }}",
                host(9011, weight, "HEALTHY"),
                host(9012, 10 - weight, "UNHEALTHY"),
                host(9013, 1, "HEALTHY"),
            )
        })
    });
    let clusters = clusters.as_flattened();
    let names = ["counted-heavy", "counted-light", "weighed-heavy", "weighed-light"];
    let routes = names.map(|name| {
        format!(
            "{{ match: {{ prefix: /{name} }}, route: {{ cluster: {name}, hash_policy: [{{ header: {{ header_name: x-key }} }}] }} }}, "
        )
    });
    let mut cases = Vec::new();
    for name in names {
        for key in 0..16 {
            let key: &'static str = format!("key-{key}").leak();
            let headers: &'static [(&str, &str)] = vec![("x-key", key)].leak();
            cases.push(get(format!("/{name}").leak(), headers));
        }
    }
    check_with(
        &configuration(&[Manager::with_routes(&routes.concat())], clusters),
        |namespace, _| {
            for port in 9011..=9013 {
                echo(namespace, port);
            }
        },
        |alone| {
            let mut lines = answers(alone, &cases);
            let names = names.map(|name| format!("cluster.{name}.lb_healthy_panic"));
            lines.extend(counters(alone, &names.each_ref().map(String::as_str)));
            lines
        },
    );
}
