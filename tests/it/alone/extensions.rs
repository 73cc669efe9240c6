//! HTTP filters whose configuration comes from a file that is replaced: before, after, and with something that cannot be used; what they
//! are without it, and what `/config_dump` shows of them.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::alone::Alone;
use e2e::http::Request;
use e2e::proxy::Kind;
use serde_json::Value;

/// A filter that comes; one whose first configuration is refused, with a default and without; one of another type; a default at once.
const PLACES: [(u16, &str, &str); 5] = [
    (10_000, "good", ""),
    (10_001, "broken", ", default_config: DEFAULT"),
    (10_002, "worse", ""),
    (10_003, "other", ""),
    (
        10_004,
        "broken",
        ", default_config: DEFAULT, apply_default_config_without_warming: true",
    ),
];

#[test]
fn filters_are_what_their_file_says_last() {
    let [envoy, outrigger] = [Kind::Envoy, Kind::Outrigger].map(observe);
    let expected = [
        "10000 401",
        "10001 418",
        "10002 500",
        "10003 500",
        "10004 418",
        "10000 402",
    ];
    assert!(expected.iter().all(|line| envoy.contains(line)), "{envoy}");
    assert_eq!(envoy, outrigger);
}

fn observe(kind: Kind) -> String {
    let folder = e2e::tools::open_folder("outrigger-e2e-extensions-");
    let give = |name: &str, config: &str| put(folder.path(), name, config);
    give("good", &fault(401));
    give("broken", &fault(1));
    give("worse", &fault(1));
    give(
        "other",
        "{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors }",
    );
    let alone = Alone::start(kind, &configuration(folder.path()), |_, _| {});
    let mut seen = String::new();
    for (port, _, _) in PLACES {
        writeln!(seen, "{port} {}", answer(&alone, port)).expect("a string");
    }
    writeln!(seen, "{}", counted(&alone, "")).expect("a string");
    give("good", &fault(402));
    until_answered(&alone, 10_000, 402);
    give("good", &fault(1));
    // Nobody tells when it is refused: what comes after it shows that it was read.
    std::thread::sleep(Duration::from_millis(1500));
    writeln!(seen, "10000 {}", answer(&alone, 10_000)).expect("a string");
    writeln!(seen, "{}", dumped(&alone, "good")).expect("a string");
    writeln!(seen, "{}", counted(&alone, "good")).expect("a string");
    give("good", "[");
    std::thread::sleep(Duration::from_millis(1500));
    writeln!(seen, "unreadable\n{}", counted(&alone, "good")).expect("a string");
    give("worse", &fault(403));
    until_answered(&alone, 10_002, 403);
    seen
}

fn until_answered(alone: &Alone, port: u16, status: u16) {
    let start = Instant::now();
    while !answer(alone, port).starts_with(&status.to_string()) {
        let waits_long = start.elapsed() > Duration::from_secs(5);
        assert!(!waits_long, "{:?}: {}", alone.kind, alone.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn answer(alone: &Alone, port: u16) -> String {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let response = alone
        .send(address, &Request::get("host", "/"))
        .expect("an answer");
    format!("{} {:?}", response.status(), response.body)
}

/// What `/config_dump` shows of a filter, without its date.
fn dumped(alone: &Alone, name: &str) -> Value {
    let dump = alone.admin("/config_dump?resource=ecds_filters").expect("a dump");
    let dump: Value = serde_json::from_str(&dump.body).expect("JSON");
    let filters = dump["configs"].as_array().expect("filters").iter();
    let mut named = filters.filter(|filter| filter["ecds_filter"]["name"] == name);
    let mut filter = named.next().expect("the filter").clone();
    let members = filter.as_object_mut().expect("an object");
    assert!(members.remove("last_updated").is_some(), "{filter}");
    // Of refusals Envoy shows nothing.
    filter.as_object_mut().expect("an object").remove("error_state");
    filter
}

/// What is counted of filters whose names begin so; times are left out. Whenever one of the files is replaced, Envoy reads all.
fn counted(alone: &Alone, name: &str) -> String {
    let target = format!("/stats?filter=^extension_config_discovery.http_filter.{name}");
    let stats = alone.admin(&target).expect("stats").body;
    let is_stable = |line: &&str| !line.contains("update_time:") && !line.contains("update_duration:");
    stats.lines().filter(is_stable).collect::<Vec<_>>().join("\n")
}

fn fault(status: u16) -> String {
    format!(
        "{{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, \
         abort: {{ http_status: {status}, percentage: {{ numerator: 100 }} }} }}"
    )
}

/// As whoever changes configuration should: by renaming.
fn put(folder: &Path, name: &str, config: &str) {
    let text = format!(
        "version_info: \"1\"\nresources:\n- {{ \"@type\": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig, \
         name: {name}, typed_config: {config} }}\n"
    );
    fs::write(folder.join("new"), text).expect("our folder");
    fs::rename(folder.join("new"), folder.join(format!("{name}.yaml"))).expect("our folder");
}

fn configuration(folder: &Path) -> String {
    let listeners = PLACES.map(|(port, name, more)| {
        let more = more.replace("DEFAULT", &fault(418));
        format!(
            "  - name: l{port}
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: l{port}
          route_config:
            virtual_hosts:
            - {{ name: all, domains: [\"*\"], routes: [{{ match: {{ prefix: / }}, direct_response: {{ status: 200 }} }}] }}
          http_filters:
          - name: {name}
            config_discovery:
              config_source:
                resource_api_version: V3
                path_config_source: {{ path: {folder}/{name}.yaml, watched_directory: {{ path: {folder} }} }}
              type_urls: [type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault]{}
          - name: envoy.filters.http.router
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
",
            more.replace(", default_config", "\n              default_config")
                .replace(", apply_default", "\n              apply_default"),
            folder = folder.display(),
        )
    });
    format!("  listeners:\n{}", listeners.concat())
}
