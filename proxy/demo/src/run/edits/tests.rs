//! Holds the edits to the list of docs/demo.md: what differs from the capture is in it, and what is in it differs.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use outrigger_model::dump::Descriptors;
use serde_json::Value;

use super::super::captures::CAPTURES;
use super::*;

const GUIDE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/demo.md"));
/// Where each table of the guide begins.
const ALWAYS: &str = "<!-- edits: always -->";
const TAKEN: &str = "<!-- edits: taken ports -->";

/// Resource and field, as `Listener virtualInbound` and `address.socket_address.address`.
type Edit = (String, String);

/// The first two columns of the table after `mark`.
fn listed(mark: &str) -> BTreeSet<Edit> {
    let after = GUIDE.split(mark).nth(1).expect("the guide has the mark");
    let rows = after
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    let cells = |row: &str| -> Vec<String> { row.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    rows.map(cells)
        .filter(|cells| cells.len() >= 2)
        .map(|cells| (cells[0].clone(), cells[1].clone()))
        .collect()
}

/// All differences between what was captured and what is served, with both values.
fn differences(places: &Places) -> Vec<(Edit, Value, Value)> {
    let descriptors = Descriptors::full().unwrap();
    let mut found = Vec::new();
    for ((capture, _), pod) in CAPTURES.iter().zip(&places.pods) {
        let edits = Edits::new(places, pod);
        let snapshot = capture.snapshot().unwrap();
        for resource in snapshot.types().flat_map(|type_url| snapshot.all(type_url)) {
            let json = |it: &Named| -> Value {
                serde_json::from_str(&descriptors.any_to_json(&it.any.type_url, &it.any.value)).unwrap()
            };
            let kind = resource.any.type_url.rsplit('.').next().unwrap();
            // Names of clusters end in the service; one row for all of them.
            let name = resource.name.split('|').next().unwrap();
            let name = if matches!(kind, "Listener" | "Cluster") {
                format!("{kind} {name}")
            } else {
                kind.to_owned()
            };
            compare(
                "",
                &json(resource),
                &json(&edits.apply(resource)),
                &mut |path, before, after| {
                    found.push(((name.clone(), path.to_owned()), before.clone(), after.clone()));
                },
            );
        }
    }
    found
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut impl FnMut(&str, &Value, &Value)) {
    match (before, after) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for key in keys {
                let dot = if path.is_empty() { "" } else { "." };
                let values = (
                    left.get(key).unwrap_or(&Value::Null),
                    right.get(key).unwrap_or(&Value::Null),
                );
                compare(&format!("{path}{dot}{key}"), values.0, values.1, found);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (left, right) in left.iter().zip(right) {
                compare(&format!("{path}[]"), left, right, found);
            }
        }
        _ if before == after => {}
        _ => found(path, before, after),
    }
}

fn moved(mut places: Places) -> Places {
    let shift = |place: &mut SocketAddr| place.set_port(place.port() + 20_000);
    for pod in &mut places.pods {
        for place in [&mut pod.inbound, &mut pod.outbound, &mut pod.admin, &mut pod.app] {
            shift(place);
        }
        pod.egress.iter_mut().for_each(shift);
    }
    places
}

#[test]
fn the_guide_lists_every_edit_and_no_other() {
    let check = |places: &Places, expected: BTreeSet<Edit>| {
        let found: BTreeSet<Edit> = differences(places).into_iter().map(|(edit, ..)| edit).collect();
        let unlisted: Vec<_> = found.difference(&expected).collect();
        let idle: Vec<_> = expected.difference(&found).collect();
        assert!(
            unlisted.is_empty() && idle.is_empty(),
            "not listed: {unlisted:#?}\nnot done: {idle:#?}"
        );
    };
    let always = listed(ALWAYS);
    assert!(always.len() > 5, "{always:?}");
    check(&Places::wanted(), always.clone());
    check(
        &moved(Places::wanted()),
        always.union(&listed(TAKEN)).cloned().collect(),
    );
}

#[test]
fn addresses_become_loopback_addresses_and_ports_the_ones_in_use() {
    let places = moved(Places::wanted());
    let ports: BTreeSet<u64> = places
        .pods
        .iter()
        .flat_map(|pod| [pod.inbound, pod.outbound, pod.egress.unwrap_or(pod.inbound)])
        .flat_map(|place| [u64::from(place.port()), u64::from(place.port()) + 1])
        .collect();
    for ((resource, field), before, after) in differences(&places) {
        let what = format!("{resource} {field}: {before} → {after}");
        if field.ends_with(".address") || field.ends_with("domains[]") {
            let address: Ipv4Addr = after.as_str().unwrap().parse().unwrap();
            assert!(address.is_loopback(), "{what}");
        } else if field.ends_with("port_value") || field.ends_with("destination_port") {
            assert!(ports.contains(&after.as_u64().unwrap()), "{what}");
        }
    }
}

#[test]
fn a_node_is_known_by_its_loopback_address() {
    let places = Places::wanted();
    let (capture, _) = CAPTURES[1];
    let mut node = capture.node().unwrap();
    Edits::new(&places, &places.pods[1]).node(&mut node);
    assert_eq!(
        node["id"],
        "sidecar~127.20.0.21~bill-v1.default~default.svc.cluster.local"
    );
    assert_eq!(node["metadata"]["INSTANCE_IPS"], "127.20.0.21");
}
