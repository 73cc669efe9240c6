//! Rendering against what Envoy 1.40 printed of the same bytes.
#![allow(clippy::unwrap_used)]
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use envoy_types::pb::google::protobuf::Any;
use prost::{Message as _, Name as _};
use prost_reflect::{DeserializeOptions, DynamicMessage};
use serde_json::{Value, json};

mod captures;

use super::*;
use crate::document::{UnknownFields, parse_bootstrap, read_bootstrap};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn json_file(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden(name)).unwrap()).unwrap()
}

fn resources(path: &Path) -> Vec<Any> {
    DiscoveryResponse::decode(std::fs::read(path).unwrap().as_slice())
        .unwrap()
        .resources
}

/// Numbers by value: Envoy's text of a double is another one.
fn same(ours: &Value, theirs: &Value, path: &str) {
    match (ours, theirs) {
        (Value::Object(left), Value::Object(right)) => {
            let names = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(left), names(right), "names at {path}");
            left.iter()
                .for_each(|(name, value)| same(value, &right[name], &format!("{path}.{name}")));
        }
        (Value::Array(left), Value::Array(right)) => {
            assert_eq!(left.len(), right.len(), "length of {path}");
            let pairs = left.iter().zip(right).enumerate();
            pairs.for_each(|(index, (left, right))| same(left, right, &format!("{path}[{index}]")));
        }
        (Value::Number(left), Value::Number(right)) => assert_eq!(left.as_f64(), right.as_f64(), "{path}"),
        _ => assert_eq!(ours, theirs, "{path}"),
    }
}

#[test]
fn prints_awkward_values_as_envoy_does() {
    let (mut message, _) = read_bootstrap(&golden("odd.yaml"), None, UnknownFields::Refuse).unwrap();
    // The golden is without who speaks: Envoy says its build there.
    let node = message.node.as_mut().unwrap();
    assert_eq!(std::mem::take(&mut node.user_agent_name), "envoy");
    node.user_agent_version_type = None;
    let text = Descriptors::full()
        .unwrap()
        .message_to_json(&Bootstrap::full_name(), &message.encode_to_vec(), Defaults::Omit)
        .unwrap();
    same(
        &serde_json::from_str(&text).unwrap(),
        &json_file("odd.json"),
        "bootstrap",
    );
}

#[test]
fn prints_defaults_where_envoy_does() {
    let theirs = json_file("server_info.json");
    let descriptors = Descriptors::full().unwrap();
    let message = DynamicMessage::deserialize_with_options(
        descriptors.message("envoy.admin.v3.ServerInfo").unwrap(),
        &theirs,
        &DeserializeOptions::new(),
    );
    let bytes = message.unwrap().encode_to_vec();
    let text = descriptors
        .message_to_json("envoy.admin.v3.ServerInfo", &bytes, Defaults::Print)
        .unwrap();
    same(&serde_json::from_str(&text).unwrap(), &theirs, "server_info");
}

const NOON: SystemTime = SystemTime::UNIX_EPOCH;

fn resource(any: Any, name: &str, state: DumpState) -> DumpResource {
    let last_updated = NOON + Duration::from_millis(1_500);
    DumpResource {
        version: "1".to_owned(),
        name: name.to_owned(),
        bytes: any.value.into(),
        last_updated,
        state,
    }
}

/// The sections of the golden dump, from the bytes that Envoy got.
fn front(state: &DumpState) -> ConfigDump {
    let descriptors = Descriptors::full().unwrap();
    let section = |file: &str| DumpSection {
        version_info: "1".to_owned(),
        resources: resources(&golden(file))
            .into_iter()
            .map(|any| {
                let message = descriptors.decode_any(&any.type_url, &any.value).unwrap();
                let name = message
                    .get_field_by_name("name")
                    .unwrap()
                    .as_str()
                    .unwrap()
                    .to_owned();
                resource(any, &name, state.clone())
            })
            .collect(),
    };
    ConfigDump {
        bootstrap: parse_bootstrap(
            "b.yaml",
            b"node: {id: a, cluster: b}",
            None,
            UnknownFields::Refuse,
        )
        .unwrap()
        .1
        .into(),
        bootstrap_updated: NOON,
        clusters: section("front/cds.pb"),
        listeners: section("front/lds.pb"),
        routes: section("front/rds.pb"),
        endpoints: DumpSection::default(),
        secrets: DumpSection {
            resources: secrets(&json_file("front/config_dump.json")),
            ..DumpSection::default()
        },
        filters: None,
        scopes: Vec::new(),
    }
}

