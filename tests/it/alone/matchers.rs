//! Which route a request takes: every kind of matcher, virtual hosts, and what a route makes of the authority.

use e2e::beside::{Case, Manager, check, configuration, from, get};

/// Name of the route, and what it matches.
const ROUTES: &[(&str, &str)] = &[
    ("exact", "path: /exact"),
    ("exact-any-case", "path: /Any, case_sensitive: false"),
    ("prefix-any-case", "prefix: /Loud/, case_sensitive: false"),
    ("separated", "path_separated_prefix: /api/v1"),
    (
        "separated-any-case",
        "path_separated_prefix: /API/v2, case_sensitive: false",
    ),
    ("regex", "safe_regex: { regex: \"/r/[0-9]+(/x)?\" }"),
    (
        "regex-any-case",
        "safe_regex: { regex: \"/R/[A-Z]+\" }, case_sensitive: false",
    ),
    (
        "h-exact",
        "prefix: /h, headers: [{ name: x-h, string_match: { exact: one } }]",
    ),
    (
        "h-exact-case",
        "prefix: /h, headers: [{ name: X-H, string_match: { exact: TWO, ignore_case: true } }]",
    ),
    (
        "h-prefix",
        "prefix: /h, headers: [{ name: x-h, string_match: { prefix: pre } }]",
    ),
    (
        "h-suffix",
        "prefix: /h, headers: [{ name: x-h, string_match: { suffix: fix } }]",
    ),
    (
        "h-contains",
        "prefix: /h, headers: [{ name: x-h, string_match: { contains: mid } }]",
    ),
    (
        "h-regex",
        "prefix: /h, headers: [{ name: x-h, string_match: { safe_regex: { regex: \"r[0-9]+\" } } }]",
    ),
    (
        "h-digits",
        r"prefix: /h, headers: [{ name: x-c, string_match: { safe_regex: { regex: '\d+' } } }]",
    ),
    (
        "h-word",
        r"prefix: /h, headers: [{ name: x-c, string_match: { safe_regex: { regex: '\w+' } } }]",
    ),
    (
        "h-space",
        r"prefix: /h, headers: [{ name: x-c, string_match: { safe_regex: { regex: 'a\sb' } } }]",
    ),
    (
        "h-bound",
        r"prefix: /h, headers: [{ name: x-c, string_match: { safe_regex: { regex: 'x\b.*' } } }]",
    ),
    (
        "h-range",
        "prefix: /h, headers: [{ name: x-n, range_match: { start: -5, end: 10 } }]",
    ),
    (
        "h-present",
        "prefix: /h, headers: [{ name: x-p, present_match: true }]",
    ),
    (
        "h-join",
        "prefix: /h, headers: [{ name: x-j, string_match: { exact: \"a,b\" } }]",
    ),
    (
        "h-two",
        "prefix: /h, headers: [{ name: x-a, string_match: { exact: one } }, { name: x-b, present_match: true }]",
    ),
    (
        "h-absent",
        "prefix: /absent, headers: [{ name: x-p, present_match: false }]",
    ),
    (
        "i-exact",
        "prefix: /i1, headers: [{ name: x-h, string_match: { exact: one }, invert_match: true }]",
    ),
    (
        "i-present",
        "prefix: /i2, headers: [{ name: x-h, present_match: true, invert_match: true }]",
    ),
    (
        "i-absent",
        "prefix: /i3, headers: [{ name: x-h, present_match: false, invert_match: true }]",
    ),
    (
        "i-missing",
        "prefix: /i4, headers: [{ name: x-h, string_match: { exact: one }, invert_match: true, treat_missing_header_as_empty: true }]",
    ),
    (
        "i-range",
        "prefix: /i5, headers: [{ name: x-n, range_match: { start: 0, end: 10 }, invert_match: true }]",
    ),
    (
        "m-empty",
        "prefix: /m1, headers: [{ name: x-h, string_match: { exact: \"\" }, treat_missing_header_as_empty: true }]",
    ),
    (
        "m-regex",
        "prefix: /m2, headers: [{ name: x-h, string_match: { safe_regex: { regex: \".*\" } } }]",
    ),
    (
        "old-exact",
        "prefix: /old, headers: [{ name: x-h, exact_match: one }]",
    ),
    (
        "old-prefix",
        "prefix: /old, headers: [{ name: x-h, prefix_match: pre }]",
    ),
    (
        "old-suffix",
        "prefix: /old, headers: [{ name: x-h, suffix_match: fix }]",
    ),
    (
        "old-contains",
        "prefix: /old, headers: [{ name: x-h, contains_match: mid }]",
    ),
    (
        "old-regex",
        "prefix: /old, headers: [{ name: x-h, safe_regex_match: { regex: \"r[0-9]+\" } }]",
    ),
    (
        "method",
        "prefix: /p, headers: [{ name: \":method\", string_match: { exact: PUT } }]",
    ),
    (
        "path-header",
        "prefix: /p, headers: [{ name: \":path\", string_match: { contains: \"?q\" } }]",
    ),
    (
        "authority",
        "prefix: /p, headers: [{ name: \":authority\", string_match: { prefix: b. } }]",
    ),
    (
        "host",
        "prefix: /p, headers: [{ name: host, string_match: { prefix: c. } }]",
    ),
    (
        "scheme",
        "prefix: /p2, headers: [{ name: \":scheme\", string_match: { exact: http } }]",
    ),
    (
        "jason",
        "prefix: /cookie, headers: [{ name: cookie, string_match: { safe_regex: { regex: \"^(.*?;)?(user=jason)(;.*)?$\" } } }]",
    ),
    (
        "cookies",
        "prefix: /cookie, cookies: [{ name: who, string_match: { exact: ann } }]",
    ),
    (
        "cookie-regex",
        "prefix: /cookie, cookies: [{ name: num, string_match: { safe_regex: { regex: \"[0-9]+\" } } }, { name: also, string_match: { prefix: a } }]",
    ),
    (
        "cookie-not",
        "prefix: /nocookie, cookies: [{ name: who, string_match: { exact: ann }, invert_match: true }]",
    ),
    (
        "q-exact",
        "prefix: /q, query_parameters: [{ name: a, string_match: { exact: \"1\" } }]",
    ),
    (
        "q-regex",
        "prefix: /q, query_parameters: [{ name: b, string_match: { safe_regex: { regex: \"[a-z]+\" } } }]",
    ),
    (
        "q-present",
        "prefix: /q, query_parameters: [{ name: c, present_match: true }]",
    ),
    ("q-any", "prefix: /q, query_parameters: [{ name: d }]"),
    (
        "q-absent",
        "prefix: /noq, query_parameters: [{ name: e, present_match: false }]",
    ),
    (
        "q-encoded",
        "prefix: /q, query_parameters: [{ name: f, string_match: { exact: \"x y\" } }]",
    ),
    ("grpc", "prefix: /grpc, grpc: {}"),
    (
        "never",
        "prefix: /share, runtime_fraction: { default_value: { numerator: 0 } }",
    ),
    (
        "always",
        "prefix: /share, runtime_fraction: { default_value: { numerator: 100 } }",
    ),
    ("tls", "prefix: /tls, tls_context: { presented: true }"),
    (
        "not-tls",
        "prefix: /tls, tls_context: { presented: false, validated: false }",
    ),
];

