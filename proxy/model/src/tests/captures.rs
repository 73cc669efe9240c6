//! What istiod sent converts, and what of it has no effect is known.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use prost::Message;

use super::{check_golden, convert, repository};

/// A resource that istiod sent.
pub(super) struct Captured {
    pub(super) origin: String,
    pub(super) type_url: String,
    pub(super) bytes: Vec<u8>,
}

/// All resources of all captures: snapshots and recorded streams.
pub(super) fn all() -> Vec<Captured> {
    let data = repository().join("tests/data");
    let mut captured = Vec::new();
    for (scenario, proxies) in [
        ("bill", &["front", "bill-v1", "bill-v2"][..]),
        ("bill-two", &["front", "bill-v1", "bill-v1b", "bill-v2"]),
    ] {
        for proxy in proxies {
            for file in ["cds.pb", "lds.pb", "eds.pb", "rds.pb", "nds.pb"] {
                snapshot(
                    &data.join(scenario).join(proxy).join(file),
                    &format!("{scenario}/{proxy}/{file}"),
                    &mut captured,
                );
            }
        }
    }
    stream(
        &data.join("bill/front-cutover.bin"),
        "bill/front-cutover.bin",
        &mut captured,
    );
    stream(
        &data.join("bill-two/front-churn.bin"),
        "bill-two/front-churn.bin",
        &mut captured,
    );
    assert!(captured.len() > 100, "{} resources", captured.len());
    captured
}

fn snapshot(path: &Path, origin: &str, captured: &mut Vec<Captured>) {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for any in DiscoveryResponse::decode(bytes.as_slice()).unwrap().resources {
        captured.push(Captured {
            origin: origin.to_owned(),
            type_url: any.type_url,
            bytes: any.value,
        });
    }
}

/// Repeated: four bytes of length, big-endian, and a `DeltaDiscoveryResponse`.
fn stream(path: &Path, origin: &str, captured: &mut Vec<Captured>) {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut rest = bytes.as_slice();
    while let Some((length, after)) = rest.split_first_chunk() {
        let (message, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        for any in DeltaDiscoveryResponse::decode(message)
            .unwrap()
            .resources
            .into_iter()
            .filter_map(|r| r.resource)
        {
            captured.push(Captured {
                origin: origin.to_owned(),
                type_url: any.type_url,
                bytes: any.value,
            });
        }
        rest = after;
    }
}

#[test]
fn every_captured_resource_converts_and_its_problems_are_known() {
    let mut problems: BTreeMap<String, usize> = BTreeMap::new();
    for Captured {
        origin,
        type_url,
        bytes,
    } in all()
    {
        let (_, listed) =
            convert(&type_url, &bytes).unwrap_or_else(|rejection| panic!("{origin}: {rejection}"));
        for problem in listed {
            let type_name = type_url.rsplit('.').next().unwrap();
            // Which chain it is in is of no interest here.
            let path: String = problem.path.chars().filter(|c| !c.is_ascii_digit()).collect();
            *problems
                .entry(format!("{type_name}: {path}: {}", problem.reason))
                .or_default() += 1;
        }
    }
    let mut text = String::new();
    for (problem, count) in problems {
        writeln!(text, "{count} {problem}").unwrap();
    }
    check_golden(
        &repository().join("proxy/model/tests/golden/capture_problems.txt"),
        &text,
    );
}

#[test]
fn the_same_bytes_give_the_same_value() {
    for Captured {
        origin,
        type_url,
        bytes,
    } in all()
    {
        assert_eq!(convert(&type_url, &bytes), convert(&type_url, &bytes), "{origin}");
    }
}
