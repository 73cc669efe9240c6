//! Names that stand twice. Source: Envoy `ListenerManagerImpl`, `CdsApiHelper`: "duplicate listener", "duplicate cluster … found".
use std::collections::HashMap;

use super::finding::{Findings, Rule};
use super::resource::{Kind, Resource, Resources};

/// Two resources of a kind in one response or bootstrap may not share a name; in two files they may if they are equal.
pub(super) fn check(resources: &Resources, findings: &mut Findings) {
    let mut first: HashMap<(Kind, &str), &Resource> = HashMap::new();
    for resource in resources.current() {
        // A listener without a name gets one of its own.
        // Bootstraps, name tables, proxy configurations have no names.
        if resource.name.is_empty() {
            continue;
        }
        let earlier = *first.entry((resource.kind, &resource.name)).or_insert(resource);
        if std::ptr::eq(earlier, resource) {
            continue;
        }
        let same_group = earlier.group == resource.group && earlier.file == resource.file;
        if same_group && resource.is_dumped {
            // The active and the warming state.
            continue;
        }
        if same_group || earlier.message != resource.message {
            let what = resource.kind.name();
            let reason = match (same_group, earlier.is_static != resource.is_static) {
                (false, true) => format!("the bootstrap has a {what} of this name; that one stays in force"),
                (true, _) => format!("another {what} has the name {:?}", resource.name),
                (false, false) => format!("another file holds a different {what} of this name"),
            };
            findings.add(
                Rule::DuplicateName,
                resource,
                name_field(resource.kind),
                reason,
                None,
            );
        }
    }
}

fn name_field(kind: Kind) -> &'static str {
    if kind == Kind::Endpoints {
        "cluster_name"
    } else {
        "name"
    }
}