const PATHS: &[Case] = &[
    get("/exact", &[]),
    get("/exact?q=1", &[]),
    get("/exact/", &[]),
    get("/EXACT", &[]),
    get("/aNY", &[]),
    get("/loud/x", &[]),
    get("/LOUD/X", &[]),
    get("/loud", &[]),
    get("/api/v1", &[]),
    get("/api/v1/x", &[]),
    get("/api/v1?x", &[]),
    get("/api/v10", &[]),
    get("/api/V2/x", &[]),
    get("/r/12", &[]),
    get("/r/12/x", &[]),
    get("/r/12/y", &[]),
    get("/r/12?z", &[]),
    get("/R/ABC", &[]),
    get("/r/abc", &[]),
    get("/none", &[]),
];

const HEADERS: &[&[(&str, &str)]] = &[
    &[],
    &[("x-h", "one")],
    &[("x-h", "two")],
    &[("x-h", "prefixed")],
    &[("x-h", "suffix")],
    &[("x-h", "amidst")],
    &[("x-h", "r12")],
    &[("x-h", "r12x")],
    &[("x-h", "")],
    &[("x-h", "one"), ("x-h", "two")],
    &[("x-h", "zzz"), ("x-h", "one")],
    &[("x-n", "50"), ("x-n", "5")],
    &[("x-n", "-5")],
    &[("x-n", "10")],
    &[("x-n", "9")],
    &[("x-n", " 7 ")],
    &[("x-n", "+7")],
    &[("x-n", "7.0")],
    &[("x-n", "99999999999999999999")],
    &[("x-p", "")],
    &[("x-j", "a"), ("x-j", "b")],
    &[("x-j", "a, b")],
    &[("x-c", "12")],
    &[("x-c", "\u{663}")],
    &[("x-c", "Az_9")],
    &[("x-c", "\u{e4}")],
    &[("x-c", "a b")],
    &[("x-c", "a\u{a0}b")],
    &[("x-c", "x\u{e4}")],
    &[("x-c", "x!")],
    &[("x-a", "one")],
    &[("x-a", "one"), ("x-b", "")],
];

