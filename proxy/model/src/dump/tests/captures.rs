//! Every captured resource survives rendering and parsing, and is what istiod itself rendered.
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use prost_reflect::{MapKey, ReflectMessage as _, Value as Field};

use super::*;

const SCENARIOS: [&str; 5] = ["bill", "bill-two", "bookinfo", "security", "traffic"];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data")
}

/// JSON of it, read by another implementation, is the same message.
fn round_trip(descriptors: &Descriptors, any: &Any) {
    let text = descriptors.any_to_json(&any.type_url, &any.value);
    let mut json: Value = serde_json::from_str(&text).unwrap();
    json.as_object_mut().unwrap().remove("@type");
    let descriptor = descriptors
        .by_url(&any.type_url)
        .unwrap_or_else(|| panic!("unknown {}", any.type_url));
    let read = DynamicMessage::deserialize(descriptor.clone(), &json).unwrap();
    let received = DynamicMessage::decode(descriptor, any.value.as_slice()).unwrap();
    equal(descriptors, &received, &read, &any.type_url);
    // Maps may be encoded in another order; nothing else may differ.
    assert_eq!(read.encode_to_vec().len(), any.value.len(), "{text}");
}

/// Both say the same, and so do the messages in their `Any`s, at every depth.
#[track_caller]
fn equal(descriptors: &Descriptors, left: &DynamicMessage, right: &DynamicMessage, path: &str) {
    if let (Some((url, left)), Some((other, right))) = (open(descriptors, left), open(descriptors, right)) {
        assert_eq!(url, other, "{path}");
        return equal(descriptors, &left, &right, &format!("{path}/{url}"));
    }
    let names = |message: &DynamicMessage| {
        let fields = message.fields().map(|(field, _)| field.name().to_owned());
        fields.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(names(left), names(right), "{path}");
    for (field, value) in left.fields() {
        let path = format!("{path}.{}", field.name());
        equal_values(descriptors, value, &right.get_field(&field), &path);
    }
}

fn equal_values(descriptors: &Descriptors, left: &Field, right: &Field, path: &str) {
    match (left, right) {
        (Field::Message(left), Field::Message(right)) => equal(descriptors, left, right, path),
        (Field::List(left), Field::List(right)) => {
            assert_eq!(left.len(), right.len(), "{path}");
            let pairs = left.iter().zip(right).enumerate();
            pairs.for_each(|(index, (left, right))| {
                equal_values(descriptors, left, right, &format!("{path}[{index}]"));
            });
        }
        (Field::Map(left), Field::Map(right)) => {
            let keys = |map: &std::collections::HashMap<MapKey, Field>| {
                let mut keys: Vec<_> = map.keys().map(|key| format!("{key:?}")).collect();
                keys.sort();
                keys
            };
            assert_eq!(keys(left), keys(right), "{path}");
            left.iter().for_each(|(key, value)| {
                equal_values(descriptors, value, &right[key], &format!("{path}[{key:?}]"));
            });
        }
        _ => assert_eq!(left, right, "{path}"),
    }
}

/// Type and content of an `Any`.
fn open(descriptors: &Descriptors, message: &DynamicMessage) -> Option<(String, DynamicMessage)> {
    if message.descriptor().full_name() != "google.protobuf.Any" {
        return None;
    }
    let url = message.get_field_by_name("type_url")?.as_str()?.to_owned();
    let inner = descriptors.decode_any(&url, message.get_field_by_name("value")?.as_bytes()?);
    Some((url.clone(), inner.unwrap_or_else(|| panic!("{url} is unknown"))))
}

/// The folders of a scenario's proxies.
fn proxies(scenario: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data().join(scenario)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let folders: Vec<_> = paths.filter(|path| path.is_dir()).collect();
    assert!(!folders.is_empty(), "no capture in {scenario}");
    folders
}

#[test]
fn every_captured_resource_survives_a_round_trip() {
    let descriptors = Descriptors::full().unwrap();
    let mut count = 0;
    for folder in SCENARIOS.into_iter().flat_map(proxies) {
        for file in ["cds.pb", "lds.pb", "eds.pb", "rds.pb", "nds.pb"] {
            for any in resources(&folder.join(file)) {
                round_trip(&descriptors, &any);
                count += 1;
            }
        }
    }
    assert!(count > 500, "{count} resources");
}

#[test]
fn resources_of_a_thousand_services_survive_a_round_trip() {
    let descriptors = Descriptors::full().unwrap();
    for file in ["cds", "lds", "eds", "rds", "nds"] {
        let path = data().join(format!("scale/client/{file}.pb.zst"));
        let bytes = zstd::decode_all(std::fs::read(path).unwrap().as_slice()).unwrap();
        let response = DiscoveryResponse::decode(bytes.as_slice()).unwrap();
        assert!(!response.resources.is_empty(), "{file}");
        response
            .resources
            .iter()
            .for_each(|any| round_trip(&descriptors, any));
    }
}

#[test]
fn every_resource_of_a_delta_stream_survives_a_round_trip() {
    let descriptors = Descriptors::full().unwrap();
    for stream in ["bill/front-cutover.bin", "bill-two/front-churn.bin"] {
        let bytes = std::fs::read(data().join(stream)).unwrap();
        let mut rest = bytes.as_slice();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let (response, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
            let response = DeltaDiscoveryResponse::decode(response).unwrap();
            let resources = response.resources.iter();
            resources
                .filter_map(|resource| resource.resource.as_ref())
                .for_each(|any| round_trip(&descriptors, any));
            rest = tail;
        }
    }
}

/// What istiod printed of the resources of one proxy, by type URL and name.
fn istiods_rendering(folder: &Path) -> Vec<Value> {
    let compressed = std::fs::read(folder.join("config_dump.json.zst")).unwrap();
    let text = zstd::decode_all(compressed.as_slice()).unwrap();
    let dump: Value = serde_json::from_slice(&text).unwrap();
    let places = [
        ("dynamicActiveClusters", "/cluster"),
        ("dynamicListeners", "/activeState/listener"),
        ("dynamicRouteConfigs", "/routeConfig"),
    ];
    let mut rendered = Vec::new();
    for section in dump["configs"].as_array().unwrap() {
        for (list, place) in places {
            let entries = section.get(list).and_then(Value::as_array);
            let resources = entries
                .into_iter()
                .flatten()
                .map(|entry| entry.pointer(place).unwrap());
            rendered.extend(resources.cloned());
        }
    }
    rendered
}

#[test]
fn every_captured_resource_is_the_message_that_istiod_rendered() {
    let descriptors = Descriptors::full().unwrap();
    let mut count = 0;
    for folder in SCENARIOS.into_iter().flat_map(proxies) {
        let mut rendered = istiods_rendering(&folder);
        for file in ["cds.pb", "lds.pb", "rds.pb"] {
            for any in resources(&folder.join(file)) {
                let text = descriptors.any_to_json(&any.type_url, &any.value);
                let ours: Value = serde_json::from_str(&text).unwrap();
                let alike =
                    |theirs: &Value| theirs["@type"] == ours["@type"] && theirs["name"] == ours["name"];
                let place = rendered.iter().position(alike);
                let mut theirs = rendered.swap_remove(place.unwrap_or_else(|| panic!("{}", ours["name"])));
                theirs.as_object_mut().unwrap().remove("@type");
                let descriptor = descriptors.by_url(&any.type_url).unwrap();
                let theirs = DynamicMessage::deserialize(descriptor.clone(), theirs).unwrap();
                let received = DynamicMessage::decode(descriptor, any.value.as_slice()).unwrap();
                let path = format!("{}: {}", folder.display(), ours["name"]);
                equal(&descriptors, &theirs, &received, &path);
                count += 1;
            }
        }
        assert_eq!(
            rendered,
            Vec::<Value>::new(),
            "{}: not captured",
            folder.display()
        );
    }
    assert!(count > 500, "{count} resources");
}

#[test]
fn a_difference_inside_a_nested_any_is_found() {
    let descriptors = Descriptors::full().unwrap();
    let listeners = resources(&data().join("bill/front/lds.pb"));
    let any = &listeners[0];
    let text = descriptors.any_to_json(&any.type_url, &any.value);
    let descriptor = descriptors.by_url(&any.type_url).unwrap();
    let parse = |text: &str| {
        let mut json: Value = serde_json::from_str(text).unwrap();
        json.as_object_mut().unwrap().remove("@type");
        DynamicMessage::deserialize(descriptor.clone(), json).unwrap()
    };
    // Three `Any`s deep: connection manager, access log, format.
    let changed = text.replace("%ROUTE_NAME%", "%ROUTE_NAM%");
    assert_ne!(text, changed);
    let differs = || equal(&descriptors, &parse(&text), &parse(&changed), "listener");
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(differs)).is_err());
}
