//! Ports and dots at the end of `:authority`: which of them go before the virtual host is sought, and what the upstream and the log see.

use e2e::beside::{Case, Manager, check, configuration, from};

/// Each has a listener, on port 10000 and those after it.
const MANAGERS: &[(&str, &str)] = &[
    ("", ""),
    ("strip_any_host_port: true,", ""),
    ("strip_matching_host_port: true,", ""),
    ("strip_trailing_host_dot: true,", ""),
    ("strip_any_host_port: true, strip_trailing_host_dot: true,", ""),
    (
        "strip_trailing_host_dot: true,",
        "ignore_port_in_host_matching: true,",
    ),
    ("strip_any_host_port: false, strip_matching_host_port: true,", ""),
];

const HOSTS: &[&str] = &[
    "a",
    "a:80",
    "a:10002",
    "a:10006",
    "a.",
    "a.:80",
    "a..",
    "a:",
    "a:http",
    "a:080",
    "b",
    "b:80",
    "b.:80",
    "[::1]",
    "[::1]:80",
    "A.:80",
    "c:1",
    "1.2.3.4.:9",
    "a:4294967296",
    "a:+80",
];

fn cases() -> Vec<Case> {
    let listeners = (0..).zip(MANAGERS);
    let cases = listeners.flat_map(|(listener, _)| {
        HOSTS
            .iter()
            .map(move |host| from(host, "/x", &[]).listener(listener))
    });
    let redirected = (0..).zip(MANAGERS).map(|(listener, _)| {
        from(
            "a",
            "/away",
            &[("x-status", "302"), ("x-say", "location=http://b:80/x")],
        )
        .listener(listener)
    });
    cases.chain(redirected).collect()
}

#[test]
fn ports_and_dots_go_from_hosts_as_in_envoy() {
    let managers: Vec<_> = MANAGERS
        .iter()
        .map(|(settings, of_table)| {
            let host = |name: &str, domains: &str| {
                format!(
                    "{{ name: {name}, domains: [{domains}], routes: [
                      {{ name: {name}, match: {{ prefix: / }}, route: {{ cluster: echo, internal_redirect_policy: {{}} }} }}] }}, "
                )
            };
            let hosts = [
                host("a", "a"),
                host("a80", "\"a:80\""),
                host("b80", "\"b:80\""),
                host("six", "\"[::1]\""),
                host("other", "\"*\""),
            ];
            Manager {
                settings: (*settings).to_owned(),
                routes: format!("{of_table} virtual_hosts: [{}]", hosts.concat()),
                ..Manager::default()
            }
        })
        .collect();
    check(&configuration(&managers, &[]), &cases());
}