/// The golden's secrets, with private keys that must not come back.
fn secrets(dump: &Value) -> Vec<DumpResource> {
    let descriptors = Descriptors::full().unwrap();
    let entries = section(dump, "SecretsConfigDump")["dynamic_active_secrets"]
        .as_array()
        .unwrap()
        .clone();
    let secret = |entry: Value| {
        let mut secret = entry["secret"].clone();
        if let Some(key) = secret.pointer_mut("/tls_certificate/private_key/inline_bytes") {
            *key = json!("cHJpdmF0ZQ==");
        }
        secret.as_object_mut().unwrap().remove("@type");
        let descriptor = descriptors
            .message("envoy.extensions.transport_sockets.tls.v3.Secret")
            .unwrap();
        let value = DynamicMessage::deserialize(descriptor, &secret)
            .unwrap()
            .encode_to_vec();
        let any = Any {
            type_url: String::new(),
            value,
        };
        resource(any, entry["name"].as_str().unwrap(), DumpState::Active)
    };
    entries.into_iter().map(secret).collect()
}

fn section<'v>(dump: &'v Value, name: &str) -> &'v Value {
    let wanted = format!("type.googleapis.com/envoy.admin.v3.{name}");
    dump["configs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|section| section["@type"] == *wanted)
        .unwrap()
}

fn render(dump: &ConfigDump, options: &DumpOptions) -> Value {
    serde_json::from_str(&dump.render(&Descriptors::full().unwrap(), options).unwrap()).unwrap()
}

/// Dates aside, and in the order of names: Envoy's is that of its hash tables.
fn normal(mut section: Value) -> Value {
    fn undate(value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.remove("last_updated");
                members.values_mut().for_each(undate);
            }
            Value::Array(values) => values.iter_mut().for_each(undate),
            _ => {}
        }
    }
    undate(&mut section);
    for list in section
        .as_object_mut()
        .unwrap()
        .values_mut()
        .filter_map(Value::as_array_mut)
    {
        list.sort_by_key(Value::to_string);
    }
    section
}

