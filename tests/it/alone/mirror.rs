//! Copies of requests: who gets them and what they look like; and that nothing they meet with changes the answer.

use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::{Case, ECHO, Manager, Seen, cluster, configuration, echo, from, get};
use e2e::proxy::Kind;

/// Gets copies.
const SHADOW: u16 = 9002;

const ROUTES: &str = "
  { match: { prefix: /plain }, route: { cluster: echo, request_mirror_policies: [{ cluster: shadow }] } },
  { match: { prefix: /kept }, route: { cluster: echo, request_mirror_policies: [{ cluster: shadow, disable_shadow_host_suffix_append: true }] } },
  { match: { prefix: /host }, route: { cluster: echo, request_mirror_policies: [{ cluster: shadow, host_rewrite_literal: copy.example }] } },
  { match: { prefix: /never }, route: { cluster: echo, request_mirror_policies: [{ cluster: shadow, runtime_fraction: { default_value: { numerator: 0 } } }] } },
  { match: { prefix: /twice }, route: { cluster: echo, request_mirror_policies: [{ cluster: shadow }, { cluster: shadow, host_rewrite_literal: second }] } },
  { match: { prefix: /dead }, route: { cluster: echo, request_mirror_policies: [{ cluster: dead }, { cluster: empty }, { cluster: nowhere }] } },
  { match: { prefix: /header }, route: { cluster: echo, request_mirror_policies: [{ cluster_header: x-copy }] } },
  { match: { prefix: /rewritten }, route: { cluster: echo, prefix_rewrite: /new, host_rewrite_literal: new.example, request_mirror_policies: [{ cluster: shadow }] },
    request_headers_to_add: [{ header: { key: x-added, value: \"1\" } }] },
  { match: { prefix: /main-dead }, route: { cluster: dead, request_mirror_policies: [{ cluster: shadow }] } },
  { match: { prefix: /direct }, direct_response: { status: 200 } },
  { name: changed, match: { prefix: /changed }, request_headers_to_add: [{ header: { key: x-added, value: \"1\" } }], route: { cluster: echo,
    request_mirror_policies: [{ cluster: shadow, host_rewrite_literal: copy.example, request_headers_mutations: [
      { append: { header: { key: x-m, value: \"1\" } } }, { append: { header: { key: x-m, value: \"%REQ(x-a)%\" } } },
      { append: { header: { key: x-a, value: new }, append_action: OVERWRITE_IF_EXISTS } }, { remove: x-b },
      { append: { header: { key: x-seen, value: \"%REQ(:PATH)% %REQ(:AUTHORITY)% %ROUTE_NAME% %REQ(x-envoy-internal)%\" } } },
      { remove: x-forwarded-for }, { remove: x-envoy-internal }] }] } },
  { match: { prefix: /bare }, route: { cluster: echo, request_mirror_policies: [{ cluster: shadow, request_headers_mutations: [
      { remove_on_match: { key_matcher: { prefix: x-a } } }, { remove_on_match: { key_matcher: { prefix: x-envoy } } }] }] } },
  { match: { prefix: / }, route: { cluster: echo } }";

const CASES: &[Case] = &[
    get("/plain", &[]),
    from("a:8080", "/plain?q", &[("x-forwarded-for", "1.2.3.4")]),
    from("[::1]", "/plain", &[]),
    from("[::1]:80", "/plain", &[]),
    get("/plain", &[]).method("POST").body("a body"),
    get("/plain", &[("x-status", "503")]),
    get("/plain", &[]).method("HEAD"),
    get("/kept", &[]),
    get("/host", &[]),
    get("/never", &[]),
    get("/twice", &[]).method("PUT").body("twice"),
    get("/dead", &[]),
    get("/dead", &[]).method("POST").body("a body"),
    get("/header", &[("x-copy", "shadow")]),
    get("/header", &[("x-copy", "nowhere")]),
    get("/header", &[]),
    get("/rewritten/x", &[]),
    get("/main-dead", &[]),
    get("/direct", &[]),
    get("/changed?q", &[("x-a", "old"), ("x-b", "b")]),
    get("/changed", &[]),
    get("/bare", &[("x-a", "old"), ("x-b", "b")])
        .method("POST")
        .body("b"),
    // The virtual host's, for routes that have none.
    get("/anything", &[]),
];

#[test]
fn copies_are_those_of_envoy() {
    let manager = Manager {
        routes: format!(
            "validate_clusters: false, request_mirror_policies: [{{ cluster: dead }}], virtual_hosts: [{{ name: a, domains: [\"*\"],
               request_mirror_policies: [{{ cluster: shadow, host_rewrite_literal: vhost }}], routes: [{ROUTES}] }}]"
        ),
        ..Manager::default()
    };
    let resources = configuration(&[manager], &[cluster("shadow", &[SHADOW])]);
    let [envoy, outrigger] = [Kind::Envoy, Kind::Outrigger].map(|kind| {
        let mut seen = Seen::default();
        let alone = Alone::start(kind, &resources, |namespace, _| {
            let _ = echo(namespace, ECHO);
            seen = echo(namespace, SHADOW);
        });
        let lines = CASES.iter().enumerate().map(|(number, case)| {
            let answer = case.answer(&alone, number);
            let copies = copies(&seen, number);
            format!(
                "{} {}{}: {answer} copies {copies:#?}",
                case.method, case.host, case.path
            )
        });
        lines.collect::<Vec<_>>()
    });
    for (envoy, outrigger) in envoy.iter().zip(&outrigger) {
        assert_eq!(envoy, outrigger);
    }
}

#[test]
fn a_body_that_filters_look_at_is_copied_whole() {
    let mutation = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
    let manager = Manager::with_routes(
        "{ match: { prefix: / }, route: { cluster: echo, request_mirror_policies: [{ cluster: shadow }] } }",
    )
    .filter(
        "m",
        mutation,
        "mutations: { request_trailers_mutations: [{ append: { header: { key: x-t, value: \"1\" } } }] }",
    );
    let resources = configuration(&[manager], &[cluster("shadow", &[SHADOW])]);
    let cases = [
        get("/", &[]).method("POST").body("a body"),
        get("/", &[("x-status", "503")]).method("PUT").body("another"),
        get("/", &[]),
    ];
    let [envoy, outrigger] = [Kind::Envoy, Kind::Outrigger].map(|kind| {
        let mut seen = Seen::default();
        let alone = Alone::start(kind, &resources, |namespace, _| {
            let _ = echo(namespace, ECHO);
            seen = echo(namespace, SHADOW);
        });
        let lines = cases.iter().enumerate().map(|(number, case)| {
            let answer = case.answer(&alone, number);
            format!("{answer} copies {:#?}", copies(&seen, number))
        });
        lines.collect::<Vec<_>>()
    });
    assert_eq!(envoy, outrigger);
    assert!(
        outrigger.iter().all(|line| line.contains("9002 ")),
        "{outrigger:#?}"
    );
}

/// What came within a moment, without addresses of this machine.
fn copies(seen: &Seen, number: usize) -> Vec<String> {
    // Nothing says that no copy comes.
    std::thread::sleep(Duration::from_millis(150));
    let marker = format!("x-case: case{number}\"");
    let seen = seen.lock().expect("no panic holds it");
    let mut copies: Vec<String> = seen
        .iter()
        .filter(|copy| copy.contains(&marker))
        .cloned()
        .collect();
    copies.sort();
    copies
}
