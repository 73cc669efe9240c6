//! What resources name: is it there, and is what is there named?
//!
//! A kind is judged only where the files hold all of it (a CDS response, a dump, a bootstrap without CDS); else one note says what was
//! left out. A cluster that is missing is an error, unless the route table says `validate_clusters: false`. Clusters that configuration sources speak through must be in the bootstrap, so they are judged only if there is one.
use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};

use super::finding::{Findings, Rule, Severity, join};
use super::resource::{Kind, Resource, Resources, STATIC_RESOURCES};
use super::walk::{self, At, Go, text};
use crate::dump::Descriptors;
use crate::field::nearest;

mod table;

use table::{FIELDS, Target};

/// Suggestions cost the product of both names' lengths for every known name.
const MAX_SUGGESTIONS: usize = 100;
/// Names that one note lists.
const MAX_LISTED: usize = 5;

/// A name in a resource.
struct Use<'r> {
    target: Target,
    name: String,
    /// In the resource.
    path: String,
    resource: &'r Resource,
    /// Its route table says `validate_clusters: false`: clusters may come later.
    may_be_missing: bool,
}

/// Looks up every name, and every resource that should be named.
pub(super) fn check(descriptors: &Descriptors, resources: &Resources, findings: &mut Findings) {
    let mut uses = Vec::new();
    for resource in resources.current() {
        // The path of the route table that the walk is in, and what it says.
        let mut lenient: Option<String> = None;
        walk::walk(descriptors, &resource.message, &mut |message, at| {
            if is_lenient(message) {
                lenient = Some(at.path.to_owned());
            }
            let first = uses.len();
            let go = collect(message, at, resource, &mut uses);
            let is_inside = lenient.as_deref().is_some_and(|table| at.path.starts_with(table));
            for named in uses.iter_mut().skip(first) {
                named.may_be_missing = is_inside;
            }
            go
        });
    }
    let names = Names::new(resources);
    let mut suggestions = MAX_SUGGESTIONS;
    let mut unchecked: BTreeMap<(usize, Kind), usize> = BTreeMap::new();
    for named in &uses {
        match names.find(named) {
            Found::Yes => {}
            Found::Unknown(kind) => *unchecked.entry((named.resource.file, kind)).or_default() += 1,
            Found::No(reason) => {
                let nearest = (suggestions > 0).then(|| names.nearest(named)).flatten();
                suggestions = suggestions.saturating_sub(1);
                let rule = named.target.missing();
                let severity = if named.may_be_missing {
                    Severity::Warning
                } else {
                    rule.severity()
                };
                findings.add_as(severity, rule, named.resource, &named.path, reason, nearest);
            }
        }
    }
    for ((file, kind), count) in unchecked {
        findings.add_to_file(Rule::NotChecked, file, "", unchecked_text(kind, count));
    }
    unused(resources, &uses, findings);
}

fn unchecked_text(kind: Kind, count: usize) -> String {
    let what = kind.name();
    let names = if count == 1 {
        "1 name".to_owned()
    } else {
        format!("{count} names")
    };
    format!("{names} could not be looked up: no file says which {what}s there are; give that one too")
}

/// A route table whose clusters are not looked at when it is loaded. Source: route.proto `validate_clusters`; istiod always says so.
fn is_lenient(message: &DynamicMessage) -> bool {
    if message.descriptor().full_name() != "envoy.config.route.v3.RouteConfiguration" {
        return false;
    }
    let value = message.get_field_by_name("validate_clusters");
    let value = value.as_deref().and_then(Value::as_message);
    message.has_field_by_name("validate_clusters")
        && value.and_then(|value| value.get_field_by_name("value")?.as_bool()) == Some(false)
}

/// The names in one message. What a bootstrap holds is a resource by itself.
fn collect<'r>(message: &DynamicMessage, at: &At<'_>, resource: &'r Resource, uses: &mut Vec<Use<'r>>) -> Go {
    let descriptor = message.descriptor();
    let full_name = descriptor.full_name();
    if resource.kind == Kind::Bootstrap && at.path == STATIC_RESOURCES {
        return Go::Past;
    }
    for (_, field, target) in FIELDS.iter().filter(|(of, ..)| *of == full_name) {
        let Some(value) = message.get_field_by_name(field) else {
            continue;
        };
        let mut add = |name: &str, path: String| {
            if !name.is_empty() {
                uses.push(Use {
                    target: target.in_place(message, at),
                    name: name.to_owned(),
                    path,
                    resource,
                    may_be_missing: false,
                });
            }
        };
        match value.as_ref() {
            Value::String(name) => add(name, at.field(field)),
            Value::List(names) => {
                for (index, name) in names.iter().filter_map(Value::as_str).enumerate() {
                    add(name, join(at.path, &format!("{field}[{index}]")));
                }
            }
            _ => {}
        }
    }
    if let Some((name, path)) = eds_name(message, at) {
        uses.push(Use {
            target: Target::Endpoints,
            name,
            path,
            resource,
            may_be_missing: false,
        });
    }
    Go::Inside
}

/// What an EDS cluster's endpoints are called. Source: cluster.proto `EdsClusterConfig.service_name`.
fn eds_name(message: &DynamicMessage, at: &At<'_>) -> Option<(String, String)> {
    if message.descriptor().full_name() != "envoy.config.cluster.v3.Cluster" {
        return None;
    }
    // `type` is a oneof with `cluster_type`; 3 is EDS.
    if message.get_field_by_name("type")?.as_enum_number()? != 3 {
        return None;
    }
    let config = message.get_field_by_name("eds_cluster_config")?;
    let config = config.as_message()?;
    let source = config.get_field_by_name("eds_config")?;
    // From a file of its own.
    if ["path", "path_config_source"].iter().any(|field| {
        source
            .as_message()
            .is_some_and(|source| source.has_field_by_name(field))
    }) {
        return None;
    }
    let service = text(config, "service_name");
    Some(if service.is_empty() {
        (text(message, "name"), at.field("name"))
    } else {
        (service, at.field("eds_cluster_config.service_name"))
    })
}

