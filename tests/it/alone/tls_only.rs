//! Virtual hosts that want TLS, and headers that only clients inside may send.

use e2e::beside::{Case, Manager, check, configuration, from};

const HOSTS: &str = "
    { name: all, domains: [all, \"all:80\", \"all:81\"], require_tls: ALL, response_headers_to_add: [{ header: { key: x-host, value: all } }],
      routes: [{ name: r, match: { path: /x }, route: { cluster: echo } }] },
    { name: external, domains: [external], require_tls: EXTERNAL_ONLY, routes: [{ name: r, match: { prefix: / }, route: { cluster: echo } }] },
    { name: none, domains: [\"*\"], require_tls: NONE, routes: [{ name: r, match: { prefix: / }, route: { cluster: echo, internal_redirect_policy: {} } }] }";

const SETTINGS: &[&str] = &[
    "",
    "use_remote_address: true,",
    "scheme_header_transformation: { scheme_to_overwrite: https },",
    "internal_address_config: { cidr_ranges: [{ address_prefix: 10.0.0.0, prefix_len: 8 }] },",
];

const SAID: &[&[(&str, &str)]] = &[
    &[],
    &[("x-forwarded-proto", "https")],
    &[("x-forwarded-proto", "HTTPS")],
    &[("x-forwarded-proto", "ftp")],
    &[("x-forwarded-for", "10.0.0.1"), ("x-mine", "1"), ("X-Ours", "2")],
    &[
        ("x-forwarded-for", "1.2.3.4"),
        ("x-mine", "1"),
        ("x-mine", "3"),
        ("x-ours", "2"),
    ],
    &[("x-envoy-internal", "true"), ("x-mine", "1")],
    &[("content-type", "application/grpc")],
];

#[test]
fn who_does_not_come_by_https_is_sent_there() {
    let mut cases = Vec::new();
    for listener in (0..).take(SETTINGS.len()) {
        for host in ["all", "external", "other"] {
            let said = SAID
                .iter()
                .map(|headers| from(host, "/x?q=1", headers).listener(listener));
            cases.extend(said);
        }
        let more: [Case; 6] = [
            from("all:80", "/x", &[]),
            from("all:81", "/none", &[]),
            from("ALL", "/x", &[]),
            from("all", "/x", &[("x-forwarded-proto", "http")]),
            from("all", "/x", &[]).method("POST").body("text"),
            from(
                "other",
                "/x",
                &[
                    ("x-status", "302"),
                    ("x-say", "location=http://all/x"),
                    ("x-mine", "1"),
                ],
            ),
        ];
        cases.extend(more.map(|case| case.listener(listener)));
    }
    let managers: Vec<_> = SETTINGS
        .iter()
        .map(|settings| Manager {
            settings: (*settings).to_owned(),
            routes: format!("internal_only_headers: [x-mine, X-OURS], virtual_hosts: [{HOSTS}]"),
            ..Manager::default()
        })
        .collect();
    check(&configuration(&managers, &[]), &cases);
}
