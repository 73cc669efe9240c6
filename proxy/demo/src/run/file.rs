//! The file that people edit: bill-service's resources as istiod wrote them, YAML or JSON, in the form that Envoy reads
//! from files (a `DiscoveryResponse`). Text in, resources or a complaint with line and column out.

use std::fmt::Write as _;

use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration};
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use outrigger_model::decode;
use outrigger_model::document::{Document, DocumentError, json_as_yaml};
use outrigger_model::dump::Descriptors;
use outrigger_model::field::Rejection;
use prost::Message;

use crate::control_plane::{CLUSTER, ENDPOINTS, Named, ROUTES, Snapshot};

const RESPONSE: &str = "envoy.service.discovery.v3.DiscoveryResponse";
/// The route table that front's requests use.
const BILL_ROUTES: &str = "9999";
/// Stands in the names of everything that belongs to bill-service.
const SERVICE: &str = "bill-service";
const HEAD: &str = "\
# bill-service as istiod wrote it. Change a weight, save, and watch the table.
# A file with a mistake is refused with its line and column; what was there before stays.
";

/// Version and weight of each part of a split, in the order of the file.
pub(super) type Weights = Vec<(String, u32)>;

/// The file with what `snapshot` has for bill-service, route table first.
///
/// # Errors
/// Only in a broken build.
pub(super) fn write(snapshot: &Snapshot) -> Result<String, DocumentError> {
    let descriptors = Descriptors::full()?;
    let tables = snapshot.find(ROUTES, BILL_ROUTES).into_iter();
    let others = [ENDPOINTS, CLUSTER]
        .into_iter()
        .flat_map(|type_url| snapshot.all(type_url))
        .filter(|resource| resource.name.contains(SERVICE));
    let mut json = "{\"resources\": [".to_owned();
    for (index, resource) in tables.chain(others).enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        let text = descriptors.any_to_json(&resource.any.type_url, &resource.any.value);
        // Writing into a String cannot fail.
        let _ = write!(json, "{comma}{text}");
    }
    json.push_str("]}");
    Ok(HEAD.to_owned() + &json_as_yaml(&json)?)
}

/// The resources of a file. Each is one that a sidecar accepts; one that means what a `known` one means is that one,
/// byte for byte (the bytes of a map come in any order).
///
/// # Errors
/// With line, column and path of what is wrong.
pub(super) fn parse(file: &str, text: &[u8], known: &[Named]) -> Result<Vec<Named>, DocumentError> {
    let descriptors = Descriptors::full()?;
    let json = |resource: &Named| descriptors.any_to_json(&resource.any.type_url, &resource.any.value);
    let document = Document::parse(&descriptors, file, text, RESPONSE)?;
    let complain = |path: String, reason: &str| document.complaint(&path, reason.to_owned(), None);
    let response = DiscoveryResponse::decode(document.bytes())
        .map_err(|error| complain("resources".to_owned(), &error.to_string()))?;
    let mut resources: Vec<Named> = Vec::new();
    for (index, any) in response.resources.into_iter().enumerate() {
        let checked = match any.type_url.as_str() {
            ROUTES => decode::route_table(&any.value).map(|_| ()),
            CLUSTER => decode::cluster(&any.value).map(|_| ()),
            ENDPOINTS => decode::load_assignment(&any.value).map(|_| ()),
            _ => {
                let reason =
                    "the demo takes RouteConfiguration, Cluster and ClusterLoadAssignment from this file";
                return Err(complain(format!("resources[{index}]"), reason));
            }
        };
        if let Err(rejection) = checked {
            return Err(complaint(&document, index, rejection));
        }
        let resource = Named::from_any(any);
        let is_namesake =
            |other: &&Named| other.name == resource.name && other.any.type_url == resource.any.type_url;
        if resources.iter().any(|other| is_namesake(&other)) {
            let reason = "stands here a second time; remove one of them";
            return Err(complain(format!("resources[{index}]"), reason));
        }
        let same = known
            .iter()
            .filter(is_namesake)
            .find(|known| json(known) == json(&resource));
        resources.push(same.cloned().unwrap_or(resource));
    }
    Ok(resources)
}

fn complaint(document: &Document, index: usize, rejection: Rejection) -> DocumentError {
    let Rejection {
        resource: _,
        path,
        reason,
        did_you_mean,
    } = rejection;
    let dot = if path.is_empty() { "" } else { "." };
    document.complaint(&format!("resources[{index}]{dot}{path}"), reason, did_you_mean)
}

