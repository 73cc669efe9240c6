//! Which route is taken: tables of authority and path against route names.
use http::{HeaderMap, Method, Version};
use outrigger_model::matcher::{
    HeaderMatch, HeaderMatcher as HeaderConfig, Pattern, StringMatcher as StringConfig,
};
use outrigger_model::route::{ClusterSpec, PathMatch, RouteAction, RouteMatch, VirtualHost, WeightedCluster};
use std::collections::HashMap;

use super::*;
use crate::stats::TagRules;
use crate::telemetry::stream_info::ConnectionInfo;

fn route(name: &str, path: PathMatch) -> model::Route {
    model::Route {
        name: name.into(),
        matcher: RouteMatch {
            path,
            case_sensitive: true,
            headers: Vec::new(),
            query_parameters: Vec::new(),
            cookies: Vec::new(),
            only_grpc: false,
            runtime_share: outrigger_model::fraction::Fraction::ALL,
            certificate_presented: None,
            certificate_validated: None,
        },
        action: RouteAction::DirectResponse {
            status: 200,
            body: Vec::new(),
            format: None,
        },
        decorator_operation: None,
        headers: model::HeaderMutations::default(),
        filter_settings: Vec::new(),
        buffer_limits: model::BufferLimits::default(),
    }
}

fn host(domains: &[&str], routes: Vec<model::Route>) -> VirtualHost {
    VirtualHost {
        name: String::new(),
        domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        routes,
        tls_requirement: model::TlsRequirement::None,
        include_request_attempt_count: false,
        include_attempt_count_in_response: false,
        include_is_timeout_retry_header: false,
        headers: model::HeaderMutations::default(),
        retry_policy: None,
        hedge_policy: None,
        filter_settings: Vec::new(),
        mirrors: Vec::new(),
        buffer_limits: model::BufferLimits::default(),
        rate_limits: Vec::new(),
        cors: None,
    }
}

fn table(hosts: Vec<VirtualHost>, ignore_port: bool) -> RouteTable {
    let config = RouteTableConfig {
        virtual_hosts: hosts,
        vhds: None,
        ignore_port_in_host_matching: ignore_port,
        ignore_path_parameters: false,
        vhost_header: String::new(),
        max_direct_response_body_bytes: 4096,
        most_specific_headers_win: false,
        headers: model::HeaderMutations::default(),
        filter_settings: Vec::new(),
        mirrors: Vec::new(),
        internal_only_headers: Vec::new(),
    };
    let registry = Registry::new(TagRules::new(&[], false).expect("no rule"));
    RouteTable::new(&config, &Arc::default(), &registry).expect("valid")
}

fn head(authority: &str, path: &str) -> RequestHead {
    RequestHead {
        method: Method::GET,
        path: path.parse().expect("a path"),
        authority: authority.parse().expect("a header value"),
        scheme: "http",
        version: Version::HTTP_11,
        headers: HeaderMap::new(),
        is_upgrade: false,
    }
}

fn found<'t>(table: &'t RouteTable, head: &RequestHead) -> Option<&'t Arc<Route>> {
    table.route(&Asked::new(head, false, &mut fastrand::Rng::with_seed(1)))
}

#[track_caller]
fn check(table: &RouteTable, authority: &str, path: &str, expected: Option<&str>) {
    let found = found(table, &head(authority, path)).map(|route| route.name.to_string());
    assert_eq!(found.as_deref(), expected, "{authority}{path}");
}

#[test]
fn the_most_specific_domain_wins() {
    let all = |name| vec![route(name, PathMatch::Prefix("/".into()))];
    let table = table(
        vec![
            host(&["*"], all("any")),
            host(&["*.example.com"], all("suffix")),
            host(&["*.a.example.com"], all("longer suffix")),
            host(&["www.*"], all("prefix")),
            host(&["www.example.com"], all("exact")),
        ],
        true,
    );
    check(&table, "www.example.com:8080", "/", Some("exact"));
    check(&table, "WWW.Example.com", "/", Some("exact"));
    check(&table, "b.example.com", "/", Some("suffix"));
    check(&table, "b.a.example.com", "/", Some("longer suffix"));
    check(&table, ".example.com", "/", Some("any"));
    check(&table, "www.else", "/", Some("prefix"));
    check(&table, "[::1]:80", "/", Some("any"));
}

