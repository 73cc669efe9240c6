//! Paths, hosts and bodies that are made of what a request says.

use e2e::beside::{Case, Manager, check, configuration, from};

/// Prefix and what is done.
const ROUTES: &[(&str, &str)] = &[
    (
        "/path/",
        "route: { cluster: echo, path_rewrite: \"/new/%REQ(x-to)%\" }",
    ),
    (
        "/whole/",
        "route: { cluster: echo, path_rewrite: \"%REQ(x-to)%\" }",
    ),
    (
        "/host/",
        "route: { cluster: echo, host_rewrite: \"pre-%REQ(x-to)%\" }",
    ),
    (
        "/host-only/",
        "route: { cluster: echo, host_rewrite: \"%REQ(x-to)%\", append_x_forwarded_host: true }",
    ),
    (
        "/both/",
        "route: { cluster: echo, host_rewrite: \"%REQ(:METHOD)%.example\", path_rewrite: \"/%REQ(:AUTHORITY)%%REQ(:PATH)%\" }, request_headers_to_add: [{ header: { key: x-path, value: \"%REQ(:PATH)%\" } }]",
    ),
    ("/moved/", "redirect: { path_rewrite: \"/new/%REQ(x-to)%\" }"),
    (
        "/moved-whole/",
        "redirect: { path_rewrite: \"%REQ(x-to)%\", host_redirect: b }",
    ),
    (
        "/moved-strip/",
        "redirect: { path_rewrite: \"/s%REQ(x-to)%\", strip_query: true }",
    ),
];

const CASES: &[Case] = &[
    from("a", "/path/x?q=1", &[("x-to", "here")]),
    from("a", "/path/x?q=1", &[]),
    from("a", "/path/x", &[("x-to", "a/b?own=1")]),
    from("a", "/path/x?q=1", &[("x-to", "a/b?own=1")]),
    from("a", "/whole/x?q=1", &[]),
    from("a", "/whole/x?q=1", &[("x-to", "/y")]),
    from("a:81", "/host/x", &[("x-to", "here")]),
    from("a:81", "/host/x", &[]),
    from("a", "/host-only/x", &[]),
    from("a", "/host-only/x", &[("x-to", "b:1")]),
    from("a", "/both/x?q", &[]),
    from("a", "/moved/x?q=1", &[("x-to", "here")]),
    from("a", "/moved/x?q=1", &[]),
    from("a", "/moved/x?q=1", &[("x-to", "y?z=1")]),
    from("a", "/moved-whole/x?q=1", &[]),
    from("a", "/moved-whole/x?q=1", &[("x-to", "/y")]),
    from("a", "/moved-strip/x?q=1", &[("x-to", "/y")]),
    from("a", "/moved-strip/x?q=1", &[("x-to", "/y?z=1")]),
];

#[test]
fn rewrites_are_made_of_requests_as_in_envoy() {
    let routes = ROUTES
        .iter()
        .map(|(prefix, action)| format!("{{ match: {{ prefix: {prefix} }}, {action} }}, "));
    let manager = Manager::with_routes(&routes.collect::<String>());
    check(&configuration(&[manager], &[]), CASES);
}