const OTHERS: &[Case] = &[
    get("/p", &[]),
    get("/p", &[]).method("PUT").body("x"),
    get("/p?q", &[]),
    from("b.example", "/p", &[]),
    from("c.example:80", "/p", &[]),
    get("/p2", &[]),
    get("/p2", &[("x-forwarded-proto", "https")]),
    get("/cookie", &[("cookie", "user=jason")]),
    get("/cookie", &[("cookie", "a=b; user=jason; c=d")]),
    get("/cookie", &[("cookie", "a=b;user=jason;c=d")]),
    get("/cookie", &[("cookie", "user=jasonx")]),
    get("/cookie", &[("cookie", "xuser=jason")]),
    get("/cookie", &[("cookie", "a=b"), ("cookie", "user=jason")]),
    get("/cookie", &[("cookie", "who=ann")]),
    get("/cookie", &[("cookie", "who=\"ann\"")]),
    get("/cookie", &[("cookie", "x=y; who=ann")]),
    get("/cookie", &[("cookie", "who=bob; who=ann")]),
    get("/cookie", &[("cookie", "who=ann; who=bob")]),
    get("/cookie", &[("cookie", "x=y"), ("cookie", "who=ann")]),
    get("/cookie", &[("cookie", "who = ann")]),
    get("/cookie", &[("cookie", "num=12; also=all")]),
    get("/cookie", &[("cookie", "num=12")]),
    get("/cookie", &[]),
    get("/nocookie", &[]),
    get("/nocookie", &[("cookie", "who=ann")]),
    get("/nocookie", &[("cookie", "who=bob")]),
    get("/q", &[]),
    get("/q?a=1", &[]),
    get("/q?a=1&a=2", &[]),
    get("/q?a=2&a=1", &[]),
    get("/q?A=1", &[]),
    get("/q?x=y&a=1", &[]),
    get("/q?b=abc", &[]),
    get("/q?b=abc1", &[]),
    get("/q?c", &[]),
    get("/q?c=", &[]),
    get("/q?d=5", &[]),
    get("/q?e=5", &[]),
    get("/noq", &[]),
    get("/noq?e=5", &[]),
    get("/noq?e", &[]),
    get("/q?f=x%20y", &[]),
    get("/q?f=x+y", &[]),
    get("/grpc", &[("content-type", "application/grpc")]),
    get("/grpc", &[("content-type", "application/grpc+proto")]),
    get("/grpc", &[("content-type", "application/grpc-web")]),
    get("/grpc", &[]),
    get("/share", &[]),
    get("/tls", &[]),
];

