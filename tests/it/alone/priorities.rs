//! Retries that avoid priorities tried before.

use e2e::beside::{Case, Manager, answers, check_with, configuration, echo, get};

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
