//! Headers that tables, virtual hosts, routes and shares of routes add and remove.

use e2e::beside::{Case, Manager, check, configuration, get};

/// Path, what stands beside the action, and the action.
const ROUTES: &[(&str, &str, &str)] = &[
    (
        "/add",
        "request_headers_to_add: [{ header: { key: x-new, value: one } }, { header: { key: x-there, value: two } }, { header: { key: user-agent, value: more } }],
         response_headers_to_add: [{ header: { key: x-new, value: one } }, { header: { key: x-there, value: two } }]",
        "",
    ),
    (
        "/actions",
        "request_headers_to_add: [
           { header: { key: x-append, value: new }, append_action: APPEND_IF_EXISTS_OR_ADD },
           { header: { key: x-absent, value: new }, append_action: ADD_IF_ABSENT },
           { header: { key: x-over, value: new }, append_action: OVERWRITE_IF_EXISTS_OR_ADD },
           { header: { key: x-exists, value: new }, append_action: OVERWRITE_IF_EXISTS }],
         response_headers_to_add: [
           { header: { key: x-append, value: new }, append_action: APPEND_IF_EXISTS_OR_ADD },
           { header: { key: x-absent, value: new }, append_action: ADD_IF_ABSENT },
           { header: { key: x-over, value: new }, append_action: OVERWRITE_IF_EXISTS_OR_ADD },
           { header: { key: x-exists, value: new }, append_action: OVERWRITE_IF_EXISTS }]",
        "",
    ),
    (
        "/old-append",
        "request_headers_to_add: [{ header: { key: x-over, value: new }, append: false }, { header: { key: x-append, value: new }, append: true }]",
        "",
    ),
    (
        "/remove",
        "request_headers_to_remove: [x-there, X-Over, x-nothing], response_headers_to_remove: [x-there, x-over],
         request_headers_to_add: [{ header: { key: x-there, value: again } }], response_headers_to_add: [{ header: { key: x-over, value: again } }]",
        "",
    ),
    (
        "/empty",
        "request_headers_to_add: [{ header: { key: x-none, value: \"\" } }, { header: { key: x-kept, value: \"\" }, keep_empty_value: true },
           { header: { key: x-missing, value: \"%REQ(x-nowhere)%\" } }, { header: { key: x-kept-too, value: \"%REQ(x-nowhere)%\" }, keep_empty_value: true },
           { header: { key: x-over, value: \"%REQ(x-nowhere)%\" }, append_action: OVERWRITE_IF_EXISTS_OR_ADD }]",
        "",
    ),
    (
        "/commands",
        "request_headers_to_add: [{ header: { key: x-path, value: \"[%REQ(:path)%] 100%%\" } },
           { header: { key: x-method, value: \"%REQ(:METHOD)% %PROTOCOL%\" } },
           { header: { key: x-first, value: \"%REQ(x-there?x-over):2%\" } },
           { header: { key: x-second, value: \"%REQ(x-nowhere?x-over)%-%REQ(x-nowhere)%-\" } },
           { header: { key: x-route, value: \"%ROUTE_NAME%/%UPSTREAM_CLUSTER%\" } },
           { header: { key: x-host, value: \"%REQ(:authority)% %REQ(host)%\" } },
           { header: { key: x-local, value: \"%DOWNSTREAM_LOCAL_ADDRESS%\" } },
           { header: { key: x-flags, value: \"%RESPONSE_FLAGS%\" } },
           { header: { key: x-up, value: \"%UPSTREAM_HOST%\" } },
           { header: { key: x-sni, value: \"%REQUESTED_SERVER_NAME%\" } },
           { header: { key: x-code, value: \"%RESPONSE_CODE%\" } }],
         response_headers_to_add: [{ header: { key: x-path, value: \"%REQ(:path)%\" } }, { header: { key: x-code, value: \"%RESPONSE_CODE% %RESP(:status)%\" } },
           { header: { key: x-details, value: \"%RESPONSE_CODE_DETAILS%\" } }, { header: { key: x-up, value: \"%UPSTREAM_HOST%\" } },
           { header: { key: x-said, value: \"%RESP(x-there)%\" } }, { header: { key: x-sent, value: \"%BYTES_SENT%\" } },
           { header: { key: x-cluster, value: \"%UPSTREAM_CLUSTER%\" } }, { header: { key: x-tries, value: \"%UPSTREAM_REQUEST_ATTEMPT_COUNT%\" } }]",
        "prefix_rewrite: /rewritten, host_rewrite_literal: rewritten.example",
    ),
    (
        "/sequence",
        "request_headers_to_add: [{ header: { key: x-one, value: \"%REQ(x-two)%\" } }, { header: { key: x-two, value: \"%REQ(x-one)%\" } },
           { header: { key: x-three, value: a } }, { header: { key: x-three, value: b } }]",
        "",
    ),
    ("/dead", "response_headers_to_add: [{ header: { key: x-new, value: \"%RESPONSE_FLAGS%\" } }], request_headers_to_add: [{ header: { key: x-new, value: a } }]", "dead"),
    ("/empty-cluster", "response_headers_to_add: [{ header: { key: x-new, value: a } }]", "empty"),
    ("/no-cluster", "response_headers_to_add: [{ header: { key: x-new, value: a } }]", "nowhere"),
];

const SAID: &[(&str, &str)] = &[
    ("x-there", "1"),
    ("x-over", "old"),
    ("x-append", "old"),
    ("x-absent", "old"),
    ("x-exists", "old"),
    ("user-agent", "test"),
    ("x-say", "x-there=1"),
    ("x-say", "x-over=old"),
    ("x-say", "x-append=old"),
    ("x-say", "x-exists=old"),
    ("x-say", "x-absent=old"),
];
const TWICE: &[(&str, &str)] = &[
    ("x-there", "1"),
    ("x-there", "2"),
    ("x-over", "1"),
    ("x-over", "2"),
    ("x-say", "x-over=1"),
    ("x-say", "x-over=2"),
];

fn level(name: &str) -> String {
    format!(
        "request_headers_to_add: [{{ header: {{ key: x-level, value: {name} }} }},
           {{ header: {{ key: x-last, value: \"{name} %REQ(x-last)%\" }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }},
           {{ header: {{ key: x-first, value: {name} }}, append_action: ADD_IF_ABSENT }}],
         response_headers_to_add: [{{ header: {{ key: x-level, value: {name} }} }},
           {{ header: {{ key: x-last, value: {name} }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }},
           {{ header: {{ key: x-first, value: {name} }}, append_action: ADD_IF_ABSENT }}],
         request_headers_to_remove: [x-gone-{name}], response_headers_to_remove: [x-gone-{name}],"
    )
}

fn levels(most_specific_wins: bool) -> Manager {
    let route = |path: &str, action: &str| {
        format!("{{ match: {{ prefix: {path} }}, {} {action} }}, ", level("route"))
    };
    let shares = format!(
        "route: {{ weighted_clusters: {{ clusters: [{{ name: echo, weight: 1, {} host_rewrite_literal: share.example }}] }} }}",
        level("share")
    );
    Manager {
        routes: format!(
            "most_specific_header_mutations_wins: {most_specific_wins}, {} virtual_hosts: [{{ name: a, domains: [\"*\"], {} routes: [{}] }}]",
            level("table"),
            level("host"),
            [
                route(
                    "/direct",
                    "direct_response: { status: 200, body: { inline_string: hello } }"
                ),
                route("/redirect", "redirect: { host_redirect: b }"),
                route("/shares", &shares),
                route("/", "route: { cluster: echo }"),
            ]
            .concat()
        ),
        ..Manager::default()
    }
}

#[test]
fn headers_are_changed_as_envoy_changes_them() {
    let routes = ROUTES.iter().rev().map(|(path, changes, action)| {
        let (cluster, action) = match *action {
            "dead" | "empty" | "nowhere" => (*action, ""),
            other => ("echo", other),
        };
        format!("{{ name: r, match: {{ prefix: {path} }}, {changes}, route: {{ cluster: {cluster}, {action} }} }}, ")
    });
    let first = Manager {
        settings: "preserve_external_request_id: true,".into(),
        ..Manager::with_routes(&routes.collect::<String>())
    };
    let first = Manager {
        routes: format!("validate_clusters: false, {}", first.routes),
        ..first
    };
    let attempts = Manager {
        routes: "virtual_hosts: [{ name: a, domains: [\"*\"], include_request_attempt_count: true, include_attempt_count_in_response: true,
            include_is_timeout_retry_header: true, retry_policy: { retry_on: 5xx, num_retries: 2, retry_back_off: { base_interval: 0.001s } }, routes: [
            { match: { prefix: /dead }, route: { cluster: dead } },
            { match: { prefix: /empty }, route: { cluster: empty } },
            { match: { prefix: /direct }, direct_response: { status: 200 } },
            { match: { prefix: / }, route: { cluster: echo } }] }]"
            .into(),
        ..Manager::default()
    };
    let resources = configuration(&[first, levels(false), levels(true), attempts], &[]);
    let mut cases = Vec::new();
    for (path, _, _) in ROUTES {
        for headers in [&[], SAID, TWICE] {
            cases.push(Case {
                path,
                ..get("", headers)
            });
        }
        cases.push(
            Case {
                path,
                ..get("", SAID)
            }
            .method("POST")
            .body("a body"),
        );
    }
    const GONE: &[(&str, &str)] = &[
        ("x-gone-route", "1"),
        ("x-gone-host", "1"),
        ("x-gone-table", "1"),
        ("x-gone-share", "1"),
        ("x-first", "sent"),
    ];
    for listener in [1, 2] {
        for path in ["/", "/direct", "/redirect", "/shares"] {
            for headers in [&[], GONE, &[("content-type", "application/grpc")][..]] {
                cases.push(
                    Case {
                        path,
                        ..get("", headers)
                    }
                    .listener(listener),
                );
            }
        }
    }
    for path in ["/", "/dead", "/empty", "/direct"] {
        for headers in [&[][..], &[("x-status", "503")]] {
            cases.push(
                Case {
                    path,
                    ..get("", headers)
                }
                .listener(3),
            );
        }
    }
    check(&resources, &cases);
}