enum Found {
    Yes,
    /// The files do not hold all of the kind.
    Unknown(Kind),
    No(String),
}

/// Every name there is.
struct Names<'r> {
    resources: &'r Resources,
    by_kind: BTreeMap<(Kind, bool), BTreeSet<&'r str>>,
    has_bootstrap: bool,
}

impl<'r> Names<'r> {
    fn new(resources: &'r Resources) -> Self {
        let mut by_kind: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for resource in resources.current() {
            let names = by_kind.entry((resource.kind, resource.is_static)).or_default();
            names.insert(resource.name.as_str());
        }
        Self {
            resources,
            by_kind,
            has_bootstrap: resources.of(Kind::Bootstrap).next().is_some(),
        }
    }

    fn has(&self, kind: Kind, is_static: bool, name: &str) -> bool {
        self.by_kind
            .get(&(kind, is_static))
            .is_some_and(|names| names.contains(name))
    }

    fn find(&self, named: &Use<'_>) -> Found {
        let (kind, name) = (named.target.kind(), named.name.as_str());
        let anywhere = self.has(kind, true, name) || self.has(kind, false, name);
        match named.target {
            Target::StaticCluster if self.has(kind, true, name) || !self.has_bootstrap => Found::Yes,
            Target::StaticCluster if anywhere => Found::No(format!(
                "cluster {name:?} comes over CDS; a configuration source needs one of the bootstrap"
            )),
            Target::StaticCluster => Found::No(format!("the bootstrap has no cluster {name:?}")),
            Target::StaticSecret if anywhere => Found::Yes,
            Target::StaticSecret if !self.has_bootstrap => Found::Unknown(kind),
            Target::StaticSecret => Found::No(format!(
                "there is no static secret {name:?}, and no sds_config to ask for one"
            )),
            _ if anywhere => Found::Yes,
            // Usually served by the agent beside the proxy, whose secrets are in no file.
            Target::Secret if !self.resources.is_complete(kind) => Found::Yes,
            _ if !self.resources.is_complete(kind) => Found::Unknown(kind),
            Target::Endpoints => Found::No(format!("there are no endpoints of the name {name:?}")),
            _ => Found::No(format!("there is no {} {name:?}", kind.name())),
        }
    }

    fn nearest(&self, named: &Use<'_>) -> Option<String> {
        let kind = named.target.kind();
        let names = [true, false]
            .into_iter()
            .filter_map(|is_static| self.by_kind.get(&(kind, is_static)));
        let found = nearest(&named.name, names.flatten().copied())?;
        // Of names that have nothing in common, the nearest is no help.
        let shared = found
            .chars()
            .zip(named.name.chars())
            .take_while(|(left, right)| left == right)
            .count();
        (shared * 3 >= named.name.chars().count()).then(|| found.to_owned())
    }
}

/// What nobody names.
fn unused(resources: &Resources, uses: &[Use<'_>], findings: &mut Findings) {
    let used: BTreeSet<_> = uses
        .iter()
        .map(|named| (named.target.kind(), named.name.as_str()))
        .collect();
    let knows = |kind| resources.is_complete(kind);
    let is_unused = |resource: &&Resource| !used.contains(&(resource.kind, resource.name.as_str()));
    for secret in resources.of(Kind::Secret).filter(is_unused) {
        // Who would name it is in clusters and listeners.
        if knows(Kind::Cluster) || knows(Kind::Listener) {
            findings.add(
                Rule::UnusedSecret,
                secret,
                "name",
                "no TLS context names this secret",
                None,
            );
        }
    }
    if knows(Kind::Listener) {
        for table in resources.of(Kind::RouteTable).filter(is_unused) {
            findings.add(
                Rule::UnusedRoutes,
                table,
                "name",
                "no listener names this route table",
                None,
            );
        }
    }
    if knows(Kind::Cluster) {
        for endpoints in resources.of(Kind::Endpoints).filter(is_unused) {
            let reason = "no cluster gets its endpoints under this name";
            findings.add(Rule::MissingEndpoints, endpoints, "cluster_name", reason, None);
        }
    }
    if knows(Kind::Listener)
        && (knows(Kind::RouteTable) || !uses.iter().any(|named| named.target == Target::Routes))
    {
        unused_clusters(resources.of(Kind::Cluster).filter(is_unused), findings);
    }
}

/// One note a file: in a mesh most clusters are there in case they are needed.
fn unused_clusters<'r>(clusters: impl Iterator<Item = &'r Resource>, findings: &mut Findings) {
    let mut by_file: BTreeMap<usize, Vec<&Resource>> = BTreeMap::new();
    for cluster in clusters {
        by_file.entry(cluster.file).or_default().push(cluster);
    }
    for (file, clusters) in by_file {
        if let [cluster] = clusters.as_slice() {
            findings.add(
                Rule::UnusedCluster,
                cluster,
                "name",
                "nothing names this cluster",
                None,
            );
            continue;
        }
        let listed: Vec<_> = clusters
            .iter()
            .take(MAX_LISTED)
            .map(|cluster| format!("{:?}", cluster.name))
            .collect();
        let more = match clusters.len() - listed.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let reason = format!(
            "nothing names {} clusters: {}{more}",
            clusters.len(),
            listed.join(", ")
        );
        findings.add_to_file(Rule::UnusedCluster, file, "", reason);
    }
}
