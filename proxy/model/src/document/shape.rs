//! Which message an unlabelled document is: what people and tools write to files without saying so.
//!
//! `@type` decides where it stands. Without it the names of the members do: of the messages that a file may hold, the one that has the
//! most of them. Knows `istioctl proxy-config … -o json`, which prints lists of resources without types.
use prost_reflect::MessageDescriptor;

use super::nearest::nearest;
use super::tree::{Member, Node, Tree};
use crate::dump::Descriptors;

const RESPONSE: &str = "envoy.service.discovery.v3.DiscoveryResponse";
const DELTA_RESPONSE: &str = "envoy.service.discovery.v3.DeltaDiscoveryResponse";

/// Messages that a file may hold without naming them.
const CANDIDATES: [&str; 9] = [
    "envoy.config.bootstrap.v3.Bootstrap",
    "envoy.admin.v3.ConfigDump",
    RESPONSE,
    DELTA_RESPONSE,
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.extensions.transport_sockets.tls.v3.Secret",
];

/// The message that an object is, by full name.
///
/// # Errors
/// Why it cannot be told.
pub(super) fn message_of(descriptors: &Descriptors, node: &Node) -> Result<&'static str, String> {
    let Tree::Object(members) = &node.value else {
        return Err(format!(
            "expected an object: a bootstrap, a DiscoveryResponse, a config dump or a resource; found {}",
            node.value.kind()
        ));
    };
    if let Some(kind) = kubernetes_kind(members) {
        return Err(format!(
            "this is a Kubernetes object ({kind}), not Envoy configuration; what istiod makes of it: `istioctl proxy-config all POD -o json`"
        ));
    }
    if has(members, "@type") {
        return Ok("google.protobuf.Any");
    }
    if members.is_empty() {
        return Err("the object is empty: there is nothing to check".to_owned());
    }
    if let Some(response) = response(members) {
        return Ok(response);
    }
    let candidates: Vec<_> = CANDIDATES
        .iter()
        .filter_map(|name| Some((*name, descriptors.message(name)?)))
        .collect();
    best(&candidates, |descriptor| {
        count(members, |name| has_field(descriptor, name))
    })
    .or_else(|| {
        best(&candidates, |descriptor| {
            count(members, |name| has_near_field(descriptor, name))
        })
    })
    .ok_or_else(|| unclear(members))
}

/// Both kinds have `resources`; what stands in them tells.
fn response(members: &[Member]) -> Option<&'static str> {
    let resources = members.iter().find(|member| member.name == "resources")?;
    let first = match &resources.value.value {
        Tree::List(items) => &items.first()?.value,
        one => one,
    };
    let Tree::Object(item) = first else { return None };
    let is_delta = !has(item, "@type") && has(item, "resource");
    Some(if is_delta { DELTA_RESPONSE } else { RESPONSE })
}

/// The only one with the highest score above 0.
fn best(
    candidates: &[(&'static str, MessageDescriptor)],
    score: impl Fn(&MessageDescriptor) -> usize,
) -> Option<&'static str> {
    let scores = candidates
        .iter()
        .map(|(name, descriptor)| (score(descriptor), *name));
    let scores: Vec<_> = scores.collect();
    let highest = scores
        .iter()
        .map(|(score, _)| *score)
        .max()
        .filter(|score| *score > 0)?;
    let mut winners = scores.iter().filter(|(score, _)| *score == highest);
    match (winners.next(), winners.next()) {
        (Some((_, name)), None) => Some(name),
        _ => None,
    }
}

fn count(members: &[Member], belongs: impl Fn(&str) -> bool) -> usize {
    members.iter().filter(|member| belongs(&member.name)).count()
}

fn has(members: &[Member], name: &str) -> bool {
    members.iter().any(|member| member.name == name)
}

fn has_field(descriptor: &MessageDescriptor, name: &str) -> bool {
    descriptor.get_field_by_name(name).is_some() || descriptor.get_field_by_json_name(name).is_some()
}

fn has_near_field(descriptor: &MessageDescriptor, name: &str) -> bool {
    let names = descriptor
        .fields()
        .flat_map(|field| [field.name().to_owned(), field.json_name().to_owned()]);
    nearest(name, names).is_some()
}

fn unclear(members: &[Member]) -> String {
    let names: Vec<_> = members
        .iter()
        .take(3)
        .map(|member| format!("`{}`", member.name))
        .collect();
    let more = if members.len() > names.len() { ", …" } else { "" };
    format!(
        "cannot tell which message this is from {}{more}; name it with `@type`, as \"type.googleapis.com/envoy.config.cluster.v3.Cluster\"",
        names.join(", ")
    )
}

fn kubernetes_kind(members: &[Member]) -> Option<&str> {
    let kind = members.iter().find(|member| member.name == "kind")?;
    match &kind.value.value {
        Tree::String(kind) if has(members, "apiVersion") => Some(kind),
        _ => None,
    }
}