/// How the requests of front are split: by the first route of bill-service that every request matches.
pub(super) fn weights(snapshot: &Snapshot) -> Weights {
    let table = snapshot.find(ROUTES, BILL_ROUTES);
    let table = table.and_then(|table| RouteConfiguration::decode(table.any.value.as_slice()).ok());
    let hosts = table.map(|table| table.virtual_hosts).unwrap_or_default();
    let host = hosts
        .into_iter()
        .find(|host| host.domains.iter().any(|domain| domain == SERVICE));
    let route = host.and_then(|host| host.routes.into_iter().find(matches_all));
    let Some(Action::Route(action)) = route.and_then(|route| route.action) else {
        return Weights::new();
    };
    match action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![(version(&name), 100)],
        Some(ClusterSpecifier::WeightedClusters(split)) => split
            .clusters
            .into_iter()
            .map(|part| (version(&part.name), part.weight.map_or(0, |weight| weight.value)))
            .collect(),
        _ => Weights::new(),
    }
}

fn matches_all(route: &Route) -> bool {
    route.r#match.as_ref().is_some_and(|it| {
        it.headers.is_empty()
            && it.query_parameters.is_empty()
            && it.runtime_fraction.is_none()
            && matches!(&it.path_specifier, Some(PathSpecifier::Prefix(prefix)) if prefix == "/")
    })
}

/// `outbound|9999|v1|bill-service…` is `v1`; a cluster without a subset goes by its name.
fn version(cluster: &str) -> String {
    let subset = cluster.split('|').nth(2).filter(|subset| !subset.is_empty());
    subset.unwrap_or(cluster).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::captures;
    use super::*;

    fn default_file() -> String {
        write(&captures::FRONT.snapshot().unwrap()).unwrap()
    }

    #[test]
    fn the_file_holds_what_istiod_wrote() {
        let snapshot = captures::FRONT.snapshot().unwrap();
        let resources = parse("f.yaml", default_file().as_bytes(), &[]).unwrap();
        assert_eq!(
            resources.len(),
            7,
            "a route table, three clusters, three endpoint sets"
        );
        for resource in &resources {
            let captured = snapshot.find(&resource.any.type_url, &resource.name).unwrap();
            let descriptors = Descriptors::full().unwrap();
            let json = |named: &Named| descriptors.any_to_json(&named.any.type_url, &named.any.value);
            assert_eq!(json(resource), json(captured), "{}", resource.name);
        }
        assert!(default_file().contains("weight: 90"));
    }

    #[test]
    fn what_was_not_edited_keeps_its_bytes() {
        let snapshot = captures::FRONT.snapshot().unwrap();
        let known: Vec<Named> = snapshot
            .types()
            .flat_map(|kind| snapshot.all(kind))
            .cloned()
            .collect();
        let text = default_file().replace("weight: 90", "weight: 89");
        for resource in parse("f.yaml", text.as_bytes(), &known).unwrap() {
            assert_eq!(
                known.contains(&resource),
                resource.name != BILL_ROUTES,
                "{}",
                resource.name
            );
        }
    }

    fn check(from: &str, to: &str, expected: &str) {
        let text = default_file();
        let edited = text.replacen(from, to, 1);
        assert_ne!(edited, text, "{from:?} stands in the file");
        let line = 1 + text[..text.find(from).unwrap()].matches('\n').count();
        let error = parse("f.yaml", edited.as_bytes(), &[])
            .err()
            .map(|error| error.to_string())
            .unwrap();
        assert!(
            error.starts_with(&format!("f.yaml:{line}:")) && error.contains(expected),
            "line {line}, {expected:?}: {error}"
        );
    }

    #[test]
    fn a_mistake_is_placed() {
        check("weight: 90", "weihgt: 90", "did you mean `weight`?");
        check("weight: 90", "weight: ninety", "weight");
        check("weight: 90", "weight: 90: 1", "");
        check("weight: 90", "weight: -1", "weight");
        check("timeout: \"0s\"", "timeout: \"soon\"", "duration");
        check("type: EDS", "type: REDIS", "type");
    }

    #[test]
    fn a_value_that_a_sidecar_would_refuse_is_placed() {
        let text = default_file()
            .replace("weight: 90", "weight: 0")
            .replace("weight: 10", "weight: 0");
        let error = parse("f.yaml", text.as_bytes(), &[])
            .err()
            .map(|error| error.to_string())
            .unwrap();
        assert!(
            error.starts_with("f.yaml:") && error.contains("weighted_clusters"),
            "{error}"
        );
    }

    #[test]
    fn weights_are_read_from_the_route_of_bill_service() {
        let mut snapshot = captures::FRONT.snapshot().unwrap();
        assert_eq!(weights(&snapshot), [("v1".to_owned(), 90), ("v2".to_owned(), 10)]);
        let text = default_file().replace("weight: 90", "weight: 25");
        for resource in parse("f.yaml", text.as_bytes(), &[]).unwrap() {
            snapshot.put(&resource.any.type_url.clone(), resource);
        }
        assert_eq!(weights(&snapshot), [("v1".to_owned(), 25), ("v2".to_owned(), 10)]);
    }
}