#[test]
fn renders_an_istiod_snapshot_as_envoy_does() {
    let (mut ours, theirs) = (
        render(&front(&DumpState::Active), &DumpOptions::default()),
        json_file("front/config_dump.json"),
    );
    // The golden holds what was received; inline tables are compared beside Envoy (tests/it/alone/dump.rs).
    let routes = ours["configs"].as_array_mut().unwrap().iter_mut();
    for section in routes {
        section.as_object_mut().unwrap().remove("static_route_configs");
    }
    for name in [
        "ClustersConfigDump",
        "ListenersConfigDump",
        "RoutesConfigDump",
        "SecretsConfigDump",
    ] {
        same(
            &normal(section(&ours, name).clone()),
            &normal(section(&theirs, name).clone()),
            name,
        );
    }
    let types: Vec<_> = ours["configs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|section| section["@type"].clone())
        .collect();
    let envoys = [
        "Bootstrap",
        "Clusters",
        "Listeners",
        "ScopedRoutes",
        "Routes",
        "Secrets",
    ];
    assert_eq!(
        types,
        envoys.map(|name| json!(format!("type.googleapis.com/envoy.admin.v3.{name}ConfigDump")))
    );
}

#[test]
fn the_descriptors_of_a_dump_are_enough_for_it_and_fewer_than_all() {
    let mut dump = front(&DumpState::Active);
    let (_, odd) = read_bootstrap(&golden("odd.yaml"), None, UnknownFields::Refuse).unwrap();
    dump.bootstrap = odd.into();
    let (full, needed) = (Descriptors::full().unwrap(), dump.descriptors().unwrap());
    let options = DumpOptions {
        include_eds: true,
        ..DumpOptions::default()
    };
    assert_eq!(
        dump.render(&needed, &options).unwrap(),
        dump.render(&full, &options).unwrap()
    );
    let count = |descriptors: &Descriptors| descriptors.message_names().count();
    assert!(
        count(&needed) * 3 < count(&full) * 2,
        "{} of {}",
        count(&needed),
        count(&full)
    );
}

#[test]
fn a_type_is_found_whatever_stands_after_its_name() {
    let bytes = b"\x0a/type.googleapis.com/envoy.config.cluster.v3.ClusterB\x01/nothing.like.it";
    let descriptors = Descriptors::of(&[], std::iter::once(bytes.as_slice())).unwrap();
    assert!(descriptors.message("envoy.config.cluster.v3.Cluster").is_some());
    assert!(
        descriptors
            .message("envoy.config.bootstrap.v3.Bootstrap")
            .is_none()
    );
}

#[test]
fn what_is_static_is_shown_from_the_bootstrap() {
    let (_, bootstrap) = parse_bootstrap("b.yaml", STATIC.as_bytes(), None, UnknownFields::Refuse).unwrap();
    let dump = ConfigDump {
        bootstrap: bootstrap.into(),
        bootstrap_updated: NOON,
        clusters: DumpSection::default(),
        listeners: DumpSection::default(),
        routes: DumpSection::default(),
        endpoints: DumpSection::default(),
        secrets: DumpSection::default(),
        filters: None,
        scopes: Vec::new(),
    };
    let options = DumpOptions {
        include_eds: true,
        ..DumpOptions::default()
    };
    let dump = render(&dump, &options);
    assert_eq!(
        section(&dump, "ClustersConfigDump")["static_clusters"][0]["cluster"]["name"],
        "a"
    );
    assert_eq!(
        section(&dump, "ListenersConfigDump")["static_listeners"][0]["listener"]["name"],
        "web"
    );
    let routes = &section(&dump, "RoutesConfigDump")["static_route_configs"];
    assert_eq!(routes[0]["route_config"]["name"], "inline");
    let secret = json!({"name": "roots", "secret": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": "roots", "validation_context": {"trusted_ca": {"filename": "/ca"}}}});
    assert_eq!(
        section(&dump, "SecretsConfigDump")["static_secrets"],
        json!([secret])
    );
    let hosts = json!({"endpoint_config": {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "a",
        "endpoints": [{"locality": {}, "load_balancing_weight": 0, "lb_endpoints": [{
            "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}, "health_check_config": {}},
            "health_status": "HEALTHY", "load_balancing_weight": 1}]}],
        "policy": {"overprovisioning_factor": 140}}});
    let shown = &section(&dump, "EndpointsConfigDump")["static_endpoint_configs"];
    assert_eq!(shown[0], hosts);
    // Its addresses are not known here.
    assert_eq!(shown[1]["endpoint_config"]["cluster_name"], "names");
}

const STATIC: &str = r#"
node: { id: a, cluster: b }
static_resources:
  secrets:
  - name: roots
    validation_context: { trusted_ca: { filename: /ca } }
  clusters:
  - name: a
    type: STATIC
    load_assignment:
      cluster_name: other
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 1 } } } }] }]
  - { name: names, type: STRICT_DNS, load_assignment: { cluster_name: names } }
  listeners:
  - name: web
    address: { socket_address: { address: 127.0.0.1, port_value: 2 } }
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          route_config: { name: inline }
"#;

#[test]
fn masks_of_elements_go_into_the_resource_and_may_not_end_at_it() {
    let of = |field: &str, paths: &[&str]| DumpOptions {
        resource: Some(field.to_owned()),
        ..mask(paths)
    };
    check(of("dynamic_active_clusters", &["cluster"]), Err(400));
    check(of("dynamic_active_clusters", &["cluster.nope"]), Err(400));
    check(
        of(
            "dynamic_active_clusters",
            &["cluster.load_assignment.endpoints.priority"],
        ),
        Err(400),
    );
    check(of("dynamic_listeners", &["active_state.listener.name"]), Err(400));
    // Nothing to mask.
    check(of("static_clusters", &["nope"]), Ok("{}"));
}

