//! Every captured resource survives rendering and parsing.
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;

use super::*;

/// JSON of it, read by another implementation and encoded, is the same message.
fn round_trip(descriptors: &Descriptors, any: &Any) {
    let text = descriptors.any_to_json(&any.type_url, &any.value);
    let mut json: Value = serde_json::from_str(&text).unwrap();
    json.as_object_mut().unwrap().remove("@type");
    let descriptor = descriptors
        .by_url(&any.type_url)
        .unwrap_or_else(|| panic!("unknown {}", any.type_url));
    let read = DynamicMessage::deserialize(descriptor, &json)
        .unwrap()
        .encode_to_vec();
    // Maps may be encoded in another order; nothing else may differ.
    assert_eq!(read.len(), any.value.len(), "{text}");
    assert_eq!(descriptors.any_to_json(&any.type_url, &read), text);
}

fn captures(scenario: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data")
        .join(scenario);
    let proxies = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir());
    let files = proxies.flat_map(|proxy| {
        std::fs::read_dir(proxy)
            .unwrap()
            .map(|entry| entry.unwrap().path())
    });
    let files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "pb"))
        .collect();
    assert!(!files.is_empty(), "no capture in {}", root.display());
    files
}

#[test]
fn every_captured_resource_survives_a_round_trip() {
    let descriptors = Descriptors::full().unwrap();
    for path in ["bill", "bill-two"].into_iter().flat_map(captures) {
        resources(&path)
            .iter()
            .for_each(|any| round_trip(&descriptors, any));
    }
}

#[test]
fn every_resource_of_a_delta_stream_survives_a_round_trip() {
    let descriptors = Descriptors::full().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/bill/front-cutover.bin");
    let bytes = std::fs::read(path).unwrap();
    let mut rest = bytes.as_slice();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let (response, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
        let response = DeltaDiscoveryResponse::decode(response).unwrap();
        response
            .resources
            .iter()
            .filter_map(|resource| resource.resource.as_ref())
            .for_each(|any| {
                round_trip(&descriptors, any);
            });
        rest = tail;
    }
}
