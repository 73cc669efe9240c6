//! What of a message passes between HTTP/1 and HTTP/2, each on either side: trailers, informational responses, how names are written.

mod client;
mod upstream;

use e2e::beside::{Manager, check_with, cluster};

const HTTP1: u16 = 9101;
const HTTP2: u16 = 9102;

/// A listener, by what its connection manager has.
const MANAGERS: &[(&str, &str)] = &[
    ("plain", ""),
    ("trailers", "http_protocol_options: { enable_trailers: true },"),
    ("informs", "proxy_100_continue: true,"),
    (
        "proper",
        "http_protocol_options: { enable_trailers: true, header_key_format: { proper_case_words: {} } },",
    ),
    (
        "preserves",
        "http_protocol_options: { header_key_format: PRESERVE },",
    ),
    (
        "preserves-more",
        "http_protocol_options: { enable_trailers: true, header_key_format: PRESERVE-MORE },",
    ),
];

/// A cluster in HTTP/1, by its `http_protocol_options`.
const CLUSTERS: &[(&str, &str)] = &[
    ("h1", ""),
    ("h1-trailers", "enable_trailers: true"),
    (
        "h1-proper",
        "enable_trailers: true, header_key_format: { proper_case_words: {} }",
    ),
    ("h1-preserves", "header_key_format: PRESERVE"),
    (
        "h1-preserves-more",
        "enable_trailers: true, header_key_format: PRESERVE-MORE",
    ),
];

/// What stands for this in the lists above.
fn spelled(options: &str) -> String {
    let formatter = |more: &str| {
        format!(
            "{{ stateful_formatter: {{ name: preserve_case, typed_config: {{ \"@type\": \
             type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig{more} }} }} }}"
        )
    };
    let more = formatter(", formatter_type_on_envoy_headers: PROPER_CASE");
    options
        .replace("PRESERVE-MORE", &more)
        .replace("PRESERVE", &formatter(""))
}

/// One exchange.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    port: u16,
    version: u8,
    cluster: &'static str,
    headers: &'static [(&'static str, &'static str)],
    /// `None`: no body.
    trailers: Option<&'static [(&'static str, &'static str)]>,
}

type Fields = &'static [(&'static str, &'static str)];

/// All ways between the versions for these listeners and clusters.
fn ways(
    managers: &[&str],
    clusters: &[&'static str],
    kind: &str,
    headers: Fields,
    trailers: Option<Fields>,
) -> Vec<Case> {
    let mut cases = Vec::new();
    for manager in managers {
        let position = MANAGERS.iter().position(|(name, _)| name == manager);
        let port = e2e::beside::FRONT + u16::try_from(position.expect("it is there")).expect("few");
        for version in [1, 2] {
            for cluster in clusters {
                cases.push(Case {
                    name: format!("{manager}-{version}-{cluster}-{kind}"),
                    port,
                    version,
                    cluster,
                    headers,
                    trailers,
                });
            }
        }
    }
    cases
}

fn check(cases: &[Case]) {
    check_with(
        &configuration(),
        |namespace, _| upstream::start(namespace),
        |alone| {
            std::thread::scope(|scope| {
                let running: Vec<_> = cases
                    .iter()
                    .map(|case| scope.spawn(move || client::exchange(alone, case)))
                    .collect();
                let answers = running.into_iter().map(|case| case.join().expect("a case"));
                answers
                    .zip(cases)
                    .map(|(answer, case)| {
                        let log = alone.logged(&format!("case-{} ", case.name));
                        format!("{}:\n  {answer}\n  {log}", case.name)
                    })
                    .collect()
            })
        },
    );
}

#[test]
fn trailers_pass_where_envoy_lets_them() {
    let both: Fields = &[("x-t", "1"), ("X-Other", "2")];
    let listeners = ["plain", "trailers"];
    let clusters = ["h1", "h1-trailers", "h2"];
    let mut cases = ways(&listeners, &clusters, "both", &[], Some(both));
    let named: Fields = &[("te", "trailers"), ("trailer", "x-t")];
    cases.extend(ways(&listeners, &clusters, "named", named, Some(both)));
    cases.extend(ways(&listeners, &clusters, "none", &[], Some(&[])));
    let plain: Fields = &[("x-plain", "1")];
    cases.extend(ways(&["trailers"], &clusters, "plain-answer", plain, None));
    let bad: Fields = &[("x_t", ""), ("x_t", "1, 2")];
    cases.extend(ways(&["trailers"], &clusters, "odd", &[], Some(bad)));
    check(&cases);
}

#[test]
fn informational_responses_pass_where_envoy_lets_them() {
    let listeners = ["plain", "informs"];
    let clusters = ["h1", "h2"];
    let mut cases = Vec::new();
    for (kind, headers) in [
        ("103", &[("x-info", "103")] as Fields),
        ("100", &[("x-info", "100")]),
        ("many", &[("x-info", "103,102,103")]),
        ("expects", &[("expect", "100-continue"), ("x-info", "100")]),
        (
            "expects-more",
            &[("expect", "100-continue"), ("x-info", "100,103")],
        ),
    ] {
        cases.extend(ways(&listeners, &clusters, kind, headers, Some(&[])));
    }
    check(&cases);
}

#[test]
fn names_are_written_as_envoy_writes_them() {
    let listeners = ["plain", "proper", "preserves", "preserves-more"];
    let clusters = ["h1", "h1-proper", "h1-preserves", "h1-preserves-more", "h2"];
    let trailers: Fields = &[("x-t", "1"), ("x-oTHer", "2")];
    let mixed: Fields = &[
        ("X-mIXed", "1"),
        ("x-lower", "1"),
        ("X_a.b-1c", "1"),
        ("X-MIXED", "2"),
    ];
    let mut cases = ways(&listeners, &clusters, "mixed", mixed, Some(trailers));
    cases.extend(ways(
        &listeners,
        &clusters,
        "plain-answer",
        &[("x-plain", "1")],
        None,
    ));
    cases.extend(ways(&listeners, &["dead"], "dead", &[], None));
    check(&cases);
}

fn configuration() -> String {
    let names = CLUSTERS.iter().map(|(name, _)| *name).chain(["h2", "dead"]);
    let routes =
        names.map(|name| format!("{{ match: {{ path: /{name} }}, route: {{ cluster: {name} }} }}, "));
    let routes = routes.collect::<String>();
    let managers: Vec<_> = MANAGERS
        .iter()
        .map(|(_, settings)| Manager {
            settings: spelled(settings),
            ..Manager::with_routes(&routes)
        })
        .collect();
    let speaking = |name: &str, port: u16, options: &str| {
        let options = format!(
            "typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{ \"@type\": \
             type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{ {options} }} }} }}, load_assignment"
        );
        cluster(name, &[port]).replace("load_assignment", &options)
    };
    let mut clusters: Vec<_> = CLUSTERS
        .iter()
        .map(|(name, options)| {
            let options = format!("http_protocol_options: {{ {} }}", spelled(options));
            speaking(name, HTTP1, &options)
        })
        .collect();
    clusters.push(speaking("h2", HTTP2, "http2_protocol_options: {}"));
    e2e::beside::configuration(&managers, &clusters)
}