#[test]
fn requests_take_the_routes_that_they_take_in_envoy() {
    let routes = ROUTES.iter().map(|(name, matcher)| {
        format!("{{ name: {name}, match: {{ {matcher} }}, direct_response: {{ status: 200 }} }}, ")
    });
    let resources = configuration(&[Manager::with_routes(&routes.collect::<String>())], &[]);
    let mut cases = PATHS.to_vec();
    for path in [
        "/h", "/old", "/absent", "/i1", "/i2", "/i3", "/i4", "/i5", "/m1", "/m2",
    ] {
        cases.extend(HEADERS.iter().map(|headers| Case {
            path,
            ..get("", headers)
        }));
    }
    cases.extend_from_slice(OTHERS);
    check(&resources, &cases);
}

#[test]
fn authorities_belong_to_the_virtual_hosts_of_envoy() {
    let host = |name: &str, domains: &str| {
        format!(
            "{{ name: {name}, domains: [{domains}], routes: [{{ name: {name}, match: {{ prefix: / }}, direct_response: {{ status: 200 }} }}] }}, "
        )
    };
    let hosts = [
        host(
            "exact",
            "www.example.com, \"www.example.com:8080\", \"[::1]\", \"[::1]:90\"",
        ),
        host("suffix", "\"*.example.com\""),
        host("longer", "\"*.a.example.com\", \"*-x.example.com\""),
        host("prefix", "\"www.*\", \"a.b.*\""),
        host("prefix2", "\"www.e*\""),
        host("upper", "UPPER.example.org"),
    ]
    .concat();
    let manager = |more: &str, rest: &str| Manager {
        routes: format!("{more} virtual_hosts: [{hosts}{rest}]"),
        ..Manager::default()
    };
    let any = host("any", "\"*\"");
    let managers = [
        manager("", &any),
        manager("ignore_port_in_host_matching: true,", &any),
        manager("", ""),
        manager("vhost_header: x-host,", &any),
        manager("vhost_header: x-host,", ""),
        Manager {
            routes: "ignore_path_parameters_in_path_matching: true, virtual_hosts: [{ name: a, domains: [\"*\"], routes: [
                { name: exact, match: { path: /a/b }, direct_response: { status: 200 } },
                { name: regex, match: { safe_regex: { regex: \"/r[0-9]\" } }, direct_response: { status: 200 } },
                { name: rewritten, match: { prefix: /p }, route: { cluster: echo, prefix_rewrite: /q } },
                { name: prefix, match: { prefix: / }, direct_response: { status: 200 } }] }]"
                .into(),
            ..Manager::default()
        },
    ];
    let mut cases = Vec::new();
    let authorities = [
        "www.example.com",
        "WWW.Example.COM",
        "www.example.com:8080",
        "www.example.com:80",
        "b.example.com",
        "b.a.example.com",
        ".example.com",
        "example.com",
        "y-x.example.com",
        "www.else",
        "www.else:99",
        "www.",
        "a.b.c",
        "upper.example.org",
        "Upper.Example.Org",
        "other",
        "[::1]",
        "[::1]:90",
        "[::1]:91",
        "www.example.com:",
        "www.example.com:x",
        "a.example.com:443",
    ];
    for listener in 0..3 {
        cases.extend(
            authorities
                .iter()
                .map(|host| from(host, "/", &[]).listener(listener)),
        );
    }
    for listener in [3, 4] {
        for headers in [
            &[][..],
            &[("x-host", "b.example.com")],
            &[("x-host", "other")],
            &[("x-host", "")],
            &[("x-host", "other"), ("x-host", "www.example.com")],
        ] {
            cases.push(from("www.example.com", "/", headers).listener(listener));
        }
    }
    for path in [
        "/a/b;v=1",
        "/a/b;v=1?x",
        "/a;v/b",
        "/a;v/b;w",
        "/a;/b",
        "/;x/a/b",
        "/r1;x",
        "/r1",
        "/p;v=1/x",
        "/a/b?;",
    ] {
        cases.push(get(path, &[]).listener(5));
    }
    check(&configuration(&managers, &[]), &cases);
}

