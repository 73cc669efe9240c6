//! What requests hash to. Shares of a route that go by the hash show it without a load balancer: each of them adds its own header.

use e2e::beside::{Case, Manager, check, check_with, cluster, configuration, echo, get};

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

const PORTS: [u16; 4] = [9011, 9012, 9013, 9014];

/// Both policies pick the host that Envoy picks, for keys from headers and cookies; and a client without a cookie gets one.
#[test]
fn requests_go_to_the_hosts_that_they_go_to_in_envoy() {
    let hashing = |name: &str, policy: &str| {
        let plain = cluster(name, &PORTS);
        plain.replacen('{', &format!("{{ lb_policy: {policy},"), 1)
    };
    let cookie = "hash_policy: [{ cookie: { name: session, ttl: 60s, path: /some, attributes: [{ name: SameSite, value: Lax }] } }]";
    let routes = format!(
        "{{ match: {{ prefix: /ring }}, route: {{ cluster: ring, hash_policy: [{{ header: {{ header_name: x-key }} }}] }} }},
         {{ match: {{ prefix: /maglev }}, route: {{ cluster: maglev, hash_policy: [{{ header: {{ header_name: x-key }} }}] }} }},
         {{ match: {{ prefix: /cookie }}, route: {{ cluster: ring, {cookie} }} }},
         {{ match: {{ prefix: /session }}, route: {{ cluster: ring, hash_policy: [{{ cookie: {{ name: session, ttl: 0s }} }}] }} }},
         {{ match: {{ prefix: /unused }}, route: {{ cluster: echo, {cookie} }} }}"
    );
    let clusters = [hashing("ring", "RING_HASH"), hashing("maglev", "MAGLEV")];
    let resources = configuration(&[Manager::with_routes(&routes)], &clusters);
    let mut cases = Vec::new();
    for path in ["/ring", "/maglev"] {
        for number in 0..20 {
            let key: &'static str = format!("key-{number}").leak();
            let headers: &'static [(&str, &str)] = vec![("x-key", key)].leak();
            cases.push(Case {
                path,
                ..get("", headers)
            });
        }
    }
    cases.push(get("/cookie", &[("cookie", "session=mine")]));
    cases.push(get("/session", &[("cookie", "session=mine")]));
    let made = [get("/cookie", &[]), get("/session", &[]), get("/unused", &[])];
    check_with(
        &resources,
        |namespace, _| {
            for port in PORTS {
                let _ = echo(namespace, port);
            }
        },
        |alone| {
            let answers = cases.iter().chain(&made).enumerate();
            let answers = answers.map(|(number, case)| (case, case.answer(alone, number)));
            let seen = answers.map(|(case, answer)| match case.headers {
                // The cookie's value is a hash of both ends of the connection, so what it picks differs too.
                [] => format!("{}: {:?}", case.path, made_cookie(&answer)),
                headers => format!("{} {headers:?}: {answer}", case.path),
            });
            seen.collect()
        },
    );
}

/// `set-cookie` with the length of its value.
fn made_cookie(answer: &str) -> Option<String> {
    let cookie = answer.split("\"set-cookie: ").nth(1)?;
    let cookie = cookie.split("\", \"").next()?.split("\"]").next()?;
    let (name, rest) = cookie.split_once('=')?;
    let (value, attributes) = rest.split_once(';').unwrap_or((rest, ""));
    Some(format!("{name}: {} characters;{attributes}", value.len()))
}