#[test]
fn the_port_counts_unless_it_is_ignored() {
    let table = table(
        vec![host(&["a"], vec![route("a", PathMatch::Prefix("/".into()))])],
        false,
    );
    check(&table, "a", "/", Some("a"));
    check(&table, "a:80", "/", None);
}

#[test]
fn the_first_matching_route_wins_and_the_query_is_no_part_of_the_path() {
    let routes = vec![
        route("exact", PathMatch::Exact("/x".into())),
        route("separated", PathMatch::SeparatedPrefix("/api".into())),
        route("regex", PathMatch::Regex("/r/[0-9]+".into())),
        route("rest", PathMatch::Prefix("/".into())),
    ];
    let table = table(vec![host(&["*"], routes)], true);
    check(&table, "a", "/x?q=1", Some("exact"));
    check(&table, "a", "/api/v1", Some("separated"));
    check(&table, "a", "/apiv1", Some("rest"));
    check(&table, "a", "/r/12", Some("regex"));
    check(&table, "a", "/r/12/more", Some("rest"));
}

#[test]
fn headers_decide_with_inversion_and_absence() {
    let mut wanted = route("header", PathMatch::Prefix("/".into()));
    wanted.matcher.headers = vec![HeaderConfig {
        name: "x-v".into(),
        kind: HeaderMatch::String(StringConfig {
            pattern: Pattern::Exact("1".into()),
            ignore_case: false,
        }),
        invert: true,
        treat_missing_as_empty: false,
    }];
    let table = table(vec![host(&["*"], vec![wanted])], true);
    check(&table, "a", "/", None);
    let mut other = head("a", "/");
    other.headers.insert("x-v", HeaderValue::from_static("2"));
    assert!(found(&table, &other).is_some());
}

#[test]
fn certificates_decide_where_they_are_asked_for() {
    let mut shown = route("shown", PathMatch::Prefix("/".into()));
    shown.matcher.certificate_presented = Some(true);
    let mut not_shown = route("not shown", PathMatch::Prefix("/".into()));
    not_shown.matcher.certificate_validated = Some(false);
    let table = table(vec![host(&["*"], vec![shown, not_shown])], true);
    for (has_certificate, expected) in [(true, "shown"), (false, "not shown")] {
        let head = head("a", "/");
        let mut random = fastrand::Rng::with_seed(1);
        let found = table.route(&Asked::new(&head, has_certificate, &mut random));
        assert_eq!(found.map(|route| &*route.name), Some(expected));
    }
}

#[test]
fn a_share_of_requests_is_about_that_share() {
    let mut some = route("some", PathMatch::Prefix("/".into()));
    some.matcher.runtime_share = outrigger_model::fraction::Fraction(300_000);
    let table = table(vec![host(&["*"], vec![some])], true);
    let head = head("a", "/");
    let mut random = fastrand::Rng::with_seed(1);
    let found = (0..10_000).filter(|_| table.route(&Asked::new(&head, false, &mut random)).is_some());
    let share = found.count();
    assert!((2_800..3_200).contains(&share), "{share}");
}

fn forward() -> model::Forward {
    model::Forward {
        cluster: ClusterSpec::Single("c".into()),
        cluster_not_found_status: 503,
        timeout: None,
        max_stream_duration: None,
        grpc_timeout_header_max: None,
        max_grpc_timeout: None,
        tells_stream_duration: false,
        grpc_timeout_header_offset: None,
        grpc_timeout_offset: None,
        idle_timeout: None,
        subset_labels: Default::default(),
        priority: Default::default(),
        retry_policy: None,
        prefix_rewrite: None,
        regex_rewrite: None,
        path_format: None,
        host_rewrite: None,
        upgrades: Vec::new(),
        tunnel_end: None,
        appends_forwarded_host: false,
        rate_limits: Vec::new(),
        includes_host_limits: false,
        cors: None,
        hash_policies: Vec::new(),
        mirrors: Vec::new(),
        internal_redirects: None,
        hedge_policy: None,
    }
}