#[test]
fn clusters_and_hosts_are_those_of_envoy() {
    let routes = "
      { match: { prefix: /by-header }, route: { cluster_header: x-to } },
      { match: { prefix: /not-found }, route: { cluster_header: x-to, cluster_not_found_response_code: NOT_FOUND } },
      { match: { prefix: /share-header }, route: { weighted_clusters: { header_name: x-n, clusters: [{ name: echo, weight: 30 }, { name: dead, weight: 70 }] } } },
      { match: { prefix: /share-to }, route: { weighted_clusters: { clusters: [{ cluster_header: x-to, weight: 1 }] } } },
      { match: { prefix: /share-hash }, route: { hash_policy: [{ header: { header_name: x-n } }], weighted_clusters: { use_hash_policy: true, clusters: [{ name: echo, weight: 30 }, { name: dead, weight: 70 }] } } },
      { match: { prefix: /literal }, route: { cluster: echo, host_rewrite_literal: new.example } },
      { match: { prefix: /same }, route: { cluster: echo, host_rewrite_literal: a } },
      { match: { prefix: /from-header }, route: { cluster: echo, host_rewrite_header: x-new } },
      { match: { prefix: /from-path }, route: { cluster: echo, prefix_rewrite: /z, host_rewrite_path_regex: { pattern: { regex: \"^/from-path/([a-z]+).*$\" }, substitution: '\\1.example' } } },
      { match: { prefix: /forwarded }, route: { cluster: echo, host_rewrite_literal: new.example, append_x_forwarded_host: true } },
      { match: { prefix: /forwarded2 }, route: { cluster: echo, append_x_forwarded_host: true } },
      { match: { prefix: /auto }, route: { cluster: named, auto_host_rewrite: true, append_x_forwarded_host: true } },
      { match: { prefix: /auto2 }, route: { cluster: echo, auto_host_rewrite: true } }";
    let named = "{ name: named, type: STATIC, connect_timeout: 1s, load_assignment: { cluster_name: named, endpoints: [{ lb_endpoints: [
        { endpoint: { hostname: endpoint.example, address: { socket_address: { address: 127.0.0.1, port_value: 9001 } } } }] }] } }";
    let resources = configuration(&[Manager::with_routes(routes)], &[named.to_owned()]);
    let mut cases = vec![
        get("/by-header", &[("x-to", "echo")]),
        get("/by-header", &[("x-to", "dead")]),
        get("/by-header", &[("x-to", "nowhere")]),
        get("/by-header", &[]),
        get("/by-header", &[("x-to", "")]),
        get("/not-found", &[("x-to", "nowhere")]),
        get("/share-to", &[("x-to", "echo")]),
        get("/share-to", &[("x-to", "nowhere")]),
        get("/share-to", &[]),
        get("/literal", &[]),
        from("a:80", "/literal", &[]),
        get("/same", &[]),
        get("/from-header", &[("x-new", "header.example")]),
        get("/from-header", &[("x-new", "")]),
        get("/from-header", &[]),
        get("/from-path/abc/d?e=/from-path/x", &[]),
        get("/from-path/", &[]),
        get("/forwarded", &[]),
        get("/forwarded", &[("x-forwarded-host", "before")]),
        get("/forwarded2", &[]),
        get("/auto", &[]),
        get("/auto2", &[]),
    ];
    for number in [
        "0",
        "29",
        "30",
        "99",
        "100",
        "129",
        "18446744073709551615",
        "no",
        "",
    ] {
        let headers: &'static [(&str, &str)] = vec![("x-n", number)].leak();
        cases.push(get("/share-header", headers));
        // Which share a request without a hash gets is chance.
        cases.push(get("/share-hash", headers));
    }
    // Chance: no number in the header.
    cases.retain(|case| !(case.path == "/share-header" && matches!(case.headers[0].1, "no" | "")));
    check(&resources, &cases);
}
