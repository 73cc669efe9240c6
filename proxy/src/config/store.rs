//! What was received of one resource type, by name: the accepted bytes and the last rejection.
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use outrigger_model::field::{Converted, Problem, Rejection};

use crate::stats::{Counter, Registry};

/// The last accepted configuration of a resource.
#[derive(Debug)]
pub(super) struct Accepted<T> {
    /// As received; `/config_dump` renders from it.
    pub(super) bytes: Bytes,
    hash: u64,
    /// The response's version.
    pub(super) version: String,
    /// When.
    pub(super) updated: SystemTime,
    /// What it means.
    pub(super) model: Arc<T>,
    /// Fields without behaviour.
    pub(super) problems: Vec<Problem>,
    /// From the bootstrap file.
    pub(super) is_static: bool,
}

/// The last refused configuration of a resource; gone as soon as one is accepted.
#[derive(Debug)]
pub(super) struct Refused {
    /// As received.
    pub(super) bytes: Bytes,
    /// The response's version.
    pub(super) version: String,
    /// When.
    pub(super) updated: SystemTime,
    /// Why.
    pub(super) reason: String,
}

/// One resource type.
#[derive(Debug)]
pub(super) struct Store<T> {
    /// What is in force.
    pub(super) accepted: BTreeMap<String, Accepted<T>>,
    /// What is not.
    pub(super) refused: BTreeMap<String, Refused>,
    /// Version of the last response that was applied.
    pub(super) version: String,
    /// Where changes are counted, if they are.
    pub(super) changes: Option<Changes>,
}

/// `cluster_manager.cluster_*`, `listener_manager.listener_*`. Source: Envoy docs, cluster manager and listener manager statistics.
#[derive(Debug)]
pub(super) struct Changes {
    added: Counter,
    modified: Counter,
    removed: Counter,
}

impl Changes {
    /// Registers them; `prefix` ends where `_added` begins.
    pub(super) fn new(registry: &Registry, prefix: &str) -> Self {
        let counter = |change: &str| registry.counter(format!("{prefix}_{change}"));
        Self {
            added: counter("added"),
            modified: counter("modified"),
            removed: counter("removed"),
        }
    }
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self {
            accepted: BTreeMap::new(),
            refused: BTreeMap::new(),
            version: String::new(),
            changes: None,
        }
    }
}

/// What became of a resource.
pub(super) enum Offered<T> {
    /// The same bytes as before: nothing to do.
    Unchanged,
    /// New or changed; [`Store::accept`] makes it count.
    Changed(Pending<T>),
}

/// A converted resource that is not in force yet.
pub(super) struct Pending<T> {
    accepted: Accepted<T>,
}

impl<T> Pending<T> {
    /// What it means.
    pub(super) fn model(&self) -> &Arc<T> {
        &self.accepted.model
    }
}

impl<T> Store<T> {
    /// Looks at a resource: the same bytes cost one hash and no decode.
    ///
    /// # Errors
    /// The model's rejection; it is remembered for `/config_dump`.
    pub(super) fn offer(
        &mut self,
        name: &str,
        version: &str,
        bytes: Bytes,
        decode: impl FnOnce(&[u8]) -> Result<Converted<T>, Rejection>,
    ) -> Result<Offered<T>, String> {
        let hash = hash(&bytes);
        if let Some(known) = self.accepted.get_mut(name)
            && known.hash == hash
            && known.bytes == bytes
        {
            version.clone_into(&mut known.version);
            self.refused.remove(name);
            return Ok(Offered::Unchanged);
        }
        match decode(&bytes) {
            Ok(Converted { value, problems }) => Ok(Offered::Changed(Pending {
                accepted: Accepted {
                    bytes,
                    hash,
                    version: version.to_owned(),
                    updated: SystemTime::now(),
                    model: Arc::new(value),
                    problems,
                    is_static: false,
                },
            })),
            Err(rejection) => {
                let reason = rejection.to_string();
                self.refuse(name, version, bytes, &reason);
                Err(reason)
            }
        }
    }

    /// Puts a resource in force.
    pub(super) fn accept(&mut self, name: &str, pending: Pending<T>) {
        self.refused.remove(name);
        for problem in &pending.accepted.problems {
            tracing::debug!(resource = name, %problem, "configuration field without effect");
        }
        self.insert(name, pending.accepted);
    }

    /// Puts a resource of the bootstrap in force.
    pub(super) fn accept_static(&mut self, name: &str, bytes: Bytes, model: Arc<T>) {
        let hash = hash(&bytes);
        let accepted = Accepted {
            bytes,
            hash,
            version: String::new(),
            updated: SystemTime::now(),
            model,
            problems: Vec::new(),
            is_static: true,
        };
        self.insert(name, accepted);
    }

    fn insert(&mut self, name: &str, accepted: Accepted<T>) {
        let is_new = self.accepted.insert(name.to_owned(), accepted).is_none();
        if let Some(changes) = &self.changes {
            if is_new {
                changes.added.inc();
            } else {
                changes.modified.inc();
            }
        }
    }

    /// Remembers a refusal; what was in force stays.
    pub(super) fn refuse(&mut self, name: &str, version: &str, bytes: Bytes, reason: &str) {
        let refused = Refused {
            bytes,
            version: version.to_owned(),
            updated: SystemTime::now(),
            reason: reason.to_owned(),
        };
        self.refused.insert(name.to_owned(), refused);
    }

    /// Forgets a resource; static ones stay. True: it was in force.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        self.refused.remove(name);
        if self.accepted.get(name).is_some_and(|accepted| accepted.is_static) {
            return false;
        }
        let was_there = self.accepted.remove(name).is_some();
        if let Some(changes) = self.changes.as_ref().filter(|_| was_there) {
            changes.removed.inc();
        }
        was_there
    }

    /// What the resource means now.
    pub(super) fn get(&self, name: &str) -> Option<&Arc<T>> {
        self.accepted.get(name).map(|accepted| &accepted.model)
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{TagRules, text};

    #[test]
    fn what_is_new_changed_and_gone_is_counted() {
        let registry = Registry::new(TagRules::new(&[], false).expect("no rule"));
        let mut store = Store::<String> {
            changes: Some(Changes::new(&registry, "cluster_manager.cluster")),
            ..Store::default()
        };
        let decode = |bytes: &[u8]| {
            Ok(Converted {
                value: String::from_utf8_lossy(bytes).into_owned(),
                problems: Vec::new(),
            })
        };
        for bytes in ["a", "a", "b", "c"] {
            if let Ok(Offered::Changed(pending)) = store.offer("x", "1", Bytes::from(bytes), decode) {
                store.accept("x", pending);
            }
        }
        assert!(store.remove("x") && !store.remove("x"));
        store.accept_static("s", Bytes::new(), Arc::new(String::new()));
        assert!(!store.remove("s"), "the bootstrap's stay");
        let expected = "cluster_manager.cluster_added: 2\ncluster_manager.cluster_modified: 2\n\
                        cluster_manager.cluster_removed: 1\n";
        assert_eq!(text(&registry, None, true), expected);
    }
}