fn info() -> StreamInfo {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let connection = ConnectionInfo::new(0, address, address);
    StreamInfo::new(Arc::new(connection), None)
}

fn rewritten(
    path: PathMatch,
    forward: model::Forward,
    requested: &str,
) -> Result<Option<String>, InvalidPath> {
    let mut route = route("r", path);
    route.action = RouteAction::Forward(Box::new(forward));
    let table = table(vec![host(&["*"], vec![route])], false);
    let head = head("a", requested);
    let rewritten = found(&table, &head)
        .expect("a route")
        .rewritten_path(&head, &info());
    rewritten.map(|path| path.map(|path| path.as_str().to_owned()))
}

#[test]
fn a_rewrite_changes_the_path_and_leaves_the_query() {
    let regex = |pattern: &str, substitution: &str| model::Forward {
        regex_rewrite: Some(model::RegexRewrite {
            pattern: pattern.into(),
            substitution: substitution.into(),
        }),
        ..forward()
    };
    let any = || PathMatch::Prefix("/".into());
    let check = |path: PathMatch, forward: model::Forward, requested: &str, expected: &str| {
        let rewritten = rewritten(path, forward, requested).expect("a path");
        assert_eq!(rewritten.as_deref(), Some(expected), "{requested}");
    };
    check(
        any(),
        regex("/items/([0-9]+)", "/i/${1}"),
        "/items/7?a=/items/8",
        "/i/7?a=/items/8",
    );
    check(any(), regex("a", "$$"), "/aba", "/$b$");
    check(any(), regex("z", "y"), "/aba?q", "/aba?q");
    let prefix = |text: &str| model::Forward {
        prefix_rewrite: Some(text.into()),
        ..forward()
    };
    check(
        PathMatch::Prefix("/old".into()),
        prefix("/new"),
        "/old/x?q",
        "/new/x?q",
    );
    // As in Envoy an expression matches all of the path, so all of it goes.
    check(
        PathMatch::Regex("/o.*".into()),
        prefix("/new"),
        "/old/x?q",
        "/new?q",
    );
}

#[test]
fn a_rewrite_to_what_is_no_path_is_an_error() {
    for substitution in ["", "x", "/ x"] {
        let forward = model::Forward {
            regex_rewrite: Some(model::RegexRewrite {
                pattern: "/.*".into(),
                substitution: substitution.into(),
            }),
            ..forward()
        };
        let rewritten = rewritten(PathMatch::Prefix("/".into()), forward, "/x");
        assert!(rewritten.is_err(), "{substitution:?}: {rewritten:?}");
    }
}

#[test]
fn weights_are_kept_and_zero_gets_nothing() {
    let share = |name: &str, weight| WeightedCluster {
        name: name.into(),
        cluster_header: String::new(),
        weight,
        headers: model::HeaderMutations::default(),
        host_rewrite: None,
        subset_labels: Default::default(),
        filter_settings: Vec::new(),
    };
    let mut shared = route("r", PathMatch::Prefix("/".into()));
    shared.action = RouteAction::Forward(Box::new(model::Forward {
        cluster: ClusterSpec::Weighted {
            shares: vec![share("a", 90), share("zero", 0), share("b", 10)],
            by: model::ShareChoice::Random,
        },
        ..forward()
    }));
    let table = table(vec![host(&["*"], vec![shared])], false);
    let head = head("a", "/");
    let Action::Forward(forward) = &found(&table, &head).expect("a route").action else {
        panic!("it forwards");
    };
    let mut random = fastrand::Rng::with_seed(1);
    let mut counts: HashMap<String, u32> = HashMap::new();
    for _ in 0..10_000 {
        let drawn = forward.draw(&head, &mut random, || None);
        let target = drawn
            .and_then(|index| forward.targets.get(index))
            .expect("a share");
        let (name, _) = target.cluster.find(&head).expect("a name");
        *counts.entry(name.to_string()).or_default() += 1;
    }
    assert_eq!(counts.get("zero"), None);
    let share = counts.get("a").copied().unwrap_or_default();
    assert!((8_800..9_200).contains(&share), "{share}");
}

