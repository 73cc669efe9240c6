//! What istiod sent converts, and what of it has no effect is known.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use prost::Message;

use super::{check_golden, convert, repository};
use crate::field::Rejection;

/// A resource that istiod sent.
pub(super) struct Captured {
    pub(super) origin: String,
    pub(super) type_url: String,
    pub(super) bytes: Vec<u8>,
}

/// The scenarios whose captures are small enough to be changed field by field.
const SCENARIOS: [&str; 5] = ["bill", "bill-two", "bookinfo", "security", "traffic"];

/// All resources of all captures but `scale`: snapshots and recorded streams.
pub(super) fn all() -> Vec<Captured> {
    let data = repository().join("tests/data");
    let mut captured = Vec::new();
    for scenario in SCENARIOS {
        for proxy in folders(&data.join(scenario)) {
            for file in ["cds.pb", "lds.pb", "eds.pb", "rds.pb", "nds.pb"] {
                let origin = format!("{scenario}/{proxy}/{file}");
                snapshot(&data.join(&origin), &origin, &mut captured);
            }
        }
    }
    for origin in ["bill/front-cutover.bin", "bill-two/front-churn.bin"] {
        stream(&data.join(origin), origin, &mut captured);
    }
    assert!(captured.len() > 800, "{} resources", captured.len());
    captured
}

/// The thousand services of `scale`.
pub(super) fn scale() -> Vec<Captured> {
    let data = repository().join("tests/data/scale/client");
    let mut captured = Vec::new();
    for file in [
        "cds.pb.zst",
        "lds.pb.zst",
        "eds.pb.zst",
        "rds.pb.zst",
        "nds.pb.zst",
    ] {
        snapshot(&data.join(file), &format!("scale/client/{file}"), &mut captured);
    }
    assert!(captured.len() > 9000, "{} resources", captured.len());
    captured
}

fn folders(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let entries = entries.map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<_> = folders
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn snapshot(path: &Path, origin: &str, captured: &mut Vec<Captured>) {
    let mut bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if path.extension().is_some_and(|extension| extension == "zst") {
        bytes = zstd::decode_all(bytes.as_slice()).unwrap();
    }
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

/// Who a resource came for and where it is refused, for every one that is.
fn refused(captured: &[Captured]) -> Vec<String> {
    let refused = captured.iter().filter_map(|captured| {
        let rejection = convert(&captured.type_url, &captured.bytes).err()?;
        let Rejection { resource, path, .. } = rejection;
        let (_, kind) = rejection.reason.split_once(" of type ")?;
        let kind = kind.split_once(' ').map_or(kind, |(kind, _)| kind);
        Some(format!("{}: {resource}: {path}: {kind}", captured.origin))
    });
    refused.collect()
}

#[test]
fn listeners_with_a_policy_filter_are_refused_by_name_and_nothing_else_is() {
    let expected = [
        "security/bill-v1/lds.pb: listener \"virtualInbound\": filter_chains[1].filters[1].typed_config.http_filters[1].typed_config: \
         \"envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication\"",
        "security/bill-v2/lds.pb: listener \"virtualInbound\": filter_chains[1].filters[1].typed_config.http_filters[1].typed_config: \
         \"envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication\"",
        "security/front/lds.pb: listener \"virtualInbound\": filter_chains[1].filters[1].typed_config.http_filters[1].typed_config: \
         \"envoy.extensions.filters.http.rbac.v3.RBAC\"",
    ];
    assert_eq!(refused(&all()), expected);
    assert!(refused(&scale()).is_empty());
    let failed = |captured: &Captured| convert(&captured.type_url, &captured.bytes).is_err();
    assert_eq!(
        all().iter().filter(|captured| failed(captured)).count(),
        expected.len()
    );
    assert_eq!(scale().iter().filter(|captured| failed(captured)).count(), 0);
}

#[test]
fn what_has_no_effect_in_a_captured_resource_is_known() {
    let mut problems: BTreeMap<String, usize> = BTreeMap::new();
    for Captured { type_url, bytes, .. } in all().into_iter().chain(scale()) {
        let Ok((_, listed)) = convert(&type_url, &bytes) else {
            continue;
        };
        for problem in listed {
            let type_name = type_url.rsplit('.').next().unwrap();
            // Which chain it is in is of no interest here.
            let path = without_indices(&problem.path);
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

/// `a[3].b` as `a[].b`; digits elsewhere stay.
fn without_indices(path: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for c in path.chars() {
        inside = c == '[' || (inside && c.is_ascii_digit());
        if !(inside && c.is_ascii_digit()) {
            text.push(c);
        }
    }
    text
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
