//! What requests hash to. Shares of a route that go by the hash show it without a load balancer: each of them adds its own header.

use e2e::beside::{Case, Manager, check, configuration, get};

const SHARES: u32 = 97;

/// Path and hash policies.
const ROUTES: &[(&str, &str)] = &[
    ("/header", "{ header: { header_name: X-Key } }"),
    (
        "/rewritten",
        "{ header: { header_name: x-key, regex_rewrite: { pattern: { regex: \"^([a-z]+).*\" }, substitution: '\\1' } } }",
    ),
    ("/path", "{ header: { header_name: \":path\" } }"),
    ("/cookie", "{ cookie: { name: session } }"),
    ("/query", "{ query_parameter: { name: k } }"),
    ("/source", "{ connection_properties: { source_ip: true } }"),
    (
        "/two",
        "{ header: { header_name: x-key } }, { query_parameter: { name: k } }",
    ),
    (
        "/terminal",
        "{ header: { header_name: x-key }, terminal: true }, { query_parameter: { name: k } }",
    ),
    (
        "/three",
        "{ query_parameter: { name: k }, terminal: true }, { cookie: { name: session } }, { connection_properties: { source_ip: true } }",
    ),
    (
        "/same",
        "{ header: { header_name: x-key } }, { header: { header_name: x-key } }",
    ),
];

const KEYS: &[&[(&str, &str)]] = &[
    &[("x-key", "one"), ("cookie", "session=abc")],
    &[("x-key", "two2"), ("cookie", "a=b; session=\"abc\"")],
    &[("x-key", "two3"), ("cookie", "session=abc; session=def")],
    &[("x-key", "a"), ("x-key", "b"), ("cookie", "session=12")],
    &[
        ("x-key", "b"),
        ("x-key", "a"),
        ("cookie", "x=1"),
        ("cookie", "session=12"),
    ],
    &[("x-key", ""), ("cookie", "session=d")],
    &[
        ("x-key", "a longer key, with more than thirty-two bytes in it"),
        ("cookie", "session=e"),
    ],
];

#[test]
fn requests_hash_as_in_envoy() {
    let shares = (0..SHARES).map(|number| {
        format!("{{ name: echo, weight: 1, request_headers_to_add: [{{ header: {{ key: x-share, value: \"{number}\" }} }}] }}, ")
    });
    let shares = shares.collect::<String>();
    let routes = ROUTES.iter().map(|(path, policies)| {
        format!(
            "{{ match: {{ prefix: {path} }}, route: {{ hash_policy: [{policies}], weighted_clusters: {{ use_hash_policy: true, clusters: [{shares}] }} }} }}, "
        )
    });
    let manager = Manager::with_routes(&routes.collect::<String>());
    let mut cases = Vec::new();
    for (path, _) in ROUTES {
        for query in ["?k=1", "?k=%20&k=2"] {
            let path: &'static str = format!("{path}{query}").leak();
            cases.extend(KEYS.iter().map(|headers| Case {
                path,
                ..get("", headers)
            }));
        }
    }
    check(&configuration(&[manager], &[]), &cases);
}
