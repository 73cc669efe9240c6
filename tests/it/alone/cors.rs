//! CORS: preflights, and what pages of other origins are told.

use e2e::beside::{Case, FRONT, Manager, answers, check_with, configuration, counters, for_route, get};

const FILTER: &str = "envoy.filters.http.cors";
const CORS: &str = "envoy.extensions.filters.http.cors.v3.Cors";
const POLICY: &str = "envoy.extensions.filters.http.cors.v3.CorsPolicy";

const FULL: &str = "allow_origin_string_match: [{ exact: \"https://a.example\" }, { suffix: .b.example }, \
    { safe_regex: { regex: \"https://[a-z]+[.]c[.]example\" } }], allow_methods: \"GET,POST\", allow_headers: x-one, \
    expose_headers: \"x-two,x-three\", max_age: \"600\", allow_credentials: true";

/// Path, the virtual host's policy and the route's.
const ROUTES: &[(&str, Option<&str>)] = &[
    ("/full", Some(FULL)),
    ("/inherited", None),
    (
        "/star",
        Some("allow_origin_string_match: [{ exact: \"*\" }], allow_methods: \"*\", allow_headers: \"*\""),
    ),
    ("/no-origins", Some("allow_methods: GET, max_age: \"1\"")),
    ("/partly", Some("allow_methods: PUT, allow_credentials: false")),
    (
        "/off",
        Some(
            "allow_origin_string_match: [{ prefix: h }], filter_enabled: { default_value: { numerator: 0 } }",
        ),
    ),
    (
        "/shadow",
        Some(
            "allow_origin_string_match: [{ prefix: h }], filter_enabled: { default_value: { numerator: 0 } }, \
             shadow_enabled: { default_value: { numerator: 100 } }",
        ),
    ),
    (
        "/answers-others",
        Some(
            "allow_origin_string_match: [{ exact: x }], allow_methods: GET, forward_not_matching_preflights: false, allow_credentials: true",
        ),
    ),
    (
        "/private",
        Some("allow_origin_string_match: [{ prefix: h }], allow_private_network_access: true"),
    ),
    (
        "/ignore-case",
        Some("allow_origin_string_match: [{ exact: \"HTTPS://A.example\", ignore_case: true }]"),
    ),
];

const ORIGINS: &[&[(&str, &str)]] = &[
    &[],
    &[("origin", "https://a.example")],
    &[("origin", "https://x.b.example")],
    &[("origin", "https://qq.c.example")],
    &[("origin", "https://other.example")],
    &[("origin", "")],
];

const PREFLIGHTS: &[&[(&str, &str)]] = &[
    &[
        ("origin", "https://a.example"),
        ("access-control-request-method", "PATCH"),
    ],
    &[
        ("origin", "https://a.example"),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "x-asked, x-more"),
        ("access-control-request-private-network", "true"),
    ],
    &[
        ("origin", "https://other.example"),
        ("access-control-request-method", "GET"),
    ],
    &[("origin", "https://a.example")],
    &[("access-control-request-method", "GET")],
    &[
        ("origin", "https://a.example"),
        ("access-control-request-method", "GET"),
        ("content-type", "application/grpc"),
    ],
];

fn configured(legacy: bool) -> Manager {
    let settings = |policy: &str| match legacy {
        false => (for_route(FILTER, POLICY, policy), String::new()),
        true => (String::new(), format!(", cors: {{ {policy} }}")),
    };
    let routes = ROUTES.iter().map(|(path, policy)| {
        let (typed, cors) = policy.map(settings).unwrap_or_default();
        format!("{{ match: {{ prefix: {path} }}, {typed} route: {{ cluster: echo {cors} }} }}, ")
    });
    let (typed, cors) = settings(
        "allow_origin_string_match: [{ exact: \"https://a.example\" }], allow_methods: HEAD, allow_headers: x-host, expose_headers: x-all",
    );
    let direct = "{ match: { prefix: /direct }, direct_response: { status: 200 } }, { match: { prefix: /dead }, route: { cluster: dead } }, ";
    let routes = format!(
        "virtual_hosts: [{{ name: a, domains: [\"*\"], {typed} routes: [{direct}{}] {cors} }}]",
        routes.collect::<String>()
    );
    let manager = Manager {
        routes,
        ..Manager::default()
    };
    manager.filter(FILTER, CORS, "")
}

#[test]
fn cors_is_envoys() {
    let mut cases = Vec::new();
    let mut paths: Vec<&str> = ROUTES.iter().map(|(path, _)| *path).collect();
    paths.extend(["/direct", "/dead", "/nowhere"]);
    for listener in [0, 1] {
        for path in &paths {
            for headers in ORIGINS {
                cases.push(
                    Case {
                        path,
                        ..get("", headers)
                    }
                    .listener(listener),
                );
            }
            for headers in PREFLIGHTS {
                cases.push(
                    Case {
                        path,
                        ..get("", headers)
                    }
                    .method("OPTIONS")
                    .listener(listener),
                );
            }
        }
        let said = &[
            ("origin", "https://a.example"),
            ("x-say", "access-control-allow-origin=upstream"),
            ("x-say", "vary=Origin"),
        ];
        cases.push(get("/full", said).listener(listener));
    }
    check_with(
        &configuration(&[configured(false), configured(true)], &[]),
        |_, _| {},
        |alone| {
            let mut seen = answers(alone, &cases);
            for port in [FRONT, FRONT + 1] {
                let names =
                    ["origin_valid", "origin_invalid"].map(|name| format!("http.s{port}.cors.{name}"));
                seen.extend(counters(alone, &names.each_ref().map(String::as_str)));
            }
            seen
        },
    );
}
