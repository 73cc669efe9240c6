//! Scoped routes: the key that a request's headers make decides which table routes it. Scopes are written in the listener, or come over
//! SRDS from a file that changes.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::alone::Alone;
use e2e::http::Request;
use e2e::proxy::Kind;

/// Scopes in the listener, the first element of a list; and over SRDS, what `k=` has.
const INLINE: u16 = 10_000;
const DISCOVERED: u16 = 10_001;

const VALUES: [Option<&str>; 8] = [
    Some("a"),
    Some("b;a"),
    Some("x;a"),
    Some("k=a"),
    Some("j=b;k=b;k=a"),
    Some("k;k=a"),
    Some(""),
    None,
];

#[test]
fn the_scope_of_a_request_decides_its_table() {
    let [envoy, outrigger] = [Kind::Envoy, Kind::Outrigger].map(observe);
    assert!(
        [
            "200 table a",
            "200 table b",
            "404 ",
            "scopes-10000",
            "scopes-10001"
        ]
        .iter()
        .all(|answer| envoy.contains(answer)),
        "{envoy}"
    );
    assert_eq!(envoy, outrigger);
}

fn observe(kind: Kind) -> String {
    let folder = e2e::tools::open_folder("outrigger-e2e-scopes-");
    put(
        folder.path(),
        "scopes.yaml",
        &resources(&[scope("a", "a"), scope("b", "b")]),
    );
    let alone = Alone::start(kind, &configuration(folder.path()), |_, _| {});
    let mut seen = answers(&alone);
    // One scope moves, one goes, one comes.
    put(
        folder.path(),
        "scopes.yaml",
        &resources(&[scope("a", "b"), scope("c", "a")]),
    );
    let start = Instant::now();
    while answer(&alone, DISCOVERED, Some("k=c")) != "200 table a" {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{kind:?}: {}",
            alone.log()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    seen.push_str(&answers(&alone));
    for field in ["inline_scoped_route_configs", "dynamic_scoped_route_configs"] {
        for more in [
            "",
            "&name_regex=scope-c",
            "&mask=name",
            "&mask=scoped_route_configs.key",
        ] {
            let dump = alone.admin(&format!("/config_dump?resource={field}{more}"));
            let dump = dump.expect("a dump");
            // Of what is refused Envoy shows protobuf's debug text.
            let text = (dump.status() == 200).then(|| without_dates(&dump.body));
            writeln!(seen, "{} {text:?}", dump.status()).expect("a string");
        }
    }
    seen
}

fn without_dates(dump: &str) -> String {
    let lines = dump.lines().filter(|line| !line.contains("last_updated"));
    // A date is the last member.
    lines
        .map(|line| line.trim_end_matches(','))
        .collect::<Vec<_>>()
        .join("\n")
}

fn answers(alone: &Alone) -> String {
    let mut seen = String::new();
    for port in [INLINE, DISCOVERED] {
        for value in VALUES {
            writeln!(seen, "{port} {value:?}: {}", answer(alone, port, value)).expect("a string");
        }
    }
    seen
}

fn answer(alone: &Alone, port: u16, value: Option<&str>) -> String {
    let request = Request::get("host", "/");
    let request = match value {
        Some(value) => request.header("x-scope", value),
        None => request,
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let response = alone.send(address, &request).expect("an answer");
    format!("{} {}", response.status(), response.body)
}

/// As whoever changes configuration should: by renaming.
fn put(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join("new"), text).expect("our folder");
    fs::rename(folder.join("new"), folder.join(name)).expect("our folder");
}

fn resources(list: &[String]) -> String {
    format!("resources:\n{}", list.concat())
}

/// A scope with its table: a file of route discovery holds one table for Envoy.
fn scope(key: &str, table: &str) -> String {
    format!(
        "- {{ \"@type\": type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration, name: scope-{key}, {} }}\n",
        scope_fields(key, table)
    )
}

fn scope_fields(key: &str, table: &str) -> String {
    format!(
        "key: {{ fragments: [{{ string_key: {key} }}, {{ string_key: host }}] }}, route_configuration: {{ \
         name: {table}, virtual_hosts: [{{ name: all, domains: [\"*\"], routes: [{{ match: {{ prefix: / }}, direct_response: {{ \
         status: 200, body: {{ inline_string: table {table} }} }} }}] }}] }}"
    )
}

fn configuration(folder: &Path) -> String {
    let source = |name: &str| {
        format!(
            "{{ resource_api_version: V3, path_config_source: {{ path: {}, watched_directory: {{ path: {} }} }} }}",
            folder.join(name).display(),
            folder.display()
        )
    };
    let inline = ["a", "b"].map(|name| format!("{{ name: {name}, {} }}", scope_fields(name, name)));
    let inline = format!(
        "scoped_route_configurations_list: {{ scoped_route_configurations: [{}] }}",
        inline.join(", ")
    );
    let discovered = format!(
        "scoped_rds: {{ scoped_rds_config_source: {} }}",
        source("scopes.yaml")
    );
    let named = "element: { separator: \"=\", key: k }";
    let listeners = [
        (INLINE, "index: 0", inline.as_str()),
        (DISCOVERED, named, discovered.as_str()),
    ];
    let listeners = listeners.map(|(port, element, scopes)| {
        format!(
            "  - name: l{port}
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: l{port}
          scoped_routes:
            name: scopes-{port}
            scope_key_builder:
              fragments:
              - header_value_extractor: {{ name: X-Scope, element_separator: \";\", {element} }}
              - header_value_extractor: {{ name: Host, index: 0 }}
            rds_config_source: {}
            {scopes}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
",
            source("routes.yaml")
        )
    });
    format!("  listeners:\n{}", listeners.concat())
}