#[test]
fn keys_stand_in_field_order_after_the_type() {
    let text = front(&DumpState::Active)
        .render(&Descriptors::full().unwrap(), &DumpOptions::default())
        .unwrap();
    let cluster = text.split("\"cluster\": {").nth(1).unwrap();
    let keys: Vec<_> = cluster
        .lines()
        .filter_map(|line| line.strip_prefix("      \""))
        .take(3)
        .collect();
    assert!(
        keys[0].starts_with("@type") && keys[1].starts_with("name\""),
        "{keys:?}"
    );
    assert!(!text.contains("cHJpdmF0ZQ=="), "a private key is shown");
}

fn check(options: DumpOptions, wanted: Result<&str, u16>) {
    let dump = front(&DumpState::Active);
    let got = dump.render(&Descriptors::full().unwrap(), &options);
    match (got, wanted) {
        (Ok(text), Ok(wanted)) => {
            let wanted: Value = serde_json::from_str(wanted).unwrap();
            assert_eq!(
                serde_json::from_str::<Value>(&text).unwrap(),
                wanted,
                "{options:?}"
            );
        }
        (got, wanted) => assert_eq!(
            got.map_err(|error| error.status()).map(drop),
            wanted.map(drop),
            "{options:?}"
        ),
    }
}

fn mask(paths: &[&str]) -> DumpOptions {
    DumpOptions {
        mask: Some(paths.iter().map(|path| (*path).to_owned()).collect()),
        ..DumpOptions::default()
    }
}

#[test]
fn queries_answer_as_envoy_does() {
    let bootstrap = r#"{"configs":[{"@type":"type.googleapis.com/envoy.admin.v3.BootstrapConfigDump","bootstrap":{"node":{"id":"a"}}}]}"#;
    check(mask(&["bootstrap.node.id"]), Ok(bootstrap));
    check(mask(&["dynamic_listeners", "static_clusters"]), Err(400));
    check(mask(&["nope"]), Err(400));
    check(mask(&["dynamic_active_clusters.cluster"]), Err(400));
    check(
        DumpOptions {
            name_regex: Some("(".to_owned()),
            ..DumpOptions::default()
        },
        Err(400),
    );
    for (field, status) in [("nope", 404), ("bootstrap", 400)] {
        check(
            DumpOptions {
                resource: Some(field.to_owned()),
                ..DumpOptions::default()
            },
            Err(status),
        );
    }
    let one = DumpOptions {
        resource: Some("dynamic_active_clusters".to_owned()),
        name_regex: Some("Black.*".to_owned()),
        ..mask(&["cluster.name"])
    };
    let cluster = r#"{"configs":[{"@type":"type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster","cluster":{"@type":"type.googleapis.com/envoy.config.cluster.v3.Cluster","name":"BlackHoleCluster"}}]}"#;
    check(one.clone(), Ok(cluster));
    // The whole name, not a part of it.
    check(
        DumpOptions {
            name_regex: Some("Black".to_owned()),
            mask: None,
            ..one
        },
        Ok("{}"),
    );
}

