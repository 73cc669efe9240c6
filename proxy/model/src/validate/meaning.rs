//! What the model says of each resource by itself.
use envoy_types::pb::envoy::config::bootstrap::v3 as pb;
use prost::Message as _;
use prost_reflect::DynamicMessage;

use super::finding::{Findings, Rule};
use super::prune::{self, Pruned};
use super::resource::{Kind, Resource, Resources};
use crate::decode;
use crate::document::{Segment, segments};
use crate::dump::Descriptors;
use crate::field::{Problem, Rejection};

/// Refusals of one resource that are looked for; each costs a conversion.
const MAX_REFUSALS: usize = 50;

/// Asks the model about every resource that was read whole.
pub(super) fn check(descriptors: &Descriptors, resources: &Resources, findings: &mut Findings) {
    for resource in resources.all.iter().filter(|resource| !resource.tainted) {
        one(descriptors, resource, findings);
    }
}

fn one(descriptors: &Descriptors, resource: &Resource, findings: &mut Findings) {
    let mut message = resource.message.clone();
    let mut pruned = Pruned::default();
    for _ in 0..MAX_REFUSALS {
        let rejection = match ask(resource.kind, &message) {
            Ok(problems) => return list(resource, &pruned, problems, findings),
            Err(rejection) => rejection,
        };
        let Rejection {
            path,
            reason,
            did_you_mean,
            resource: _,
        } = rejection;
        let original = pruned.original(&path);
        if !pruned.explains(&original) {
            let reason = sentence(&path, reason);
            findings.add(
                Rule::Rejected,
                resource,
                &prune::write(&original),
                reason,
                did_you_mean,
            );
        }
        if !pruned.take(descriptors, &mut message, &path) {
            return;
        }
    }
}

fn list(resource: &Resource, pruned: &Pruned, problems: Vec<Problem>, findings: &mut Findings) {
    for Problem { path, reason } in problems {
        let original = prune::write(&pruned.original(&path));
        findings.add(
            Rule::Unsupported,
            resource,
            &original,
            sentence(&path, reason),
            None,
        );
    }
}

fn ask(kind: Kind, message: &DynamicMessage) -> Result<Vec<Problem>, Rejection> {
    let bytes = message.encode_to_vec();
    match kind {
        Kind::Bootstrap => bootstrap(&bytes),
        kind => verdict(kind, &bytes),
    }
}

/// A reason that reads on from its path, as a NACK prints them, with the name of the field before it.
fn sentence(path: &str, reason: String) -> String {
    let reads_on = ["is ", "has ", "must ", "needs ", "does ", "are "]
        .iter()
        .any(|verb| reason.starts_with(verb));
    let field = segments(path)
        .into_iter()
        .rev()
        .find_map(|segment| match segment {
            Segment::Name(name) | Segment::Key(name) => Some(name),
            Segment::Index(_) => None,
        });
    match field {
        Some(field) if reads_on => format!("`{field}` {reason}"),
        _ => reason,
    }
}

fn verdict(kind: Kind, bytes: &[u8]) -> Result<Vec<Problem>, Rejection> {
    match kind {
        Kind::Bootstrap => Ok(Vec::new()),
        Kind::Listener => decode::listener(bytes).map(|converted| converted.problems),
        Kind::RouteTable => decode::route_table(bytes).map(|converted| converted.problems),
        Kind::Cluster => decode::cluster(bytes).map(|converted| converted.problems),
        Kind::Endpoints => decode::load_assignment(bytes).map(|converted| converted.problems),
        Kind::Secret => decode::secret(bytes).map(|converted| converted.problems),
        Kind::Scope => decode::scope(bytes).map(|converted| converted.problems),
        Kind::VirtualHost => decode::virtual_host(bytes).map(|converted| converted.problems),
        Kind::Filter => decode::http_filter(bytes).map(|converted| converted.problems),
        Kind::NameTable => decode::name_table(bytes).map(|converted| converted.problems),
        Kind::ProxyConfig => decode::proxy_config(bytes).map(|converted| converted.problems),
    }
}

/// The bootstrap with those of its static resources that are right: each of them is asked about by itself, so that one that is wrong
/// does not hide the others.
fn bootstrap(bytes: &[u8]) -> Result<Vec<Problem>, Rejection> {
    // Encoded by this program; prost's own limit of nesting is the only thing that could refuse it, and nothing nests so deep.
    let mut proto = pb::Bootstrap::decode(bytes).unwrap_or_default();
    if let Some(resources) = &mut proto.static_resources {
        let right = |kind, bytes: Vec<u8>| verdict(kind, &bytes).is_ok();
        let mut names = std::collections::HashSet::new();
        let mut first = |kind, name: &str| name.is_empty() || names.insert((kind, name.to_owned()));
        resources
            .listeners
            .retain(|item| first(Kind::Listener, &item.name) && right(Kind::Listener, item.encode_to_vec()));
        resources
            .clusters
            .retain(|item| first(Kind::Cluster, &item.name) && right(Kind::Cluster, item.encode_to_vec()));
        resources
            .secrets
            .retain(|item| first(Kind::Secret, &item.name) && right(Kind::Secret, item.encode_to_vec()));
    }
    let mut problems = decode::bootstrap(proto)?.problems;
    problems.retain(|problem| !problem.path.starts_with("static_resources."));
    Ok(problems)
}
