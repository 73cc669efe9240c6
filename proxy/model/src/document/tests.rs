//! Bootstrap documents: what is read, what is refused, where a fault is said to be.
#![allow(clippy::unwrap_used)]
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};

use super::*;

fn parse(yaml: &str) -> Result<Bootstrap, DocumentError> {
    parse_bootstrap("b.yaml", yaml.as_bytes(), None, UnknownFields::Refuse).map(|(message, _)| message)
}

/// The complaint about `text`, or "ok".
fn complaint(file: &str, text: &str) -> String {
    match parse_bootstrap(file, text.as_bytes(), None, UnknownFields::Refuse) {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn check(text: &str, wanted: &str) {
    assert_eq!(complaint("b.yaml", text), wanted, "{text}");
}

#[test]
fn a_wrong_name_is_placed_and_the_right_one_suggested() {
    let yaml = "static_resources:\n  clusters:\n  - name: a\n    connect_timout: 1s\n";
    check(
        yaml,
        "b.yaml:4:5: static_resources.clusters[0].connect_timout: envoy.config.cluster.v3.Cluster has no such field; \
         did you mean `connect_timeout`?",
    );
    let json = "{\n \"staticResources\": {\"clusters\": [\n  {\"conectTimeout\": \"1s\"}]}}";
    assert_eq!(
        complaint("b.json", json),
        "b.json:3:4: staticResources.clusters[0].conectTimeout: envoy.config.cluster.v3.Cluster has no such field; \
         did you mean `connectTimeout`?",
    );
}

#[test]
fn a_duration_may_be_written_as_the_message_that_it_is() {
    let read = |text: &str| {
        let bootstrap = parse(&format!("{{stats_flush_interval: {text}}}")).unwrap();
        let interval = bootstrap.stats_flush_interval.unwrap();
        (interval.seconds, interval.nanos)
    };
    assert_eq!(read("{nanos: 500000000}"), (0, 500_000_000));
    assert_eq!(read("{seconds: 3}"), (3, 0));
    assert_eq!(read("3.5s"), (3, 500_000_000));
}

#[test]
fn a_wrong_value_is_placed() {
    for (cluster, wanted) in [
        (
            "connect_timeout: 1",
            "connect_timeout: expected a duration as \"1.5s\", found a number",
        ),
        (
            "connect_timeout: 1m",
            "connect_timeout: `1m` is not a duration as \"1.5s\"",
        ),
        (
            "connect_timeout: 0.0000000001s",
            "connect_timeout: `0.0000000001s` is not a duration as \"1.5s\"",
        ),
        (
            "name: 5",
            "name: expected a string, found a number; put it in quotes",
        ),
        (
            "name: yes",
            "name: expected a string, found a boolean; put it in quotes",
        ),
        (
            "type: STATI",
            "type: `STATI` is not a name of envoy.config.cluster.v3.Cluster.DiscoveryType; did you mean `STATIC`?",
        ),
        (
            "per_connection_buffer_limit_bytes: -1",
            "per_connection_buffer_limit_bytes: `-1` is not an unsigned 32-bit integer",
        ),
        (
            "type: EDS, cluster_type: {name: x}",
            "cluster_type: only one of this and `type` can be set; remove one of them",
        ),
        (
            "alt_stat_name: x, altStatName: y",
            "altStatName: set twice, in snake_case and in camelCase; remove one of them",
        ),
    ] {
        let text = complaint(
            "b.yaml",
            &format!("static_resources: {{clusters: [{{{cluster}}}]}}"),
        );
        let (place, rest) = text
            .split_once(": static_resources.clusters[0].")
            .unwrap_or_default();
        assert!(place.starts_with("b.yaml:1:"), "{text}");
        assert_eq!(rest, wanted, "{cluster}");
    }
    check(
        "static_resources: [a]",
        "b.yaml:1:19: static_resources: expected an object (envoy.config.bootstrap.v3.Bootstrap.StaticResources), found a list",
    );
}

#[test]
fn an_unknown_type_is_refused_with_the_nearest() {
    let config = |url: &str| {
        format!(
            "static_resources: {{clusters: [{{transport_socket: {{typed_config: {{'@type': '{url}'}}}}}}]}}"
        )
    };
    check(
        &config("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
        "ok",
    );
    // Not in the small set.
    check(
        &config("type.googleapis.com/envoy.extensions.transport_sockets.tap.v3.Tap"),
        "ok",
    );
    let text = complaint(
        "b.yaml",
        &config("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContex"),
    );
    assert!(text.contains("transport_socket.typed_config.@type: "), "{text}");
    assert!(
        text.ends_with(
            "did you mean `type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext`?"
        ),
        "{text}"
    );
}

#[test]
fn broken_documents_are_placed() {
    check(
        "node: {id: a",
        "b.yaml:2:1: while parsing a flow mapping, did not find expected ',' or '}'",
    );
    check(
        "node: {id: a}\nnode: {id: b}\n",
        "b.yaml:2:1: key `node` stands here a second time; remove one of them",
    );
    check(
        "node: {id: a}\n---\nnode: {id: b}\n",
        "b.yaml:2:1: a second document begins here; one is read",
    );
    check("", "b.yaml:1:1: the document is empty");
    check("a", "b.yaml:1:1: document: expected an object, found a string");
    for (json, wanted) in [
        (
            "{\"node\": {\"id\": \"a\"}, // no\n}",
            "b.json:1:23: expected a name in double quotes",
        ),
        (
            "{\"node\": {\"id\": a}}",
            "b.json:1:17: `a` is not a JSON value; text stands in double quotes",
        ),
        ("{} {}", "b.json:1:4: text after the end of the document"),
        ("{\"a\": \"b", "b.json:1:7: this string has no end"),
        ("{\"a\": 1x}", "b.json:1:7: `1x` is not a number"),
        (
            "{\"a\":\n[1,",
            "b.json:2:4: the text ends where a value should be",
        ),
    ] {
        assert_eq!(complaint("b.json", json), wanted);
    }
    let error = parse_bootstrap("b.yaml", b"a: b\nc: \xff", None, UnknownFields::Refuse).unwrap_err();
    assert_eq!(error.to_string(), "b.yaml:2:4: not UTF-8");
}

#[test]
fn reads_what_envoy_reads() {
    // Each was accepted by `envoy --mode validate`, version 1.40.
    for yaml in [
        "node: {id: 1.10, cluster: ~}",
        "node: {id: 99999999999}",
        "{\"node\":{\"id\":\"a\"}}",
        "node: null",
        "static_resources: {clusters: {name: a, type: static}}",
        "static_resources: {clusters: [{name: a, type: 0, ignore_health_on_host_removal: \"true\"}]}",
        "static_resources: {clusters: [{name: a, type: \"0\", ignore_health_on_host_removal: on}]}",
        "staticResources: {clusters: [{name: a, per_connection_buffer_limit_bytes: 80.0, connectTimeout: 1s}]}",
        "static_resources: {secrets: [{generic_secret: {secret: {inline_bytes: \"a_-b\"}}}]}",
    ] {
        check(yaml, "ok");
    }
    let json = r#"{"static_resources": {"clusters": [{"name": "a\ud83d\ude00", "per_connection_buffer_limit_bytes": 8e1}]}}"#;
    assert_eq!(complaint("b.json", json), "ok");
    assert_eq!(complaint("b.conf", json), "ok");
}

#[test]
fn values_mean_what_they_say() {
    let yaml = "
static_resources:
  clusters:
  - &a
    name: a
    type: EDS
    connect_timeout: 0.25s
    per_connection_buffer_limit_bytes: 0x10
  - *a
";
    let clusters = parse(yaml).unwrap().static_resources.unwrap().clusters;
    assert_eq!(clusters.len(), 2);
    assert_eq!(clusters[0], clusters[1]);
    let cluster = &clusters[0];
    assert_eq!(
        cluster.cluster_discovery_type,
        Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32))
    );
    let timeout = cluster.connect_timeout.as_ref().unwrap();
    assert_eq!((timeout.seconds, timeout.nanos), (0, 250_000_000));
    assert_eq!(
        cluster.per_connection_buffer_limit_bytes.as_ref().unwrap().value,
        16
    );
}

#[test]
fn overrides_merge_as_protobuf_does() {
    let base = b"node: {id: a, cluster: c, metadata: {x: 1}}\nstatic_resources: {clusters: [{name: one}]}";
    let overrides = "node: {id: b, metadata: {y: 2}}\nstatic_resources: {clusters: [{name: two}]}";
    let (message, bytes) = parse_bootstrap("b.yaml", base, Some(overrides), UnknownFields::Refuse).unwrap();
    let node = message.node.clone().unwrap();
    assert_eq!(
        (
            node.id.as_str(),
            node.cluster.as_str(),
            node.metadata.unwrap().fields.len()
        ),
        ("b", "c", 2)
    );
    let names: Vec<_> = message
        .static_resources
        .iter()
        .flat_map(|all| &all.clusters)
        .map(|one| one.name.clone())
        .collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(Bootstrap::decode(bytes.as_slice()).unwrap(), message);
    let error = parse_bootstrap("b.yaml", base, Some("node: {idd: b}"), UnknownFields::Refuse).unwrap_err();
    let wanted =
        "--config-yaml:1:8: node.idd: envoy.config.core.v3.Node has no such field; did you mean `id`?";
    assert_eq!(error.to_string(), wanted);
}

#[test]
fn unknown_fields_can_be_ignored() {
    let yaml = b"node: {id: a, new_field: {b: c}}";
    let (message, _) = parse_bootstrap("b.yaml", yaml, None, UnknownFields::Ignore).unwrap();
    assert_eq!(message.node.unwrap().id, "a");
    parse_bootstrap("b.yaml", yaml, None, UnknownFields::Refuse).unwrap_err();
}

#[test]
fn an_absent_file_is_named() {
    let error = read_bootstrap(Path::new("no/such.yaml"), None, UnknownFields::Refuse).unwrap_err();
    assert!(
        error.to_string().starts_with("no/such.yaml: No such file"),
        "{error}"
    );
}

#[test]
fn depth_and_aliases_are_bounded() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = level - 1;
        bomb.push_str(&format!("a{level}: &a{level} [*a{below}, *a{below}, *a{below}, *a{below}, *a{below}, *a{below}, *a{below}]\n"));
    }
    let chain: String = (1..300)
        .map(|level| format!("- &b{level} [*b{}]\n", level - 1))
        .collect();
    for (file, text, wanted) in [
        ("b.yaml", bomb, "aliases make the document too large"),
        (
            "b.yaml",
            format!("- &b0 x\n{chain}"),
            "nested more than 100 levels deep",
        ),
        ("b.yaml", "[".repeat(100_000), "recursion limit exceeded"),
        ("b.yaml", "- ".repeat(100_000), "deep"),
        ("b.yaml", "{a: ".repeat(100_000), "recursion limit exceeded"),
        ("b.yaml", "? ".repeat(100_000), "cannot be a key"),
        (
            "b.json",
            "[".repeat(1_000_000),
            "nested more than 100 levels deep",
        ),
        (
            "b.json",
            "{\"a\":".repeat(1_000_000),
            "nested more than 100 levels deep",
        ),
        ("b.yaml", "a: &a [*a]".to_owned(), "alias"),
        (
            "b.yaml",
            format!("node: {{metadata: {{a: {}{}}}}}", "[".repeat(60), "]".repeat(60)),
            "deep",
        ),
    ] {
        let text = complaint(file, &text);
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

/// No bytes make it panic or hang: every kind of damage to a real document, from a fixed seed.
#[test]
fn damaged_documents_never_panic() {
    let yaml = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/odd.yaml")).unwrap();
    let json = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/odd.json")).unwrap();
    let descriptors = Descriptors::full().unwrap();
    let mut seed = 1_u64;
    let mut random = |below: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for round in 0..1_500 {
        let (file, original) = if round % 2 == 0 {
            ("b.yaml", &yaml)
        } else {
            ("b.json", &json)
        };
        let mut bytes = original.clone();
        for _ in 0..=random(3) {
            let (at, other) = (random(bytes.len()), random(original.len()));
            let length = random(40).min(bytes.len() - at);
            match random(5) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes.truncate(at.max(1)),
                2 => bytes.insert(at, b"{}[]:,-&*!|>'\"%@`#?\n\t \\0e"[random(25)]),
                3 => drop(bytes.drain(at..at + length)),
                _ => {
                    let piece = original[other..(other + length).min(original.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
            if bytes.is_empty() {
                bytes.push(b' ');
            }
        }
        if let Ok(source) = Source::new(file, &bytes, Format::of(file, &bytes)) {
            let _ = Decoder::new(&descriptors, UnknownFields::Refuse).document(&source.tree, BOOTSTRAP);
        }
    }
}
