//! What of the configuration is not in force, or has no effect: for whoever asks `/config/problems`.
use std::sync::Arc;
use std::time::SystemTime;

use outrigger_model::decode::{
    CLUSTER_TYPE, EXTENSION_TYPE, LISTENER_TYPE, LOAD_ASSIGNMENT_TYPE, NAME_TABLE_TYPE, PROXY_CONFIG_TYPE,
    ROUTE_TABLE_TYPE, SCOPE_TYPE, SECRET_TYPE, VIRTUAL_HOST_TYPE,
};

use super::control::Control;
use super::owners::Owners;
use super::store::Store;

/// One thing to know about a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// What happened.
    pub(crate) kind: Kind,
    /// Type of the resource.
    pub(crate) type_url: &'static str,
    /// Its name.
    pub(crate) resource: Arc<str>,
    /// The field; empty: the whole of it, or the reason says which.
    pub(crate) path: String,
    /// Why, or what is not done.
    pub(crate) reason: String,
    /// Since when.
    pub(crate) since: SystemTime,
    /// Of the response that brought it.
    pub(crate) version: Arc<str>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Refused; what was in force before stays.
    Rejected,
    /// In force, but for a field that has no behaviour here.
    Unsupported,
}

impl Control {
    /// Refused resources first, then fields without effect; by type and name.
    pub(crate) fn problems(&self) -> Vec<Listed> {
        let mut listed = Vec::new();
        list(CLUSTER_TYPE, &self.clusters.store, &mut listed);
        list(LOAD_ASSIGNMENT_TYPE, &self.clusters.endpoints, &mut listed);
        list(LISTENER_TYPE, &self.listeners.store, &mut listed);
        list(ROUTE_TABLE_TYPE, &self.listeners.routes, &mut listed);
        list(NAME_TABLE_TYPE, &self.names.store, &mut listed);
        list(PROXY_CONFIG_TYPE, &self.proxy_config.store, &mut listed);
        for store in self.listeners.parts.scopes.values() {
            list(SCOPE_TYPE, store, &mut listed);
        }
        for store in self.listeners.parts.hosts.values() {
            list(VIRTUAL_HOST_TYPE, store, &mut listed);
        }
        for store in self.listeners.extensions.stores.values() {
            list(EXTENSION_TYPE, store, &mut listed);
        }
        for store in self.secret_stores.values() {
            list(SECRET_TYPE, store, &mut listed);
        }
        list_disputes(LOAD_ASSIGNMENT_TYPE, &self.clusters.owners, &mut listed);
        list_disputes(ROUTE_TABLE_TYPE, &self.listeners.owners, &mut listed);
        listed.sort_by(|one, other| {
            let key = |each: &Listed| (each.kind, each.type_url, each.resource.clone());
            key(one).cmp(&key(other))
        });
        listed
    }
}

fn list_disputes(type_url: &'static str, owners: &Owners, listed: &mut Vec<Listed>) {
    listed.extend(owners.disputes().map(|(name, dispute)| Listed {
        kind: Kind::Rejected,
        type_url,
        resource: name.into(),
        path: String::new(),
        reason: dispute.text(),
        since: dispute.since,
        version: "".into(),
    }));
}

fn list<T>(type_url: &'static str, store: &Store<T>, listed: &mut Vec<Listed>) {
    listed.extend(store.refused.iter().map(|(name, refused)| {
        let (path, reason) = parts(&refused.reason);
        Listed {
            kind: Kind::Rejected,
            type_url,
            resource: name.clone(),
            path: path.to_owned(),
            reason: reason.to_owned(),
            since: refused.since,
            version: refused.version.clone(),
        }
    }));
    for (name, accepted) in &store.accepted {
        listed.extend(accepted.problems.iter().map(|problem| Listed {
            kind: Kind::Unsupported,
            type_url,
            resource: name.clone(),
            path: problem.path.clone(),
            reason: problem.reason.clone(),
            since: accepted.updated,
            version: accepted.version.clone(),
        }));
    }
}

/// The field path and the rest of `cluster "x": connect_timeout: must be …`, the text of a rejection.
fn parts(reason: &str) -> (&str, &str) {
    let rest = reason.split_once("\": ").map_or(reason, |(_, rest)| rest);
    match rest.split_once(": ") {
        Some((path, reason)) if is_path(path) => (path, reason),
        _ => ("", rest),
    }
}

fn is_path(text: &str) -> bool {
    let mut in_quotes = false;
    !text.is_empty()
        && text.chars().all(|letter| {
            in_quotes ^= letter == '"';
            in_quotes || letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '[' | ']' | '"')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told_from_a_reason() {
        let check = |text: &str, path: &str, reason: &str| assert_eq!(parts(text), (path, reason), "{text}");
        check(
            "cluster \"a: b\": connect_timeout: must be more than 0",
            "connect_timeout",
            "must be more than 0",
        );
        check(
            "listener \"l\": filter_chains[2].metadata[\"a b\"].x: is missing",
            "filter_chains[2].metadata[\"a b\"].x",
            "is missing",
        );
        check(
            "cluster \"c\": malformed cluster: too short",
            "",
            "malformed cluster: too short",
        );
        check("occurs more than once", "", "occurs more than once");
    }
}