/// A walk over all routes, as Envoy's, finds the same one: random tables of all kinds of paths, few letters, so that much matches.
#[test]
fn the_index_finds_what_a_walk_finds() {
    let mut random = fastrand::Rng::with_seed(7);
    let text = |random: &mut fastrand::Rng| -> String {
        let letters = (0..random.usize(0..5)).map(|_| random.choice(['a', 'b', '/']).unwrap_or('a'));
        format!("/{}", letters.collect::<String>())
    };
    let mut matched = 0;
    for _ in 0..50 {
        let routes: Vec<_> = (0..random.usize(1..60))
            .map(|number| {
                let path = match random.u32(0..8) {
                    0 => PathMatch::Regex(format!("{}.?", text(&mut random))),
                    1 => PathMatch::SeparatedPrefix(format!("{}a", text(&mut random))),
                    2 | 3 => PathMatch::Exact(text(&mut random)),
                    4 => PathMatch::Prefix(String::new()),
                    _ => PathMatch::Prefix(text(&mut random)),
                };
                let mut route = route(&number.to_string(), path);
                route.matcher.case_sensitive = random.u32(0..8) > 0;
                // Most of them fail, so that later ones have their turn.
                if random.u32(0..4) > 0 {
                    route.matcher.headers = vec![HeaderConfig {
                        name: "x-v".into(),
                        kind: HeaderMatch::Present(true),
                        invert: random.bool(),
                        treat_missing_as_empty: false,
                    }];
                }
                route
            })
            .collect();
        let table = table(vec![host(&["*"], routes)], false);
        let walked = table.hosts.first().expect("the host");
        for _ in 0..40 {
            let mut head = head("a", &text(&mut random));
            if random.bool() {
                head.headers.insert("x-v", HeaderValue::from_static("1"));
            }
            let mut own = fastrand::Rng::with_seed(1);
            let asked = Asked::new(&head, false, &mut own);
            let expected = walked
                .routes
                .iter()
                .find(|route| route.criteria.match_request(&asked, head.path.path(), ""));
            let found = table.route(&asked);
            matched += usize::from(found.is_some());
            assert_eq!(
                found.map(|route| &route.name),
                expected.map(|route| &route.name),
                "{}",
                head.path
            );
        }
    }
    assert!(matched > 250, "{matched}");
}

/// What a lookup costs does not grow with the table: candidates are counted, not time.
#[test]
fn of_ten_thousand_prefixes_few_are_tried() {
    let routes = (0..10_000).map(|number| route("r", PathMatch::Prefix(format!("/service-{number}/"))));
    let table = table(vec![host(&["*"], routes.collect())], false);
    let host = table.hosts.first().expect("the host");
    let tried: Vec<_> = host.index.candidates("/service-9999/x").collect();
    assert_eq!(tried, [9999]);
    assert_eq!(host.index.candidates("/none").count(), 0);
}

#[test]
fn a_connect_takes_routes_of_its_own_and_they_take_nothing_else() {
    let many = (0..20).map(|number| route("many", PathMatch::Exact(format!("/{number}"))));
    let mut routes = vec![
        route("all", PathMatch::Prefix("/".into())),
        route("connect", PathMatch::Connect),
    ];
    for _ in 0..2 {
        let table = table(vec![host(&["*"], routes.clone())], false);
        check(&table, "a:80", "/", Some("all"));
        let connect = RequestHead {
            method: Method::CONNECT,
            ..head("a:80", "/")
        };
        let found = found(&table, &connect).map(|route| route.name.to_string());
        assert_eq!(found.as_deref(), Some("connect"));
        routes.extend(many.clone());
    }
}