#[test]
fn a_refused_update_stands_beside_the_good_one() {
    let mut dump = front(&DumpState::Active);
    let rejected = DumpState::Rejected {
        error: "bad".to_owned(),
    };
    for section in [&mut dump.clusters, &mut dump.listeners] {
        let refused = DumpResource {
            state: rejected.clone(),
            ..section.resources[0].clone()
        };
        let first = DumpResource {
            state: rejected.clone(),
            name: "first".to_owned(),
            ..refused.clone()
        };
        section.resources.extend([refused, first]);
    }
    let dump = render(&dump, &DumpOptions::default());
    let clusters = section(&dump, "ClustersConfigDump");
    assert_eq!(
        clusters["dynamic_active_clusters"][0]["error_state"]["details"],
        "bad"
    );
    assert!(clusters["dynamic_active_clusters"][0]["cluster"]["name"].is_string());
    assert_eq!(clusters["dynamic_warming_clusters"].as_array().unwrap().len(), 1);
    assert_eq!(
        clusters["dynamic_warming_clusters"][0]["error_state"]["details"],
        "bad"
    );
    let listeners = section(&dump, "ListenersConfigDump")["dynamic_listeners"]
        .as_array()
        .unwrap();
    assert!(listeners[0]["active_state"].is_object() && listeners[0]["error_state"]["details"] == "bad");
    assert!(
        listeners.last().unwrap()["name"] == "first" && listeners.last().unwrap()["active_state"].is_null()
    );
}

#[test]
fn warming_and_static_resources_have_their_own_lists() {
    for (state, clusters, listeners) in [
        (DumpState::Static, "static_clusters", "static_listeners"),
        (
            DumpState::Warming,
            "dynamic_warming_clusters",
            "dynamic_listeners",
        ),
    ] {
        let dump = render(
            &front(&state),
            &DumpOptions {
                include_eds: true,
                ..DumpOptions::default()
            },
        );
        assert!(section(&dump, "ClustersConfigDump")[clusters][0]["cluster"]["name"].is_string());
        assert!(section(&dump, "ListenersConfigDump")[listeners].is_array());
        assert!(section(&dump, "EndpointsConfigDump").is_object());
    }
}

#[test]
fn an_unknown_or_broken_any_stays_base64() {
    let descriptors = Descriptors::full().unwrap();
    for url in [
        "type.googleapis.com/a.b.C",
        "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "",
        "/",
    ] {
        let value: Value = serde_json::from_str(&descriptors.any_to_json(url, b"\xff")).unwrap();
        assert_eq!(value, json!({"@type": url, "value": "/w=="}));
    }
    assert_eq!(descriptors.any_to_json("", b""), "{}\n");
}

#[test]
fn endless_nesting_of_any_is_cut() {
    let url = "type.googleapis.com/google.protobuf.Any";
    let mut any = Any::default();
    for _ in 0..3_000 {
        any = Any {
            type_url: url.to_owned(),
            value: any.encode_to_vec(),
        };
    }
    let text = Descriptors::full()
        .unwrap()
        .any_to_json(&any.type_url, &any.value);
    assert!(text.matches("@type").count() < 200);
}

#[test]
fn secrets_in_json_of_any_depth_are_redacted() {
    let yaml = r#"
static_resources:
  clusters:
  - name: a
    typed_extension_protocol_options:
      x:
        "@type": type.googleapis.com/udpa.type.v1.TypedStruct
        type_url: type.googleapis.com/envoy.config.cluster.v3.Cluster
        value:
          transport_socket:
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
              common_tls_context:
                tls_certificates: [{private_key: {inline_string: hush}, certificate_chain: {inline_string: open}}]
          typedExtensionProtocolOptions:
            y:
              "@type": type.googleapis.com/udpa.type.v1.TypedStruct
              type_url: type.googleapis.com/envoy.extensions.filters.http.basic_auth.v3.BasicAuth
              value: {users: {inline_string: hush}}
    transport_socket:
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context:
          tls_certificates:
          - private_key: {filename: hush}
            private_key_provider:
              typed_config: {"@type": type.googleapis.com/google.protobuf.Struct, value: {a: hush, b: [1]}}
"#;
    let (_, bytes) = parse_bootstrap("b.yaml", yaml.as_bytes(), None, UnknownFields::Refuse).unwrap();
    let text = Descriptors::full()
        .unwrap()
        .message_to_json(&Bootstrap::full_name(), &bytes, Defaults::Omit)
        .unwrap();
    assert!(!text.contains("hush"), "{text}");
    assert!(
        text.contains("open") && text.matches("[redacted]").count() == 4,
        "{text}"
    );
}
